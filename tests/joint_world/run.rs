//! One process: the start in the product's order, what it does, the stop.

use super::copies::table_of;
use super::desk::{CallError, Desk, View};
use super::workload::{Act, FIRST, PARTITIONS, fetched};
use super::{Missing, OUT, Stop, World};
use crate::file_sink_world::{self, Lax};
use forebay::dedupe::{Admission, Row, Table};
use forebay::io::Storage;
use forebay::processor::fence::{Verdict, View as Fence, decide};
use forebay::record::topics::Topics;
use forebay::record::{Block, Lsn, Partition, TopicId};
use forebay::sink::file::{FileOptions, FileSink};
use forebay::sink::{Receipt, Restored, Sink, SinkError, Source};
use forebay::wal::{DEFAULT_ROUTE, Entry, Feed, FeedItem, NO_OFFSET, PartitionState, State};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const TOPIC: TopicId = TopicId([7; 16]);
/// So often the sink is asked again while the disk is full; then there is room.
const PATIENCE: u32 = 3;
/// Records that the last life takes at once.
const REST: i64 = 5;

/// A partition on its way to the sink.
struct Lane {
    source: Source,
    tenure: u32,
    delivered: i64,
    acked: i64,
    waiting: VecDeque<(Lsn, Block)>,
}

/// See the module.
pub struct Run<'w> {
    world: &'w mut World,
    sink: FileSink,
    feed: Feed,
    table: Table,
    lanes: Vec<Lane>,
    batch: Vec<(Source, Block)>,
    /// The last LSN of each partition in the batch.
    through: Vec<Lsn>,
}

/// What the log knows of each partition's output.
pub fn restored(state: &State) -> Vec<Restored> {
    let known = state.topics.iter().map(|(number, topic)| (*number, topic.name.clone(), topic.id));
    let topics = Topics::new(known);
    let each = |(partition, known): (&Partition, &PartitionState)| {
        let topic = topics.get(partition.topic)?;
        let source = Source { partition: *partition, topic: topic.name, incarnation: topic.incarnation };
        let delivery = known.on_route(DEFAULT_ROUTE);
        let receipt = delivery.receipt.map(|stored| Receipt {
            partition: *partition,
            first: stored.first,
            next: stored.next,
            detail: stored.detail,
            keep_from: stored.keep_from,
        });
        Some(Restored { source, receipt, named: delivery.named })
    };
    state.partitions.iter().filter_map(each).collect()
}

/// Opens the sink and brings its files to what the log says.
pub fn restored_sink(world: &mut World) -> Result<FileSink, Stop> {
    let missing = match world.desk.missing {
        Some(Missing::FileSync) => Some(file_sink_world::Missing::FileSync),
        Some(Missing::DirSync) => Some(file_sink_world::Missing::DirSync),
        _ => None,
    };
    let storage = Arc::new(Lax(world.desk.life.sim.clone(), missing));
    storage.create_dir_all(Path::new(OUT)).map_err(|error| Stop::Ended(error.to_string()))?;
    let (format, roll_bytes, roll_age) = (world.setup.format, world.setup.roll_bytes, world.setup.roll_age);
    let options = FileOptions { format, roll_bytes, roll_age, max_open: 1, sync_threads: 1 };
    let mut sink = FileSink::new(storage, Path::new(OUT), options);
    let restored = restored(world.desk.life.writer().state());
    patiently(&mut world.desk, |view| sink.restore(&restored, view))?;
    Ok(sink)
}

/// Asks the sink until there is room.
fn patiently<T>(desk: &mut Desk, mut call: impl FnMut(&View<'_>) -> Result<T, SinkError>) -> Result<T, Stop> {
    let mut tries = 0;
    loop {
        tries += 1;
        match desk.with_sink(&mut call) {
            Ok(done) => return Ok(done),
            Err(CallError::Stop(stop)) => return Err(stop),
            Err(CallError::Full(_)) if tries == PATIENCE => desk.make_room()?,
            Err(CallError::Full(why)) if tries > 2 * PATIENCE => {
                return Err(Stop::Violation(format!("no room on an unlimited disk: {why}")));
            }
            Err(CallError::Full(_)) => {}
        }
    }
}

impl<'w> Run<'w> {
    /// Recovers the log, restores the sink, owns the partitions.
    pub fn start(world: &'w mut World) -> Result<Self, Stop> {
        world.open_log()?;
        world.desk.riding.clear();
        let state = world.desk.life.writer().state().clone();
        let table = world.copies.open(&state, &mut world.random, world.desk.missing)?;
        let bytes = world.setup.feed_bytes;
        let feed = world.desk.life.feed(bytes);
        world.desk.life.spares()?;
        let sink = restored_sink(world)?;
        world.check_restored()?;
        let through = vec![0; PARTITIONS as usize];
        let (lanes, batch) = (Vec::new(), Vec::new());
        let mut run = Self { world, sink, feed, table, lanes, batch, through };
        run.own(&state)?;
        Ok(run)
    }

    /// A new tenure of each partition: what is in doubt is adopted, what the group committed is acknowledged.
    fn own(&mut self, state: &State) -> Result<(), Stop> {
        let mut entries = Vec::new();
        let topic = file_sink_world::source(0);
        if state.topics.is_empty() {
            entries.push(Entry::Topic { number: topic.partition.topic, name: topic.topic, id: TOPIC });
        }
        for number in 0..PARTITIONS {
            let source = file_sink_world::source(number);
            let partition = source.partition;
            let known = state.partitions.get(&partition).cloned().unwrap_or_default();
            let tenure = known.tenure + 1;
            let mut row = self.table.row(partition).unwrap_or(Row { deliver: NO_OFFSET, ..Row::default() });
            (row.admit, row.tenure) = (row.admit.max(FIRST), tenure);
            self.table.set(partition, row);
            let committed = self.world.kafka[number as usize].unwrap_or(FIRST);
            let next = known.admitted.max(FIRST);
            entries.push(Entry::Owned { partition, tenure, first: committed, next, acked_entries: String::new() });
            if committed > known.acked.max(FIRST) {
                entries.push(Entry::Confirmed { partition, tenure, next: committed });
            }
            let acked = committed.max(known.acked);
            self.lanes.push(Lane { source, tenure, delivered: row.deliver, acked, waiting: VecDeque::new() });
        }
        self.world.desk.log(entries)
    }

    pub fn act(&mut self, act: Act) -> Result<(), Stop> {
        match act {
            Act::Take(number, records) => self.take(&[(number, records)]),
            Act::Both(zero, one) => self.take(&[(0, zero), (1, one)]),
            Act::Commit | Act::Unheard => {
                self.commit(matches!(act, Act::Commit));
                Ok(())
            }
            Act::Deliver(blocks) => self.deliver(blocks),
            Act::Tick => self.tick(false).map(|_| ()),
            Act::Finish => self.tick(true).map(|_| ()),
            Act::Save => {
                self.world.copies.save(self.world.desk.life.writer().state());
                Ok(())
            }
            other => self.world.desk.act(other),
        }
    }

    /// Takes what is next of these partitions, if there is so much, and there is space for it.
    fn take(&mut self, wanted: &[(i32, i64)]) -> Result<(), Stop> {
        let mut blocks = Vec::new();
        for &(number, records) in wanted {
            let lane = &self.lanes[number as usize];
            let partition = lane.source.partition;
            let first = self.table.row(partition).map_or(FIRST, |row| row.admit);
            let next = first + records;
            if next > self.world.setup.end() {
                continue;
            }
            if self.table.admit(partition, first, next) != Admission::Admit {
                return Err(Stop::Violation(format!("partition {number}: [{first}, {next}) is not admitted")));
            }
            blocks.push(fetched(number, lane.tenure, first, next));
            if self.world.desk.missing == Some(Missing::CommitSync) {
                self.world.kafka[number as usize] = Some(next);
            }
        }
        if !blocks.is_empty() && !self.world.desk.log_blocks(blocks)? {
            // Some of them may be in: what is not is fetched again.
            self.table = table_of(self.world.desk.life.writer().state());
        }
        Ok(())
    }

    /// Commits what is durable.
    fn commit(&mut self, is_heard: bool) {
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            let partition = lane.source.partition;
            let state = self.world.desk.life.writer().state();
            let next = state.partitions.get(&partition).map_or(FIRST, |known| known.admitted);
            let committed = &mut self.world.kafka[number];
            *committed = Some(committed.unwrap_or(FIRST).max(next));
            if is_heard && next > lane.acked {
                lane.acked = next;
                let confirmed = Entry::Confirmed { partition, tenure: lane.tenure, next };
                self.world.desk.riding.push(confirmed);
            }
        }
    }

    /// Moves on what waited, takes from the feed, gives the batch to the sink.
    fn deliver(&mut self, blocks: usize) -> Result<(), Stop> {
        for number in 0..self.lanes.len() {
            let waiting = std::mem::take(&mut self.lanes[number].waiting);
            for (lsn, block) in waiting {
                self.settle(lsn, block)?;
            }
        }
        while self.batch.len() < blocks {
            match self.feed.next(Duration::ZERO).map_err(|error| Stop::Ended(error.to_string()))? {
                None => break,
                Some(FeedItem::Block { lsn, block }) => self.settle(lsn, block)?,
                Some(other) => return Err(Stop::Violation(format!("the feed hands out {other:?}"))),
            }
        }
        self.flush()
    }

    fn settle(&mut self, lsn: Lsn, block: Block) -> Result<(), Stop> {
        let header = block.header;
        let lane = &mut self.lanes[header.partition.number as usize];
        let fence = Fence { delivered: lane.delivered, acked: Some(lane.acked), disowned: &[] };
        match if lane.waiting.is_empty() { decide(&header, &fence) } else { Verdict::Wait } {
            Verdict::Deliver => {
                lane.delivered = header.next;
                self.through[header.partition.number as usize] = lsn;
                self.batch.push((lane.source.clone(), block));
            }
            Verdict::Delivered => {}
            Verdict::Wait => lane.waiting.push_back((lsn, block)),
            Verdict::Disowned => return Err(Stop::Violation(format!("{header:?} counts as given up"))),
            Verdict::Straddles => {
                return Err(Stop::Violation(format!("{header:?} begins below {}", lane.delivered)));
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        let blocks = std::mem::take(&mut self.batch);
        if blocks.is_empty() {
            return Ok(());
        }
        let sink = &mut self.sink;
        let receipts = patiently(&mut self.world.desk, |view| sink.deliver(&blocks, view))?;
        self.world.desk.log_receipts(receipts, &self.through)
    }

    /// True if the sink gave receipts.
    fn tick(&mut self, closing: bool) -> Result<bool, Stop> {
        let sink = &mut self.sink;
        let receipts = patiently(&mut self.world.desk, |view| sink.tick(closing, view))?;
        let gave = !receipts.is_empty();
        self.world.desk.log_receipts(receipts, &self.through)?;
        Ok(gave)
    }

    /// Takes and delivers all there is.
    pub fn finish(&mut self) -> Result<(), Stop> {
        let end = self.world.setup.end();
        for number in 0..PARTITIONS {
            let partition = self.lanes[number as usize].source.partition;
            while let Some(left) = self.table.row(partition).map(|row| end - row.admit).filter(|left| *left > 0) {
                self.take(&[(number, left.min(REST))])?;
                self.commit(true);
                self.deliver(REST as usize)?;
            }
        }
        self.deliver(usize::MAX)
    }

    /// A clean stop.
    pub fn stop(mut self) -> Result<(), Stop> {
        self.deliver(usize::MAX)?;
        // As the contract says: until there is nothing left to publish.
        while self.tick(true)? {}
        self.act(Act::Save)?;
        self.world.desk.log(Vec::new())?;
        Ok(self.world.desk.life.close()?)
    }
}
