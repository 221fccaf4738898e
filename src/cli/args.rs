//! What may be typed.

use super::bench::BenchCommand;
use super::demo::DemoArgs;
use super::output::Format;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

const EXIT_CODES: &str = "Exit codes: 0 ok · 1 failed · 2 usage · 3 worked and found problems · 69 unavailable · \
                          74 I/O · 78 configuration · 130 interrupted";

/// Takes records from Kafka through an fsynced, checksummed log to where you want them, each record once.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Take records from Kafka and deliver them, until stopped
    Run(RunArgs),
    /// Watch it survive kills: an embedded Kafka, a producer, and the ingestion killed again and again
    Demo(DemoCommand),
    /// Compare its modes with each other and with librdkafka alone; no arguments needed
    Bench(BenchCommand),
    /// Check the configuration, what it can promise, the log and the connections
    Check(CheckArgs),
    /// Look into a log, live or broken; only `repair --apply` changes something
    #[command(subcommand)]
    Wal(WalCommand),
    /// Print completions for a shell
    Completions(CompletionsArgs),
}

/// Settings on the command line; each overrides the environment and the file.
#[derive(Clone, Debug, Args)]
pub(super) struct ConfigArgs {
    /// Configuration file (TOML)
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Any setting, as in sink.format=raw; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Brokers to ask first (kafka.brokers)
    #[arg(long, value_name = "HOST:PORT")]
    pub brokers: Option<String>,
    /// Topic, or a regular expression that starts with ^ (kafka.topics); may be repeated
    #[arg(long, value_name = "TOPIC")]
    pub topic: Vec<String>,
    /// Consumer group (kafka.group)
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Directory of the log (wal.dir)
    #[arg(long, value_name = "DIR")]
    pub wal: Option<String>,
    #[arg(long, value_name = "SINK", help = "file:DIR, stdout or null (sink.target)")]
    pub sink: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub settings: ConfigArgs,
    /// Take what is there now, deliver it, commit, and end
    #[arg(long)]
    pub exit_at_end: bool,
    /// How to print the summary at the end
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
    /// Without dedupe, fence and start by the log: for the demo, to show what they are for
    #[arg(long, hide = true)]
    pub unprotected: bool,
}

#[derive(Debug, Args)]
pub(super) struct DemoCommand {
    #[command(flatten)]
    pub demo: DemoArgs,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub settings: ConfigArgs,
    /// Do not connect to anything
    #[arg(long)]
    pub offline: bool,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
    /// Print the reference of all settings in Markdown
    #[arg(long, hide = true)]
    pub print_reference: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum WalCommand {
    /// List the segments
    Ls(WalArgs),
    /// Show each partition's watermarks and what the log keeps
    Status(WalArgs),
    /// Print frame by frame
    Dump(DumpArgs),
    /// Verify every byte; exit 3 if acknowledged bytes are damaged
    Check(WalArgs),
    /// Show which blocks are damaged and whether they can be had again; with --apply, do it
    Repair(RepairArgs),
}

#[derive(Debug, Args)]
pub(super) struct WalArgs {
    /// Directory of the log
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Debug, Args)]
pub(super) struct RepairArgs {
    #[command(flatten)]
    pub wal: WalArgs,
    /// Ask Kafka for what is damaged
    #[arg(long)]
    pub from_kafka: bool,
    /// Fetch it and keep it, instead of showing a plan; the log must not be in use
    #[arg(long, requires = "from_kafka")]
    pub apply: bool,
    #[command(flatten)]
    pub kafka: KafkaArgs,
}

/// How to reach Kafka, where topics, sink and log are not asked for.
#[derive(Clone, Debug, Args)]
pub(super) struct KafkaArgs {
    /// Configuration file (TOML)
    #[arg(short = 'c', long = "config", value_name = "FILE", requires = "from_kafka")]
    pub config: Option<PathBuf>,
    /// Any setting, as in kafka.properties.sasl.username=me; may be repeated
    #[arg(long, value_name = "KEY=VALUE", requires = "from_kafka")]
    pub set: Vec<String>,
    /// Brokers to ask first (kafka.brokers)
    #[arg(long, value_name = "HOST:PORT", requires = "from_kafka")]
    pub brokers: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct DumpArgs {
    #[command(flatten)]
    pub wal: WalArgs,
    /// Print the records of the blocks instead, one JSON object a line
    #[arg(long)]
    pub records: bool,
    /// Only this topic
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Only this partition number
    #[arg(long, value_name = "N")]
    pub partition: Option<i32>,
    /// Stop after this many lines
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
