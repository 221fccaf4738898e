//! A directory with a log and files, processes that live in it, and what they left.

use super::driver::{DIR, RECORDS};
use super::order::Order;
use super::trace::{self, Trace};
use forebay::io::disk::Disk;
use forebay::wal::inspect::inspect;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory, removed when the test passes and kept (and named) when it fails.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        Self(tempfile::Builder::new().prefix(&format!("forebay-{name}-")).tempdir().unwrap().keep())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Whether system calls can be traced here.
pub fn strace() -> Result<(), String> {
    let tried = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stderr(Stdio::piped()).output();
    match tried {
        Err(error) => Err(format!("no strace: {error}")),
        Ok(run) if run.status.success() => Ok(()),
        Ok(run) => Err(format!("no ptrace: {}", String::from_utf8_lossy(&run.stderr).trim())),
    }
}

/// How many records are missing from the output, and how many are there too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub lost: usize,
    pub doubled: usize,
}

/// See the module.
pub struct World {
    scratch: Option<Scratch>,
    dir: PathBuf,
    log: PathBuf,
    said: PathBuf,
}

impl World {
    pub fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let dir = scratch.path().join("life");
        std::fs::create_dir(&dir).unwrap();
        let mut world = Self::in_dir(&dir);
        (world.log, world.said) = (scratch.path().join("trace"), scratch.path().join("said"));
        world.scratch = Some(scratch);
        world
    }

    /// A life in a directory that somebody else removes.
    pub fn in_dir(dir: &Path) -> Self {
        let beside = std::env::temp_dir().join(format!("forebay-said-{}", std::process::id()));
        Self { scratch: None, dir: dir.to_owned(), log: beside.with_extension("trace"), said: beside }
    }

    fn command(&self, mut command: Command) -> Command {
        let said = std::fs::File::options().create(true).append(true).open(&self.said).unwrap();
        command.env(DIR, &self.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        command
    }

    fn driver(command: &mut Command) {
        command.args(["--exact", "drives_when_asked", "--nocapture", "--test-threads=1"]);
    }

    /// What a run without faults would be started with.
    pub fn plain(&self) -> Command {
        let mut command = self.command(Command::new(std::env::current_exe().unwrap()));
        Self::driver(&mut command);
        command
    }

    /// Runs to the end without faults; the exit code, `None` after a kill.
    pub fn run(&self) -> Option<i32> {
        self.plain().status().unwrap().code()
    }

    /// Runs under strace with these injections and adds the calls to the order; the exit code.
    pub fn traced(&self, injections: &[String], order: &mut Order) -> Option<i32> {
        let (code, trace) = self.trace(injections);
        order.check(&trace);
        code
    }

    /// The same; gives the calls.
    pub fn trace(&self, injections: &[String]) -> (Option<i32>, Trace) {
        let mut command = self.command(Command::new("strace"));
        let shown = trace::SHOWN.to_string();
        command.args(["-f", "-y", "-x", "-qq", "-s", &shown, "-e", &format!("trace={}", trace::CALLS)]);
        for injection in injections {
            command.args(["-e", &format!("inject={injection}")]);
        }
        command.arg("-o").arg(&self.log).arg(std::env::current_exe().unwrap());
        Self::driver(&mut command);
        let code = command.status().unwrap().code();
        let text = std::fs::read(&self.log).unwrap();
        (code, Trace::parse(&String::from_utf8_lossy(&text)))
    }

    /// What the processes said on their standard error.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Counts the records in the output.
    pub fn count(&self) -> Count {
        let mut seen = vec![0_usize; RECORDS as usize];
        let (mut dirs, mut strange) = (vec![self.dir.join("out")], 0);
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                for line in std::fs::read_to_string(&path).unwrap().lines() {
                    match line.parse::<usize>().ok().filter(|record| *record < seen.len() && line.len() == 700) {
                        Some(record) => seen[record] += 1,
                        None => strange += 1,
                    }
                }
            }
        }
        let doubled: usize = seen.iter().map(|count| count.saturating_sub(1)).sum();
        Count { lost: seen.iter().filter(|count| **count == 0).count(), doubled: doubled + strange }
    }

    /// Everything is there once, the log undamaged.
    pub fn check_output(&self) {
        assert_eq!(self.count(), Count { lost: 0, doubled: 0 }, "{}", self.said());
        let overview = inspect(&Disk, &self.dir.join("wal")).unwrap();
        assert!(!overview.is_damaged(), "{:?}", overview.findings);
    }
}
