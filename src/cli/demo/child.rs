//! The ingestion as the demo runs it: this very binary, as a process of its own.

use anyhow::Context;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often a wait looks again.
const LOOK: Duration = Duration::from_millis(2);

/// A running ingestion; killed when dropped.
pub struct Child {
    process: std::process::Child,
    hook: PathBuf,
    out: PathBuf,
    log: PathBuf,
}

impl Child {
    /// Starts `forebay run`; with `hook`, it stops for a moment after each sync, before the commit, and says so.
    pub fn start(dir: &Path, brokers: &str, unprotected: bool, hook: bool) -> anyhow::Result<Self> {
        let hook_file = dir.join("window");
        let mut command = command(dir, brokers, unprotected)?;
        command.stdout(if unprotected { Stdio::from(next_output(dir)?) } else { Stdio::null() });
        if hook {
            File::create(&hook_file).context("cannot create the hook's file")?;
            command.env("FOREBAY_HOOK_AFTER_SYNC", &hook_file);
        }
        let process = command.spawn().context("cannot start the ingestion")?;
        Ok(Self { process, hook: hook_file, out: dir.join("out"), log: dir.join("ingestion.log") })
    }

    /// Waits until the ingestion stands between the sync of its log and the commit.
    pub fn wait_for_window(&mut self, patience: Duration) -> anyhow::Result<()> {
        let before = size(&self.hook);
        self.wait(patience, |this| size(&this.hook) > before, "reach the moment between sync and commit")
    }

    /// Waits until more output has been written.
    pub fn wait_for_output(&mut self, patience: Duration) -> anyhow::Result<()> {
        let before = tree_size(&self.out);
        self.wait(patience, |this| tree_size(&this.out) > before, "deliver anything")
    }

    fn wait(&mut self, patience: Duration, done: impl Fn(&Self) -> bool, what: &str) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        while !done(self) {
            if let Some(status) = self.process.try_wait()? {
                anyhow::bail!("the ingestion ended by itself ({status}); see {}", self.log.display());
            }
            anyhow::ensure!(
                Instant::now() < until,
                "the ingestion did not {what} within {patience:?}; see {}",
                self.log.display()
            );
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Runs the ingestion until it has everything that is there, and returns how many records it suppressed.
    pub fn run_to_end(dir: &Path, brokers: &str, unprotected: bool, patience: Duration) -> anyhow::Result<u64> {
        let summary = dir.join("summary.json");
        let mut command = command(dir, brokers, unprotected)?;
        let stdout = if unprotected { next_output(dir)? } else { File::create(&summary)? };
        command.args(["--exit-at-end", "--output", "json"]).stdout(stdout);
        let process = command.spawn().context("cannot start the ingestion")?;
        let mut child = Self { process, hook: PathBuf::new(), out: dir.join("out"), log: dir.join("ingestion.log") };
        let until = Instant::now() + patience;
        let status = loop {
            if let Some(status) = child.process.try_wait()? {
                break status;
            }
            anyhow::ensure!(
                Instant::now() < until,
                "the last run did not end within {patience:?}; see {}",
                child.log.display()
            );
            std::thread::sleep(LOOK);
        };
        anyhow::ensure!(status.success(), "the last run failed ({status}); see {}", child.log.display());
        if unprotected {
            return Ok(0);
        }
        let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(&summary)?)?;
        summary["suppressed"].as_u64().context("the summary has no number of suppressed records")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // After a normal end both calls only say that it is over.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(dir: &Path, brokers: &str, unprotected: bool) -> anyhow::Result<Command> {
    let log = File::options().create(true).append(true).open(dir.join("ingestion.log"))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this binary")?);
    // The file sink alone would notice that it is given something again; the unprotected run needs one that does not.
    let out = if unprotected { "stdout".to_string() } else { format!("file:{}", dir.join("out").display()) };
    command.arg("run").args(["--brokers", brokers, "--topic", super::TOPIC, "--group", super::TOPIC]);
    command.arg("--wal").arg(dir.join("wal")).args(["--sink", &out]);
    // The mock cluster forgets a killed member only after its session; it has no use for static membership.
    command.args(["--set", "kafka.session_timeout=1500ms", "--set", "kafka.static_membership=false"]);
    command.args(["--set", "wal.segment_bytes=8MiB", "--set", "server.listen=off"]);
    if unprotected {
        command.arg("--unprotected");
    }
    command.stdin(Stdio::null()).stderr(log);
    Ok(command)
}

/// A file of its own for the standard output of each unprotected run.
fn next_output(dir: &Path) -> anyhow::Result<File> {
    let out = dir.join("out");
    std::fs::create_dir_all(&out)?;
    let taken = out.read_dir()?.count();
    Ok(File::create(out.join(format!("run-{taken:02}.jsonl")))?)
}

fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

fn tree_size(dir: &Path) -> u64 {
    let Ok(entries) = dir.read_dir() else { return 0 };
    let each = |entry: std::fs::DirEntry| {
        let path = entry.path();
        if path.is_dir() { tree_size(&path) } else { size(&path) }
    };
    entries.filter_map(Result::ok).map(each).sum()
}
