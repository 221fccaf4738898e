//! The Kafka of a benchmark: an embedded one or a real one, its topics, and the records in them.
//!
//! Promises: a topic counts as filled only when the broker itself tells that it holds every record.

use super::exact::Extents;
use super::value::{Value, padding};
use super::watch::Stop;
use crate::cli::client;
use crate::cli::exit::{Failure, UNAVAILABLE};
use crate::clock;
use crate::kafka::ffi::mock::MockKafka;
use anyhow::{Context, anyhow};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// No answer takes longer.
const ANSWER: Duration = Duration::from_secs(30);
/// A new group waits this long for more members.
const GROUP_DELAY: Duration = Duration::from_millis(50);
/// Bytes of a batch: what a busy producer with common settings sends.
const BATCH_BYTES: u64 = 131_072;
/// What a full queue waits for.
const PAUSE: Duration = Duration::from_millis(10);

/// A Kafka to measure with.
pub(super) struct Cluster {
    /// `host:port,…`.
    pub brokers: String,
    properties: Vec<(String, String)>,
    mock: Option<MockKafka>,
}

impl Cluster {
    /// Brokers inside this process.
    pub fn embedded(properties: &[(String, String)]) -> anyhow::Result<Self> {
        let mock = MockKafka::start(1, GROUP_DELAY).context("cannot start the embedded Kafka")?;
        Ok(Self { brokers: mock.bootstrap_servers(), properties: properties.to_vec(), mock: Some(mock) })
    }

    /// A real one.
    pub fn at(brokers: &str, properties: &[(String, String)]) -> Self {
        Self { brokers: brokers.to_string(), properties: properties.to_vec(), mock: None }
    }

    /// True for brokers inside this process.
    pub fn is_embedded(&self) -> bool {
        self.mock.is_some()
    }

    /// A client's configuration.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// Creates a topic that does not exist. A real one gets as many replicas as its brokers give by default.
    pub fn create(&self, topic: &str, partitions: u64) -> anyhow::Result<()> {
        if let Some(mock) = &self.mock {
            return Ok(mock.create_topic(topic, i32::try_from(partitions)?)?);
        }
        let replicas = TopicReplication::Fixed(-1);
        let topics = [NewTopic::new(topic, i32::try_from(partitions)?, replicas)];
        let done = self.admin(async |admin| admin.create_topics(&topics, &options()).await)?;
        match done.into_iter().next() {
            Some(Err((name, code))) => Err(anyhow!("cannot create the topic {name}: {code}")),
            _ => Ok(()),
        }
    }

    /// Removes a topic of ours, as well as it can.
    pub fn delete(&self, topic: &str) {
        if self.mock.is_none() {
            let done = self.admin(async |admin| admin.delete_topics(&[topic], &options()).await);
            if let Err(error) = done {
                crate::cli::output::talk(&format!("the topic {topic} is left behind: {error:#}"));
            }
        }
    }

    fn admin<T>(
        &self,
        ask: impl AsyncFnOnce(&AdminClient<DefaultClientContext>) -> Result<T, rdkafka::error::KafkaError>,
    ) -> anyhow::Result<T> {
        let admin: AdminClient<DefaultClientContext> = self.client().create().map_err(|error| client::error(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(ask(&admin))?)
    }

    /// First offset and the one after the last of every partition; none for a topic that does not exist.
    pub fn extents(&self, topic: &str) -> Result<Option<Extents>, Failure> {
        let unreachable = |error| {
            let error = anyhow::Error::new(error).context(format!("no answer from {}", self.brokers));
            Failure::new(UNAVAILABLE, error)
        };
        let client: BaseConsumer = self.client().create().map_err(|error| client::error(&error))?;
        let metadata = client.fetch_metadata(Some(topic), ANSWER).map_err(unreachable)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = match found.map(|found| (found.error(), found.partitions().len())) {
            Some((None, partitions)) if partitions > 0 => partitions,
            _ => return Ok(None),
        };
        let mut extents = Extents::new();
        for partition in 0..partitions as i32 {
            let (low, high) = client.fetch_watermarks(topic, partition, ANSWER).map_err(unreachable)?;
            extents.push((low as u64, high as u64));
        }
        Ok(Some(extents))
    }

    /// True if the topic's first record says where it belongs: then all were made by [`Cluster::fill`].
    pub fn holds_values(&self, topic: &str, extents: &[(u64, u64)]) -> Result<bool, Failure> {
        let Some(partition) = extents.iter().position(|(low, high)| low < high) else { return Ok(false) };
        let mut config = self.client();
        config.set("group.id", "forebay-bench-look").set("enable.auto.commit", "false");
        let client: BaseConsumer = config.create().map_err(|error| client::error(&error))?;
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(topic, partition as i32, Offset::Beginning);
        added.and_then(|()| client.assign(&list)).map_err(anyhow::Error::new)?;
        let Some(Ok(message)) = client.poll(ANSWER) else {
            let error = anyhow!("no record of {topic}/{partition} within {ANSWER:?}");
            return Err(Failure::new(UNAVAILABLE, error));
        };
        let value = message.payload().and_then(Value::read);
        let (partition, sequence) = (partition as u64, message.offset() as u64);
        Ok(value == Some(Value { partition, sequence, micros: 0 }))
    }

    /// Produces `each` records of `bytes` bytes to each partition, and looks whether they are there.
    pub fn fill(
        &self,
        topic: &str,
        partitions: u64,
        each: u64,
        bytes: u64,
        stop: &Stop,
        mut step: impl FnMut(u64),
    ) -> Result<Extents, Failure> {
        let producer = self.producer("50")?;
        let (mut value, chunk) = (padding(bytes as usize), (BATCH_BYTES / (bytes + 13)).max(1));
        let mut from = 0;
        while from < each {
            let until = (from + chunk).min(each);
            for partition in 0..partitions {
                for sequence in from..until {
                    Value { partition, sequence, micros: 0 }.write(&mut value);
                    send(&producer, topic, partition, &value, stop)?;
                }
                producer.poll(Duration::ZERO);
                stop.check()?;
            }
            step((until - from) * partitions);
            from = until;
        }
        flush(&producer, stop)?;
        let extents = self.extents(topic)?.unwrap_or_default();
        let complete = extents.len() as u64 == partitions && extents.iter().all(|extent| *extent == (0, each));
        if complete {
            return Ok(extents);
        }
        let held: u64 = extents.iter().map(|(low, high)| high - low).sum();
        Err(anyhow!("the broker holds {held} of {} records of the topic {topic}", partitions * each).into())
    }

    /// Produces `rate` records a second, each stamped with the moment it was due, to the partitions in turn, `run` records
    /// at a time. `due` is told before a record is sent and ends the production with `false`. Returns the records of each
    /// partition.
    pub fn pace(
        &self,
        (topic, partitions, run): (&str, u64, u64),
        rate: u64,
        bytes: u64,
        stop: &Stop,
        due: impl Fn(Duration) -> bool,
    ) -> Result<Extents, Failure> {
        let producer = self.producer("0")?;
        let mut value = padding(bytes as usize);
        let (start, mut sent) = (clock::monotonic(), 0);
        let mut extents = vec![(0, 0); partitions as usize];
        loop {
            let passed = clock::monotonic().saturating_sub(start);
            let owed = (passed.as_secs_f64() * rate as f64) as u64;
            while sent < owed {
                let at = start + Duration::from_nanos(sent.saturating_mul(1_000_000_000) / rate);
                if !due(at) {
                    flush(&producer, stop)?;
                    return Ok(extents);
                }
                let partition = sent / run % partitions;
                let sequence = &mut extents[partition as usize].1;
                Value { partition, sequence: *sequence, micros: at.as_micros() as u64 }.write(&mut value);
                send(&producer, topic, partition, &value, stop)?;
                *sequence += 1;
                sent += 1;
            }
            stop.check()?;
            // It would not rest for less than a millisecond, and each call serves one answer.
            (0..partitions.max(4)).for_each(|_| producer.poll(Duration::ZERO));
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    fn producer(&self, linger_ms: &str) -> anyhow::Result<BaseProducer> {
        let mut config = self.client();
        config
            .set("linger.ms", linger_ms)
            .set("batch.size", BATCH_BYTES.to_string())
            .set("batch.num.messages", "100000")
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "262144")
            .set("enable.idempotence", if self.is_embedded() { "false" } else { "true" });
        config.create().map_err(|error| client::error(&error)).context("cannot make a producer")
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(ANSWER))
}

fn send(producer: &BaseProducer, topic: &str, partition: u64, value: &[u8], stop: &Stop) -> Result<(), Failure> {
    let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition as i32).payload(value);
    // A full queue gives the record back; everything else is a failure.
    while let Err((error, again)) = producer.send(record) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
            return Err(anyhow!("cannot produce: {error}").into());
        }
        stop.check()?;
        producer.poll(PAUSE);
        record = again;
    }
    Ok(())
}

fn flush(producer: &BaseProducer, stop: &Stop) -> Result<(), Failure> {
    let until = Instant::now() + ANSWER;
    while producer.in_flight_count() > 0 {
        stop.check()?;
        if Instant::now() >= until {
            let left = producer.in_flight_count();
            return Err(Failure::new(UNAVAILABLE, anyhow!("the brokers did not take {left} records")));
        }
        producer.poll(PAUSE);
    }
    Ok(())
}
