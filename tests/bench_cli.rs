//! `forebay bench` from outside: its document, its ratios, its refusals, and that it leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::panic)]

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn bench(args: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.arg("bench").args(args).current_dir(dir).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOREBAY_") {
            command.env_remove(name);
        }
    }
    command
}

fn outcome(args: &[&str], dir: &Path) -> (i32, String, String) {
    let Output { status, stdout, stderr } = bench(args, dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} of {value}"))
}

fn count(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} of {value}"))
}

/// The median of the runs of a mode, from the runs alone.
fn median(report: &Value, mode: &str, value: impl Fn(&Value) -> f64) -> f64 {
    let runs = report["runs"].as_array().unwrap().iter().filter(|run| run["mode"] == mode);
    let mut values: Vec<f64> = runs.map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn a_small_run_gives_the_whole_document() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "--modes",
        "consume,receiver",
        "--records",
        "40000",
        "--partitions",
        "2",
        "--runs",
        "3",
        "--latency-rate",
        "2000",
        "--latency-seconds",
        "1",
        "--output",
        "json",
        "--svg",
        "chart.svg",
        "--html",
        "page.html",
    ];
    let (code, out, err) = outcome(&args, dir.path());
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["schema"], "forebay.bench/1");
    let runs = report["runs"].as_array().unwrap();
    let order: Vec<_> = runs.iter().map(|run| run["mode"].as_str().unwrap()).collect();
    assert_eq!(order, ["consume", "receiver", "consume", "receiver", "consume", "receiver"]);
    for run in runs {
        for key in ["records_per_s", "cpu_seconds", "rss_peak_bytes", "mb_per_s", "cpu_seconds_per_million"] {
            assert!(number(run, key) > 0.0, "{key} of {run}");
        }
        assert_eq!(count(run, "records"), 40_000 * count(run, "passes"), "{run}");
        assert_eq!(run["too_short"], true, "40,000 records take no three seconds: {run}");
        let delivery = &run["delivery"];
        assert_eq!(
            (number(delivery, "lost"), number(delivery, "doubled"), number(delivery, "misplaced")),
            (0., 0., 0.)
        );
        let checked = if run["mode"] == "receiver" { "each-record" } else { "count" };
        assert_eq!(delivery["checked"], checked);
        assert_eq!(number(run, "fsyncs") > 0.0, run["mode"] == "receiver", "{run}");
    }
    let rate = |mode| median(&report, mode, |run| number(run, "records_per_s"));
    let cpu = |mode| median(&report, mode, |run| number(run, "cpu_seconds") / number(run, "records"));
    let ratios = &report["ratios"];
    assert!((number(ratios, "receiver_to_consume") - rate("receiver") / rate("consume")).abs() < 1e-3, "{ratios}");
    let cpu_ratio = cpu("receiver") / cpu("consume");
    assert!((number(ratios, "cpu_receiver_to_consume") / cpu_ratio - 1.0).abs() < 0.02, "{cpu_ratio} {ratios}");
    assert_eq!(ratios["receiver_to_direct"], Value::Null);
    for key in ["cores", "memory_bytes", "free_bytes"] {
        assert!(number(&report["machine"], key) > 0.0);
    }
    assert!(report["machine"]["volume"]["file_system"].is_string());
    for latency in report["latency"].as_array().unwrap() {
        assert!(number(latency, "p50_us") > 0.0 && number(latency, "p99_us") >= number(latency, "p50_us"), "{latency}");
        assert!((1900.0..2100.0).contains(&number(latency, "records")), "{latency}");
        assert_eq!(["lost", "doubled"].map(|key| count(&latency["delivery"], key)), [0, 0]);
    }
    assert_eq!(names(dir.path()), ["chart.svg", "page.html"], "nothing is left behind");
    let svg = std::fs::read_to_string(dir.path().join("chart.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("receiver"), "{svg}");
    let page = std::fs::read_to_string(dir.path().join("page.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("receiver / consume") && !page.contains("http-equiv"));
}

#[test]
fn a_sweep_has_its_points_and_a_table_says_what_is_too_short() {
    let dir = tempfile::tempdir().unwrap();
    let args = "--modes receiver --records 8000 --runs 1 --latency-rate 0 --sink jsonl --sweep record-bytes=50,200";
    let (code, out, err) = outcome(&args.split(' ').collect::<Vec<_>>(), dir.path());
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("8,000 records of 50 B") && out.contains("8,000 records of 200 B"), "{out}");
    assert!(out.contains("too short to judge") && out.contains(" * "), "{out}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_mode_that_fails_is_named_with_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let args = "--modes receiver --records 1000 --latency-rate 0 --set sink.formt=raw";
    let (code, out, err) = outcome(&args.split(' ').collect::<Vec<_>>(), dir.path());
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("the mode receiver ended with") && err.contains("did you mean sink.format?"), "{err}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn wrong_arguments_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    for (args, words) in [
        ("--records 1000000 --partitions 2", "--partitions"),
        ("--sweep speed=1", "record-bytes"),
        ("--modes fast", "receiver-memory"),
        ("--brokers 127.0.0.1:9", "--topic"),
        ("--svg missing/chart.svg", "create it first"),
        ("--set wal.durability", "KEY=VALUE"),
    ] {
        let (code, out, err) = outcome(&args.split(' ').collect::<Vec<_>>(), dir.path());
        assert_eq!((code, out.as_str()), (2, ""), "{args}: {err}");
        assert!(err.contains(words), "{args}: {err}");
    }
}

#[test]
fn the_disk_is_measured_and_memory_is_doubted() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = outcome(&["disk", "--output", "json"], dir.path());
    assert_eq!(code, 0, "{err}");
    let disk: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(disk["schema"], "forebay.bench.disk/1");
    let figures = disk["figures"].as_array().unwrap();
    let places = |place| figures.iter().filter(|figure| figure["place"] == place).count();
    assert_eq!((places("growing"), places("written")), (4, 4));
    assert!(figures.iter().all(|figure| number(figure, "p99_us") >= number(figure, "p50_us")), "{out}");
    assert!(names(dir.path()).is_empty());
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        let (code, out, err) = outcome(&["disk", "--dir", "/dev/shm", "--output", "json"], dir.path());
        let disk: Value = serde_json::from_str(&out).unwrap();
        if disk["volume"]["file_system"] == "tmpfs" {
            assert_eq!((code, &disk["believable"]), (0, &Value::Bool(false)));
            assert!(err.contains("survives a power cut"), "{err}");
        }
    }
}

/// The process's children that have not ended.
fn children(of: &Child) -> Vec<i32> {
    let path = format!("/proc/{0}/task/{0}/children", of.id());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[test]
fn interrupted_it_ends_its_children_and_removes_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let args = "--modes receiver --records 90000 --runs 500 --latency-rate 0";
    let mut command = bench(&args.split(' ').collect::<Vec<_>>(), dir.path());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    let mut measured = Vec::new();
    while measured.is_empty() {
        assert!(Instant::now() < until && process.try_wait().unwrap().is_none(), "no run was started");
        std::thread::sleep(Duration::from_millis(2));
        measured = children(&process);
    }
    kill_process(Pid::from_child(&process), Signal::INT).unwrap();
    let Output { status, stderr, .. } = process.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(130));
    assert!(String::from_utf8_lossy(&stderr).contains("stopped"));
    for child in measured {
        assert!(test_kill_process(Pid::from_raw(child).unwrap()).is_err(), "{child} still runs");
    }
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
}
