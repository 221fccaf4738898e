//! The pipeline against librdkafka's embedded mock cluster, inside this process: what needs no real broker and no kill.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod full;
mod gap;
mod process;
mod world;

use forebay::config::{Config, Fence, Target};
use forebay::kafka::ffi::mock::{FETCH, OFFSET_COMMIT};
use forebay::pipeline::{Control, Custom, run_with};
use forebay::sink::Tier;
use rdkafka::types::RDKafkaRespErr as Code;
use std::time::Duration;
use world::{Gate, World, produced, wait};

#[test]
fn takes_everything_once_and_a_second_run_takes_nothing() {
    let world = World::new(4, 20_000);
    let first = world.run_to_end(|_| {});
    assert_eq!((first.records, first.suppressed, first.lag), (20_000, 0, 0));
    assert_eq!(world.delivered(), produced(4, 20_000));
    let second = world.run_to_end(|_| {});
    assert_eq!((second.records, second.suppressed), (0, 0));
    assert_eq!(world.delivered(), produced(4, 20_000));
}

/// What a broker does not know is left to librdkafka, whether it is met at the start or later.
#[test]
fn an_older_broker_is_left_to_librdkafka() {
    const OLD: i16 = 11;
    for later in [false, true] {
        let world = World::new(4, 20_000);
        let control = Control::new();
        let by_client = || control.snapshot().receivers.first().is_some_and(|row| row.by_librdkafka);
        let delivered = || control.snapshot().partitions.iter().map(|row| row.delivered).sum::<i64>();
        if !later {
            world.kafka.limit_version(FETCH, OLD).unwrap();
        }
        let running = world.instance("only").start(&control, |_| {});
        wait("the first records", || delivered() == 20_000);
        assert_eq!(by_client(), !later);
        world.kafka.limit_version(FETCH, OLD).unwrap();
        world.kafka.disconnect().unwrap();
        world.produce(20_000);
        wait("the second ones", || delivered() == 40_000);
        assert!(by_client());
        control.stop();
        running.join().unwrap().unwrap();
        assert_eq!(world.delivered(), produced(4, 40_000));
    }
}

#[test]
fn two_receivers_share_one_log() {
    let world = World::new(6, 30_000);
    let summary = world.run_to_end(|config| config.kafka.receivers = 2);
    assert_eq!(summary.records, 30_000);
    assert_eq!(world.delivered(), produced(6, 30_000));
}

#[test]
fn two_instances_come_and_go_without_losing_or_doubling() {
    let world = World::new(6, 5_000);
    let (one, two) = (world.instance("one"), world.instance("two"));
    for round in 0..4 {
        world.produce(5_000);
        let control = Control::new();
        let running = one.start(&control, |_| {});
        let other = Control::new();
        let second = two.start(&other, |_| {});
        wait("both instances to own partitions", || {
            [&control, &other].iter().all(|control| control.snapshot().receivers.iter().any(|row| row.partitions > 0))
        });
        world.produce(5_000);
        if round % 2 == 0 { &control } else { &other }.stop();
        world.produce(5_000);
        let _ = [&control, &other].map(Control::stop);
        running.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
    }
    one.run_to_end();
    two.run_to_end();
    let mut both = one.delivered();
    both.extend(two.delivered());
    both.sort();
    assert_eq!(both, produced(6, 65_000));
}

#[test]
fn refused_commits_are_sent_again() {
    let world = World::new(2, 5_000);
    let refusals = [Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, Code::RD_KAFKA_RESP_ERR_NOT_COORDINATOR];
    world.kafka.fail_requests(OFFSET_COMMIT, &refusals);
    let summary = world.run_to_end(|_| {});
    assert_eq!(world.delivered(), produced(2, 5_000));
    assert!(summary.commits > 0);
}

#[test]
fn a_commit_without_an_answer_leads_to_a_new_membership() {
    let world = World::new(2, 5_000);
    world.kafka.fail_requests(OFFSET_COMMIT, &[Code::RD_KAFKA_RESP_ERR_UNKNOWN]);
    let summary = world.run_to_end(|_| {});
    assert_eq!(world.delivered(), produced(2, 5_000));
    assert!(summary.rebalances >= 2, "{summary:?}");
}

#[test]
fn a_stalled_sink_bounds_memory_and_loses_nothing() {
    let world = World::new(4, 0);
    let gate = Gate::closed();
    let control = Control::new();
    let custom = Custom { sink: Some(gate.sink()), ..Custom::default() };
    let running = world.instance("stalled").start_with(&control, custom, |_| {});
    world.produce(200_000);
    wait("all records to be durable", || {
        let durable = control.snapshot().partitions.iter().map(|row| row.durable.max(0)).sum::<i64>();
        durable == 200_000
    });
    let snapshot = control.snapshot();
    assert!(snapshot.partitions.iter().all(|row| row.delivered <= 0), "nothing was let through yet");
    assert_eq!(control.metrics().rebalances.get(), 1, "the group is left alone");
    gate.open();
    wait("all records to be delivered", || control.metrics().records_delivered.get() == 200_000);
    control.stop();
    running.join().unwrap().unwrap();
    assert_eq!(gate.records(), 200_000);
}

#[test]
fn without_a_fence_a_block_does_not_wait_for_its_commit() {
    let world = World::new(1, 100);
    let summary = world.run_to_end(|config: &mut Config| config.kafka.fence = Fence::None);
    assert_eq!(summary.records, 100);
}

#[test]
fn a_record_over_the_limit_stops_with_its_name() {
    let world = World::new(1, 10);
    let mut config = world.config("large");
    config.block.max_record_bytes = 3;
    config.exit_at_end = true;
    let error = run_with(config, Control::new(), Custom::default()).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    assert!(text.contains("/0@0") && text.contains("block.max_record_bytes"), "{text}");
}

#[test]
fn a_topic_that_does_not_exist_is_named() {
    let world = World::new(1, 1);
    let mut config = world.config("missing");
    config.kafka.topics = vec!["nothing-here".to_string()];
    config.kafka.unreachable_timeout = Duration::from_secs(2);
    config.exit_at_end = true;
    let error = run_with(config, Control::new(), Custom::default()).unwrap_err();
    assert!([69, 78].contains(&error.exit_code()), "{error}");
}

#[test]
fn the_null_sink_counts() {
    let world = World::new(1, 100);
    let summary = world.run_to_end(|config| config.sink.target = Some(Target::Null));
    assert_eq!(summary.records, 100);
    assert_eq!(world::Gate::closed().sink().tier(), Tier::AtLeastOnce);
}
