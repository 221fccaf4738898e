//! A sealed segment by its header, its states and its footer alone, so that a long log opens at once. Never writes.
//!
//! Promises: anything that does not fit together is `None`, and the segment is scanned instead. Never: it does not look at
//! the frames of blocks; whoever reads them verifies them.

use super::index::{self, Index};
use super::segment::{Segment, SegmentScan};
use super::states;
use crate::wal::format::header::Predecessor;
use crate::wal::retention::Runs;

/// What [`super::segment::scan`] would find of an undamaged segment whose successor declares this.
pub fn scan(segment: &Segment, declared: &Predecessor) -> Option<SegmentScan> {
    let end = declared.end_position;
    if end > segment.len || declared.end_lsn < segment.header.first_lsn {
        return None;
    }
    let states = states::read(&segment.file, &segment.header, end);
    let start = states.end.filter(|_| states.bad.is_empty() && states.state.is_some())?;
    let index = index::find(&segment.file, segment.header.salt, start, end)?;
    let first_lsn = segment.header.first_lsn;
    fits(&index, start, first_lsn..declared.end_lsn).then(|| SegmentScan {
        frames: declared.end_lsn - first_lsn,
        end,
        next_lsn: declared.end_lsn,
        runs: runs(&index),
        frames_start: start,
        sealed: true,
        verified: false,
        ..SegmentScan::unread(segment)
    })
}

fn fits(index: &Index, start: u64, lsns: std::ops::Range<u64>) -> bool {
    let (mut position, mut lsn) = (start, lsns.start);
    for block in &index.blocks {
        let end = block.position.saturating_add(u64::from(block.length));
        if block.position < position || block.lsn < lsn || block.lsn >= lsns.end || end > index.position {
            return false;
        }
        (position, lsn) = (end, block.lsn + 1);
    }
    true
}

fn runs(index: &Index) -> Runs {
    let mut runs = Runs::default();
    for block in &index.blocks {
        runs.note_range(block.partition(), block.lsn, block.range());
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::format::footer::IndexEntry;

    /// Frames of 104 bytes with these LSNs, at these positions, in a segment of the LSNs from 5 to 7.
    fn fitting(blocks: &[(u64, u64)]) -> bool {
        let entry = |(lsn, position): &(u64, u64)| IndexEntry {
            lsn: *lsn,
            position: *position,
            length: 104,
            digest: 0,
            topic: 1,
            partition: 0,
            first: 0,
            next: 1,
            tenure: 1,
            count: 1,
        };
        fits(&Index { position: 10_000, blocks: blocks.iter().map(entry).collect() }, 8192, 5..8)
    }

    #[test]
    fn an_index_fits_only_if_its_blocks_follow_each_other_inside_the_segment() {
        assert!(fitting(&[]));
        assert!(fitting(&[(5, 8192), (6, 8296), (7, 9896)]));
        for (what, blocks) in [
            ("a block among the states", [(5, 8184), (6, 8400)]),
            ("a block inside another", [(5, 8192), (6, 8288)]),
            ("an LSN below the first", [(4, 8192), (6, 8400)]),
            ("an LSN twice", [(5, 8192), (5, 8400)]),
            ("an LSN of the next segment", [(5, 8192), (8, 8400)]),
            ("a block inside the footer", [(5, 8192), (6, 9904)]),
        ] {
            assert!(!fitting(&blocks), "{what}");
        }
    }
}
