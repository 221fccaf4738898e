//! Topic ids, through `DescribeTopics`.
//!
//! Promises: bounded by its timeout. A broker that has no ids (the mock cluster, Kafka before 2.8) gives
//! [`TopicId::is_none`]. Never: it does not create topics.

use super::Queue;
use crate::record::TopicId;
use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use std::ffi::{CString, c_char};
use std::sync::Arc;
use std::time::Duration;

/// Asks for the id of one topic. Blocks up to `timeout`.
///
/// # Errors
/// `UnknownTopicOrPartition` when the topic does not exist; a broker that can't answer gives its own error.
pub fn topic_id<C: ConsumerContext + 'static>(
    consumer: &Arc<BaseConsumer<C>>,
    topic: &str,
    timeout: Duration,
) -> Result<TopicId, RDKafkaErrorCode> {
    let queue = Queue::new(consumer);
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let mut names = [name.as_ptr()];
    // SAFETY: every object made here is destroyed here, after its last use; the client and the queue outlive the call.
    // librdkafka copies names and options. The event is checked for null before it is read.
    unsafe {
        let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
        let options =
            rd::rd_kafka_AdminOptions_new(queue.client(), rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let mut error = [0 as c_char; 128];
        rd::rd_kafka_AdminOptions_set_request_timeout(options, millis, error.as_mut_ptr(), error.len());
        rd::rd_kafka_DescribeTopics(queue.client(), topics, options, queue.ptr);
        rd::rd_kafka_AdminOptions_destroy(options);
        rd::rd_kafka_TopicCollection_destroy(topics);
        let event = rd::rd_kafka_queue_poll(queue.ptr, millis.saturating_add(1_000));
        if event.is_null() {
            return Err(RDKafkaErrorCode::OperationTimedOut);
        }
        let answer = read(event);
        rd::rd_kafka_event_destroy(event);
        answer
    }
}

/// # Safety
/// `event` is a valid event of ours.
unsafe fn read(event: *mut rd::rd_kafka_event_t) -> Result<TopicId, RDKafkaErrorCode> {
    // SAFETY: the caller's promise; result, descriptions and ids belong to the event.
    unsafe {
        let error = rd::rd_kafka_event_error(event);
        if error as i32 != 0 {
            return Err(error.into());
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let mut count = 0;
        let found = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if found.is_null() || count == 0 {
            return Err(RDKafkaErrorCode::UnknownTopicOrPartition);
        }
        let error = rd::rd_kafka_TopicDescription_error(*found);
        if !error.is_null() && rd::rd_kafka_error_code(error) as i32 != 0 {
            return Err(rd::rd_kafka_error_code(error).into());
        }
        let id = rd::rd_kafka_TopicDescription_topic_id(*found);
        if id.is_null() {
            return Ok(TopicId::default());
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&rd::rd_kafka_Uuid_most_significant_bits(id).to_be_bytes());
        bytes[8..].copy_from_slice(&rd::rd_kafka_Uuid_least_significant_bits(id).to_be_bytes());
        Ok(TopicId(bytes))
    }
}
