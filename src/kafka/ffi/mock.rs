//! The embedded mock cluster of librdkafka: brokers inside this process, for the demo and for tests.
//!
//! Promises: it lives as long as its producer does. It keeps 5 MB or 100,000 messages per partition and drops the
//! oldest: a producer must not run ahead. It knows no topic ids and no transactions.

use rdkafka::bindings as rd;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, error::KafkaError};
use std::ffi::CString;
use std::time::Duration;

/// Kafka's number of the `Fetch` request.
pub const FETCH: i16 = 1;
/// Kafka's number of the `OffsetCommit` request.
pub const OFFSET_COMMIT: i16 = 8;

/// A mock cluster and the producer that hosts it.
pub struct MockKafka {
    producer: BaseProducer,
}

impl MockKafka {
    /// Starts `brokers` brokers on free ports of the loopback interface. `group_delay` is how long a new group waits
    /// for more members; with librdkafka's default a killed member does not get back in.
    pub fn start(brokers: u32, group_delay: Duration) -> Result<Self, KafkaError> {
        let producer: BaseProducer = ClientConfig::new()
            .set("test.mock.num.brokers", brokers.to_string())
            .set("bootstrap.servers", "localhost")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "1000000")
            .create()?;
        let mock = Self { producer };
        let millis = i32::try_from(group_delay.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the cluster pointer is valid while the producer lives.
        unsafe { rd::rd_kafka_mock_group_initial_rebalance_delay_ms(mock.cluster(), millis) };
        Ok(mock)
    }

    fn cluster(&self) -> *mut rd::rd_kafka_mock_cluster_t {
        // SAFETY: the producer was made with `test.mock.num.brokers`, so it has a cluster, owned by it.
        unsafe { rd::rd_kafka_handle_mock_cluster(self.producer.client().native_ptr()) }
    }

    /// `host:port,…` for other clients.
    pub fn bootstrap_servers(&self) -> String {
        // SAFETY: the string belongs to the cluster and is copied.
        unsafe { super::text(rd::rd_kafka_mock_cluster_bootstraps(self.cluster())) }
    }

    /// A producer into the cluster.
    pub fn producer(&self) -> &BaseProducer {
        &self.producer
    }

    /// Creates a topic with one replica.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), RDKafkaErrorCode> {
        let topic = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        // SAFETY: the cluster is alive and the name is copied.
        let made = unsafe { rd::rd_kafka_mock_topic_create(self.cluster(), topic.as_ptr(), partitions, 1) };
        if made as i32 == 0 { Ok(()) } else { Err(made.into()) }
    }

    /// Elects the only broker leader of a partition once more: its leader epoch grows.
    pub fn elect(&self, topic: &str, partition: i32) -> Result<(), RDKafkaErrorCode> {
        let topic = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        // SAFETY: the cluster is alive and the name is copied.
        let done = unsafe { rd::rd_kafka_mock_partition_set_leader(self.cluster(), topic.as_ptr(), partition, 1) };
        if done as i32 == 0 { Ok(()) } else { Err(done.into()) }
    }

    /// From the next connection on, the brokers know versions of a request only up to this one.
    pub fn limit_version(&self, api: i16, max: i16) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: the cluster is alive.
        let done = unsafe { rd::rd_kafka_mock_set_apiversion(self.cluster(), api, 0, max) };
        if done as i32 == 0 { Ok(()) } else { Err(done.into()) }
    }

    /// Ends all connections to the only broker; it takes new ones at once.
    pub fn disconnect(&self) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: the cluster is alive.
        let down = unsafe { rd::rd_kafka_mock_broker_set_down(self.cluster(), 1) };
        // SAFETY: as above.
        let up = unsafe { rd::rd_kafka_mock_broker_set_up(self.cluster(), 1) };
        match [down, up].into_iter().find(|done| *done as i32 != 0) {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    /// Answers the next requests of the kind with these errors, in order.
    pub fn fail_requests(&self, api: i16, errors: &[RDKafkaRespErr]) {
        // SAFETY: the cluster is alive and the array is valid for the call; it is copied.
        unsafe {
            rd::rd_kafka_mock_push_request_errors_array(self.cluster(), api, errors.len(), errors.as_ptr());
        }
    }
}
