//! Limits hold in both modes, can be changed while it runs, and cost no record.

use crate::common::produce::Numbered;
use crate::common::{Forebay, Format, Kafka, Run, Scratch, delivered, kafka, unique, wait_for};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const PARTITIONS: i32 = 4;
const EACH: u64 = 2_500;
const LIMIT: Duration = Duration::from_secs(60);

/// 10,000 records at 2,000 a second with a burst of 200: at least 4.9 s.
fn takes_its_time(kafka: &Kafka, mode: &str, limit: &str) {
    let scratch = Scratch::new("rate");
    let topic = unique("rate");
    kafka.create_topic(&topic, PARTITIONS, &[]);
    kafka.fill(&topic, PARTITIONS, 0, EACH, 100);
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path()).short_session();
    let run = run.set(mode).set(limit).set("rate.burst=100ms").set(Format::Raw.setting());
    let finished = run.drain();
    let seconds = finished.summary()["seconds"].as_f64().unwrap();
    assert!((4.0..20.0).contains(&seconds), "{mode} {limit}: {seconds} s");
    delivered(&[run.out()], &topic, PARTITIONS, EACH, Format::Raw).expect_once();
}

#[test]
fn records_and_bytes_a_second_hold_in_both_modes() {
    let Some(kafka) = kafka() else { return };
    let limits = ["rate.records=2000", "rate.topic_records=2000", "rate.partition_records=500", "rate.bytes=200KiB"];
    for mode in ["mode=receiver", "mode=direct"] {
        std::thread::scope(|scope| {
            for limit in limits {
                scope.spawn(move || takes_its_time(kafka, mode, limit));
            }
        });
    }
}

fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn put(address: &str, token: &str, body: &str) -> String {
    let length = body.len();
    ask(
        address,
        &format!(
            "PUT /rate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ),
    )
}

/// A run that answers over HTTP, and where.
fn serving(run: Run) -> (Forebay, String) {
    let process = run.set("server.listen=127.0.0.1:0").env("FOREBAY_SERVER__TOKEN", "sesame").spawn();
    process.wait_says("serving /metrics");
    let log = process.stderr();
    let address = log.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_string();
    (process, address)
}

fn counter(address: &str, name: &str) -> u64 {
    let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {answer}")).trim().parse().unwrap()
}

/// At one record a second nothing would end; with the limit lifted all of it comes, and once.
#[test]
fn a_limit_is_lifted_and_set_while_it_runs() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("lifted");
    let topic = unique("lifted");
    kafka.create_topic(&topic, PARTITIONS, &[]);
    kafka.fill(&topic, PARTITIONS, 0, EACH, 100);
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path()).short_session();
    let run = run.set("rate.records=1").set("rate.burst=1s").set(Format::Raw.setting());
    let spawned = Instant::now();
    let (process, address) = serving(run.clone());
    let rate = || ask(&address, "GET /rate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    wait_for("rate", LIMIT, || rate().contains("\"records\":1.0").then_some(()));
    wait_for("the second record", LIMIT, || (counter(&address, "forebay_records_received_total") >= 2).then_some(()));
    let received = counter(&address, "forebay_records_received_total");
    assert!(received <= 2 + spawned.elapsed().as_secs(), "{received} in {:?}", spawned.elapsed());
    assert!(put(&address, "open", r#"{"records": null}"#).starts_with("HTTP/1.1 401"));
    assert!(put(&address, "sesame", r#"{"records": -5}"#).starts_with("HTTP/1.1 400"));
    assert!(rate().contains("\"records\":1.0"), "refused requests change nothing");
    assert!(put(&address, "sesame", r#"{"records": null}"#).starts_with("HTTP/1.1 200"));
    let all = EACH * PARTITIONS as u64;
    let delivered_so_far = || counter(&address, "forebay_records_delivered_total");
    wait_for("all records", LIMIT, || (delivered_so_far() == all).then_some(()));
    assert!(put(&address, "sesame", r#"{"partition_records": 100}"#).starts_with("HTTP/1.1 200"));
    kafka.fill(&topic, PARTITIONS, EACH, EACH + 300, 100);
    let started = Instant::now();
    wait_for("the rest", LIMIT, || (delivered_so_far() == all + 1200).then_some(()));
    assert!(started.elapsed() >= Duration::from_millis(1500), "{:?}", started.elapsed());
    process.stop();
    delivered(&[run.out()], &topic, PARTITIONS, EACH + 300, Format::Raw).expect_once();
}

/// What was fetched together before a limit came is older than what a partition's own queue holds then, and there may be
/// more of it than one batch.
fn come_and_go(kafka: &Kafka, topic: &str, mode: &str, records: u64) {
    let scratch = Scratch::new("flight");
    let run = Run::new(kafka, topic, &unique("group"), scratch.path()).short_session().set(mode);
    let run = run.set("rate.records=20000").set("rate.burst=10ms").set(Format::Raw.setting());
    let (process, address) = serving(run.clone());
    let delivered_so_far = || counter(&address, "forebay_records_delivered_total");
    wait_for("some", LIMIT, || (delivered_so_far() > 0).then_some(()));
    let mut changes = 0;
    wait_for("all", LIMIT, || {
        let limit = ["null", "100000"][changes % 2];
        assert!(put(&address, "sesame", &format!("{{\"records\": {limit}}}")).starts_with("HTTP/1.1 200"));
        changes += 1;
        (delivered_so_far() >= records * PARTITIONS as u64).then_some(())
    });
    assert!(changes > 4, "{mode}: {changes}");
    process.stop();
    delivered(&[run.out()], topic, PARTITIONS, records, Format::Raw).expect_once();
}

#[test]
fn limits_that_come_and_go_in_full_flight_cost_no_record() {
    const MANY: u64 = 150_000;
    let Some(kafka) = kafka() else { return };
    let topic = unique("flight");
    kafka.create_topic(&topic, PARTITIONS, &[]);
    kafka.fill(&topic, PARTITIONS, 0, MANY, 100);
    for mode in ["mode=receiver", "mode=direct"] {
        come_and_go(kafka, &topic, mode, MANY);
    }
}

/// A partition that leaves after limits were lifted takes nothing of the others' along, although its own queue had been
/// joined with theirs.
#[test]
fn a_partition_that_stops_after_limits_were_lifted_costs_the_others_no_record() {
    const MANY: u64 = 150_000;
    let Some(kafka) = kafka() else { return };
    let (scratch, topic) = (Scratch::new("lifted-stop"), unique("lifted-stop"));
    kafka.create_topic(&topic, PARTITIONS + 1, &[]);
    kafka.fill(&topic, PARTITIONS, 0, MANY, 100);
    let mut producer = Numbered::new(kafka, &topic);
    for number in 0..EACH {
        producer.send(PARTITIONS, number, 100);
    }
    producer.send(PARTITIONS, EACH, 5000);
    producer.flush();
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path()).short_session();
    let run = run.set("rate.partition_records=2000").set("rate.burst=10ms").set("block.max_record_bytes=4KiB");
    let (process, address) = serving(run.set(Format::Raw.setting()).clone());
    let delivered_so_far = || counter(&address, "forebay_records_delivered_total");
    wait_for("some", LIMIT, || (delivered_so_far() > 0).then_some(()));
    assert!(put(&address, "sesame", r#"{"partition_records": null}"#).starts_with("HTTP/1.1 200"));
    let all = MANY * PARTITIONS as u64 + EACH;
    wait_for("all the others", LIMIT, || (delivered_so_far() >= all).then_some(()));
    process.wait_says("block.max_record_bytes");
    assert_eq!(delivered_so_far(), all);
    process.kill();
}
