//! A client that fetches ranges of records again: assigned, never subscribed, in no group, committing nothing.
//!
//! Promises: what it returns are all records Kafka has in the range now, in order, encoded as a block's payload; each
//! question is bounded in time. Never: it judges whether they are the records that were there before.

use super::consumer::{Named, Settings, client_config, topic_id};
use super::fetched::Fetched;
use super::ffi::fetch::{Batch, FetchQueue, Message};
use super::low::Quiet;
use crate::record::TopicId;
use crate::record::batch::{BatchBuilder, Encoded, HeaderRef, RecordRef};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One question to a broker.
const ASK: Duration = Duration::from_secs(5);
/// All records of a range must arrive within this.
const FETCH: Duration = Duration::from_secs(20);
/// The client's own events are served at least this often.
const SERVE: Duration = Duration::from_millis(20);
/// Messages taken at a time.
const MESSAGES: usize = 1000;
/// A range holds no more than a block can.
const BYTES_MAX: usize = 64 << 20;

/// Why there are no records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Kafka no longer has them.
    #[error("{0}")]
    Gone(String),
    /// No answer for now.
    #[error("{0}")]
    Later(String),
}

/// See the module.
pub struct Again {
    base: Arc<BaseConsumer<Quiet>>,
}

impl Again {
    /// Makes a client; connects in the background.
    pub fn new(settings: &Settings) -> Result<Self, KafkaError> {
        let settings = Settings { instance_id: None, ..settings.clone() };
        Ok(Self { base: Arc::new(client_config(&settings).create_with_context(Quiet)?) })
    }

    /// Checks that Kafka still has `[first, next)` of this incarnation of the topic, as far as its ends tell.
    pub fn look(&self, named: &Named, id: TopicId, first: i64, next: i64) -> Result<(), Missing> {
        let (topic, partition) = named;
        match topic_id(&self.base, topic, ASK) {
            Ok(now) if !now.is_none() && !id.is_none() && now != id => {
                let text = format!("topic {topic} was deleted and created again: its id is {now}, it was {id}");
                return Err(Missing::Gone(text));
            }
            Ok(_) => {}
            Err(code) => return Err(unanswered(topic, Some(code), &code)),
        }
        let _ = self.base.poll(Duration::ZERO);
        let ends = self.base.fetch_watermarks(topic, *partition, ASK);
        let (low, high) = ends.map_err(|error| unanswered(topic, error.rdkafka_error_code(), &error))?;
        if first < low || high < next {
            return Err(Missing::Gone(format!("Kafka has only offsets [{low}, {high}) of {topic}/{partition} now")));
        }
        Ok(())
    }

    /// Fetches all records of `[first, next)` again, with the leader epoch of the last one. Blocks.
    pub fn fetch(&self, named: &Named, id: TopicId, first: i64, next: i64) -> Result<(Encoded, i32), Missing> {
        self.look(named, id, first, next)?;
        // A queue of its own for each range: nothing of another one can be in it.
        let queue = FetchQueue::new(&self.base);
        let taken = self.take(&queue, named, Range { builder: BatchBuilder::new(Vec::new(), first), next, epoch: -1 });
        let gone = self.base.unassign();
        gone.map_err(|error| Missing::Later(error.to_string()))?;
        taken.map(|range| (range.builder.finish(next, range.epoch), range.epoch))
    }

    fn take(&self, queue: &FetchQueue<Quiet>, named: &Named, mut range: Range) -> Result<Range, Missing> {
        let (topic, partition) = named;
        let later = |error: KafkaError| Missing::Later(error.to_string());
        queue.forward(topic, *partition);
        let mut list = TopicPartitionList::new();
        let offset = Offset::Offset(range.builder.first());
        list.add_partition_offset(topic, *partition, offset).map_err(later)?;
        self.base.assign(&list).map_err(later)?;
        let deadline = Instant::now() + FETCH;
        let mut batch = Batch::new(MESSAGES);
        while Instant::now() < deadline {
            let _ = self.base.poll(Duration::ZERO);
            queue.consume(&mut batch, SERVE);
            for message in batch.iter() {
                if range.put(topic, message)? {
                    return Ok(range);
                }
            }
        }
        Err(Missing::Later(format!("{topic}/{partition}: no answer within {FETCH:?}")))
    }
}

/// A range on its way.
struct Range {
    builder: BatchBuilder,
    next: i64,
    epoch: i32,
}

impl Range {
    /// Takes what arrived; true when the range is complete.
    fn put(&mut self, topic: &str, message: Message<'_>) -> Result<bool, Missing> {
        match message.error() {
            Some(RDKafkaErrorCode::PartitionEOF) => return Ok(message.offset() >= self.next),
            Some(code) => return Err(unanswered(topic, Some(code), &code)),
            None => {}
        }
        let offset = message.offset();
        if offset >= self.next {
            return Ok(true);
        }
        if offset < self.builder.next() {
            return Ok(false);
        }
        if self.builder.bytes() > BYTES_MAX {
            return Err(Missing::Gone("Kafka has other, longer records there now".to_owned()));
        }
        let mut headers: Vec<HeaderRef<'_>> = Vec::new();
        message.headers(&mut headers);
        let (timestamp, key, value) = (message.timestamp(), message.key(), message.value());
        self.builder.push(&RecordRef { offset, timestamp, key, value, headers: &headers });
        self.epoch = message.leader_epoch();
        Ok(offset + 1 == self.next)
    }
}

/// What an error means: a broker that says that there is nothing is believed, one that does not answer is asked again.
fn unanswered(topic: &str, code: Option<RDKafkaErrorCode>, error: &dyn std::fmt::Display) -> Missing {
    use RDKafkaErrorCode::{OffsetOutOfRange, UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    match code {
        Some(UnknownTopicOrPartition | UnknownTopic | UnknownPartition) => {
            Missing::Gone(format!("topic {topic} no longer exists"))
        }
        Some(OffsetOutOfRange) => Missing::Gone(format!("{topic}: Kafka no longer has these offsets")),
        _ => Missing::Later(format!("{topic}: {error}")),
    }
}
