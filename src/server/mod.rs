//! HTTP: `/metrics`, `/livez`, `/readyz`, `/status` and `/rate`. On loopback unless configured otherwise.
//!
//! Promises: it runs on a thread of its own, so that a stalled pipeline still answers; dropping it ends it within
//! moments, open connections included. Never: a request without the configured token changes anything.

mod rate;

use crate::clock;
use crate::config;
use crate::pipeline::{Control, Snapshot};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Why HTTP is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address can't be had.
    #[error("cannot serve HTTP on {address} (server.listen): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The thread or its runtime can't be had.
    #[error("cannot start the HTTP server: {0}")]
    Start(#[from] std::io::Error),
}

/// The body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// True when records are taken and delivered.
    pub ready: bool,
    /// Why not; empty when ready.
    pub reasons: Vec<String>,
}

impl Health {
    /// What a snapshot says.
    pub fn of(snapshot: &Snapshot) -> Self {
        let ready = snapshot.is_ready();
        let mut reasons = snapshot.reasons_not_ready.clone();
        if !ready && reasons.is_empty() {
            reasons.push(format!("the pipeline is {}", format!("{:?}", snapshot.phase).to_lowercase()));
        }
        Self { ready, reasons }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts serving what `control` shows; `None` when it is configured off. Returns when the address is bound.
    pub fn start(settings: &config::Server, control: &Control) -> Result<Option<Self>, ServerError> {
        let Some(wanted) = settings.listen else {
            return Ok(None);
        };
        let listener = bind(wanted, settings.listen_is_default)?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let routes = routes(control.clone()).merge(rate::routes(control.clone(), settings.token.clone()));
        let serve = async move {
            let served = async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, routes).await
            };
            tokio::select! {
                result = served => {
                    if let Err(error) = result {
                        tracing::error!(%error, "the HTTP server ended");
                    }
                }
                _ = stopped => {}
            }
        };
        let thread = std::thread::Builder::new().name("http".to_string()).spawn(move || runtime.block_on(serve))?;
        tracing::info!(%address, "serving /metrics, /livez, /readyz and /status");
        Ok(Some(Self { address, stop: Some(stop), thread: Some(thread) }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A failure means that the thread has ended already.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Binds the address; one that nobody chose gives way to any free port.
fn bind(wanted: SocketAddr, is_default: bool) -> Result<TcpListener, ServerError> {
    let fail = |source| ServerError::Bind { address: wanted, source };
    match TcpListener::bind(wanted) {
        Err(error) if is_default && error.kind() == ErrorKind::AddrInUse => {
            tracing::warn!(%wanted, "the default port is taken; using a free one");
            TcpListener::bind(SocketAddr::new(wanted.ip(), 0)).map_err(fail)
        }
        other => other.map_err(fail),
    }
}

fn routes(control: Control) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .with_state(control)
}

async fn metrics(State(control): State<Control>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let metrics = control.metrics();
    metrics.rss_bytes.set(i64::try_from(clock::rss_bytes()).unwrap_or(i64::MAX));
    ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.encode()).into_response()
}

async fn readyz(State(control): State<Control>) -> Response {
    let health = Health::of(&control.snapshot());
    let code = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(health)).into_response()
}

async fn status(State(control): State<Control>) -> Json<Snapshot> {
    Json(control.snapshot())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    fn settings(listen: SocketAddr, listen_is_default: bool) -> config::Server {
        config::Server { listen: Some(listen), listen_is_default, allow_remote: false, token: "secret".to_string() }
    }

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn each_path_answers_and_an_unready_pipeline_says_why() {
        let control = Control::new();
        control.metrics().records_received.inc_by(7);
        let server = Server::start(&settings(any(), false), &control).unwrap().unwrap();
        let ready = ask(server.address(), "/readyz");
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("the pipeline is starting"), "{ready}");
        assert!(ask(server.address(), "/livez").starts_with("HTTP/1.1 200"));
        let metrics = ask(server.address(), "/metrics");
        assert!(metrics.contains("forebay_records_received_total 7\n"), "{metrics}");
        assert!(!metrics.contains("forebay_rss_bytes 0\n"), "{metrics}");
        assert!(ask(server.address(), "/status").contains("\"phase\":\"starting\""));
        assert!(ask(server.address(), "/nothing").starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn health_follows_the_snapshot() {
        let mut snapshot = Snapshot { phase: crate::pipeline::snapshot::Phase::Running, ..Snapshot::default() };
        assert!(Health::of(&snapshot).ready);
        snapshot.reasons_not_ready.push("no broker answers".to_string());
        let health = Health::of(&snapshot);
        assert_eq!((health.ready, health.reasons), (false, vec!["no broker answers".to_string()]));
    }

    #[test]
    fn a_taken_default_gives_way_a_chosen_address_does_not() {
        let taken = TcpListener::bind(any()).unwrap();
        let address = taken.local_addr().unwrap();
        let control = Control::new();
        let server = Server::start(&settings(address, true), &control).unwrap().unwrap();
        assert_ne!(server.address(), address);
        let error = Server::start(&settings(address, false), &control).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("server.listen"), "{error}");
    }

    #[test]
    fn dropping_ends_it_though_a_connection_is_open() {
        let control = Control::new();
        let server = Server::start(&settings(any(), false), &control).unwrap().unwrap();
        let address = server.address();
        let mut idle = TcpStream::connect(address).unwrap();
        idle.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        drop(server);
        assert_eq!(idle.read(&mut [0; 1]).unwrap_or(0), 0);
        assert!(TcpListener::bind(address).is_ok() || TcpStream::connect(address).is_err());
    }

    #[test]
    fn off_is_off() {
        let off = config::Server { listen: None, listen_is_default: false, allow_remote: false, token: String::new() };
        assert!(Server::start(&off, &Control::new()).unwrap().is_none());
    }
}
