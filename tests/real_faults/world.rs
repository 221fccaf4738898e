//! A directory with a log and files, processes that live in it, and what they left.

use super::driver::{DIR, SHAPE, SHAPES, SMALL, Shape};
use super::trace::{self, HELD, Trace};
use forebay::io::disk::Disk;
use forebay::wal::inspect::inspect;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// So long a life may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The file for what the processes say.
pub const SAID: &str = "said";

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

/// Whether files can be written past the page cache here.
pub fn direct() -> Result<(), String> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let scratch = Scratch::new("direct");
    let flag = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let opened = std::fs::File::options().write(true).create(true).custom_flags(flag).open(scratch.path().join("f"));
    opened.map(drop).map_err(|error| format!("no O_DIRECT: {error}"))
}

/// How many records are missing from the output, and how many are there too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub lost: usize,
    pub doubled: usize,
}

/// See the module.
pub struct World {
    shape: usize,
    scratch: Option<Scratch>,
    dir: PathBuf,
    log: PathBuf,
    said: PathBuf,
}

impl World {
    pub fn new(name: &str) -> Self {
        Self::shaped(name, SMALL)
    }

    /// One whose life has this shape.
    pub fn shaped(name: &str, shape: usize) -> Self {
        let scratch = Scratch::new(name);
        let dir = scratch.path().join("life");
        std::fs::create_dir(&dir).unwrap();
        let mut world = Self::in_dir(&dir);
        world.shape = shape;
        (world.log, world.said) = (scratch.path().join("trace"), scratch.path().join(SAID));
        world.scratch = Some(scratch);
        world
    }

    /// A life in a directory that somebody else removes.
    pub fn in_dir(dir: &Path) -> Self {
        let beside = std::env::temp_dir().join(format!("forebay-said-{}", std::process::id()));
        Self { shape: SMALL, scratch: None, dir: dir.to_owned(), log: beside.with_extension("trace"), said: beside }
    }

    pub fn shape(&self) -> &'static Shape {
        &SHAPES[self.shape]
    }

    fn command(&self, mut command: Command) -> Command {
        let said = std::fs::File::options().create(true).append(true).open(&self.said).unwrap();
        command
            .env(DIR, &self.dir)
            .env(SHAPE, self.shape.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said);
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

    /// The life under strace with these options of its, started by this command if there is one.
    pub fn under_strace(&self, options: &[String], starter: &[String]) -> Command {
        let mut command = self.command(Command::new("strace"));
        // A group is one buffer where it goes past the page cache, and what is in it is to be seen.
        let shown = trace::SHOWN.max(2 * self.shape().segment_bytes as usize).to_string();
        command.args(["-f", "-y", "-qq", "-s", &shown, "-e", &format!("trace={}", trace::CALLS)]);
        command.args(options).arg("-o").arg(&self.log).args(starter).arg(std::env::current_exe().unwrap());
        Self::driver(&mut command);
        command
    }

    /// Runs it with these options; the exit code and the calls.
    pub fn trace(&self, options: &[String]) -> (Option<i32>, Trace) {
        self.trace_started_by(options, &[])
    }

    /// The same with a starter.
    pub fn trace_started_by(&self, options: &[String], starter: &[String]) -> (Option<i32>, Trace) {
        let code = self.under_strace(options, starter).status().unwrap().code();
        (code, self.calls())
    }

    /// Runs it with options that hold a thread when it has made a call, and kills it there.
    pub fn trace_killed_where_held(&self, options: &[String]) -> (Option<i32>, Trace) {
        let mut strace = self.under_strace(options, &[]).spawn().unwrap();
        let Some(line) = self.wait_for_line(&mut strace, |line| line.ends_with(HELD)) else {
            return (strace.wait().unwrap().code(), self.calls());
        };
        let thread: i32 = line.split(' ').next().unwrap().parse().unwrap();
        let process = process_of(thread, strace.id());
        rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        // It would tell of the end only after the delay. What it holds is dead and goes once it is let go.
        strace.kill().unwrap();
        strace.wait().unwrap();
        let until = Instant::now() + LIMIT;
        while lives(process) {
            assert!(Instant::now() < until, "{process:?} was killed and does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        (None, self.calls())
    }

    /// The first line of the trace for which this is true; nothing if strace ends without one.
    pub fn wait_for_line(&self, strace: &mut Child, is_it: impl Fn(&str) -> bool) -> Option<String> {
        let until = Instant::now() + LIMIT;
        let (mut file, mut text) = (None, Vec::new());
        loop {
            let ended = strace.try_wait().unwrap().is_some();
            if file.is_none() {
                file = std::fs::File::open(&self.log).ok();
            }
            if let Some(file) = &mut file {
                file.read_to_end(&mut text).unwrap();
            }
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            let lines = String::from_utf8_lossy(&text[..whole]).into_owned();
            if let Some(line) = lines.lines().find(|line| is_it(line)) {
                return Some(line.to_owned());
            }
            text.drain(..whole);
            if ended {
                return None;
            }
            if Instant::now() > until {
                strace.kill().unwrap();
                strace.wait().unwrap();
                panic!("it neither goes on nor stops: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the last trace saw.
    pub fn calls(&self) -> Trace {
        let text = std::fs::read(&self.log).unwrap();
        Trace::parse(&String::from_utf8_lossy(&text))
    }

    /// What the processes said on their standard error.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// The directory that the life's own is in.
    pub fn around(&self) -> &str {
        self.dir.parent().unwrap().to_str().unwrap()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Counts the records in the output.
    pub fn count(&self) -> Count {
        let mut seen = vec![0_usize; self.shape().records as usize];
        let (mut dirs, mut strange) = (vec![self.dir.join("out")], 0);
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                for line in std::fs::read_to_string(&path).unwrap().lines() {
                    match line
                        .parse::<usize>()
                        .ok()
                        .filter(|record| *record < seen.len() && line.len() == self.shape().value_bytes)
                    {
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

/// The process of a thread, which must be strace's child.
fn process_of(thread: i32, strace: u32) -> rustix::process::Pid {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse::<i32>().unwrap()
    };
    assert_eq!(number("PPid:"), strace as i32, "not ours");
    rustix::process::Pid::from_raw(number("Tgid:")).unwrap()
}

/// Whether a thread of the process has not ended.
fn lives(process: rustix::process::Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero()));
    tasks.into_iter().flatten().flatten().any(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    })
}
