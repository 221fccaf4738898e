//! Batch consumption: one queue that the queues of all assigned partitions are forwarded to.
//!
//! Promises: messages are destroyed when their [`Batch`] is cleared or dropped; a [`Message`] borrows the batch.
//! Never: it does not interpret offsets. librdkafka's own position counts errors and end-of-partition events as
//! consumed and must not be used; the caller keeps its own next offset per partition.

use super::Queue;
use crate::kafka::fetched::Fetched;
use crate::record::batch::HeaderRef;
use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::TopicPartitionList;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Arc;
use std::time::Duration;

/// The queue that fetched messages of all assigned partitions arrive in.
pub struct FetchQueue<C: ConsumerContext + 'static> {
    queue: Arc<Queue<C>>,
}

impl<C: ConsumerContext> FetchQueue<C> {
    /// Makes a queue of the consumer's.
    pub fn new(consumer: &Arc<BaseConsumer<C>>) -> Self {
        Self { queue: Arc::new(Queue::new(consumer)) }
    }

    /// Sends what is fetched for the partition to this queue. To be called before the partition is assigned, at each
    /// assignment. False when the client does not know the partition or the name holds a NUL byte.
    pub fn forward(&self, topic: &str, partition: i32) -> bool {
        self.send(topic, partition, self.queue.ptr)
    }

    fn send(&self, topic: &str, partition: i32, to: *mut rd::rd_kafka_queue_t) -> bool {
        let Ok(topic) = CString::new(topic) else { return false };
        // SAFETY: the client is alive; `topic` outlives the call, `to` is alive. The partition's queue is a new reference
        // that is destroyed right after forwarding, which librdkafka allows (the forward itself keeps what it needs).
        unsafe {
            let source = rd::rd_kafka_queue_get_partition(self.queue.client(), topic.as_ptr(), partition);
            if source.is_null() {
                return false;
            }
            rd::rd_kafka_queue_forward(source, to);
            rd::rd_kafka_queue_destroy(source);
        }
        true
    }

    /// Fills `batch` (cleared first) with what has arrived; blocks up to `timeout` for the first message only.
    pub fn consume(&self, batch: &mut Batch, timeout: Duration) {
        batch.clear();
        let queue = self.queue.ptr;
        batch.len = take(queue, &mut batch.messages, Duration::ZERO);
        if batch.len == 0 && !timeout.is_zero() {
            batch.len = take(queue, &mut batch.messages[..1], timeout);
            if batch.len == 1 {
                batch.len += take(queue, &mut batch.messages[1..], Duration::ZERO);
            }
        }
    }

    /// A queue for one partition, to be used with [`FetchQueue::split`].
    pub fn own(&self) -> OwnQueue<C> {
        OwnQueue { queue: Queue::new(&self.queue.consumer) }
    }

    /// Sends what is fetched for the partition to `own`, from now on or, before it is assigned, from the beginning. What
    /// arrived before stays here, and a little more may still arrive here. False as for [`FetchQueue::forward`].
    pub fn split(&self, topic: &str, partition: i32, own: &OwnQueue<C>) -> bool {
        // SAFETY: the queue is alive; a null destination ends its forwarding.
        unsafe { rd::rd_kafka_queue_forward(own.queue.ptr, std::ptr::null_mut()) }
        self.send(topic, partition, own.queue.ptr)
    }

    /// Puts a partition back into this queue, with all that waits in its own. `own` must be kept as long as the partition
    /// is assigned: a thread of librdkafka may be about to put something into it.
    pub fn rejoin(&self, topic: &str, partition: i32, own: &OwnQueue<C>) -> bool {
        // SAFETY: both queues are alive. What waits goes first, and from now on what arrives in `own` goes on to here.
        unsafe { rd::rd_kafka_queue_forward(own.queue.ptr, self.queue.ptr) }
        self.forward(topic, partition)
    }
}

/// Sets the leader epochs of a list's entries, in their order; -1 is unknown.
pub fn set_epochs(list: &mut TopicPartitionList, epochs: impl Iterator<Item = i32>) {
    // SAFETY: the list is alive and ours alone.
    let rd::rd_kafka_topic_partition_list_t { elems, cnt, .. } = unsafe { *list.ptr() };
    for (at, epoch) in (0..usize::try_from(cnt).unwrap_or(0)).zip(epochs) {
        // SAFETY: `elems` points to `cnt` entries, and nothing changes the list here.
        unsafe { rd::rd_kafka_topic_partition_set_leader_epoch(elems.add(at), epoch) }
    }
}

/// Takes messages out of a queue that is alive.
fn take(queue: *mut rd::rd_kafka_queue_t, messages: &mut [*mut rd::rd_kafka_message_t], timeout: Duration) -> usize {
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the callers own the queue, the slice is valid for writes of its length, and the messages written become
    // ours to destroy.
    let taken = unsafe { rd::rd_kafka_consume_batch_queue(queue, timeout, messages.as_mut_ptr(), messages.len()) };
    usize::try_from(taken).unwrap_or(0)
}

/// The queue of one partition.
pub struct OwnQueue<C: ConsumerContext + 'static> {
    queue: Queue<C>,
}

impl<C: ConsumerContext> OwnQueue<C> {
    /// Fills `batch` (cleared first) with at most `most` messages that have arrived; does not block.
    pub fn consume(&self, batch: &mut Batch, most: usize) {
        batch.clear();
        let most = most.min(batch.messages.len());
        batch.len = take(self.queue.ptr, &mut batch.messages[..most], Duration::ZERO);
    }
}

impl<C: ConsumerContext> Drop for OwnQueue<C> {
    fn drop(&mut self) {
        // SAFETY: the queue is alive until the field is dropped. librdkafka empties a queue that is destroyed, and the one it
        // is forwarded to instead if there is one: the common queue, with the records of all partitions.
        unsafe { rd::rd_kafka_queue_forward(self.queue.ptr, std::ptr::null_mut()) }
    }
}

/// Messages taken from a queue; destroyed when cleared or dropped.
pub struct Batch {
    messages: Vec<*mut rd::rd_kafka_message_t>,
    len: usize,
}

impl Batch {
    /// Room for `size` messages at a time.
    pub fn new(size: usize) -> Self {
        Self { messages: vec![std::ptr::null_mut(); size.max(2)], len: 0 }
    }

    /// Messages in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing had arrived.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The messages in the order in which they arrived.
    pub fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        // SAFETY: the first `len` pointers were written by librdkafka and are destroyed only by `clear`, which needs
        // `&mut self` and so can't run while a `Message` borrows the batch.
        let messages = self.messages[..self.len].iter().map(|&message| Message { message: unsafe { &*message } });
        let mut later = messages.clone().skip(AHEAD);
        messages.inspect(move |_| {
            if let Some(later) = later.next() {
                later.fetch_ahead();
            }
        })
    }

    /// Destroys the messages.
    pub fn clear(&mut self) {
        for &message in &self.messages[..self.len] {
            // SAFETY: ours since `consume`, destroyed once: `len` is reset below and nothing in between can unwind.
            unsafe { rd::rd_kafka_message_destroy(message) }
        }
        self.len = 0;
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.clear();
    }
}

/// So many messages before its turn a large payload is called for: another thread wrote it, it is in no near cache.
const AHEAD: usize = 2;
/// Payloads worth it, and how much of them.
const AHEAD_BYTES: std::ops::RangeInclusive<usize> = 512..=4096;

/// One fetched message, or an event in its place (end of partition, error).
#[derive(Clone, Copy)]
pub struct Message<'a> {
    message: &'a rd::rd_kafka_message_t,
}

impl<'a> Message<'a> {
    /// `None` for a record, else what the message reports instead.
    #[inline]
    pub fn error(&self) -> Option<RDKafkaErrorCode> {
        (self.message.err as i32 != 0).then(|| self.message.err.into())
    }

    /// A value that is equal for messages of the same topic *within one batch*.
    #[inline]
    pub fn topic_key(&self) -> usize {
        self.message.rkt as usize
    }

    /// The topic's name; empty when the client no longer knows it.
    pub fn topic(&self) -> &'a str {
        if self.message.rkt.is_null() {
            return "";
        }
        // SAFETY: the message holds a reference on its topic object, whose name lives as long as it does.
        let name = unsafe { CStr::from_ptr(rd::rd_kafka_topic_name(self.message.rkt)) };
        name.to_str().unwrap_or("")
    }

    /// Kafka's partition number.
    #[inline]
    pub fn partition(&self) -> i32 {
        self.message.partition
    }

    /// Asks for the payload to be brought nearer. 8 to 13 % of the CPU at 1 KiB; at 100 B it costs more than it brings.
    #[inline]
    fn fetch_ahead(self) {
        #[cfg(target_arch = "x86_64")]
        if self.message.len >= *AHEAD_BYTES.start() {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let payload = self.message.payload.cast::<i8>();
            for at in (0..self.message.len.min(*AHEAD_BYTES.end())).step_by(64) {
                // SAFETY: a prefetch is a hint, which reads nothing and never faults; the address lies in the payload.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(payload.wrapping_add(at)) }
            }
        }
    }
}

impl<'a> Fetched<'a> for Message<'a> {
    /// The record's offset; for an end of partition, the next offset to be written.
    #[inline]
    fn offset(&self) -> i64 {
        self.message.offset
    }

    /// The key, if there is one.
    #[inline]
    fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: librdkafka gives pointer and length of memory that lives as long as the message.
        unsafe { bytes(self.message.key, self.message.key_len) }
    }

    /// The value; for an error, its text.
    #[inline]
    fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: as for `key`.
        unsafe { bytes(self.message.payload, self.message.len) }
    }

    /// Milliseconds since 1970, -1 for none.
    #[inline]
    fn timestamp(&self) -> i64 {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: both pointers are valid for the call.
        unsafe { rd::rd_kafka_message_timestamp(self.message, &raw mut kind) }
    }

    /// Leader epoch of the record, -1 when unknown.
    #[inline]
    fn leader_epoch(&self) -> i32 {
        // SAFETY: the message is alive.
        unsafe { rd::rd_kafka_message_leader_epoch(self.message) }
    }

    /// Fills `out` (cleared first) with the headers in their order.
    #[inline]
    fn headers(&self, out: &mut Vec<HeaderRef<'a>>) {
        out.clear();
        let mut headers = std::ptr::null_mut();
        // SAFETY: the message is alive; on success `headers` points to memory that it owns.
        let found = unsafe { rd::rd_kafka_message_headers(self.message, &raw mut headers) };
        if found as i32 == 0 && !headers.is_null() {
            // SAFETY: `headers` belongs to the message, which lives for 'a.
            unsafe { collect(headers, out) }
        }
    }
}

/// # Safety
/// `ptr` is null or points to `len` readable bytes that live for 'a.
#[inline]
unsafe fn bytes<'a>(ptr: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!ptr.is_null()).then(|| unsafe { std::slice::from_raw_parts(ptr.cast(), len) })
}

/// # Safety
/// `headers` is valid and lives as long as what is written to `out` is used.
unsafe fn collect(headers: *const rd::rd_kafka_headers_t, out: &mut Vec<HeaderRef<'_>>) {
    for at in 0.. {
        let mut name: *const c_char = std::ptr::null();
        let mut value: *const c_void = std::ptr::null();
        let mut len = 0;
        // SAFETY: all pointers are valid for the call; an index beyond the end is answered with an error.
        let found = unsafe { rd::rd_kafka_header_get_all(headers, at, &raw mut name, &raw mut value, &raw mut len) };
        if found as i32 != 0 {
            break;
        }
        // SAFETY: librdkafka returned a NUL-terminated name and `len` bytes of value, alive as long as `headers`.
        out.push(unsafe { (CStr::from_ptr(name).to_bytes(), bytes(value, len)) });
    }
}
