//! A measured process: this very binary, with a log, an output and a group of its own.
//!
//! Promises: it is ended, by its id, when its owner is dropped; if it fails, the error names the mode and what it said.
//! It does not see the `FOREBAY_…` variables of this process.

use super::args::SinkKind;
use super::plan::{Mode, Point};
use super::report::SECONDS_MIN;
use super::watch::Stop;
use crate::cli::exit::{FAILED, Failure, UNAVAILABLE};
use anyhow::{Context, anyhow};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a wait looks again: short next to any run.
const LOOK: Duration = Duration::from_millis(10);
/// No run takes longer.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Lines of standard error that an error quotes.
const TAIL_LINES: usize = 6;

/// What all processes of a benchmark have in common.
#[derive(Clone, Debug)]
pub(super) struct Common {
    /// `host:port,…`.
    pub brokers: String,
    /// `KEY=VALUE` for `forebay run`.
    pub set: Vec<String>,
    /// Of librdkafka, for the process that is not `forebay run`.
    pub properties: Vec<(String, String)>,
}

/// A running process.
pub(super) struct Child {
    process: std::process::Child,
    mode: Mode,
    errors: PathBuf,
}

impl Child {
    /// Starts `command` with its standard error in `dir`.
    pub fn start(mut command: Command, mode: Mode, dir: &Path, stdout: Stdio) -> anyhow::Result<Self> {
        let errors = dir.join("stderr.log");
        let stderr = File::create(&errors).with_context(|| format!("cannot create {}", errors.display()))?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FOREBAY_") {
                command.env_remove(name);
            }
        }
        let process = command.spawn().with_context(|| format!("cannot start the mode {}", mode.name()))?;
        Ok(Self { process, mode, errors })
    }

    /// Its standard output, if it was started with a pipe; once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.process.stdout.take()
    }

    /// Waits for a successful end.
    pub fn wait(&mut self, stop: &Stop) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended(stop)? {
                return if status.success() { Ok(()) } else { Err(self.failure(&format!("ended with {status}"))) };
            }
            if Instant::now() >= until {
                return Err(self.failure(&format!("did not end within {PATIENCE:?}")));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// How it ended, if it did. Told to stop, the benchmark stops: a signal from a terminal reaches the child as well.
    pub fn ended(&mut self, stop: &Stop) -> Result<Option<ExitStatus>, Failure> {
        let status = self.process.try_wait()?;
        stop.check()?;
        Ok(status)
    }

    /// Says what happened to the mode, with the end of what the process said.
    pub fn failure(&self, what: &str) -> Failure {
        let text = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let lines: Vec<_> = text.trim_end().lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
        let said = if tail.is_empty() { "it said nothing".to_string() } else { format!("it said:\n  {tail}") };
        let code = if text.contains("no broker") { UNAVAILABLE } else { FAILED };
        Failure::new(code, anyhow!("the mode {} {what}; {said}", self.mode.name()))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // After a normal end both calls only say that it is over.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `forebay run` in `dir`, or the bare consumption.
pub(super) fn command(
    common: &Common,
    mode: Mode,
    topic: &str,
    point: &Point,
    (group, dir): (&str, &Path),
) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this binary")?);
    if mode == Mode::Consume {
        command.args(["bench", "consume", "--brokers", &common.brokers, "--topic", topic]);
        for (name, value) in &common.properties {
            command.arg("--property").arg(format!("{name}={value}"));
        }
        return Ok(command);
    }
    command.args(["run", "--brokers", &common.brokers, "--topic", topic, "--group", group]);
    command.arg("--wal").arg(dir.join("log")).args(["--output", "json"]);
    let mut settings = vec![
        "server.listen=off".to_string(),
        "kafka.static_membership=false".to_string(),
        "log.level=warn".to_string(),
        format!("kafka.receivers={}", point.receivers),
    ];
    settings.extend(point.block_bytes.map(|bytes| format!("block.bytes={bytes}B")));
    settings.extend(mode.settings().iter().map(|(key, word)| format!("{key}={word}")));
    for setting in settings.iter().chain(&common.set) {
        command.args(["--set", setting]);
    }
    Ok(command)
}

/// The rest of the arguments of a run to the end, with its output in `dir`.
pub(super) fn to_end(command: &mut Command, mode: Mode, sink: SinkKind, dir: &Path) {
    if mode == Mode::Consume {
        command.args(["--seconds", &SECONDS_MIN.to_string()]);
        return;
    }
    command.arg("--exit-at-end").arg("--sink");
    match sink {
        SinkKind::Null => command.arg("null"),
        SinkKind::Raw | SinkKind::Jsonl => command.arg(format!("file:{}", dir.join("out").display())),
    };
    let format = if sink == SinkKind::Raw { "raw" } else { "jsonl" };
    command.args(["--set", &format!("sink.format={format}")]);
}
