//! What a scan found wrong, with its place.

use crate::record::{BlockHeader, Lsn, Partition};
use crate::wal::error::WalError;
use crate::wal::format::footer::IndexEntry;
use crate::wal::format::frame::FrameHeader;
use crate::wal::recovery::table::Verdict;
use std::path::{Path, PathBuf};

/// A damaged place and what it means.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What it means.
    pub verdict: Verdict,
    /// The segment.
    pub path: PathBuf,
    /// Position of the damaged page or frame.
    pub position: u64,
    /// LSN, where it is known.
    pub lsn: Option<Lsn>,
    /// Partition and `[first, next)`, where they are known.
    pub range: Option<(Partition, i64, i64)>,
    /// What is wrong.
    pub reason: String,
}

impl Finding {
    /// The error that refuses to open a log because of this.
    pub fn into_error(self) -> WalError {
        let Self { verdict, path, position, lsn, range, reason } = self;
        let reason = match verdict {
            Verdict::Unreadable => format!("acknowledged bytes can't be read ({reason})"),
            _ => reason,
        };
        WalError::Corrupt { path, position, lsn, range, reason }
    }
}

/// An acknowledged block that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptBlock {
    /// The segment.
    pub path: PathBuf,
    /// Segment number.
    pub segment: u64,
    /// Salt of the segment.
    pub salt: u64,
    /// Position of its frame.
    pub position: u64,
    /// Position after its frame.
    pub end: u64,
    /// Its LSN.
    pub lsn: Lsn,
    /// Whose records.
    pub partition: Partition,
    /// Its tenure.
    pub tenure: u32,
    /// First offset.
    pub first: i64,
    /// One past the last offset.
    pub next: i64,
    /// Records in it.
    pub count: u32,
    /// Block digest.
    pub digest: u32,
    /// Its frame header, if that is good.
    pub header: Option<FrameHeader>,
}

impl CorruptBlock {
    /// The block that the index entry names, in this segment.
    pub fn new(path: &Path, segment: u64, salt: u64, named: &IndexEntry, header: Option<FrameHeader>) -> Self {
        Self {
            path: path.to_path_buf(),
            segment,
            salt,
            position: named.position,
            end: named.position + u64::from(named.length),
            lsn: named.lsn,
            partition: named.partition(),
            tenure: named.tenure,
            first: named.first,
            next: named.next,
            count: named.count,
            digest: named.digest,
            header,
        }
    }

    /// What is known of the block itself; its payload's checksum is 0.
    pub fn block(&self) -> BlockHeader {
        BlockHeader {
            partition: self.partition,
            first: self.first,
            next: self.next,
            leader_epoch: -1,
            tenure: self.tenure,
            count: self.count,
            digest: self.digest,
            payload_crc: 0,
        }
    }
}

impl std::fmt::Display for CorruptBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, position, lsn, partition, first, next, .. } = self;
        let (topic, number) = (partition.topic, partition.number);
        let path = path.display();
        write!(
            f,
            "corrupt block in {path} at byte {position}, LSN {lsn}: topic number {topic} partition {number}, \
             offsets [{first}, {next})"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_from_what_is_wrong() {
        let text = |verdict| {
            let (path, reason) = (PathBuf::from("a.wal"), "bad page".to_owned());
            Finding { verdict, path, position: 8, lsn: None, range: None, reason }.into_error().to_string()
        };
        let unreadable = text(Verdict::Unreadable);
        assert!(unreadable.ends_with(": acknowledged bytes can't be read (bad page)"), "{unreadable}");
        let wrong = text(Verdict::Refuse);
        assert!(wrong.ends_with(": bad page"), "{wrong}");
    }

    #[test]
    fn of_a_lost_block_all_is_known_but_its_epoch_and_its_payload() {
        let named = IndexEntry {
            lsn: 1,
            position: 8192,
            length: 4096,
            digest: 4,
            topic: 5,
            partition: 6,
            first: 7,
            next: 9,
            tenure: 10,
            count: 2,
        };
        let lost = CorruptBlock::new(Path::new("a.wal"), 3, 11, &named, None);
        assert_eq!((lost.segment, lost.salt, lost.lsn, lost.position, lost.end), (3, 11, 1, 8192, 12_288));
        let expected = BlockHeader {
            partition: Partition { topic: 5, number: 6 },
            first: 7,
            next: 9,
            leader_epoch: -1,
            tenure: 10,
            count: 2,
            digest: 4,
            payload_crc: 0,
        };
        assert_eq!(lost.block(), expected);
    }
}
