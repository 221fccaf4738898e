//! A long log opens by its headers, states and footers; what was not looked at is verified as it is read. Anything out of
//! order is found or leads to the full scan.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/entries.rs"]
mod entries;

use entries::{block, delivered, owned};
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::Partition;
use forebay::wal::inspect::inspect;
use forebay::wal::scan::index;
use forebay::wal::scrub::{Pace, Scrubber};
use forebay::wal::{Entry, FeedItem, Opened, Options, open};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DIR: &str = "/wal";
const P: Partition = Partition { topic: 1, number: 0 };
const Q: Partition = Partition { topic: 1, number: 1 };
const BLOCKS: i64 = 60;
const BYTES: usize = 3000;

fn options(verify_bytes: u64) -> Options {
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    options.verify_bytes = verify_bytes;
    options
}

/// A log of several segments; nothing of it is delivered but the first ten blocks of Q.
fn written() -> Sim {
    let sim = Sim::new(3);
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let log = open(Arc::clone(&storage), options(u64::MAX)).unwrap().log;
    log.append_synced(vec![owned(P), owned(Q)]).unwrap();
    for first in 0..BLOCKS {
        log.append_synced(vec![block(P, first, BYTES), block(Q, first, BYTES)]).unwrap();
    }
    log.append_synced(vec![delivered(Q, 10)]).unwrap();
    log.close().unwrap();
    sim.kill()
}

fn reopened(sim: &Sim, verify_bytes: u64) -> Opened {
    open(Arc::new(sim.kill()), options(verify_bytes)).expect("opens")
}

type Range = (Partition, i64, i64);

/// Offsets of P and Q that are handed out, and what is said to be corrupt.
fn read(opened: &mut Opened) -> (Vec<i64>, Vec<i64>, Vec<Range>) {
    let (mut p, mut q, mut corrupt) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(item) = opened.feed.next(Duration::ZERO).expect("readable") {
        match item {
            FeedItem::Block { block, .. } => {
                let of = if block.header.partition == P { &mut p } else { &mut q };
                let offset = block.header.first;
                let Entry::Block(wanted) = self::block(block.header.partition, block.header.first, BYTES) else {
                    panic!()
                };
                assert_eq!((block.header, block.payload), (wanted.header, wanted.payload));
                of.push(offset);
            }
            FeedItem::Corrupt(c) => corrupt.push((c.partition, c.first, c.next)),
            FeedItem::Planned(_) | FeedItem::PassedOver(_) => panic!("nothing was planned or given up"),
        }
    }
    (p, q, corrupt)
}

/// The second segment and the frame position of its block of P with the lowest offset.
fn a_block_of_the_second_segment(sim: &Sim) -> (PathBuf, u64, i64, u64) {
    let overview = inspect(sim, Path::new(DIR)).unwrap();
    let second = &overview.segments[1];
    let file = sim.open(&second.path, false).unwrap();
    let index = index::find(&file, second.header.salt, 0, second.end).expect("a footer");
    let block = index.blocks.iter().find(|b| b.partition() == P).unwrap();
    (second.path.clone(), block.position, block.first, index.position)
}

#[test]
fn a_log_taken_by_its_footers_is_the_log_that_is_read_in_full() {
    let sim = written();
    let (mut full, mut quick) = (reopened(&sim, u64::MAX), reopened(&sim, 0));
    assert!(full.report.unverified.is_empty());
    assert!(quick.report.unverified.len() > 3, "{:?}", quick.report.unverified);
    assert_eq!(full.state, quick.state);
    assert_eq!(full.report.segments, quick.report.segments);
    assert_eq!(full.report.frames, quick.report.frames);
    assert_eq!(full.log.status().oldest_live_segment, quick.log.status().oldest_live_segment);
    let all: Vec<i64> = (0..BLOCKS).collect();
    for opened in [&mut full, &mut quick] {
        assert_eq!(read(opened), (all.clone(), all[10..].to_vec(), vec![]));
    }
}

#[test]
fn the_newest_segments_are_verified_and_the_older_ones_are_not() {
    let sim = written();
    let opened = reopened(&sim, 3 * (64 << 10));
    let unverified = opened.report.unverified;
    assert_eq!(unverified.len() + 3, opened.report.segments, "{unverified:?}");
    assert_eq!(unverified[0], 1);
}

#[test]
fn damage_that_was_not_looked_at_stops_the_partition_when_it_is_read() {
    for in_header in [false, true] {
        let sim = written();
        let (path, position, first, _) = a_block_of_the_second_segment(&sim);
        let at = position as usize + if in_header { 20 } else { 96 + 700 };
        sim.damage(&path, |bytes| bytes[at] ^= 4).unwrap();
        let mut opened = reopened(&sim, 0);
        assert!(opened.report.corrupt.is_empty() && opened.report.unverified.contains(&2));
        let (p, q, corrupt) = read(&mut opened);
        assert_eq!(corrupt, [(P, first, first + 1)], "in header: {in_header}");
        assert_eq!(p, (0..first).collect::<Vec<_>>());
        assert_eq!(q, (10..BLOCKS).collect::<Vec<_>>());
    }
}

#[test]
fn what_was_not_verified_is_verified_while_the_log_is_open() {
    let sim = written();
    let (path, position, first, _) = a_block_of_the_second_segment(&sim);
    sim.damage(&path, |bytes| bytes[position as usize + 96] ^= 1).unwrap();
    let opened = reopened(&sim, 0);
    let (metrics, stop) = (Arc::new(Metrics::new()), Arc::default());
    let pace = Pace { rate: 1, every: Duration::from_secs(3600) };
    let mut scrubber = Scrubber::new(&opened.log, &metrics, pace, &stop);
    for number in &opened.report.unverified {
        assert!(scrubber.round(), "segment {number}");
    }
    assert!(!scrubber.round(), "each once");
    assert_eq!(metrics.wal_scrub_damaged.get(), 1);
    let wanted: Vec<_> = opened.log.repairs().open().iter().map(|open| open.block.first).collect();
    assert_eq!(wanted, [first]);
}

#[test]
fn without_its_footer_a_segment_is_read_in_full() {
    let sim = written();
    let (path, position, first, footer) = a_block_of_the_second_segment(&sim);
    sim.damage(&path, |bytes| bytes[footer as usize + 100] ^= 1).unwrap();
    let opened = reopened(&sim, 0);
    assert!(opened.report.unverified.is_empty() && !opened.report.problems.is_empty(), "{:?}", opened.report);
    drop(opened);
    // Then a damaged block is known before anything is delivered.
    sim.damage(&path, |bytes| bytes[position as usize + 96] ^= 1).unwrap();
    let opened = reopened(&sim, 0);
    let corrupt: Vec<_> = opened.report.corrupt.iter().map(|c| (c.partition, c.first)).collect();
    assert_eq!(corrupt, [(P, first)]);
}

#[test]
fn a_footer_that_is_lost_while_the_log_is_open_stops_all_rather_than_pass_over_a_block() {
    let sim = written();
    let (path, position, _, footer) = a_block_of_the_second_segment(&sim);
    let running = sim.kill();
    let mut opened = open(Arc::new(running.clone()), options(0)).unwrap();
    running.damage(&path, |bytes| bytes[position as usize + 20] ^= 1).unwrap();
    running.damage(&path, |bytes| bytes[footer as usize + 20] ^= 1).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let error = loop {
        assert!(Instant::now() < deadline);
        if let Err(error) = opened.feed.next(Duration::ZERO) {
            break error;
        }
    };
    assert!(error.to_string().contains("00000000000000000002.wal"), "{error}");
}
