//! A repair file: one block again, as its segment should have it.
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `FBR1` |
//! | 4 | 4 | version, 1 |
//! | 8 | 16 | WAL id |
//! | 24 | 8 | number of the segment that it mends |
//! | 32 | 8 | salt of that segment |
//! | 40 | 8 | position of the damaged frame in it |
//! | 48 | 12 | zero |
//! | 60 | 4 | CRC-32 of bytes 0..60 |
//! | 64 | 96 | the frame header of the block, sealed with the salt, at that position |
//! | 160 | | payload, then zero bytes to a multiple of 8: the file ends there |
//!
//! Promises: bytes that differ from what was written in any bit, and files that are shorter or longer, are refused.

use crate::record::batch::payload_crc;
use crate::wal::format::frame::{FRAME_HEADER, FrameError, FrameHeader, Kind};
use crate::wal::format::{align_up, get_u32, get_u64, get_u128, put};

/// Bytes before the frame.
pub const REPAIR_HEADER: usize = 64;
/// The first four bytes.
pub const REPAIR_MAGIC: [u8; 4] = *b"FBR1";
const VERSION: u32 = 1;
const CRC: usize = REPAIR_HEADER - 4;

/// What a repair file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The log.
    pub wal_id: u128,
    /// Number of the segment.
    pub segment: u64,
    /// Its salt.
    pub salt: u64,
}

/// Why a file is no repair.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// Too short, too long, or not one of ours.
    #[error("not a repair file ({0})")]
    Shape(&'static str),
    /// Its header does not match its checksum.
    #[error("repair header crc {found:08x}, expected {expected:08x}")]
    Crc {
        /// Computed.
        found: u32,
        /// Stored.
        expected: u32,
    },
    /// Its frame header is not valid.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Its payload does not match its checksum.
    #[error("payload crc {found:08x}, expected {expected:08x}")]
    Payload {
        /// Computed.
        found: u32,
        /// Stored.
        expected: u32,
    },
}

/// Everything before the payload; `header` is completed with the lengths of a payload of `payload_len` bytes. The bytes
/// after the payload are zero: [`pad_of`] many.
pub fn encode(target: &Target, header: &FrameHeader, payload_len: u32) -> [u8; REPAIR_HEADER + FRAME_HEADER] {
    let mut out = [0; REPAIR_HEADER + FRAME_HEADER];
    put(&mut out, 0, &REPAIR_MAGIC);
    put(&mut out, 4, &VERSION.to_le_bytes());
    put(&mut out, 8, &target.wal_id.to_le_bytes());
    put(&mut out, 24, &target.segment.to_le_bytes());
    put(&mut out, 32, &target.salt.to_le_bytes());
    put(&mut out, 40, &header.position.to_le_bytes());
    let crc = crc32fast::hash(&out[..CRC]);
    put(&mut out, CRC, &crc.to_le_bytes());
    let header = FrameHeader { payload_len, pad_len: pad_of(payload_len), ..*header };
    put(&mut out, REPAIR_HEADER, &header.encode(target.salt));
    out
}

/// Zero bytes after a payload of this length.
pub fn pad_of(payload_len: u32) -> u32 {
    let end = FRAME_HEADER as u64 + u64::from(payload_len);
    (align_up(end) - end) as u32
}

/// Reads a whole file: what it mends, the block's frame header, its payload.
pub fn decode(bytes: &[u8]) -> Result<(Target, FrameHeader, &[u8]), RepairError> {
    let (target, header) = decode_head(bytes)?;
    let end = REPAIR_HEADER as u64 + header.frame_len();
    if bytes.len() as u64 != end {
        return Err(RepairError::Shape("length"));
    }
    let frame = &bytes[REPAIR_HEADER + FRAME_HEADER..];
    let (payload, pad) = frame.split_at(header.payload_len as usize);
    let (found, expected) = (payload_crc(payload), header.payload_crc);
    if found != expected {
        return Err(RepairError::Payload { found, expected });
    }
    if pad.len() != pad_of(header.payload_len) as usize || pad.iter().any(|byte| *byte != 0) {
        return Err(RepairError::Shape("padding"));
    }
    Ok((target, header, payload))
}

fn decode_head(bytes: &[u8]) -> Result<(Target, FrameHeader), RepairError> {
    if bytes.len() < REPAIR_HEADER + FRAME_HEADER || bytes[..4] != REPAIR_MAGIC {
        return Err(RepairError::Shape("magic"));
    }
    let (found, expected) = (crc32fast::hash(&bytes[..CRC]), get_u32(bytes, CRC));
    if found != expected {
        return Err(RepairError::Crc { found, expected });
    }
    if get_u32(bytes, 4) != VERSION || bytes[48..CRC].iter().any(|byte| *byte != 0) {
        return Err(RepairError::Shape("version"));
    }
    let target = Target { wal_id: get_u128(bytes, 8), segment: get_u64(bytes, 24), salt: get_u64(bytes, 32) };
    let header = FrameHeader::decode(&bytes[REPAIR_HEADER..], target.salt, get_u64(bytes, 40))?;
    if header.kind == Kind::Block { Ok((target, header)) } else { Err(RepairError::Shape("kind of frame")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let target = Target { wal_id: 7 << 90, segment: 3, salt: 0xdead_beef_0123 };
        let payload: Vec<u8> = (0..203).collect();
        let header =
            FrameHeader { position: 8192, lsn: 9, first: 4, next: 9, count: 5, ..FrameHeader::new(Kind::Block) };
        let header = FrameHeader { payload_crc: payload_crc(&payload), digest: 77, ..header };
        let mut bytes = encode(&target, &header, payload.len() as u32).to_vec();
        bytes.extend_from_slice(&payload);
        bytes.resize(bytes.len() + pad_of(payload.len() as u32) as usize, 0);
        bytes
    }

    #[test]
    fn it_comes_back() {
        let bytes = sample();
        let (target, header, payload) = decode(&bytes).unwrap();
        assert_eq!((target.segment, target.salt, header.lsn, header.position), (3, 0xdead_beef_0123, 9, 8192));
        assert_eq!((header.digest, payload.len(), header.payload_len), (77, 203, 203));
        assert_eq!(bytes.len() % 8, 0);
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_refused() {
        let bytes = sample();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "length {len}");
        }
        let longer = [&bytes[..], &[0; 8]].concat();
        assert_eq!(decode(&longer), Err(RepairError::Shape("length")));
    }

    #[test]
    fn another_kind_of_frame_is_refused() {
        let target = Target { wal_id: 1, segment: 1, salt: 1 };
        let header = FrameHeader { payload_crc: payload_crc(&[]), ..FrameHeader::new(Kind::Idle) };
        assert_eq!(decode(&encode(&target, &header, 0)), Err(RepairError::Shape("kind of frame")));
    }
}
