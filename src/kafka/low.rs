//! A client that only asks for the ends of partitions: no group, nothing fetched.
//!
//! Promises: each question is bounded by its timeout. Never: it is used by a thread that serves a group's events, which
//! a slow broker would hold up.

use super::consumer::{Named, Settings, client_config};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, config::RDKafkaLogLevel};
use std::time::Duration;

/// Says what the client says only to who asks for it.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ConsumerContext for Quiet {}

/// See the module.
pub struct Asker {
    base: BaseConsumer<Quiet>,
}

impl Asker {
    /// Makes a client; connects in the background.
    pub fn new(settings: &Settings) -> Result<Self, KafkaError> {
        let settings = Settings { instance_id: None, ..settings.clone() };
        Ok(Self { base: client_config(&settings).create_with_context(Quiet)? })
    }

    /// The first offset Kafka still has of a partition, and its end. Blocks up to `timeout`.
    pub fn ends(&self, (topic, partition): &Named, timeout: Duration) -> Result<(i64, i64), KafkaError> {
        // Serves what the client has to say, which would pile up otherwise; nothing is subscribed, so no record comes.
        let _ = self.base.poll(Duration::ZERO);
        self.base.fetch_watermarks(topic, *partition, timeout)
    }
}
