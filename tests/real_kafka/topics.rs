//! Topics with holes, markers at their end, and a second life.

use crate::common::process::LIMIT;
use crate::common::produce::Numbered;
use crate::common::verify::{Line, files, lines};
use crate::common::{Format, Kafka, Run, Scratch, delivered, kafka, unique, wait_for};

/// The output is what a plain consumer reads, offset by offset.
fn assert_same_as_plain_consumer(kafka: &Kafka, run: &Run, topic: &str, partitions: i32) -> u64 {
    let mut records = 0;
    for (partition, truth) in (0..).zip(kafka.read_all(topic, partitions)) {
        let expected: Vec<Line> =
            truth.into_iter().map(|t| Line { offset: t.offset, key: t.key, value: t.value }).collect();
        records += expected.len() as u64;
        let found = lines(run.out(), topic, partition, Format::Jsonl);
        assert!(found == expected, "partition {partition}: {} records, not {}", found.len(), expected.len());
    }
    records
}

#[test]
fn compacted_topic() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("compacted");
    let topic = unique("compacted");
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "200"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "0"),
    ];
    kafka.create_topic(&topic, 2, &settings);
    let producer = Numbered::new(kafka, &topic);
    for round in 0..20 {
        for key in 0..50 {
            let (key, value) = (format!("k{key}"), format!("v{round}"));
            // Every seventh round deletes: a record without a value.
            let value = (round % 7 != 6).then_some(value.as_str());
            producer.send_pair(round % 2, Some(&key), value);
        }
        producer.flush();
        std::thread::sleep(std::time::Duration::from_millis(60));
    }
    let compacted = wait_for("compaction", LIMIT, || {
        // A record of its own makes the broker roll the segment, which only then can be compacted.
        producer.send_pair(0, Some("roll"), Some("x"));
        producer.send_pair(1, Some("roll"), Some("x"));
        producer.flush();
        std::thread::sleep(std::time::Duration::from_millis(250));
        let now = kafka.read_all(&topic, 2);
        let holes = now.iter().all(|p| p.windows(2).any(|w| w[1].offset > w[0].offset + 1));
        holes.then(|| now.iter().map(Vec::len).sum::<usize>())
    });
    assert!(compacted < 1000);
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path());
    let finished = run.drain();
    let records = assert_same_as_plain_consumer(kafka, &run, &topic, 2);
    assert_eq!(finished.number("records"), records);
    assert_eq!(run.drain().number("records"), 0);
}

/// Aborted records do not come, markers at the end do not keep the run from ending, and the commit is beyond them.
#[test]
fn transactional_topic() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("transactions");
    let (topic, group) = (unique("transactions"), unique("group"));
    kafka.create_topic(&topic, 3, &[]);
    let values = |name: &str| (0..300).map(|n| format!("{name}-{n}")).collect::<Vec<_>>();
    // Ends: 0 with a commit marker, 1 with an aborted run and its marker, 2 holds nothing but that.
    kafka.transact(&topic, 0, &values("first"), true);
    kafka.transact(&topic, 0, &values("dropped"), false);
    kafka.transact(&topic, 0, &values("second"), true);
    kafka.transact(&topic, 1, &values("first"), true);
    kafka.transact(&topic, 1, &values("dropped"), false);
    kafka.transact(&topic, 2, &values("dropped"), false);
    let run = Run::new(kafka, &topic, &group, scratch.path());
    let finished = run.drain();
    assert_eq!(assert_same_as_plain_consumer(kafka, &run, &topic, 3), 900);
    assert_eq!(finished.number("records"), 900);
    assert_eq!(finished.number("lag"), 0);
    let ends: Vec<_> = kafka.ends(&topic, 3).into_iter().map(Some).collect();
    assert_eq!(ends, [Some(903), Some(602), Some(301)]);
    assert_eq!(kafka.committed(&group, &topic, 3), ends);
    assert_eq!(run.drain().number("records"), 0);
    // It goes on behind the markers.
    kafka.transact(&topic, 2, &values("third"), true);
    assert_eq!(run.drain().number("records"), 300);
    assert_same_as_plain_consumer(kafka, &run, &topic, 3);
}

fn wait_files(run: &Run, topic: &str, records: usize) {
    wait_for("delivery", LIMIT, || {
        // The last file may be growing: whole lines only.
        let paths = files(run.out(), topic, 0).into_iter();
        let texts = paths.map(|path| std::fs::read_to_string(path).unwrap_or_default());
        let ends: usize = texts.map(|text| text.matches('\n').count()).sum();
        (ends >= records).then_some(())
    });
}

/// The offsets of a topic that is made again start at 0 again; they are other records.
#[test]
fn topic_made_again_between_runs() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("again");
    let topic = unique("again");
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, 1000, 100);
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path());
    assert_eq!(run.drain().number("records"), 1000);
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, 600, 50);
    assert_eq!(run.drain().number("records"), 600);
    delivered(&[run.out()], &topic, 1, 1000, Format::Jsonl).expect_once();
    delivered(&[run.out()], &format!("{topic}~1"), 1, 600, Format::Jsonl).expect_once();
    assert_eq!(run.drain().number("records"), 0);
}

#[test]
fn topic_made_again_under_a_running_instance() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("again-live");
    let topic = unique("again-live");
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, 1000, 100);
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path())
        .set("kafka.properties.topic.metadata.refresh.interval.ms=500");
    let process = run.spawn();
    wait_files(&run, &topic, 1000);
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, 600, 50);
    wait_files(&run, &format!("{topic}~1"), 600);
    process.stop();
    delivered(&[run.out()], &topic, 1, 1000, Format::Jsonl).expect_once();
    delivered(&[run.out()], &format!("{topic}~1"), 1, 600, Format::Jsonl).expect_once();
}

/// A pattern takes the topics that match, each to its own folder.
#[test]
fn topics_by_pattern() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("pattern");
    let base = unique("pattern");
    for name in ["a", "b"] {
        let topic = format!("{base}.{name}");
        kafka.create_topic(&topic, 1, &[]);
        kafka.fill(&topic, 1, 0, 100, 0);
    }
    let pattern = format!("^{}\\..*", base.replace('.', "\\."));
    let run = Run::new(kafka, &pattern, &unique("group"), scratch.path());
    assert_eq!(run.drain().number("records"), 200);
    for name in ["a", "b"] {
        delivered(&[run.out()], &format!("{base}.{name}"), 1, 100, Format::Jsonl).expect_once();
    }
}

/// What the broker has on its disk is damaged: nothing is passed over, the partition is held with its offset, the others
/// go on, and once the batch is whole again (a replica took over, a backup came back) so does this one.
#[test]
fn a_batch_that_kafka_damaged_is_held_and_not_passed_over() {
    use std::os::unix::fs::FileExt;
    let Some(kafka) = kafka() else { return };
    for mode in ["receiver", "direct"] {
        let scratch = Scratch::new("bad-batch");
        let (topic, group) = (unique("bad-batch"), unique("group"));
        kafka.create_topic(&topic, 2, &[]);
        for round in 0..20 {
            kafka.fill(&topic, 2, round * 50, (round + 1) * 50, 100);
        }
        let file = std::fs::File::options().read(true).write(true).open(kafka.first_segment(&topic, 0)).unwrap();
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let half = bytes.len() / 2;
        let at = half + bytes[half..].windows(8).position(|word| word == b"xxxxxxxx").unwrap();
        file.write_all_at(b"y", at as u64).unwrap();
        let run = Run::new(kafka, &topic, &group, scratch.path()).short_session().set(&format!("mode={mode}"));
        let process = run.spawn();
        process.wait_says("can't be read");
        let status = wait_for("held partition", LIMIT, || {
            let status = process.status();
            status.to_string().contains("can't be read").then_some(status)
        });
        wait_for("other partition", LIMIT, || (kafka.committed(&group, &topic, 2)[1] == Some(1000)).then_some(()));
        let held = kafka.committed(&group, &topic, 1)[0].unwrap();
        assert!((400..600).contains(&held) && held % 50 == 0, "{held}");
        assert!(status.to_string().contains(&format!("from offset {held} on")), "{status}");
        file.write_all_at(b"x", at as u64).unwrap();
        wait_for("all", LIMIT, || (kafka.committed(&group, &topic, 1) == [Some(1000)]).then_some(()));
        process.stop();
        assert_same_as_plain_consumer(kafka, &run, &topic, 2);
    }
}

/// A static member that comes back within its session gets what it had, whatever it subscribes to now: with other topics
/// it has to be another member.
#[test]
fn other_topics_at_a_restart_are_read() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("other-topics");
    let (first, second, group) = (unique("first"), unique("second"), unique("group"));
    for (topic, records) in [(&first, 100), (&second, 50)] {
        kafka.create_topic(topic, 2, &[]);
        kafka.fill(topic, 2, 0, records, 100);
    }
    let run = |topic: &str| Run::new(kafka, topic, &group, scratch.path()).set("kafka.session_timeout=10s");
    assert_eq!(run(&first).drain().number("records"), 200);
    assert_eq!(run(&first).topic(&second).drain().number("records"), 100);
    kafka.fill(&first, 2, 100, 110, 100);
    kafka.fill(&second, 2, 50, 60, 100);
    assert_eq!(run(&second).drain().number("records"), 20, "and what is not subscribed any more is not read");
}
