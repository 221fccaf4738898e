//! The shelf between the log's thread, which puts durable blocks in, and the feed, which takes them out.
//!
//! Promises: at most a budget of bytes is held, twice that while blocks are being taken; beyond it only one place in the log
//! is remembered, from which the feed reads on. Never blocks the log's thread.

use super::catalogue::Location;
use super::error::WalError;
use crate::metrics::Metrics;
use crate::record::{Block, Lsn};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Nothing was taken for so long: the sink stands still.
const STANDSTILL: Duration = Duration::from_millis(250);

/// What is to be read back counts as little below so many budgets.
const SHORT: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) queue: VecDeque<(Lsn, Block)>,
    /// Blocks of direct mode; handed out after everything that was logged.
    pub(super) planned: VecDeque<Block>,
    pub(super) bytes: usize,
    /// Set: blocks from here on are read back.
    pub(super) behind: Option<Location>,
    /// Bytes of blocks to be read back, as far as they were counted.
    pub(super) behind_bytes: usize,
    /// When a block was last taken out of memory.
    pub(super) taken: Option<Instant>,
    /// The next LSN to become durable.
    pub(super) next_lsn: Lsn,
    pub(super) failed: Option<Arc<WalError>>,
    pub(super) is_closed: bool,
}

impl Shelf {
    fn is_moving(&self) -> bool {
        self.taken.is_some_and(|taken| taken.elapsed() < STANDSTILL)
    }
}

/// Between the log's thread, which puts blocks in, and the feed.
#[derive(Debug)]
pub struct Handover {
    shelf: Mutex<Shelf>,
    pub(super) changed: Condvar,
    limit: usize,
    /// Bytes of planned blocks announced and not handed out yet.
    pub(super) planned_bytes: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl Handover {
    /// Keeps at most `limit` bytes (or one block); reads back from `from` on, the log ends before `next_lsn`.
    pub fn new(limit: usize, from: Location, next_lsn: Lsn, metrics: Arc<Metrics>) -> Self {
        let behind = (from.lsn < next_lsn).then_some(from);
        // What an earlier life left was not counted: it is much.
        let behind_bytes = if behind.is_some() { usize::MAX } else { 0 };
        let shelf = Mutex::new(Shelf { behind, behind_bytes, next_lsn, ..Shelf::default() });
        Self { shelf, changed: Condvar::new(), limit, planned_bytes: AtomicUsize::new(0), metrics }
    }

    pub(super) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the blocks of a group that has just become durable; `next_lsn` follows its last frame.
    pub fn put<'a>(&self, blocks: impl Iterator<Item = (Location, &'a Block)>, next_lsn: Lsn) {
        let mut shelf = self.shelf();
        let limit = if shelf.behind.is_none() && shelf.is_moving() { 2 * self.limit } else { self.limit };
        for (location, block) in blocks {
            let bytes = block.payload.len();
            let fits = shelf.bytes + bytes <= limit || shelf.queue.is_empty();
            if shelf.behind.is_none() && fits {
                shelf.queue.push_back((location.lsn, block.clone()));
                shelf.bytes += bytes;
            } else {
                shelf.behind.get_or_insert(location);
                shelf.behind_bytes = shelf.behind_bytes.saturating_add(bytes);
                self.metrics.feed_spilled_blocks.inc();
            }
        }
        shelf.next_lsn = next_lsn;
        drop(shelf);
        self.changed.notify_all();
    }

    /// Blocks of direct mode are on their way: from now on their bytes count.
    pub fn announce(&self, blocks: &[Block]) {
        let bytes = blocks.iter().map(|block| block.payload.len()).sum();
        self.planned_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes announced blocks whose plan is durable. They are never dropped: who announces them bounds their bytes by
    /// [`Handover::planned_bytes`].
    pub fn put_planned(&self, blocks: impl IntoIterator<Item = Block>) {
        self.shelf().planned.extend(blocks);
        self.changed.notify_all();
    }

    /// Bytes of planned blocks announced and not handed out yet.
    pub fn planned_bytes(&self) -> usize {
        self.planned_bytes.load(Ordering::Relaxed)
    }

    /// True while the budget is used up and blocks are being taken: it is worth waiting a moment before more is logged.
    pub fn is_crowded(&self) -> bool {
        let shelf = self.shelf();
        // A short way back is worth making up first; a long one is what the log is for.
        let little =
            if shelf.behind.is_some() { shelf.behind_bytes < SHORT * self.limit } else { shelf.bytes > self.limit };
        little && shelf.is_moving()
    }

    /// Nothing more is handed out: the log is poisoned.
    pub fn fail(&self, error: Arc<WalError>) {
        self.shelf().failed = Some(error);
        self.changed.notify_all();
    }

    /// Nothing more comes: the log was closed.
    pub fn close(&self) {
        self.shelf().is_closed = true;
        self.changed.notify_all();
    }

    /// True if blocks are to be read back.
    pub fn is_behind(&self) -> bool {
        self.shelf().behind.is_some()
    }

    /// Segments from this number on may be read: they must not be given up.
    pub fn pinned(&self) -> u64 {
        self.shelf().behind.map_or(u64::MAX, |location| location.segment)
    }

    /// Bytes of blocks held in memory.
    pub fn bytes(&self) -> usize {
        self.shelf().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_crowded_over_the_budget_or_a_short_way_behind_and_only_while_blocks_are_taken() {
        const LIMIT: usize = 100;
        let handover = Handover::new(LIMIT, Location::default(), 0, Arc::new(Metrics::new()));
        let is_crowded = |bytes: usize, behind: Option<usize>| {
            let mut shelf = handover.shelf();
            shelf.bytes = bytes;
            shelf.behind = behind.map(|_| Location::default());
            shelf.behind_bytes = behind.unwrap_or(0);
            drop(shelf);
            handover.is_crowded()
        };
        // However slow the machine is: a moment that is still to come.
        handover.shelf().taken = Some(Instant::now() + Duration::from_secs(3600));
        assert!(!is_crowded(LIMIT, None) && is_crowded(LIMIT + 1, None));
        assert!(is_crowded(0, Some(4 * LIMIT - 1)) && !is_crowded(0, Some(4 * LIMIT)));
        assert!(!is_crowded(LIMIT + 1, Some(4 * LIMIT)), "the way back is long");
        handover.shelf().taken = None;
        assert!(!is_crowded(LIMIT + 1, None) && !is_crowded(0, Some(1)), "nobody takes any");
    }
}
