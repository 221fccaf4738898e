//! Direct mode: each record once, without its data in the log; plans are run again as they were; the mode may change at
//! every restart.

use crate::common::process::{LIMIT, forebay};
use crate::common::verify::snapshot;
use crate::common::{Dice, Format, Kafka, Load, Run, Scratch, delivered, kafka, unique, wait_for};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const PARTITIONS: i32 = 4;
const EACH: u64 = 25_000;

fn filled(kafka: &Kafka, scratch: &Scratch) -> (String, String, Run) {
    let (topic, group) = (unique("direct"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]);
    kafka.fill(&topic, PARTITIONS, 0, EACH, 100);
    let run = Run::new(kafka, &topic, &group, scratch.path()).short_session();
    (topic, group, run)
}

#[test]
fn a_topic_is_delivered_and_never_logged() {
    let Some(kafka) = kafka() else { return };
    for format in [Format::Jsonl, Format::Raw] {
        let scratch = Scratch::new("direct");
        let (topic, group, run) = filled(kafka, &scratch);
        let run = run.set("mode=direct").set(format.setting());
        let finished = run.drain();
        assert_eq!(finished.number("records"), EACH * PARTITIONS as u64);
        assert_eq!((finished.number("suppressed"), finished.number("lag")), (0, 0));
        let logged = finished.number("wal_bytes_appended");
        assert!(logged * 10 < finished.number("bytes"), "{logged} bytes in the log");
        delivered(&[run.out()], &topic, PARTITIONS, EACH, format).expect_once();
        let ends = vec![Some(EACH as i64); PARTITIONS as usize];
        assert_eq!(kafka.committed(&group, &topic, PARTITIONS), ends);
        forebay(&["wal", "check", &run.wal().display().to_string()]).expect(0);
        let before = snapshot(run.out());
        kafka.delete_group(&group);
        let again = run.drain();
        assert_eq!((again.number("records"), again.number("suppressed")), (0, 0));
        assert!(snapshot(run.out()) == before, "the output has changed");
        assert_eq!(kafka.committed(&group, &topic, PARTITIONS), ends, "committed again");
    }
}

/// Under live load, killed at random and started in the other mode.
#[test]
fn the_mode_changes_at_every_restart() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("modes");
    let (topic, group) = (unique("modes"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]);
    let run = Run::new(kafka, &topic, &group, scratch.path()).set(Format::Jsonl.setting());
    let load = Load::start(kafka, &topic, PARTITIONS, 0, 8_000, 100);
    let mut dice = Dice::new("modes");
    for round in 0..8 {
        let mode = if round % 2 == 0 { "mode=receiver" } else { "mode=direct" };
        let process = run.clone().set(mode).spawn();
        std::thread::sleep(dice.millis(100, 1500));
        if dice.range(0, 3) == 0 {
            process.stop();
        } else {
            process.kill();
        }
    }
    let next = load.stop();
    run.clone().set("mode=direct").drain();
    run.clone().set("mode=receiver").drain();
    delivered(&[run.out()], &topic, PARTITIONS, next, Format::Jsonl).expect_once();
    forebay(&["wal", "check", &run.wal().display().to_string()]).expect(0);
}

/// Batch, partition and range of what is planned and not delivered.
fn open_plans(run: &Run) -> BTreeSet<(i64, i64, i64, u64)> {
    let status = forebay(&["wal", "status", &run.wal().display().to_string(), "--output", "json"]);
    status.expect(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let mut found = BTreeSet::new();
    for plan in status["plans"].as_array().unwrap() {
        for range in plan["ranges"].as_array().unwrap() {
            let number = |key: &str| range[key].as_i64().unwrap();
            found.insert((number("partition"), number("from"), number("until"), plan["batch"].as_u64().unwrap()));
        }
    }
    found
}

/// Killed while batches are between write and receipt, again and again: what was planned once is delivered under the
/// same batch id and in the same range, however often the process is killed, and no other plan takes its place.
#[test]
fn an_open_plan_is_run_again_as_it_was() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("again");
    let (topic, _, run) = filled(kafka, &scratch);
    let run =
        run.set("mode=direct").set(Format::Raw.setting()).set("direct.batch_bytes=64KiB").set("sink.batch_bytes=64KiB");
    let signal = scratch.join("written");
    let hooked = run.clone().env("FOREBAY_HOOK_AFTER_WRITE", &signal.display().to_string());
    let mut seen = BTreeSet::new();
    for writes in [1, 2, 1, 3, 1] {
        std::fs::write(&signal, "").unwrap();
        let process = hooked.spawn();
        wait_for("writes of the sink", LIMIT, || {
            (std::fs::read_to_string(&signal).unwrap().lines().count() >= writes).then_some(())
        });
        process.kill();
        let open = open_plans(&run);
        assert!(!open.is_empty(), "killed before its receipt, so a plan is open");
        seen.extend(open);
    }
    run.drain().says("open plans are run again");
    assert_eq!(open_plans(&run), BTreeSet::new());
    let mut end = BTreeMap::new();
    for (partition, from, until, batch) in seen {
        let last: i64 = end.insert(partition, until).unwrap_or(0);
        assert!(from >= last, "partition {partition}: [{from}, {until}) of batch {batch} was planned in another way");
    }
    delivered(&[run.out()], &topic, PARTITIONS, EACH, Format::Raw).expect_once();
}

/// What is at the sink when its partition is lost can't be taken back: it is delivered, and committed by the next tenure.
#[test]
fn what_is_at_the_sink_when_its_partition_is_lost_is_committed_when_it_is_delivered() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("at-the-sink");
    let (topic, group) = (unique("at-the-sink"), unique("group"));
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, 2_000, 200);
    let run = Run::new(kafka, &topic, &group, scratch.path()).set("mode=direct").set("sink.format=raw");
    let run = run.short_session();
    let mut process = run.clone().stdout_sink().spawn();
    wait_for("a plan", LIMIT, || {
        let is_logged = kafka.members(&group) == 1 && run.wal().join("LOCK").exists();
        (is_logged && !open_plans(&run).is_empty()).then_some(())
    });
    process.freeze();
    wait_for("the end of the session", LIMIT, || (kafka.members(&group) == 0).then_some(()));
    process.thaw();
    process.wait_says("planned blocks are still being delivered");
    // Time enough to take for withdrawn what can't be: that would be done after a second.
    std::thread::sleep(Duration::from_millis(2500));
    let mut pipe = process.pipe.take().unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut pipe, &mut std::io::sink()).unwrap());
    wait_for("the commit of what was delivered", LIMIT, || {
        (kafka.committed(&group, &topic, 1) == [Some(2_000)]).then_some(())
    });
    process.terminate();
    process.finish(LIMIT).expect(0);
    reader.join().unwrap();
}
