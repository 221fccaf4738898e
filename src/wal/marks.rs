//! Watermarks per partition, for all who need a number without asking the log's thread.

use super::format::state::{Disowned, NO_OFFSET, State};
use crate::record::{Lsn, Partition};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The watermarks of one partition; -1 where there is none yet. Written by the log's thread after each sync.
#[derive(Debug)]
pub struct PartitionMarks {
    /// Next offset to become durable. Grows, except that a new tenure sets it to where fetching begins.
    pub durable: AtomicI64,
    /// How far commits of ours are known to be applied; raised by who receives the answer, too. Grows.
    pub acked: AtomicI64,
    /// Next offset to deliver on the default route, by durable receipts.
    pub delivered: AtomicI64,
    /// Planned blocks on their way to the sink: counted up by the log, down by the delivery.
    pub in_flight: AtomicI64,
    judged: AtomicU64,
    disowned: Mutex<Vec<Disowned>>,
}

impl Default for PartitionMarks {
    fn default() -> Self {
        let none = || AtomicI64::new(NO_OFFSET);
        Self {
            durable: none(),
            acked: none(),
            delivered: none(),
            in_flight: AtomicI64::new(0),
            judged: AtomicU64::new(0),
            disowned: Mutex::default(),
        }
    }
}

impl PartitionMarks {
    /// Next offset to become durable.
    pub fn durable(&self) -> i64 {
        self.durable.load(Ordering::Acquire)
    }

    /// How far commits of ours are known to be applied.
    pub fn acked(&self) -> i64 {
        self.acked.load(Ordering::Acquire)
    }

    /// Next offset to deliver.
    pub fn delivered(&self) -> i64 {
        self.delivered.load(Ordering::Acquire)
    }

    /// Whoever takes the partition's blocks out of the feed has made up its mind about all up to this LSN. Until then what
    /// was given up of them stays in [`PartitionMarks::disowned`], also when their segments are retired.
    pub fn judged_through(&self, lsn: Lsn) {
        self.judged.store(lsn, Ordering::Release);
    }

    /// What was durably given up.
    pub fn disowned(&self) -> Vec<Disowned> {
        self.disowned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: &State, partition: Partition) {
        if let Some(known) = state.partitions.get(&partition) {
            self.durable.store(known.admitted, Ordering::Release);
            // The owner of the commit may know more already than the log has made durable.
            self.acked.fetch_max(known.acked, Ordering::AcqRel);
            self.delivered.store(known.delivered(), Ordering::Release);
            let mut disowned = self.disowned.lock().unwrap_or_else(PoisonError::into_inner);
            let judged = self.judged.load(Ordering::Acquire);
            disowned.retain(|range| range.lsn > judged || known.disowned.contains(range));
            for range in &known.disowned {
                if !disowned.contains(range) {
                    disowned.push(*range);
                }
            }
        }
    }
}

/// The watermarks of all partitions.
#[derive(Debug, Default)]
pub struct Marks {
    partitions: Mutex<HashMap<Partition, Arc<PartitionMarks>>>,
}

impl Marks {
    /// The marks of all partitions in the state.
    pub fn new(state: &State) -> Self {
        let marks = Self::default();
        for partition in state.partitions.keys() {
            marks.of(*partition).set(state, *partition);
        }
        marks
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Partition, Arc<PartitionMarks>>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The marks of a partition; made if there are none.
    pub fn of(&self, partition: Partition) -> Arc<PartitionMarks> {
        Arc::clone(self.lock().entry(partition).or_default())
    }

    /// Sets the marks of these partitions to what the state says.
    pub fn update(&self, state: &State, partitions: impl Iterator<Item = Partition>) {
        let mut marks = self.lock();
        for partition in partitions {
            marks.entry(partition).or_default().set(state, partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::Entry;

    const P: Partition = Partition { topic: 1, number: 0 };

    #[test]
    fn what_was_given_up_is_known_until_the_blocks_before_it_are_judged() {
        let mut state = State::default();
        let owned = |tenure| Entry::Owned { partition: P, tenure, first: 0, next: 0, acked_entries: String::new() };
        state.apply(1, &owned(1)).unwrap();
        state.apply(3, &Entry::Disowned { partition: P, tenure: 1, first: 0, next: 10 }).unwrap();
        let marks = Marks::new(&state);
        let known = || marks.of(P).disowned().iter().map(|range| range.lsn).collect::<Vec<_>>();
        marks.of(P).judged_through(1);
        state.apply(4, &Entry::RetiredBelow { segment: 2, lsn: 4 }).unwrap();
        assert!(state.partitions[&P].disowned.is_empty());
        marks.update(&state, [P].into_iter());
        assert_eq!(known(), [3], "a block at 2 may still wait somewhere");
        state.apply(5, &owned(2)).unwrap();
        state.apply(7, &Entry::Disowned { partition: P, tenure: 2, first: 0, next: 5 }).unwrap();
        marks.of(P).judged_through(6);
        for _ in 0..2 {
            marks.update(&state, [P].into_iter());
            assert_eq!(known(), [7]);
        }
    }

    #[test]
    fn what_was_given_up_is_forgotten_when_all_up_to_it_is_judged() {
        let mut state = State::default();
        let owned = Entry::Owned { partition: P, tenure: 1, first: 0, next: 0, acked_entries: String::new() };
        state.apply(1, &owned).unwrap();
        state.apply(3, &Entry::Disowned { partition: P, tenure: 1, first: 0, next: 10 }).unwrap();
        let marks = Marks::new(&state);
        state.apply(4, &Entry::RetiredBelow { segment: 2, lsn: 4 }).unwrap();
        for (judged, known) in [(0, 1), (1, 1), (3, 0)] {
            marks.of(P).judged_through(judged);
            marks.update(&state, [P].into_iter());
            assert_eq!(marks.of(P).disowned().len(), known, "judged through {judged}");
        }
    }

    #[test]
    fn the_marks_follow_the_state_and_keep_what_is_known_of_a_commit_sooner() {
        let mut state = State::default();
        let marks = Marks::new(&state);
        let known = || {
            let known = marks.of(P);
            (known.durable(), known.acked(), known.delivered())
        };
        assert_eq!(known(), (NO_OFFSET, NO_OFFSET, NO_OFFSET));
        let detail = Vec::new();
        let entries = [
            Entry::Owned { partition: P, tenure: 1, first: 0, next: 0, acked_entries: String::new() },
            Entry::Empty { partition: P, tenure: 1, first: 0, next: 9 },
            Entry::Confirmed { partition: P, tenure: 1, next: 7 },
            Entry::Delivered { route: 0, partition: P, first: 0, next: 5, through_lsn: 2, keep_from: None, detail },
        ];
        for (lsn, entry) in (1..).zip(&entries) {
            state.apply(lsn, entry).unwrap();
        }
        marks.update(&state, [P].into_iter());
        assert_eq!(known(), (9, 7, 5));
        marks.of(P).acked.store(8, Ordering::Release);
        marks.update(&state, [P].into_iter());
        assert_eq!(known(), (9, 8, 5));
    }
}
