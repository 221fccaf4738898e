//! From durable to committed: tells the ownership protocol what became durable, sends what it orders, brings back what
//! Kafka answered.

use super::late::For;
use super::owners::entry;
use super::poll::Receiver;
use super::{ReceiverError, owners::Owners};
use crate::kafka::consumer::Named;
use crate::kafka::ffi::commit::{Offer, Outcome};
use crate::kafka::tenure::{Answer, Commit, Frame, Reply, Standing};
use crate::record::{Lsn, Partition};
use rdkafka::error::RDKafkaErrorCode;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Commits are at least this far apart; the next covers all that became durable meanwhile.
const APART: Duration = Duration::from_millis(1);
/// The same when each would cover many records, and so much more for each partition, since a commit costs what it names:
/// then one more costs more than it saves in delay, and in memory for what waits for its answer.
const APART_BUSY: Duration = Duration::from_millis(4);
const APART_EACH: Duration = Duration::from_micros(20);
/// All partitions are looked through when the log made something durable, and otherwise this often.
const LOOK: Duration = Duration::from_millis(10);
/// Commits are this far apart after a refusal.
const APART_REFUSED: Duration = Duration::from_millis(250);
/// Records behind one commit that count as many.
const MANY: i64 = 1_000;

/// The commit in flight and what follows from answers.
pub(super) struct Commits {
    in_flight: Option<InFlight>,
    next_id: usize,
    last_sent: Instant,
    /// Offsets that became durable since.
    noted: i64,
    /// The last answer was a refusal.
    refused: bool,
    /// Something may be due since the partitions were last looked through.
    news: bool,
    /// When that was, and what was durable then.
    looked: (Instant, Lsn),
    /// Commits are stopped until the member has left and joined anew.
    pub rejoin: bool,
}

struct InFlight {
    id: usize,
    orders: Vec<(Named, Partition, u32, i64)>,
}

impl Commits {
    pub fn new(now: Instant) -> Self {
        let looked = (now, 0);
        Self {
            in_flight: None,
            next_id: 1,
            last_sent: now,
            noted: 0,
            refused: false,
            news: true,
            looked,
            rejoin: false,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none()
    }

    /// One may be due as soon as the last one is long enough ago.
    pub fn is_due(&self) -> bool {
        self.news
    }
}

impl Receiver<'_> {
    pub fn owners(&self) -> MutexGuard<'_, Owners> {
        self.shared.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One round: answers in, news of the log in, the next commit out.
    pub fn commit_round(&mut self) -> Result<(), ReceiverError> {
        while let Some(outcome) = self.member.commit_result(Duration::ZERO) {
            self.answered(&outcome)?;
        }
        // With many partitions a look at all of them costs more than most rounds.
        let durable = self.shared.log.durable_lsn();
        if durable != self.commits.looked.1 || self.commits.looked.0.elapsed() >= LOOK {
            (self.commits.looked, self.commits.news) = ((Instant::now(), durable), true);
            self.note_durable();
        }
        let many = APART_BUSY + APART_EACH * self.lanes.len() as u32;
        let busy = if self.commits.noted >= MANY { many } else { APART };
        let apart = if self.commits.refused { APART_REFUSED } else { busy };
        if self.commits.news && self.commits.in_flight.is_none() && self.commits.last_sent.elapsed() >= apart {
            self.commits.news = false;
            self.send_due();
        }
        Ok(())
    }

    /// Tells the protocol what became durable.
    fn note_durable(&mut self) {
        let mut owners = self.shared.owners.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in &mut self.lanes {
            let durable = lane.marks.durable.load(Ordering::Acquire);
            if durable > lane.durable {
                self.commits.noted += durable - lane.durable;
                lane.durable = durable;
                if let Some(ownership) = owners.get(lane.slot.partition) {
                    ownership.durable(lane.slot.tenure, durable);
                }
            }
        }
    }

    /// Sends one request with all commits that are due.
    pub fn send_due(&mut self) {
        let mut orders = Vec::new();
        let mut offers = Vec::new();
        let mut full = Vec::new();
        let mut rejoin = false;
        let standing = Standing { membership: self.membership(), out_of_turn: self.out_of_turn };
        {
            let mut owners = self.owners();
            for lane in &self.lanes {
                let Some(ownership) = owners.get(lane.slot.partition) else { continue };
                if ownership.due(self.number).is_none() {
                    continue;
                }
                let delivered = lane.marks.delivered.load(Ordering::Acquire);
                let commit = ownership.take_commit(self.number, standing, (delivered >= 0).then_some(delivered));
                let encoded = commit.and_then(|commit| match commit {
                    Commit::Send(order) => Ok(Some((order.metadata.encode()?, order))),
                    Commit::NotDue => Ok(None),
                    Commit::Rejoin => {
                        rejoin = true;
                        Ok(None)
                    }
                });
                match encoded {
                    Ok(None) => {}
                    Ok(Some((metadata, order))) => {
                        orders.push((lane.named.clone(), lane.slot.partition, order.tenure, order.next));
                        let ((topic, partition), leader_epoch) = (lane.named.clone(), lane.slot.leader_epoch);
                        offers.push(Offer { topic, partition, offset: order.next, leader_epoch, metadata });
                    }
                    Err(hold) => full.push((lane.named.clone(), hold.to_string())),
                }
            }
        }
        if rejoin && !self.commits.rejoin {
            tracing::warn!(receiver = self.number, "the client joined as another member while it held partitions");
        }
        self.commits.rejoin |= rejoin;
        for (named, why) in full {
            self.assigning.put(named, why, For::Person);
        }
        if offers.is_empty() {
            return;
        }
        if let Some(hook) = &self.options.hook {
            hook.reached();
        }
        let id = self.commits.next_id;
        self.commits.next_id += 1;
        self.commits.last_sent = Instant::now();
        self.commits.noted = 0;
        let in_flight = InFlight { id, orders };
        match self.member.commit(&offers, id) {
            Ok(()) => self.commits.in_flight = Some(in_flight),
            // It never left this process, so it can't have been applied: an answer.
            Err(error) => {
                tracing::warn!(receiver = self.number, "commit not sent: {error}");
                for (_, partition, tenure, next) in in_flight.orders {
                    if let Some(ownership) = self.owners().get(partition) {
                        ownership.answered(tenure, next, Answer::Refused);
                    }
                }
            }
        }
    }

    fn answered(&mut self, outcome: &Outcome) -> Result<(), ReceiverError> {
        let Some(in_flight) = self.commits.in_flight.take_if(|in_flight| in_flight.id == outcome.id) else {
            return Ok(());
        };
        self.commits.news = true;
        for (named, partition, tenure, next) in in_flight.orders {
            let of_it = outcome.partitions.iter().find(|(topic, number, _)| (topic, *number) == (&named.0, named.1));
            // A partition the answer does not mention has no answer.
            let missing = Some(RDKafkaErrorCode::BadMessage);
            let error = outcome.error.or(of_it.map_or(missing, |(_, _, error)| *error));
            let answer = judge(error);
            self.count(answer, &named, error);
            let reply = {
                let mut owners = self.owners();
                owners.get(partition).map(|ownership| ownership.answered(tenure, next, answer))
            };
            self.follow(partition, &named, &reply.unwrap_or_default())?;
        }
        Ok(())
    }

    fn count(&mut self, answer: Answer, (topic, partition): &Named, error: Option<RDKafkaErrorCode>) {
        self.commits.refused = answer == Answer::Refused;
        let metrics = &self.shared.metrics;
        match answer {
            Answer::Applied => {
                metrics.commits_ok.inc();
                self.heard();
                return;
            }
            Answer::Refused => metrics.commits_refused.inc(),
            Answer::Unanswered => metrics.commits_unanswered.inc(),
        };
        let error = error.map_or_else(String::new, |error| error.to_string());
        tracing::warn!(receiver = self.number, topic, partition, ?answer, "commit: {error}");
    }

    fn follow(&mut self, partition: Partition, named: &Named, reply: &Reply) -> Result<(), ReceiverError> {
        self.commits.rejoin |= reply.rejoin;
        self.log_frames(partition, &reply.frames)?;
        match reply.stop {
            Some(stop) => Err(ReceiverError::Stopped { topic: named.0.clone(), partition: named.1, stop }),
            None => Ok(()),
        }
    }

    /// Appends ownership frames that ride the next sync, and opens the fence for what they confirm.
    pub fn log_frames(&self, partition: Partition, frames: &[Frame]) -> Result<(), ReceiverError> {
        for frame in frames {
            self.shared.log.append(entry(partition, frame))?;
            if let Frame::Confirmed { next, .. } = frame {
                self.shared.log.marks(partition).acked.fetch_max(*next, Ordering::AcqRel);
            }
        }
        Ok(())
    }

    /// True when all that was taken is durable and committed.
    pub fn is_settled(&self) -> bool {
        let mut owners = self.owners();
        self.commits.is_idle()
            && self.lanes.iter().all(|lane| {
                let due = owners.get(lane.slot.partition).is_some_and(|ownership| ownership.due(self.number).is_some());
                !due && lane.slot.opened.is_none() && lane.durable >= lane.slot.next
            })
            && self.gathering.is_empty()
    }
}

/// What an answer says about whether the commit was applied.
fn judge(error: Option<RDKafkaErrorCode>) -> Answer {
    use RDKafkaErrorCode as Code;
    match error {
        None => Answer::Applied,
        Some(
            Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::RebalanceInProgress
            | Code::NotCoordinator
            | Code::CoordinatorLoadInProgress
            | Code::FencedInstanceId
            | Code::OffsetMetadataTooLarge
            | Code::GroupAuthorizationFailed
            | Code::TopicAuthorizationFailed
            | Code::UnknownTopicOrPartition
            | Code::InvalidCommitOffsetSize
            | Code::InvalidGroupId
            | Code::UnstableOffsetCommit,
        ) => Answer::Refused,
        Some(_) => Answer::Unanswered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_broker_says_before_it_writes_is_a_refusal() {
        assert_eq!(judge(None), Answer::Applied);
        assert_eq!(judge(Some(RDKafkaErrorCode::IllegalGeneration)), Answer::Refused);
        for unknown in [
            RDKafkaErrorCode::RequestTimedOut,
            RDKafkaErrorCode::OperationTimedOut,
            RDKafkaErrorCode::BrokerTransportFailure,
            RDKafkaErrorCode::CoordinatorNotAvailable,
            RDKafkaErrorCode::BrokerDestroy,
        ] {
            assert_eq!(judge(Some(unknown)), Answer::Unanswered, "{unknown:?}");
        }
    }
}
