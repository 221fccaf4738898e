//! A partition that goes and comes back while the log is full: what was admitted before waits for space, which only the
//! next tenure may make. It opens on what is durable, and what waits is fetched again.

use super::world::{Gate, TOPIC, World, wait};
use forebay::pipeline::{Control, Custom};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::Duration;

const RECORDS: u64 = 100_000;
const SEGMENT: u64 = 64 << 10;

/// A member of the same group that commits nothing.
fn guest(world: &World, group: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", world.kafka.bootstrap_servers())
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "1500")
        .create()
        .unwrap();
    consumer.subscribe(&[TOPIC]).unwrap();
    consumer
}

#[test]
fn a_partition_that_comes_back_while_blocks_wait_for_space_loses_nothing() {
    let world = World::new(2, 0);
    let (gate, control) = (Gate::closed(), Control::new());
    let custom = Custom { sink: Some(gate.sink()), ..Custom::default() };
    let running = world.instance("full").start_with(&control, custom, |config| {
        (config.wal.segment_bytes, config.wal.max_bytes) = (SEGMENT, Some(8 * SEGMENT));
        config.block.bytes = 8 << 10;
    });
    let group = forebay::config::Config::default().kafka.group;
    wait("both partitions", || control.snapshot().receivers.iter().any(|row| row.partitions == 2));
    world.produce(RECORDS);
    let full = || control.snapshot().wal.full;
    wait("blocks to wait for space", || full() && control.metrics().queue_bytes.get() > 0);
    let guest = guest(&world, &group);
    wait("the guest to get a partition", || {
        let _ = guest.poll(Duration::from_millis(10));
        guest.assignment().unwrap().count() == 1
    });
    wait("the partition to be gone here", || control.snapshot().receivers.iter().any(|row| row.partitions == 1));
    assert!(full(), "nothing was let through yet");
    drop(guest);
    let opened = || control.snapshot().receivers.iter().any(|row| row.partitions == 2);
    // It does not wait for space: what this partition has in doubt may be what keeps the log full.
    wait("the partition to come back", opened);
    assert!(full(), "nothing was let through yet");
    gate.open();
    wait("all records to be delivered", || gate.records() >= RECORDS);
    control.stop();
    running.join().unwrap().unwrap();
    assert_eq!(gate.records(), RECORDS);
}
