//! The scrubber on its own thread: it reads until it is told to stop, sleeps while nothing is due, and is silent about
//! what is mended.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/entries.rs"]
mod entries;

use entries::{owned, recorded};
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::{Block, Partition};
use forebay::wal::inspect::{Dumped, dump};
use forebay::wal::scrub::{Pace, Scrubber, run};
use forebay::wal::segment::wal_name;
use forebay::wal::{Entry, Log, Options, open};
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

const DIR: &str = "/wal";
const P: Partition = Partition { topic: 1, number: 0 };
const Q: Partition = Partition { topic: 1, number: 1 };
const BLOCKS: i64 = 20;
const LONG: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

/// What Kafka has at this offset.
fn block_of(partition: Partition, first: i64) -> Block {
    recorded(partition, 1, first..first + 1, |offset| vec![offset as u8; 3000])
}

/// An open log of several sealed segments; nothing of it is delivered.
fn logged() -> (Sim, Log) {
    let sim = Sim::new(1);
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    options.idle = LONG;
    options.seed = Some(1);
    let log = open(Arc::new(sim.clone()), options).unwrap().log;
    log.append_synced(vec![owned(P), owned(Q)]).unwrap();
    for first in 0..BLOCKS {
        let blocks = [P, Q].map(|partition| Entry::Block(block_of(partition, first)));
        log.append_synced(blocks.into()).unwrap();
    }
    assert!(log.status().segments > 2);
    (sim, log)
}

/// Damages the second block of P.
fn damage(sim: &Sim) {
    let mut place = None;
    dump(sim, Path::new(DIR), 1, &mut |piece| {
        if let Dumped::Frame(header, Some(Entry::Block(_))) = piece
            && (header.partition, header.first) == (P, 1)
        {
            place = Some(header.position as usize);
        }
        true
    })
    .unwrap();
    let at = place.expect("the first segment has it") + 1000;
    sim.damage(&Path::new(DIR).join(wal_name(1)), |bytes| bytes[at] ^= 1).unwrap();
}

/// Reads each sealed segment once; how many damaged places were told so far.
fn scrub(log: &Log, metrics: &Arc<Metrics>) -> u64 {
    let stop = Arc::default();
    let pace = Pace { rate: u64::MAX, every: Duration::ZERO };
    let mut scrubber = Scrubber::new(log, metrics, pace, &stop);
    for _ in 1..log.status().segments {
        assert!(scrubber.round());
    }
    metrics.wal_scrub_damaged.get()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What this thread took of the processor so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Scrubs on a thread of its own, which says at its end what it took of the processor.
fn started(log: &Log, metrics: &Arc<Metrics>, pace: Pace, stop: &Arc<AtomicBool>) -> Receiver<Duration> {
    let (log, metrics, stop) = (log.clone(), Arc::clone(metrics), Arc::clone(stop));
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let before = processor_time();
        run(&log, &metrics, pace, &stop);
        let _ = tell.send(processor_time().saturating_sub(before));
    });
    told
}

#[test]
fn the_scrubber_reads_until_it_is_told_to_stop() {
    let (sim, log) = logged();
    damage(&sim);
    let (metrics, stop) = (Arc::new(Metrics::new()), Arc::default());
    let pace = Pace { rate: u64::MAX, every: Duration::ZERO };
    let told = started(&log, &metrics, pace, &stop);
    wait_until("the damaged block is asked for", || !log.repairs().wanted().is_empty());
    stop.store(true, Ordering::Release);
    told.recv_timeout(LONG).expect("it ends");
    assert_eq!(log.repairs().wanted()[0].block.first, 1);
    log.close().unwrap();
}

#[test]
fn without_a_rate_the_scrubber_reads_nothing_and_ends() {
    let (_, log) = logged();
    let (metrics, stop) = (Arc::new(Metrics::new()), Arc::default());
    let pace = Pace { rate: 0, every: Duration::ZERO };
    started(&log, &metrics, pace, &stop).recv_timeout(LONG).expect("it ends untold");
    assert_eq!(metrics.wal_scrubbed_bytes.get(), 0);
    log.close().unwrap();
}

#[test]
fn while_nothing_is_due_the_scrubber_sleeps() {
    let (_, log) = logged();
    let (metrics, stop) = (Arc::new(Metrics::new()), Arc::default());
    let told = started(&log, &metrics, Pace { rate: u64::MAX, every: HOUR }, &stop);
    // However long this takes: it must not cost the scrubber's thread anything.
    std::thread::sleep(Duration::from_millis(400));
    stop.store(true, Ordering::Release);
    let taken = told.recv_timeout(LONG).expect("it ends");
    assert!(taken < Duration::from_millis(100), "{taken:?} of the processor for nothing");
    assert_eq!(metrics.wal_scrubbed_bytes.get(), 0);
    log.close().unwrap();
}

#[test]
fn what_is_mended_and_delivered_is_not_told_again() {
    let (sim, log) = logged();
    damage(&sim);
    let metrics = Arc::new(Metrics::new());
    assert_eq!(scrub(&log, &metrics), 1);
    let damaged = log.repairs().wanted()[0].block.clone();
    log.keep_repair(&damaged, &block_of(damaged.partition, damaged.first)).unwrap();
    // Q keeps the segments.
    let (first, next, through_lsn, keep_from, detail) = (0, BLOCKS, 0, None, vec![1]);
    let delivered = Entry::Delivered { route: 0, partition: P, first, next, through_lsn, keep_from, detail };
    log.append_synced(vec![delivered]).unwrap();
    assert!(log.is_settled(&damaged));
    assert_eq!(scrub(&log, &metrics), 1, "told when it was found, and no more");
    assert!(log.repairs().open().is_empty());
    log.close().unwrap();
}
