//! Kafka no longer has what comes next: the gap is named exactly, and what lies around it comes once.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::process::{LIMIT, forebay};
use crate::common::verify::lines;
use crate::common::{Forebay, Format, Kafka, Run, Scratch, kafka, unique, wait_for};

/// What `forebay wal` says about the log, as JSON.
fn wal(command: &str, dir: &Path) -> Value {
    let finished = forebay(&["wal", command, "--output", "json", &dir.display().to_string()]);
    finished.expect(0);
    serde_json::from_str(&finished.stdout).unwrap()
}

/// A gap: topic, partition, range, first word of the reason.
type Gap = (String, i64, i64, i64, String);

/// The gaps a log knows of. `wal status` and `wal check` have to say the same; the frames may be in retired segments.
pub fn gaps(dir: &Path) -> Vec<Gap> {
    let status = wal("status", dir);
    let partitions = status["partitions"].as_array().unwrap().iter();
    let each =
        partitions.flat_map(|p| p["gaps"].as_array().unwrap().iter().map(move |gap| row(p, gap, &gap["reason"])));
    let mut found: Vec<_> = each.collect();
    found.sort();
    let check = wal("check", dir);
    let mut same: Vec<_> = check["gaps"].as_array().unwrap().iter().map(|gap| row(gap, gap, &gap["reason"])).collect();
    same.sort();
    assert_eq!(found, same, "wal check");
    found
}

/// The `Gap` frames in the segments that are there. The state has to say the same.
fn frames(dir: &Path) -> Vec<Gap> {
    let dump = wal("dump", dir);
    let frames = dump["frames"].as_array().unwrap().iter().filter(|frame| frame["kind"] == "Gap");
    let mut found: Vec<_> = frames.map(|frame| row(frame, frame, &frame["detail"])).collect();
    found.sort();
    assert_eq!(found, gaps(dir));
    found
}

fn row(partition: &Value, range: &Value, reason: &Value) -> Gap {
    let word = reason.as_str().unwrap().split(':').next().unwrap();
    let topic = partition["topic"].as_str().unwrap().to_owned();
    let number = |value: &Value| value.as_i64().unwrap();
    (topic, number(&partition["partition"]), number(&range["first"]), number(&range["next"]), word.to_owned())
}

pub fn gap(topic: &str, partition: i64, first: i64, next: i64, word: &str) -> Gap {
    (topic.to_owned(), partition, first, next, word.to_owned())
}

/// Exactly these offsets were delivered, in order, each with its own record.
fn assert_delivered(out: &Path, topic: &str, partition: i32, offsets: impl Iterator<Item = i64>) {
    let found = lines(out, topic, partition, Format::Jsonl);
    let expected: Vec<i64> = offsets.collect();
    assert_eq!(found.len(), expected.len(), "records of {topic}/{partition}");
    for (line, offset) in found.iter().zip(expected) {
        let value = line.value.as_deref().unwrap();
        assert!(
            line.offset == offset && value.starts_with(&format!("p{partition}-{offset}")),
            "{line:?}, not {offset}"
        );
    }
}

/// A topic of two partitions, read up to 1,000, filled up to 3,000; partition 0 has lost `[1000, 2000)` since.
fn overtaken(kafka: &Kafka, scratch: &Scratch, name: &str) -> (String, String, Run) {
    let (topic, group) = (unique(name), unique("group"));
    kafka.create_topic(&topic, 2, &[]);
    kafka.fill(&topic, 2, 0, 1000, 100);
    let run = Run::new(kafka, &topic, &group, scratch.path()).short_session();
    assert_eq!(run.drain().number("records"), 2000);
    kafka.fill(&topic, 2, 1000, 3000, 100);
    kafka.delete_records(&topic, 0, 2000);
    (topic, group, run)
}

fn partition_of(status: &Value, topic: &str, partition: i64) -> Option<Value> {
    let rows = status["partitions"].as_array().unwrap().iter();
    rows.clone().find(|row| row["topic"] == topic && row["partition"] == partition).cloned()
}

fn wait_state(process: &Forebay, topic: &str, state: &str) -> Value {
    wait_for(&format!("partition 0 {state}"), LIMIT, || {
        let status = process.status();
        partition_of(&status, topic, 0).filter(|row| row["state"] == state).map(|_| status)
    })
}

pub fn wait_committed(kafka: &Kafka, group: &str, topic: &str, offsets: &[Option<i64>]) {
    wait_for("commits", LIMIT, || (kafka.committed(group, topic, offsets.len() as i32) == offsets).then_some(()));
}

#[test]
fn overtaken_while_stopped_fails() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("gap-fail");
    let (topic, group, run) = overtaken(kafka, &scratch, "gap-fail");
    for _ in 0..2 {
        let failed = run.clone().exit_at_end().finish();
        failed.expect(1);
        failed.says(&format!("{topic}/0: Kafka no longer has offsets [1000, 2000)"));
    }
    assert_eq!(kafka.committed(&group, &topic, 1), [Some(1000)], "nothing is passed over");
    assert_eq!(gaps(run.wal()), []);
    assert_delivered(run.out(), &topic, 0, 0..1000);
}

#[test]
fn overtaken_while_stopped_skips() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("gap-skip");
    let (topic, group, run) = overtaken(kafka, &scratch, "gap-skip");
    let run = run.set("kafka.on_gap=skip");
    let finished = run.drain();
    assert_eq!(finished.number("records"), 3000);
    assert_eq!((finished.number("gaps"), finished.number("gaps_records")), (1, 1000));
    assert_eq!((finished.number("suppressed"), finished.number("lag")), (0, 0));
    finished.says("gap: Kafka no longer has offsets [1000, 2000)");
    let expected = [gap(&topic, 0, 1000, 2000, "retention")];
    assert_eq!(frames(run.wal()), expected);
    assert_eq!(kafka.committed(&group, &topic, 2), [Some(3000), Some(3000)]);
    let again = run.drain();
    assert_eq!((again.number("records"), again.number("gaps")), (0, 0));
    assert_eq!(gaps(run.wal()), expected);
    assert_delivered(run.out(), &topic, 0, (0..1000).chain(2000..3000));
    assert_delivered(run.out(), &topic, 1, 0..3000);
}

/// All records are gone, and none follow: the gap is committed, and the delivered watermark passes it.
#[test]
fn a_gap_at_the_end_leaves_nothing_to_deliver() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("gap-end");
    let (topic, group, run) = overtaken(kafka, &scratch, "gap-end");
    let run = run.set("kafka.on_gap=skip");
    kafka.delete_records(&topic, 0, 3000);
    assert_eq!(run.drain().number("records"), 2000);
    assert_eq!(kafka.committed(&group, &topic, 2), [Some(3000), Some(3000)]);
    assert_eq!(frames(run.wal()), [gap(&topic, 0, 1000, 3000, "retention")]);
    let status = wal("status", run.wal());
    let row = partition_of(&status, &topic, 0).unwrap();
    assert_eq!((&row["admitted"], &row["acked"], &row["delivered"]), (&json!(3000), &json!(3000), &json!(3000)));
    kafka.fill(&topic, 2, 3000, 3100, 100);
    assert_eq!(run.drain().number("records"), 200);
    assert_delivered(run.out(), &topic, 0, (0..1000).chain(3000..3100));
}

#[test]
fn overtaken_while_stopped_pauses_and_the_others_go_on() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("gap-pause");
    let (topic, group, run) = overtaken(kafka, &scratch, "gap-pause");
    let paused = run.clone().set("kafka.on_gap=pause");
    let process = paused.spawn();
    let status = wait_state(&process, &topic, "held");
    let row = partition_of(&status, &topic, 0).unwrap();
    assert!(row["reason"].as_str().unwrap().contains("[1000, 2000)"), "{row}");
    let (code, body) = process.ask("/readyz");
    assert!(code == 503 && body.contains(&format!("{topic}/0")) && body.contains("[1000, 2000)"), "{code} {body}");
    wait_committed(kafka, &group, &topic, &[Some(1000), Some(3000)]);
    process.stop();
    assert_eq!(gaps(run.wal()), [], "nothing was passed over");
    let held = paused.exit_at_end().finish();
    held.expect(1);
    held.says("[1000, 2000)");
    assert_eq!(run.set("kafka.on_gap=skip").drain().number("records"), 1000);
    let out = scratch.join("out");
    assert_delivered(&out, &topic, 0, (0..1000).chain(2000..3000));
    assert_delivered(&out, &topic, 1, 0..3000);
}

/// Overtaken under a living instance that stood still for a moment.
fn overtaken_live(kafka: &Kafka, scratch: &Scratch, policy: &str) -> (String, String, Run, Forebay) {
    const FETCH_WAIT: Duration = Duration::from_millis(100);
    let (topic, group) = (unique(&format!("live-{policy}")), unique("group"));
    kafka.create_topic(&topic, 2, &[]);
    kafka.fill(&topic, 2, 0, 1000, 100);
    let run = Run::new(kafka, &topic, &group, scratch.path())
        .set(&format!("kafka.on_gap={policy}"))
        .set(&format!("kafka.properties.fetch.wait.max.ms={}", FETCH_WAIT.as_millis()));
    let mut process = run.spawn();
    wait_committed(kafka, &group, &topic, &[Some(1000), Some(1000)]);
    process.freeze();
    // The broker answers a fetch that was sent before; it must have done so before there is anything to answer.
    std::thread::sleep(5 * FETCH_WAIT);
    kafka.fill(&topic, 2, 1000, 3000, 100);
    kafka.delete_records(&topic, 0, 2000);
    process.thaw();
    (topic, group, run, process)
}

#[test]
fn overtaken_while_running_fails() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("gap-live-fail");
    let (topic, group, run, process) = overtaken_live(kafka, &scratch, "fail");
    let failed = process.finish(LIMIT);
    failed.expect(1);
    failed.says(&format!("{topic}/0: Kafka no longer has offsets [1000, 2000)"));
    assert_eq!(kafka.committed(&group, &topic, 1), [Some(1000)]);
    assert_eq!(gaps(run.wal()), []);
    // What was durable of the other partition is delivered: its commit and its output agree.
    let other = kafka.committed(&group, &topic, 2)[1].unwrap();
    assert_delivered(run.out(), &topic, 1, 0..other);
}

#[test]
fn overtaken_while_running_skips() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("gap-live-skip");
    let (topic, group, run, process) = overtaken_live(kafka, &scratch, "skip");
    wait_committed(kafka, &group, &topic, &[Some(3000), Some(3000)]);
    let shown = wait_for("the gap", LIMIT, || process.status()["gaps"].get(0).cloned());
    assert_eq!((&shown["topic"], &shown["first"], &shown["next"]), (&json!(topic), &json!(1000), &json!(2000)));
    let (_, metrics) = process.ask("/metrics");
    for line in [
        format!("forebay_lost_ranges_total{{topic=\"{topic}\",partition=\"0\"}} 1"),
        format!("forebay_lost_records_total{{topic=\"{topic}\",partition=\"0\"}} 1000"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    let finished = process.stop();
    assert_eq!((finished.number("gaps"), finished.number("gaps_records")), (1, 1000));
    assert_eq!(frames(run.wal()), [gap(&topic, 0, 1000, 2000, "retention")]);
    assert_delivered(run.out(), &topic, 0, (0..1000).chain(2000..3000));
    assert_delivered(run.out(), &topic, 1, 0..3000);
}

#[test]
fn overtaken_while_running_pauses_and_the_others_go_on() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("gap-live-pause");
    let (topic, group, run, process) = overtaken_live(kafka, &scratch, "pause");
    wait_state(&process, &topic, "held");
    wait_committed(kafka, &group, &topic, &[Some(1000), Some(3000)]);
    kafka.fill(&topic, 2, 3000, 3100, 100);
    wait_committed(kafka, &group, &topic, &[Some(1000), Some(3100)]);
    process.stop();
    assert_eq!(gaps(run.wal()), []);
    let run = run.set("kafka.on_gap=skip");
    assert_eq!(run.drain().number("records"), 1100);
    assert_delivered(run.out(), &topic, 0, (0..1000).chain(2000..3100));
    assert_delivered(run.out(), &topic, 1, 0..3100);
}

/// A gap that is durable, and a kill right behind it: the same gap is not declared again, and nothing is doubled.
#[test]
fn a_kill_behind_a_gap() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("gap-kill");
    let (topic, group, run) = overtaken(kafka, &scratch, "gap-kill");
    let run = run.set("kafka.on_gap=skip");
    let hook = scratch.join("hook");
    let process = run.clone().env("FOREBAY_HOOK_AFTER_SYNC", &hook.display().to_string()).spawn();
    // The log has the gap; the hook holds the commit back for a moment.
    process.wait_says("gap: Kafka no longer has offsets [1000, 2000)");
    process.kill();
    assert_eq!(frames(run.wal()), [gap(&topic, 0, 1000, 2000, "retention")]);
    run.drain();
    assert_eq!(gaps(run.wal()), [gap(&topic, 0, 1000, 2000, "retention")]);
    assert_eq!(kafka.committed(&group, &topic, 2), [Some(3000), Some(3000)]);
    assert_delivered(run.out(), &topic, 0, (0..1000).chain(2000..3000));
    assert_delivered(run.out(), &topic, 1, 0..3000);
}

/// A position beyond Kafka's end, as a truncation leaves it.
fn beyond_the_end(kafka: &Kafka, scratch: &Scratch, name: &str) -> (String, String, Run) {
    let (topic, group) = (unique(name), unique("group"));
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, 1000, 100);
    kafka.commit_by_hand(&group, &topic, 0, 1500);
    let run = Run::new(kafka, &topic, &group, scratch.path()).short_session();
    (topic, group, run)
}

#[test]
fn beyond_the_end_fails_or_pauses() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("beyond-fail");
    let (topic, group, run) = beyond_the_end(kafka, &scratch, "beyond-fail");
    for policy in ["fail", "pause"] {
        let failed = run.clone().set(&format!("kafka.on_gap={policy}")).exit_at_end().finish();
        failed.expect(1);
        failed.says(&format!("{topic}/0: the start 1500 lies beyond Kafka's end 1000: offsets [1000, 1500)"));
    }
    assert_eq!(kafka.committed(&group, &topic, 1), [Some(1500)]);
    // Kafka has the start again.
    kafka.fill(&topic, 1, 1000, 1600, 100);
    assert_eq!(run.drain().number("records"), 100);
    assert_delivered(run.out(), &topic, 0, 1500..1600);
}

#[test]
fn beyond_the_end_skips_by_waiting() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("beyond-skip");
    let (topic, group, run) = beyond_the_end(kafka, &scratch, "beyond-skip");
    let run = run.set("kafka.on_gap=skip");
    let declared = [gap(&topic, 0, 1000, 1500, "truncation")];
    let drained = run.drain();
    assert_eq!((drained.number("records"), drained.number("gaps_records")), (0, 500));
    assert_eq!(frames(run.wal()), declared);
    let process = run.spawn();
    let status = wait_state(&process, &topic, "paused");
    assert!(status.to_string().contains("waits until Kafka's end reaches offset 1500"), "{status}");
    kafka.fill(&topic, 1, 1000, 2000, 100);
    wait_committed(kafka, &group, &topic, &[Some(2000)]);
    process.stop();
    assert_eq!(gaps(run.wal()), declared, "declared once");
    assert_delivered(run.out(), &topic, 0, 1500..2000);
}

/// A topic that is created again while part of it is unread: the log is full, the sink takes nothing.
struct Recreated {
    topic: String,
    run: Run,
    process: Forebay,
    old: u64,
}

const OLD: u64 = 4000;
const NEW: u64 = 300;

fn recreated(kafka: &Kafka, scratch: &Scratch, policy: &str) -> Recreated {
    let (topic, group) = (unique(&format!("again-{policy}")), unique("group"));
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, OLD, 10_000);
    let run = Run::new(kafka, &topic, &group, scratch.path())
        .set("sink.format=raw")
        .set("wal.segment_bytes=1MiB")
        .set("wal.max_bytes=8MiB")
        .set("memory.budget=32MiB")
        .set("sink.batch_bytes=1MiB")
        .set("kafka.properties.topic.metadata.refresh.interval.ms=500")
        .stdout_sink();
    let policed = run.clone().set(&format!("kafka.on_gap={policy}"));
    let process = policed.spawn();
    let (mut last, mut since) = (None, Instant::now());
    wait_for("stall", LIMIT, || {
        let committed = kafka.committed(&group, &topic, 1)[0];
        assert!(committed < Some(OLD as i64), "the sink was to stall the source");
        if committed != last {
            (last, since) = (committed, Instant::now());
        }
        (committed.is_some() && since.elapsed() > Duration::from_secs(2)).then_some(())
    });
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, NEW, 50);
    Recreated { topic, run, process, old: OLD }
}

/// Reads the pipe to its end in the background.
fn read(process: &mut Forebay) -> std::sync::mpsc::Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let pipe = process.pipe.take().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            if sender.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The number of a record `p0-<number>[-…]`, and whether it is of the topic's first life.
fn number(line: &str) -> Option<(u64, bool)> {
    let digits: String = line.strip_prefix("p0-")?.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, line.len() > 1000))
}

/// Takes lines until there are `new` of the new life; they are counted from 0 in both lives.
fn take(lines: &std::sync::mpsc::Receiver<String>, old: &mut u64, new: u64, process: &Forebay) {
    let mut next = 0;
    while next < new {
        let line = lines.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("{old} {next}:\n{}", process.stderr()));
        let Some((found, is_old)) = number(&line) else { continue };
        let expected = if is_old { &mut *old } else { &mut next };
        assert_eq!(found, *expected, "old: {is_old}");
        *expected += 1;
    }
}

#[test]
fn created_again_with_a_rest_unread_skips() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("again-skip");
    let Recreated { topic, run, mut process, old } = recreated(kafka, &scratch, "skip");
    let lines = read(&mut process);
    let mut read = 0;
    take(&lines, &mut read, NEW, &process);
    assert!(0 < read && read < old, "{read}");
    process.terminate();
    let finished = process.finish(LIMIT);
    finished.expect(0);
    finished.says(&format!("deleted and created again before offsets [{read}, {old}) were read"));
    assert_eq!(frames(run.wal()), [gap(&topic, 0, read as i64, old as i64, "recreation")]);
}

/// The range is known to the next process too, though nobody can ask Kafka for it any more.
#[test]
fn created_again_with_a_rest_unread_fails_until_told_otherwise() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("again-fail");
    let Recreated { topic, run, mut process, old } = recreated(kafka, &scratch, "fail");
    let lines = read(&mut process);
    let failed = process.finish(LIMIT);
    failed.expect(1);
    let mut read = lines.iter().filter_map(|line| number(&line)).count() as u64;
    let words = format!("{topic}/0: the topic was deleted and created again before offsets [{read}, {old}) were read");
    failed.says(&words);
    let declared = [gap(&topic, 0, read as i64, old as i64, "recreation")];
    assert_eq!(frames(run.wal()), declared);
    let mut again = run.clone().set("kafka.on_gap=fail").spawn();
    let lines = self::read(&mut again);
    let failed = again.finish(LIMIT);
    failed.expect(1);
    failed.says(&words);
    assert_eq!(lines.iter().filter(|line| number(line).is_some()).count(), 0);
    let mut going = run.clone().set("kafka.on_gap=skip").spawn();
    let lines = self::read(&mut going);
    take(&lines, &mut read, NEW, &going);
    going.terminate();
    going.finish(LIMIT).expect(0);
    assert_eq!(gaps(run.wal()), declared, "declared once");
}

#[test]
fn created_again_with_a_rest_unread_pauses() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("again-pause");
    let Recreated { topic, run, mut process, old } = recreated(kafka, &scratch, "pause");
    let lines = read(&mut process);
    let status = wait_state(&process, &topic, "held");
    process.terminate();
    process.finish(LIMIT).expect(0);
    let read = lines.iter().filter_map(|line| number(&line)).count() as u64;
    assert!(status.to_string().contains(&format!("[{read}, {old})")), "{read}: {status}");
    assert_eq!(frames(run.wal()), [gap(&topic, 0, read as i64, old as i64, "recreation")]);
}

/// Nobody saw the end of the topic's former life: the log says that it is not known, and the run goes on.
#[test]
fn created_again_while_stopped_is_an_event_without_a_range() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("again-stopped");
    let topic = unique("again-stopped");
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, 1000, 100);
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path());
    run.drain();
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, 600, 50);
    let finished = run.drain();
    assert_eq!((finished.number("records"), finished.number("gaps"), finished.number("gaps_records")), (600, 1, 0));
    finished.says("whether offsets from 1000 on existed is not known");
    assert_eq!(frames(run.wal()), [gap(&topic, 0, 1000, 1000, "recreation")]);
    assert_delivered(run.out(), &format!("{topic}~1"), 0, 0..600);
}

/// Retention comes nearer while the source stands still: there is a warning, with a time, before anything is lost.
#[test]
fn retention_comes_nearer() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("nearer");
    let (topic, group) = (unique("nearer"), unique("group"));
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, 4000, 10_000);
    let run = Run::new(kafka, &topic, &group, scratch.path())
        .set("sink.format=raw")
        .set("wal.segment_bytes=1MiB")
        .set("wal.max_bytes=8MiB")
        .set("memory.budget=32MiB")
        .set("sink.batch_bytes=1MiB")
        .set("kafka.warn_time_to_loss=1m")
        .stdout_sink();
    let mut process = run.spawn();
    let stalled = wait_for("stall", LIMIT, || {
        let row = partition_of(&process.status(), &topic, 0)?;
        (row["state"] == "paused").then(|| row["admitted"].as_i64().unwrap())
    });
    // Slow steps, none of which reaches the position.
    let mut low = 0;
    let shown = wait_for("warning", LIMIT, || {
        low = (low + 20).min(stalled - 1);
        kafka.delete_records(&topic, 0, low);
        let row = partition_of(&process.status(), &topic, 0)?;
        std::thread::sleep(Duration::from_millis(500));
        let said = process.stderr().contains("Kafka will drop unread records in about");
        row["time_to_loss_seconds"].as_u64().filter(|_| said)
    });
    assert!(shown < 60 * 60, "{shown}");
    let (_, metrics) = process.ask("/metrics");
    assert!(metrics.contains(&format!("forebay_time_to_loss_seconds{{topic=\"{topic}\"")), "{metrics}");
    let lines = read(&mut process);
    let mut next = 0;
    while next < 4000 {
        let line = lines.recv_timeout(LIMIT).unwrap();
        if let Some((found, _)) = number(&line) {
            assert_eq!(found, next);
            next += 1;
        }
    }
    process.terminate();
    process.finish(LIMIT).expect(0);
    assert_eq!(gaps(run.wal()), []);
}
