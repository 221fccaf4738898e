//! The delivery loop: takes durable blocks from the log's feed, holds back what is in doubt, gathers the rest into
//! batches for the sink, and logs the receipts.
//!
//! Promises: the sink is called again only after the receipts of the call before are durable. Never: it does not hold
//! more payload than its budget; blocks in doubt beyond it are read from the log again when their doubt ends.

use super::Processor;
use super::fence::Verdict;
use super::gather::{self, Bounds, Gathered};
use super::lane::{Lane, PLANNED, name, straddles, verdict};
use super::log_view::LogView;
use super::progress::lock;
pub use super::progress::{DeliveryError, Progress};
use crate::clock;
use crate::io::hook::Hook;
use crate::metrics::Metrics;
use crate::rate::{self, governor::Governor};
use crate::record::topics::Topics;
use crate::record::{Block, BlockHeader, Lsn, Partition};
use crate::sink::{Receipt, Sink, SinkError, Source};
use crate::wal::{Entry, Feed, FeedItem, Log, WalError};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The route all deliveries belong to; there is one so far.
pub const ROUTE: u16 = 0;
/// How long the loop sleeps at most while nothing comes.
const IDLE: Duration = Duration::from_millis(20);
/// The same while blocks wait for their fence.
const WAITING: Duration = Duration::from_micros(500);
/// Blocks held back at most before the feed is left alone.
const WAITING_BLOCKS_MAX: usize = 10_000;
/// No block got past its fence for so long: what is in doubt stays so for a while.
const STUCK: Duration = Duration::from_millis(250);
/// More segments than these are worth finishing outputs for…
const SEGMENTS_MANY: usize = 32;
/// …this often.
const FREE_APART: Duration = Duration::from_secs(2);
/// How often the sink may finish outputs by age.
const TICK: Duration = Duration::from_millis(500);

/// How deliveries are gathered.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A batch goes to the sink when it holds this many bytes…
    pub batch_bytes: usize,
    /// …or its first block is this old.
    pub batch_age: Duration,
    /// Deliver only what is acknowledged by us.
    pub fence: bool,
    /// Pass over what receipts cover; off only in the demo's unprotected run.
    pub dedupe: bool,
    /// Payload bytes of blocks in doubt kept in memory.
    pub waiting_bytes: usize,
}

/// What a delivery is made of.
pub struct Parts {
    /// Where blocks come from.
    pub feed: Feed,
    /// Where receipts go.
    pub log: Log,
    /// Names for numbers.
    pub topics: Topics,
    /// Where blocks go.
    pub sink: Box<dyn Sink>,
    /// The user's step.
    pub processor: Box<dyn Processor>,
    /// How deliveries are gathered.
    pub options: Options,
    /// For tests.
    pub hook: Option<Hook>,
    /// Learns from finished batches.
    pub governor: Arc<Governor>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Shared with the pipeline.
    pub progress: Arc<Progress>,
}

#[derive(Default)]
pub(super) struct Batch {
    blocks: Vec<(Source, Block)>,
    through: HashMap<Partition, Lsn>,
    /// Whose planned blocks are in it, one for each.
    planned: Vec<Partition>,
    pub(super) bytes: usize,
    since: Option<Instant>,
}

/// The loop and all it owns.
pub struct Delivery {
    pub(super) parts: Parts,
    pub(super) lanes: HashMap<Partition, Lane>,
    pub(super) batch: Batch,
    pub(super) waiting_bytes: usize,
    pub(super) waiting_blocks: usize,
    last_tick: Instant,
    last_freed: Instant,
    /// When a block last got past its fence.
    pub(super) last_release: Instant,
    /// When the last delivery ended, and what it took.
    last_flush: (Instant, Duration),
}

impl Delivery {
    /// Wires a loop.
    pub fn new(parts: Parts) -> Self {
        let last_tick = Instant::now();
        Self {
            parts,
            lanes: HashMap::new(),
            batch: Batch::default(),
            waiting_bytes: 0,
            waiting_blocks: 0,
            last_tick,
            last_freed: last_tick,
            last_release: last_tick,
            last_flush: (last_tick, Duration::ZERO),
        }
    }

    /// Brings the sink to what the log says, then delivers until told to stop. Blocks.
    pub fn run(mut self, restored: &[crate::sink::Restored]) -> Result<(), DeliveryError> {
        while let Err(error) = self.with_sink(|sink, view| sink.restore(restored, view)) {
            let SinkError::Retry { after, reason } = error else { return Err(error.into()) };
            self.wait_to_retry(after, &reason)?;
        }
        while !self.parts.progress.stop.load(Ordering::Acquire) {
            self.round()?;
        }
        self.flush()?;
        loop {
            // A call finishes outputs and may give receipts; once they are durable the next one publishes.
            let receipts = self.with_sink(|sink, view| sink.tick(true, view))?;
            if receipts.is_empty() {
                return Ok(());
            }
            self.log_receipts(receipts)?;
        }
    }

    /// Calls the sink with the part of the log that it may use.
    fn with_sink<T>(&mut self, call: impl FnOnce(&mut dyn Sink, &LogView<'_>) -> T) -> T {
        let Parts { sink, log, processor, .. } = &mut self.parts;
        call(sink.as_mut(), &LogView { log, processor: RefCell::new(processor.as_mut()) })
    }

    fn round(&mut self) -> Result<(), DeliveryError> {
        self.release()?;
        let may_take = self.may_take();
        let item = if may_take {
            self.parts.feed.next(self.patience())?
        } else {
            std::thread::sleep(WAITING);
            None
        };
        let idle = item.is_none() && may_take && !self.parts.feed.is_catching_up();
        if let Some(item) = item {
            self.take(item)?;
        }
        if !self.batch.blocks.is_empty() && self.until_due(!idle).is_zero() {
            self.flush()?;
        }
        let open = self.waiting_blocks + self.batch.blocks.len();
        self.parts.progress.open.store(open as u64, Ordering::Release);
        self.parts.progress.in_doubt.store(self.waiting_blocks as u64, Ordering::Release);
        if idle && self.batch.blocks.is_empty() {
            self.parts.progress.idle_rounds.fetch_add(1, Ordering::AcqRel);
        }
        if self.last_tick.elapsed() >= TICK {
            self.last_tick = Instant::now();
            let closing = self.must_free_segments();
            let receipts = self.with_sink(|sink, view| sink.tick(closing, view))?;
            self.log_receipts(receipts)?;
        }
        Ok(())
    }

    /// While blocks get past the fence, the rest is left in the feed rather than read back later; when none do for a while,
    /// the log goes on being read without keeping payloads.
    fn may_take(&self) -> bool {
        let room = self.waiting_bytes < self.parts.options.waiting_bytes;
        self.waiting_blocks < WAITING_BLOCKS_MAX && (room || self.last_release.elapsed() >= STUCK)
    }

    /// An open output of a quiet partition keeps its segment, and so all later ones: when they are many, or there is no
    /// space, outputs are finished before their time.
    fn must_free_segments(&mut self) -> bool {
        let crowded = self.parts.log.is_full() || self.parts.log.status().segments > SEGMENTS_MANY;
        let due = crowded && self.last_freed.elapsed() >= FREE_APART;
        if due {
            self.last_freed = Instant::now();
        }
        due
    }

    fn patience(&self) -> Duration {
        let waiting = if self.waiting_blocks > 0 { WAITING } else { IDLE };
        if self.batch.blocks.is_empty() { waiting } else { self.until_due(false).min(waiting) }
    }

    /// How long what was gathered may wait for more.
    fn until_due(&self, more: bool) -> Duration {
        let Options { batch_bytes, batch_age, .. } = self.parts.options;
        let gathered = Gathered {
            bytes: self.batch.bytes,
            age: self.batch.since.map(|since| since.elapsed()).unwrap_or_default(),
            rested: self.last_flush.0.elapsed(),
            took: self.last_flush.1,
        };
        gather::wait(&gathered, &Bounds { bytes: batch_bytes, age: batch_age }, more)
    }

    fn take(&mut self, item: FeedItem) -> Result<(), DeliveryError> {
        match item {
            FeedItem::Block { lsn, block } => {
                let header = block.header;
                let lane = self.go_on(header.partition);
                lane.taken = lsn;
                self.settle(lsn, header, Some(block))?;
                self.lane(header.partition).note_judged();
                Ok(())
            }
            FeedItem::Planned(block) => {
                let header = block.header;
                self.lane(header.partition);
                self.settle(PLANNED, header, Some(block))
            }
            FeedItem::PassedOver(partition) => {
                self.go_on(partition);
                Ok(())
            }
            FeedItem::Corrupt(damage) => {
                self.stop_lane(damage.partition, &damage.to_string());
                Ok(())
            }
        }
    }

    /// Damage stops its partition alone: nothing later of it is delivered until it is repaired.
    fn stop_lane(&mut self, partition: Partition, text: &str) {
        let lane = self.lane(partition);
        let before = std::mem::replace(&mut lane.stopped, true);
        let name = name(&lane.source);
        if !before {
            tracing::error!("{text}; delivery of {name} stands still there until it is fetched again from Kafka");
            self.parts.metrics.partitions_stopped.inc();
        }
    }

    /// The partition's lane; it goes on, so damage that stopped it is repaired or needed by nobody any more.
    fn go_on(&mut self, partition: Partition) -> &mut Lane {
        let lane = self.lane(partition);
        if std::mem::take(&mut lane.stopped) {
            tracing::info!("delivery of {} goes on", name(&lane.source));
            self.parts.metrics.partitions_stopped.dec();
        }
        self.lane(partition)
    }

    pub(super) fn lane(&mut self, partition: Partition) -> &mut Lane {
        let (topics, log) = (&self.parts.topics, &self.parts.log);
        self.lanes.entry(partition).or_insert_with(|| {
            let marks = log.marks(partition);
            let delivered = marks.delivered.load(Ordering::Acquire);
            let topic = topics.get(partition.topic);
            let (topic, incarnation) = topic.map_or((String::new(), 0), |topic| (topic.name, topic.incarnation));
            let source = Source { partition, topic, incarnation };
            Lane { source, marks, delivered, taken: 0, waiting: VecDeque::new(), stopped: false, held: None }
        })
    }

    /// Puts a block where it belongs now: into the batch, among the waiting, or nowhere.
    fn settle(&mut self, lsn: Lsn, header: BlockHeader, block: Option<Block>) -> Result<(), DeliveryError> {
        let options = self.parts.options;
        let Some(lane) = self.lanes.get_mut(&header.partition) else { return Ok(()) };
        match if lane.waiting.is_empty() { verdict(lane, lsn, &header, &options) } else { Verdict::Wait } {
            Verdict::Deliver => self.add(lsn, &header, block, 0).map(|_| ()),
            Verdict::Delivered | Verdict::Disowned => {
                lane.landed(lsn);
                Ok(())
            }
            Verdict::Wait => {
                let room = self.waiting_bytes < self.parts.options.waiting_bytes;
                // What was never logged can't be read again.
                let block = block.filter(|_| room || lsn == PLANNED);
                self.waiting_bytes += block.as_ref().map_or(0, |block| block.payload.len());
                self.waiting_blocks += 1;
                lane.waiting.push_back((lsn, header, block));
                Ok(())
            }
            Verdict::Straddles => Err(straddles(lane, &header)),
        }
    }

    /// Adds a block to the batch. False if it is damaged in the log; `repaired` is what was repaired when it was asked for.
    pub(super) fn add(
        &mut self,
        lsn: Lsn,
        header: &BlockHeader,
        block: Option<Block>,
        repaired: u64,
    ) -> Result<bool, DeliveryError> {
        let block = match block {
            Some(block) => block,
            None => match self.read_again(header) {
                Err(DeliveryError::Wal(damage @ WalError::Corrupt { .. })) => {
                    self.stop_lane(header.partition, &damage.to_string());
                    self.lane(header.partition).held = Some(repaired);
                    return Ok(false);
                }
                read => {
                    self.go_on(header.partition);
                    read?
                }
            },
        };
        let lane = self.lane(header.partition);
        lane.delivered = header.next;
        let source = lane.source.clone();
        let block = self.parts.processor.process(block).map_err(|why| {
            DeliveryError::Processor(format!("{} [{}, {})", name(&source), header.first, header.next), why)
        })?;
        self.batch.bytes += block.payload.len();
        self.batch.since.get_or_insert_with(Instant::now);
        if lsn == PLANNED {
            self.batch.planned.push(header.partition);
        } else {
            self.batch.through.insert(header.partition, lsn);
        }
        self.batch.blocks.push((source, block));
        Ok(true)
    }

    pub(super) fn flush(&mut self) -> Result<(), DeliveryError> {
        if self.batch.blocks.is_empty() {
            return Ok(());
        }
        let blocks = std::mem::take(&mut self.batch.blocks);
        let waited = self.batch.since.map(|since| since.elapsed()).unwrap_or_default();
        let started = Instant::now();
        let receipts = loop {
            match self.with_sink(|sink, view| sink.deliver(&blocks, view)) {
                Ok(receipts) => break receipts,
                Err(SinkError::Retry { after, reason }) => self.wait_to_retry(after, &reason)?,
                Err(error) => return Err(error.into()),
            }
        };
        self.parts.metrics.sink_syncs.inc();
        self.parts.metrics.sink_sync_seconds.observe(started.elapsed());
        *lock(&self.parts.progress.retrying) = None;
        if let Some(hook) = &self.parts.hook {
            hook.reached();
        }
        self.log_receipts(receipts)?;
        let records: u64 = blocks.iter().map(|(_, block)| u64::from(block.header.count)).sum();
        self.parts.governor.batch_done(&rate::Batch {
            records,
            processing: started.elapsed(),
            scheduling: waited.saturating_sub(self.parts.options.batch_age),
            at: clock::monotonic(),
            failed: false,
        });
        self.parts.metrics.records_delivered.inc_by(records);
        self.parts.metrics.bytes_delivered.inc_by(self.batch.bytes as u64);
        self.parts.metrics.blocks_delivered.inc_by(blocks.len() as u64);
        self.last_flush = (Instant::now(), started.elapsed());
        for partition in std::mem::take(&mut self.batch).planned {
            if let Some(lane) = self.lanes.get(&partition) {
                lane.landed(PLANNED);
            }
        }
        Ok(())
    }

    /// Waits before the sink is asked again; gives up only when the pipeline stops.
    fn wait_to_retry(&mut self, after: Duration, reason: &str) -> Result<(), DeliveryError> {
        self.parts.metrics.sink_retries.inc();
        let mut retrying = lock(&self.parts.progress.retrying);
        if retrying.as_deref() != Some(reason) {
            tracing::warn!("sink: {reason}; trying again every {after:?}");
            *retrying = Some(reason.to_string());
        }
        drop(retrying);
        let until = Instant::now() + after;
        while Instant::now() < until {
            if self.parts.progress.stop.load(Ordering::Acquire) {
                return Err(DeliveryError::Stopped(reason.to_string()));
            }
            std::thread::sleep(IDLE.min(after));
        }
        Ok(())
    }

    /// Makes receipts durable in the log and moves the delivered watermarks.
    fn log_receipts(&mut self, receipts: Vec<Receipt>) -> Result<(), DeliveryError> {
        if receipts.is_empty() {
            return Ok(());
        }
        let ends: Vec<(Partition, i64)> = receipts.iter().map(|receipt| (receipt.partition, receipt.next)).collect();
        let through = &self.batch.through;
        let entries = receipts.into_iter().map(|receipt| Entry::Delivered {
            route: ROUTE,
            partition: receipt.partition,
            first: receipt.first,
            next: receipt.next,
            through_lsn: through.get(&receipt.partition).copied().unwrap_or(0),
            keep_from: receipt.keep_from,
            detail: receipt.detail,
        });
        self.parts.log.append_synced(entries.collect())?;
        for (partition, next) in ends {
            if let Some(lane) = self.lanes.get(&partition) {
                lane.marks.delivered.fetch_max(next, Ordering::AcqRel);
            }
        }
        *lock(&self.parts.progress.last_receipt) = Some((clock::monotonic(), clock::cpu_seconds()));
        Ok(())
    }
}
