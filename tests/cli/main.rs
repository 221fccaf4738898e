//! The binary from outside: exit codes, messages, and what goes to which stream.

#![allow(clippy::unwrap_used, clippy::panic)]

mod refusals;

use forebay::io::disk::Disk;
use forebay::metrics::Metrics;
use forebay::record::batch::{BatchBuilder, RecordRef};
use forebay::record::{Block, BlockHeader, Partition, TopicId};
use forebay::wal::{self, Entry};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

fn forebay(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOREBAY_") {
            command.env_remove(name);
        }
    }
    command
}

fn outcome(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn run(args: &[&str]) -> (i32, String, String) {
    outcome(&mut forebay(args))
}

/// Arguments of a run in `dir` against a port nobody listens on.
fn nowhere(dir: &Path) -> Vec<String> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (wal, sink) = (dir.join("log"), dir.join("out"));
    [
        "--brokers",
        &format!("127.0.0.1:{port}"),
        "--topic",
        "orders",
        "--wal",
        wal.to_str().unwrap(),
        "--sink",
        &format!("file:{}", sink.display()),
        "--set",
        "server.listen=off",
    ]
    .map(str::to_string)
    .to_vec()
}

#[test]
fn help_and_version_are_answers() {
    let (code, out, err) = run(&["--help"]);
    assert_eq!((code, err.as_str()), (0, ""));
    for word in ["run", "demo", "bench", "check", "wal", "completions", "Exit codes", "130 interrupted"] {
        assert!(out.contains(word), "{word} in {out}");
    }
    let (code, out, _) = run(&["run", "--help"]);
    assert_eq!(code, 0);
    for flag in ["--brokers", "--topic", "--group", "--wal", "--sink", "--set", "--exit-at-end", "--output", "-c"] {
        assert!(out.contains(flag), "{flag} in {out}");
    }
    assert!(!out.contains("unprotected"), "{out}");
    let (code, out, _) = run(&["--version"]);
    assert_eq!((code, out.trim()), (0, concat!("forebay ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for args in [&["fetch"][..], &["run", "--brokerz", "x"], &["wal"], &["run", "--output", "xml"], &[]] {
        let (code, out, err) = run(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(err.contains("--help"), "{err}");
    }
}

#[test]
fn a_wrong_setting_is_named_with_the_one_that_was_meant() {
    let (code, out, err) = run(&["run", "--set", "sink.formt=raw"]);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(err.contains("sink.formt is not a setting; did you mean sink.format? (--set)"), "{err}");
}

#[test]
fn all_problems_come_at_once_from_every_layer() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[kafka]\nreceivers = 0\n\n[wal]\ndurability = \"maybe\"\n").unwrap();
    let path = file.path().to_str().unwrap();
    let mut command = forebay(&["run", "-c", path, "--set", "block.age=soon", "--sink", "files:out"]);
    let (code, _, err) = outcome(command.env("FOREBAY_MEMORY__BUDGET", "1MiB"));
    assert_eq!(code, 78);
    for problem in [
        format!("kafka.receivers is 0, must be from 1 to 64 ({path}:2)"),
        format!("wal.durability is \"maybe\", must be one of fsync, os, memory ({path}:5)"),
        "memory.budget is 1MiB, must be from 16MiB to 64GiB (environment FOREBAY_MEMORY__BUDGET)".to_string(),
        "block.age is \"soon\", must be a duration with its unit, as in \"200ms\" (--set)".to_string(),
        "sink.target is \"files:out\", must be file:DIR, stdout or null (--sink)".to_string(),
        "kafka.brokers is not set".to_string(),
    ] {
        assert!(err.contains(&problem), "{problem} in {err}");
    }
    let (code, _, err) = run(&["run", "-c", "no-such-file.toml"]);
    assert_eq!(code, 78);
    assert!(err.contains("no-such-file.toml"), "{err}");
}

#[test]
fn check_prints_problems_as_data_when_asked_to() {
    let (code, out, err) = run(&["check", "--output", "json", "--set", "log.level=loud"]);
    assert_eq!((code, err.as_str()), (78, ""));
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["ok"], false);
    let problem = &found["problems"][0];
    assert_eq!((problem["key"].as_str(), problem["origin"].as_str()), (Some("log.level"), Some("--set")));
}

#[test]
fn check_tells_the_promise_and_enforces_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut args = nowhere(dir.path());
    args.extend(["--offline", "--output", "json", "--set", "require=exactly-once"].map(str::to_string));
    args.extend(["--set", "kafka.properties.sasl.password=hunter2"].map(str::to_string));
    let (code, out, _) = outcome(forebay(&["check"]).args(&args));
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, found["guarantee"]["once"].as_str()), (0, Some("exactly-once")), "{out}");
    assert!(!out.contains("hunter2"), "{out}");
    assert!(!dir.path().join("log").exists(), "check created the log's directory");
    args.retain(|arg| arg != "--offline");
    let sink = args.iter().position(|arg| arg == "--sink").unwrap() + 1;
    args[sink] = "stdout".to_string();
    let (code, out, err) =
        outcome(forebay(&["run", "--exit-at-end", "--set", "kafka.unreachable_timeout=1s"]).args(&args));
    assert_eq!((code, out.as_str()), (78, ""), "{err}");
    assert!(err.contains("stdout can't be asked"), "{err}");
    args.push("--offline".to_string());
    let (code, out, _) = outcome(forebay(&["check"]).args(&args));
    assert_eq!(code, 78, "{out}");
    assert!(out.contains("\"unmet\": \"require is exactly-once"), "{out}");
}

#[test]
fn no_broker_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let args = nowhere(dir.path());
    let (code, out, _) = outcome(forebay(&["check", "--output", "json"]).args(&args));
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, found["connections"][0]["ok"].as_bool()), (69, Some(false)), "{out}");
    let mut run = forebay(&["run", "--exit-at-end", "--set", "kafka.unreachable_timeout=1s"]);
    let (code, out, err) = outcome(run.args(&args));
    assert_eq!((code, out.as_str()), (69, ""), "{err}");
    assert!(err.contains("127.0.0.1"), "{err}");
}

#[test]
fn check_says_who_fetches() {
    let dir = tempfile::tempdir().unwrap();
    for (set, expected) in [
        ("kafka.fetcher=auto", "by Forebay itself, where the brokers know how"),
        ("kafka.fetcher=librdkafka", "by librdkafka, as kafka.fetcher says"),
        ("kafka.properties.client.rack=r1", "by librdkafka, because of kafka.properties.client.rack"),
    ] {
        let mut check = forebay(&["check", "--offline", "--output", "json", "--set", set]);
        let (_, out, _) = outcome(check.args(nowhere(dir.path())));
        let found: serde_json::Value = serde_json::from_str(&out).unwrap();
        let mut rows = found["connections"].as_array().unwrap().iter();
        let detail = rows.find(|row| row["what"] == "fetching").map(|row| row["detail"].as_str().unwrap());
        assert_eq!(detail, Some(expected), "{out}");
    }
}

#[test]
fn a_chosen_port_that_is_taken_is_a_configuration_error() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("server.listen={}", taken.local_addr().unwrap());
    let mut run = forebay(&["run", "--exit-at-end", "--set", "kafka.unreachable_timeout=1s"]);
    let (code, _, err) = outcome(run.args(nowhere(dir.path())).args(["--set", &listen]));
    assert_eq!(code, 78, "{err}");
    assert!(err.contains("server.listen"), "{err}");
}

/// A process that is killed if the test ends before it does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_run_without_a_broker_says_so_over_http_and_stops_on_sigterm_with_a_summary() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = forebay(&["run", "--output", "json", "--set", "log.format=json"]);
    command.args(nowhere(dir.path())).args(["--set", "server.listen=127.0.0.1:0"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Running(child);
    let lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
    // Read to the end on a thread: a full pipe would stop the process.
    let (tell, told) = channel();
    let reader = std::thread::spawn(move || {
        lines.map_while(Result::ok).for_each(|line| drop(tell.send(line)));
    });
    let address = loop {
        let line = told.recv_timeout(Duration::from_secs(20)).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(address) = line["address"].as_str() {
            break address.to_string();
        }
    };
    let ready = ask(&address, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("\"ready\":false"), "{ready}");
    assert!(ask(&address, "/livez").starts_with("HTTP/1.1 200"));
    assert!(ask(&address, "/metrics").contains("forebay_records_received_total 0"));
    let pid = Pid::from_raw(child.0.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let mut out = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(0), "{out}");
    reader.join().unwrap();
    let summary: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((summary["records"].as_u64(), summary["suppressed"].as_u64()), (Some(0), Some(0)), "{out}");
}

#[test]
fn completions_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = run(&["completions", shell]);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("forebay") && out.contains("exit-at-end"), "{shell}");
    }
    assert_eq!(run(&["completions", "cobol"]).0, 2);
}

#[test]
fn a_closed_standard_output_is_no_reason_to_complain() {
    let mut command = forebay(&["check", "--print-reference"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}

const ORDERS: Partition = Partition { topic: 1, number: 3 };

fn block(first: i64, next: i64) -> Entry {
    let mut batch = BatchBuilder::new(Vec::new(), first);
    for offset in first..next {
        let value = format!("value {offset}");
        let value = Some(value.as_bytes());
        batch.push(&RecordRef { offset, timestamp: 1_700_000_000_000, key: None, value, headers: &[] });
    }
    let encoded = batch.finish(next, 0);
    let header = BlockHeader {
        partition: ORDERS,
        first,
        next,
        leader_epoch: 0,
        tenure: 1,
        count: encoded.count,
        digest: encoded.digest,
        payload_crc: encoded.payload_crc,
    };
    Entry::Block(Block { header, payload: encoded.buffer.into() })
}

/// A closed log with 60 records of orders/3, of which those below 40 are acknowledged and those below 20 delivered;
/// its segments.
fn a_log(dir: &Path) -> Vec<PathBuf> {
    let mut options = wal::Options::new(dir, Arc::new(Metrics::new()));
    options.segment_bytes = 1 << 20;
    let opened = wal::open(Arc::new(Disk), options).unwrap();
    let (partition, tenure) = (ORDERS, 1);
    let owned = Entry::Owned { partition, tenure, first: 0, next: 0, acked_entries: String::new() };
    let topic = Entry::Topic { number: 1, name: "orders".to_string(), id: TopicId::default() };
    opened.log.append_synced(vec![topic, owned]).unwrap();
    let lsn = opened.log.append_synced(vec![block(0, 20)]).unwrap();
    opened.log.append_synced(vec![block(20, 40), block(40, 60)]).unwrap();
    let (through_lsn, keep_from, detail) = (lsn, None, Vec::new());
    let delivered = Entry::Delivered { route: 0, partition, first: 0, next: 20, through_lsn, keep_from, detail };
    opened.log.append_synced(vec![Entry::Confirmed { partition, tenure, next: 40 }, delivered]).unwrap();
    drop(opened.feed);
    opened.log.close().unwrap();
    let mut segments: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    segments.sort();
    segments
}

fn json(args: &[&str]) -> (i32, Value) {
    let (code, out, err) = run(args);
    let value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    (code, value)
}

#[test]
fn a_log_is_listed_shown_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    a_log(dir.path());
    let path = dir.path().to_str().unwrap();
    let (code, list) = json(&["wal", "ls", path, "--output", "json"]);
    let segment = &list["segments"][0];
    assert_eq!((code, segment["segment"].as_u64(), segment["blocks"].as_u64()), (0, Some(1), Some(3)), "{list}");
    assert_eq!(segment["ranges"][0]["next"], 60, "{list}");
    let (code, status) = json(&["wal", "status", path, "--output", "json"]);
    let row = &status["partitions"][0];
    assert_eq!(code, 0);
    assert_eq!((row["topic"].as_str(), row["partition"].as_i64()), (Some("orders"), Some(3)), "{status}");
    let marks = ["admitted", "acked", "delivered", "undelivered_records"].map(|mark| row[mark].as_i64());
    assert_eq!(marks, [60, 40, 20, 40].map(Some), "{status}");
    assert_eq!(status["oldest_undelivered_ms"], 1_700_000_000_000_i64);
    let (code, check) = json(&["wal", "check", path, "--output", "json"]);
    assert_eq!((code, check["ok"].as_bool()), (0, Some(true)), "{check}");
    for command in ["ls", "status", "check", "dump"] {
        let (code, out, err) = run(&["wal", command, path]);
        assert_eq!(code, 0, "{out}{err}");
    }
}

#[test]
fn a_dump_shows_frames_or_records() {
    let dir = tempfile::tempdir().unwrap();
    a_log(dir.path());
    let path = dir.path().to_str().unwrap();
    let (code, dump) = json(&["wal", "dump", path, "--output", "json"]);
    let frames = dump["frames"].as_array().unwrap();
    assert_eq!(code, 0);
    for kind in ["Segment", "State", "Topic", "Owned", "Block", "Confirmed", "Delivered"] {
        assert!(frames.iter().any(|frame| frame["kind"] == kind), "{kind} in {dump}");
    }
    let (_, lines, _) = run(&["wal", "dump", path, "--topic", "orders", "--partition", "3", "--output", "jsonl"]);
    assert!(lines.lines().all(|line| line.contains("\"topic\":\"orders\"")), "{lines}");
    let (_, none, _) = run(&["wal", "dump", path, "--partition", "4"]);
    assert_eq!(none, "");
    let (code, records, _) = run(&["wal", "dump", path, "--records"]);
    let records: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, records.len()), (0, 60));
    assert_eq!((records[59]["offset"].as_i64(), records[59]["value"].as_str()), (Some(59), Some("value 59")));
    let (_, limited, _) = run(&["wal", "dump", path, "--records", "--limit", "5"]);
    assert_eq!(limited.lines().count(), 5);
}

#[test]
fn a_flipped_byte_is_named_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let segment = a_log(dir.path()).swap_remove(0);
    let path = dir.path().to_str().unwrap();
    let (_, dump) = json(&["wal", "dump", path, "--output", "json"]);
    let frames = dump["frames"].as_array().unwrap();
    let second = frames.iter().find(|frame| frame["kind"] == "Block" && frame["first"] == 20).unwrap();
    let (at, lsn) = (second["position"].as_u64().unwrap(), second["lsn"].as_u64());
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[at as usize + 120] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let (code, check) = json(&["wal", "check", path, "--output", "json"]);
    let found = &check["findings"][0];
    assert_eq!((code, check["ok"].as_bool()), (3, Some(false)), "{check}");
    assert_eq!((found["position"].as_u64(), found["lsn"].as_u64()), (Some(at), lsn), "{check}");
    assert_eq!(found["file"].as_str(), segment.to_str());
    assert_eq!((found["topic"].as_str(), found["partition"].as_i64()), (Some("orders"), Some(3)), "{check}");
    assert_eq!((found["first"].as_i64(), found["next"].as_i64()), (Some(20), Some(40)), "{check}");
    let (code, out, err) = run(&["wal", "check", path]);
    assert!(code == 3 && out.contains("orders/3 [20, 40)") && err.contains("DAMAGED"), "{out}{err}");
    assert_eq!(std::fs::read(&segment).unwrap(), bytes);
}

#[test]
fn a_log_that_can_t_be_opened_is_said_to_be_damaged_by_all_who_look() {
    let dir = tempfile::tempdir().unwrap();
    let segment = a_log(dir.path()).swap_remove(0);
    let path = dir.path().to_str().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[..8192].fill(0xa5);
    std::fs::write(&segment, &bytes).unwrap();
    for command in ["ls", "status"] {
        let (code, out, err) = run(&["wal", command, path]);
        assert!(code == 3 && err.contains("the log is damaged"), "{command}: {out}{err}");
        assert_eq!(json(&["wal", command, path, "--output", "json"]).0, 3, "{command}");
    }
    let (code, out, err) = run(&["wal", "repair", path]);
    assert!(code == 3 && err.contains("can't be opened") && err.contains("beyond repair"), "{out}{err}");
    assert!(!err.contains("0 of 0"), "{err}");
}

#[test]
fn repair_refuses_what_would_mean_nothing() {
    let dir = tempfile::tempdir().unwrap();
    a_log(dir.path());
    let path = dir.path().to_str().unwrap();
    for args in [&["--brokers", "127.0.0.1:1"][..], &["-c", "forebay.toml"], &["--set", "log.level=info"]] {
        let (code, out, err) = run(&[&["wal", "repair", path], args].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(err.contains("--from-kafka"), "{err}");
    }
    let from_kafka = ["wal", "repair", path, "--from-kafka", "--brokers", "127.0.0.1:1"];
    assert_eq!(run(&from_kafka).0, 0);
    for args in [["--wal", "elsewhere"], ["--sink", "null"], ["--topic", "orders"], ["--group", "g"]] {
        assert_eq!(run(&[&from_kafka[..], &args].concat()).0, 2, "{args:?}");
    }
}

#[test]
fn a_torn_tail_is_information() {
    let dir = tempfile::tempdir().unwrap();
    let segment = a_log(dir.path()).pop().unwrap();
    let path = dir.path().to_str().unwrap();
    let (_, list) = json(&["wal", "ls", path, "--output", "json"]);
    let end = list["segments"].as_array().unwrap().last().unwrap()["end"].as_u64().unwrap() as usize;
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes.resize(bytes.len().max(end + 4096), 0);
    bytes[end..end + 12].copy_from_slice(b"half a frame");
    std::fs::write(&segment, &bytes).unwrap();
    let (code, check) = json(&["wal", "check", path, "--output", "json"]);
    assert_eq!((code, check["ok"].as_bool()), (0, Some(true)), "{check}");
}

/// Many systems let a process have 1024 files open, unless it asks for more.
#[test]
fn a_log_of_more_segments_than_files_may_be_open_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = wal::Options::new(dir.path(), Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    let log = wal::open(Arc::new(Disk), options).unwrap().log;
    let owned = Entry::Owned { partition: ORDERS, tenure: 1, first: 0, next: 0, acked_entries: String::new() };
    log.append_synced(vec![owned]).unwrap();
    log.append_synced((0..130).map(|at| block(1000 * at, 1000 * (at + 1))).collect()).unwrap();
    log.close().unwrap();
    let path = dir.path().to_str().unwrap();
    let segments = json(&["wal", "ls", path, "--output", "json"]).1["segments"].as_array().unwrap().len();
    assert!(segments > 50, "{segments}");
    let limited = "ulimit -S -n 40; exec \"$0\" wal check \"$1\"";
    let (code, out, err) = outcome(Command::new("sh").args(["-c", limited, env!("CARGO_BIN_EXE_forebay"), path]));
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn what_is_no_log_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for command in ["ls", "status", "dump", "check"] {
        let (code, out, err) = run(&["wal", command, path]);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains("there is no log in"), "{err}");
        let (code, _, err) = run(&["wal", command, "no/such/directory"]);
        assert_eq!((code, err.matches("No such file").count()), (74, 1), "{err}");
    }
    std::fs::write(dir.path().join("holiday.jpg"), "sea").unwrap();
    let (code, _, err) = run(&["wal", "check", path]);
    assert!(code == 78 && err.contains("holiday.jpg"), "{err}");
}
