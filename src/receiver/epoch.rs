//! Is what lies before a tenure's first record still what was read there? After an election of a leader that had not
//! all records, Kafka may have others at the same offsets.
//!
//! The leader epoch of the first record tells whether there was an election since the position was last good. If so,
//! the leader is asked how far its log goes in the epoch of the position, and the record before it, where the log has it,
//! is fetched again and compared. While a tenure lasts librdkafka itself asks the leader, whenever it changes and at every
//! seek.

use super::ReceiverError;
use super::assign::ASK;
use super::poll::{Lane, Receiver};
use super::slot::Slot;
use crate::kafka::fetched::Fetched;
use crate::kafka::gap::must_compare;
use crate::record::batch::{self, HeaderRef, Record};

/// What is known of a position. It stays what it is when an end of partition moves the next offset on: what lies between
/// (markers, aborted records) may be of a newer leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub offset: i64,
    /// The leader epoch of what was read before it, -1 when unknown.
    pub epoch: i32,
}

/// How far a new tenure has come with this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// It begins behind the log's end, and nothing was taken yet.
    First(Known),
    /// The leader is being asked whether it goes so far in this epoch.
    Asked(Known),
    /// This is being fetched again.
    Again(Expected),
    /// There is nothing to check any more.
    Done,
}

impl Check {
    /// The same for a partition that is assigned anew: an assignment can't say in which epoch its position was good, so
    /// that is asked with the first record.
    pub fn anew(self, slot: &Slot) -> Self {
        match self {
            Self::Asked(known) => Self::First(known),
            Self::Done => Self::First(Known { offset: slot.next, epoch: slot.leader_epoch }),
            Self::First(_) | Self::Again(_) => self,
        }
    }

    /// What the next tenure can be told of the position, if anything.
    pub fn known(&self, slot: &Slot) -> Option<Known> {
        let known = match self {
            Self::First(known) | Self::Asked(known) => *known,
            Self::Again(_) => return None,
            Self::Done => Known { offset: slot.next, epoch: slot.leader_epoch },
        };
        Some(known).filter(|known| known.epoch >= 0 && known.offset == slot.next)
    }
}

/// A record as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Expected {
    fn of(record: &Record<'_>) -> Self {
        Self {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(owned).collect(),
        }
    }

    fn is<'m>(&self, message: impl Fetched<'m>) -> bool {
        let mut headers: Vec<HeaderRef<'m>> = Vec::new();
        message.headers(&mut headers);
        self.timestamp == message.timestamp()
            && self.key.as_deref() == message.key()
            && self.value.as_deref() == message.value()
            && self.headers == headers.into_iter().map(owned).collect::<Vec<_>>()
    }
}

fn owned((name, value): HeaderRef<'_>) -> (Vec<u8>, Option<Vec<u8>>) {
    (name.to_vec(), value.map(<[u8]>::to_vec))
}

impl Receiver<'_> {
    /// Looks at the first records of a tenure. False: this one is not to be taken.
    #[cold]
    pub(super) fn check_position<'m>(&mut self, lane: usize, message: impl Fetched<'m>) -> Result<bool, ReceiverError> {
        match std::mem::replace(&mut self.lanes[lane].check, Check::Done) {
            Check::First(known) if must_compare(known.epoch, message.leader_epoch()) => {
                self.compare(lane, known, message.leader_epoch())
            }
            Check::First(_) | Check::Done => Ok(true),
            // It goes far enough.
            Check::Asked(known) => self.compare(lane, Known { epoch: -1, ..known }, message.leader_epoch()),
            Check::Again(expected) if message.offset() < expected.offset => {
                self.lanes[lane].check = Check::Again(expected);
                Ok(false)
            }
            Check::Again(expected) if message.offset() > expected.offset => {
                let ((topic, partition), offset) = (&self.lanes[lane].named, expected.offset);
                tracing::info!(topic, partition, offset, "the last record read was compacted away; not compared");
                Ok(true)
            }
            // It is in the log already.
            Check::Again(expected) if expected.is(message) => Ok(false),
            Check::Again(expected) => self.replaced(lane, expected.offset).map(|_| false),
        }
    }

    /// Asks the leader how far its log goes in the epoch that the position was good in; then, or if that is not known,
    /// fetches the last record before the position again, if the log still has it.
    fn compare(&mut self, lane: usize, known: Known, now: i32) -> Result<bool, ReceiverError> {
        let Lane { named: (topic, partition), slot: Slot { partition: key, next, .. }, .. } = &self.lanes[lane];
        // What was found was declared, and the policy obeyed, when the tenure was opened.
        if self.is_declared(*key, *next) {
            return Ok(true);
        }
        if known.epoch >= 0 {
            let Known { offset, epoch } = known;
            tracing::info!(topic, partition, offset, epoch, now, "the leader has changed: asking it how far it goes");
            self.lanes[lane].check = Check::Asked(known);
            return self.fetch_again(lane).map(|()| false);
        }
        let Some((epoch, expected)) = self.last_record(lane) else {
            tracing::info!(
                topic,
                partition,
                now,
                "the log does not hold the record before offset {next}: it can't be compared with Kafka's"
            );
            return Ok(true);
        };
        if !must_compare(epoch, now) {
            return Ok(true);
        }
        if self.member.known_ends(&self.lanes[lane].named).is_some_and(|(first, _)| first > expected.offset) {
            tracing::info!(topic, partition, expected.offset, "Kafka does not have the last record read any more");
            return Ok(true);
        }
        tracing::info!(topic, partition, expected.offset, epoch, now, "the leader has changed: comparing");
        self.lanes[lane].check = Check::Again(expected);
        self.fetch_again(lane).map(|()| false)
    }

    /// The last record read can't be had from Kafka: it stays uncompared, and what follows it is fetched.
    pub(super) fn leave_uncompared(&mut self, lane: usize, why: &str) -> Result<(), ReceiverError> {
        let (topic, partition) = &self.lanes[lane].named;
        tracing::warn!(topic, partition, why, "the last record read can't be fetched again; not compared");
        self.lanes[lane].check = Check::Done;
        self.fetch_again(lane)
    }

    /// True if the leader was being asked about an epoch: it may not know it (a cluster that was restored begins with lower
    /// ones), and says then that it does not have the position. Whether it has is asked without the epoch, in the next
    /// tenure too if this one can't go on (librdkafka does not seek where it has given up).
    pub(super) fn asks_no_more(&mut self, lane: usize) -> bool {
        let Check::Asked(Known { offset, epoch }) = self.lanes[lane].check else { return false };
        let named = &self.lanes[lane].named;
        let (topic, partition) = named;
        tracing::warn!(
            topic,
            partition,
            offset,
            epoch,
            "the leader can't tell how far it goes in that epoch: only the last record can be compared, if the log has it"
        );
        let unknown = Known { offset, epoch: -1 };
        self.assigning.read_through.insert(named.clone(), unknown);
        self.lanes[lane].check = Check::First(unknown);
        true
    }

    pub(super) fn fetch_again(&mut self, lane: usize) -> Result<(), ReceiverError> {
        self.lanes[lane].skip = true;
        let start = self.lanes[lane].position();
        if let Err(error) = self.member.resume_at(std::slice::from_ref(&start), ASK) {
            let (topic, partition) = &start.named;
            tracing::warn!(topic, partition, "cannot seek: {error}");
            self.reopen(lane)?;
        }
        Ok(())
    }

    /// The last record before the position and the leader epoch it was read in.
    fn last_record(&self, lane: usize) -> Option<(i32, Expected)> {
        let slot = &self.lanes[lane].slot;
        let blocks = self.shared.log.read_blocks(slot.partition, slot.next - 1, slot.next).ok()?;
        let block = blocks.last()?;
        let payload = batch::unpacked(&block.payload).ok()?;
        let record = batch::records(&payload).last()?.ok()?;
        Some((block.header.leader_epoch, Expected::of(&record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Partition;

    #[test]
    fn a_question_that_has_no_answer_yet_is_asked_again() {
        let slot = |leader_epoch| {
            let mut slot = Slot::new(Partition { topic: 1, number: 0 }, 1, 100);
            slot.leader_epoch = leader_epoch;
            slot
        };
        let known = Known { offset: 100, epoch: 3 };
        let moved = Known { offset: 90, epoch: 3 };
        let unknown = Known { offset: 100, epoch: -1 };
        let expected = Expected { offset: 99, timestamp: 0, key: None, value: None, headers: Vec::new() };
        for (check, epoch, anew, told) in [
            (Check::First(known), -1, Check::First(known), Some(known)),
            (Check::Asked(known), -1, Check::First(known), Some(known)),
            (Check::Asked(moved), -1, Check::First(moved), None),
            (Check::First(unknown), -1, Check::First(unknown), None),
            (Check::Again(expected.clone()), -1, Check::Again(expected.clone()), None),
            (Check::Done, 3, Check::First(known), Some(known)),
            (Check::Done, -1, Check::First(unknown), None),
        ] {
            assert_eq!(check.known(&slot(epoch)), told, "{check:?}");
            assert_eq!(check.clone().anew(&slot(epoch)), anew, "{check:?}");
        }
    }
}
