//! What receivers tell others about themselves. Numbers and words; nobody steers by calling back.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An assigned partition that is not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}: {}", self.topic, self.partition, self.why)
    }
}

/// One receiver as others see it.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own, shown as it is
pub struct View {
    /// It was assigned something (perhaps nothing) by the group.
    pub joined: bool,
    /// Partitions it fetches: topic, partition, next offset, Kafka's end as far as known.
    pub partitions: Vec<(String, i32, i64, Option<i64>)>,
    /// All of them have reached the end that was there at the start.
    pub at_end: bool,
    /// Everything it handed to the log is durable and committed.
    pub settled: bool,
    /// Assigned partitions that can't be opened yet.
    pub waiting: Vec<Idle>,
    /// Partitions whose position Kafka has not reached: there is nothing to take.
    pub parked: Vec<Idle>,
    /// Partitions held until an operator decides.
    pub held: Vec<Idle>,
    /// Partitions are paused because log or disk are full.
    pub paused: bool,
    /// librdkafka fetches, not [`crate::kafka::wire`].
    pub by_client: bool,
    /// The last trouble with Kafka, while it lasts.
    pub trouble: Option<String>,
    /// Monotone time from the pipeline's start to the first record, if there was one.
    pub first_record: Option<Duration>,
    /// CPU seconds of the process at that moment.
    pub first_record_cpu: f64,
    /// Records between what is taken and Kafka's end, as far as known.
    pub lag: u64,
    /// When the set of partitions last changed.
    pub changed: Option<Instant>,
    /// How many partitions the subscribed topics have, if that is known.
    pub partitions_expected: Option<usize>,
}

/// The views of all receivers.
#[derive(Debug)]
pub struct Views {
    all: Mutex<Vec<View>>,
}

impl Views {
    /// Of so many receivers.
    pub fn new(receivers: usize) -> Self {
        Self { all: Mutex::new(vec![View::default(); receivers]) }
    }

    /// Changes one receiver's view.
    pub fn update(&self, receiver: usize, change: impl FnOnce(&mut View)) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut all[receiver]);
    }

    /// Looks at all; receivers wait meanwhile.
    pub fn look<T>(&self, at: impl FnOnce(&[View]) -> T) -> T {
        at(&self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A copy of all.
    pub fn all(&self) -> Vec<View> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
