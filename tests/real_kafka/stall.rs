//! A sink that takes nothing for a while: the source pauses, and nothing is skipped when it goes on.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::common::process::LIMIT;
use crate::common::{Kafka, Run, Scratch, kafka, unique, wait_for};

/// Reads raw values from the pipe in a thread, until it closes.
fn read_lines(pipe: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            if sender.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Waits until partition 1 is committed up to `quiet` and partition 0 has stood still, before its end, for 2 s.
fn wait_stalled(kafka: &Kafka, group: &str, topic: &str, quiet: i64, end: i64) {
    let mut last = None;
    let mut since = Instant::now();
    wait_for("stall", LIMIT, || {
        let committed = kafka.committed(group, topic, 2);
        assert!(committed[0] < Some(end), "the sink was to stall the source before its end");
        if committed != *last.get_or_insert(committed.clone()) {
            (last, since) = (Some(committed.clone()), Instant::now());
        }
        let still = since.elapsed() > Duration::from_secs(2);
        (committed[1] == Some(quiet) && committed[0].is_some() && still).then_some(())
    });
}

/// End of partition, pause, new record, resume: librdkafka counts its end-of-partition message as consumed, so that a
/// plain resume would skip record 20 of partition 1.
#[test]
fn end_pause_produce_resume() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("stall");
    let (topic, group) = (unique("stall"), unique("group"));
    let big = 40_000;
    kafka.create_topic(&topic, 2, &[]);
    let mut producer = crate::common::produce::Numbered::new(kafka, &topic);
    (0..20).for_each(|number| producer.send(1, number, 100));
    producer.flush();
    let run = Run::new(kafka, &topic, &group, scratch.path())
        .set("sink.format=raw")
        .set("wal.segment_bytes=1MiB")
        .set("wal.max_bytes=8MiB")
        .set("memory.budget=32MiB")
        .set("sink.batch_bytes=1MiB")
        .stdout_sink();
    let mut process = run.spawn();
    wait_for("commit of the quiet partition", LIMIT, || {
        (kafka.committed(&group, &topic, 2)[1] == Some(20)).then_some(())
    });
    (0..big).for_each(|number| producer.send(0, number, 1000));
    producer.flush();
    wait_stalled(kafka, &group, &topic, 20, big as i64);
    (20..40).for_each(|number| producer.send(1, number, 100));
    producer.flush();
    assert!(!process.has_ended(), "{}", process.stderr());
    let lines = read_lines(process.pipe.take().unwrap());
    let mut next = [0_u64; 2];
    while next != [big, 40] {
        let line =
            lines.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("nothing came after {next:?}:\n{}", process.stderr()));
        let Some(rest) = line.strip_prefix('p') else {
            continue;
        };
        let mut words = rest.split('-');
        let mut word = || words.next().unwrap().parse::<u64>().unwrap();
        let partition = word() as usize;
        assert_eq!(word(), next[partition], "partition {partition}");
        next[partition] += 1;
    }
    assert_eq!(kafka.generations(&group), 1, "the group has rebalanced");
    process.terminate();
    process.finish(LIMIT).expect(0);
}
