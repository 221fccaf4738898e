//! Assignments and revocations: asks the group's commit, lets the ownership protocol decide, logs and syncs what it
//! says, and only then fetches.

use super::epoch::{Check, Known};
use super::late::For;
use super::leftovers::{AT_THE_SINK, DURABLE};
use super::poll::{Lane, Receiver};
use super::slot::Slot;
use super::trust::Trust;
use super::{ReceiverError, owners::entry};
use crate::dedupe::Row;
use crate::kafka::consumer::Named;
use crate::kafka::start::{Range, Start};
use crate::kafka::tenure::{Committed, Frame, Membership, Opened, Opening, Ticket, Wait};
use crate::record::topics::Topic;
use crate::record::{Partition, TopicId};
use rdkafka::error::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// One question to Kafka may take so long.
pub(super) const ASK: Duration = Duration::from_secs(5);

/// A partition on the way to a tenure.
pub(super) struct Candidate {
    pub named: Named,
    pub partition: Partition,
    topic: Topic,
    ticket: Ticket,
    /// Where the log ended when it was assigned, if it knew the partition.
    pub logged: Option<i64>,
    /// The group's commit and its leader epoch, -1 when unknown.
    commit: (i64, i32),
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
        self.start_fetching(&starts)
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
        let due = self.assigning.due(Instant::now());
        if due.is_empty() {
            return Ok(());
        }
        let starts = self.open(due, true)?;
        if starts.is_empty() { Ok(()) } else { self.start_fetching(&starts) }
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
                    self.assigning.put(named, format!("cannot read the group's commit: {error}"), For::Moment);
                }
                return Ok(Vec::new());
            }
        };
        let mut opened = Vec::new();
        for mut candidate in candidates {
            let of_it = committed
                .iter()
                .find(|entry| (&entry.topic, entry.partition) == (&candidate.named.0, candidate.named.1));
            let read = of_it.map_or(Committed::None, |entry| Committed::read(entry.offset, &entry.metadata));
            candidate.commit = of_it.and_then(|entry| Some((entry.offset?, entry.leader_epoch))).unwrap_or((-1, -1));
            if let Some(tenure) = self.decide(&candidate, &read, checked)? {
                opened.push((candidate, tenure));
            }
        }
        self.take_over(opened)
    }

    fn candidates(&mut self, partitions: Vec<Named>) -> Result<Vec<Candidate>, ReceiverError> {
        let mut ids: BTreeMap<String, Result<TopicId, String>> = BTreeMap::new();
        let mut candidates = Vec::new();
        let until = Instant::now() + DURABLE;
        for named in partitions {
            let id = ids.entry(named.0.clone()).or_insert_with(|| self.identity(&named.0));
            let id = match id {
                Ok(id) => *id,
                Err(why) => {
                    self.assigning.put(named, why.clone(), For::Moment);
                    continue;
                }
            };
            let topic = self.resolve(&named.0, id)?;
            let partition = Partition { topic: topic.number, number: named.1 };
            if let Some(why) = self.beyond_repair(partition) {
                self.assigning.put(named, why, For::Person);
                continue;
            }
            if self.is_at_the_sink(partition) {
                // Direct mode: a tenure adopts only what is delivered.
                self.assigning.put(named, AT_THE_SINK.to_string(), For::Moment);
                continue;
            }
            self.keep_durable(partition, until)?;
            let delivered = self.shared.log.marks(partition).delivered();
            let (ticket, logged) = {
                let mut owners = self.owners();
                let members = owners.members.clone();
                let ownership = owners.of(partition, topic.id);
                ownership.delivered(delivered);
                (ownership.may_open(self.number, &members), ownership.fold().map(|fold| fold.admitted))
            };
            match ticket {
                Ok(ticket) => candidates.push(Candidate { named, topic, partition, ticket, logged, commit: (-1, -1) }),
                Err(wait) => {
                    // A commit of ours without a good answer is in the way: only a new membership gets past it.
                    let own = matches!(wait, Wait::NotJoined { receiver } if receiver == self.number);
                    self.commits.rejoin |= own && self.commits.is_idle();
                    self.assigning.put(named, wait.to_string(), For::Moment);
                }
            }
        }
        Ok(candidates)
    }

    fn decide(
        &mut self,
        candidate: &Candidate,
        read: &Committed,
        checked: bool,
    ) -> Result<Option<Opened>, ReceiverError> {
        let mut range = match checked.then(|| self.range(&candidate.named)).transpose() {
            Ok(range) => range,
            Err(why) => {
                self.assigning.put(candidate.named.clone(), why, For::Moment);
                return Ok(None);
            }
        };
        let former = self.former(&candidate.topic.name, candidate.partition);
        if let Some(former) = former
            && !self.leave_former(candidate, former)?
        {
            return Ok(None);
        }
        if !self.leave_replaced(candidate)? {
            return Ok(None);
        }
        loop {
            let opening = {
                let mut owners = self.owners();
                let ownership = owners.of(candidate.partition, candidate.topic.id);
                ownership.open(self.number, candidate.ticket, read, former.is_some(), self.options.policy, range)
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
                    self.assigning.put(candidate.named.clone(), hold.to_string(), For::Person);
                    return Ok(None);
                }
                Opening::Await(gap) => {
                    self.await_end(candidate, &gap)?;
                    return Ok(None);
                }
                Opening::Stop(stop) => {
                    let (topic, partition) = candidate.named.clone();
                    return Err(ReceiverError::Stopped { topic, partition, stop });
                }
            };
            self.assigning.put(candidate.named.clone(), why, For::Moment);
            return Ok(None);
        }
    }

    fn range(&self, named: &Named) -> Result<Range, String> {
        let ends = self.member.ends(named, ASK);
        let (first, next) = ends.map_err(|error| format!("cannot read what Kafka has: {error}"))?;
        Ok(Range { first, next })
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
            for frame in &tenure.frames {
                if let Frame::Gap { gap, .. } = frame {
                    self.declared(&candidate.named, candidate.partition, gap);
                }
            }
            starts.push((candidate.named.clone(), tenure.fetch));
            self.add_lane(candidate, &tenure);
        }
        self.assigning.changed = Some(Instant::now());
        Ok(starts)
    }

    fn add_lane(&mut self, candidate: Candidate, tenure: &Opened) {
        let fetch = tenure.fetch;
        let check = self.first_check(&candidate, fetch);
        let Candidate { named, partition, .. } = candidate;
        let marks = self.shared.log.marks(partition);
        let deliver = marks.delivered.load(Ordering::Acquire);
        let again = self.plans_again(partition, fetch);
        {
            let mut owners = self.owners();
            if let Some(ownership) = owners.get(partition) {
                ownership.synced(tenure.tenure);
                // What a read or an earlier life confirmed opens the fence too.
                let acked = ownership.fold().and_then(|fold| fold.acked);
                marks.acked.fetch_max(acked.unwrap_or(-1), Ordering::AcqRel);
            }
        }
        let row = Row { admit: fetch, deliver, tenure: tenure.tenure };
        self.shared.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner).set(partition, row);
        let range = if self.options.exit_at_end { self.range(&named).ok() } else { None };
        // A start beyond the end is not the end: that Kafka does not have it is still to be heard.
        let end = range.map(|range| range.next).filter(|end| fetch <= *end);
        let slot = Slot::new(partition, tenure.tenure, fetch).run_again(again);
        self.assigning.forget(&named);
        self.shared.governor.open(partition, &named.0, crate::clock::monotonic());
        self.by_name.insert(named.clone(), self.lanes.len());
        self.lanes.push(Lane {
            named,
            slot,
            marks,
            durable: fetch,
            end,
            at_end: false,
            trust: Trust::Sure,
            skip: false,
            check,
            seen_end: fetch,
        });
    }

    /// What is known of the leader epoch before the position: what this receiver read there itself, or the commit if it is
    /// at the same offset. An epoch of a lower offset would prove too little.
    fn first_check(&mut self, candidate: &Candidate, fetch: i64) -> Check {
        let read = self.assigning.read_through.remove(&candidate.named).filter(|known| known.offset == fetch);
        let (offset, epoch) = candidate.commit;
        let committed = Some(Known { offset, epoch }).filter(|known| known.offset == fetch);
        match read.or(committed) {
            Some(known) => Check::First(known),
            None if candidate.logged == Some(fetch) => Check::First(Known { offset: fetch, epoch: -1 }),
            None => Check::Done,
        }
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
        self.put_off(lane, "its position was lost; asking Kafka again".to_string(), For::Moment)
    }

    /// Gives one partition's position up for now.
    pub(super) fn put_off(&mut self, lane: usize, why: String, waits: For) -> Result<(), ReceiverError> {
        let Lane { named, slot, check, seen_end, .. } = &self.lanes[lane];
        // If the topic is another one by now, nobody can tell any more where the old one ended.
        self.shared.gaps.saw_end(slot.partition, *seen_end);
        let named = named.clone();
        if let Some(known) = check.known(slot) {
            self.assigning.read_through.insert(named.clone(), known);
        }
        self.let_go(std::slice::from_ref(&named))?;
        self.out_of_turn = true;
        self.member.unassign(std::slice::from_ref(&named))?;
        self.assigning.put(named, why, waits);
        Ok(())
    }

    /// Stops one partition for good, until the process is started again; the others go on.
    pub fn stop_lane(&mut self, lane: usize, why: String) -> Result<(), ReceiverError> {
        let named = self.lanes[lane].named.clone();
        self.let_go(std::slice::from_ref(&named))?;
        self.out_of_turn = true;
        self.member.unassign(std::slice::from_ref(&named))?;
        self.shared.metrics.partitions_stopped.inc();
        self.assigning.hold_for_good(&named, why);
        Ok(())
    }

    /// Forgets what was only assigned.
    pub fn forget_late(&mut self, partitions: &[Named]) {
        for named in partitions {
            self.assigning.forget(named);
        }
    }
}
