//! What a running pipeline looks like at one moment: the body of `/status`, and the reasons of `/readyz`.
//!
//! Promises: a plain value; taking one changes nothing. It may be a fraction of a second old.

use serde::Serialize;

/// A running pipeline at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// How blocks are acknowledged.
    pub mode: Mode,
    /// What the pipeline is doing.
    pub phase: Phase,
    /// Since the pipeline started.
    pub uptime_seconds: f64,
    /// The log.
    pub wal: Wal,
    /// The group members of this process.
    pub receivers: Vec<Receiver>,
    /// The output.
    pub sink: Sink,
    /// Records per second that may be taken; `null`: no limit.
    pub rate: Option<f64>,
    /// Every partition that is owned, or that the log has undelivered blocks of.
    pub partitions: Vec<Partition>,
    /// Offsets that Kafka no longer had, the last ones of each partition.
    pub gaps: Vec<Gap>,
    /// Why it is not ready, for people; empty when it is.
    pub reasons_not_ready: Vec<String>,
}

/// Offsets of a partition that Kafka no longer had when they were asked for, or has anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Topic name.
    pub topic: String,
    /// How often the topic had been created again before.
    pub incarnation: u32,
    /// Partition number.
    pub partition: i32,
    /// First offset.
    pub first: i64,
    /// One past the last offset.
    pub next: i64,
    /// Why.
    pub reason: String,
}

/// How blocks are acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// When they are durable in the log.
    #[default]
    Receiver,
    /// When they are delivered.
    Direct,
}

/// What a pipeline is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Recovering the log, restoring the output.
    #[default]
    Starting,
    /// Taking and delivering.
    Running,
    /// Delivering what is durable, taking nothing more.
    Draining,
    /// Over.
    Stopped,
}

/// The log at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Wal {
    /// Its directory.
    pub dir: String,
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// Segments, spares not counted.
    pub segments: u64,
    /// Bytes it occupies.
    pub bytes: u64,
    /// The quota, if there is one.
    pub max_bytes: Option<u64>,
    /// The last LSN that is durable.
    pub durable_lsn: u64,
    /// True while disk or quota is full and no block is admitted.
    pub full: bool,
    /// What was found damaged, and what became of it.
    pub damage: Damage,
}

/// Damage of the log and its repair, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Bytes of sealed segments read again by the scrubber.
    pub scrubbed_bytes: u64,
    /// Damaged places it found, those of delivered blocks included.
    pub scrub_found: u64,
    /// Damaged blocks to be delivered that are being fetched again.
    pub waiting: u64,
    /// Damaged blocks to be delivered that can't be had again: their partitions stand still there.
    pub given_up: u64,
    /// Damaged blocks fetched again.
    pub repaired: u64,
    /// Repair files in use, earlier ones included.
    pub repair_files: u64,
}

/// A group member at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Receiver {
    /// Its number in this process.
    pub number: u32,
    /// True between a join and the loss of the membership.
    pub joined: bool,
    /// Partitions it owns.
    pub partitions: usize,
    /// Those of them that are not fetched for now.
    pub paused: usize,
    /// librdkafka fetches for it (see kafka.fetcher).
    pub by_librdkafka: bool,
    /// The last error that has not been followed by a success.
    pub error: Option<String>,
}

/// The output at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sink {
    /// As configured.
    pub target: String,
    /// Deliveries tried again since the start.
    pub retries: u64,
    /// What it waits for, if it does.
    pub waiting: Option<String>,
}

/// A partition at one moment. Offsets are next offsets.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Partition {
    /// Topic name.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// What is being done with it.
    pub state: PartitionState,
    /// The current or last stretch of owning it.
    pub tenure: u32,
    /// Next to admit.
    pub admitted: i64,
    /// Next to become durable.
    pub durable: i64,
    /// How far confirmed commits of this log reach.
    pub acked: Option<i64>,
    /// Next to deliver.
    pub delivered: i64,
    /// The end of the partition in Kafka, if it is known.
    pub end: Option<i64>,
    /// Records between delivered and end, if the end is known.
    pub lag: Option<u64>,
    /// Until Kafka drops records that were not read, where that is in sight.
    pub time_to_loss_seconds: Option<u64>,
    /// Why it is paused, held or stopped.
    pub reason: Option<String>,
}

/// What is being done with a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionState {
    /// Owned and fetched.
    #[default]
    Active,
    /// Owned, not fetched for now; goes on by itself.
    Paused,
    /// Owned, waiting for a decision of a person.
    Held,
    /// Owned, can't go on.
    Stopped,
    /// Not owned any more; its acknowledged rest is being delivered.
    Leaving,
}

impl Snapshot {
    /// True when records are taken and delivered.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Running && self.reasons_not_ready.is_empty()
    }
}
