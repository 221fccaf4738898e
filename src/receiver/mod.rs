//! Receivers: group members that turn fetched records into blocks, hand them to the log, and commit what is durable.
//!
//! One OS thread each. Promises: the thread always polls, whatever the log or the sink do; a block is admitted once and
//! only within a tenure; an offset is committed only when everything below it is durable. Never: a receiver does not
//! wait for space, does not deliver, and does not decide ownership (that is [`crate::kafka::tenure`]).

mod assign;
mod commits;
mod doubts;
mod epoch;
mod gaps;
mod identity;
mod late;
mod leftovers;
mod limited;
pub mod lookout;
mod owners;
pub mod plan;
mod poll;
mod pressure;
pub mod slot;
mod stopping;
mod take;
mod take_wire;
mod trust;
mod view;

pub use gaps::Gaps;
pub use owners::Owners;
pub use view::{Idle, View, Views};

use crate::dedupe::Table;
use crate::io::hook::Hook;
use crate::io::pool::Pool;
use crate::kafka::consumer::Settings;
use crate::kafka::error::words;
use crate::kafka::start::{Policy, Stop};
use crate::kafka::tenure::WalId;
use crate::metrics::Metrics;
use crate::rate::governor::Governor;
use crate::record::batch::Codec;
use crate::record::topics::Topics;
use crate::wal::{Log, WalError};
use rdkafka::error::KafkaError;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a receiver works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Topic names and `^regular expressions`.
    pub topics: Vec<String>,
    /// How to reach Kafka; the instance id gets `-<number>` appended. `queue_bytes` is for all partitions together.
    pub kafka: Settings,
    /// When blocks close by size.
    pub limits: slot::Limits,
    /// Direct mode: when batches close. `None`: receiver mode, blocks are logged.
    pub direct: Option<plan::Batching>,
    /// How blocks are compressed before they are logged.
    pub compression: Option<Codec>,
    /// When blocks close by age.
    pub block_age: Duration,
    /// Bytes in open blocks, all partitions together, above which all of them close.
    pub open_bytes_max: usize,
    /// Bytes handed to the log and not yet durable above which nothing more is taken.
    pub queue_bytes_max: u64,
    /// Direct mode: bytes of planned blocks that may wait for the sink before that bound begins to count them.
    pub planned_bytes_max: u64,
    /// Receivers of this process.
    pub receivers: u32,
    /// What the start table needs to know.
    pub policy: Policy,
    /// Warn when Kafka will drop unread records in less than this.
    pub warn_time_to_loss: Duration,
    /// Stop at what is there now.
    pub exit_at_end: bool,
    /// How long an `exit_at_end` run waits for a sign of life from Kafka.
    pub unreachable_timeout: Duration,
    /// For tests.
    pub hook: Option<Hook>,
}

/// What all receivers of a log share.
pub struct Shared {
    /// The log.
    pub log: Log,
    /// This log's name in commit metadata.
    pub wal: WalId,
    /// Numbers of topics.
    pub topics: Topics,
    /// Who owns what.
    pub owners: Mutex<Owners>,
    /// What was admitted.
    pub table: Mutex<Table>,
    /// Direct mode: plans that were left open.
    pub plans: Mutex<plan::Plans>,
    /// Limits.
    pub governor: Arc<Governor>,
    /// Buffers.
    pub pool: Pool,
    /// What Kafka no longer had.
    pub gaps: Gaps,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What each receiver is doing, for status and the end of a run.
    pub views: Views,
    /// Set to end all receivers in order.
    pub stop: AtomicBool,
}

/// Why a receiver ended.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// The log failed.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The client can't be made or used.
    #[error("kafka: {}", words(.0))]
    Kafka(KafkaError),
    /// Two processes use one identity in the group.
    #[error("another process uses the same identity in group {group:?} (group.instance.id {instance:?}): {text}")]
    Fenced {
        /// The group.
        group: String,
        /// The identity.
        instance: String,
        /// The broker's words.
        text: String,
    },
    /// The brokers do not take the session timeout.
    #[error(
        "kafka.session_timeout: {0}; the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms limit it"
    )]
    SessionTimeout(String),
    /// The client is beyond use.
    #[error("kafka client: {0}")]
    Fatal(String),
    /// A topic does not exist.
    #[error("topic {0:?} does not exist on this cluster")]
    NoTopic(String),
    /// No sign of life from Kafka.
    #[error("nothing came from {brokers} for {waited:?}: {last}")]
    Unreachable {
        /// Who was asked.
        brokers: String,
        /// For how long.
        waited: Duration,
        /// The last thing heard.
        last: String,
    },
    /// A record that is not to be taken.
    #[error(
        "{topic}/{partition}@{offset} has {bytes} bytes, block.max_record_bytes is {limit}; \
         raise it to take the record"
    )]
    TooLarge {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// The record's offset.
        offset: i64,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Something that can't be vouched for.
    #[error("{topic}/{partition}: {stop}")]
    Stopped {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// What.
        stop: Stop,
    },
}

// Not its source: that has the values of settings in its text.
impl From<KafkaError> for ReceiverError {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

impl ReceiverError {
    /// The process exit code.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Wal(error) => i32::from(error.exit_code()),
            Self::Kafka(KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Subscription(_))
            | Self::Fenced { .. }
            | Self::SessionTimeout(_)
            | Self::NoTopic(_) => 78,
            Self::Unreachable { .. } => 69,
            Self::Kafka(_) | Self::Fatal(_) | Self::TooLarge { .. } | Self::Stopped { .. } => 1,
        }
    }
}

/// Runs one receiver until it is told to stop or fails. Blocks; to be called on a thread of its own.
pub fn run(number: usize, options: &Options, shared: &Arc<Shared>) -> Result<(), ReceiverError> {
    poll::Receiver::new(number, options, shared)?.run()
}
