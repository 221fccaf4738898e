//! Gaps as events: logged before anything behind them is fetched, counted, shown, said aloud once.
//!
//! What to do about a gap is [`crate::kafka::gap`]'s decision; here it is done. Promises: a gap is durable in the log
//! before it counts as declared, and is declared once, also over a restart.

use super::ReceiverError;
use super::assign::Candidate;
use super::late::For;
use super::leftovers::{AT_THE_SINK, DURABLE};
use super::owners::gap_entry;
use super::poll::Receiver;
use crate::kafka::consumer::Named;
use crate::kafka::gap::{self, Action, Finding, Gap};
use crate::kafka::start::{Hold, Stop};
use crate::record::Partition;
use crate::wal::{Entry, GapRange, looks_back};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Gaps that are remembered of each partition, the last ones; the log has all.
const KEPT: usize = 100;

/// The gaps of a log, and what warns of the next ones. Shared by all receivers.
#[derive(Debug, Default)]
pub struct Gaps {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    declared: BTreeMap<Partition, Vec<GapRange>>,
    /// The highest end of a partition that was seen while it was open.
    ends: HashMap<Partition, i64>,
    times: BTreeMap<Named, Duration>,
}

impl Gaps {
    /// The gaps a recovered log holds.
    pub fn new(declared: impl IntoIterator<Item = (Partition, Vec<GapRange>)>) -> Self {
        let gaps = Self::default();
        for (partition, ranges) in declared {
            for range in ranges {
                gaps.note(partition, range);
            }
        }
        gaps
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, partition: Partition, range: GapRange) {
        let mut known = self.known();
        let ranges = known.declared.entry(partition).or_default();
        if ranges.len() == KEPT {
            ranges.remove(0);
        }
        ranges.push(range);
    }

    /// The last gaps of each partition, oldest first.
    pub fn declared(&self) -> Vec<(Partition, GapRange)> {
        let known = self.known();
        let each = known.declared.iter();
        each.flat_map(|(partition, ranges)| ranges.iter().map(|range| (*partition, range.clone()))).collect()
    }

    /// The last gap of a partition.
    fn last(&self, partition: Partition) -> Option<GapRange> {
        self.known().declared.get(&partition).and_then(|ranges| ranges.last().cloned())
    }

    /// Notes how far a partition reached when it was last looked at.
    pub fn saw_end(&self, partition: Partition, end: i64) {
        let mut known = self.known();
        let seen = known.ends.entry(partition).or_insert(end);
        *seen = end.max(*seen);
    }

    fn end(&self, partition: Partition) -> Option<i64> {
        self.known().ends.get(&partition).copied()
    }

    /// How long until Kafka drops unread records, where that is in sight.
    pub fn times_to_loss(&self) -> BTreeMap<Named, Duration> {
        self.known().times.clone()
    }

    /// Replaces what [`Gaps::times_to_loss`] says.
    pub fn set_times_to_loss(&self, times: BTreeMap<Named, Duration>) {
        self.known().times = times;
    }
}

impl Receiver<'_> {
    /// A gap is durable in the log: from here on it is a declared one.
    pub(super) fn declared(&self, (topic, partition): &Named, key: Partition, gap: &Gap) {
        let Gap { first, next, .. } = *gap;
        tracing::warn!(receiver = self.number, topic, partition, first, next, records = gap.records(), "gap: {gap}");
        self.shared.metrics.lost(topic, *partition, gap.records());
        let reason = format!("{}: {gap}", gap.word());
        self.shared.gaps.note(key, GapRange { first, next, reason });
    }

    fn log_gap(&self, named: &Named, key: Partition, gap: &Gap) -> Result<(), ReceiverError> {
        let tenure = self.owners().get(key).and_then(|ownership| ownership.fold().map(|fold| fold.tenure));
        self.shared.log.append_synced(vec![gap_entry(key, tenure.unwrap_or(0), gap)])?;
        self.declared(named, key, gap);
        Ok(())
    }

    /// True if the last gap is a truncation before the position `next`. The range of one that is found now may be another:
    /// Kafka's end has come nearer.
    pub(super) fn is_declared(&self, partition: Partition, next: i64) -> bool {
        self.shared.gaps.last(partition).is_some_and(|known| looks_back(&known.reason) && known.next == next)
    }

    /// Kafka's end lies before the start: declares that once, and waits.
    pub(super) fn await_end(&mut self, candidate: &Candidate, gap: &Gap) -> Result<(), ReceiverError> {
        if !self.is_declared(candidate.partition, gap.next) {
            self.log_gap(&candidate.named, candidate.partition, gap)?;
        }
        let why = format!("waits until Kafka's end reaches offset {}; offsets below were truncated", gap.next);
        self.assigning.put(candidate.named.clone(), why, For::Kafka);
        Ok(())
    }

    /// The topic was created again: what of its former life was not read? False when the partition must not open.
    /// The gap is logged whatever the policy, since nobody can find its end later.
    pub(super) fn leave_former(&mut self, candidate: &Candidate, former: Partition) -> Result<bool, ReceiverError> {
        if self.owners().knows(candidate.partition) {
            return Ok(true);
        }
        if self.is_at_the_sink(former) {
            self.assigning.put(candidate.named.clone(), AT_THE_SINK.to_string(), For::Moment);
            return Ok(false);
        }
        let logged = self.shared.gaps.last(former).filter(|known| known.reason.starts_with(gap::RECREATION));
        // What still waits of its former life would come behind the gap, or keep it waiting for space.
        self.keep_durable(former, Instant::now() + DURABLE)?;
        let read = self.shared.log.marks(former).durable();
        let finding = match &logged {
            Some(known) if known.first == known.next => return Ok(true),
            Some(known) => Finding::Recreated { read: known.first, end: Some(known.next) },
            None => Finding::Recreated { read, end: self.shared.gaps.end(former) },
        };
        let action = gap::decide(finding, self.options.policy.on_gap);
        if let Some(gap) = action.gap()
            && logged.is_none()
        {
            self.end_former(&candidate.named, former, &gap)?;
        }
        self.obey(candidate, action)
    }

    /// Logs the gap at the end of a partition's former life, which nothing will ever follow.
    fn end_former(&self, named: &Named, former: Partition, gap: &Gap) -> Result<(), ReceiverError> {
        let tenure = self.owners().get(former).and_then(|ownership| ownership.fold().map(|fold| fold.tenure));
        let (tenure, Gap { first, next, .. }) = (tenure.unwrap_or(0), *gap);
        let mut entries = vec![gap_entry(former, tenure, gap)];
        // No commit will ever cover the range: it must not look as if one could.
        let is_known = first < next;
        entries.extend(is_known.then_some(Entry::Disowned { partition: former, tenure, first, next }));
        self.shared.log.append_synced(entries)?;
        self.declared(named, former, gap);
        Ok(())
    }

    /// Kafka has another record at `offset` than the one that was read there last. False when the partition was stopped.
    pub(super) fn replaced(&mut self, lane: usize, offset: i64) -> Result<bool, ReceiverError> {
        let start = self.lanes[lane].slot.next;
        self.look_back(lane, Finding::Replaced { offset, start })
    }

    /// Declares what was read and is no longer so in Kafka, and obeys the policy. False when the partition was stopped.
    fn look_back(&mut self, lane: usize, finding: Finding) -> Result<bool, ReceiverError> {
        let (named, partition) = (self.lanes[lane].named.clone(), self.lanes[lane].slot.partition);
        let action = gap::decide(finding, self.options.policy.on_gap);
        // Logged whatever the policy: at the next start the log may not have the record any more to compare.
        if let Some(gap) = action.gap()
            && !self.is_declared(partition, gap.next)
        {
            self.log_gap(&named, partition, &gap)?;
        }
        match action {
            Action::Go | Action::Skip(_) | Action::Await(_) => Ok(true),
            Action::Stop(gap) => Err(stopped(&named, gap)),
            Action::Hold(gap) => self.stop_lane(lane, Hold::Gap(gap).to_string()).map(|()| false),
        }
    }

    /// Records before the position were replaced, as an earlier look found out: true if the policy lets it go on there.
    pub(super) fn leave_replaced(&mut self, candidate: &Candidate) -> Result<bool, ReceiverError> {
        let last = self.shared.gaps.last(candidate.partition);
        let Some(known) = last.filter(|known| looks_back(&known.reason) && Some(known.next) == candidate.logged) else {
            return Ok(true);
        };
        let finding = Finding::Replaced { offset: known.first, start: known.next };
        self.obey(candidate, gap::decide(finding, self.options.policy.on_gap))
    }

    /// Stops or holds as decided; true: go on.
    fn obey(&mut self, candidate: &Candidate, action: Action) -> Result<bool, ReceiverError> {
        match action {
            Action::Go | Action::Skip(_) | Action::Await(_) => Ok(true),
            Action::Stop(gap) => Err(stopped(&candidate.named, gap)),
            Action::Hold(gap) => {
                self.assigning.put(candidate.named.clone(), Hold::Gap(gap).to_string(), For::Person);
                Ok(false)
            }
        }
    }
}

impl Receiver<'_> {
    /// librdkafka asked a new leader and found that its log had gone no further than `words.end` in an epoch.
    pub(super) fn truncated_as_said(&mut self, lane: usize, words: &Truncation) -> Result<(), ReceiverError> {
        // librdkafka also asks for positions and epochs that were never read (those of an end of partition). Only what it
        // says of our own position counts; else the partition is opened again, and the leader asked about that.
        let position = self.lanes[lane].position();
        if (words.offset, words.epoch) == (position.offset, position.epoch) {
            self.truncated(lane, words.end)
        } else {
            self.reopen(lane)
        }
    }

    /// A leader's log has other records from `end` on than those that were read.
    pub(super) fn truncated(&mut self, lane: usize, end: i64) -> Result<(), ReceiverError> {
        // A topic that was created again looks the same.
        if !self.is_still_the_same(lane) {
            return self.reopen(lane);
        }
        // What was taken goes first: the range ends where the log does.
        let named = self.lanes[lane].named.clone();
        self.seal(std::slice::from_ref(&named))?;
        self.log_plan()?;
        let start = self.lanes[lane].slot.next;
        if self.look_back(lane, Finding::Elected { end, start })? { self.reopen(lane) } else { Ok(()) }
    }
}

/// What librdkafka says of a truncation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Truncation {
    /// The position it asked about, and the leader epoch of what was read before it.
    offset: i64,
    epoch: i32,
    /// Where the leader's log ends in that epoch: its records from there on are others.
    end: i64,
}

impl Truncation {
    /// From librdkafka's words: with `auto.offset.reset=error` the code says no more than that the position is lost.
    pub fn read(text: &str) -> Option<Self> {
        let text = text.split_once("truncation detected at offset ")?.1;
        let offset = digits(text)?;
        let epoch = digits(text.split_once("(leader epoch ")?.1)?;
        let end = digits(text.split_once("broker end offset is ")?.1)?;
        Some(Self { offset, epoch: i32::try_from(epoch).ok()?, end })
    }
}

fn digits(text: &str) -> Option<i64> {
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn stopped((topic, partition): &Named, gap: Gap) -> ReceiverError {
    ReceiverError::Stopped { topic: topic.clone(), partition: *partition, stop: Stop::Gap(gap) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn librdkafkas_words_tell_where_the_new_leader_differs() {
        let text = "Partition log truncation detected at offset 120 (leader epoch 3): broker end offset is 100 (offset \
                    leader epoch 2). Reset to INVALID.";
        assert_eq!(Truncation::read(text), Some(Truncation { offset: 120, epoch: 3, end: 100 }));
        for text in [
            "No epoch found less or equal to offset 7 (leader epoch 3): broker end offset is 5 (offset leader epoch 1)",
            "truncation detected at offset 120 (leader epoch 3): broker end offset is -1 (offset leader epoch 2)",
            "truncation detected at offset 120 (leader epoch -1): broker end offset is 100 (",
            "truncation detected",
            "",
        ] {
            assert_eq!(Truncation::read(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_gaps_and_the_highest_end_are_kept() {
        let partition = Partition { topic: 1, number: 0 };
        let range = |first| GapRange { first, next: first + 1, reason: "retention: x".to_string() };
        let gaps = Gaps::new([(partition, (0..150).map(range).collect())]);
        assert_eq!(gaps.declared().len(), KEPT);
        assert_eq!(gaps.declared()[0].1.first, 50);
        assert_eq!(gaps.last(partition), Some(range(149)));
        assert_eq!(gaps.end(partition), None);
        gaps.saw_end(partition, 20);
        gaps.saw_end(partition, 3);
        assert_eq!(gaps.end(partition), Some(20), "a smaller one is another topic's");
    }
}
