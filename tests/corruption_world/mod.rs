//! A log of several segments, cleanly closed, of an exact size from its first header to its end; and what its readers do
//! with damage in it.

pub mod memory;

use crate::crash_world::entries::blocks;
use crate::crash_world::life::{DIR, End, Expected, Life};
use crate::crash_world::steps::{Random, Step, start};
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::{Block, Lsn};
use forebay::wal::catalogue::{Catalogue, Listed, Location};
use forebay::wal::feed::Handover;
use forebay::wal::format::FRAMES_START;
use forebay::wal::format::frame::{FRAME_HEADER, Kind};
use forebay::wal::inspect::{Dumped, SegmentSummary, dump, inspect};
use forebay::wal::recovery::recover;
use forebay::wal::{CorruptBlock, Feed, FeedItem, Options, State};
use memory::Memory;
use std::collections::{BTreeMap, HashMap};
use std::io::IoSlice;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// One segment of the log.
pub struct Segment {
    pub path: PathBuf,
    /// From its header to its end.
    pub end: usize,
    /// Payloads of blocks.
    pub payloads: Vec<Range<usize>>,
    /// What holds only zeros: the rest of header pages, and padding.
    pub zeros: Vec<Range<usize>>,
    pub next_lsn: Lsn,
    pub listed: Listed,
}

/// See the module.
pub struct Log {
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// The same directory at earlier times.
    pub history: Vec<BTreeMap<PathBuf, Vec<u8>>>,
    pub segments: Vec<Segment>,
    pub blocks: HashMap<Lsn, Block>,
    segment_bytes: u64,
}

fn ends(life: &mut Life) -> u64 {
    let catalogue = life.writer().catalogue();
    catalogue.numbers().iter().filter_map(|n| catalogue.end_of(*n)).map(|(end, _)| end).sum()
}

/// A footer of one page, then the empty successor: two headers and two states.
const CLOSING: u64 = 4096 + 4 * 4096;
/// More than any step takes, with a roll in it.
const ROOM: u64 = 100 << 10;

/// Fills the log by these steps, then page by page up to the size; `None` if a segment's end gets in the way.
fn filled(
    steps: &[Step],
    (segment_bytes, bytes): (u64, u64),
    seed: u64,
    metrics: &Arc<Metrics>,
) -> Result<Option<Log>, End> {
    let mut random = Random(seed);
    let mut life = Life::new(Sim::new(seed), Expected::default(), metrics);
    life.segment_bytes = segment_bytes;
    let mut history = Vec::new();
    start(&mut life)?;
    for step in steps.iter().cycle() {
        if ends(&mut life) + CLOSING + ROOM > bytes {
            break;
        }
        step.take(&mut life, &mut random)?;
        history.push(life.sim.files());
    }
    (0..seed).try_for_each(|_| Step::Page.take(&mut life, &mut random))?;
    Step::Roll.take(&mut life, &mut random)?;
    while ends(&mut life) + CLOSING < bytes {
        let step = [Step::Idle, Step::Small, Step::Page, Step::Page, Step::Page][random.below(5) as usize];
        step.take(&mut life, &mut random)?;
        history.push(life.sim.files());
    }
    if ends(&mut life) + CLOSING != bytes {
        return Ok(None);
    }
    life.close()?;
    let blocks = blocks(&life.expected.durable).map(|(lsn, block)| (lsn, block.clone())).collect();
    let (files, segments) = (life.sim.files(), segments(&life.sim));
    let is_exact = segments.iter().map(|s| s.end as u64).sum::<u64>() == bytes;
    Ok(is_exact.then_some(Log { files, history, segments, blocks, segment_bytes }))
}

fn segments(sim: &Sim) -> Vec<Segment> {
    let files = sim.files();
    let overview = inspect(sim, Path::new(DIR)).unwrap();
    assert!(!overview.is_damaged() && overview.findings.is_empty(), "{:?}", overview.findings);
    let of = |summary: SegmentSummary| {
        let (mut start, mut payloads) = (None, Vec::new());
        let mut zeros = vec![128..4080, 4224..8176];
        let mut see = |dumped: Dumped<'_>| {
            if let Dumped::Frame(header, _) = dumped {
                start.get_or_insert(header.position);
                let end = header.end() as usize;
                zeros.push(end - header.pad_len as usize..end);
                if header.kind == Kind::Block {
                    let payload = header.position as usize + FRAME_HEADER;
                    payloads.push(payload..payload + header.payload_len as usize);
                }
            }
            true
        };
        dump(sim, Path::new(DIR), summary.number, &mut see).unwrap();
        let start = start.unwrap_or(summary.end);
        // The two states, alike but for their positions, and the zeros behind them.
        let (bytes, half) = (&files[&summary.path], (start - FRAMES_START) as usize / 2);
        for end in [start as usize - half, start as usize] {
            let zero = bytes[end - half..end].iter().rev().take_while(|byte| **byte == 0).count();
            zeros.push(end - zero..end);
        }
        let listed = Listed {
            number: summary.number,
            salt: summary.header.salt,
            first_lsn: summary.first_lsn,
            start,
            end: summary.end,
            len: summary.bytes,
            runs: std::sync::Arc::default(),
            sealed: summary.sealed,
            verified: true,
        };
        Segment { path: summary.path, end: summary.end as usize, payloads, zeros, next_lsn: summary.next_lsn, listed }
    };
    overview.segments.into_iter().map(of).collect()
}

impl Log {
    /// A log of exactly so many bytes from the first header to the end.
    pub fn of(steps: &[Step], segment_bytes: u64, bytes: u64) -> Self {
        let metrics = Arc::new(Metrics::new());
        for seed in 0..12 {
            match filled(steps, (segment_bytes, bytes), seed, &metrics) {
                Ok(Some(log)) => return log,
                Ok(None) => {}
                Err(end) => panic!("{end:?}"),
            }
        }
        panic!("no log is {bytes} bytes long");
    }

    /// What `wal check` looks at is damaged, or can't be looked at.
    pub fn is_reported(storage: &Memory) -> bool {
        inspect(storage, Path::new(DIR)).map_or(true, |overview| overview.is_damaged())
    }

    /// What a reader of one segment is handed out: never a wrong byte.
    pub fn check_reader(&self, storage: &Arc<dyn Storage>, segment: &Segment, metrics: &Arc<Metrics>) {
        let listed = segment.listed.clone();
        let from = Location { segment: listed.number, position: listed.start, lsn: listed.first_lsn };
        let handover = Arc::new(Handover::new(1 << 20, from, segment.next_lsn, Arc::clone(metrics)));
        let catalogue = Arc::new(Catalogue::new(Path::new(DIR), [listed]));
        let mut feed = Feed::new(Arc::clone(storage), catalogue, handover, State::new(0), Vec::new());
        let mut last = 0;
        while let Ok(Some(item)) = feed.next(Duration::ZERO) {
            if let FeedItem::Block { lsn, block } = item {
                self.check_block(lsn, &block);
                assert!(lsn > last, "LSN {lsn} after {last}");
                last = lsn;
            }
        }
    }

    fn check_block(&self, lsn: Lsn, block: &Block) {
        let good = &self.blocks[&lsn];
        assert_eq!(good.header, block.header, "LSN {lsn}");
        assert!(good.payload == block.payload, "LSN {lsn}: wrong bytes were handed out");
    }

    /// Opens the log from these files, if it opens, and reads everything: what is left out is named, what is handed out
    /// is right and in order, and no partition goes on behind a hole.
    pub fn check_opened(&self, files: &BTreeMap<PathBuf, Vec<u8>>, metrics: &Arc<Metrics>) {
        let sim = Sim::new(1);
        sim.create_dir_all(Path::new(DIR)).unwrap();
        for (path, bytes) in files {
            let file = sim.create_new(path).unwrap();
            file.write_at(0, &[IoSlice::new(bytes)]).unwrap();
        }
        let storage: Arc<dyn Storage> = Arc::new(sim);
        let mut options = Options::new(DIR, Arc::clone(metrics));
        (options.segment_bytes, options.seed) = (self.segment_bytes, Some(1));
        let Ok(log) = recover(&storage, &options) else { return };
        let state = log.writer.state();
        let wanted = |(lsn, block): (&Lsn, &Block)| *lsn >= state.kept_lsn && !state.is_settled(*lsn, &block.header);
        let mut missing: BTreeMap<Lsn, &Block> =
            self.blocks.iter().filter(|(l, b)| wanted((*l, b))).map(|(l, b)| (*l, b)).collect();
        let next = log.writer.durable_lsn() + 1;
        let handover = Arc::new(Handover::new(1 << 20, log.feed_from, next, Arc::clone(metrics)));
        let (catalogue, corrupt) = (Arc::clone(log.writer.catalogue()), log.report.corrupt.clone());
        let mut feed = Feed::new(storage, catalogue, handover, state.clone(), corrupt.clone());
        let mut last = 0;
        while let Ok(Some(item)) = feed.next(Duration::ZERO) {
            if let FeedItem::Block { lsn, block } = item {
                self.check_block(lsn, &block);
                assert!(lsn > last, "LSN {lsn} after {last}");
                (last, _) = (lsn, missing.remove(&lsn));
            }
        }
        for (lsn, block) in missing {
            let of = |c: &&CorruptBlock| c.partition == block.header.partition && c.lsn <= lsn;
            assert!(corrupt.iter().any(|c| of(&c)), "LSN {lsn} is missing, and nothing was said");
        }
    }
}
