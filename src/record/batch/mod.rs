//! Kafka's record batch format v2 (magic 2): the payload of every block.
//!
//! Promises: what [`BatchBuilder`] writes is a valid Kafka record batch (CRC-32C included) that any Kafka tool can
//! read; [`records`] walks it without copying and answers damaged bytes with an error, never with a panic or an
//! allocation. Never: it does not decompress (that is an error that names the codec): [`unpacked`] does, before.
//!
//! The *digest* of a block is CRC-32/ISO-HDLC over `first` (i64 LE), the first record's timestamp (i64 LE) and the
//! records section of the canonical encoding (one batch, base offset = `first`, base timestamp = the first record's).
//! It depends only on what can be fetched again, not on how Kafka batched or compressed it.

mod pack;
mod read;
pub mod unpack;

pub use pack::{Codec, pack, unpacked};
pub use read::{BatchError, Headers, Record, Records, check, digest, records, section};

use super::varint;

/// Bytes before the first record of a batch.
pub const HEADER_LEN: usize = 61;
/// The payload checksum covers pieces of this size one by one.
pub const PIECE: usize = 1 << 20;
/// Bytes that are read once for all checksums.
const STEP: usize = 64 << 10;
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
        self.push_encoded(record, None);
    }

    /// The same for a record that lies in another batch: `encoded` are its key, value and headers there. They are copied in
    /// one piece, unless that batch does not use the shortest encoding of lengths, which every batch here does.
    ///
    /// # Panics
    /// As [`BatchBuilder::push`].
    #[inline]
    pub fn push_encoded(&mut self, record: &RecordRef<'_>, encoded: Option<&[u8]>) {
        assert!(record.offset > self.last, "offset {} pushed after {}", record.offset, self.last);
        assert!(record.offset - self.first < i64::from(i32::MAX), "offset range of a batch");
        if self.count == 0 {
            self.base_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        let ts_delta = record.timestamp.wrapping_sub(self.base_timestamp);
        let offset_delta = record.offset - self.first;
        let fields = fields_len(record);
        let body = 1 + varint::len(ts_delta) + varint::len(offset_delta) + fields;
        self.buffer.reserve(body + varint::MAX_LEN);
        let mut head = [0u8; 1 + 3 * varint::MAX_LEN];
        let mut at = varint::put(&mut head, body as i64);
        at += 1; // attributes: none are defined
        at += varint::put(&mut head[at..], ts_delta);
        at += varint::put(&mut head[at..], offset_delta);
        self.buffer.extend_from_slice(&head[..at]);
        match encoded {
            Some(encoded) if encoded.len() == fields => self.buffer.extend_from_slice(encoded),
            _ => self.put_fields(record),
        }
        self.last = record.offset;
        self.count += 1;
    }

    fn put_fields(&mut self, record: &RecordRef<'_>) {
        for field in [record.key, record.value] {
            let (len, bytes) = bytes_of(field);
            put_varint(&mut self.buffer, len);
            self.buffer.extend_from_slice(bytes);
        }
        put_varint(&mut self.buffer, record.headers.len() as i64);
        for (name, value) in record.headers {
            let (value_len, value) = bytes_of(*value);
            put_varint(&mut self.buffer, name.len() as i64);
            self.buffer.extend_from_slice(name);
            put_varint(&mut self.buffer, value_len);
            self.buffer.extend_from_slice(value);
        }
    }

    /// Closes the batch: the range becomes `[first, next)`, and all checksums are computed in one pass over the bytes.
    ///
    /// # Panics
    /// If `next` lies below the last record's offset + 1.
    pub fn finish(mut self, next: i64, leader_epoch: i32) -> Encoded {
        assert!(next > self.last && next > self.first, "block end {next} after {}", self.last);
        self.write_header(next, leader_epoch);
        let sums = Sums::of(&self.buffer);
        self.buffer[17..21].copy_from_slice(&sums.batch.to_be_bytes());
        let digest = digest_of(self.first, self.base_timestamp, &sums.records);
        let payload_crc = sums.payload(&self.buffer[..HEADER_LEN]);
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
    }
}

/// The checksums of a batch into which its own CRC is still to be written.
struct Sums {
    /// CRC-32C from the attributes on: the batch's own.
    batch: u32,
    /// CRC-32 of the records.
    records: crc32fast::Hasher,
    /// CRC-32 of the pieces of the payload ([`PIECE`]); of the first one without the batch's header.
    pieces: Vec<crc32fast::Hasher>,
}

impl Sums {
    /// One pass over the bytes, in steps that stay in the processor's cache.
    fn of(batch: &[u8]) -> Self {
        let (header, records) = batch.split_at(HEADER_LEN);
        let (first, rest) = records.split_at(records.len().min(PIECE - HEADER_LEN));
        let mut sums = Self {
            batch: crc32c::crc32c(&header[ATTRIBUTES..]),
            records: crc32fast::Hasher::new(),
            pieces: Vec::new(),
        };
        for piece in std::iter::once(first).chain(rest.chunks(PIECE)) {
            let mut crc = crc32fast::Hasher::new();
            for step in piece.chunks(STEP) {
                crc.update(step);
                sums.batch = crc32c::crc32c_append(sums.batch, step);
            }
            sums.records.combine(&crc);
            sums.pieces.push(crc);
        }
        sums
    }

    /// See [`payload_crc`].
    fn payload(self, header: &[u8]) -> u32 {
        let mut pieces = self.pieces.into_iter();
        let first = combined(header, &pieces.next().unwrap_or_default());
        if pieces.len() == 0 {
            return first;
        }
        let mut list = crc32fast::Hasher::new();
        for crc in std::iter::once(first).chain(pieces.map(crc32fast::Hasher::finalize)) {
            list.update(&crc.to_le_bytes());
        }
        list.finalize()
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

/// Bytes of key, value and headers with their lengths.
#[inline]
fn fields_len(record: &RecordRef<'_>) -> usize {
    let field = |field| {
        let (len, bytes) = bytes_of(field);
        varint::len(len) + bytes.len()
    };
    field(record.key) + field(record.value) + headers_len(record.headers)
}

#[inline]
fn headers_len(headers: &[HeaderRef<'_>]) -> usize {
    let each = |(name, value): &HeaderRef<'_>| {
        let (value_len, value) = bytes_of(*value);
        varint::len(name.len() as i64) + name.len() + varint::len(value_len) + value.len()
    };
    varint::len(headers.len() as i64) + headers.iter().map(each).sum::<usize>()
}

fn combined(prefix: &[u8], rest: &crc32fast::Hasher) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(prefix);
    crc.combine(rest);
    crc.finalize()
}

fn digest_of(first: i64, base_timestamp: i64, records: &crc32fast::Hasher) -> u32 {
    let mut prefix = [0; 16];
    prefix[..8].copy_from_slice(&first.to_le_bytes());
    prefix[8..].copy_from_slice(&base_timestamp.to_le_bytes());
    combined(&prefix, records)
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

    /// Bytes of fields with a length encoded in more bytes than it needs.
    fn long(fields: &[u8]) -> Vec<u8> {
        let mut long = fields.to_vec();
        long[0] |= 0x80;
        long.insert(1, 0);
        long
    }

    proptest::proptest! {
        /// What lies in another batch is copied in one piece or encoded anew: the same bytes either way.
        #[test]
        fn what_is_copied_is_what_would_be_encoded(
            key in proptest::option::of(proptest::collection::vec(0u8.., 0..200)),
            value in proptest::option::of(proptest::collection::vec(0u8.., 0..200)),
            headers in proptest::collection::vec((0u8..200, proptest::option::of(0u8..200)), 0..4),
            step in 1i64..70_000,
        ) {
            let filler = [3; 200];
            let refs: Vec<HeaderRef<'_>> = headers
                .iter()
                .map(|(name, value)| (&filler[..*name as usize], value.map(|len| &filler[..len as usize])))
                .collect();
            let of = |offset| RecordRef {
                offset, timestamp: offset * 7, key: key.as_deref(), value: value.as_deref(), headers: &refs,
            };
            let mut source = BatchBuilder::new(Vec::new(), 5);
            (0..3).for_each(|at| source.push(&of(5 + at * step)));
            let source = source.finish(10 + 2 * step, 0).buffer;
            let mut pushed = BatchBuilder::new(Vec::new(), 1);
            let (mut copied, mut shortened) = (BatchBuilder::new(Vec::new(), 1), BatchBuilder::new(Vec::new(), 1));
            for record in records(&source) {
                let Record { offset, encoded, .. } = record.unwrap();
                pushed.push(&of(offset));
                copied.push_encoded(&of(offset), Some(encoded));
                shortened.push_encoded(&of(offset), Some(&long(encoded)));
            }
            let pushed = pushed.finish(200_000, 0);
            for other in [copied, shortened] {
                let other = other.finish(200_000, 0);
                proptest::prop_assert_eq!(&pushed.buffer, &other.buffer);
                proptest::prop_assert_eq!(pushed.digest, other.digest);
            }
        }
    }

    /// Each as by itself, over the whole.
    #[test]
    fn one_pass_gives_the_same_checksums_at_every_boundary() {
        for bytes in [0, 1, STEP - 75, STEP, PIECE - HEADER_LEN, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 70_000] {
            for fill in bytes.saturating_sub(100)..=bytes + 10 {
                let value: Vec<u8> = (0..fill as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
                let mut builder = BatchBuilder::new(Vec::new(), 7);
                builder.push(&RecordRef { offset: 9, timestamp: 5, key: None, value: Some(&value), headers: &[] });
                let Encoded { buffer, digest, payload_crc: found, .. } = builder.finish(10, 1);
                assert_eq!(found, payload_crc(&buffer), "{fill}");
                assert_eq!(crc32c::crc32c(&buffer[ATTRIBUTES..]).to_be_bytes(), buffer[17..21], "{fill}");
                let told = [7i64.to_le_bytes(), 5i64.to_le_bytes()].concat();
                assert_eq!(digest, crc32fast::hash(&[&told, &buffer[HEADER_LEN..]].concat()), "{fill}");
                assert_eq!(check(&buffer), Ok(1), "{fill}");
            }
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
