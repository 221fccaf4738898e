//! The table of settings: name, meaning, limits, and the field behind each. Names are final.
//!
//! Promises: what the reference says is what is checked, because both come from here.

use super::{
    Config, Controller, Durability, Fence, Fetcher, Format, GIB, Handover, KIB, LogFormat, LogLevel, MIB, Mode,
    OnForeignCommit, OnGap, Properties, Require, Server, Start, Target,
};
use crate::record::batch::Codec;
use std::path::PathBuf;
use std::time::Duration;

/// Where the settings for librdkafka live; any name may follow.
pub const PROPERTIES: &str = "kafka.properties";

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Dotted name.
    pub name: &'static str,
    /// What it does, and what a wrong value costs.
    pub about: &'static str,
    /// What it may be, and its field.
    pub kind: Kind,
}

/// A place in the configuration.
pub type Field<T> = fn(&mut Config) -> &mut T;

/// What a setting may be, and the field it fills.
#[derive(Debug)]
pub enum Kind {
    /// Any text but the empty one.
    Text(Field<String>),
    /// A list of texts.
    List(Field<Vec<String>>),
    /// A path.
    Path(Field<PathBuf>),
    /// `true` or `false`.
    Flag(Field<bool>),
    /// A whole number within limits.
    Count(u32, u32, Field<u32>),
    /// A size with its unit, within limits.
    Bytes(u64, u64, Field<u64>),
    /// A size with its unit, within limits; not set by default.
    Quota(u64, u64, Field<Option<u64>>),
    /// A duration with its unit, within limits.
    Time(Duration, Duration, Field<Duration>),
    /// A text that is never shown.
    Secret(Field<String>),
    /// A whole number within limits; not set by default.
    Limit(u32, u32, Field<Option<u32>>),
    /// A number within limits.
    Factor(f64, f64, Field<f64>),
    /// One of these words; the functions tell and set which.
    Choice(&'static [&'static str], fn(&Config) -> usize, fn(&mut Config, usize)),
    /// Where records go.
    Target(Field<Option<Target>>),
    /// An address and port, or `off`.
    Listen(Field<Server>),
    /// Names and values for librdkafka.
    Properties(Field<Properties>),
}

/// In the order of their names.
const COMPRESSIONS: [Option<Codec>; 3] = [None, Some(Codec::Lz4), Some(Codec::Zstd)];

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, about, kind }
}

/// The setting of that name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// All settings, in the order of the reference.
pub const KEYS: &[Key] = &[
    key(
        "mode",
        Kind::Choice(&["receiver", "direct"], |c| c.mode as usize, |c, i| c.mode = [Mode::Receiver, Mode::Direct][i]),
        "`receiver`: records are logged, acknowledged to Kafka, then delivered. `direct`: only the plan of each batch \
         is logged; records are delivered, then acknowledged. May be changed at a restart.",
    ),
    key(
        "kafka.brokers",
        Kind::Text(|c| &mut c.kafka.brokers),
        "Brokers to ask first, `host:port`, separated by commas. Required.",
    ),
    key(
        "kafka.group",
        Kind::Text(|c| &mut c.kafka.group),
        "Consumer group. With the same log another group goes on where the log ends; to deliver everything again takes \
         a new group, a new log and another output.",
    ),
    key(
        "kafka.topics",
        Kind::List(|c| &mut c.kafka.topics),
        "Topics; one that starts with `^` is a regular expression. Required.",
    ),
    key(
        "kafka.start",
        Kind::Choice(
            &["earliest", "latest"],
            |c| c.kafka.start as usize,
            |c, i| c.kafka.start = [Start::Earliest, Start::Latest][i],
        ),
        "Where a partition starts that neither the log nor the group knows. `latest` passes over what is there.",
    ),
    key(
        "kafka.receivers",
        Kind::Count(1, 64, |c| &mut c.kafka.receivers),
        "Group members in this process, each with a thread; more than partitions are idle.",
    ),
    key(
        "kafka.instances",
        Kind::Count(1, 1000, |c| &mut c.kafka.instances),
        "How many instances, each with its own log, share the group. With 1, a group whose commits are gone goes on \
         where the log ends; with more, such a partition is held.",
    ),
    key(
        "kafka.fence",
        Kind::Choice(
            &["commit", "none"],
            |c| c.kafka.fence as usize,
            |c, i| c.kafka.fence = [Fence::Commit, Fence::None][i],
        ),
        "`commit`: deliver a block when Kafka confirmed a commit beyond it. `none`: as soon as it is durable; two \
         instances would double.",
    ),
    key(
        "kafka.handover",
        Kind::Choice(
            &["keep", "return"],
            |c| c.kafka.handover as usize,
            |c, i| c.kafka.handover = [Handover::Keep, Handover::Return][i],
        ),
        "What becomes of acknowledged blocks when a partition moves: `keep` delivers them here. `return` is not \
         available yet.",
    ),
    key(
        "kafka.on_foreign_commit",
        Kind::Choice(
            &["hold", "log", "kafka"],
            |c| c.kafka.on_foreign_commit as usize,
            |c, i| {
                c.kafka.on_foreign_commit = [OnForeignCommit::Hold, OnForeignCommit::Log, OnForeignCommit::Kafka][i];
            },
        ),
        "A committed offset that Forebay did not write: `hold` the partition, go on at the end of the `log`, or where \
         `kafka` says. The last may skip or double records.",
    ),
    key(
        "kafka.on_gap",
        Kind::Choice(
            &["fail", "skip", "pause"],
            |c| c.kafka.on_gap as usize,
            |c, i| c.kafka.on_gap = [OnGap::Fail, OnGap::Skip, OnGap::Pause][i],
        ),
        "Kafka no longer has what comes next: `fail` (exit 1, naming the offsets), `skip` them (logged, counted, shown), \
         or `pause` the partition until Kafka has them again or this setting is another one.",
    ),
    key(
        "kafka.warn_time_to_loss",
        Kind::Time(SECOND, WEEK, |c| &mut c.kafka.warn_time_to_loss),
        "Warn when Kafka's retention will reach unread records in less than this, by its speed so far.",
    ),
    key(
        "kafka.static_membership",
        Kind::Flag(|c| &mut c.kafka.static_membership),
        "Keep the seat in the group over a restart: back in a moment, no rebalance. With other topics it is another seat; \
         what the old one had is free after a session.",
    ),
    key(
        "kafka.session_timeout",
        Kind::Time(SECOND, HOUR, |c| &mut c.kafka.session_timeout),
        "After this long without a heartbeat the group gives the member up. Brokers limit it (6s to 30m by default).",
    ),
    key(
        "kafka.unreachable_timeout",
        Kind::Time(SECOND, HOUR, |c| &mut c.kafka.unreachable_timeout),
        "With `--exit-at-end`: give up (exit 69) after this long without a broker.",
    ),
    key(
        "kafka.fetcher",
        Kind::Choice(
            &["auto", "librdkafka"],
            |c| c.kafka.fetcher as usize,
            |c, i| c.kafka.fetcher = [Fetcher::Auto, Fetcher::Librdkafka][i],
        ),
        "`auto`: records are fetched without librdkafka, at less cost, where brokers (2.8 and newer, without encryption \
         and authentication) and `kafka.properties` allow it. `librdkafka`: it fetches always.",
    ),
    key(
        PROPERTIES,
        Kind::Properties(|c| &mut c.kafka.properties),
        "Any librdkafka setting (TLS, SASL, fetch sizes …), except those Forebay owns.",
    ),
    key(
        "direct.batch_interval",
        Kind::Time(Duration::from_millis(1), SECOND.saturating_mul(60), |c| &mut c.direct.batch_interval),
        "Direct mode: a batch is closed when its first record has waited this long.",
    ),
    key(
        "direct.batch_bytes",
        Kind::Bytes(4 * KIB, GIB, |c| &mut c.direct.batch_bytes),
        "Direct mode: a batch is closed at this size, or at an eighth of `memory.budget` if that is less.",
    ),
    key(
        "rate.controller",
        Kind::Choice(
            &["none", "pid", "self-tuning"],
            |c| c.rate.controller as usize,
            |c, i| c.rate.controller = [Controller::None, Controller::Pid, Controller::SelfTuning][i],
        ),
        "Finds the rate at which batches are done in time: `pid` as Spark's backpressure does, `self-tuning` also with \
         small batches and a high cost per batch. Fixed limits count too.",
    ),
    key("rate.records", Kind::Limit(1, u32::MAX, |c| &mut c.rate.records), "Records a second, all together."),
    key("rate.bytes", Kind::Quota(1, 1024 * GIB, |c| &mut c.rate.bytes), "Bytes a second, all together."),
    key(
        "rate.topic_records",
        Kind::Limit(1, u32::MAX, |c| &mut c.rate.topic_records),
        "Records a second of each topic.",
    ),
    key("rate.topic_bytes", Kind::Quota(1, 1024 * GIB, |c| &mut c.rate.topic_bytes), "Bytes a second of each topic."),
    key(
        "rate.partition_records",
        Kind::Limit(1, u32::MAX, |c| &mut c.rate.partition_records),
        "Records a second of each partition. A shared limit is divided by lag; none starves.",
    ),
    key(
        "rate.partition_bytes",
        Kind::Quota(1, 1024 * GIB, |c| &mut c.rate.partition_bytes),
        "Bytes a second of each partition.",
    ),
    key(
        "rate.burst",
        Kind::Time(Duration::from_millis(10), SECOND.saturating_mul(60), |c| &mut c.rate.burst),
        "How much may come at once after a pause, as time at the rate; not less than a batch's interval.",
    ),
    key(
        "rate.initial_records",
        Kind::Count(1, u32::MAX, |c| &mut c.rate.initial_records),
        "A controller's rate, records a second, before the first batch is done.",
    ),
    key(
        "rate.min_records",
        Kind::Count(1, u32::MAX, |c| &mut c.rate.min_records),
        "No controller goes below this, records a second.",
    ),
    key("rate.proportional", Kind::Factor(0.0, 100.0, |c| &mut c.rate.proportional), "The PID's factor P."),
    key("rate.integral", Kind::Factor(0.0, 100.0, |c| &mut c.rate.integral), "The PID's factor I."),
    key("rate.derivative", Kind::Factor(0.0, 100.0, |c| &mut c.rate.derivative), "The PID's factor D."),
    key(
        "block.bytes",
        Kind::Bytes(KIB, MIB, |c| &mut c.block.bytes),
        "A block is closed at this size. Smaller: more work for each record.",
    ),
    key(
        "block.records",
        Kind::Count(1, 1_000_000, |c| &mut c.block.records),
        "A block is closed at this many records.",
    ),
    key(
        "block.age",
        Kind::Time(Duration::from_millis(1), SECOND.saturating_mul(10), |c| &mut c.block.age),
        "A block is closed when its first record has waited this long, or after 1 ms when the log has nothing else to do.",
    ),
    key(
        "block.max_record_bytes",
        Kind::Bytes(KIB, 32 * MIB, |c| &mut c.block.max_record_bytes),
        "A larger record stops its partition. Memory must hold several.",
    ),
    key(
        "memory.budget",
        Kind::Bytes(16 * MIB, 64 * GIB, |c| &mut c.memory.budget),
        "Bytes of records in flight, librdkafka's queues included; beyond it fetching pauses and blocks are read back \
         from the log.",
    ),
    key(
        "wal.dir",
        Kind::Path(|c| &mut c.wal.dir),
        "Directory of the log, on a disk that honours flush. One process at a time. Required.",
    ),
    key(
        "wal.segment_bytes",
        Kind::Bytes(64 * KIB, 4 * GIB, |c| &mut c.wal.segment_bytes),
        "A segment rolls at this size. Space is given back in whole segments; five are prepared at first. Each begins with the state of all partitions: choose more with over 5,000 of them.",
    ),
    key(
        "wal.segment_age",
        Kind::Time(SECOND, WEEK, |c| &mut c.wal.segment_age),
        "A segment with blocks in it rolls at this age.",
    ),
    key(
        "wal.max_bytes",
        Kind::Quota(512 * KIB, 1024 * 1024 * GIB, |c| &mut c.wal.max_bytes),
        "Quota for the directory, what the file system adds included: at this size fetching pauses until the sink has \
         caught up. At least eight segments.",
    ),
    key(
        "wal.durability",
        Kind::Choice(
            &["fsync", "os", "memory"],
            |c| c.wal.durability as usize,
            |c, i| c.wal.durability = [Durability::Fsync, Durability::Os, Durability::Memory][i],
        ),
        "When a block counts as durable: `fsync`, after fdatasync; `os`, when the operating system has it (a power cut \
         loses what was acknowledged in the last half minute or so); `memory`, at once (a kill loses what was \
         acknowledged and not delivered).",
    ),
    key(
        "wal.compression",
        Kind::Choice(
            &["none", "lz4", "zstd"],
            |c| COMPRESSIONS.iter().position(|codec| *codec == c.wal.compression).unwrap_or(0),
            |c, i| c.wal.compression = COMPRESSIONS[i],
        ),
        "How the records of each block are compressed in the log: less to write, more to compute (a core packs about \
         0.5 GB/s; log lines became 29 % with lz4, 17 % with zstd). A block that would not get smaller stays as it is.",
    ),
    key(
        "wal.verify_at_start",
        Kind::Bytes(0, 1024 * 1024 * GIB, |c| &mut c.wal.verify_at_start),
        "So much of the log, the newest segments, is verified byte by byte before anything is delivered; older segments \
         are taken by their headers and footers, and each block is verified when it is read.",
    ),
    key(
        "wal.scrub_rate",
        Kind::Bytes(0, 16 * GIB, |c| &mut c.wal.scrub_rate),
        "Bytes a second at which finished segments are read again in the background, past the page cache, to find damage \
         while Kafka still has the records; 0: damage is found only when it is read.",
    ),
    key(
        "wal.scrub_every",
        Kind::Time(SECOND, WEEK, |c| &mut c.wal.scrub_every),
        "How often a finished segment that is still there is read again.",
    ),
    key("sink.target", Kind::Target(|c| &mut c.sink.target), "`file:DIR`, `stdout` or `null`. Required."),
    key(
        "sink.format",
        Kind::Choice(
            &["jsonl", "raw"],
            |c| c.sink.format as usize,
            |c, i| c.sink.format = [Format::Jsonl, Format::Raw][i],
        ),
        "`jsonl`: an envelope with topic, partition, offset, timestamp, key, value, headers. `raw`: the value and a \
         newline.",
    ),
    key(
        "sink.roll_bytes",
        Kind::Bytes(4 * KIB, 1024 * GIB, |c| &mut c.sink.roll_bytes),
        "An output file is finished, and gets its final name, at this size.",
    ),
    key(
        "sink.roll_age",
        Kind::Time(SECOND, WEEK, |c| &mut c.sink.roll_age),
        "An output file is finished, and gets its final name, at this age.",
    ),
    key(
        "sink.batch_bytes",
        Kind::Bytes(4 * KIB, GIB, |c| &mut c.sink.batch_bytes),
        "Blocks delivered and synced together. At most half of `memory.budget`.",
    ),
    key(
        "sink.batch_age",
        Kind::Time(Duration::ZERO, SECOND.saturating_mul(10), |c| &mut c.sink.batch_age),
        "How long a batch waits for more at most; less when nothing more is there and the sink is fast.",
    ),
    key(
        "server.listen",
        Kind::Listen(|c| &mut c.server),
        "Address and port for `/metrics`, `/livez`, `/readyz` and `/status`, or `off`. The default port gives way to \
         a free one when it is taken.",
    ),
    key(
        "server.allow_remote",
        Kind::Flag(|c| &mut c.server.allow_remote),
        "Permits an address that other hosts can reach. Reading needs no password.",
    ),
    key(
        "server.token",
        Kind::Secret(|c| &mut c.server.token),
        "A request that changes something (`PUT /rate`) must carry it as `Authorization: Bearer TOKEN`. Not set: \
         nothing can be changed.",
    ),
    key(
        "log.format",
        Kind::Choice(
            &["text", "json"],
            |c| c.log.format as usize,
            |c, i| c.log.format = [LogFormat::Text, LogFormat::Json][i],
        ),
        "Lines on standard error: for people, or one JSON object each.",
    ),
    key(
        "log.level",
        Kind::Choice(&LEVELS, |c| c.log.level as usize, |c, i| c.log.level = LEVEL[i]),
        "The least important line to write.",
    ),
    key(
        "stop.deadline",
        Kind::Time(Duration::ZERO, HOUR, |c| &mut c.stop.deadline),
        "How long a stop may go on delivering what is durable; the rest is delivered after the next start.",
    ),
    key(
        "require",
        Kind::Choice(
            &["exactly-once", "none"],
            |c| c.require as usize,
            |c, i| c.require = [Require::ExactlyOnce, Require::None][i],
        ),
        "`exactly-once`: refuse to start (exit 78) if this configuration can't promise it.",
    ),
];

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
const LEVEL: [LogLevel; 5] = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_each_word_sets_what_it_gets() {
        let names: BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(names.len(), KEYS.len());
        for key in KEYS {
            if let Kind::Choice(words, get, set) = key.kind {
                for word in 0..words.len() {
                    let mut config = Config::default();
                    set(&mut config, word);
                    assert_eq!(get(&config), word, "{}", key.name);
                }
            }
        }
    }
}
