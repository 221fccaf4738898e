//! Watermarks per partition, for all who need a number without asking the log's thread.

use super::format::state::{Disowned, NO_OFFSET, State};
use crate::record::Partition;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
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
            disowned: Mutex::default(),
        }
    }
}

impl PartitionMarks {
    /// Next offset to become durable.
    pub fn durable(&self) -> i64 {
        self.durable.load(Ordering::Acquire)
    }

    /// How far commits of ours are durably known to be applied.
    pub fn acked(&self) -> i64 {
        self.acked.load(Ordering::Acquire)
    }

    /// Next offset to deliver.
    pub fn delivered(&self) -> i64 {
        self.delivered.load(Ordering::Acquire)
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
            if *disowned != known.disowned {
                disowned.clone_from(&known.disowned);
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
