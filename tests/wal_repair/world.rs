//! A log with blocks to damage, and somebody who takes what it hands out.

use crate::entries::recorded;
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::{Block, Partition};
use forebay::wal::inspect::{Dumped, dump, inspect};
use forebay::wal::segment::{FileName, classify, wal_name};
use forebay::wal::{CorruptBlock, Entry, Feed, FeedItem, Log, Opened, Options, open};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub const P: Partition = Partition { topic: 1, number: 0 };
pub const Q: Partition = Partition { topic: 1, number: 1 };
pub const DIR: &str = "/wal";
pub const BLOCKS: i64 = 40;
pub const RECORDS: i64 = 5;

pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }
}

/// What Kafka has at `[first, first + RECORDS)`; `twist` changes a value.
pub fn block_of(partition: Partition, first: i64, twist: u8) -> Block {
    let value = |offset| vec![(offset as u8) ^ (partition.number as u8) ^ twist; 700];
    recorded(partition, 1, first..first + RECORDS, value)
}

pub fn again(block: &CorruptBlock) -> Block {
    block_of(block.partition, block.first, 0)
}

pub fn options() -> Options {
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    options.idle = Duration::from_millis(2);
    options.seed = Some(11);
    options
}

pub fn start(sim: &Sim) -> Opened {
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    open(storage, options()).expect("opens")
}

/// A log of several sealed segments with footers, nothing of it delivered, cleanly closed.
pub fn logged(seed: u64) -> Sim {
    let sim = Sim::new(seed);
    let opened = start(&sim);
    let owned = |partition| Entry::Owned { partition, tenure: 1, first: 0, next: 0, acked_entries: String::new() };
    opened.log.append_synced(vec![owned(P), owned(Q)]).unwrap();
    for i in 0..BLOCKS {
        let blocks = [P, Q].map(|partition| Entry::Block(block_of(partition, i * RECORDS, 0)));
        opened.log.append_synced(blocks.into()).unwrap();
    }
    opened.log.close().unwrap();
    sim
}

/// A block's place: partition, number, segment, position, length of header and payload.
pub type Found = (Partition, i64, u64, u64, u64);

pub fn places(sim: &Sim) -> Vec<Found> {
    let mut found = Vec::new();
    let numbers: Vec<_> = inspect(sim, Path::new(DIR)).unwrap().segments.iter().map(|s| s.number).collect();
    for number in numbers {
        let mut note = |piece: Dumped<'_>| {
            if let Dumped::Frame(header, Some(Entry::Block(_))) = piece {
                let (first, len) = (header.first / RECORDS, 96 + u64::from(header.payload_len));
                found.push((header.partition, first, number, header.position, len));
            }
            true
        };
        dump(sim, Path::new(DIR), number, &mut note).unwrap();
    }
    found
}

pub fn path(segment: u64) -> PathBuf {
    Path::new(DIR).join(wal_name(segment))
}

pub fn damage(sim: &Sim, found: &Found, byte: u64) {
    let at = (found.3 + byte) as usize;
    sim.damage(&path(found.2), |bytes| bytes[at] ^= 0x24).unwrap();
}

/// Damages `count` random blocks that lie in segments with a footer.
pub fn damage_some(sim: &Sim, dice: &mut Dice, count: usize) -> Vec<Found> {
    let mut all = places(sim);
    let last = all.last().unwrap().2;
    all.retain(|found| found.2 < last);
    let mut damaged = Vec::new();
    for _ in 0..count {
        let found = all.swap_remove(dice.below(all.len()));
        damage(sim, &found, dice.below(found.4 as usize) as u64);
        damaged.push(found);
    }
    damaged
}

/// Everything the feed gives now: blocks by partition, each checked against Kafka's, and what is damaged.
#[derive(Default)]
pub struct Taken {
    pub next: BTreeMap<Partition, i64>,
    pub corrupt: Vec<CorruptBlock>,
    pub passed_over: Vec<Partition>,
}

impl Taken {
    pub fn take(&mut self, feed: &mut Feed) -> usize {
        let mut count = 0;
        while let Some(item) = feed.next(Duration::ZERO).expect("readable") {
            match item {
                FeedItem::Block { block, .. } => {
                    let Block { header, payload } = block;
                    let next = self.next.entry(header.partition).or_default();
                    assert_eq!(header.first, *next, "{:?}", header.partition);
                    assert!(payload == block_of(header.partition, header.first, 0).payload, "wrong bytes");
                    *next = header.next;
                    count += 1;
                }
                FeedItem::Corrupt(block) => self.corrupt.push(block),
                FeedItem::PassedOver(partition) => self.passed_over.push(partition),
                FeedItem::Planned(block) => panic!("{:?} was never planned", block.header),
            }
        }
        count
    }

    /// Repairs what is wanted, in any order, until all is delivered.
    pub fn heal(&mut self, log: &Log, feed: &mut Feed, dice: &mut Dice) {
        loop {
            self.take(feed);
            let wanted = log.repairs().wanted();
            if wanted.is_empty() {
                return;
            }
            let open = &wanted[dice.below(wanted.len())];
            log.keep_repair(&open.block, &again(&open.block)).unwrap();
        }
    }

    pub fn expect_all(&self) {
        assert_eq!(self.next, BTreeMap::from([(P, BLOCKS * RECORDS), (Q, BLOCKS * RECORDS)]));
    }
}

pub fn repairs(sim: &Sim) -> Vec<String> {
    let names = sim.list(Path::new(DIR)).unwrap();
    names.into_iter().filter(|name| classify(name) == FileName::Repair).collect()
}

/// Opens, repairs up to `most` blocks, and says how many were kept; the machine may stop at any moment.
pub fn live(sim: &Sim, dice: &mut Dice, most: usize) -> usize {
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let Ok(Opened { log, feed, .. }) = open(storage, options()) else { return 0 };
    let mut kept = 0;
    while kept < most {
        let wanted = log.repairs().wanted();
        if wanted.is_empty() {
            break;
        }
        let open = &wanted[dice.below(wanted.len())];
        if log.keep_repair(&open.block, &again(&open.block)).is_err() {
            break;
        }
        kept += usize::from(!sim.is_down());
    }
    drop(feed);
    let _ = log.close();
    kept
}
