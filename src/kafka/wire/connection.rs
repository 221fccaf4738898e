//! One connection to a broker: requests out, answers in, one at a time.
//!
//! Promises: every wait is bounded; an answer that is not the one to the question ends the connection. Never: it retries.

use crate::io::pool::Pool;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// To connect to one address.
const CONNECT: Duration = Duration::from_secs(5);
/// Beyond what the broker was told to wait.
const ANSWER: Duration = Duration::from_secs(30);
/// An answer is no longer than what was asked for and one batch of each partition; longer ones are not answers.
const FRAME_MAX: usize = 1 << 30;

/// Why a connection is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not an answer: {0}")]
    Protocol(String),
    /// The broker does not know what is needed.
    #[error("the broker is too old: {0}")]
    Old(String),
}

/// See the module.
pub(super) struct Connection {
    stream: TcpStream,
    versions: ApiVersionsResponse,
    next: i32,
    client_id: StrBytes,
    pool: Pool,
}

impl Connection {
    /// Connects and asks for the versions that the broker knows.
    pub fn open(host: &str, port: u16, client_id: &str, pool: &Pool) -> Result<Self, ConnectionError> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => return Self::greet(stream, client_id, pool),
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    fn greet(stream: TcpStream, client_id: &str, pool: &Pool) -> Result<Self, ConnectionError> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER))?;
        let mut connection = Self {
            stream,
            versions: ApiVersionsResponse::default(),
            next: 0,
            client_id: StrBytes::from_string(client_id.to_owned()),
            pool: pool.clone(),
        };
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("forebay"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let newer: Result<ApiVersionsResponse, _> = connection.ask(&request, 3, Duration::ZERO);
        let versions = match newer {
            Ok(versions) if versions.error_code == 0 => versions,
            // A broker that does not know version 3 says so in version 0.
            Ok(_) | Err(ConnectionError::Protocol(_)) => connection.ask(&request, 0, Duration::ZERO)?,
            Err(error) => return Err(error),
        };
        if versions.error_code != 0 {
            return Err(ConnectionError::Old(format!("its answer to ApiVersions is error {}", versions.error_code)));
        }
        connection.versions = versions;
        Ok(connection)
    }

    /// The newest version of a request that both know, at most `max`.
    pub fn version<R: Request>(&self, min: i16, max: i16) -> Result<i16, ConnectionError> {
        let known = self.versions.api_keys.iter().find(|known| known.api_key == R::KEY);
        let version = known.map(|known| known.max_version.min(max)).filter(|version| *version >= min);
        let old = || ConnectionError::Old(format!("request {} needs version {min}", R::KEY));
        version.filter(|version| known.is_some_and(|known| known.min_version <= *version)).ok_or_else(old)
    }

    /// Sends a request and waits for its answer: `wait` longer than usual.
    pub fn ask<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        wait: Duration,
    ) -> Result<R::Response, ConnectionError> {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.stream.set_read_timeout(Some(ANSWER + wait))?;
        self.send(request, version, number)?;
        let mut answer = self.receive()?;
        let protocol = |error: &dyn std::fmt::Display| ConnectionError::Protocol(error.to_string());
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version));
        let header = header.map_err(|error| protocol(&error))?;
        if header.correlation_id != number {
            return Err(ConnectionError::Protocol(format!("number {}, expected {number}", header.correlation_id)));
        }
        R::Response::decode(&mut answer, version).map_err(|error| protocol(&error))
    }

    fn send<R: Request>(&mut self, request: &R, version: i16, number: i32) -> Result<(), ConnectionError> {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(number)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = BytesMut::with_capacity(512);
        frame.put_i32(0);
        let encoded =
            header.encode(&mut frame, R::header_version(version)).and_then(|()| request.encode(&mut frame, version));
        encoded.map_err(|error| ConnectionError::Protocol(error.to_string()))?;
        let length = (frame.len() - 4) as i32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(self.stream.write_all(&frame)?)
    }

    fn receive(&mut self) -> Result<Bytes, ConnectionError> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = i32::from_be_bytes(length);
        let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_MAX);
        let length = length.ok_or_else(|| ConnectionError::Protocol("its length can't be".to_owned()))?;
        let mut frame = self.pool.take();
        frame.clear();
        frame.reserve_exact(length);
        let taken = (&self.stream).take(length as u64).read_to_end(&mut frame)?;
        if taken < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(self.pool.share(frame))
    }

    /// Another handle, to end what waits here.
    pub fn handle(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::api_versions_response::ApiVersion;
    use kafka_protocol::messages::{FetchRequest, MetadataRequest};
    use std::net::TcpListener;

    /// A broker that answers each request, whose number it is told, with these bytes; then it goes away.
    fn broker(answers: Vec<fn(i32) -> Vec<u8>>) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut length = [0; 4];
                stream.read_exact(&mut length).unwrap();
                let mut request = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut request).unwrap();
                let number = i32::from_be_bytes(request[4..8].try_into().unwrap());
                stream.write_all(&answer(number)).unwrap();
            }
        });
        port
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32).to_be_bytes()[..], body].concat()
    }

    /// A good answer to the first question: Fetch 4 to 13, Metadata 0 to 9.
    fn versions(number: i32) -> Vec<u8> {
        let known = |key, min, max| ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max);
        let answer = ApiVersionsResponse::default().with_api_keys(vec![known(1, 4, 13), known(3, 0, 9)]);
        let mut body = BytesMut::new();
        body.put_i32(number);
        answer.encode(&mut body, 3).unwrap();
        framed(&body)
    }

    fn open(answers: Vec<fn(i32) -> Vec<u8>>) -> Result<Connection, ConnectionError> {
        Connection::open("127.0.0.1", broker(answers), "me", &Pool::new(1))
    }

    #[test]
    fn versions_are_those_that_both_know() {
        let connection = open(vec![versions]).unwrap();
        assert_eq!(connection.version::<FetchRequest>(12, 13).unwrap(), 13);
        assert_eq!(connection.version::<FetchRequest>(12, 17).unwrap(), 13);
        assert_eq!(connection.version::<FetchRequest>(4, 12).unwrap(), 12);
        let old = connection.version::<MetadataRequest>(10, 12);
        assert!(matches!(old, Err(ConnectionError::Old(_))), "{old:?}");
        let none = connection.version::<ApiVersionsRequest>(0, 3);
        assert!(matches!(none, Err(ConnectionError::Old(_))), "{none:?}");
    }

    #[test]
    fn what_is_no_answer_ends_the_connection() {
        let said = |answer: fn(i32) -> Vec<u8>| {
            let mut connection = open(vec![versions, answer]).unwrap();
            let error = connection.ask(&MetadataRequest::default(), 9, Duration::ZERO).map(drop).unwrap_err();
            error.to_string()
        };
        assert_eq!(
            said(|number| framed(&[&(number + 1).to_be_bytes()[..], &[0; 40]].concat())),
            "not an answer: number 2, expected 1"
        );
        assert!(said(|number| framed(&number.to_be_bytes())).starts_with("not an answer"), "too short");
        assert_eq!(said(|_| vec![0xff; 4]), "not an answer: its length can't be");
        assert!(said(|_| [&100u32.to_be_bytes()[..], &[0; 50]].concat()).contains("unexpected end"), "cut");
        assert!(said(|_| Vec::new()).contains("fill whole buffer"), "gone");
    }

    fn unknown_version(number: i32) -> Vec<u8> {
        framed(&[&number.to_be_bytes()[..], &35i16.to_be_bytes(), &0u32.to_be_bytes()].concat())
    }

    #[test]
    fn a_broker_that_does_not_know_the_newest_question_is_asked_an_older_one() {
        let older = |number: i32| {
            let known = ApiVersion::default().with_api_key(1).with_max_version(12);
            let mut body = BytesMut::new();
            body.put_i32(number);
            ApiVersionsResponse::default().with_api_keys(vec![known]).encode(&mut body, 0).unwrap();
            framed(&body)
        };
        let connection = open(vec![unknown_version, older]).unwrap();
        assert_eq!(connection.version::<FetchRequest>(4, 13).unwrap(), 12);
    }

    #[test]
    fn an_old_broker_is_told_from_one_that_is_away() {
        let old = open(vec![unknown_version, unknown_version]).map(drop);
        assert!(matches!(old, Err(ConnectionError::Old(_))), "{old:?}");
        let away = open(Vec::new()).map(drop);
        assert!(matches!(away, Err(ConnectionError::Io(_))), "{away:?}");
    }
}
