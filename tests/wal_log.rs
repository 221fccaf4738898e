//! The log with its threads: append, feed, restart, retirement, full disk, quota, failures.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/entries.rs"]
mod entries;

use entries::{block, delivered, owned, wait_until};
use forebay::io::Storage;
use forebay::io::disk::Disk;
use forebay::io::fault::Faults;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::batch::payload_crc;
use forebay::record::{Block, BlockHeader, Partition, TopicId};
use forebay::wal::inspect::{Dumped, dump, inspect};
use forebay::wal::segment::wal_name;
use forebay::wal::{Entry, ErrorClass, Feed, FeedItem, Log, Opened, Options, WalError, open};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const P: Partition = Partition { topic: 1, number: 0 };
const Q: Partition = Partition { topic: 1, number: 1 };
const LONG: Duration = Duration::from_secs(20);

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir, Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    options.idle = Duration::from_millis(5);
    options
}

fn real() -> Arc<dyn Storage> {
    Arc::new(Disk)
}

fn start(storage: &Arc<dyn Storage>, options: Options) -> Opened {
    open(Arc::clone(storage), options).expect("opens")
}

fn next_block(feed: &mut Feed) -> (u64, Block) {
    match feed.next(LONG).expect("readable") {
        Some(FeedItem::Block { lsn, block }) => (lsn, block),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_appended_comes_back_in_order_now_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let storage = real();
    let Opened { log, mut feed, state, report } = start(&storage, options(dir.path()));
    assert!(report.is_new && state.partitions.is_empty());
    let id = TopicId([7; 16]);
    log.append_synced(vec![Entry::Topic { number: 1, name: "t".into(), id }, owned(P), owned(Q)]).unwrap();
    for i in 0..40 {
        log.append(block(P, i, 5000)).unwrap();
        log.append(block(Q, i, 100)).unwrap();
    }
    let lsn = log.append_synced(vec![]).unwrap();
    assert!(lsn >= 83 && log.durable_lsn() >= lsn);
    assert_eq!((log.marks(P).durable(), log.marks(P).delivered()), (40, -1));
    for i in 0..40 {
        assert_eq!(next_block(&mut feed).1.header.first, i);
        assert_eq!(next_block(&mut feed).1.payload.len(), 100);
    }
    log.append_synced(vec![delivered(P, 40), delivered(Q, 30)]).unwrap();
    log.clone().close().unwrap();
    assert!(matches!(log.append(owned(P)), Err(WalError::Closed)));
    assert!(matches!(feed.next(LONG), Err(WalError::Closed)));
    assert!(!inspect(&Disk, dir.path()).unwrap().is_damaged());

    let Opened { log, mut feed, state, report } = start(&storage, options(dir.path()));
    assert!(!report.is_new && report.torn.is_none() && report.problems.is_empty());
    assert_eq!(state.partitions[&P].delivered(), 40);
    assert_eq!(state.topic_number("t", id), Some(1));
    assert_eq!(log.marks(Q).delivered(), 30);
    for i in 30..40 {
        let (_, block) = next_block(&mut feed);
        assert_eq!((block.header.partition, block.header.first), (Q, i));
    }
    assert!(feed.next(Duration::ZERO).unwrap().is_none());
    log.close().unwrap();
}

#[test]
fn restarting_again_and_again_leaks_no_segments() {
    let dir = tempfile::tempdir().unwrap();
    let storage = real();
    let opened = start(&storage, options(dir.path()));
    opened.log.append_synced(vec![owned(P), block(P, 0, 10)]).unwrap();
    opened.log.close().unwrap();
    let mut counts = Vec::new();
    for _ in 0..5 {
        let opened = start(&storage, options(dir.path()));
        opened.log.close().unwrap();
        counts.push(inspect(&Disk, dir.path()).unwrap().segments.len());
    }
    assert_eq!(counts, [2; 5]);
}

#[test]
fn a_second_process_is_kept_out_and_foreign_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let storage = real();
    let opened = start(&storage, options(dir.path()));
    let second = open(Arc::clone(&storage), options(dir.path())).unwrap_err();
    assert_eq!(second.class(), ErrorClass::Locked);
    opened.log.close().unwrap();
    std::fs::write(dir.path().join("notes.txt"), "x").unwrap();
    let foreign = open(Arc::clone(&storage), options(dir.path())).unwrap_err();
    assert_eq!(foreign.class(), ErrorClass::Foreign);
    assert!(foreign.to_string().contains("notes.txt"), "{foreign}");
}

#[test]
fn a_backlog_beyond_the_budget_is_read_back_and_memory_stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.feed_bytes = 20_000;
    let opened = start(&real(), options);
    let (log, mut feed) = (opened.log, opened.feed);
    log.append_synced(vec![owned(P)]).unwrap();
    for round in 0..3 {
        for i in 0..60 {
            log.append(block(P, round * 60 + i, 3000)).unwrap();
        }
        log.append_synced(vec![]).unwrap();
        // While somebody takes blocks the feed may hold twice its budget; at first nobody has.
        assert!(log.status().feed_bytes <= if round == 0 { 20_000 } else { 40_000 });
        for i in 0..60 {
            let (_, block) = next_block(&mut feed);
            assert_eq!(block.header.first, round * 60 + i);
            assert_eq!(payload_crc(&block.payload), block.header.payload_crc);
        }
        assert!(feed.next(Duration::ZERO).unwrap().is_none());
    }
    let read = log.read_blocks(P, 100, 110).unwrap();
    assert_eq!(read.iter().map(|b| b.header.first).collect::<Vec<_>>(), (100..110).collect::<Vec<_>>());
    assert!(matches!(log.read_blocks(P, 100, 400), Err(WalError::NotKept { .. })));
    log.close().unwrap();
}

#[test]
fn blocks_are_read_again_across_what_was_disowned_owned_elsewhere_or_truncated() {
    let dir = tempfile::tempdir().unwrap();
    let of = |tenure, first, bytes| {
        let Entry::Block(Block { header, payload }) = block(P, first, bytes) else { panic!() };
        Entry::Block(Block { header: BlockHeader { tenure, ..header }, payload })
    };
    let opens = |tenure, first| Entry::Owned { partition: P, tenure, first, next: first, acked_entries: String::new() };
    let truncated =
        Entry::Gap { partition: P, tenure: 2, first: 32, next: 35, reason: "truncation: a leader had less".into() };
    // In one segment, and over several: of sealed ones only those with blocks of the range are looked at first.
    for bytes in [100, 9000] {
        let dir = dir.path().join(bytes.to_string());
        let opened = start(&real(), options(&dir));
        let mut log = opened.log;
        log.append_synced(vec![opens(1, 0)]).unwrap();
        log.append_synced((0..10).map(|first| of(1, first, bytes)).collect()).unwrap();
        let disowned = Entry::Disowned { partition: P, tenure: 1, first: 8, next: 10 };
        log.append_synced(vec![disowned]).unwrap();
        log.append_synced(vec![owned(Q)]).unwrap();
        log.append_synced((0..20).map(|first| block(Q, first, bytes)).collect()).unwrap();
        log.append_synced(vec![opens(2, 30)]).unwrap();
        log.append_synced((30..35).map(|first| of(2, first, bytes)).collect()).unwrap();
        log.append_synced(vec![truncated.clone()]).unwrap();
        log.append_synced((35..40).map(|first| of(2, first, bytes)).collect()).unwrap();
        for _ in 0..2 {
            let firsts = |first, next| {
                log.read_blocks(P, first, next).map(|read| read.iter().map(|b| b.header.first).collect::<Vec<_>>())
            };
            assert_eq!(firsts(5, 40).unwrap(), [5, 6, 7, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39], "{bytes}");
            assert_eq!(firsts(33, 34).unwrap(), [33]);
            assert!(matches!(firsts(5, 41), Err(WalError::NotKept { .. })));
            log.clone().close().unwrap();
            log = start(&real(), options(&dir)).log;
        }
        log.close().unwrap();
    }
}

#[test]
fn a_feed_over_its_budget_is_crowded_only_while_blocks_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.feed_bytes = 20_000;
    let opened = start(&real(), options);
    let (log, mut feed) = (opened.log, opened.feed);
    log.append_synced(vec![owned(P), block(P, 0, 3000)]).unwrap();
    assert!(!log.is_crowded());
    next_block(&mut feed);
    log.append_synced((1..11).map(|first| block(P, first, 3000)).collect()).unwrap();
    assert!(log.is_crowded(), "30,000 bytes wait, and a block was just taken");
    wait_until("nobody takes blocks any more", || !log.is_crowded());
    assert!(log.status().feed_bytes > 20_000);
    for first in 1..11 {
        assert_eq!(next_block(&mut feed).1.header.first, first);
    }
    assert!(!log.is_crowded(), "nothing waits");
    log.close().unwrap();
}

#[test]
fn delivered_segments_are_recycled() {
    let dir = tempfile::tempdir().unwrap();
    let opened = start(&real(), options(dir.path()));
    let (log, mut feed) = (opened.log, opened.feed);
    log.append_synced(vec![owned(P)]).unwrap();
    for i in 0..200 {
        log.append_synced(vec![block(P, i, 3000)]).unwrap();
        next_block(&mut feed);
        log.append_synced(vec![delivered(P, i + 1)]).unwrap();
    }
    wait_until("old segments are gone", || log.status().segments <= 3);
    assert!(log.status().bytes <= 8 * (64 << 10), "{:?}", log.status());
    log.close().unwrap();
    assert!(!inspect(&Disk, dir.path()).unwrap().is_damaged());
}

/// Large groups go past the page cache where the disk can, small ones do not, and both overwrite what the other left there.
/// What will be read back goes through it.
#[test]
fn groups_of_every_size_are_read_back_from_segments_that_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    (options.segment_bytes, options.feed_bytes) = (4 << 20, 1);
    let faults = Arc::new(Faults::new(real()));
    let opened = start(&(Arc::clone(&faults) as Arc<dyn Storage>), options);
    let (log, mut feed) = (opened.log, opened.feed);
    log.append_synced(vec![owned(P)]).unwrap();
    let sizes = [1 << 20, 3000, 524_288, 70_000, 3 << 20, 600_001, 100].into_iter().cycle();
    for (at, bytes) in sizes.take(70).enumerate() {
        let at = at as i64;
        let appended = [block(P, 2 * at, bytes), block(P, 2 * at + 1, bytes / 3)];
        let before = faults.past_the_cache();
        log.append_synced(appended.to_vec()).unwrap();
        let between = faults.past_the_cache();
        assert!(between > before, "nothing is to be read back");
        log.append_synced(vec![delivered(P, 2 * at + 1)]).unwrap();
        assert_eq!(faults.past_the_cache(), between, "the second block is");
        for entry in appended {
            let Entry::Block(expected) = entry else { unreachable!() };
            let (_, found) = next_block(&mut feed);
            assert!(found.payload == expected.payload, "block {}", expected.header.first);
        }
        assert!(feed.next(Duration::from_millis(2)).unwrap().is_none(), "it has caught up");
        log.append_synced(vec![delivered(P, 2 * at + 2)]).unwrap();
    }
    wait_until("old segments are gone", || log.status().segments <= 3);
    log.close().unwrap();
    assert!(!inspect(&Disk, dir.path()).unwrap().is_damaged());
}

#[test]
fn a_segment_rolls_by_age_if_there_is_a_block_in_it() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [empty, with_block] = dirs.each_ref().map(|dir| {
        let options = Options { segment_age: Duration::from_millis(30), ..options(dir.path()) };
        let log = start(&real(), options).log;
        log.append_synced(vec![owned(P)]).unwrap();
        log
    });
    with_block.append_synced(vec![block(P, 0, 100)]).unwrap();
    wait_until("it rolls", || with_block.status().segments == 2);
    // The other one is older.
    assert!(dirs[0].path().join(wal_name(1)).exists());
    for log in [empty, with_block] {
        log.close().unwrap();
    }
}

#[test]
fn at_the_quota_blocks_wait_receipts_pass_and_it_goes_on_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.max_bytes = Some(8 * options.segment_bytes);
    let opened = start(&real(), options.clone());
    let (log, mut feed) = (opened.log, opened.feed);
    log.append_synced(vec![owned(P), owned(Q)]).unwrap();
    for i in 0..200 {
        log.append(block(P, i, 4000)).unwrap();
    }
    wait_until("full", || log.is_full());
    let mut taken = 0;
    while feed.next(Duration::from_millis(300)).unwrap().is_some() {
        taken += 1;
    }
    assert!((30..150).contains(&taken), "{taken} blocks got in");
    assert!(log.status().bytes <= 8 * options.segment_bytes, "{:?}", log.status());
    log.append_synced(vec![delivered(Q, 0)]).unwrap();
    while taken < 200 {
        log.append_synced(vec![delivered(P, taken)]).unwrap();
        while let Some(FeedItem::Block { block, .. }) = feed.next(Duration::from_millis(300)).unwrap() {
            assert_eq!(block.header.first, taken);
            taken += 1;
        }
    }
    wait_until("not full any more", || {
        log.append_synced(vec![delivered(P, 200)]).unwrap();
        !log.is_full()
    });
    assert!(log.status().bytes <= 8 * options.segment_bytes, "{:?}", log.status());
    log.close().unwrap();
}

#[test]
fn a_full_disk_pauses_and_resumes() {
    let sim = Sim::new(3);
    sim.set_capacity(Some(12 * (64 << 10)));
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let opened = start(&storage, options(Path::new("/wal")));
    let (log, mut feed) = (opened.log, opened.feed);
    log.append_synced(vec![owned(P)]).unwrap();
    for i in 0..300 {
        log.append(block(P, i, 4000)).unwrap();
    }
    wait_until("full", || log.is_full());
    let mut taken = 0;
    while taken < 300 {
        while let Some(FeedItem::Block { block, .. }) = feed.next(Duration::from_millis(300)).unwrap() {
            assert_eq!(block.header.first, taken);
            taken += 1;
        }
        log.append_synced(vec![delivered(P, taken)]).unwrap();
    }
    log.close().unwrap();
    assert!(!inspect(&sim, Path::new("/wal")).unwrap().is_damaged());
}

#[test]
fn a_block_larger_than_a_segment_waits_for_space_and_receipts_pass() {
    let sim = Sim::new(4);
    sim.set_capacity(Some(5 * (64 << 10)));
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let opened = start(&storage, options(Path::new("/wal")));
    let (log, mut feed) = (opened.log, opened.feed);
    log.append_synced(vec![owned(P), owned(Q)]).unwrap();
    log.append(block(P, 0, 200_000)).unwrap();
    log.append(block(Q, 0, 100)).unwrap();
    for _ in 0..20 {
        log.append_synced(vec![delivered(Q, 0)]).unwrap();
    }
    assert_eq!((log.marks(P).durable(), log.marks(Q).durable()), (0, 0), "blocks keep their order");
    sim.set_capacity(None);
    assert_eq!(next_block(&mut feed).1.payload.len(), 200_000);
    assert_eq!(next_block(&mut feed).1.payload.len(), 100);
    log.close().unwrap();
    assert!(!inspect(&sim, Path::new("/wal")).unwrap().is_damaged());
}

#[test]
fn everyone_is_told_after_each_sync() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    let woken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&woken);
    options.on_durable = Some(Arc::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    let log = start(&real(), options).log;
    log.append_synced(vec![owned(P)]).unwrap();
    wait_until("woken", || woken.load(Ordering::Relaxed) > 0);
    log.close().unwrap();
}

fn logged(sim: &Sim) -> Log {
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    // No `Idle` frame comes between on a slow machine: the test counts LSNs.
    let options = Options { idle: LONG, ..options(Path::new("/wal")) };
    let log = start(&storage, options).log;
    log.append_synced(vec![owned(P), owned(Q)]).unwrap();
    for i in 0..40 {
        log.append_synced(vec![block(P, i, 1500), block(Q, i, 1500)]).unwrap();
    }
    log
}

/// Position of the block of P that begins at `first`, with its segment.
fn find(sim: &Sim, first: i64) -> (u64, u64) {
    let dir = Path::new("/wal");
    for segment in inspect(sim, dir).unwrap().segments {
        let mut found = None;
        dump(sim, dir, segment.number, &mut |item| {
            if let Dumped::Frame(header, Some(Entry::Block(block))) = item
                && (block.header.partition, block.header.first) == (P, first)
            {
                found = Some((segment.number, header.position));
            }
            found.is_none()
        })
        .unwrap();
        if let Some(found) = found {
            return found;
        }
    }
    panic!("block not found");
}

#[test]
fn a_corrupt_block_stops_its_partition_alone_and_is_named() {
    for damaged_byte in [0, 50, 96, 500] {
        let sim = Sim::new(9);
        logged(&sim).close().unwrap();
        let (segment, position) = find(&sim, 7);
        let path = Path::new("/wal").join(format!("{segment:020}.wal"));
        sim.damage(&path, |bytes| bytes[(position + damaged_byte) as usize] ^= 0x10).unwrap();
        let before = sim.files()[&path].clone();
        let overview = inspect(&sim, Path::new("/wal")).unwrap();
        assert!(overview.is_damaged());
        let finding = &overview.findings[0];
        assert_eq!((finding.path.as_path(), finding.position), (path.as_path(), position));
        assert_eq!((finding.lsn, finding.range), (Some(17), Some((P, 7, 8))));

        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let opened = start(&storage, options(Path::new("/wal")));
        assert_eq!(opened.report.corrupt.len(), 1);
        assert_eq!((opened.report.corrupt[0].lsn, opened.report.corrupt[0].first), (17, 7));
        let mut feed = opened.feed;
        let (mut of_p, mut of_q, mut corrupt) = (0, 0, 0);
        while let Some(item) = feed.next(Duration::ZERO).unwrap() {
            match item {
                FeedItem::Block { block, .. } if block.header.partition == P => of_p += 1,
                FeedItem::Block { .. } => of_q += 1,
                FeedItem::Planned(block) => panic!("{:?} was never planned", block.header),
                FeedItem::PassedOver(partition) => panic!("{partition:?} was not given up"),
                FeedItem::Corrupt(block) => {
                    assert_eq!((block.partition, block.first, block.position), (P, 7, position));
                    corrupt += 1;
                }
            }
        }
        assert_eq!((of_p, of_q, corrupt), (7, 40, 1), "byte {damaged_byte}");
        opened.log.append_synced(vec![delivered(Q, 40)]).unwrap();
        opened.log.close().unwrap();
        assert_eq!(sim.files()[&path], before, "nothing on disk is changed for it");
    }
}

#[test]
fn what_the_logs_thread_has_not_taken_yet_counts_as_queued() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    let (stand, go) = std::sync::mpsc::sync_channel::<()>(0);
    let go = std::sync::Mutex::new(go);
    // The log's thread stands still after its first sync, until the sender is gone.
    options.on_durable = Some(Arc::new(move || {
        let _ = go.lock().unwrap().recv();
    }));
    let Opened { log, .. } = start(&real(), options);
    log.append(owned(P)).unwrap();
    wait_until("the first sync", || log.durable_lsn() > 0);
    let blocks: Vec<Entry> = (0..20).map(|first| block(P, first, 5000)).collect();
    let bytes: u64 = blocks.iter().map(Entry::bytes).sum();
    assert!(bytes >= 100_000);
    for block in blocks {
        log.append(block).unwrap();
    }
    assert_eq!(log.queued_bytes(), bytes, "nothing of it is durable");
    assert_eq!(log.status().queued_bytes as u64, bytes);
    drop(stand);
    log.append_synced(vec![]).unwrap();
    assert_eq!(log.queued_bytes(), 0);
    log.close().unwrap();
}
