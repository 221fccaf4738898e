//! Settings: what they are called, what they may be, where they came from.
//!
//! Promises: pure — texts in, a checked [`Config`] out; every problem is reported, each with its place; a secret is
//! never part of a message or of `Debug`. Never: it reads no file and no environment itself.

pub mod check;
mod defaults;
pub mod environment;
pub mod keys;
pub mod load;
mod owned;
pub mod reference;
mod value;

use crate::record::batch::Codec;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One KiB.
pub const KIB: u64 = 1 << 10;
/// One MiB.
pub const MIB: u64 = 1 << 20;
/// One GiB.
pub const GIB: u64 = 1 << 30;

/// All settings. [`Config::default`] holds the documented defaults; made from files and flags by [`load::load`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Whether records are logged, or only what is to be read.
    pub mode: Mode,
    /// Direct mode.
    pub direct: Direct,
    /// How fast.
    pub rate: Rate,
    /// Where records come from.
    pub kafka: Kafka,
    /// When a block is closed.
    pub block: Block,
    /// How much memory the path of records may use.
    pub memory: Memory,
    /// The log.
    pub wal: Wal,
    /// Where records go.
    pub sink: Sink,
    /// HTTP.
    pub server: Server,
    /// Messages for people.
    pub log: Log,
    /// Ending.
    pub stop: Stop,
    /// The guarantee without which nothing starts.
    pub require: Require,
    /// Take what is there now, deliver it, commit, end. A flag only, never in a file.
    pub exit_at_end: bool,
}

/// `mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Records are logged, then acknowledged, then delivered.
    Receiver,
    /// The plan of each batch is logged; records are delivered, then acknowledged.
    Direct,
}

/// `direct.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Direct {
    /// How long a batch gathers.
    pub batch_interval: Duration,
    /// Bytes of a batch.
    pub batch_bytes: u64,
}

/// `rate.*`; limits are per second, `None` is no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// Who finds the rate.
    pub controller: Controller,
    /// Records of all partitions together.
    pub records: Option<u32>,
    /// Bytes of all partitions together.
    pub bytes: Option<u64>,
    /// Records of each topic.
    pub topic_records: Option<u32>,
    /// Bytes of each topic.
    pub topic_bytes: Option<u64>,
    /// Records of each partition.
    pub partition_records: Option<u32>,
    /// Bytes of each partition.
    pub partition_bytes: Option<u64>,
    /// How much may come at once, as time at the rate.
    pub burst: Duration,
    /// A controller's rate before it has seen a batch.
    pub initial_records: u32,
    /// No controller goes below this.
    pub min_records: u32,
    /// The PID's factors.
    pub proportional: f64,
    /// See [`Rate::proportional`].
    pub integral: f64,
    /// See [`Rate::proportional`].
    pub derivative: f64,
}

/// `rate.controller`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// Only fixed limits count.
    None,
    /// Spark's PID controller.
    Pid,
    /// The one that tells the cost of a batch from the cost of a record.
    SelfTuning,
}

/// `kafka.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Kafka {
    /// `host:port,…`.
    pub brokers: String,
    /// Consumer group.
    pub group: String,
    /// Topic names, or regular expressions that start with `^`.
    pub topics: Vec<String>,
    /// Where a partition without any history starts.
    pub start: Start,
    /// Group members in this process.
    pub receivers: u32,
    /// Instances, each with a log of its own, that share the group.
    pub instances: u32,
    /// What must be known before a durable block is delivered.
    pub fence: Fence,
    /// What becomes of acknowledged blocks when a partition moves away.
    pub handover: Handover,
    /// What to do about a committed offset that Forebay did not write.
    pub on_foreign_commit: OnForeignCommit,
    /// What to do when Kafka no longer has what comes next.
    pub on_gap: OnGap,
    /// Warn when Kafka will drop unread records in less than this.
    pub warn_time_to_loss: Duration,
    /// Keep the seat in the group over a restart.
    pub static_membership: bool,
    /// After how long without a heartbeat the group gives a member up.
    pub session_timeout: Duration,
    /// How long an `--exit-at-end` run waits for a broker.
    pub unreachable_timeout: Duration,
    /// Who fetches records.
    pub fetcher: Fetcher,
    /// Further librdkafka settings.
    pub properties: Properties,
}

/// Settings handed to librdkafka as they are. `Debug` hides secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(pub BTreeMap<String, String>);

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(name, value)| (name, shown(name, value)));
        f.debug_map().entries(shown).finish()
    }
}

/// A value as people may see it: that of a secret is replaced.
fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    const SECRET: [&str; 8] =
        ["password", "passphrase", "secret", "key", "token", "credential", "oauthbearer.config", "jaas"];
    let name = name.to_lowercase();
    let secret = SECRET.iter().any(|word| name.contains(word));
    if secret { "[hidden]" } else { value }
}

/// `kafka.fetcher`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetcher {
    /// Forebay itself, where it can.
    Auto,
    /// librdkafka.
    Librdkafka,
}

/// `kafka.start`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first record Kafka has.
    Earliest,
    /// Records that arrive from now on.
    Latest,
}

/// `kafka.fence`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// A block is delivered when Kafka has confirmed a commit beyond it.
    Commit,
    /// A block is delivered when it is durable; for a single instance only.
    None,
}

/// `kafka.handover`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// This instance delivers what it acknowledged.
    Keep,
    /// What is not delivered is given back to the group.
    Return,
}

/// `kafka.on_foreign_commit`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnForeignCommit {
    /// Leave the partition alone and show both numbers.
    Hold,
    /// Go on where the log ends.
    Log,
    /// Go on where the group's commit is.
    Kafka,
}

/// `kafka.on_gap`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// Stop, naming the range.
    Fail,
    /// Log the range and go on behind it.
    Skip,
    /// Leave the partition alone.
    Pause,
}

/// `block.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Bytes of payload at which a block is closed.
    pub bytes: u64,
    /// Records at which a block is closed.
    pub records: u32,
    /// Age at which a block is closed.
    pub age: Duration,
    /// The largest record taken.
    pub max_record_bytes: u64,
}

/// `memory.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Bytes for records in flight, librdkafka's queues included.
    pub budget: u64,
}

/// `wal.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Wal {
    /// The directory; empty when not set.
    pub dir: PathBuf,
    /// Size at which a segment rolls.
    pub segment_bytes: u64,
    /// Age at which a segment rolls.
    pub segment_age: Duration,
    /// The log takes no new blocks beyond this.
    pub max_bytes: Option<u64>,
    /// What "durable" means.
    pub durability: Durability,
    /// How the records of a block are compressed; `None`: they are not.
    pub compression: Option<Codec>,
    /// Bytes of the newest segments that are read in full at a start.
    pub verify_at_start: u64,
    /// Bytes a second of sealed segments that are read again; 0: none.
    pub scrub_rate: u64,
    /// A segment is read again so often.
    pub scrub_every: Duration,
}

/// `wal.durability`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `fdatasync` before anything is acknowledged.
    Fsync,
    /// Handed to the operating system: survives a kill, not a power cut.
    Os,
    /// Handed to the log's thread: survives nothing.
    Memory,
}

/// `sink.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Sink {
    /// Where records go; `None` when not set.
    pub target: Option<Target>,
    /// How a record is written.
    pub format: Format,
    /// Size at which an output file is finished.
    pub roll_bytes: u64,
    /// Age at which an output file is finished.
    pub roll_age: Duration,
    /// Bytes delivered at once.
    pub batch_bytes: u64,
    /// How long a batch waits for more.
    pub batch_age: Duration,
}

/// `sink.target`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Files in a directory.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// Nowhere; counts only.
    Null,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(dir) => write!(f, "file:{}", dir.display()),
            Self::Stdout => f.write_str("stdout"),
            Self::Null => f.write_str("null"),
        }
    }
}

/// `sink.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON Lines, an envelope around each record.
    Jsonl,
    /// The value and a newline.
    Raw,
}

/// `server.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where HTTP is served; `None` is off.
    pub listen: Option<SocketAddr>,
    /// True when nobody chose the address: if it is taken, any free port will do.
    pub listen_is_default: bool,
    /// Permits an address that other hosts can reach.
    pub allow_remote: bool,
    /// What a request that changes something must carry; empty: nothing can be changed.
    pub token: String,
}

/// `log.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// What is worth a line.
    pub level: LogLevel,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `log.level`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// An operator must act.
    Error,
    /// Degraded, no loss.
    Warn,
    /// Life-cycle.
    Info,
    /// Per batch.
    Debug,
    /// Everything.
    Trace,
}

/// `stop.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// How long a stop may take to deliver what is durable.
    pub deadline: Duration,
}

/// `require`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Require {
    /// Start only if each record's effect happens once.
    ExactlyOnce,
    /// Start anyway.
    None,
}

impl Config {
    /// The directory of the file sink, if that is the sink.
    pub fn sink_dir(&self) -> Option<&Path> {
        match &self.sink.target {
            Some(Target::File(dir)) => Some(dir),
            _ => None,
        }
    }
}
