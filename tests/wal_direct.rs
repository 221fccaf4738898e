//! What direct mode and the weaker durability levels ask of the log: plans before their blocks, receipts that close plans,
//! syncs only where they are promised.

#![allow(clippy::unwrap_used, clippy::panic)]

use bytes::Bytes;
use forebay::config::Durability;
use forebay::io::Storage;
use forebay::io::disk::Disk;
use forebay::io::fault::{Faults, Operation};
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::batch::payload_crc;
use forebay::record::{Block, BlockHeader, Partition};
use forebay::wal::options::SPARES;
use forebay::wal::{Entry, ErrorClass, Feed, FeedItem, Log, Opened, Options, PlanRange, State, WalError, open};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const P: Partition = Partition { topic: 1, number: 0 };
const LONG: Duration = Duration::from_secs(20);

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir, Arc::new(Metrics::new()));
    (options.segment_bytes, options.idle) = (64 << 10, LONG);
    options
}

fn start(storage: &Arc<dyn Storage>, options: Options) -> (Log, Feed, State) {
    let Opened { log, feed, state, .. } = open(Arc::clone(storage), options).unwrap();
    (log, feed, state)
}

fn block(first: i64, next: i64) -> Block {
    let payload = Bytes::from(vec![7; 300]);
    let payload_crc = payload_crc(&payload);
    let header =
        BlockHeader { partition: P, first, next, leader_epoch: 0, tenure: 1, count: 1, digest: 0, payload_crc };
    Block { header, payload }
}

fn owned() -> Entry {
    Entry::Owned { partition: P, tenure: 1, first: 0, next: 0, acked_entries: String::new() }
}

fn receipt(first: i64, next: i64) -> Entry {
    Entry::Delivered { route: 0, partition: P, first, next, through_lsn: 0, keep_from: None, detail: vec![] }
}

fn plan(id: u64, blocks: Vec<Block>) -> Entry {
    let range =
        |block: &Block| PlanRange { topic: 1, partition: 0, from: block.header.first, until: block.header.next };
    Entry::Plan { route: 0, id, time_ms: 0, ranges: blocks.iter().map(range).collect(), blocks }
}

fn fold(entries: &[Entry]) -> State {
    let mut state = State::new(1);
    for (lsn, entry) in (1..).zip(entries) {
        state.apply(lsn, entry).unwrap();
    }
    state
}

fn open_ranges(state: &State) -> Vec<(u64, i64, i64)> {
    let each = state.plans.iter().flat_map(|plan| plan.ranges.iter().map(|range| (plan.id, range.from, range.until)));
    each.collect()
}

#[test]
fn receipts_close_ranges_of_plans_and_admit_what_was_never_logged() {
    let planned = [owned(), plan(7, vec![block(0, 10), block(10, 20)]), plan(8, vec![block(20, 30)])];
    let state = fold(&planned);
    assert_eq!(open_ranges(&state), [(7, 0, 10), (7, 10, 20), (8, 20, 30)]);
    assert_eq!(state.partitions[&P].admitted, 0, "a plan admits nothing");
    let state = fold(&[&planned[..], &[receipt(0, 10)]].concat());
    assert_eq!(open_ranges(&state), [(7, 10, 20), (8, 20, 30)]);
    assert_eq!((state.partitions[&P].admitted, state.delivered(P)), (10, 10));
    let undecided = &state.partitions[&P].undecided;
    assert_eq!(undecided.iter().map(|r| (r.tenure, r.first, r.next)).collect::<Vec<_>>(), [(1, 0, 10)]);
    let state = fold(&[&planned[..], &[receipt(0, 30)]].concat());
    assert_eq!((open_ranges(&state), state.partitions[&P].admitted), (vec![], 30));
    let dropped = Entry::PlanDropped { route: 0, id: 7 };
    assert_eq!(open_ranges(&fold(&[&planned[..], &[dropped]].concat())), [(8, 20, 30)]);
}

/// In receiver mode a receipt can lie beyond what a new tenure admitted; that must not look like a hole in the log.
#[test]
fn a_receipt_without_a_plan_admits_nothing() {
    let again = Entry::Owned { partition: P, tenure: 2, first: 4, next: 4, acked_entries: String::new() };
    let state = fold(&[owned(), receipt(0, 10), again, receipt(0, 10)]);
    assert_eq!((state.partitions[&P].admitted, state.delivered(P)), (4, 10));
}

#[test]
fn planned_blocks_come_after_all_that_was_logged_and_are_counted_until_taken() {
    let dir = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(Disk);
    let (log, mut feed, _) = start(&storage, options(dir.path()));
    log.append_synced(vec![owned()]).unwrap();
    log.append_plan(plan(1, vec![block(2, 3), block(3, 4)])).unwrap();
    log.append(Entry::Block(block(0, 2))).unwrap();
    log.append_synced(vec![]).unwrap();
    assert_eq!((log.planned_bytes(), log.marks(P).in_flight.load(Ordering::Acquire)), (600, 2));
    assert!(matches!(feed.next(LONG), Ok(Some(FeedItem::Block { block, .. })) if block.header.first == 0));
    for first in [2, 3] {
        assert!(matches!(feed.next(LONG), Ok(Some(FeedItem::Planned(block))) if block.header.first == first));
    }
    assert_eq!(log.planned_bytes(), 0);
    log.close().unwrap();
    let (log, _, state) = start(&storage, options(dir.path()));
    assert_eq!(open_ranges(&state), [(1, 2, 3), (1, 3, 4)], "open after a restart, without their data");
    log.close().unwrap();
}

#[test]
fn no_planned_block_is_handed_out_before_its_plan_is_durable() {
    let faults = Arc::new(Faults::new(Arc::new(Sim::new(5))));
    let storage: Arc<dyn Storage> = Arc::clone(&faults) as Arc<dyn Storage>;
    let (log, mut feed, _) = start(&storage, options(Path::new("/wal")));
    log.append_synced(vec![owned()]).unwrap();
    let until = Instant::now() + LONG;
    while log.status().spares < SPARES {
        assert!(Instant::now() < until, "no spares");
        std::thread::yield_now();
    }
    faults.fail_always(Operation::Sync, Some(5));
    log.append_plan(plan(1, vec![block(0, 1)])).unwrap();
    match feed.next(LONG) {
        Err(WalError::Poisoned(_)) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(log.append_synced(vec![]).unwrap_err().class(), ErrorClass::Poisoned);
}

/// Each level gives everything back after an ordinary end; only the strongest one syncs groups.
#[test]
fn weaker_levels_do_not_sync_groups_and_lose_nothing_when_closed() {
    for (durability, syncs) in [(Durability::Fsync, true), (Durability::Os, false), (Durability::Memory, false)] {
        let dir = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        let mut settings = options(dir.path());
        settings.durability = durability;
        let metrics = Arc::clone(&settings.metrics);
        let (log, mut feed, _) = start(&storage, settings);
        log.append_synced(vec![owned()]).unwrap();
        for first in 0..300 {
            log.append(Entry::Block(block(first, first + 1))).unwrap();
        }
        log.append_synced(vec![]).unwrap();
        for first in 0..300 {
            assert!(matches!(feed.next(LONG), Ok(Some(FeedItem::Block { block, .. })) if block.header.first == first));
        }
        assert_eq!(metrics.wal_fsyncs.get() > 0, syncs, "{durability:?}");
        log.close().unwrap();
        let (log, mut feed, state) = start(&storage, options(dir.path()));
        assert_eq!(state.partitions[&P].admitted, 300, "{durability:?}");
        for first in 0..300 {
            assert!(matches!(feed.next(LONG), Ok(Some(FeedItem::Block { block, .. })) if block.header.first == first));
        }
        log.close().unwrap();
    }
}

/// They lose what was not synced, and only that: the log opens, and what it has is what was appended first.
#[test]
fn weaker_levels_open_after_a_power_cut_with_what_was_appended_first() {
    for durability in [Durability::Os, Durability::Memory] {
        for seed in 0..60 {
            let sim = Sim::new(seed);
            let storage: Arc<dyn Storage> = Arc::new(sim.clone());
            let settings = Options { durability, ..options(Path::new("/wal")) };
            let (log, mut feed, _) = start(&storage, settings);
            log.append_synced(vec![owned()]).unwrap();
            let count = 20 + 3 * seed as i64;
            for first in 0..count {
                log.append_synced(vec![Entry::Block(block(first, first + 1))]).unwrap();
                feed.next(LONG).unwrap();
                if first % 40 == 39 {
                    log.append_synced(vec![receipt(0, first - 10)]).unwrap();
                }
            }
            let cut: Arc<dyn Storage> = Arc::new(sim.crash(seed));
            drop((log, feed));
            let opened = open(cut, options(Path::new("/wal")));
            let Opened { mut feed, state, .. } = opened.unwrap_or_else(|e| panic!("{durability:?}, {seed}: {e}"));
            let known = state.partitions.get(&P).cloned().unwrap_or_default();
            assert!(known.admitted <= count, "{durability:?}, {seed}");
            let mut next = None;
            while let Some(FeedItem::Block { block, .. }) = feed.next(Duration::ZERO).unwrap() {
                assert_eq!(block.header.first, next.unwrap_or(block.header.first), "{durability:?}, {seed}");
                next = Some(block.header.next);
            }
            assert!(next.is_none_or(|next| next == known.admitted), "{durability:?}, {seed}: {next:?} {known:?}");
        }
    }
}
