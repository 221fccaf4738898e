//! A small life of log, delivery and file sink in a process of its own: takes records from nowhere, logs them, says how
//! far they are committed, writes them to files, retires and recycles segments, ends cleanly.
//!
//! It is this test binary, run again with [`DIR`] set.

use forebay::io::Storage;
use forebay::io::disk::Disk;
use forebay::metrics::Metrics;
use forebay::processor::Identity;
use forebay::processor::delivery::{Delivery, Options, Parts, Progress};
use forebay::rate::governor::Governor;
use forebay::rate::limits::Limits;
use forebay::rate::{Kind, Settings};
use forebay::record::batch::{BatchBuilder, RecordRef};
use forebay::record::topics::Topics;
use forebay::record::{Block, BlockHeader, Partition, TopicId};
use forebay::sink::file::FileOptions;
use forebay::sink::render::Format;
use forebay::sink::target::{self, Target};
use forebay::sink::{Receipt, Restored, Sink, Source};
use forebay::wal::{self, Entry, Feed, Log, State};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Names the directory; without it nothing is driven.
pub const DIR: &str = "FOREBAY_FAULTS_DIR";
/// The file that says how far offsets are committed, one line each.
pub const COMMITS: &str = "commits";
/// Names the shape of the life, by its place in [`SHAPES`].
pub const SHAPE: &str = "FOREBAY_FAULTS_SHAPE";
/// Ends the life before its last record.
pub const UNTIL: &str = "FOREBAY_FAULTS_UNTIL";
const P: Partition = Partition { topic: 1, number: 0 };
/// Exit code: the log has less than what was committed.
pub const LOST: i32 = 65;
/// Exit code: the log or the sink refused to go on.
pub const STOPPED: i32 = 74;
/// Exit code: nothing moves any more.
pub const HANGS: i32 = 75;
const LIMIT: Duration = Duration::from_secs(60);

/// How much there is of everything.
#[derive(Debug)]
pub struct Shape {
    /// Records of a whole life.
    pub records: i64,
    pub per_block: i64,
    pub value_bytes: usize,
    pub segment_bytes: u64,
    roll_bytes: u64,
    batch_bytes: usize,
}

/// Many small groups, through the page cache.
pub const SMALL: usize = 0;
/// Groups that go past the page cache.
pub const LARGE: usize = 1;
/// Files that become longer than a segment.
pub const FILES: usize = 2;

pub static SHAPES: [Shape; 3] = [
    Shape {
        records: 400,
        per_block: 10,
        value_bytes: 700,
        segment_bytes: 64 << 10,
        roll_bytes: 60_000,
        batch_bytes: 20_000,
    },
    Shape {
        records: 60,
        per_block: 4,
        value_bytes: 150_000,
        segment_bytes: 2 << 20,
        roll_bytes: 1_500_000,
        batch_bytes: 700_000,
    },
    Shape {
        records: 400,
        per_block: 10,
        value_bytes: 700,
        segment_bytes: 64 << 10,
        roll_bytes: 150_000,
        batch_bytes: 20_000,
    },
];

fn number(name: &str) -> Option<i64> {
    std::env::var(name).ok()?.parse().ok()
}

fn block(first: i64, shape: &Shape) -> Block {
    let next = first + shape.per_block;
    let mut batch = BatchBuilder::new(Vec::new(), first);
    for offset in first..next {
        let digits = offset.to_string();
        let value = "0".repeat(shape.value_bytes - digits.len()) + &digits;
        batch.push(&RecordRef { offset, timestamp: 1, key: None, value: Some(value.as_bytes()), headers: &[] });
    }
    let batch = batch.finish(next, -1);
    let (digest, payload_crc) = (batch.digest, batch.payload_crc);
    let (partition, tenure, count) = (P, 1, batch.count);
    let header = BlockHeader { partition, first, next, leader_epoch: -1, tenure, count, digest, payload_crc };
    Block { header, payload: batch.buffer.into() }
}

fn restored(state: &State) -> Vec<Restored> {
    let source = Source { partition: P, topic: "t".into(), incarnation: 1 };
    let Some(known) = state.partitions.get(&P) else { return Vec::new() };
    let delivery = known.on_route(0);
    let receipt = delivery.receipt.map(|stored| Receipt {
        partition: P,
        first: stored.first,
        next: stored.next,
        detail: stored.detail,
        keep_from: stored.keep_from,
    });
    vec![Restored { source, receipt, named: delivery.named }]
}

/// The last line of the commits.
pub fn committed(dir: &Path) -> i64 {
    let text = std::fs::read_to_string(dir.join(COMMITS)).unwrap_or_default();
    text.lines().last().and_then(|line| line.parse().ok()).unwrap_or_default()
}

/// Runs the life in `dir`; the exit code.
pub fn drive(dir: &Path) -> i32 {
    match try_drive(dir) {
        Ok(()) => 0,
        Err(code) => code,
    }
}

fn stopped(error: impl std::fmt::Display) -> i32 {
    eprintln!("stopped: {error}");
    STOPPED
}

fn try_drive(dir: &Path) -> Result<(), i32> {
    let shape = &SHAPES[number(SHAPE).map_or(SMALL, |shape| shape as usize)];
    let records = number(UNTIL).unwrap_or(shape.records);
    let storage: Arc<dyn Storage> = Arc::new(Disk);
    let metrics = Arc::new(Metrics::new());
    let mut options = wal::Options::new(dir.join("wal"), Arc::clone(&metrics));
    options.segment_bytes = shape.segment_bytes;
    options.idle = Duration::from_millis(20);
    let opened = wal::open(Arc::clone(&storage), options).map_err(stopped)?;
    let known = opened.state.partitions.get(&P).cloned().unwrap_or_default();
    let admitted = known.admitted.max(0);
    if admitted < committed(dir) {
        eprintln!("lost: {admitted} admitted, {} committed", committed(dir));
        return Err(LOST);
    }
    let log = opened.log;
    if known.tenure == 0 {
        let topic = Entry::Topic { number: 1, name: "t".to_owned(), id: TopicId::default() };
        let owned = Entry::Owned { partition: P, tenure: 1, first: 0, next: 0, acked_entries: String::new() };
        log.append_synced(vec![topic, owned]).map_err(stopped)?;
    }
    let out = dir.join("out");
    storage.create_dir_all(&out).map_err(stopped)?;
    let (roll_bytes, roll_age) = (shape.roll_bytes, Duration::from_secs(3600));
    let files = FileOptions { format: Format::Raw, roll_bytes, roll_age, max_open: 8, sync_threads: 1 };
    let progress = Arc::new(Progress::default());
    let sink = target::open(&Target::File { dir: out }, &files, &storage);
    let delivery = delivery(opened.feed, &log, sink, shape.batch_bytes, &progress, metrics);
    let restored = restored(&opened.state);
    let delivery = std::thread::spawn(move || delivery.run(&restored));
    let until = Instant::now() + LIMIT;
    let mut appended = admitted;
    let commits =
        std::fs::File::options().create(true).truncate(false).write(true).open(dir.join(COMMITS)).map_err(stopped)?;
    while log.marks(P).delivered() < records || committed(dir) < records {
        if let Some(error) = log.failure() {
            return Err(stopped(error));
        }
        if delivery.is_finished() {
            break;
        }
        // A few blocks at a time, so that many groups are synced.
        if appended < records && log.marks(P).durable() >= appended - 2 * shape.per_block {
            log.append(Entry::Block(block(appended, shape))).map_err(stopped)?;
            appended += shape.per_block;
        }
        let durable = log.marks(P).durable();
        if durable > committed(dir) {
            // One that fails is no reason to stop: the next one says more.
            let end = commits.metadata().map_err(stopped)?.len();
            if let Err(error) = commits.write_all_at(format!("{durable}\n").as_bytes(), end) {
                eprintln!("not committed: {error}");
            }
        }
        if Instant::now() > until {
            eprintln!("hangs: {:?}", log.status());
            return Err(HANGS);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    progress.stop.store(true, Ordering::Release);
    let ended = delivery.join().map_err(|_| stopped("the delivery panicked"))?;
    ended.map_err(stopped)?;
    log.close().map_err(stopped)
}

fn delivery(
    feed: Feed,
    log: &Log,
    sink: Box<dyn Sink>,
    batch_bytes: usize,
    progress: &Arc<Progress>,
    metrics: Arc<Metrics>,
) -> Delivery {
    let hour = Duration::from_secs(3600);
    Delivery::new(Parts {
        feed,
        log: log.clone(),
        topics: Topics::new([(1, "t".to_owned(), TopicId::default())]),
        sink,
        processor: Box::new(Identity),
        options: Options {
            batch_bytes,
            batch_age: Duration::from_millis(1),
            fence: false,
            dedupe: true,
            waiting_bytes: 4 << 20,
        },
        hook: None,
        governor: Arc::new(Governor::new(Limits::default(), Settings::new(Kind::None, hour), Duration::ZERO)),
        metrics,
        progress: Arc::clone(progress),
    })
}
