//! Reads record batches without copying; answers damaged bytes with an error.

use super::pack::CODEC_BITS;
use super::{ATTRIBUTES, BatchBuilder, HEADER_LEN, HeaderRef, MAGIC, RecordRef};
use crate::record::varint;

/// Why bytes are not record batches.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end inside a batch or record.
    #[error("record batch ends early at byte {0}")]
    Short(usize),
    /// Not magic 2.
    #[error("record batch at byte {at} has magic {magic}, supported is 2")]
    Magic {
        /// Where the batch begins.
        at: usize,
        /// What was found.
        magic: u8,
    },
    /// The batch's CRC-32C does not fit its bytes.
    #[error("record batch at byte {at}: crc-32c {found:08x}, expected {expected:08x}")]
    Crc {
        /// Where the batch begins.
        at: usize,
        /// Computed from the bytes.
        found: u32,
        /// Stored in the batch.
        expected: u32,
    },
    /// Its records are compressed, which is not for who walks records.
    #[error("record batch at byte {at} is compressed with codec {codec}")]
    Codec {
        /// Where the batch begins.
        at: usize,
        /// Kafka's codec number.
        codec: u8,
    },
    /// What a codec says of the records.
    #[error("record batch at byte {at}: its records (codec {codec}) can't be unpacked: {why}")]
    Unpack {
        /// Where the batch begins.
        at: usize,
        /// Kafka's codec number.
        codec: u8,
        /// For people.
        why: String,
    },
    /// Offsets that do not rise, or lie too far from the first.
    #[error("record offset {0} is out of order")]
    Order(i64),
    /// A length or count that contradicts the bytes around it.
    #[error("malformed record at byte {0}")]
    Malformed(usize),
}

/// A record inside a payload. Borrows; copies nothing.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Kafka offset.
    pub offset: i64,
    /// Milliseconds since 1970, -1 for none.
    pub timestamp: i64,
    /// The key, if there is one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in their order.
    pub headers: Headers<'a>,
    /// Key, value and headers as they lie in the batch, with their lengths.
    pub encoded: &'a [u8],
}

/// The headers of a record, already checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Headers<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Names and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = HeaderRef<'a>> + use<'a> {
        let mut cursor = Cursor { bytes: self.bytes, at: 0 };
        (0..self.count).map_while(move |_| cursor.header().ok())
    }
}

/// Walks all records of all batches of a payload. Stops after the first error.
/// The batch's own CRC-32C is not checked here (the frame's checksum covers the same bytes); see [`check`].
pub fn records(payload: &[u8]) -> Records<'_> {
    Records {
        cursor: Cursor { bytes: payload, at: 0 },
        left: 0,
        end: 0,
        base_offset: 0,
        base_timestamp: 0,
        failed: false,
    }
}

/// A batch of a payload: where it begins and ends, and Kafka's number of its codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub at: usize,
    pub end: usize,
    pub codec: u8,
}

impl Extent {
    fn of(payload: &[u8], at: usize) -> Result<Self, BatchError> {
        let header = payload.get(at..at + HEADER_LEN).ok_or(BatchError::Short(at))?;
        let end = batch_end(header, at, payload.len())?;
        Ok(Self { at, end, codec: header[ATTRIBUTES + 1] & CODEC_BITS })
    }
}

/// The batches of a payload, their headers alone. Ends after the first error.
pub(super) fn batches(payload: &[u8]) -> impl Iterator<Item = Result<Extent, BatchError>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let batch = (at < payload.len()).then(|| Extent::of(payload, at))?;
        at = batch.as_ref().map_or(payload.len(), |batch| batch.end);
        Some(batch)
    })
}

/// Walks `count` records that lie in `bytes` without their batch's header.
pub fn section(bytes: &[u8], base_offset: i64, base_timestamp: i64, count: u32) -> Records<'_> {
    let cursor = Cursor { bytes, at: 0 };
    Records { cursor, left: count, end: bytes.len(), base_offset, base_timestamp, failed: false }
}

/// Checks every batch of a payload by its own CRC-32C and walks all records; returns how many there are.
pub fn check(payload: &[u8]) -> Result<u32, BatchError> {
    for batch in batches(payload) {
        let Extent { at, end, .. } = batch?;
        let expected = be_u32(payload, at + 17);
        let found = crc32c::crc32c(&payload[at + ATTRIBUTES..end]);
        if found != expected {
            return Err(BatchError::Crc { at, found, expected });
        }
    }
    records(payload).try_fold(0, |count, record| record.map(|_| count + 1))
}

/// The digest of what a payload holds, computed by encoding it canonically for the range that begins at `first`.
pub fn digest(payload: &[u8], first: i64) -> Result<u32, BatchError> {
    let mut builder = BatchBuilder::new(Vec::with_capacity(payload.len()), first);
    for record in records(payload) {
        let record = record?;
        if record.offset < builder.next() || record.offset - first >= i64::from(i32::MAX) {
            return Err(BatchError::Order(record.offset));
        }
        let headers: Vec<HeaderRef<'_>> = record.headers.iter().collect();
        let Record { offset, timestamp, key, value, .. } = record;
        builder.push(&RecordRef { offset, timestamp, key, value, headers: &headers });
    }
    let next = builder.next().max(first + 1);
    Ok(builder.finish(next, -1).digest)
}

/// Iterator of [`records`].
#[derive(Debug)]
pub struct Records<'a> {
    cursor: Cursor<'a>,
    left: u32,
    end: usize,
    base_offset: i64,
    base_timestamp: i64,
    failed: bool,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = loop {
            if self.left > 0 {
                break self.record();
            }
            if self.cursor.at != self.end {
                break Err(BatchError::Malformed(self.cursor.at));
            }
            if self.cursor.at == self.cursor.bytes.len() {
                return None;
            }
            if let Err(error) = self.open_batch() {
                break Err(error);
            }
        };
        self.failed = item.is_err();
        Some(item)
    }
}

impl<'a> Records<'a> {
    fn open_batch(&mut self) -> Result<(), BatchError> {
        let at = self.cursor.at;
        let bytes = self.cursor.bytes;
        let Extent { end, codec, .. } = Extent::of(bytes, at)?;
        if codec != 0 {
            return Err(BatchError::Codec { at, codec });
        }
        let header = &bytes[at..at + HEADER_LEN];
        self.end = end;
        self.base_offset = be_i64(header, 0);
        self.base_timestamp = be_i64(header, 27);
        self.left = u32::try_from(be_u32(header, 57) as i32).map_err(|_| BatchError::Malformed(at))?;
        self.cursor.at = at + HEADER_LEN;
        Ok(())
    }

    #[inline]
    fn record(&mut self) -> Result<Record<'a>, BatchError> {
        let start = self.cursor.at;
        let length = self.cursor.varint()?;
        let body = self.cursor.at;
        let end = usize::try_from(length).ok().and_then(|length| body.checked_add(length));
        let end = end.filter(|end| *end <= self.end).ok_or(BatchError::Malformed(start))?;
        self.cursor.at += 1; // attributes
        let timestamp = self.base_timestamp.wrapping_add(self.cursor.varint()?);
        let offset = self.base_offset.wrapping_add(self.cursor.varint()?);
        let fields = self.cursor.at;
        let key = self.cursor.field()?;
        let value = self.cursor.field()?;
        let count = usize::try_from(self.cursor.varint()?).map_err(|_| BatchError::Malformed(start))?;
        let from = self.cursor.at;
        for _ in 0..count {
            self.cursor.header()?;
        }
        if self.cursor.at != end {
            return Err(BatchError::Malformed(start));
        }
        self.left -= 1;
        let headers = Headers { bytes: &self.cursor.bytes[from..end], count };
        Ok(Record { offset, timestamp, key, value, headers, encoded: &self.cursor.bytes[fields..end] })
    }
}

#[derive(Clone, Copy, Debug)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    fn varint(&mut self) -> Result<i64, BatchError> {
        let rest = self.bytes.get(self.at..).ok_or(BatchError::Short(self.at))?;
        let (value, len) = match *rest {
            [byte, ..] if byte < 0x80 => (i64::from(byte), 1),
            [low, high, ..] if high < 0x80 => (i64::from(low & 0x7f) | (i64::from(high) << 7), 2),
            _ => return self.long_varint(),
        };
        self.at += len;
        Ok((value >> 1) ^ -(value & 1))
    }

    #[cold]
    fn long_varint(&mut self) -> Result<i64, BatchError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (value, len) = varint::get(rest).ok_or(BatchError::Short(self.at))?;
        self.at += len;
        Ok(value)
    }

    #[inline]
    fn field(&mut self) -> Result<Option<&'a [u8]>, BatchError> {
        let at = self.at;
        let length = self.varint()?;
        if length == -1 {
            return Ok(None);
        }
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        let bytes = end.and_then(|end| self.bytes.get(self.at..end)).ok_or(BatchError::Malformed(at))?;
        self.at += bytes.len();
        Ok(Some(bytes))
    }

    fn header(&mut self) -> Result<HeaderRef<'a>, BatchError> {
        let name = self.field()?.ok_or(BatchError::Malformed(self.at))?;
        Ok((name, self.field()?))
    }
}

fn batch_end(header: &[u8], at: usize, len: usize) -> Result<usize, BatchError> {
    if header[16] != MAGIC {
        return Err(BatchError::Magic { at, magic: header[16] });
    }
    let length = usize::try_from(be_u32(header, 8) as i32).map_err(|_| BatchError::Malformed(at))?;
    let end = at + 12 + length;
    if length < HEADER_LEN - 12 {
        return Err(BatchError::Malformed(at));
    }
    if end > len { Err(BatchError::Short(at)) } else { Ok(end) }
}

fn be_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn be_i64(bytes: &[u8], at: usize) -> i64 {
    (i64::from(be_u32(bytes, at)) << 32) | i64::from(be_u32(bytes, at + 4))
}
