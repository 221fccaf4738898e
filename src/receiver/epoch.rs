//! Is what lies before a tenure's first record still what was read there? After an election of a leader that had not
//! all records, Kafka may have others at the same offsets.
//!
//! The leader epoch of the first record tells whether there was an election since the position was last good. If so,
//! the record before it is fetched again and compared with the log's. While a tenure lasts librdkafka itself compares
//! epochs with the new leader, and reports a truncation as an error.

use super::ReceiverError;
use super::assign::ASK;
use super::poll::Receiver;
use crate::kafka::ffi::fetch::Message;
use crate::kafka::gap::must_compare;
use crate::record::batch::{self, HeaderRef, Record};

/// How far a new tenure has come with this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// It begins behind the log's end, and nothing was taken yet. The leader epoch that its position is known to be
    /// good for, -1 when unknown.
    First(i32),
    /// This is being fetched again.
    Again(Expected),
    /// There is nothing to check any more.
    Done,
}

/// A record as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    offset: i64,
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

    fn is(&self, message: Message<'_>) -> bool {
        let mut headers: Vec<HeaderRef<'_>> = Vec::new();
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
    pub(super) fn check_position(&mut self, lane: usize, message: Message<'_>) -> Result<bool, ReceiverError> {
        match std::mem::replace(&mut self.lanes[lane].check, Check::Done) {
            Check::First(known) if must_compare(known, message.leader_epoch()) => {
                self.compare(lane, known, message.leader_epoch())
            }
            Check::First(_) | Check::Done => Ok(true),
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

    /// Fetches the last record before the position again, if the log still has it.
    fn compare(&mut self, lane: usize, known: i32, now: i32) -> Result<bool, ReceiverError> {
        let Some((epoch, expected)) = self.last_record(lane) else {
            let ((topic, partition), next) = (&self.lanes[lane].named, self.lanes[lane].slot.next);
            tracing::info!(
                topic,
                partition,
                known,
                now,
                "the leader has changed and the log no longer holds the record before offset {next}: \
                 whether Kafka still has the same one there can't be checked"
            );
            return Ok(true);
        };
        if !must_compare(known.max(epoch), now) {
            return Ok(true);
        }
        let start = (self.lanes[lane].named.clone(), expected.offset);
        let ((topic, partition), offset) = (&start.0, start.1);
        tracing::info!(topic, partition, offset, known = known.max(epoch), now, "the leader has changed: comparing");
        self.lanes[lane].skip = true;
        match self.member.resume_at(std::slice::from_ref(&start), ASK) {
            Ok(()) => self.lanes[lane].check = Check::Again(expected),
            Err(error) => {
                tracing::warn!(topic, partition, "cannot seek: {error}");
                self.reopen(lane)?;
            }
        }
        Ok(false)
    }

    /// The last record before the position and the leader epoch it was read in.
    fn last_record(&self, lane: usize) -> Option<(i32, Expected)> {
        let slot = &self.lanes[lane].slot;
        let blocks = self.shared.log.read_blocks(slot.partition, slot.next - 1, slot.next).ok()?;
        let block = blocks.last()?;
        let record = batch::records(&block.payload).last()?.ok()?;
        Some((block.header.leader_epoch, Expected::of(&record)))
    }
}
