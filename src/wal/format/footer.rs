//! The footer: an index of a sealed segment's blocks. It only speeds things up; a damaged one is rebuilt by scanning.
//!
//! Payload: a list (count as `u64`) of entries of 56 bytes, in LSN order:
//! `lsn: u64, position: u64, length: u32 (whole frame), digest: u32, topic: u32, partition: i32, first: i64, next: i64,
//! tenure: u32, count: u32`.

use super::frame::{FRAME_HEADER, FrameHeader};
use super::payload::{self, PayloadError};
use super::state::TenureRange;
use super::{MAX_PAYLOAD, PAGE};
use crate::record::Partition;
use serde::{Deserialize, Serialize};

const ENTRY_BYTES: u64 = 56;

/// One block of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// LSN of the block.
    pub lsn: u64,
    /// Position of its frame.
    pub position: u64,
    /// Bytes of the whole frame.
    pub length: u32,
    /// Block digest.
    pub digest: u32,
    /// Topic number.
    pub topic: u32,
    /// Partition.
    pub partition: i32,
    /// First offset.
    pub first: i64,
    /// One past the last offset.
    pub next: i64,
    /// Tenure.
    pub tenure: u32,
    /// Records.
    pub count: u32,
}

impl IndexEntry {
    /// Its partition.
    pub fn partition(&self) -> Partition {
        Partition { topic: self.topic, number: self.partition }
    }

    /// Its offsets and their tenure.
    pub fn range(&self) -> TenureRange {
        TenureRange { tenure: self.tenure, first: self.first, next: self.next }
    }

    /// The entry for a block's frame header.
    pub fn of(header: &FrameHeader) -> Self {
        Self {
            lsn: header.lsn,
            position: header.position,
            length: header.frame_len() as u32,
            digest: header.digest,
            topic: header.partition.topic,
            partition: header.partition.number,
            first: header.first,
            next: header.next,
            tenure: header.tenure,
            count: header.count,
        }
    }
}

/// Bytes a footer frame with this many entries takes at most, pad included.
pub fn reserve(entries: usize) -> u64 {
    FRAME_HEADER as u64 + 8 + entries as u64 * ENTRY_BYTES + PAGE
}

/// True when one more entry would not fit into a payload.
pub fn is_at_limit(entries: usize) -> bool {
    8 + (entries as u64 + 1) * ENTRY_BYTES > u64::from(MAX_PAYLOAD)
}

/// The payload.
pub fn encode(entries: &[IndexEntry], out: &mut Vec<u8>) -> Result<(), PayloadError> {
    payload::encode("Footer", &entries, out)
}

/// Reads the payload.
pub fn decode(bytes: &[u8]) -> Result<Vec<IndexEntry>, PayloadError> {
    payload::decode("Footer", bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::format::frame::Kind;

    #[test]
    fn an_entry_is_56_bytes() {
        let entry = IndexEntry {
            lsn: 1,
            position: 2,
            length: 3,
            digest: 4,
            topic: 5,
            partition: 6,
            first: 7,
            next: 8,
            tenure: 9,
            count: 10,
        };
        let mut out = Vec::new();
        encode(&[entry, entry], &mut out).unwrap();
        assert_eq!(out.len() as u64, 8 + 2 * ENTRY_BYTES);
        assert_eq!(decode(&out).unwrap(), vec![entry, entry]);
    }

    #[test]
    fn a_hostile_count_is_refused() {
        assert!(decode(&u64::MAX.to_le_bytes()).is_err());
    }

    #[test]
    fn what_is_reserved_is_the_frame_and_a_page() {
        for entries in [0, 1, 2, 39, 400] {
            let header = FrameHeader::new(Kind::Block);
            let mut payload = Vec::new();
            encode(&vec![IndexEntry::of(&header); entries], &mut payload).unwrap();
            assert_eq!(reserve(entries), (FRAME_HEADER + payload.len()) as u64 + PAGE, "{entries} entries");
        }
    }

    #[test]
    fn a_segment_ends_before_its_index_is_longer_than_a_payload() {
        let most = (MAX_PAYLOAD as usize - 8) / ENTRY_BYTES as usize;
        assert!(!is_at_limit(0) && !is_at_limit(1) && !is_at_limit(most - 1));
        assert!(is_at_limit(most) && is_at_limit(most + 1));
    }
}
