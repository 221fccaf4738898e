//! Kafka's record batch format v2 (magic 2): the payload of every block.
//!
//! Promises: what [`BatchBuilder`] writes is a valid Kafka record batch (CRC-32C included) that any Kafka tool can
//! read; [`records`] walks it without copying and answers damaged bytes with an error, never with a panic or an
//! allocation. Never: it does not decompress (an unknown or compressed codec is an error that names it).
//!
//! The *digest* of a block is CRC-32/ISO-HDLC over `first` (i64 LE), the first record's timestamp (i64 LE) and the
//! records section of the canonical encoding (one batch, base offset = `first`, base timestamp = the first record's).
//! It depends only on what can be fetched again, not on how Kafka batched or compressed it.

mod read;

pub use read::{BatchError, Headers, Record, Records, check, digest, records, section};

use super::varint;

/// Bytes before the first record of a batch.
pub const HEADER_LEN: usize = 61;
/// The payload checksum covers pieces of this size one by one.
pub const PIECE: usize = 1 << 20;
/// Bytes a record adds at most besides its key, value and headers.
pub const RECORD_OVERHEAD: usize = 1 + 6 * varint::MAX_LEN;

const MAGIC: u8 = 2;
const ATTRIBUTES: usize = 21;

/// A header of a record: name and value, as handed to [`BatchBuilder::push`].
pub type HeaderRef<'a> = (&'a [u8], Option<&'a [u8]>);

/// A record to be encoded.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Kafka offset.
    pub offset: i64,
    /// Milliseconds since 1970, -1 for none.
    pub timestamp: i64,
    /// The key, if there is one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in their order.
    pub headers: &'a [HeaderRef<'a>],
}

/// Encodes the records of one block as one batch, into a buffer that is reused.
#[derive(Debug)]
pub struct BatchBuilder {
    buffer: Vec<u8>,
    first: i64,
    last: i64,
    base_timestamp: i64,
    max_timestamp: i64,
    count: u32,
}

/// A finished batch.
#[derive(Debug)]
pub struct Encoded {
    /// The encoded batch: a block's payload.
    pub buffer: Vec<u8>,
    /// Records in it.
    pub count: u32,
    /// See the module's words on the digest.
    pub digest: u32,
    /// See [`payload_crc`].
    pub payload_crc: u32,
}

impl BatchBuilder {
    /// Starts the batch of a block whose range begins at `first`. The buffer's contents are dropped, its memory kept.
    pub fn new(mut buffer: Vec<u8>, first: i64) -> Self {
        buffer.clear();
        buffer.resize(HEADER_LEN, 0);
        Self { buffer, first, last: first - 1, base_timestamp: -1, max_timestamp: -1, count: 0 }
    }

    /// Records so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far, the batch's header included.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// One past the last record pushed; `first` while there is none.
    pub fn next(&self) -> i64 {
        self.last + 1
    }

    /// First offset of the range.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// Appends a record: one copy of its bytes, no allocation but the buffer's growth.
    ///
    /// # Panics
    /// If the offset does not lie beyond the last one, or too far from `first` for the format (2³¹).
    #[inline]
    pub fn push(&mut self, record: &RecordRef<'_>) {
        assert!(record.offset > self.last, "offset {} pushed after {}", record.offset, self.last);
        assert!(record.offset - self.first < i64::from(i32::MAX), "offset range of a batch");
        if self.count == 0 {
            self.base_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        let ts_delta = record.timestamp.wrapping_sub(self.base_timestamp);
        let offset_delta = record.offset - self.first;
        let (key_len, key) = bytes_of(record.key);
        let (value_len, value) = bytes_of(record.value);
        let body = 1
            + varint::len(ts_delta)
            + varint::len(offset_delta)
            + varint::len(key_len)
            + key.len()
            + varint::len(value_len)
            + value.len()
            + headers_len(record.headers);
        self.buffer.reserve(body + varint::MAX_LEN);
        let mut head = [0u8; 5 * varint::MAX_LEN];
        let mut at = varint::put(&mut head, body as i64);
        at += 1; // attributes: none are defined
        at += varint::put(&mut head[at..], ts_delta);
        at += varint::put(&mut head[at..], offset_delta);
        at += varint::put(&mut head[at..], key_len);
        self.buffer.extend_from_slice(&head[..at]);
        self.buffer.extend_from_slice(key);
        put_varint(&mut self.buffer, value_len);
        self.buffer.extend_from_slice(value);
        put_varint(&mut self.buffer, record.headers.len() as i64);
        for (name, value) in record.headers {
            let (value_len, value) = bytes_of(*value);
            put_varint(&mut self.buffer, name.len() as i64);
            self.buffer.extend_from_slice(name);
            put_varint(&mut self.buffer, value_len);
            self.buffer.extend_from_slice(value);
        }
        self.last = record.offset;
        self.count += 1;
    }

    /// Closes the batch: the range becomes `[first, next)`, checksums are computed in one pass each.
    ///
    /// # Panics
    /// If `next` lies below the last record's offset + 1.
    pub fn finish(mut self, next: i64, leader_epoch: i32) -> Encoded {
        assert!(next > self.last && next > self.first, "block end {next} after {}", self.last);
        let records_crc = crc32fast::hash(&self.buffer[HEADER_LEN..]);
        let records_len = (self.buffer.len() - HEADER_LEN) as u64;
        self.write_header(next, leader_epoch);
        let digest = digest_of(self.first, self.base_timestamp, records_crc, records_len);
        let payload_crc = if self.buffer.len() <= PIECE {
            combined(&self.buffer[..HEADER_LEN], records_crc, records_len)
        } else {
            payload_crc(&self.buffer)
        };
        Encoded { buffer: self.buffer, count: self.count, digest, payload_crc }
    }

    fn write_header(&mut self, next: i64, leader_epoch: i32) {
        let length = (self.buffer.len() - 12) as i32;
        let last_delta = (next - 1 - self.first) as i32;
        let header = &mut self.buffer[..HEADER_LEN];
        header[0..8].copy_from_slice(&self.first.to_be_bytes());
        header[8..12].copy_from_slice(&length.to_be_bytes());
        header[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
        header[16] = MAGIC;
        header[21..23].copy_from_slice(&0i16.to_be_bytes());
        header[23..27].copy_from_slice(&last_delta.to_be_bytes());
        header[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        header[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        header[43..51].copy_from_slice(&(-1i64).to_be_bytes());
        header[51..53].copy_from_slice(&(-1i16).to_be_bytes());
        header[53..57].copy_from_slice(&(-1i32).to_be_bytes());
        header[57..61].copy_from_slice(&(self.count as i32).to_be_bytes());
        let crc = crc32c::crc32c(&self.buffer[ATTRIBUTES..]);
        self.buffer[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}

#[inline]
fn bytes_of(field: Option<&[u8]>) -> (i64, &[u8]) {
    field.map_or((-1, &[]), |bytes| (bytes.len() as i64, bytes))
}

#[inline]
fn put_varint(buffer: &mut Vec<u8>, value: i64) {
    let mut out = [0; varint::MAX_LEN];
    let len = varint::put(&mut out, value);
    buffer.extend_from_slice(&out[..len]);
}

#[inline]
fn headers_len(headers: &[HeaderRef<'_>]) -> usize {
    let each = |(name, value): &HeaderRef<'_>| {
        let (value_len, value) = bytes_of(*value);
        varint::len(name.len() as i64) + name.len() + varint::len(value_len) + value.len()
    };
    varint::len(headers.len() as i64) + headers.iter().map(each).sum::<usize>()
}

fn combined(prefix: &[u8], rest_crc: u32, rest_len: u64) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(prefix);
    crc.combine(&crc32fast::Hasher::new_with_initial_len(rest_crc, rest_len));
    crc.finalize()
}

fn digest_of(first: i64, base_timestamp: i64, records_crc: u32, records_len: u64) -> u32 {
    let mut prefix = [0; 16];
    prefix[..8].copy_from_slice(&first.to_le_bytes());
    prefix[8..].copy_from_slice(&base_timestamp.to_le_bytes());
    combined(&prefix, records_crc, records_len)
}

/// CRC-32/ISO-HDLC of a payload up to 1 MiB; of a longer one, the CRC over the little-endian list of the CRCs of its
/// 1 MiB pieces, so that no single checksum vouches for more than 1 MiB.
pub fn payload_crc(payload: &[u8]) -> u32 {
    if payload.len() <= PIECE {
        return crc32fast::hash(payload);
    }
    let mut list = crc32fast::Hasher::new();
    for piece in payload.chunks(PIECE) {
        list.update(&crc32fast::hash(piece).to_le_bytes());
    }
    list.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Encoded {
        let mut builder = BatchBuilder::new(Vec::new(), 100);
        let headers: [HeaderRef<'_>; 2] = [(b"trace", Some(b"abc")), (b"none", None)];
        builder.push(&RecordRef { offset: 101, timestamp: 1_000, key: None, value: Some(b"one"), headers: &[] });
        builder.push(&RecordRef { offset: 105, timestamp: 990, key: Some(b"k"), value: None, headers: &headers });
        builder.push(&RecordRef { offset: 106, timestamp: -1, key: Some(b""), value: Some(&[7; 300]), headers: &[] });
        builder.finish(110, 3)
    }

    #[test]
    fn records_come_back() {
        let batch = sample();
        let found: Vec<_> = records(&batch.buffer).map(Result::unwrap).collect();
        let offsets: Vec<_> = found.iter().map(|r| (r.offset, r.timestamp)).collect();
        assert_eq!(offsets, [(101, 1_000), (105, 990), (106, -1)]);
        assert_eq!((found[0].key, found[0].value), (None, Some(&b"one"[..])));
        assert_eq!((found[1].key, found[1].value), (Some(&b"k"[..]), None));
        let headers: Vec<_> = found[1].headers.iter().collect();
        assert_eq!(headers, [(&b"trace"[..], Some(&b"abc"[..])), (b"none", None)]);
        assert_eq!(found[2].value.unwrap().len(), 300);
        assert_eq!(check(&batch.buffer), Ok(3));
        assert_eq!(batch.payload_crc, payload_crc(&batch.buffer));
        assert_eq!(digest(&batch.buffer, 100), Ok(batch.digest));
    }

    #[test]
    fn the_digest_does_not_depend_on_batch_boundaries() {
        let record = |offset| RecordRef { offset, timestamp: 5, key: None, value: Some(b"v"), headers: &[] };
        let mut whole = BatchBuilder::new(Vec::new(), 0);
        whole.push(&record(0));
        whole.push(&record(1));
        let whole = whole.finish(2, 0);
        let mut parts = Vec::new();
        for offset in 0..2 {
            let mut part = BatchBuilder::new(Vec::new(), offset);
            part.push(&record(offset));
            parts.extend(part.finish(offset + 1, 7).buffer);
        }
        assert_eq!(digest(&parts, 0), Ok(whole.digest));
        assert_ne!(digest(&parts, 0), digest(&parts[..parts.len() / 2], 0));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_answered() {
        let batch = sample();
        for bit in 0..batch.buffer.len() * 8 {
            let mut bytes = batch.buffer.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(payload_crc(&bytes), batch.payload_crc);
            let _ = records(&bytes).count();
            if bit / 8 >= 17 {
                assert!(check(&bytes).is_err(), "bit {bit}");
            }
        }
        for cut in 1..batch.buffer.len() {
            assert!(records(&batch.buffer[..cut]).any(|record| record.is_err()), "cut {cut}");
        }
    }

    #[test]
    fn crc_check_values() {
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        let long = vec![3u8; PIECE + 5];
        assert_ne!(payload_crc(&long), crc32fast::hash(&long));
    }
}
