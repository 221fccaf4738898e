//! What is assigned and not open: why, and when to look again.

use super::epoch::Known;
use super::view::Idle;
use crate::kafka::consumer::Named;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often a partition that could not be opened is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// The same for one that waits for an operator.
const RETRY_HELD: Duration = Duration::from_secs(5);
/// As good as never.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// What is assigned and not open, and when to look again.
#[derive(Default)]
pub(super) struct Assigning {
    /// The group has given this member an assignment at least once.
    pub joined: bool,
    /// When the set of open partitions last changed.
    pub changed: Option<Instant>,
    /// Partitions of the subscribed topics, where known.
    pub expected: Option<usize>,
    /// Of partitions that are opened again: what was known of their positions.
    pub read_through: BTreeMap<Named, Known>,
    late: BTreeMap<Named, Late>,
    told: BTreeMap<Named, String>,
    pub settled: Option<Instant>,
    pub identified: Option<Instant>,
}

/// What a partition that is not open waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Nothing in particular: it opens in a moment.
    Moment,
    /// Kafka to reach the position; until then there is nothing to take.
    Kafka,
    /// A decision of a person.
    Person,
}

struct Late {
    why: String,
    waits: For,
    again: Instant,
}

impl Assigning {
    /// Assigned partitions that wait for this.
    pub fn waiting_for(&self, what: For) -> Vec<Idle> {
        let wanted = self.late.iter().filter(|(_, late)| late.waits == what);
        let idle = |((topic, partition), late): (&Named, &Late)| Idle {
            topic: topic.clone(),
            partition: *partition,
            why: late.why.clone(),
        };
        wanted.map(idle).collect()
    }

    /// True while assigned partitions will open in a moment.
    pub fn is_opening(&self) -> bool {
        self.late.values().any(|late| late.waits == For::Moment)
    }

    /// Says why blocks stay in doubt, once for each reason.
    pub fn tell_once(&mut self, named: &Named, why: &str) {
        if self.told.get(named).is_none_or(|known| known != why) {
            tracing::warn!(topic = named.0, partition = named.1, "blocks in doubt: {why}");
            self.told.insert(named.clone(), why.to_string());
        }
    }

    /// Notes what a partition waits for.
    pub fn put(&mut self, named: Named, why: String, waits: For) {
        let known = self.late.get(&named).is_some_and(|late| late.why == why);
        match waits {
            _ if known => {}
            For::Moment => tracing::info!(topic = named.0, partition = named.1, "partition not open yet: {why}"),
            For::Kafka => tracing::warn!(topic = named.0, partition = named.1, "partition waits: {why}"),
            For::Person => tracing::error!(topic = named.0, partition = named.1, "partition held: {why}"),
        }
        let again = Instant::now() + if waits == For::Moment { RETRY } else { RETRY_HELD };
        self.late.insert(named, Late { why, waits, again });
    }

    /// Notes that a partition waits for a restart.
    pub fn hold_for_good(&mut self, named: &Named, why: String) {
        self.put(named.clone(), why, For::Person);
        if let Some(late) = self.late.get_mut(named) {
            late.again += NEVER;
        }
    }

    /// Partitions to be tried again.
    pub fn due(&self, now: Instant) -> Vec<Named> {
        self.late.iter().filter(|(_, late)| late.again <= now).map(|(named, _)| named.clone()).collect()
    }

    /// Forgets that a partition is not open.
    pub fn forget(&mut self, named: &Named) {
        self.late.remove(named);
    }
}
