//! The segment header: one 4096-byte page, stored twice (positions 0 and 4096).
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `FOREBAYW` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | feature bits, 0; unknown bits are refused |
//! | 16 | 16 | WAL id |
//! | 32 | 8 | segment number, from 1 |
//! | 40 | 8 | salt, random; seeds every frame header's CRC |
//! | 48 | 8 | first LSN of the segment |
//! | 56 | 8 | key id, 0 = clear; others are refused |
//! | 64 | 8 | `retired_below`: segments with lower numbers are gone |
//! | 72 | 8 | `built_end`: everything below was synced before the segment got its name |
//! | 80 | 8 | predecessor: segment number, 0 = none |
//! | 88 | 8 | predecessor: salt |
//! | 96 | 8 | predecessor: end LSN (the first LSN that is *not* in it) |
//! | 104 | 8 | predecessor: end position |
//! | 112 | 4 | predecessor: digest, CRC-32 over the first 92 bytes of each of its frame headers in order; 0 = not known |
//! | 116 | 3976 | zero, checked |
//! | 4092 | 4 | CRC-32 of bytes 0..4092; stays here in every version |

use super::{NUMBER_LIMIT, PAGE, get_u32, get_u64, get_u128, is_zero, put};

/// Bytes of one copy.
pub const HEADER_BYTES: usize = PAGE as usize;
/// The version this code writes and reads.
pub const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"FOREBAYW";
const RESERVED: usize = 116;
const CRC: usize = HEADER_BYTES - 4;

/// What a segment's header says of the segment before it: this, and nothing in that file, ends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Predecessor {
    /// Segment number; 0 when there is none.
    pub number: u64,
    /// Its salt.
    pub salt: u64,
    /// The first LSN that is not in it.
    pub end_lsn: u64,
    /// The position at which it ends.
    pub end_position: u64,
    /// CRC-32 over its frame headers, each without its own checksum, up to the end; 0 when it could not be computed.
    pub digest: u32,
}

/// The identity of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Names the log; the same in all its segments.
    pub wal_id: u128,
    /// The number that the file name repeats.
    pub number: u64,
    /// Seeds the CRC of every frame header in the segment.
    pub salt: u64,
    /// LSN of the first frame that has one.
    pub first_lsn: u64,
    /// Segments with lower numbers are retired.
    pub retired_below: u64,
    /// Everything below was synced before the segment got its name.
    pub built_end: u64,
    /// The segment before this one, and where it ends.
    pub predecessor: Predecessor,
}

/// Why a header page was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Shorter than a page.
    #[error("header page is cut short")]
    Short,
    /// Not a segment of this log format.
    #[error("not a segment header (magic)")]
    Magic,
    /// The page does not match its checksum.
    #[error("header crc {found:08x}, expected {expected:08x}")]
    Crc {
        /// Computed from the bytes.
        found: u32,
        /// Stored in the page.
        expected: u32,
    },
    /// Written by another version.
    #[error("version {0}, this program reads version {VERSION}")]
    Version(u32),
    /// Uses features this program does not know.
    #[error("unknown feature bits {0:#x}")]
    Features(u32),
    /// Encrypted.
    #[error("key id {0}, this program reads only key id 0 (clear)")]
    Key(u64),
    /// A reserved byte is not zero, or a field is outside its limits.
    #[error("a reserved byte or a field is out of its limits")]
    Reserved,
}

impl HeaderError {
    /// True when the page is intact but meant for another program version.
    pub fn is_version(self) -> bool {
        matches!(self, Self::Version(_) | Self::Features(_) | Self::Key(_))
    }
}

impl SegmentHeader {
    /// One copy of the page.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut page = [0; HEADER_BYTES];
        put(&mut page, 0, MAGIC);
        put(&mut page, 8, &VERSION.to_le_bytes());
        put(&mut page, 16, &self.wal_id.to_le_bytes());
        put(&mut page, 32, &self.number.to_le_bytes());
        put(&mut page, 40, &self.salt.to_le_bytes());
        put(&mut page, 48, &self.first_lsn.to_le_bytes());
        put(&mut page, 64, &self.retired_below.to_le_bytes());
        put(&mut page, 72, &self.built_end.to_le_bytes());
        put(&mut page, 80, &self.predecessor.number.to_le_bytes());
        put(&mut page, 88, &self.predecessor.salt.to_le_bytes());
        put(&mut page, 96, &self.predecessor.end_lsn.to_le_bytes());
        put(&mut page, 104, &self.predecessor.end_position.to_le_bytes());
        put(&mut page, 112, &self.predecessor.digest.to_le_bytes());
        let crc = crc32fast::hash(&page[..CRC]);
        put(&mut page, CRC, &crc.to_le_bytes());
        page
    }

    /// Reads one copy. The checksum is verified before anything but the magic is believed.
    pub fn decode(page: &[u8]) -> Result<Self, HeaderError> {
        if page.len() < HEADER_BYTES {
            return Err(HeaderError::Short);
        }
        if &page[..8] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let (found, expected) = (crc32fast::hash(&page[..CRC]), get_u32(page, CRC));
        if found != expected {
            return Err(HeaderError::Crc { found, expected });
        }
        match (get_u32(page, 8), get_u32(page, 12), get_u64(page, 56)) {
            (VERSION, 0, 0) => {}
            (VERSION, 0, key) => return Err(HeaderError::Key(key)),
            (VERSION, features, _) => return Err(HeaderError::Features(features)),
            (version, _, _) => return Err(HeaderError::Version(version)),
        }
        let header = Self {
            wal_id: get_u128(page, 16),
            number: get_u64(page, 32),
            salt: get_u64(page, 40),
            first_lsn: get_u64(page, 48),
            retired_below: get_u64(page, 64),
            built_end: get_u64(page, 72),
            predecessor: Predecessor {
                number: get_u64(page, 80),
                salt: get_u64(page, 88),
                end_lsn: get_u64(page, 96),
                end_position: get_u64(page, 104),
                digest: get_u32(page, 112),
            },
        };
        let zero = is_zero(&page[RESERVED..CRC]);
        let chained = header.predecessor.number.checked_add(1) == Some(header.number)
            || header.predecessor.number == 0 && header.number > 0;
        let countable = header.first_lsn > 0 && header.first_lsn.max(header.number) < NUMBER_LIMIT;
        if !zero || !chained || !countable || !header.built_end.is_multiple_of(PAGE) {
            return Err(HeaderError::Reserved);
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SegmentHeader {
        SegmentHeader {
            wal_id: 7,
            number: 3,
            salt: 0x1122_3344_5566_7788,
            first_lsn: 10,
            retired_below: 2,
            built_end: 16384,
            predecessor: Predecessor { number: 2, salt: 9, end_lsn: 10, end_position: 40960, digest: 5 },
        }
    }

    #[test]
    fn round_trip_and_every_flipped_bit_is_seen() {
        let page = sample().encode();
        assert_eq!(SegmentHeader::decode(&page), Ok(sample()));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = page;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut page = sample().encode();
        put(&mut page, 8, &2_u32.to_le_bytes());
        let crc = crc32fast::hash(&page[..CRC]);
        put(&mut page, CRC, &crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&page), Err(HeaderError::Version(2)));
    }

    #[test]
    fn a_segment_follows_the_number_before_its_own_or_none() {
        let decode = |number, before| {
            let predecessor = Predecessor { number: before, ..sample().predecessor };
            SegmentHeader::decode(&SegmentHeader { number, predecessor, ..sample() }.encode())
        };
        for (number, before) in [(1, 0), (3, 0), (3, 2), (NUMBER_LIMIT - 1, NUMBER_LIMIT - 2)] {
            let read = decode(number, before).unwrap();
            assert_eq!((read.number, read.predecessor.number), (number, before));
        }
        for (number, before) in [(0, 0), (0, u64::MAX), (3, 1), (3, 3), (2, 3), (NUMBER_LIMIT, NUMBER_LIMIT - 1)] {
            assert_eq!(decode(number, before), Err(HeaderError::Reserved), "{number} after {before}");
        }
    }

    #[test]
    fn lsns_count_from_one_and_what_was_built_ends_with_a_page() {
        let decode =
            |first_lsn, built_end| SegmentHeader::decode(&SegmentHeader { first_lsn, built_end, ..sample() }.encode());
        for (first_lsn, built_end) in [(1, PAGE), (NUMBER_LIMIT - 1, PAGE)] {
            assert_eq!(decode(first_lsn, built_end).unwrap().first_lsn, first_lsn);
        }
        for (first_lsn, built_end) in [(0, PAGE), (NUMBER_LIMIT, PAGE), (1, PAGE + 8)] {
            assert_eq!(decode(first_lsn, built_end), Err(HeaderError::Reserved), "{first_lsn}, {built_end}");
        }
    }
}
