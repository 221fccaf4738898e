//! `forebay demo`: an embedded Kafka, a producer, and the real ingestion as a child process that is killed again and
//! again; at the end every record produced is looked for in the output.
//!
//! Promises: the kills are real (SIGKILL), half of them between the log's sync and the offset commit; the count of
//! what was lost or doubled comes from reading the output files, from nothing else. Exit code 3 if it is not zero.

mod child;
mod load;
mod verify;

use anyhow::Context;
use child::Child;
use indicatif::{ProgressBar, ProgressStyle};
use load::Load;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Partitions of the demo's topic.
const PARTITIONS: i32 = 8;
/// Name of topic and group.
const TOPIC: &str = "demo";
/// No single wait takes longer; a demo that hangs is a failed demo.
const PATIENCE: Duration = Duration::from_secs(30);

/// Flags of `forebay demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// How many records to produce.
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    pub records: u64,
    /// How many times to kill the ingestion, half of them between the log's sync and the offset commit.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub kills: u32,
    /// Where to leave log and output; a new folder under the system's temporary folder by default.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Switch the protection off, to see what it is for: no dedupe, start at the committed offset, no fence.
    #[arg(long, hide = true)]
    pub unprotected: bool,
}

/// What the demo found. The names are stable.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// Records acknowledged by the broker to the producer.
    pub produced: u64,
    /// Records in the output, doubles included.
    pub delivered: u64,
    /// Produced and not in the output.
    pub lost: u64,
    /// In the output more than once, each extra copy counted.
    pub doubled: u64,
    /// SIGKILLs sent.
    pub kills: u32,
    /// Those between the sync of the log and the commit of the offsets.
    pub kills_in_window: u32,
    /// Records that came from Kafka again and were not taken.
    pub suppressed: u64,
    /// From start to end.
    pub seconds: f64,
    /// Where log and output are.
    pub dir: PathBuf,
}

impl Report {
    /// Nothing lost, nothing twice.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.produced == self.delivered
    }
}

/// Runs the demo. Blocks for 20 to 60 seconds.
pub fn run(args: &DemoArgs) -> anyhow::Result<Report> {
    let started = Instant::now();
    let dir = folder(args)?;
    let load = Load::start(TOPIC, PARTITIONS, args.records)?;
    let bar = progress(u64::from(args.kills) + 1);
    let mut kills_in_window = 0;
    for kill in 0..args.kills {
        let in_window = kill % 2 == 0;
        bar.set_message(if in_window { "kill between sync and commit" } else { "kill at a random moment" });
        let mut child = Child::start(&dir, &load.brokers, args.unprotected, in_window)?;
        if in_window {
            child.wait_for_window(PATIENCE)?;
            kills_in_window += 1;
        } else {
            child.wait_for_output(PATIENCE)?;
            std::thread::sleep(random_delay()?);
        }
        child.kill()?;
        bar.inc(1);
    }
    bar.set_message("producing the rest, then a last run to the end");
    let produced = load.finish(PATIENCE)?;
    let suppressed = Child::run_to_end(&dir, &load.brokers, args.unprotected, PATIENCE)?;
    bar.finish_and_clear();
    let found = verify::read(&dir.join("out"), args.unprotected)?;
    let verdict = verify::compare(&found, &produced);
    Ok(Report {
        produced: produced.iter().sum(),
        delivered: verdict.delivered,
        lost: verdict.lost,
        doubled: verdict.doubled,
        kills: args.kills,
        kills_in_window,
        suppressed,
        seconds: started.elapsed().as_secs_f64(),
        dir,
    })
}

/// How to look at what the demo left behind.
pub fn epilogue(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "Look at what it left behind:\n  forebay wal status {dir}/wal\n  forebay wal check {dir}/wal\n  \
         head -3 {dir}/out/topic={TOPIC}/partition=0/*"
    )
}

fn folder(args: &DemoArgs) -> anyhow::Result<PathBuf> {
    let dir = match &args.dir {
        Some(dir) => {
            let used = dir.read_dir().is_ok_and(|mut entries| entries.next().is_some());
            anyhow::ensure!(!used, "{} is not empty; the demo wants a new folder", dir.display());
            dir.clone()
        }
        None => tempfile::Builder::new().prefix("forebay-demo-").tempdir()?.keep(),
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

fn progress(steps: u64) -> ProgressBar {
    // indicatif draws on a terminal only.
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn random_delay() -> anyhow::Result<Duration> {
    let random = getrandom::u32().map_err(|error| anyhow::anyhow!("no random number: {error}"))?;
    Ok(Duration::from_millis(u64::from(random % 400)))
}
