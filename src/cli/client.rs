//! librdkafka's errors on their way out.

use crate::kafka::error::words;
use anyhow::anyhow;
use rdkafka::error::KafkaError;

/// The error in words that may be shown.
pub(super) fn error(error: &KafkaError) -> anyhow::Error {
    anyhow!(words(error))
}
