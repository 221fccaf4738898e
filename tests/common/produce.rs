//! Producers whose records can be told apart: the value is `p<partition>-<number>`, numbered from 0 per partition in
//! the order of the topic, followed by `-xxx…` up to the wanted length.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use super::Kafka;

const LIMIT: Duration = Duration::from_secs(120);

/// Counts what the broker has confirmed and what it has refused.
#[derive(Default)]
pub struct Confirmed {
    /// Records the broker has confirmed.
    pub ok: AtomicU64,
    /// Records that failed for good.
    pub failed: AtomicU64,
}

impl ClientContext for Confirmed {}

impl ProducerContext for Confirmed {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.ok } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes numbered records. The order in the topic is the order of the numbers, also over retries (idempotent).
pub struct Numbered<'a> {
    producer: BaseProducer<Confirmed>,
    topic: &'a str,
    value: String,
}

/// The value of record `number` of `partition`, filled up to `bytes`.
pub fn value(buffer: &mut String, partition: i32, number: u64, bytes: usize) {
    use std::fmt::Write;
    buffer.clear();
    write!(buffer, "p{partition}-{number}").unwrap();
    if buffer.len() + 1 < bytes {
        buffer.push('-');
        while buffer.len() < bytes {
            buffer.push('x');
        }
    }
}

impl<'a> Numbered<'a> {
    /// A producer to `topic`.
    pub fn new(kafka: &Kafka, topic: &'a str) -> Self {
        let producer = kafka
            .client()
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("batch.size", "262144")
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "262144")
            .create_with_context(Confirmed::default())
            .unwrap();
        Self { producer, topic, value: String::new() }
    }

    /// Sends record `number` of `partition`; waits while the producer's buffer is full.
    pub fn send(&mut self, partition: i32, number: u64, bytes: usize) {
        value(&mut self.value, partition, number, bytes);
        self.send_pair(partition, None, Some(&self.value));
    }

    /// Sends one record as it is given.
    pub fn send_pair(&self, partition: i32, key: Option<&str>, value: Option<&str>) {
        let mut record = BaseRecord::<str, str>::to(self.topic).partition(partition);
        record.key = key;
        record.payload = value;
        while let Err((error, back)) = self.producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            self.producer.poll(Duration::from_millis(5));
            record = back;
        }
    }

    /// Lets the producer work; call it between sends.
    pub fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Returns when the broker has confirmed everything; the number of confirmed records in all.
    pub fn flush(&self) -> u64 {
        self.producer.flush(LIMIT).unwrap();
        let confirmed: &Arc<Confirmed> = self.producer.context();
        assert_eq!(confirmed.failed.load(Ordering::Relaxed), 0, "records refused");
        confirmed.ok.load(Ordering::Relaxed)
    }
}

impl Kafka {
    /// Writes the records `[from, to)` of each partition, each `bytes` long, and returns when all are confirmed.
    pub fn fill(&self, topic: &str, partitions: i32, from: u64, to: u64, bytes: usize) {
        let mut producer = Numbered::new(self, topic);
        for number in from..to {
            for partition in 0..partitions {
                producer.send(partition, number, bytes);
            }
            if number % 64 == 0 {
                producer.poll();
            }
        }
        let confirmed = producer.flush();
        assert_eq!(confirmed, (to - from) * partitions as u64);
    }

    /// Writes the given pairs to one partition, in one transaction, which is then committed or aborted. Both end in a
    /// marker that takes an offset.
    pub fn transact(&self, topic: &str, partition: i32, values: &[String], commit: bool) {
        let producer: BaseProducer =
            self.client().set("transactional.id", format!("tests-{topic}-{partition}")).create().unwrap();
        producer.init_transactions(LIMIT).unwrap();
        producer.begin_transaction().unwrap();
        for value in values {
            let record = BaseRecord::<str, str>::to(topic).partition(partition).payload(value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        // Aborting drops what is still in the producer's buffer: the records have to reach the broker first.
        producer.flush(LIMIT).unwrap();
        if commit {
            producer.commit_transaction(LIMIT).unwrap();
        } else {
            producer.abort_transaction(LIMIT).unwrap();
        }
    }
}
