//! The delivery loop on a real log: what it does with a log that contradicts itself, and with outputs that keep the log
//! from getting smaller.

#![allow(clippy::unwrap_used, clippy::panic)]

use forebay::io::Storage;
use forebay::io::disk::Disk;
use forebay::metrics::Metrics;
use forebay::processor::Identity;
use forebay::processor::delivery::{Delivery, DeliveryError, Options, Parts, Progress};
use forebay::rate::governor::Governor;
use forebay::rate::limits::Limits;
use forebay::rate::{Kind, Settings};
use forebay::record::batch::{BatchBuilder, RecordRef};
use forebay::record::topics::Topics;
use forebay::record::{Block, BlockHeader, Partition, TopicId};
use forebay::sink::file::FileOptions;
use forebay::sink::render::Format;
use forebay::sink::target::{self, Target};
use forebay::wal::{self, Entry, Log};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BUSY: Partition = Partition { topic: 1, number: 0 };
const QUIET: Partition = Partition { topic: 1, number: 1 };
const LIMIT: Duration = Duration::from_secs(30);
const SEGMENT: u64 = 64 << 10;

/// A log, and a delivery of it into files that nothing but size closes by itself.
struct World {
    log: Log,
    progress: Arc<Progress>,
    delivery: Option<JoinHandle<Result<(), DeliveryError>>>,
    dir: tempfile::TempDir,
}

impl World {
    fn new(max_bytes: Option<u64>, fence: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        let metrics = Arc::new(Metrics::new());
        let mut options = wal::Options::new(dir.path().join("wal"), Arc::clone(&metrics));
        (options.segment_bytes, options.max_bytes) = (SEGMENT, max_bytes);
        let opened = wal::open(Arc::clone(&storage), options).unwrap();
        let hour = Duration::from_secs(3600);
        let files =
            FileOptions { format: Format::Raw, roll_bytes: 1 << 30, roll_age: hour, max_open: 8, sync_threads: 1 };
        let out = dir.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let progress = Arc::new(Progress::default());
        let delivery = Delivery::new(Parts {
            feed: opened.feed,
            log: opened.log.clone(),
            topics: Topics::new([(1, "t".to_owned(), TopicId::default())]),
            sink: target::open(&Target::File { dir: out }, &files, &storage),
            processor: Box::new(Identity),
            options: Options {
                batch_bytes: 1 << 20,
                batch_age: Duration::from_millis(5),
                fence,
                dedupe: true,
                waiting_bytes: 1 << 20,
            },
            hook: None,
            governor: Arc::new(Governor::new(Limits::default(), Settings::new(Kind::None, hour), Duration::ZERO)),
            metrics,
            progress: Arc::clone(&progress),
        });
        let delivery = Some(std::thread::spawn(move || delivery.run(&[])));
        let log = opened.log;
        let topic = Entry::Topic { number: 1, name: "t".to_owned(), id: TopicId::default() };
        log.append_synced(vec![topic, owned(BUSY, 1, 0), owned(QUIET, 1, 0)]).unwrap();
        Self { log, progress, delivery, dir }
    }

    /// Two idle rounds or the end: whatever is possible has been done.
    fn wait_idle(&self) {
        let rounds = || self.progress.idle_rounds.load(Ordering::Acquire);
        let before = rounds();
        let ended = || self.delivery.as_ref().is_none_or(JoinHandle::is_finished);
        wait("delivery to do what it can", || ended() || rounds() >= before + 2);
    }

    fn end(&mut self) -> Result<(), DeliveryError> {
        self.progress.stop.store(true, Ordering::Release);
        self.delivery.take().unwrap().join().unwrap()
    }

    /// All that was written, in the order of the file names.
    fn written(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut dirs = vec![self.dir.path().join("out")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { dirs.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        let text = |path| std::fs::read_to_string(path).unwrap();
        files.into_iter().flat_map(|path| text(path).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < until, "waited {LIMIT:?} for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn owned(partition: Partition, tenure: u32, first: i64) -> Entry {
    Entry::Owned { partition, tenure, first, next: first, acked_entries: String::new() }
}

/// Records `first..next` that take `bytes` each.
fn block(partition: Partition, tenure: u32, first: i64, next: i64, bytes: usize) -> Entry {
    let mut batch = BatchBuilder::new(Vec::new(), first);
    for offset in first..next {
        let value = format!("{offset:0bytes$}");
        batch.push(&RecordRef { offset, timestamp: 1, key: None, value: Some(value.as_bytes()), headers: &[] });
    }
    let batch = batch.finish(next, -1);
    let (digest, payload_crc) = (batch.digest, batch.payload_crc);
    let header =
        BlockHeader { partition, first, next, leader_epoch: -1, tenure, count: batch.count, digest, payload_crc };
    Entry::Block(Block { header, payload: batch.buffer.into() })
}

#[test]
fn a_block_that_begins_below_what_was_delivered_stops_delivery() {
    let mut world = World::new(None, true);
    // Both in doubt; the second tenure began inside the block of the first, which nobody disowned.
    let entries = vec![block(BUSY, 1, 0, 10, 4), owned(BUSY, 2, 5), block(BUSY, 2, 5, 15, 4)];
    world.log.append_synced(entries).unwrap();
    wait("both blocks to wait", || world.progress.in_doubt.load(Ordering::Acquire) == 2);
    world.log.append_synced(vec![Entry::Confirmed { partition: BUSY, tenure: 2, next: 15 }]).unwrap();
    world.wait_idle();
    let error = world.end().unwrap_err().to_string();
    assert_eq!(error, "t/0: block [5, 15) begins below the delivered offset 10");
}

#[test]
fn what_another_tenure_gave_up_does_not_stop_delivery() {
    let mut world = World::new(None, true);
    let disowned = Entry::Disowned { partition: BUSY, tenure: 1, first: 0, next: 10 };
    let entries = vec![block(BUSY, 1, 0, 10, 4), disowned, owned(BUSY, 2, 5), block(BUSY, 2, 5, 15, 4)];
    world.log.append_synced(entries).unwrap();
    world.log.append_synced(vec![Entry::Confirmed { partition: BUSY, tenure: 2, next: 15 }]).unwrap();
    wait("the block to be delivered", || world.log.marks(BUSY).delivered() == 15);
    world.end().unwrap();
    let expected: Vec<String> = (5..15).map(|offset| format!("{offset:04}")).collect();
    assert_eq!(world.written(), expected);
}

/// Fills segment after segment in one partition while the other has one record in an open output.
fn crowd(world: &World, blocks: i64) {
    world.log.append_synced(vec![block(QUIET, 1, 0, 1, 8)]).unwrap();
    wait("the quiet partition's record", || world.log.marks(QUIET).delivered() == 1);
    for first in 0..blocks {
        // One after the other, so that no more waits than fits.
        wait("space", || !world.log.is_full());
        world.log.append(block(BUSY, 1, first, first + 1, 30_000)).unwrap();
        wait("delivery to keep up", || world.log.marks(BUSY).delivered() >= first - 8);
    }
    wait("everything to be delivered", || world.log.marks(BUSY).delivered() == blocks);
}

#[test]
fn a_quiet_partitions_open_output_does_not_keep_segment_after_segment() {
    let mut world = World::new(None, false);
    crowd(&world, 60);
    // Thirty segments and more were begun.
    wait("old segments to be retired", || world.log.status().segments <= 16);
    world.end().unwrap();
    let mut written = world.written();
    written.sort_by_key(|line| (line.len(), line.clone()));
    let busy = (0..60).map(|offset| format!("{offset:030000}"));
    let expected: Vec<String> = std::iter::once(format!("{:08}", 0)).chain(busy).collect();
    assert!(written == expected, "each record once: {} lines", written.len());
}

#[test]
fn a_quiet_partitions_open_output_does_not_keep_the_log_full() {
    // Far fewer segments than are many.
    let mut world = World::new(Some(10 * SEGMENT), false);
    crowd(&world, 60);
    world.end().unwrap();
    assert_eq!(world.written().len(), 61);
}
