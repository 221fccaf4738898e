//! What may be typed after `forebay bench`.

use super::consume::ConsumeArgs;
use super::disk::DiskArgs;
use super::plan::{Mode, Sweep};
use crate::cli::output::Format;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(in crate::cli) struct BenchCommand {
    #[command(subcommand)]
    pub part: Option<Part>,
    #[command(flatten)]
    pub compare: CompareArgs,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Part {
    /// Measure how long this disk takes to make bytes durable, and whether to believe it
    Disk(DiskArgs),
    /// Show how the two rate controllers answer when the pipeline becomes faster, slower or busier (simulated)
    Rate(RateArgs),
    /// Consume a topic in batches and only count: what the other modes are compared with
    #[command(hide = true)]
    Consume(ConsumeArgs),
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct RateArgs {
    /// Also draw the responses into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// How to print what they do
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
}

/// Where a run's records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum SinkKind {
    /// Files with the values, synced before each receipt
    Raw,
    /// Files with envelopes, synced before each receipt
    Jsonl,
    /// Nowhere: everything before the sink
    Null,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CompareArgs {
    /// What to compare [default: all this build has]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODE,…")]
    pub modes: Vec<Mode>,
    /// Records of a run, over all partitions [default: enough for some seconds, if a quarter of the memory holds them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub records: Option<u64>,
    /// Bytes of a record's value
    #[arg(long, default_value = "100", value_name = "SIZE", value_parser = size)]
    pub record_bytes: u64,
    /// Partitions of the topic [default: as many as the records need; 4 with --brokers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: Option<u32>,
    /// Group members in the process (kafka.receivers)
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub receivers: u32,
    /// Size at which a block is closed (block.bytes) [default: the setting's]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub block_bytes: Option<u64>,
    /// Where the records go
    #[arg(long, value_enum, default_value = "raw")]
    pub sink: SinkKind,
    /// Runs of each mode, turn by turn [default: up to 3, fewer when they are long]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: Option<u32>,
    /// A real Kafka instead of the embedded one
    #[arg(long, value_name = "HOST:PORT", requires = "topic")]
    pub brokers: Option<String>,
    /// A topic there; made and filled if it is missing or empty, else measured as it is. It stays. A sweep over
    /// record-bytes or partitions has a topic for each, with the sizes behind this name
    #[arg(long, value_name = "TOPIC", requires = "brokers")]
    pub topic: Option<String>,
    /// Measure end-to-end latency at this many records a second; 0: don't
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub latency_rate: u64,
    /// For how long latency is measured in each mode
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub latency_seconds: u64,
    /// Vary one size, as in record-bytes=100,1024; also partitions, receivers, block-bytes; may be repeated
    #[arg(long, value_name = "WHAT=N,…")]
    pub sweep: Vec<Sweep>,
    /// Any setting for the measured processes, as in kafka.fence=none; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// How to print the report
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
    /// Also draw it into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Also write it as a page that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Where log and output are while it runs [default: the current folder]; they are removed
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Bytes with or without a unit.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let size: bytesize::ByteSize = text.parse().map_err(|_| format!("{text} is no size; write it as 1024 or 64KiB"))?;
    if size.as_u64() == 0 { Err("must be more than 0".to_string()) } else { Ok(size.as_u64()) }
}
