//! Which segments are still needed. Pure.
//!
//! Promises: a segment that holds a block some route has not delivered (or must be able to write again) is never
//! given up; nothing else holds one back, since every later segment begins with the complete state.

use super::format::frame::FrameHeader;
use super::format::state::{State, TenureRange};
use crate::record::{Lsn, Partition};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Offsets of one tenure that lie in a segment without a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    range: TenureRange,
    last: Lsn,
}

/// The blocks of one segment, summed up: a few numbers per partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    runs: BTreeMap<Partition, Vec<Run>>,
    blocks: u64,
}

/// A segment that is followed by another one.
#[derive(Debug)]
pub struct Sealed {
    /// Number.
    pub number: u64,
    /// Bytes of the file.
    pub len: u64,
    /// LSN of its first frame.
    pub first_lsn: Lsn,
    /// Its blocks, summed up.
    pub runs: Arc<Runs>,
}

impl Runs {
    /// Notes the block with this frame header.
    pub fn note(&mut self, header: &FrameHeader) {
        let (tenure, first, next) = (header.tenure, header.first, header.next);
        let range = TenureRange { tenure, first, next };
        self.note_range(header.partition, header.lsn, range);
    }

    /// Notes a block by its range.
    pub fn note_range(&mut self, partition: Partition, lsn: Lsn, range: TenureRange) {
        self.blocks += 1;
        let runs = self.runs.entry(partition).or_default();
        match runs.last_mut() {
            Some(run) if run.range.tenure == range.tenure && run.range.next == range.first => {
                (run.range.next, run.last) = (range.next, lsn);
            }
            _ => runs.push(Run { range, last: lsn }),
        }
    }

    /// How many blocks were noted.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// True if some block is still needed.
    pub fn is_live(&self, state: &State) -> bool {
        let live = |(partition, runs): (&Partition, &Vec<Run>)| {
            runs.iter().any(|run| state.is_live(*partition, run.last, &run.range))
        };
        self.runs.iter().any(live)
    }

    /// Partitions and offset ranges, for people.
    pub fn ranges(&self) -> impl Iterator<Item = (Partition, i64, i64)> + '_ {
        let flat = |(partition, runs): (&Partition, &Vec<Run>)| {
            let partition = *partition;
            let range = move |run: &Run| (partition, run.range.first, run.range.next);
            runs.iter().map(range).collect::<Vec<_>>()
        };
        self.runs.iter().flat_map(flat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Partition = Partition { topic: 1, number: 0 };
    const Q: Partition = Partition { topic: 1, number: 1 };

    fn noted(blocks: &[(Partition, Lsn, u32, i64, i64)]) -> Runs {
        let mut runs = Runs::default();
        for &(partition, lsn, tenure, first, next) in blocks {
            runs.note_range(partition, lsn, TenureRange { tenure, first, next });
        }
        runs
    }

    fn runs_of(runs: &Runs, partition: Partition) -> Vec<(u32, i64, i64, Lsn)> {
        runs.runs[&partition].iter().map(|r| (r.range.tenure, r.range.first, r.range.next, r.last)).collect()
    }

    #[test]
    fn blocks_are_summed_up_only_within_a_tenure_and_without_a_hole() {
        let blocks =
            [(P, 2, 1, 0, 3), (Q, 3, 1, 7, 8), (P, 4, 1, 3, 5), (P, 5, 2, 5, 6), (P, 6, 2, 8, 9), (Q, 7, 1, 8, 9)];
        let runs = noted(&blocks);
        assert_eq!(runs.blocks(), 6);
        assert_eq!(runs_of(&runs, P), [(1, 0, 5, 4), (2, 5, 6, 5), (2, 8, 9, 6)]);
        assert_eq!(runs_of(&runs, Q), [(1, 7, 9, 7)]);
        assert_eq!(runs.ranges().collect::<Vec<_>>(), [(P, 0, 5), (P, 5, 6), (P, 8, 9), (Q, 7, 9)]);
        assert_eq!(noted(&[]).ranges().count(), 0);
    }

    #[test]
    fn a_block_is_noted_by_its_frame_header() {
        let mut header = FrameHeader::new(crate::wal::format::frame::Kind::Block);
        (header.partition, header.lsn, header.tenure, header.first, header.next) = (Q, 9, 4, 5, 8);
        let mut runs = Runs::default();
        runs.note(&header);
        assert_eq!((runs_of(&runs, Q), runs.blocks()), (vec![(4, 5, 8, 9)], 1));
    }
}
