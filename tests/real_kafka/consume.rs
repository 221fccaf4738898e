//! A topic is consumed once, whatever is run again afterwards.

use crate::common::verify::snapshot;
use crate::common::{Format, Kafka, Run, Scratch, delivered, kafka, unique};

const PARTITIONS: i32 = 4;
const EACH: u64 = 25_000;

/// A filled topic and a run of it that has ended at its end.
fn consumed(kafka: &Kafka, scratch: &Scratch, format: Format) -> (String, String, Run) {
    let (topic, group) = (unique("consume"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]);
    kafka.fill(&topic, PARTITIONS, 0, EACH, 100);
    let run = Run::new(kafka, &topic, &group, scratch.path()).set(format.setting()).short_session();
    let finished = run.drain();
    let all = EACH * PARTITIONS as u64;
    assert_eq!(finished.number("records"), all);
    assert_eq!(finished.number("suppressed"), 0);
    assert_eq!(finished.number("lag"), 0);
    assert!(finished.number("bytes") >= all * 100);
    assert!(finished.number("fsyncs") > 0);
    delivered(&[run.out()], &topic, PARTITIONS, EACH, format).expect_once();
    let ends = vec![Some(EACH as i64); PARTITIONS as usize];
    assert_eq!(kafka.committed(&group, &topic, PARTITIONS), ends);
    (topic, group, run)
}

fn assert_nothing_new(run: &Run) {
    let before = snapshot(run.out());
    let again = run.drain();
    assert_eq!(again.number("records"), 0);
    assert_eq!(again.number("suppressed"), 0);
    assert!(snapshot(run.out()) == before, "the output has changed");
}

#[test]
fn four_partitions_to_json_lines() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("jsonl");
    let (topic, group, run) = consumed(kafka, &scratch, Format::Jsonl);
    assert_nothing_new(&run);
    kafka.delete_group(&group);
    assert_nothing_new(&run);
    let ends = vec![Some(EACH as i64); PARTITIONS as usize];
    assert_eq!(kafka.committed(&group, &topic, PARTITIONS), ends, "committed again");
}

#[test]
fn four_partitions_raw() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("raw");
    let (_, _, run) = consumed(kafka, &scratch, Format::Raw);
    assert_nothing_new(&run);
}

/// New records, and only they, come in the next run; also when the group's commits were deleted in between.
#[test]
fn the_next_run_goes_on() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("goes-on");
    let (topic, group, run) = consumed(kafka, &scratch, Format::Jsonl);
    kafka.fill(&topic, PARTITIONS, EACH, EACH + 1000, 100);
    assert_eq!(run.drain().number("records"), 4000);
    kafka.delete_group(&group);
    kafka.fill(&topic, PARTITIONS, EACH + 1000, EACH + 1500, 100);
    assert_eq!(run.drain().number("records"), 2000);
    delivered(&[run.out()], &topic, PARTITIONS, EACH + 1500, Format::Jsonl).expect_once();
}

#[test]
fn an_empty_topic_ends_at_once() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("empty");
    let topic = unique("empty");
    kafka.create_topic(&topic, PARTITIONS, &[]);
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path());
    assert_eq!(run.drain().number("records"), 0);
    // One partition filled, three empty.
    kafka.fill(&topic, 1, 0, 10, 0);
    assert_eq!(run.drain().number("records"), 10);
    delivered(&[run.out()], &topic, 1, 10, Format::Jsonl).expect_once();
}

#[test]
fn two_receivers_share_one_log() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("receivers");
    let (topic, group) = (unique("receivers"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]);
    kafka.fill(&topic, PARTITIONS, 0, EACH, 100);
    let run = Run::new(kafka, &topic, &group, scratch.path()).set("kafka.receivers=2");
    assert_eq!(run.drain().number("records"), EACH * PARTITIONS as u64);
    assert_nothing_new(&run);
    // One receiver instead of two: the same log, other partitions for whoever is there.
    let one = Run::new(kafka, &topic, &group, scratch.path());
    kafka.fill(&topic, PARTITIONS, EACH, EACH + 500, 100);
    assert_eq!(one.drain().number("records"), 2000);
    delivered(&[run.out()], &topic, PARTITIONS, EACH + 500, Format::Jsonl).expect_once();
}

/// SIGTERM drains: what was fetched is delivered, files are closed under their final names, exit code 0.
#[test]
fn a_clean_stop_closes_the_files() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("stop");
    let (topic, group) = (unique("stop"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]);
    kafka.fill(&topic, PARTITIONS, 0, EACH, 100);
    let run = Run::new(kafka, &topic, &group, scratch.path());
    let process = run.spawn();
    crate::common::wait_for("commit", crate::common::process::LIMIT, || {
        let committed = kafka.committed(&group, &topic, PARTITIONS);
        committed.iter().any(Option::is_some).then_some(())
    });
    process.stop();
    let open = snapshot(run.out()).into_keys();
    let open: Vec<_> = open.filter(|path| path.to_string_lossy().ends_with(".part")).collect();
    assert!(open.is_empty(), "still open: {open:?}");
    run.drain();
    delivered(&[run.out()], &topic, PARTITIONS, EACH, Format::Jsonl).expect_once();
}
