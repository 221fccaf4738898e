//! Commits with a result each, and reads of what is committed.
//!
//! Promises: the result of every commit sent arrives exactly once through [`CommitQueue::poll`], also when the
//! connection is lost (librdkafka answers with an error then). Never: it does not retry and does not judge; whether a
//! refusal means «not applied» is the ownership protocol's question.

use super::{Queue, text};
use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use std::ffi::{CString, c_void};
use std::sync::Arc;
use std::time::Duration;

/// One offset to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Topic name.
    pub topic: String,
    /// Kafka's partition number.
    pub partition: i32,
    /// Next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record below `offset`, -1 when unknown.
    pub leader_epoch: i32,
    /// Stored with the offset, 4,096 bytes at most on the broker's default settings.
    pub metadata: String,
}

/// What became of one commit request.
#[derive(Debug)]
pub struct Outcome {
    /// The number the request was sent with.
    pub id: usize,
    /// The error of the request as a whole, if any.
    pub error: Option<RDKafkaErrorCode>,
    /// Each partition of the request with its own error, if any.
    pub partitions: Vec<(String, i32, Option<RDKafkaErrorCode>)>,
}

/// What the group has committed for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Topic name.
    pub topic: String,
    /// Kafka's partition number.
    pub partition: i32,
    /// Next offset to read; `None` when nothing is committed.
    pub offset: Option<i64>,
    /// The metadata as stored; not necessarily text.
    pub metadata: Vec<u8>,
    /// Leader epoch stored with the offset, -1 when unknown.
    pub leader_epoch: i32,
}

/// Sends commits and collects their results.
pub struct CommitQueue<C: ConsumerContext + 'static> {
    queue: Queue<C>,
}

impl<C: ConsumerContext> CommitQueue<C> {
    /// Makes a queue of the consumer's.
    pub fn new(consumer: &Arc<BaseConsumer<C>>) -> Self {
        Self { queue: Queue::new(consumer) }
    }

    /// Sends one commit request; does not block. Its result carries `id`.
    pub fn send(&self, offers: &[Offer], id: usize) -> Result<(), RDKafkaErrorCode> {
        let list = List::new(offers.len());
        for offer in offers {
            list.add(offer)?;
        }
        // SAFETY: client, list and queue are alive; librdkafka copies the list. The opaque is a number, never followed.
        let sent =
            unsafe { rd::rd_kafka_commit_queue(self.queue.client(), list.0, self.queue.ptr, None, id as *mut c_void) };
        failed(sent).map_or(Ok(()), Err)
    }

    /// The next result, waiting up to `timeout`.
    pub fn poll(&self, timeout: Duration) -> Option<Outcome> {
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive; the event is ours and is destroyed below, after everything was copied out of it.
        unsafe {
            let event = rd::rd_kafka_queue_poll(self.queue.ptr, timeout);
            if event.is_null() {
                return None;
            }
            let outcome = (rd::rd_kafka_event_type(event) == rd::RD_KAFKA_EVENT_OFFSET_COMMIT).then(|| {
                let mut partitions = Vec::new();
                for_each(rd::rd_kafka_event_topic_partition_list(event), |entry| {
                    partitions.push((text(entry.topic), entry.partition, failed(entry.err)));
                });
                Outcome {
                    id: rd::rd_kafka_event_opaque(event) as usize,
                    error: failed(rd::rd_kafka_event_error(event)),
                    partitions,
                }
            });
            rd::rd_kafka_event_destroy(event);
            outcome
        }
    }
}

/// Reads what the consumer's group has committed for the partitions. Blocks up to `timeout`; works for members and
/// for anyone else.
pub fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[(String, i32)],
    timeout: Duration,
) -> Result<Vec<Committed>, RDKafkaErrorCode> {
    let list = List::new(partitions.len());
    for (topic, partition) in partitions {
        list.add_bare(topic, *partition)?;
    }
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: client and list are alive; librdkafka fills the list's entries in place.
    let done = unsafe { rd::rd_kafka_committed(consumer.client().native_ptr(), list.0, timeout) };
    if let Some(error) = failed(done) {
        return Err(error);
    }
    let mut found = Vec::with_capacity(partitions.len());
    let mut first_error = None;
    // SAFETY: the list is alive for the whole walk; metadata points to `metadata_size` bytes owned by it.
    unsafe {
        for_each(list.0, |entry| {
            first_error = first_error.or(failed(entry.err));
            let metadata = if entry.metadata.is_null() {
                Vec::new()
            } else {
                std::slice::from_raw_parts(entry.metadata.cast::<u8>(), entry.metadata_size).to_vec()
            };
            found.push(Committed {
                topic: text(entry.topic),
                partition: entry.partition,
                offset: (entry.offset >= 0).then_some(entry.offset),
                metadata,
                leader_epoch: rd::rd_kafka_topic_partition_get_leader_epoch(entry),
            });
        });
    }
    first_error.map_or(Ok(found), Err)
}

fn failed(code: rd::rd_kafka_resp_err_t) -> Option<RDKafkaErrorCode> {
    (code as i32 != 0).then(|| code.into())
}

/// # Safety
/// `list` is null or valid for the call.
unsafe fn for_each(
    list: *const rd::rd_kafka_topic_partition_list_t,
    mut each: impl FnMut(&rd::rd_kafka_topic_partition_t),
) {
    if list.is_null() {
        return;
    }
    // SAFETY: the caller's promise; `cnt` entries follow `elems`.
    unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        for at in 0..count {
            each(&*(*list).elems.add(at));
        }
    }
}

/// An owned native list of partitions.
struct List(*mut rd::rd_kafka_topic_partition_list_t);

impl List {
    fn new(size: usize) -> Self {
        // SAFETY: a plain constructor; destroyed on drop.
        Self(unsafe { rd::rd_kafka_topic_partition_list_new(i32::try_from(size).unwrap_or(0)) })
    }

    fn add_bare(&self, topic: &str, partition: i32) -> Result<*mut rd::rd_kafka_topic_partition_t, RDKafkaErrorCode> {
        let topic = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        // SAFETY: the list is alive; the name is copied. The entry is valid until the list changes again.
        Ok(unsafe { rd::rd_kafka_topic_partition_list_add(self.0, topic.as_ptr(), partition) })
    }

    fn add(&self, offer: &Offer) -> Result<(), RDKafkaErrorCode> {
        let entry = self.add_bare(&offer.topic, offer.partition)?;
        let metadata = CString::new(offer.metadata.as_str()).map_err(|_| RDKafkaErrorCode::InvalidArgument)?;
        // SAFETY: `entry` is valid: the list was not changed since. `strdup` copies into memory of C's allocator, with
        // which librdkafka frees the metadata when the list is destroyed.
        unsafe {
            (*entry).offset = offer.offset;
            (*entry).metadata = strdup(metadata.as_ptr()).cast();
            (*entry).metadata_size = metadata.as_bytes().len();
            rd::rd_kafka_topic_partition_set_leader_epoch(entry, offer.leader_epoch);
        }
        Ok(())
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once.
        unsafe { rd::rd_kafka_topic_partition_list_destroy(self.0) }
    }
}

unsafe extern "C" {
    /// C's own: a copy of the string in memory of `malloc`.
    fn strdup(text: *const std::ffi::c_char) -> *mut std::ffi::c_char;
}
