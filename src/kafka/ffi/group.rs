//! What the client knows of its group and of a partition's ends, without a request.

use super::text;
use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use std::ffi::CString;

/// One membership: a generation of the group and the member's id in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The group's generation, -1 before the first join.
    pub generation: i32,
    /// The id the coordinator gave to this member.
    pub member_id: String,
}

/// The current membership; `None` before the client has a group.
pub fn membership<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<Membership> {
    // SAFETY: the client is alive; the metadata object is ours and destroyed after its strings were copied.
    unsafe {
        let metadata = rd::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return None;
        }
        let generation = rd::rd_kafka_consumer_group_metadata_generation_id(metadata);
        let member_id = text(rd::rd_kafka_consumer_group_metadata_member_id(metadata));
        rd::rd_kafka_consumer_group_metadata_destroy(metadata);
        Some(Membership { generation, member_id })
    }
}

/// The lowest and the next offset of an assigned partition as the last fetch answered them; `None` while unknown.
pub fn known_ends<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str, partition: i32) -> Option<(i64, i64)> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is alive and all pointers are valid for the call.
    let found = unsafe {
        rd::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    (found as i32 == 0 && high >= 0).then_some((low, high))
}
