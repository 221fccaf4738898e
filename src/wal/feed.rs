//! The feed: durable blocks in LSN order, from memory while it lasts, else read back from the segments.
//!
//! Promises: a block is handed out only after its sync; memory is bounded in bytes, however long the backlog: beyond the
//! budget only one place in the log is remembered. Reading back costs more than waiting a moment, so while blocks are being
//! taken the feed may hold up to twice its budget and asks the sources to wait ([`Handover::is_crowded`]); once nobody
//! takes any, the log takes all that comes. Corrupt bytes stop their partition, not the others.

use super::catalogue::{Catalogue, Location};
use super::error::WalError;
use super::format::footer::IndexEntry;
use super::format::frame::{FRAME_HEADER, FrameHeader, Kind};
use super::format::state::State;
use super::scan::finding::CorruptBlock;
use super::scan::{BadPart, Damage, Piece, Scanner, index};
use crate::io::Storage;
use crate::metrics::Metrics;
use crate::record::{Block, Lsn, Partition};
use bytes::Bytes;
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Nothing was taken for so long: the sink stands still.
const STANDSTILL: Duration = Duration::from_millis(250);

/// What is to be read back counts as little below so many budgets.
const SHORT: usize = 4;

/// What the feed hands out. Cloning shares the payload.
#[derive(Clone, Debug)]
pub enum FeedItem {
    /// A durable block.
    Block {
        /// Its LSN.
        lsn: Lsn,
        /// The block.
        block: Block,
    },
    /// A block of direct mode: its plan is durable, its data was never logged.
    Planned(Block),
    /// An acknowledged block that can't be read. Later blocks of its partition are not handed out.
    Corrupt(CorruptBlock),
}

#[derive(Debug, Default)]
struct Shelf {
    queue: VecDeque<(Lsn, Block)>,
    /// Blocks of direct mode; handed out after everything that was logged.
    planned: VecDeque<Block>,
    bytes: usize,
    /// Set: blocks from here on are read back.
    behind: Option<Location>,
    /// Bytes of blocks to be read back, as far as they were counted.
    behind_bytes: usize,
    /// When a block was last taken out of memory.
    taken: Option<Instant>,
    /// The next LSN to become durable.
    next_lsn: Lsn,
    failed: Option<Arc<WalError>>,
    is_closed: bool,
}

impl Shelf {
    fn is_moving(&self) -> bool {
        self.taken.is_some_and(|taken| taken.elapsed() < STANDSTILL)
    }
}

/// Between the log's thread, which puts blocks in, and the feed.
#[derive(Debug)]
pub struct Handover {
    shelf: Mutex<Shelf>,
    changed: Condvar,
    limit: usize,
    /// Bytes of planned blocks announced and not handed out yet.
    planned_bytes: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl Handover {
    /// Keeps at most `limit` bytes (or one block); reads back from `from` on, the log ends before `next_lsn`.
    pub fn new(limit: usize, from: Location, next_lsn: Lsn, metrics: Arc<Metrics>) -> Self {
        let behind = (from.lsn < next_lsn).then_some(from);
        // What an earlier life left was not counted: it is much.
        let behind_bytes = if behind.is_some() { usize::MAX } else { 0 };
        let shelf = Mutex::new(Shelf { behind, behind_bytes, next_lsn, ..Shelf::default() });
        Self { shelf, changed: Condvar::new(), limit, planned_bytes: AtomicUsize::new(0), metrics }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the blocks of a group that has just become durable; `next_lsn` follows its last frame.
    pub fn put<'a>(&self, blocks: impl Iterator<Item = (Location, &'a Block)>, next_lsn: Lsn) {
        let mut shelf = self.shelf();
        let limit = if shelf.behind.is_none() && shelf.is_moving() { 2 * self.limit } else { self.limit };
        for (location, block) in blocks {
            let bytes = block.payload.len();
            let fits = shelf.bytes + bytes <= limit || shelf.queue.is_empty();
            if shelf.behind.is_none() && fits {
                shelf.queue.push_back((location.lsn, block.clone()));
                shelf.bytes += bytes;
            } else {
                shelf.behind.get_or_insert(location);
                shelf.behind_bytes = shelf.behind_bytes.saturating_add(bytes);
                self.metrics.feed_spilled_blocks.inc();
            }
        }
        shelf.next_lsn = next_lsn;
        drop(shelf);
        self.changed.notify_all();
    }

    /// Blocks of direct mode are on their way: from now on their bytes count.
    pub fn announce(&self, blocks: &[Block]) {
        let bytes = blocks.iter().map(|block| block.payload.len()).sum();
        self.planned_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes announced blocks whose plan is durable. They are never dropped: who announces them bounds their bytes by
    /// [`Handover::planned_bytes`].
    pub fn put_planned(&self, blocks: impl IntoIterator<Item = Block>) {
        self.shelf().planned.extend(blocks);
        self.changed.notify_all();
    }

    /// Bytes of planned blocks announced and not handed out yet.
    pub fn planned_bytes(&self) -> usize {
        self.planned_bytes.load(Ordering::Relaxed)
    }

    /// True while the budget is used up and blocks are being taken: it is worth waiting a moment before more is logged.
    pub fn is_crowded(&self) -> bool {
        let shelf = self.shelf();
        // A short way back is worth making up first; a long one is what the log is for.
        let little =
            if shelf.behind.is_some() { shelf.behind_bytes < SHORT * self.limit } else { shelf.bytes > self.limit };
        little && shelf.is_moving()
    }

    /// Nothing more is handed out: the log is poisoned.
    pub fn fail(&self, error: Arc<WalError>) {
        self.shelf().failed = Some(error);
        self.changed.notify_all();
    }

    /// Nothing more comes: the log was closed.
    pub fn close(&self) {
        self.shelf().is_closed = true;
        self.changed.notify_all();
    }

    /// Segments from this number on may be read: they must not be given up.
    pub fn pinned(&self) -> u64 {
        self.shelf().behind.map_or(u64::MAX, |location| location.segment)
    }

    /// Bytes of blocks held in memory.
    pub fn bytes(&self) -> usize {
        self.shelf().bytes
    }
}

/// Reads durable blocks. One owner; blocks at most as long as it is told.
#[derive(Debug)]
pub struct Feed {
    storage: Arc<dyn Storage>,
    catalogue: Arc<Catalogue>,
    handover: Arc<Handover>,
    cursor: Option<Cursor>,
    /// What was settled before the log was opened: the state then, and its last LSN.
    settled: Arc<State>,
    corrupt: Vec<CorruptBlock>,
    stopped: HashSet<Partition>,
    pending: VecDeque<CorruptBlock>,
}

#[derive(Debug)]
struct Cursor {
    at: Location,
    scanner: Option<Scanner>,
}

/// What reading one piece gave.
enum Step {
    Item(FeedItem),
    Nothing,
    CaughtUp,
}

impl Feed {
    /// A feed of a log that was opened in this state, with these corrupt blocks known.
    pub fn new(
        storage: Arc<dyn Storage>,
        catalogue: Arc<Catalogue>,
        handover: Arc<Handover>,
        state: State,
        corrupt: Vec<CorruptBlock>,
    ) -> Self {
        Self {
            storage,
            catalogue,
            handover,
            cursor: None,
            settled: Arc::new(state),
            corrupt,
            stopped: HashSet::new(),
            pending: VecDeque::new(),
        }
    }

    /// The next durable block that was not settled (delivered or disowned) when the log was opened; `None` if there is
    /// none within the time. An error is final.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<FeedItem>, WalError> {
        let deadline = Instant::now() + timeout;
        loop {
            let item = match self.take(deadline)? {
                Taken::Item(item) => item,
                Taken::TimedOut => return Ok(None),
                Taken::Behind(location) => match self.read_back(location)? {
                    Step::Item(item) => item,
                    Step::Nothing | Step::CaughtUp => continue,
                },
            };
            if let Some(item) = self.admit(item) {
                return Ok(Some(item));
            }
        }
    }

    /// Leaves out what follows a corrupt block in its partition.
    fn admit(&mut self, item: FeedItem) -> Option<FeedItem> {
        match &item {
            FeedItem::Block { block, .. } | FeedItem::Planned(block) => {
                (!self.stopped.contains(&block.header.partition)).then_some(item)
            }
            FeedItem::Corrupt(corrupt) => self.stopped.insert(corrupt.partition).then_some(item),
        }
    }

    fn take(&mut self, deadline: Instant) -> Result<Taken, WalError> {
        if let Some(corrupt) = self.pending.pop_front() {
            return Ok(Taken::Item(FeedItem::Corrupt(corrupt)));
        }
        let mut shelf = self.handover.shelf();
        loop {
            if let Some(error) = &shelf.failed {
                return Err(WalError::Poisoned(Arc::clone(error)));
            }
            if let Some((lsn, block)) = shelf.queue.pop_front() {
                shelf.bytes -= block.payload.len();
                shelf.taken = Some(Instant::now());
                return Ok(Taken::Item(FeedItem::Block { lsn, block }));
            }
            if let Some(location) = shelf.behind {
                return Ok(Taken::Behind(location));
            }
            if let Some(block) = shelf.planned.pop_front() {
                self.handover.planned_bytes.fetch_sub(block.payload.len(), Ordering::Relaxed);
                return Ok(Taken::Item(FeedItem::Planned(block)));
            }
            if shelf.is_closed {
                return Err(WalError::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Taken::TimedOut);
            }
            let waited = self.handover.changed.wait_timeout(shelf, left);
            shelf = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn read_back(&mut self, from: Location) -> Result<Step, WalError> {
        let mut cursor = self.cursor.take().unwrap_or(Cursor { at: from, scanner: None });
        let step = self.step(&mut cursor)?;
        let mut shelf = self.handover.shelf();
        // Under the lock: what becomes durable from now on goes into memory again.
        if matches!(step, Step::CaughtUp) && cursor.at.lsn == shelf.next_lsn {
            (shelf.behind, shelf.behind_bytes) = (None, 0);
        } else {
            if let Step::Item(FeedItem::Block { block, .. }) = &step {
                shelf.taken = Some(Instant::now());
                shelf.behind_bytes = shelf.behind_bytes.saturating_sub(block.payload.len());
            }
            shelf.behind = Some(cursor.at);
            self.cursor = Some(cursor);
        }
        Ok(step)
    }

    /// Reads one piece at the cursor and moves it on.
    fn step(&mut self, cursor: &mut Cursor) -> Result<Step, WalError> {
        if cursor.scanner.is_none() && !self.aim(cursor)? {
            return Ok(Step::CaughtUp);
        }
        let number = cursor.at.segment;
        let Some(scanner) = &mut cursor.scanner else {
            return Ok(Step::Nothing);
        };
        let step = match scanner.next_piece() {
            None => None,
            Some(Piece::Frame(header, payload)) => Some(Ok(match header.block() {
                Some(block) if !is_settled(&self.settled, &header) => {
                    let payload = Bytes::copy_from_slice(payload);
                    let block = Block { header: block, payload };
                    Step::Item(FeedItem::Block { lsn: header.lsn, block })
                }
                _ => Step::Nothing,
            })),
            Some(Piece::Damage(damage)) => Some(Err(damage)),
        };
        (cursor.at.position, cursor.at.lsn) = (scanner.position(), scanner.lsn());
        match step {
            None => {
                cursor.scanner = None;
                Ok(Step::Nothing)
            }
            Some(Ok(step)) => Ok(step),
            Some(Err(damage)) => self.damaged(number, &damage),
        }
    }

    /// Opens what is durable at the cursor; moves it on into the next segment. False if nothing more is durable.
    fn aim(&self, cursor: &mut Cursor) -> Result<bool, WalError> {
        loop {
            let gone = || WalError::Io(self.missing(cursor.at.segment));
            let listed = self.catalogue.get(cursor.at.segment).ok_or_else(gone)?;
            cursor.at.position = cursor.at.position.max(listed.start);
            if cursor.at.position < listed.end {
                let file = self.storage.open(&self.catalogue.path(listed.number), false)?;
                let Location { position, lsn, .. } = cursor.at;
                let scanner = Scanner::new(file, listed.salt, position, lsn, listed.end);
                cursor.scanner = Some(scanner);
                return Ok(true);
            }
            let next = self.catalogue.at_or_after(listed.number + 1);
            let (true, Some(next)) = (listed.sealed, next) else {
                return Ok(false);
            };
            let (segment, position, lsn) = (next.number, next.start, next.first_lsn);
            cursor.at = Location { segment, position, lsn };
        }
    }

    fn missing(&self, number: u64) -> crate::io::IoError {
        crate::io::IoError {
            operation: "find",
            path: self.catalogue.path(number),
            position: None,
            source: std::io::ErrorKind::NotFound.into(),
        }
    }

    fn damaged(&mut self, segment: u64, damage: &Damage) -> Result<Step, WalError> {
        let path = self.catalogue.path(segment);
        let Some(header) = damage.header else {
            let inside =
                |c: &&CorruptBlock| c.segment == segment && damage.position <= c.position && c.position < damage.end;
            let mut known: Vec<_> = self.corrupt.iter().filter(inside).cloned().collect();
            let unseen = damage.lsn > self.settled.lsn || !self.catalogue.get(segment).is_some_and(|s| s.verified);
            if let Some(index) = self.index(segment, damage.position).filter(|_| known.is_empty() && unseen) {
                known = self.lost(segment, damage, &index);
            } else if known.is_empty() && unseen {
                let (position, lsn) = (damage.position, Some(damage.lsn));
                return Err(WalError::corrupt(&path, position, lsn, damage.reason.clone()));
            }
            self.pending.extend(known);
            return Ok(Step::Nothing);
        };
        if header.kind != Kind::Block || is_settled(&self.settled, &header) {
            return Ok(Step::Nothing);
        }
        if damage.part == BadPart::Pad {
            return self.read_padded(&header, segment);
        }
        Ok(Step::Item(FeedItem::Corrupt(CorruptBlock {
            path,
            segment,
            position: damage.position,
            end: damage.end,
            lsn: header.lsn,
            partition: header.partition,
            tenure: header.tenure,
            first: header.first,
            next: header.next,
        })))
    }

    /// The footer's blocks, if a footer follows the position.
    fn index(&self, segment: u64, after: u64) -> Option<Vec<IndexEntry>> {
        let listed = self.catalogue.get(segment).filter(|s| s.sealed)?;
        let file = self.storage.open(&self.catalogue.path(segment), false).ok()?;
        index::find(&file, listed.salt, after, listed.end).map(|index| index.blocks)
    }

    /// The blocks in a damaged place that are still to be delivered.
    fn lost(&self, segment: u64, damage: &Damage, index: &[IndexEntry]) -> Vec<CorruptBlock> {
        let inside = |e: &&IndexEntry| damage.position <= e.position && e.position < damage.end;
        let settled = |e: &&IndexEntry| {
            e.lsn <= self.settled.lsn && self.settled.is_range_settled(e.partition(), e.lsn, &e.range())
        };
        let corrupt = index.iter().filter(inside).filter(|e| !settled(e)).map(|e| CorruptBlock {
            path: self.catalogue.path(segment),
            segment,
            position: e.position,
            end: e.position + u64::from(e.length),
            lsn: e.lsn,
            partition: e.partition(),
            tenure: e.tenure,
            first: e.first,
            next: e.next,
        });
        corrupt.collect()
    }

    /// Only the zeros behind the payload are damaged.
    fn read_padded(&self, header: &FrameHeader, segment: u64) -> Result<Step, WalError> {
        let file = self.storage.open(&self.catalogue.path(segment), false)?;
        let mut payload = vec![0; header.payload_len as usize];
        file.read_at(header.position + FRAME_HEADER as u64, &mut payload)?;
        Ok(header.block().map_or(Step::Nothing, |block| {
            let block = Block { header: block, payload: payload.into() };
            Step::Item(FeedItem::Block { lsn: header.lsn, block })
        }))
    }
}

enum Taken {
    Item(FeedItem),
    Behind(Location),
    TimedOut,
}

fn is_settled(state: &State, header: &FrameHeader) -> bool {
    header.lsn <= state.lsn && header.block().is_some_and(|b| state.is_settled(header.lsn, &b))
}
