//! The feed: durable blocks in LSN order, from memory while it lasts, else read back from the segments.
//!
//! Promises: a block is handed out only after its sync; memory is bounded in bytes, however long the backlog. A damaged
//! block stops its partition, not the others, until a repair file mends it: then the feed goes back to it and hands out what
//! it had left out of that partition, in order (see [`super::detour`]). Nothing is handed out past a damaged block.

use super::catalogue::{Catalogue, Location};
use super::detour::Detour;
use super::error::WalError;
use super::format::frame::{FrameHeader, Kind};
use super::format::state::State;
pub use super::handover::Handover;
use super::repair::Repairs;
use super::scan::finding::CorruptBlock;
use super::scan::{BadPart, Damage, Piece, Scanner, lost, read_payload};
use crate::io::{File, Storage};
use crate::record::{Block, Lsn, Partition};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

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
    /// An acknowledged block that can't be read. Nothing later of its partition is handed out until it is repaired; then
    /// it comes as a [`FeedItem::Block`].
    Corrupt(CorruptBlock),
    /// A corrupt block of this partition is needed by nobody any more; the partition goes on behind it.
    PassedOver(Partition),
}

/// Reads durable blocks. One owner; blocks at most as long as it is told.
#[derive(Debug)]
pub struct Feed {
    reader: Reader,
    handover: Arc<Handover>,
    cursor: Option<Cursor>,
    /// Partitions with a damaged block, and how to get back to it.
    detours: HashMap<Partition, Detour>,
    /// Of partitions that had a detour: what was handed out on it, which must not come twice.
    detoured: HashMap<Partition, Lsn>,
    /// What is handed out next.
    ready: VecDeque<FeedItem>,
    /// The last LSN that the way through the log has passed.
    passed: Lsn,
    /// The repairs that the detours were last told of.
    repairs_seen: u64,
    /// Whose turn it is, the detours' or the way through the log.
    detours_turn: bool,
}

/// What reading needs to know.
#[derive(Debug)]
pub(super) struct Reader {
    storage: Arc<dyn Storage>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) repairs: Arc<Repairs>,
    /// What was settled before the log was opened: the state then, and its last LSN.
    settled: Arc<State>,
    corrupt: Vec<CorruptBlock>,
}

/// A place that is read from.
#[derive(Debug)]
pub(super) struct Cursor {
    pub at: Location,
    pub scanner: Option<(Arc<dyn File>, Scanner)>,
}

impl Cursor {
    pub fn at(at: Location) -> Self {
        Self { at, scanner: None }
    }
}

/// What reading one piece gave.
pub(super) enum Step {
    Block {
        lsn: Lsn,
        block: Block,
    },
    /// Damaged blocks that are not settled.
    Damaged(Vec<CorruptBlock>),
    Nothing,
    CaughtUp,
}

enum Taken {
    Item(FeedItem),
    Behind(Location),
    TimedOut,
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
        let repairs = Repairs::new(Arc::clone(&storage), catalogue.dir(), state.wal_id, Vec::new());
        let (settled, repairs) = (Arc::new(state), Arc::new(repairs));
        Self {
            reader: Reader { storage, catalogue, repairs, settled, corrupt },
            handover,
            cursor: None,
            detours: HashMap::new(),
            detoured: HashMap::new(),
            ready: VecDeque::new(),
            passed: 0,
            repairs_seen: 0,
            detours_turn: false,
        }
    }

    /// Takes damaged blocks from these repair files, and asks for those that are missing.
    #[must_use]
    pub fn with_repairs(mut self, repairs: Arc<Repairs>) -> Self {
        self.reader.repairs = repairs;
        self
    }

    /// The next durable block that was not settled (delivered or disowned) when the log was opened; `None` if there is
    /// none within the time. An error is final.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<FeedItem>, WalError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(item) = self.ready.pop_front() {
                if let FeedItem::Planned(block) = &item {
                    self.handover.planned_bytes.fetch_sub(block.payload.len(), Ordering::Relaxed);
                }
                return Ok(Some(item));
            }
            self.wake_detours();
            self.detours_turn = !self.detours_turn;
            let on_the_way = self.is_catching_up();
            if self.detours_turn && on_the_way {
                self.walk_detour()?;
                continue;
            }
            // A detour with more to read does not wait for what comes in.
            match self.take(if on_the_way { Instant::now() } else { deadline })? {
                Taken::Item(item) => self.admit(item),
                Taken::Behind(location) => {
                    if !self.read_back(location)? && !self.wait_for_end(deadline) {
                        return Ok(None);
                    }
                }
                Taken::TimedOut if on_the_way => {}
                Taken::TimedOut => return Ok(None),
            }
        }
    }

    /// True while blocks are being read that were left out because of damage that is repaired now.
    pub fn is_catching_up(&self) -> bool {
        self.detours.values().any(Detour::can_go_on)
    }

    /// Hands out a block, unless its partition is on a detour or was there with it.
    fn admit(&mut self, item: FeedItem) {
        match item {
            FeedItem::Block { lsn, block } => {
                self.passed = self.passed.max(lsn);
                let partition = block.header.partition;
                let again = || self.detoured.get(&partition).is_some_and(|through| lsn <= *through);
                if !self.detours.contains_key(&partition) && !again() {
                    self.ready.push_back(FeedItem::Block { lsn, block });
                }
            }
            FeedItem::Planned(block) => match self.detours.get_mut(&block.header.partition) {
                Some(detour) => detour.hold(block),
                None => self.ready.push_back(FeedItem::Planned(block)),
            },
            FeedItem::Corrupt(_) | FeedItem::PassedOver(_) => self.ready.push_back(item),
        }
    }

    fn take(&mut self, deadline: Instant) -> Result<Taken, WalError> {
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

    /// What the log says is durable is not yet where it is read from, or the other way round: a moment later it is. False
    /// if there is no moment left.
    fn wait_for_end(&self, deadline: Instant) -> bool {
        const MOMENT: Duration = Duration::from_millis(1);
        let left = deadline.saturating_duration_since(Instant::now());
        drop(self.handover.changed.wait_timeout(self.handover.shelf(), left.min(MOMENT)));
        !left.is_zero()
    }

    /// Reads one piece of what is not in memory any more. False at the end of what can be read, if it is not the end of what
    /// is durable.
    fn read_back(&mut self, from: Location) -> Result<bool, WalError> {
        let mut cursor = self.cursor.take().unwrap_or_else(|| Cursor::at(from));
        let step = self.reader.step(&mut cursor, None)?;
        let after = cursor.at;
        let mut shelf = self.handover.shelf();
        let at_end = matches!(step, Step::CaughtUp);
        let is_over = at_end && cursor.at.lsn == shelf.next_lsn;
        // Under the lock: what becomes durable from now on goes into memory again.
        if is_over {
            (shelf.behind, shelf.behind_bytes) = (None, 0);
        } else {
            if let Step::Block { block, .. } = &step {
                shelf.taken = Some(Instant::now());
                shelf.behind_bytes = shelf.behind_bytes.saturating_sub(block.payload.len());
            }
            shelf.behind = Some(cursor.at);
            self.cursor = Some(cursor);
        }
        drop(shelf);
        match step {
            Step::Block { lsn, block } => self.admit(FeedItem::Block { lsn, block }),
            Step::Damaged(blocks) => {
                self.passed = self.passed.max(after.lsn.saturating_sub(1));
                self.leave_out(blocks, after);
            }
            Step::Nothing | Step::CaughtUp => {}
        }
        Ok(is_over || !at_end)
    }

    /// Damaged blocks in one place, which ends at `after`: hands out what is repaired; where something is missing, the
    /// partition waits there.
    fn leave_out(&mut self, blocks: Vec<CorruptBlock>, after: Location) {
        let mut stopped_here = Vec::new();
        for damaged in blocks {
            let partition = damaged.partition;
            if stopped_here.contains(&partition) {
                if let Some(detour) = self.detours.get_mut(&partition) {
                    detour.also(damaged);
                }
            } else if self.detours.contains_key(&partition) || self.reader.repairs.is_moot(&damaged) {
                // It will be met on the detour, or is needed by nobody.
            } else if let Some(block) = self.reader.repairs.find(&damaged) {
                self.admit(FeedItem::Block { lsn: damaged.lsn, block });
            } else {
                self.reader.repairs.want(&damaged);
                self.detours.insert(partition, Detour::new(damaged.clone(), after));
                stopped_here.push(partition);
                self.ready.push_back(FeedItem::Corrupt(damaged));
            }
        }
    }

    /// Something was repaired: perhaps a detour can go on.
    fn wake_detours(&mut self) {
        let changes = self.reader.repairs.changes();
        if self.repairs_seen != changes {
            self.repairs_seen = changes;
            self.detours.values_mut().for_each(Detour::wake);
        }
    }

    /// One step of a detour that can go on.
    fn walk_detour(&mut self) -> Result<(), WalError> {
        let Some((partition, detour)) = self.detours.iter_mut().find(|(_, detour)| detour.can_go_on()) else {
            return Ok(());
        };
        let partition = *partition;
        if let Some(item) = detour.walk(&self.reader, self.passed)? {
            if let FeedItem::Block { lsn, .. } = &item {
                self.detoured.insert(partition, *lsn);
            }
            self.ready.push_back(item);
        }
        if detour.is_over(self.passed) {
            let held = self.detours.remove(&partition).map(Detour::held).unwrap_or_default();
            self.ready.extend(held.into_iter().map(FeedItem::Planned));
        }
        Ok(())
    }
}

impl Reader {
    /// Reads one piece at the cursor and moves it on; with `only`, blocks of other partitions are passed over.
    pub fn step(&self, cursor: &mut Cursor, only: Option<Partition>) -> Result<Step, WalError> {
        if cursor.scanner.is_none() && !self.aim(cursor)? {
            return Ok(Step::CaughtUp);
        }
        let number = cursor.at.segment;
        let Some((file, scanner)) = &mut cursor.scanner else {
            return Ok(Step::Nothing);
        };
        let wanted = |header: &FrameHeader| only.is_none_or(|partition| header.partition == partition);
        let step = match scanner.next_piece() {
            None => None,
            Some(Piece::Frame(header, payload)) => Some(Ok(match header.block() {
                Some(block) if wanted(&header) && !is_settled(&self.settled, &header) => {
                    let payload = Bytes::copy_from_slice(payload);
                    Step::Block { lsn: header.lsn, block: Block { header: block, payload } }
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
            Some(Err(damage)) => {
                let file = Arc::clone(file);
                self.damaged(number, &file, &damage)
            }
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
                let scanner = Scanner::new(Arc::clone(&file), listed.salt, position, lsn, listed.end);
                cursor.scanner = Some((file, scanner));
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

    fn damaged(&self, segment: u64, file: &Arc<dyn File>, damage: &Damage) -> Result<Step, WalError> {
        if damage.part == BadPart::Pad {
            return damage.header.map_or(Ok(Step::Nothing), |header| self.read_padded(file.as_ref(), &header));
        }
        let path = self.catalogue.path(segment);
        let listed = self.catalogue.get(segment);
        let salt = listed.as_ref().map_or(0, |listed| listed.salt);
        let sealed = listed.filter(|listed| listed.sealed).map(|listed| listed.end);
        let Some(lost) = lost::blocks(file, salt, damage, sealed) else {
            return self.known_damage(segment, damage);
        };
        let of_it = |named| CorruptBlock::new(&path, segment, salt, named, damage.header);
        let open = |c: &CorruptBlock| c.lsn > self.settled.lsn || !self.settled.is_settled(c.lsn, &c.block());
        let blocks: Vec<_> = lost.iter().map(of_it).filter(open).collect();
        Ok(if blocks.is_empty() { Step::Nothing } else { Step::Damaged(blocks) })
    }

    /// Damage that only recovery could name. What it has not seen, or fewer frames than it has, is an error: nobody knows
    /// what is missing.
    fn known_damage(&self, segment: u64, damage: &Damage) -> Result<Step, WalError> {
        let inside =
            |c: &&CorruptBlock| c.segment == segment && damage.position <= c.position && c.position < damage.end;
        let known: Vec<_> = self.corrupt.iter().filter(inside).cloned().collect();
        let next = || self.catalogue.at_or_after(segment + 1).map_or(Lsn::MAX, |next| next.first_lsn);
        let lost = if damage.is_last { next() } else { damage.end_lsn }.saturating_sub(damage.lsn);
        let unseen = damage.lsn > self.settled.lsn || !self.catalogue.get(segment).is_some_and(|s| s.verified);
        if lost != known.len() as u64 || known.is_empty() && unseen {
            let (path, lsn) = (self.catalogue.path(segment), Some(damage.lsn));
            return Err(WalError::corrupt(&path, damage.position, lsn, damage.reason.clone()));
        }
        Ok(if known.is_empty() { Step::Nothing } else { Step::Damaged(known) })
    }

    /// Only the zeros behind the payload are damaged.
    fn read_padded(&self, file: &dyn File, header: &FrameHeader) -> Result<Step, WalError> {
        let Some(block) = header.block().filter(|_| header.kind == Kind::Block && !is_settled(&self.settled, header))
        else {
            return Ok(Step::Nothing);
        };
        let block = Block { header: block, payload: read_payload(file, header)?.into() };
        Ok(Step::Block { lsn: header.lsn, block })
    }
}

fn is_settled(state: &State, header: &FrameHeader) -> bool {
    header.lsn <= state.lsn && header.block().is_some_and(|b| state.is_settled(header.lsn, &b))
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
