//! Assignments and revocations: asks the group's commit, lets the ownership protocol decide, logs and syncs what it
//! says, and only then fetches.

use super::poll::{Lane, Receiver};
use super::slot::Slot;
use super::trust::Trust;
use super::{ReceiverError, owners::entry};
use crate::dedupe::Row;
use crate::kafka::consumer::Named;
use crate::kafka::start::{Range, Start};
use crate::kafka::tenure::{Committed, Membership, Opened, Opening, Ticket, Wait};
use crate::record::topics::Topic;
use crate::record::{Partition, TopicId};
use crate::wal::Entry;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// One question to Kafka may take so long.
pub(super) const ASK: Duration = Duration::from_secs(5);
/// How often a partition that could not be opened is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// The same for one that waits for an operator.
const RETRY_HELD: Duration = Duration::from_secs(5);
/// As good as never.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often topics are asked whether they are still the same.
const IDENTITY: Duration = Duration::from_secs(60);

/// What is assigned and not open, and when to look again.
#[derive(Default)]
pub(super) struct Assigning {
    /// The group has given this member an assignment at least once.
    pub joined: bool,
    /// When the set of open partitions last changed.
    pub changed: Option<Instant>,
    /// Partitions of the subscribed topics, where known.
    pub expected: Option<usize>,
    late: BTreeMap<Named, Late>,
    told: BTreeMap<Named, String>,
    pub(super) settled: Option<Instant>,
    identified: Option<Instant>,
}

struct Late {
    why: String,
    held: bool,
    again: Instant,
}

impl Assigning {
    /// Assigned partitions that will open by themselves.
    pub fn waiting(&self) -> Vec<String> {
        self.words(false)
    }

    /// Assigned partitions that need an operator.
    pub fn held(&self) -> Vec<String> {
        self.words(true)
    }

    fn words(&self, held: bool) -> Vec<String> {
        let wanted = self.late.iter().filter(|(_, late)| late.held == held);
        wanted.map(|((topic, partition), late)| format!("{topic}/{partition}: {}", late.why)).collect()
    }

    /// Says why blocks stay in doubt, once for each reason.
    pub(super) fn tell_once(&mut self, named: &Named, why: &str) {
        if self.told.get(named).is_none_or(|known| known != why) {
            tracing::warn!(topic = named.0, partition = named.1, "blocks in doubt: {why}");
            self.told.insert(named.clone(), why.to_string());
        }
    }

    /// Notes that a partition waits for an operator.
    pub fn hold(&mut self, named: Named, why: String) {
        self.put(named, why, true);
    }

    fn put(&mut self, named: Named, why: String, held: bool) {
        let known = self.late.get(&named).is_some_and(|late| late.why == why);
        if !known && held {
            tracing::error!(topic = named.0, partition = named.1, "partition held: {why}");
        } else if !known {
            tracing::info!(topic = named.0, partition = named.1, "partition not open yet: {why}");
        }
        let again = Instant::now() + if held { RETRY_HELD } else { RETRY };
        self.late.insert(named, Late { why, held, again });
    }
}

/// A partition on the way to a tenure.
struct Candidate {
    named: Named,
    topic: Topic,
    partition: Partition,
    ticket: Ticket,
}

/// Errors after which librdkafka fetches nothing until the partition is assigned anew.
pub(super) fn position_is_lost(error: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error,
        Code::AutoOffsetReset
            | Code::OffsetOutOfRange
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
    )
}

impl Receiver<'_> {
    /// The group assigned partitions (perhaps none).
    pub fn assigned(&mut self, partitions: Vec<Named>) -> Result<(), ReceiverError> {
        self.shared.metrics.rebalances.inc();
        self.note_membership();
        self.assigning.joined = true;
        self.assigning.settled = None;
        let starts = self.open(partitions, false)?;
        Ok(self.member.assign(&starts)?)
    }

    /// As whom this receiver is in the group now; `None` while it is not.
    pub fn membership(&self) -> Option<Membership> {
        let membership = self.member.membership().unwrap_or_default();
        Membership::new(&membership.member_id, membership.generation)
    }

    /// Tells the protocol as whom this receiver is in the group now; first thing in every rebalance, and before every
    /// release.
    pub fn note_membership(&mut self) {
        let membership = self.membership();
        self.owners().members.seen(self.number, membership);
    }

    /// Tries again what could not be opened before.
    pub fn open_late(&mut self) -> Result<(), ReceiverError> {
        let now = Instant::now();
        let due = self.assigning.late.iter().filter(|(_, late)| late.again <= now);
        let due: Vec<Named> = due.map(|(named, _)| named.clone()).collect();
        if due.is_empty() {
            return Ok(());
        }
        let starts = self.open(due, true)?;
        if starts.is_empty() { Ok(()) } else { Ok(self.member.assign(&starts)?) }
    }

    /// Opens tenures; what can't be opened now is noted as late. With `checked`, Kafka is asked first whether it has the
    /// start.
    fn open(&mut self, partitions: Vec<Named>, checked: bool) -> Result<Vec<(Named, i64)>, ReceiverError> {
        let candidates = self.candidates(partitions)?;
        let names: Vec<Named> = candidates.iter().map(|candidate| candidate.named.clone()).collect();
        let committed = match self.member.committed(&names, ASK) {
            Ok(committed) => committed,
            Err(error) => {
                for named in names {
                    self.assigning.put(named, format!("cannot read the group's commit: {error}"), false);
                }
                return Ok(Vec::new());
            }
        };
        let mut opened = Vec::new();
        for candidate in candidates {
            let of_it = committed
                .iter()
                .find(|entry| (&entry.topic, entry.partition) == (&candidate.named.0, candidate.named.1));
            let read = of_it.map_or(Committed::None, |entry| Committed::read(entry.offset, &entry.metadata));
            if let Some(tenure) = self.decide(&candidate, &read, checked)? {
                opened.push((candidate, tenure));
            }
        }
        self.take_over(opened)
    }

    fn candidates(&mut self, partitions: Vec<Named>) -> Result<Vec<Candidate>, ReceiverError> {
        let mut ids: BTreeMap<String, Result<TopicId, String>> = BTreeMap::new();
        let mut candidates = Vec::new();
        for named in partitions {
            let id = ids.entry(named.0.clone()).or_insert_with(|| self.identity(&named.0));
            let id = match id {
                Ok(id) => *id,
                Err(why) => {
                    self.assigning.put(named, why.clone(), false);
                    continue;
                }
            };
            let (topic, is_new) = self.shared.topics.resolve(&named.0, id);
            if is_new {
                let (number, name) = (topic.number, topic.name.clone());
                self.shared.log.append(Entry::Topic { number, name, id })?;
            }
            let partition = Partition { topic: topic.number, number: named.1 };
            self.keep_durable(partition)?;
            let ticket = {
                let mut owners = self.owners();
                let members = owners.members.clone();
                owners.of(partition, topic.id).may_open(self.number, &members)
            };
            match ticket {
                Ok(ticket) => candidates.push(Candidate { named, topic, partition, ticket }),
                Err(wait) => {
                    // A commit of ours without a good answer is in the way: only a new membership gets past it.
                    let own = matches!(wait, Wait::NotJoined { receiver } if receiver == self.number);
                    self.commits.rejoin |= own && self.commits.is_idle();
                    self.assigning.put(named, wait.to_string(), false);
                }
            }
        }
        Ok(candidates)
    }

    /// A topic's id; none where the broker has no ids.
    fn identity(&self, topic: &str) -> Result<TopicId, String> {
        match self.member.topic_id(topic, ASK) {
            Ok(id) => Ok(id),
            Err(RDKafkaErrorCode::UnsupportedFeature) => Ok(TopicId::default()),
            Err(error) => Err(format!("cannot read the topic's id: {error}")),
        }
    }

    fn decide(
        &mut self,
        candidate: &Candidate,
        read: &Committed,
        checked: bool,
    ) -> Result<Option<Opened>, ReceiverError> {
        let mut range = if checked { self.range(&candidate.named).ok() } else { None };
        let former = self.had_former(candidate);
        loop {
            let opening = {
                let mut owners = self.owners();
                let ownership = owners.of(candidate.partition, candidate.topic.id);
                ownership.open(self.number, candidate.ticket, read, former, self.options.policy, range)
            };
            let why = match opening {
                Opening::Open(opened) => return Ok(Some(opened)),
                Opening::AskRange if range.is_none() => match self.range(&candidate.named) {
                    Ok(found) => {
                        range = Some(found);
                        continue;
                    }
                    Err(why) => why,
                },
                Opening::AskRange | Opening::ReadAgain => "another tenure was opened meanwhile".to_string(),
                Opening::Hold(hold) => {
                    self.assigning.put(candidate.named.clone(), hold.to_string(), true);
                    return Ok(None);
                }
                Opening::Stop(stop) => {
                    let (topic, partition) = candidate.named.clone();
                    return Err(ReceiverError::Stopped { topic, partition, stop });
                }
            };
            self.assigning.put(candidate.named.clone(), why, false);
            return Ok(None);
        }
    }

    fn range(&self, named: &Named) -> Result<Range, String> {
        let ends = self.member.ends(named, ASK);
        let (first, next) = ends.map_err(|error| format!("cannot read what Kafka has: {error}"))?;
        Ok(Range { first, next })
    }

    /// The log knows this partition of an earlier incarnation of the topic.
    fn had_former(&self, candidate: &Candidate) -> bool {
        let owners = self.owners();
        let earlier = self
            .shared
            .topics
            .all()
            .into_iter()
            .filter(|topic| topic.name == candidate.topic.name && topic.number < candidate.topic.number);
        earlier.into_iter().any(|topic| owners.knows(Partition { topic: topic.number, number: candidate.named.1 }))
    }

    /// Logs and syncs the tenures, then makes the lanes.
    fn take_over(&mut self, opened: Vec<(Candidate, Opened)>) -> Result<Vec<(Named, i64)>, ReceiverError> {
        if opened.is_empty() {
            return Ok(Vec::new());
        }
        let each = |(candidate, tenure): &(Candidate, Opened)| {
            let partition = candidate.partition;
            tenure.frames.iter().map(move |frame| entry(partition, frame)).collect::<Vec<_>>()
        };
        self.shared.log.append_synced(opened.iter().flat_map(each).collect())?;
        let mut starts = Vec::new();
        for (candidate, tenure) in opened {
            self.report(&candidate.named, &tenure);
            starts.push((candidate.named.clone(), tenure.fetch));
            self.add_lane(candidate, &tenure);
        }
        self.assigning.changed = Some(Instant::now());
        Ok(starts)
    }

    fn add_lane(&mut self, candidate: Candidate, tenure: &Opened) {
        let Candidate { named, partition, .. } = candidate;
        let marks = self.shared.log.marks(partition);
        {
            let mut owners = self.owners();
            if let Some(ownership) = owners.get(partition) {
                ownership.synced(tenure.tenure);
                // What a read or an earlier life confirmed opens the fence too.
                let acked = ownership.fold().and_then(|fold| fold.acked);
                marks.acked.fetch_max(acked.unwrap_or(-1), Ordering::AcqRel);
            }
        }
        let deliver = marks.delivered.load(Ordering::Acquire);
        let row = Row { admit: tenure.fetch, deliver, tenure: tenure.tenure };
        self.shared.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner).set(partition, row);
        let end = if self.options.exit_at_end { self.range(&named).ok().map(|range| range.next) } else { None };
        let slot = Slot::new(partition, tenure.tenure, tenure.fetch);
        self.assigning.late.remove(&named);
        self.by_name.insert(named.clone(), self.lanes.len());
        self.lanes.push(Lane {
            named,
            slot,
            marks,
            durable: tenure.fetch,
            end,
            at_end: false,
            trust: Trust::Sure,
            skip: false,
        });
    }

    fn report(&self, (topic, partition): &Named, opened: &Opened) {
        let (tenure, fetch) = (opened.tenure, opened.fetch);
        match &opened.start {
            Start::Kafka(_) | Start::FetchAgain { .. } | Start::Incarnation => {
                tracing::warn!(receiver = self.number, topic, partition, tenure, fetch, start = ?opened.start, "assigned");
            }
            start => tracing::info!(receiver = self.number, topic, partition, tenure, fetch, ?start, "assigned"),
        }
    }

    /// Gives one partition's position up and opens it again: its offsets are out of Kafka's range, or it is another
    /// topic by now.
    pub fn reopen(&mut self, lane: usize) -> Result<(), ReceiverError> {
        let named = self.lanes[lane].named.clone();
        self.let_go(std::slice::from_ref(&named))?;
        self.out_of_turn = true;
        self.member.unassign(std::slice::from_ref(&named))?;
        self.assigning.put(named, "its position was lost; asking Kafka again".to_string(), false);
        Ok(())
    }

    /// Stops one partition for good, until the process is started again; the others go on.
    pub fn stop_lane(&mut self, lane: usize, why: String) -> Result<(), ReceiverError> {
        let named = self.lanes[lane].named.clone();
        self.let_go(std::slice::from_ref(&named))?;
        self.out_of_turn = true;
        self.member.unassign(std::slice::from_ref(&named))?;
        self.shared.metrics.partitions_stopped.inc();
        self.assigning.hold(named.clone(), why);
        if let Some(late) = self.assigning.late.get_mut(&named) {
            late.again += NEVER;
        }
        Ok(())
    }

    /// Looks whether the topics are still the ones that were assigned.
    pub fn check_identities(&mut self) -> Result<(), ReceiverError> {
        let since = *self.assigning.identified.get_or_insert_with(Instant::now);
        if since.elapsed() < IDENTITY {
            return Ok(());
        }
        self.assigning.identified = Some(Instant::now());
        let names: std::collections::BTreeSet<String> = self.lanes.iter().map(|lane| lane.named.0.clone()).collect();
        for name in names {
            let Ok(id) = self.identity(&name) else { continue };
            while let Some(lane) = self.lanes.iter().position(|lane| {
                let known = self.shared.topics.get(lane.slot.partition.topic);
                lane.named.0 == name && known.is_some_and(|known| !id.is_none() && known.id != id)
            }) {
                self.reopen(lane)?;
            }
        }
        Ok(())
    }

    /// Looks for the subscribed topics, to know how many partitions there are and to name one that does not exist.
    pub fn find_topics(&mut self) -> Result<(), ReceiverError> {
        let mut expected = 0;
        for topic in &self.options.topics {
            if topic.starts_with('^') {
                return Ok(());
            }
            match self.member.partitions_of(topic, ASK) {
                Ok(partitions) => expected += partitions,
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                    if self.options.exit_at_end {
                        return Err(ReceiverError::NoTopic(topic.clone()));
                    }
                    tracing::warn!("topic {topic:?} does not exist on this cluster; waiting for it");
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!("cannot reach {}: {error}; trying again", self.options.kafka.brokers);
                    self.trouble = Some(error.to_string());
                    return Ok(());
                }
            }
        }
        self.assigning.expected = Some(expected);
        self.heard();
        Ok(())
    }

    /// Forgets what was only assigned.
    pub fn forget_late(&mut self, partitions: &[Named]) {
        for named in partitions {
            self.assigning.late.remove(named);
        }
    }
}
