//! The logs that are compared, each set up for durable appends as its documentation says.

use crate::ceiling;
use crate::load::{Engine, Shape};
use anyhow::{Result, anyhow};
use bytes::Bytes;
use forebay::io::disk::Disk;
use forebay::metrics::Metrics;
use forebay::record::batch::payload_crc;
use forebay::record::{Block, BlockHeader, Partition, TopicId};
use forebay::wal::{Entry, Feed, FeedItem, Log, Opened, Options};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Make = fn(&Path, &Shape) -> Result<Box<dyn Engine>>;

/// By name.
pub const ALL: [(&str, Make); 5] = [
    ("forebay", Forebay::make),
    ("raft_engine", Raft::make),
    ("okaywal", Okay::make),
    ("fjall", Fjall::make),
    ("ceiling", ceiling::make),
];

const SETTLED: Duration = Duration::from_millis(100);

/// Forebay's log as its pipeline uses it: a partition per writer, a thread that takes what is durable from the feed and
/// logs receipts, so that segments retire and are used again.
pub struct Forebay {
    log: Log,
    metrics: Arc<Metrics>,
    next: Vec<AtomicI64>,
    stop: Arc<AtomicBool>,
    taker: JoinHandle<Result<()>>,
}

/// The partition of a writer.
pub fn partition(writer: usize) -> Partition {
    Partition { topic: 1, number: writer as i32 }
}

/// The entries a log of so many partitions begins with.
pub fn beginning(writers: usize) -> Vec<Entry> {
    let topic = Entry::Topic { number: 1, name: "bench".into(), id: TopicId([1; 16]) };
    let owned = |writer| Entry::Owned {
        partition: partition(writer),
        tenure: 1,
        first: 0,
        next: 0,
        acked_entries: String::new(),
    };
    std::iter::once(topic).chain((0..writers).map(owned)).collect()
}

/// A block with its header, the checksum computed.
pub fn block(partition: Partition, first: i64, payload: Bytes) -> Entry {
    let payload_crc = payload_crc(&payload);
    let (next, leader_epoch, tenure, count, digest) = (first + 1, 0, 1, 1, payload_crc);
    Entry::Block(Block {
        header: BlockHeader { partition, first, next, leader_epoch, tenure, count, digest, payload_crc },
        payload,
    })
}

impl Forebay {
    fn make(dir: &Path, shape: &Shape) -> Result<Box<dyn Engine>> {
        let metrics = Arc::new(Metrics::new());
        let options = Options::new(dir, Arc::clone(&metrics));
        let Opened { log, feed, .. } = forebay::wal::open(Arc::new(Disk), options)?;
        log.append_synced(beginning(shape.writers))?;
        let stop = Arc::new(AtomicBool::new(false));
        let taker = std::thread::spawn({
            let (log, stop) = (log.clone(), Arc::clone(&stop));
            move || take(&log, feed, &stop)
        });
        let next = (0..shape.writers).map(|_| AtomicI64::new(0)).collect();
        Ok(Box::new(Self { log, metrics, next, stop, taker }))
    }
}

/// Takes blocks and logs a receipt for what was taken, ten times a second.
fn take(log: &Log, mut feed: Feed, stop: &AtomicBool) -> Result<()> {
    let (mut taken, mut last) = (BTreeMap::new(), Instant::now());
    while !stop.load(Ordering::Acquire) {
        if let Some(FeedItem::Block { lsn, block }) = feed.next(SETTLED)? {
            taken.insert(block.header.partition, (lsn, block.header.next));
        }
        if last.elapsed() >= SETTLED {
            for (partition, (through_lsn, next)) in std::mem::take(&mut taken) {
                let (keep_from, detail) = (None, vec![0; 40]);
                log.append(Entry::Delivered { route: 0, partition, first: 0, next, through_lsn, keep_from, detail })?;
            }
            last = Instant::now();
        }
    }
    Ok(())
}

impl Engine for Forebay {
    fn append(&self, writer: usize, payload: &Bytes) -> Result<()> {
        let first = self.next[writer].fetch_add(1, Ordering::Relaxed);
        self.log.append_synced(vec![block(partition(writer), first, payload.clone())])?;
        Ok(())
    }

    fn syncs(&self) -> Option<u64> {
        Some(self.metrics.wal_groups.get())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        self.taker.join().map_err(|_| anyhow!("the taker panicked"))??;
        self.log.close()?;
        Ok(())
    }
}

/// raft-engine: a region per writer, no compression, files used again; what is no longer needed is purged.
struct Raft {
    engine: Arc<raft_engine::Engine>,
    next: Vec<AtomicU64>,
    stop: Arc<AtomicBool>,
    purger: JoinHandle<Result<()>>,
}

#[derive(Clone)]
struct RaftEntry;

impl raft_engine::MessageExt for RaftEntry {
    type Entry = protobuf::well_known_types::BytesValue;

    /// The index is written in front of the payload.
    fn index(entry: &Self::Entry) -> u64 {
        entry.value.first_chunk().map_or(0, |index| u64::from_le_bytes(*index))
    }
}

impl Raft {
    fn make(dir: &Path, shape: &Shape) -> Result<Box<dyn Engine>> {
        use raft_engine::{Config, ReadableSize};
        let config = Config {
            dir: dir.display().to_string(),
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize::mb(64),
            purge_threshold: ReadableSize::mb(256),
            enable_log_recycle: true,
            prefill_for_recycle: true,
            ..Config::default()
        };
        let engine = Arc::new(raft_engine::Engine::open(config)?);
        let stop = Arc::new(AtomicBool::new(false));
        let purger = std::thread::spawn({
            let (engine, stop, writers) = (Arc::clone(&engine), Arc::clone(&stop), shape.writers as u64);
            move || {
                while !stop.load(Ordering::Acquire) {
                    for region in 1..=writers {
                        if let Some(last) = engine.last_index(region) {
                            engine.compact_to(region, last);
                        }
                    }
                    engine.purge_expired_files()?;
                    std::thread::sleep(SETTLED);
                }
                Ok(())
            }
        });
        let next = (0..shape.writers).map(|_| AtomicU64::new(1)).collect();
        Ok(Box::new(Self { engine, next, stop, purger }))
    }
}

impl Engine for Raft {
    fn append(&self, writer: usize, payload: &Bytes) -> Result<()> {
        let index = self.next[writer].fetch_add(1, Ordering::Relaxed);
        let mut value = Vec::with_capacity(payload.len() + 8);
        value.extend_from_slice(&index.to_le_bytes());
        value.extend_from_slice(payload);
        let mut entry = protobuf::well_known_types::BytesValue::new();
        entry.set_value(value);
        let mut batch = raft_engine::LogBatch::default();
        batch.add_entries::<RaftEntry>(writer as u64 + 1, &[entry])?;
        self.engine.write(&mut batch, true)?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        self.purger.join().map_err(|_| anyhow!("the purger panicked"))?
    }
}

/// okaywal: checkpoints drop what was logged, its files are used again.
struct Okay(okaywal::WriteAheadLog);

impl Okay {
    fn make(dir: &Path, _: &Shape) -> Result<Box<dyn Engine>> {
        let configuration =
            okaywal::Configuration::default_for(dir).preallocate_bytes(64 << 20).checkpoint_after_bytes(60 << 20);
        Ok(Box::new(Self(configuration.open(okaywal::LogVoid)?)))
    }
}

impl Engine for Okay {
    fn append(&self, _: usize, payload: &Bytes) -> Result<()> {
        let mut entry = self.0.begin_entry()?;
        entry.write_chunk(payload)?;
        entry.commit()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.shutdown()?)
    }
}

/// fjall: a key-value store with a journal; a few keys per writer, written again and again.
struct Fjall {
    database: fjall::Database,
    keyspace: fjall::Keyspace,
    next: Vec<AtomicU64>,
}

impl Fjall {
    fn make(dir: &Path, shape: &Shape) -> Result<Box<dyn Engine>> {
        let database = fjall::Database::builder(dir).open()?;
        let keyspace = database.keyspace("bench", fjall::KeyspaceCreateOptions::default)?;
        let next = (0..shape.writers).map(|_| AtomicU64::new(0)).collect();
        Ok(Box::new(Self { database, keyspace, next }))
    }
}

impl Engine for Fjall {
    fn append(&self, writer: usize, payload: &Bytes) -> Result<()> {
        const KEYS: u64 = 256;
        let key = self.next[writer].fetch_add(1, Ordering::Relaxed) % KEYS;
        self.keyspace.insert([&(writer as u64).to_be_bytes()[..], &key.to_be_bytes()].concat(), &payload[..])?;
        self.database.persist(fjall::PersistMode::SyncData)?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
