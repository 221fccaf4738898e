//! One partition on its way to the sink, and what is to be done with its next block.

use super::delivery::{DeliveryError, Options};
use super::fence::{self, Verdict, View};
use crate::record::{Block, BlockHeader, Lsn};
use crate::sink::Source;
use crate::wal::PartitionMarks;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A partition on its way to the sink.
pub(super) struct Lane {
    pub source: Source,
    pub marks: Arc<PartitionMarks>,
    pub delivered: i64,
    /// The last block that came out of the feed.
    pub taken: Lsn,
    /// Blocks in doubt, in order; without a payload once the budget is used up.
    pub waiting: VecDeque<(Lsn, BlockHeader, Option<Block>)>,
    /// Damage stopped it: nothing comes until it is repaired.
    pub stopped: bool,
    /// The first that waits can't be read, and what was repaired of the log when that was tried.
    pub held: Option<u64>,
}

/// The LSN of what was never logged: a planned block of direct mode.
pub(super) const PLANNED: Lsn = 0;

impl Lane {
    /// Tells the log which blocks may still have to be judged.
    pub fn note_judged(&self) {
        let first = self.waiting.iter().map(|(lsn, ..)| *lsn).find(|lsn| *lsn != PLANNED);
        self.marks.judged_through(first.map_or(self.taken, |lsn| lsn - 1));
    }

    /// A block has ended its way, with a durable receipt or without delivery.
    pub fn landed(&self, lsn: Lsn) {
        if lsn == PLANNED {
            self.marks.in_flight.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// What to do with a block now.
pub(super) fn verdict(lane: &Lane, lsn: Lsn, header: &BlockHeader, options: &Options) -> Verdict {
    if !options.dedupe {
        return Verdict::Deliver;
    }
    // A plan is committed after its delivery, so it can't wait for the commit.
    let fenced = options.fence && lsn != PLANNED;
    let acked = fenced.then(|| lane.marks.acked());
    let disowned = lane.marks.disowned();
    fence::decide(header, &View { delivered: lane.delivered, acked, disowned: &disowned })
}

/// The error of a block that begins below what is delivered.
pub(super) fn straddles(lane: &Lane, header: &BlockHeader) -> DeliveryError {
    let (name, first, next, delivered) = (name(&lane.source), header.first, header.next, lane.delivered);
    DeliveryError::Invariant(format!("{name}: block [{first}, {next}) begins below the delivered offset {delivered}"))
}

/// A partition for people.
pub(super) fn name(source: &Source) -> String {
    format!("{}/{}", source.topic, source.partition.number)
}
