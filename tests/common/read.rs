//! The truth: what a plain consumer, which has nothing to do with Forebay, reads from a topic.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::{Offset, message::BorrowedMessage};

use super::Kafka;

const LIMIT: Duration = Duration::from_secs(120);

/// One record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    /// Its offset.
    pub offset: i64,
    /// Its key, which the tests write as UTF-8.
    pub key: Option<String>,
    /// Its value, which the tests write as UTF-8.
    pub value: Option<String>,
}

fn text(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|b| String::from_utf8(b.to_vec()).unwrap())
}

fn truth(message: &BorrowedMessage<'_>) -> Truth {
    Truth { offset: message.offset(), key: text(message.key()), value: text(message.payload()) }
}

impl Kafka {
    /// All records of a topic that a reader of committed records sees now, per partition, in order.
    pub fn read_all(&self, topic: &str, partitions: i32) -> Vec<Vec<Truth>> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "reader-of-the-truth")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let mut found = vec![Vec::new(); partitions as usize];
        let mut ended = vec![false; partitions as usize];
        let start = Instant::now();
        while ended.contains(&false) {
            assert!(start.elapsed() < LIMIT, "reading {topic} took over {LIMIT:?}");
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Ok(message)) => found[message.partition() as usize].push(truth(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => ended[partition as usize] = true,
                Some(Err(error)) => panic!("reading {topic}: {error}"),
            }
        }
        found
    }
}
