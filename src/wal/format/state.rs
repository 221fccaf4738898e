//! The `State` payload: the complete fold of everything before a segment, so that any older segment can go.
//!
//! Encoded as the other small payloads ([`super::payload`]), fields in this order:
//!
//! | field | type |
//! |---|---|
//! | `wal_id` | u128 |
//! | `lsn` | u64, the last LSN folded in |
//! | `retired_below` | u64 |
//! | `kept_lsn` | u64, first LSN of the lowest segment kept |
//! | `topics` | list of `{number: u32, name: str, id: 16 bytes}` |
//! | `routes` | list of `{route: u16, name: str}` |
//! | `plans` | list of `{route: u16, id: u64, time_ms: i64, ranges: list of {topic: u32, partition: i32, from: i64, until: i64}}` |
//! | `partitions` | list of `{topic: u32, partition: i32}` followed by the partition's fields |
//!
//! Partition fields: `tenure: u32, tenure_start: i64, owned: bool, admitted: i64, acked: i64, acked_entries: str,
//! undecided: list of {tenure: u32, first: i64, next: i64}, disowned: list of {tenure: u32, first: i64, next: i64,
//! lsn: u64}, gaps: list of {first: i64, next: i64, reason: str}, delivery: map of route u16 to {delivered: i64,
//! delivered_lsn: u64, receipt: option {first: i64, next: i64, keep_from: option i64, detail: bytes}, named: option
//! str}`. All lists are in ascending key order or in the order of their frames.

use super::payload::{self, PayloadError, PlanRange};
use crate::record::{Lsn, Partition, TopicId, TopicNumber};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The route that always exists.
pub const DEFAULT_ROUTE: u16 = 0;
/// Stands for "no offset yet".
pub const NO_OFFSET: i64 = -1;

/// One incarnation of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Kafka's id; all zero when the broker has none.
    pub id: TopicId,
}

/// A range of offsets logged in one tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenureRange {
    /// The tenure.
    pub tenure: u32,
    /// First offset.
    pub first: i64,
    /// One past the last offset.
    pub next: i64,
}

/// Blocks that will never be delivered: those of this tenure or an older one that begin in `[first, next)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disowned {
    /// The newest tenure meant.
    pub tenure: u32,
    /// First offset.
    pub first: i64,
    /// One past the last offset.
    pub next: i64,
    /// LSN of the frame that says so; only blocks before it are meant.
    pub lsn: Lsn,
}

impl Disowned {
    /// True if the block of that tenure which begins at `first` is meant.
    pub fn covers(&self, tenure: u32, first: i64) -> bool {
        tenure <= self.tenure && self.first <= first && first < self.next
    }
}

/// The reason of a gap that begins so is about offsets that were read before: it moves nothing.
const TRUNCATION: &str = "truncation";
/// The reason of a gap that begins so ends the life of its topic: nothing is ever admitted behind it.
const RECREATION: &str = "recreation";

/// True if a gap with this reason lies below the admitted offset and only says what became of Kafka's records there.
pub fn looks_back(reason: &str) -> bool {
    reason.starts_with(TRUNCATION)
}

/// Offsets that Kafka no longer had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRange {
    /// First offset.
    pub first: i64,
    /// One past the last offset.
    pub next: i64,
    /// Why.
    pub reason: String,
}

impl GapRange {
    /// True if nothing of the range will ever be admitted, when commits of ours are known to be applied up to `acked`.
    pub fn is_final(&self, acked: i64) -> bool {
        !looks_back(&self.reason) && (self.next <= acked || self.reason.starts_with(RECREATION))
    }
}

/// The last receipt of a partition on a route, verbatim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReceipt {
    /// First offset it covers.
    pub first: i64,
    /// One past the last offset it covers.
    pub next: i64,
    /// First offset whose blocks the log must keep although they are delivered.
    pub keep_from: Option<i64>,
    /// The sink's own words.
    pub detail: Vec<u8>,
}

/// What a route has of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Next offset to deliver; [`NO_OFFSET`] before the first receipt.
    pub delivered: i64,
    /// LSN of the last block the receipts cover; 0 before the first.
    pub delivered_lsn: Lsn,
    /// The last receipt.
    pub receipt: Option<StoredReceipt>,
    /// The last output name.
    pub named: Option<String>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { delivered: NO_OFFSET, delivered_lsn: 0, receipt: None, named: None }
    }
}

impl Delivery {
    /// Blocks that end at or below this offset are not needed any more by this route.
    pub fn done_below(&self) -> i64 {
        let keep_from = self.receipt.as_ref().and_then(|r| r.keep_from);
        keep_from.map_or(self.delivered, |keep| keep.min(self.delivered))
    }
}

/// The fold of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// The current or last tenure; 0 before the first.
    pub tenure: u32,
    /// The offset at which it was opened.
    pub tenure_start: i64,
    /// True from `Owned` until that tenure is disowned.
    pub owned: bool,
    /// Next offset to admit; [`NO_OFFSET`] before the first tenure.
    pub admitted: i64,
    /// How far commits of ours are known to be applied; [`NO_OFFSET`] before the first.
    pub acked: i64,
    /// The `acked` entries carried over from the commit metadata read at the last assignment.
    pub acked_entries: String,
    /// Logged, neither acknowledged nor disowned; the current tenure's own range included.
    pub undecided: Vec<TenureRange>,
    /// Given up. Forgotten once all segments before the frame that says so are retired.
    pub disowned: Vec<Disowned>,
    /// Declared gaps.
    pub gaps: Vec<GapRange>,
    /// Per route what is delivered.
    pub delivery: BTreeMap<u16, Delivery>,
}

impl Default for PartitionState {
    fn default() -> Self {
        Self {
            tenure: 0,
            tenure_start: NO_OFFSET,
            owned: false,
            admitted: NO_OFFSET,
            acked: NO_OFFSET,
            acked_entries: String::new(),
            undecided: Vec::new(),
            disowned: Vec::new(),
            gaps: Vec::new(),
            delivery: BTreeMap::new(),
        }
    }
}

impl PartitionState {
    /// What a route has; the default if nothing.
    pub fn on_route(&self, route: u16) -> Delivery {
        self.delivery.get(&route).cloned().unwrap_or_default()
    }

    /// Next offset to deliver on the default route; [`NO_OFFSET`] before the first receipt.
    pub fn delivered(&self) -> i64 {
        self.delivery.get(&DEFAULT_ROUTE).map_or(NO_OFFSET, |d| d.delivered)
    }
}

/// An open plan of direct mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPlan {
    /// Route.
    pub route: u16,
    /// Batch id.
    pub id: u64,
    /// When it was made, ms since 1970.
    pub time_ms: i64,
    /// What it reads.
    pub ranges: Vec<PlanRange>,
}

/// The complete fold of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Names the log.
    pub wal_id: u128,
    /// The last LSN folded in.
    pub lsn: Lsn,
    /// Segments with lower numbers are retired.
    pub retired_below: u64,
    /// First LSN of the lowest segment that is kept; 0 before anything was retired.
    pub kept_lsn: Lsn,
    /// Topics by number.
    pub topics: BTreeMap<TopicNumber, Topic>,
    /// Routes by number.
    pub routes: BTreeMap<u16, String>,
    /// Plans neither delivered nor dropped.
    pub plans: Vec<OpenPlan>,
    /// Partitions.
    pub partitions: BTreeMap<Partition, PartitionState>,
}

impl State {
    /// The state of an empty log.
    pub fn new(wal_id: u128) -> Self {
        Self { wal_id, ..Self::default() }
    }

    /// The number of the topic incarnation, if the log knows it.
    pub fn topic_number(&self, name: &str, id: TopicId) -> Option<TopicNumber> {
        let found = |t: &Topic| t.name == name && t.id == id;
        self.topics.iter().find(|(_, t)| found(t)).map(|(n, _)| *n)
    }

    /// The route numbers that hold segments back.
    pub fn route_numbers(&self) -> impl Iterator<Item = u16> {
        let others = self.routes.keys().copied().filter(|route| *route != DEFAULT_ROUTE);
        std::iter::once(DEFAULT_ROUTE).chain(others)
    }

    /// The payload of a `State` frame.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PayloadError> {
        payload::encode("State", &Image::of(self), out)
    }

    /// Reads a payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        payload::decode::<Image>("State", bytes).map(Image::into_state)
    }
}

#[derive(Serialize, Deserialize)]
struct TopicImage {
    number: u32,
    name: String,
    id: [u8; 16],
}

#[derive(Serialize, Deserialize)]
struct PartitionImage {
    topic: u32,
    partition: i32,
    state: PartitionState,
}

/// The byte order of [`State`].
#[derive(Serialize, Deserialize)]
struct Image {
    wal_id: u128,
    lsn: u64,
    retired_below: u64,
    kept_lsn: u64,
    topics: Vec<TopicImage>,
    routes: Vec<(u16, String)>,
    plans: Vec<OpenPlan>,
    partitions: Vec<PartitionImage>,
}

impl Image {
    fn of(state: &State) -> Self {
        let topic =
            |(number, topic): (&u32, &Topic)| TopicImage { number: *number, name: topic.name.clone(), id: topic.id.0 };
        let partition = |(key, state): (&Partition, &PartitionState)| PartitionImage {
            topic: key.topic,
            partition: key.number,
            state: state.clone(),
        };
        Self {
            wal_id: state.wal_id,
            lsn: state.lsn,
            retired_below: state.retired_below,
            kept_lsn: state.kept_lsn,
            topics: state.topics.iter().map(topic).collect(),
            routes: state.routes.clone().into_iter().collect(),
            plans: state.plans.clone(),
            partitions: state.partitions.iter().map(partition).collect(),
        }
    }

    fn into_state(self) -> State {
        let topic = |t: TopicImage| {
            let id = TopicId(t.id);
            (t.number, Topic { name: t.name, id })
        };
        let partition = |p: PartitionImage| {
            let (topic, number) = (p.topic, p.partition);
            (Partition { topic, number }, p.state)
        };
        State {
            wal_id: self.wal_id,
            lsn: self.lsn,
            retired_below: self.retired_below,
            kept_lsn: self.kept_lsn,
            topics: self.topics.into_iter().map(topic).collect(),
            routes: self.routes.into_iter().collect(),
            plans: self.plans,
            partitions: self.partitions.into_iter().map(partition).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let mut state = State::new(0x0102);
        let id = TopicId([3; 16]);
        let name = "orders".to_owned();
        state.topics.insert(1, Topic { name, id });
        state.routes.insert(0, "file".to_owned());
        let mut partition = PartitionState { tenure: 2, admitted: 40, ..PartitionState::default() };
        partition.undecided.push(TenureRange { tenure: 2, first: 10, next: 40 });
        let receipt = Some(StoredReceipt { first: 0, next: 10, keep_from: Some(5), detail: vec![1, 2] });
        let delivery = Delivery { delivered: 10, delivered_lsn: 3, receipt, named: Some("x".to_owned()) };
        assert_eq!(delivery.done_below(), 5);
        partition.delivery.insert(0, delivery);
        let key = Partition { topic: 1, number: 7 };
        state.partitions.insert(key, partition);
        let mut bytes = Vec::new();
        state.encode(&mut bytes).unwrap();
        assert_eq!(State::decode(&bytes).unwrap(), state);
        assert!(State::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn what_is_given_up_begins_in_the_range_and_is_of_that_tenure_or_older() {
        let given_up = Disowned { tenure: 2, first: 5, next: 9, lsn: 7 };
        for (tenure, first) in [(2, 5), (2, 8), (1, 6), (0, 5)] {
            assert!(given_up.covers(tenure, first), "tenure {tenure}, offset {first}");
        }
        for (tenure, first) in [(3, 5), (2, 4), (2, 9), (1, 9), (2, 10)] {
            assert!(!given_up.covers(tenure, first), "tenure {tenure}, offset {first}");
        }
        assert!(!Disowned { next: 5, ..given_up }.covers(2, 5), "an empty range");
    }

    #[test]
    fn each_route_has_its_own_delivery_and_nothing_before_its_first_receipt() {
        let mut state = PartitionState::default();
        let delivery = Delivery { delivered: 10, delivered_lsn: 3, receipt: None, named: Some("x".to_owned()) };
        state.delivery.insert(1, delivery.clone());
        assert_eq!(state.on_route(1), delivery);
        let nothing = state.on_route(DEFAULT_ROUTE);
        assert_eq!((nothing.delivered, nothing.delivered_lsn, nothing.named), (NO_OFFSET, 0, None));
        assert_eq!(state.delivered(), NO_OFFSET);
    }
}
