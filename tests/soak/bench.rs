//! Forebay next to librdkafka's bare consumption of the same topic, turn by turn: medians and their ratios. Receiver mode,
//! direct mode, receiver mode without an output and with JSON lines; and what the disk can write in the same rounds.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::process::{FOREBAY, forebay as forebay_says};
use crate::common::{Kafka, Run, Scratch, env_number, unique};
use crate::{asked, report};

const PARTITIONS: i32 = 4;

/// One row of the comparison.
struct Case {
    records: u64,
    bytes: usize,
}

const CASES: [Case; 2] = [Case { records: 8_000_000, bytes: 100 }, Case { records: 1_500_000, bytes: 1024 }];

#[test]
fn bench() {
    let Some(kafka) = asked("bench") else { return };
    let runs = env_number("FOREBAY_RUNS", 5) as usize;
    let percent = env_number("FOREBAY_PERCENT", 100);
    for case in CASES {
        let each = case.records * percent / 100 / PARTITIONS as u64;
        compare(kafka, each, case.bytes, runs);
    }
}

fn compare(kafka: &Kafka, each: u64, bytes: usize, runs: usize) {
    let topic = unique("bench");
    kafka.create_topic(&topic, PARTITIONS, &[]);
    kafka.fill(&topic, PARTITIONS, 0, each, bytes);
    // Once for nothing: both then read from the page cache.
    consume(kafka, &topic);
    let (mut bare, mut receiver, mut direct, mut null) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut jsonl, mut disks) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        disks.push(disk());
        bare.push(consume(kafka, &topic));
        receiver.push(forebay(kafka, &topic, |run| run));
        direct.push(forebay(kafka, &topic, |run| run.set("mode=direct")));
        null.push(forebay(kafka, &topic, Run::null_sink));
        jsonl.push(forebay(kafka, &topic, |run| run.set("sink.format=jsonl")));
    }
    kafka.delete_topic(&topic);
    let records = each * PARTITIONS as u64;
    for summary in [&bare, &receiver, &direct, &null, &jsonl].into_iter().flatten() {
        assert_eq!(summary["records"].as_u64(), Some(records), "{summary}");
    }
    let row = |of: &[Value]| {
        json!({"records_per_s": rate(of), "cpu_us_per_record": cpu(of),
            "rss_mib": median(of, |v| number(v, "rss_peak_bytes") / 1_048_576.0)})
    };
    let (growing, written) = (mb_per_s(&disks, "growing"), mb_per_s(&disks, "written"));
    report(
        "bench",
        json!({
            "records": records, "record_bytes": bytes, "runs": runs,
            "consume": row(&bare), "forebay": row(&receiver), "direct": row(&direct), "null": row(&null),
            "jsonl": row(&jsonl), "disk_mb_per_s": {"end of a file": growing, "over itself": written},
            "ratio": rate(&receiver) / rate(&bare), "cpu_ratio": cpu(&receiver) / cpu(&bare),
            "direct_ratio": rate(&receiver) / rate(&direct), "null_ratio": rate(&null) / rate(&bare),
            "jsonl_ratio": rate(&jsonl) / rate(&receiver),
            "half_disk_ratio": rate(&receiver) / rate(&direct).min(growing / 2.0 * 1e6 / bytes as f64),
        }),
    );
}

fn rate(of: &[Value]) -> f64 {
    median(of, |v| number(v, "records") / number(v, "seconds"))
}

fn cpu(of: &[Value]) -> f64 {
    median(of, |v| number(v, "cpu_seconds") / number(v, "records") * 1e6)
}

/// What `forebay bench disk` says of the disk that the logs and outputs are on.
fn disk() -> Value {
    let scratch = Scratch::new("disk");
    let finished = forebay_says(&["bench", "disk", "--output", "json", "--dir", &scratch.path().display().to_string()]);
    finished.expect(0);
    serde_json::from_str(&finished.stdout).unwrap()
}

/// Large writes, each with its sync.
fn mb_per_s(disks: &[Value], place: &str) -> f64 {
    let large = |disk: &Value| {
        let figures = disk["figures"].as_array().unwrap().iter();
        let of_place = figures.filter(|figure| figure["place"] == place);
        number(of_place.max_by_key(|figure| figure["bytes"].as_u64()).unwrap(), "mb_per_s")
    };
    median(disks, large)
}

/// `forebay run` with a fresh group, log and output.
fn forebay(kafka: &Kafka, topic: &str, change: impl Fn(Run) -> Run) -> Value {
    let scratch = Scratch::new("bench");
    let run = Run::new(kafka, topic, &unique("group"), scratch.path()).set("sink.format=raw");
    let summary = change(run).drain().summary();
    eprintln!("forebay {summary}");
    summary
}

/// `examples/consume`, which Cargo builds beside the tests.
fn consume(kafka: &Kafka, topic: &str) -> Value {
    let example = Path::new(FOREBAY).with_file_name("examples/consume");
    let output = Command::new(&example)
        .args([kafka.brokers(), topic])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", example.display()));
    assert!(output.status.success(), "consume: {}", output.status);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    eprintln!("consume {summary}");
    summary
}

fn number(summary: &Value, key: &str) -> f64 {
    summary[key].as_f64().unwrap_or_else(|| panic!("{key} of {summary}"))
}

fn median(of: &[Value], value: impl Fn(&Value) -> f64) -> f64 {
    let mut values: Vec<f64> = of.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let middle = values[values.len() / 2];
    (middle * 1000.0).round() / 1000.0
}
