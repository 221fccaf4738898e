//! A leader that was elected without having all records: what lies before the position is compared before the position
//! is trusted. The mock cluster can't truncate, but another cluster with a newer leader epoch looks the same, since the
//! mock knows no topic ids.

use crate::world::{TOPIC, World};
use forebay::config::{Config, OnGap};
use forebay::pipeline::{Control, Custom, Error, Summary, run_with};
use forebay::wal::inspect::inspect;
use std::time::{Duration, Instant};

/// 1,000 records are in the log. Then brokers without them take over, which have these records instead, and 200 more.
fn replaced(words: &str) -> World {
    let world = World::new(1, 1000);
    world.run_to_the_sink();
    let world = world.with_new_brokers();
    world.kafka.elect(TOPIC, 0).unwrap();
    world.produce_as(1000, words);
    world.produce(200);
    world
}

fn run(world: &World, on_gap: OnGap) -> Result<Summary, Error> {
    let mut config = world.config("only");
    (config.exit_at_end, config.kafka.on_gap) = (true, on_gap);
    run_as(&config)
}

fn run_as(config: &Config) -> Result<Summary, Error> {
    // A run that failed gives its log up a moment after it has returned.
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match run_with(config.clone(), Control::new(), Custom::default()) {
            Err(error) if error.exit_code() == 78 && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

fn gaps(config: &Config) -> Vec<(i64, i64, String)> {
    let log = inspect(&forebay::io::disk::Disk, &config.wal.dir).unwrap();
    let partitions = log.state.unwrap().partitions;
    let gaps = partitions.into_values().flat_map(|known| known.gaps);
    gaps.map(|gap| (gap.first, gap.next, gap.reason)).collect()
}

#[test]
fn other_records_before_the_position_fail() {
    let world = replaced("!");
    let text = run(&world, OnGap::Fail).unwrap_err().to_string();
    assert!(text.contains("t/0: Kafka has another record at offset 999") && text.contains("[999, 1000)"), "{text}");
    assert_eq!(world.delivered().len(), 1000);
    // The log has delivered all, and does not have the record to compare any more: still it knows.
    for _ in 0..2 {
        assert_eq!(run(&world, OnGap::Fail).unwrap_err().to_string(), text);
    }
    assert_eq!(run(&world, OnGap::Skip).unwrap().records, 200);
    assert_eq!(gaps(&world.config("only")).len(), 1, "declared once");
}

#[test]
fn other_records_before_the_position_pause() {
    let world = replaced("!");
    let error = run(&world, OnGap::Pause).unwrap_err();
    assert!(matches!(&error, Error::Held(held) if held[0].contains("[999, 1000)")), "{error}");
    assert_eq!(world.delivered().len(), 1000);
}

#[test]
fn other_records_before_the_position_are_an_event() {
    let world = replaced("!");
    let summary = run(&world, OnGap::Skip).unwrap();
    assert_eq!((summary.records, summary.gaps, summary.gaps_records), (1200, 1, 1));
    assert_eq!(world.delivered(), crate::world::produced(1, 1200));
    let found = gaps(&world.config("only"));
    assert!(matches!(&found[..], [(999, 1000, reason)] if reason.starts_with("truncation: ")), "{found:?}");
    world.produce(100);
    let summary = run(&world, OnGap::Fail).unwrap();
    assert_eq!((summary.records, summary.gaps, summary.suppressed), (100, 0, 0), "it was declared");
}

/// An election that lost nothing is no event. The mock's timestamps differ between clusters, so it stays the same one.
#[test]
fn an_election_alone_changes_nothing() {
    let world = World::new(2, 2000);
    world.run_to_the_sink();
    for round in 0..3 {
        world.kafka.elect(TOPIC, 0).unwrap();
        world.produce(100);
        let mut config = world.config("only");
        // A group without a commit: else the mock says that the commit is of the newest leader.
        (config.exit_at_end, config.kafka.group) = (true, format!("round-{round}"));
        let summary = run_as(&config).unwrap();
        assert_eq!((summary.gaps, summary.suppressed), (0, 0), "round {round}");
    }
    assert_eq!(world.delivered(), crate::world::produced(2, 2300));
}
