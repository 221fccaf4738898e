//! What the log knows of one partition's ownership: the fold of its frames, and the frames that change it.
//!
//! Promises: the same fold serves the start of the process and the running one, so both decide alike. Never: it holds
//! no blocks and does no I/O.

use super::metadata::Acked;
use crate::kafka::gap::Gap;

/// An ownership frame to append. The caller adds the partition; «synced» below means with this frame's sync.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// Opens a tenure.
    Owned {
        /// Its number.
        tenure: u32,
        /// The offset from which this tenure commits.
        first: i64,
        /// Where fetching begins; `[first, next)` is adopted.
        next: i64,
        /// What the commit's metadata said when the tenure opened.
        acked: Acked,
    },
    /// Blocks of `tenure` and older ones that begin in `[first, next)` are never delivered.
    Disowned {
        /// The tenure they were last part of.
        tenure: u32,
        /// First offset.
        first: i64,
        /// One past the last offset.
        next: i64,
    },
    /// A commit of ours up to `next` is known to be applied.
    Confirmed {
        /// The tenure that made it.
        tenure: u32,
        /// The offset committed.
        next: i64,
    },
    /// Kafka no longer had what the tenure was to begin with.
    Gap {
        /// The tenure.
        tenure: u32,
        /// What is missing; fetching begins behind it.
        gap: Gap,
    },
}

/// What is known of a partition that the log knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fold {
    /// The last tenure opened.
    pub tenure: u32,
    /// Next offset to admit.
    pub admitted: i64,
    /// The highest offset of ours that is known to be applied; `None` when there is none.
    pub acked: Option<i64>,
    /// Where the undecided blocks begin, if there are any; see [`Fold::doubt`]. It is the last `Owned` frame's `first`,
    /// or the `next` of the `Disowned` frame of that tenure.
    pub undecided: i64,
    /// The last `Owned` frame carried entries: the group had a commit of Forebay's when that tenure opened.
    pub seen: bool,
}

impl Fold {
    /// The range in doubt: neither acknowledged nor disowned. It is one run, since every tenure begins by deciding
    /// about all before it.
    pub fn doubt(&self) -> Option<(i64, i64)> {
        let first = self.acked.map_or(self.undecided, |acked| acked.max(self.undecided));
        (first < self.admitted).then_some((first, self.admitted))
    }

    /// Where the last tenure opened, as long as no commit of Forebay's is known of: the claim that follows the opening
    /// may not have been applied yet.
    pub fn unclaimed(&self) -> Option<i64> {
        (!self.seen && self.acked.is_none()).then_some(self.undecided)
    }

    /// Takes a frame in, in the order of the log.
    pub fn apply(&mut self, frame: &Frame) {
        match frame {
            Frame::Owned { tenure, first, next, acked } => {
                (self.tenure, self.undecided, self.admitted) = (*tenure, *first, *next);
                self.seen = !acked.is_empty();
            }
            // What an older tenure left does not concern the one that is open: it began by deciding about it.
            Frame::Disowned { tenure, next, .. } if *tenure == self.tenure => {
                self.undecided = self.undecided.max(*next);
            }
            Frame::Disowned { .. } => {}
            Frame::Confirmed { next, .. } => self.confirm(*next),
            Frame::Gap { gap, .. } => self.admitted = self.admitted.max(gap.next),
        }
    }

    /// A commit of ours up to `next` is known to be applied.
    pub fn confirm(&mut self, next: i64) {
        self.acked = Some(self.acked.map_or(next, |acked| acked.max(next)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_is_what_is_neither_acknowledged_nor_disowned() {
        let mut fold = Fold::default();
        assert_eq!(fold.doubt(), None);
        fold.apply(&Frame::Owned { tenure: 1, first: 10, next: 10, acked: Acked::default() });
        assert_eq!(fold.doubt(), None);
        fold.admitted = 30;
        assert_eq!(fold.doubt(), Some((10, 30)));
        fold.apply(&Frame::Confirmed { tenure: 1, next: 20 });
        assert_eq!(fold.doubt(), Some((20, 30)));
        fold.apply(&Frame::Confirmed { tenure: 1, next: 15 });
        assert_eq!(fold.acked, Some(20), "monotone");
        let adopted = Fold { tenure: 2, admitted: 30, undecided: 20, ..fold };
        fold.apply(&Frame::Owned { tenure: 2, first: 20, next: 30, acked: Acked::default() });
        assert_eq!(fold, adopted);
        fold.apply(&Frame::Disowned { tenure: 2, first: 20, next: 30 });
        assert_eq!(fold.doubt(), None);
        fold.apply(&Frame::Owned { tenure: 3, first: 25, next: 25, acked: Acked::default() });
        fold.admitted = 26;
        assert_eq!(fold.doubt(), Some((25, 26)));
        fold.apply(&Frame::Disowned { tenure: 2, first: 20, next: 30 });
        assert_eq!(fold.doubt(), Some((25, 26)), "late news of an older tenure");
    }
}
