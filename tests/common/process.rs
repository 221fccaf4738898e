//! The `forebay` binary as a child process: started with flags only, ended by its process id, read by its exit code,
//! its summary and its files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Kafka, leash, wait_for};

/// The binary under test.
pub const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay");

/// Long enough for any step on a busy machine with two cores; reached only when something hangs.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Settings of every run. The HTTP port is any free one, so that instances on one machine do not meet.
const ALWAYS: &[&str] = &["server.listen=127.0.0.1:0"];

const STDOUT: &str = "stdout";

/// What to run. `Clone`d, it is the same instance started again.
#[derive(Debug, Clone)]
pub struct Run {
    args: Vec<String>,
    env: Vec<(String, String)>,
    wal: PathBuf,
    out: PathBuf,
    talk: PathBuf,
    /// Instead of files.
    sink: Option<&'static str>,
}

impl Run {
    /// `forebay run` of `topic` in `group`, with its log in `home/wal`, a file sink in `home/out`, and its standard
    /// error added to `home/stderr`.
    pub fn new(kafka: &Kafka, topic: &str, group: &str, home: &Path) -> Self {
        Self::at(kafka.brokers(), topic, group, home)
    }

    /// The same at a given address.
    pub fn at(brokers: &str, topic: &str, group: &str, home: &Path) -> Self {
        std::fs::create_dir_all(home).unwrap();
        let (wal, out) = (home.join("wal"), home.join("out"));
        let mut run = Self {
            args: vec!["run".to_owned()],
            env: Vec::new(),
            wal: wal.clone(),
            out: out.clone(),
            talk: home.join("stderr"),
            sink: None,
        };
        run = run.arg("--brokers", brokers).arg("--topic", topic);
        run = run.arg("--group", group);
        run = run.arg("--wal", &wal.display().to_string());
        run = run.arg("--output", "json");
        ALWAYS.iter().fold(run, |run, pair| run.set(pair))
    }

    fn arg(mut self, flag: &str, value: &str) -> Self {
        self.args.push(flag.to_owned());
        self.args.push(value.to_owned());
        self
    }

    /// One more topic.
    #[must_use]
    pub fn topic(self, topic: &str) -> Self {
        self.arg("--topic", topic)
    }

    /// Adds `--set key=value`.
    #[must_use]
    pub fn set(self, pair: &str) -> Self {
        self.arg("--set", pair)
    }

    /// A session of 3 s: an instance that has ended gives up its seat in the group soon.
    #[must_use]
    pub fn short_session(self) -> Self {
        self.set("kafka.session_timeout=3s").set("kafka.properties.heartbeat.interval.ms=500")
    }

    /// Adds `--exit-at-end`.
    #[must_use]
    pub fn exit_at_end(mut self) -> Self {
        self.args.push("--exit-at-end".to_owned());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The sink is standard output, as a pipe that the test holds and reads or does not read. No summary then.
    #[must_use]
    pub fn stdout_sink(mut self) -> Self {
        self.sink = Some(STDOUT);
        self
    }

    /// Records are counted only.
    #[must_use]
    pub fn null_sink(mut self) -> Self {
        self.sink = Some("null");
        self
    }

    /// Another log directory.
    #[must_use]
    pub fn wal_at(mut self, wal: &Path) -> Self {
        let place = self.args.iter().position(|arg| arg == "--wal").unwrap();
        self.args[place + 1] = wal.display().to_string();
        wal.clone_into(&mut self.wal);
        self
    }

    /// Another output directory.
    #[must_use]
    pub fn out_at(mut self, out: &Path) -> Self {
        out.clone_into(&mut self.out);
        self
    }

    /// Where the log is.
    pub fn wal(&self) -> &Path {
        &self.wal
    }

    /// Where the file sink writes.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Starts the process.
    pub fn spawn(&self) -> Forebay {
        let talk = File::options().create(true).append(true).open(&self.talk).unwrap();
        let talk_from = talk.metadata().unwrap().len();
        let data = self.talk.with_file_name("stdout");
        let sink = self.sink.map_or_else(|| format!("file:{}", self.out.display()), str::to_owned);
        let mut command = Command::new(FOREBAY);
        command
            .args(&self.args)
            .args(["--sink", &sink])
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stderr(talk);
        if self.sink == Some(STDOUT) {
            command.stdout(Stdio::piped());
        } else {
            command.stdout(File::create(&data).unwrap());
        }
        let mut child = command.spawn().unwrap();
        leash::hold(child.id());
        if let Some(pipe) = &child.stdout {
            // A pipe that nobody reads takes no block whole: none of them is delivered.
            rustix::pipe::fcntl_setpipe_size(pipe, 4096).unwrap();
        }
        Forebay { pipe: child.stdout.take(), child, ended: None, talk: self.talk.clone(), talk_from, data }
    }

    /// Starts it and waits for its end.
    pub fn finish(&self) -> Finished {
        self.spawn().finish(LIMIT)
    }

    /// Runs with `--exit-at-end` and expects exit code 0.
    pub fn drain(&self) -> Finished {
        let finished = self.clone().exit_at_end().finish();
        finished.expect(0);
        finished
    }
}

/// A running process; killed when dropped.
pub struct Forebay {
    child: Child,
    ended: Option<ExitStatus>,
    /// Standard output, if the sink is standard output.
    pub pipe: Option<ChildStdout>,
    talk: PathBuf,
    talk_from: u64,
    data: PathBuf,
}

impl Forebay {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&mut self, signal: Signal) {
        assert!(!self.has_ended(), "ended by itself:\n{}", self.stderr());
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// SIGKILL, and waits for the end. Fails if the process had ended by itself before.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait(LIMIT);
    }

    /// SIGTERM: the process is to drain and end.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// SIGSTOP: the process stands still, like a virtual machine that is being moved.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    /// True if the process is no longer there.
    pub fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
            if self.ended.is_some() {
                leash::release(self.child.id());
            }
        }
        self.ended.is_some()
    }

    /// Peak resident memory up to now, in bytes.
    pub fn rss_peak(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// Resident memory now, in bytes.
    pub fn rss(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let words = line.unwrap().trim().trim_end_matches(" kB");
        words.trim().parse::<u64>().unwrap() * 1024
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        while !self.has_ended() && start.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.ended.unwrap_or_else(|| panic!("no end within {limit:?}:\n{}", self.stderr()))
    }

    /// Waits for the end.
    pub fn finish(mut self, limit: Duration) -> Finished {
        let status = self.wait(limit);
        Finished { status, stdout: std::fs::read_to_string(&self.data).unwrap_or_default(), stderr: self.stderr() }
    }

    /// SIGTERM and a clean end with exit code 0.
    pub fn stop(mut self) -> Finished {
        self.terminate();
        let finished = self.finish(LIMIT);
        finished.expect(0);
        finished
    }

    /// What this process answers to `GET path`: status code and body.
    pub fn ask(&self, path: &str) -> (u16, String) {
        use std::io::{Read, Write};
        let address = wait_for("address of the HTTP server", LIMIT, || {
            let said = self.stderr();
            let line = said.lines().find(|line| line.contains("serving /metrics"))?;
            let digits = line.split("127.0.0.1:").nth(1)?;
            let port: String = digits.chars().take_while(char::is_ascii_digit).collect();
            Some(format!("127.0.0.1:{port}"))
        });
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The body of `/status`.
    pub fn status(&self) -> Value {
        let (_, body) = self.ask("/status");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// What this process has said on standard error.
    pub fn stderr(&self) -> String {
        let bytes = std::fs::read(&self.talk).unwrap_or_default();
        let from = (self.talk_from as usize).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }

    /// Waits until standard error has `words`.
    pub fn wait_says(&self, words: &str) {
        wait_for(&format!("{words:?} on standard error"), LIMIT, || self.stderr().contains(words).then_some(()));
    }
}

impl Drop for Forebay {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            leash::release(self.child.id());
        }
    }
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output: the summary.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Fails unless the exit code is `code`.
    pub fn expect(&self, code: i32) {
        let Self { status, stderr, .. } = self;
        assert_eq!(status.code(), Some(code), "{status}; it said:\n{stderr}");
    }

    /// Fails unless standard error has `words`, in upper or lower case.
    pub fn says(&self, words: &str) {
        let said = self.stderr.to_lowercase();
        assert!(said.contains(&words.to_lowercase()), "not {words:?}, but:\n{}", self.stderr);
    }

    /// The summary: exactly one JSON object on standard output.
    pub fn summary(&self) -> Value {
        let value: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: summary {:?}", self.stdout));
        for key in SUMMARY_KEYS {
            assert!(value[key].is_number(), "summary without {key}: {value}");
        }
        value
    }

    /// A whole number of the summary.
    pub fn number(&self, key: &str) -> u64 {
        let summary = self.summary();
        summary[key].as_u64().unwrap_or_else(|| panic!("{key} of {summary}"))
    }
}

const SUMMARY_KEYS: &[&str] = &[
    "records",
    "bytes",
    "seconds",
    "records_per_s",
    "cpu_seconds",
    "rss_peak_bytes",
    "fsyncs",
    "fsync_p50_us",
    "fsync_p99_us",
    "suppressed",
    "lag",
];

/// Runs `forebay` with these arguments and waits for its end.
pub fn forebay(args: &[&str]) -> Finished {
    let mut child = Command::new(FOREBAY)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    leash::hold(child.id());
    let mut err = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || std::io::read_to_string(&mut err).unwrap());
    let stdout = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
    let status = child.wait().unwrap();
    leash::release(child.id());
    Finished { status, stdout, stderr: reader.join().unwrap() }
}
