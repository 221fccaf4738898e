//! What is fetched, from whom, and what has arrived. Pure: no socket, no thread; time is passed in.
//!
//! Promises: what is handed out of a partition continues where it was told to begin, in order, without a hole that Kafka
//! does not have; nothing of an answer that was asked for before a partition was repositioned or let go is kept.
//! Never more is asked for than the budget allows, but for one batch of each partition.

mod plan;

use super::answer::{Ends, Outcome};
use super::batches::{Broken, Walked};
use super::records::{Part, Records, What};
use crate::kafka::consumer::{Named, Position};
use bytes::Bytes;
use kafka_protocol::ResponseError as Code;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// After an answer that says to come again.
const SOON: Duration = Duration::from_millis(100);
/// After one without what came meanwhile.
const AT_ONCE: Duration = Duration::from_millis(1);
/// After one that more likely needs a person.
const LATER: Duration = Duration::from_secs(1);
/// Answers in a row that a topic is not there before it is believed: brokers learn of a new one at different times.
const UNKNOWN_MAX: u32 = 5;
/// Answers in a row with an older leader epoch before it is believed: a cluster that was restored begins anew.
const STALE_MAX: u32 = 50;

#[derive(Debug)]
struct Lane {
    named: Arc<Named>,
    /// The topic's id when the partition was first positioned; nil while it is not known, or when there is none.
    id: Uuid,
    /// Everything below was handed out and taken.
    taken: i64,
    /// The leader epoch of the last of it.
    taken_epoch: i32,
    next: i64,
    epoch: i32,
    leader: Option<i32>,
    leader_epoch: i32,
    /// The request that this partition is part of.
    asked: Option<u64>,
    /// Told to wait, or what is to come can't be known.
    stopped: bool,
    end_told: Option<i64>,
    held: usize,
    again: Option<Instant>,
    /// It was left out of the last request, since it had enough.
    had_enough: bool,
    unknown: u32,
    /// Answers in a row with an older leader epoch.
    stale: u32,
    said: i16,
    ends: Option<Ends>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    lanes: BTreeMap<Named, Lane>,
    pub brokers: BTreeMap<i32, (String, u16)>,
    queue: VecDeque<Part>,
    held: usize,
    budget: usize,
    partition_bytes: usize,
    requests: u64,
    /// Partitions are taken from one by one.
    apart: bool,
    /// Who was asked for first in the last request to a broker.
    turn: BTreeMap<i32, Named>,
    /// How many requests to a broker in a row left out the same partitions, since they had enough.
    left_out: BTreeMap<i32, u32>,
    /// A leader is missing.
    pub is_lost: bool,
    /// Why librdkafka has to do it.
    pub gave_up: Option<String>,
    pub stop: bool,
}

impl State {
    /// `budget` bytes may wait, and `partition_bytes` of one partition be asked for at a time.
    pub fn new(budget: usize, partition_bytes: usize) -> Self {
        Self {
            lanes: BTreeMap::new(),
            brokers: BTreeMap::new(),
            queue: VecDeque::new(),
            held: 0,
            budget,
            partition_bytes,
            requests: 0,
            apart: false,
            turn: BTreeMap::new(),
            left_out: BTreeMap::new(),
            is_lost: false,
            gave_up: None,
            stop: false,
        }
    }

    /// Fetches a partition from here on; what was asked for before does not count any more.
    pub fn position(&mut self, Position { named, offset, epoch }: Position) {
        self.drop_queued(&named);
        let known = self.lanes.remove(&named);
        // What was read before the position tells more than who positions may know (behind a marker).
        let read = known.as_ref().filter(|lane| lane.taken == offset).map_or(-1, |lane| lane.taken_epoch);
        let epoch = if epoch < 0 { read } else { epoch };
        let of_it = |lane: &Lane| (lane.id, lane.leader, lane.leader_epoch);
        let (id, leader, leader_epoch) = known.as_ref().map_or((Uuid::nil(), None, -1), of_it);
        self.is_lost |= leader.is_none();
        let lane = Lane {
            named: Arc::new(named.clone()),
            id,
            taken: offset,
            taken_epoch: epoch,
            next: offset,
            epoch,
            leader,
            leader_epoch,
            asked: None,
            stopped: false,
            end_told: None,
            held: 0,
            again: None,
            had_enough: false,
            unknown: 0,
            stale: 0,
            said: 0,
            ends: known.and_then(|lane| lane.ends),
        };
        self.lanes.insert(named, lane);
    }

    /// Nothing of the partition is to arrive until it is positioned again.
    pub fn pause(&mut self, named: &Named) {
        self.drop_queued(named);
        if let Some(lane) = self.lanes.get_mut(named) {
            (lane.asked, lane.stopped) = (None, true);
        }
    }

    /// The partition is somebody else's.
    pub fn forget(&mut self, named: &Named) {
        self.drop_queued(named);
        self.lanes.remove(named);
    }

    fn drop_queued(&mut self, named: &Named) {
        let Self { queue, held, .. } = self;
        queue.retain(|part| {
            let keep = *part.named != *named;
            *held -= if keep { 0 } else { part.size() };
            keep
        });
        if let Some(lane) = self.lanes.get_mut(named) {
            lane.held = 0;
        }
    }

    /// The first offset and the high watermark of a partition, as the last answer told them.
    pub fn ends(&self, named: &Named) -> Option<(i64, i64)> {
        self.lanes.get(named)?.ends.map(|ends| (ends.low, ends.high))
    }

    /// Nothing is fetched any more, and what waits is not wanted.
    pub fn end(&mut self) {
        self.stop = true;
        self.lanes.clear();
        self.queue.clear();
    }

    /// What arrived first, of one partition or of any. It counts as held until [`State::done`].
    ///
    /// # Panics
    /// If what came before it in its partition was not taken whole: records would be missing.
    pub fn take(&mut self, of: Option<&Named>) -> Option<Part> {
        if self.gave_up.is_some() {
            return None;
        }
        self.apart = of.is_some();
        let at = of.map_or(Some(0), |named| self.queue.iter().position(|part| *part.named == *named))?;
        let part = self.queue.remove(at)?;
        let first = match &part.what {
            What::Records(records) => Some(records.first),
            What::End(end) => Some(*end),
            What::Error(..) | What::Truncated { .. } => None,
        };
        let taken = self.lanes.get(&*part.named).map(|lane| lane.taken);
        assert!(first.is_none() || first == taken, "{:?}: taken up to {taken:?}, then {first:?}", part.named);
        Some(part)
    }

    /// A part is not needed any more. If it was not taken whole, the partition must be positioned anew, paused or
    /// forgotten before the next part of it can be taken.
    pub fn done(&mut self, part: &Part, whole: bool) {
        self.held = self.held.saturating_sub(part.size());
        let Some(lane) = self.lanes.get_mut(&*part.named) else { return };
        lane.held = lane.held.saturating_sub(part.size());
        if let What::Records(records) = &part.what
            && whole
        {
            (lane.taken, lane.taken_epoch) = (records.next, records.epoch);
        }
    }

    /// A part was not taken to its end; it comes first again.
    pub fn put_back(&mut self, mut part: Part, slowly: bool) {
        if let What::Records(records) = &mut part.what
            && slowly
        {
            records.rest();
        }
        self.queue.push_front(part);
    }

    /// Takes in what a request brought.
    pub fn apply(&mut self, number: u64, outcomes: Vec<(Arc<Named>, Outcome)>, now: Instant) {
        let has_bytes = |outcome: &Outcome| matches!(outcome, Outcome::Took { bytes, .. } if !bytes.is_empty());
        let brought = outcomes.iter().any(|(_, outcome)| has_bytes(outcome));
        for (named, outcome) in outcomes {
            let Some(lane) = self.lanes.get_mut(&*named).filter(|lane| lane.asked == Some(number)) else { continue };
            lane.asked = None;
            match outcome {
                Outcome::Took { walked, bytes, ends } => self.took(&named, walked, bytes, ends, (brought, now)),
                Outcome::Diverged { end } => {
                    lane.stopped = true;
                    self.queue.push_back(Part { named, what: What::Truncated { end } });
                }
                Outcome::Failed(code) => self.failed(&named, code, now),
            }
        }
        // What the broker left out is asked for again.
        self.failed_request(number, Duration::ZERO, now);
    }

    /// `brought`: the answer had something for some partition.
    fn took(&mut self, named: &Named, walked: Walked, bytes: Bytes, ends: Ends, (brought, now): (bool, Instant)) {
        let is_empty = bytes.is_empty();
        let Some(lane) = self.lanes.get_mut(named) else { return };
        let from = lane.next;
        lane.again = None;
        (lane.next, lane.epoch, lane.ends) = (walked.next, walked.epoch, Some(ends));
        (lane.unknown, lane.said) = (0, 0);
        let named = Arc::clone(&lane.named);
        if walked.next > from {
            let records = Records::new(bytes, &walked, from);
            let part = Part { named: Arc::clone(&named), what: What::Records(records) };
            lane.held += part.size();
            self.held += part.size();
            self.queue.push_back(part);
        }
        if walked.next == from && is_empty && lane.next != ends.end {
            // Its end is not known yet, or something is in the way; the broker does not wait with such an answer. Where the
            // answer was full, it is only not its turn yet: a large batch comes only to who comes first.
            let is_unknown = ends.end < lane.next;
            lane.again = if is_unknown { Some(now + SOON) } else { (!brought).then(|| now + AT_ONCE) };
        }
        match walked.broken {
            None if lane.next == ends.end && lane.end_told != Some(lane.next) => {
                lane.end_told = Some(lane.next);
                self.queue.push_back(Part { named, what: What::End(lane.next) });
            }
            None => {}
            Some(Broken::Damaged(text)) => {
                lane.stopped = true;
                self.queue.push_back(Part { named, what: What::Error(RDKafkaErrorCode::BadMessage, text) });
            }
            Some(Broken::Unknown(what)) => {
                lane.stopped = true;
                self.gave_up = Some(format!("{}/{} has {what}", named.0, named.1));
            }
        }
    }

    fn failed(&mut self, named: &Named, code: i16, now: Instant) {
        let Some(lane) = self.lanes.get_mut(named) else { return };
        let known = Code::try_from_code(code);
        let text = known.as_ref().map_or_else(|| format!("error {code}"), ToString::to_string);
        let what = |code| Part { named: Arc::clone(&lane.named), what: What::Error(code, text.clone()) };
        let mut later = SOON;
        match known {
            Some(Code::OffsetOutOfRange) => {
                // A leader that does not know the epoch it is asked about says the same: it is not asked again.
                (lane.stopped, lane.taken_epoch) = (true, -1);
                let (from, text) = (lane.next, format!("Kafka does not have offset {} ({text})", lane.next));
                tracing::debug!(topic = named.0, partition = named.1, from, "{text}");
                let what = What::Error(RDKafkaErrorCode::AutoOffsetReset, text);
                self.queue.push_back(Part { named: Arc::clone(&lane.named), what });
            }
            Some(Code::CorruptMessage) => {
                lane.stopped = true;
                self.queue.push_back(what(RDKafkaErrorCode::BadMessage));
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopicId | Code::InconsistentTopicId) => {
                lane.unknown += 1;
                if lane.unknown > UNKNOWN_MAX {
                    lane.stopped = true;
                    self.queue.push_back(what(RDKafkaErrorCode::UnknownTopicOrPartition));
                }
                lane.leader = None;
            }
            Some(Code::UnsupportedVersion | Code::UnsupportedForMessageFormat | Code::UnsupportedCompressionType) => {
                self.gave_up = Some(format!("{}/{}: {text}", named.0, named.1));
            }
            // The client has no answer of its own for these; the leader may be another one.
            Some(error) if !error.is_retriable() && lane.said != code => {
                (lane.said, later) = (code, LATER);
                let code = if error == Code::TopicAuthorizationFailed {
                    RDKafkaErrorCode::TopicAuthorizationFailed
                } else {
                    RDKafkaErrorCode::Unknown
                };
                self.queue.push_back(what(code));
            }
            _ => {
                later = if lane.said == code { LATER } else { SOON };
                lane.leader = None;
            }
        }
        self.is_lost |= lane.leader.is_none();
        lane.again = Some(now + later);
    }

    /// A request brought nothing.
    pub fn failed_request(&mut self, number: u64, later: Duration, now: Instant) {
        for lane in self.lanes.values_mut().filter(|lane| lane.asked == Some(number)) {
            (lane.asked, lane.again) = (None, Some(now + later));
        }
    }

    /// A broker can't be reached: its partitions may have another leader by now.
    pub fn lost(&mut self, broker: i32) {
        for lane in self.lanes.values_mut().filter(|lane| lane.leader == Some(broker)) {
            (lane.leader, self.is_lost) = (None, true);
        }
    }

    /// Topics of which a leader is missing, or all.
    pub fn topics(&self, all: bool) -> Vec<String> {
        let lost = self.lanes.iter().filter(|(_, lane)| all || lane.leader.is_none() && !lane.stopped);
        let mut topics: Vec<String> = lost.map(|((topic, _), _)| topic.clone()).collect();
        topics.dedup();
        topics
    }

    /// Who leads a partition in which epoch, as a broker knows it.
    pub fn leads(&mut self, named: &Named, leader: i32, epoch: i32) {
        if let Some(lane) = self.lanes.get_mut(named) {
            // An answer from before an election that was heard of already tells nothing; unless it is all there is to hear.
            lane.stale = if epoch < lane.leader_epoch { lane.stale + 1 } else { 0 };
            if leader >= 0 && (lane.stale == 0 || lane.stale > STALE_MAX) {
                (lane.leader, lane.leader_epoch) = (Some(leader), epoch);
            }
        }
    }

    /// The id of a topic. Another one than before: it was created again, and nothing of it belongs to what was positioned
    /// before; brokers refuse the id of its former life.
    pub fn is_now(&mut self, topic: &str, id: Uuid) {
        for (named, lane) in self.lanes.iter_mut().filter(|(named, lane)| named.0 == topic && !lane.stopped) {
            if lane.id.is_nil() || lane.id == id {
                lane.id = id;
                continue;
            }
            (lane.stopped, lane.asked) = (true, None);
            let text = format!("topic {} was created again", named.0);
            let what = What::Error(RDKafkaErrorCode::UnknownTopicOrPartition, text);
            self.queue.push_back(Part { named: Arc::clone(&lane.named), what });
        }
    }

    /// A broker that knows all topics says that this one is not there.
    pub fn is_unknown(&mut self, topic: &str, now: Instant) {
        let of_it = self.lanes.iter().filter(|(named, lane)| named.0 == topic && !lane.stopped);
        let of_it: Vec<Named> = of_it.map(|(named, _)| named.clone()).collect();
        for named in of_it {
            self.failed(&named, Code::UnknownTopicOrPartition.code(), now);
        }
    }

    /// Looks whether a leader is still missing.
    pub fn look_for_leaders(&mut self) {
        self.is_lost = self.lanes.values().any(|lane| lane.leader.is_none() && !lane.stopped);
    }

    /// Brokers that lead something.
    pub fn leaders(&self) -> Vec<i32> {
        let mut leaders: Vec<i32> = self.lanes.values().filter_map(|lane| lane.leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        leaders
    }

    /// When a broker may be asked again for something that waits.
    pub fn next_try(&self, broker: i32, now: Instant) -> Option<Instant> {
        let waiting = self.lanes.values().filter(|lane| lane.leader == Some(broker) && !lane.stopped);
        waiting.filter_map(|lane| lane.again).filter(|again| *again > now).min()
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
