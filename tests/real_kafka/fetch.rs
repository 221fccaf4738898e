//! Records fetched without librdkafka are the same as with it, and what that can't do is left to it.

use crate::common::process::{Finished, LIMIT};
use crate::common::verify::files;
use crate::common::{Format, Kafka, Run, Scratch, delivered, kafka, unique, wait_for};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const BY_LIBRDKAFKA: &str = "kafka.fetcher=librdkafka";

fn producer(kafka: &Kafka, settings: &[(&str, &str)]) -> BaseProducer {
    let mut config = kafka.client();
    config.set("linger.ms", "20").set("enable.idempotence", "true");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config.create().unwrap()
}

fn flush(producer: &BaseProducer) {
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// Everything a record can have, and lengths around those of the format's numbers.
fn fill(kafka: &Kafka, topic: &str, partition: i32, codec: &str) {
    let producer = producer(kafka, &[("compression.type", codec)]);
    // Older ones would be taken by retention.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let mut text = String::new();
    for number in 0..3000usize {
        text.clear();
        let length = [0, 1, 62, 63, 64, 65, 127, 128, 8191, 8192, 40_000][number % 11];
        while text.len() < length {
            write!(text, "{number}-{codec}-").unwrap();
        }
        text.truncate(length);
        let key = format!("key {number}");
        let headers = OwnedHeaders::new()
            .insert(Header { key: "codec", value: Some(codec) })
            .insert(Header { key: "", value: None::<&str> })
            .insert(Header { key: "length", value: Some(&length.to_string()) });
        let mut record = BaseRecord::<str, str>::to(topic).partition(partition);
        record.payload = (number % 7 != 3).then_some(&text);
        record.key = (number % 3 != 0).then_some(&key);
        record.headers = (number % 5 == 0).then_some(headers);
        record.timestamp = (number % 4 == 0).then_some(now - number as i64);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        if number % 64 == 0 {
            producer.poll(Duration::ZERO);
        }
        if number % 500 == 0 {
            flush(&producer);
        }
    }
    flush(&producer);
}

/// What was written of a partition, one file after the other.
fn text(run: &Run, topic: &str, partition: i32) -> String {
    files(run.out(), topic, partition).iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

fn drained(kafka: &Kafka, topic: &str, home: &Scratch, settings: &[&str]) -> (Run, Finished) {
    let run = Run::new(kafka, topic, &unique("group"), home.path());
    let run = settings.iter().fold(run, |run, setting| run.set(setting));
    let finished = run.drain();
    (run, finished)
}

#[test]
fn every_codec_and_all_that_a_record_can_have() {
    let Some(kafka) = kafka() else { return };
    for (name, settings) in [("created", &[][..]), ("appended", &[("message.timestamp.type", "LogAppendTime")])] {
        let topic = unique(name);
        kafka.create_topic(&topic, CODECS.len() as i32, settings);
        for (partition, codec) in (0..).zip(CODECS) {
            fill(kafka, &topic, partition, codec);
        }
        let (ours, theirs) = (Scratch::new("ours"), Scratch::new("theirs"));
        let (ours, finished) = drained(kafka, &topic, &ours, &[]);
        let (theirs, _) = drained(kafka, &topic, &theirs, &[BY_LIBRDKAFKA]);
        assert_eq!(finished.number("records"), 15_000);
        for (partition, codec) in (0..).zip(CODECS) {
            let ours = text(&ours, &topic, partition);
            assert_eq!(ours.lines().count(), 3000, "{codec}");
            assert!(ours == text(&theirs, &topic, partition), "{name}, {codec}");
        }
    }
}

/// One batch unpacks to twenty thousand times its size; the records before and behind it come once, in bounded memory.
#[test]
fn a_batch_that_unpacks_to_very_much() {
    let Some(kafka) = kafka() else { return };
    let (topic, home) = (unique("bomb"), Scratch::new("bomb"));
    kafka.create_topic(&topic, 2, &[("max.message.bytes", "100000000")]);
    kafka.fill(&topic, 2, 0, 1000, 100);
    let large = [
        ("compression.type", "zstd"),
        ("batch.size", "200000000"),
        ("message.max.bytes", "300000000"),
        ("queue.buffering.max.kbytes", "400000"),
        ("linger.ms", "10000"),
    ];
    let producer = producer(kafka, &large);
    let zeros = "0".repeat(900_000);
    for _ in 0..80 {
        let record = BaseRecord::<str, str>::to(&topic).partition(0).payload(&zeros);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    flush(&producer);
    kafka.fill(&topic, 2, 1000, 2000, 100);
    let (run, finished) = drained(kafka, &topic, &home, &["sink.format=raw"]);
    assert_eq!(finished.number("records"), 4080);
    assert_eq!(finished.number("suppressed"), 0);
    let rss = finished.number("rss_peak_bytes");
    assert!(rss < 256 << 20, "{rss} bytes");
    for (partition, records) in [(0, 2080), (1, 2000)] {
        let text = text(&run, &topic, partition);
        assert_eq!(text.lines().count(), records);
        let numbered = text.lines().filter(|line| !line.starts_with('0'));
        let expected = (0..2000).map(|number| format!("p{partition}-{number}-"));
        assert!(numbered.zip(expected).all(|(line, expected)| line.starts_with(&expected)));
    }
}

#[test]
fn a_setting_that_only_librdkafka_knows_leaves_it_to_librdkafka() {
    let Some(kafka) = kafka() else { return };
    let (topic, home) = (unique("rack"), Scratch::new("rack"));
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, 1000, 100);
    for (setting, by_librdkafka) in [("kafka.properties.client.rack=r1", true), ("kafka.fetcher=auto", false)] {
        let run = Run::new(kafka, &topic, &unique("group"), &home.join(setting)).set(setting);
        let process = run.spawn();
        process.wait_says("assigned");
        let status = process.status();
        assert_eq!(status["receivers"][0]["by_librdkafka"], by_librdkafka, "{status}");
        let (_, metrics) = process.ask("/metrics");
        let line = format!("forebay_receivers_by_librdkafka {}\n", u8::from(by_librdkafka));
        assert!(metrics.contains(&line), "{metrics}");
        let said = process.stderr().contains("because of kafka.properties.client.rack");
        assert_eq!(said, by_librdkafka);
        process.stop().expect(0);
    }
}

/// The checksum is right and the records behind it are not: nothing is passed over, the partition is held with its offset,
/// and goes on once the batch is right again.
#[test]
fn records_that_contradict_their_batch_are_held_and_not_passed_over() {
    let Some(kafka) = kafka() else { return };
    let (topic, group, home) = (unique("contradiction"), unique("group"), Scratch::new("contradiction"));
    kafka.create_topic(&topic, 1, &[]);
    for round in 0..20 {
        kafka.fill(&topic, 1, round * 50, (round + 1) * 50, 100);
    }
    let file = File::options().read(true).write(true).open(kafka.first_segment(&topic, 0)).unwrap();
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    // The batch that begins in the second half.
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let next = |at: &usize| Some(at + 12 + number(at + 8) as usize);
    let at = std::iter::successors(Some(0), next).find(|at| *at >= bytes.len() / 2).unwrap();
    let offset = u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let good = bytes[at..at + 12 + number(at + 8) as usize].to_vec();
    let mut bad = good.clone();
    bad[57..61].copy_from_slice(&(number(at + 57) - 1).to_be_bytes());
    let crc = crc32c::crc32c(&bad[21..]);
    bad[17..21].copy_from_slice(&crc.to_be_bytes());
    file.write_all_at(&bad, at as u64).unwrap();
    let run = Run::new(kafka, &topic, &group, home.path()).short_session().set("sink.format=raw");
    let process = run.spawn();
    // What of the batch could be read is taken, what is behind it is not.
    let held = offset as i64 + i64::from(number(at + 57)) - 1;
    process.wait_says(&format!("from offset {held} on can't be read (batch at offset {offset}: "));
    wait_for("commit", LIMIT, || (kafka.committed(&group, &topic, 1) == [Some(held)]).then_some(()));
    file.write_all_at(&good, at as u64).unwrap();
    wait_for("all", LIMIT, || (kafka.committed(&group, &topic, 1) == [Some(1000)]).then_some(()));
    process.stop().expect(0);
    delivered(&[run.out()], &topic, 1, 1000, Format::Raw).expect_once();
}
