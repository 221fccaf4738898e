//! The writer: frames into groups, groups into segments. One owner, `&mut self`, no locks, no threads, no clock.
//!
//! Promises: when [`Writer::append`] returns, what it counts is durable; each sync ends on a 4 KiB boundary; a byte of a
//! segment is written once. A failed sync or write ends the segment at its last synced frame and is never tried again
//! there: the same entries, still in memory, go into the next segment. If that one fails too, or a directory's sync, the
//! writer is poisoned and refuses everything.

mod roll;

use super::catalogue::{Catalogue, Location};
use super::error::WalError;
use super::fold::Admission;
use super::format::entry::Entry;
use super::format::footer::{self, IndexEntry};
use super::format::frame::Kind;
use super::format::payload::PayloadError;
use super::format::state::State;
use super::format::{PAGE, page_up};
use super::group::Group;
use super::options::{Entropy, SPARES_FOR_BLOCKS};
use super::rack::Rack;
use super::retention::Sealed;
use super::segment::{Active, write_zeros};
use crate::config::Durability;
use crate::io::{IoError, Storage};
use crate::metrics::Metrics;
use crate::record::Lsn;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What a writer is made of; recovery puts it together.
#[derive(Debug)]
pub struct Parts {
    /// The disk.
    pub storage: Arc<dyn Storage>,
    /// The log's directory.
    pub dir: PathBuf,
    /// Spares.
    pub rack: Arc<Rack>,
    /// For readers.
    pub catalogue: Arc<Catalogue>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Salts.
    pub entropy: Entropy,
    /// The segment to write to.
    pub active: Active,
    /// The segments before it.
    pub sealed: VecDeque<Sealed>,
    /// The fold of everything.
    pub state: State,
    /// The next LSN.
    pub next_lsn: Lsn,
    /// When entries count as durable.
    pub durability: Durability,
}

/// The writer.
#[derive(Debug)]
pub struct Writer {
    parts: Parts,
    admission: Admission,
    group: Group,
    is_idle: bool,
    is_poisoned: bool,
    /// Writes and syncs that failed since the last group became durable.
    failures: u32,
    is_read_back: bool,
    /// The last LSN whose sync has returned. With the weaker durability it stays behind what counts as durable.
    synced: Lsn,
}

impl Writer {
    /// A writer of these parts.
    pub fn new(parts: Parts) -> Self {
        Self {
            synced: parts.next_lsn - 1,
            parts,
            admission: Admission::default(),
            group: Group::default(),
            is_idle: true,
            is_poisoned: false,
            failures: 0,
            is_read_back: false,
        }
    }

    /// Whether what is written next will soon be read again: it should then be in the page cache.
    pub fn will_be_read_back(&mut self, is_read_back: bool) {
        self.is_read_back = is_read_back;
    }

    /// The fold of everything durable.
    pub fn state(&self) -> &State {
        &self.parts.state
    }

    /// The last durable LSN.
    pub fn durable_lsn(&self) -> Lsn {
        self.parts.next_lsn - 1
    }

    /// Number of the segment that is written to.
    pub fn segment(&self) -> u64 {
        self.parts.active.number
    }

    /// True if a block was logged in the segment that is written to.
    pub fn has_blocks(&self) -> bool {
        !self.parts.active.index.is_empty()
    }

    /// True if the last group has no frame after it that witnesses its sync.
    pub fn needs_idle(&self) -> bool {
        !self.is_idle
    }

    /// The spares.
    pub fn rack(&self) -> &Arc<Rack> {
        &self.parts.rack
    }

    /// The segments, for readers.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.parts.catalogue
    }

    /// True if the block, after so many bytes of others, can be logged now without waiting for a spare.
    pub fn has_room(&self, entry: &Entry, ahead: u64) -> bool {
        let active = &self.parts.active;
        let end = page_up(active.position + ahead + entry.bytes());
        let ready = self.parts.rack.ready();
        // Without any spare what is left of the segment is for receipts and the frame that retires: only they make room.
        let kept = if ready == 0 { active.capacity / KEPT_PART } else { 0 };
        let fits = end + footer::reserve(active.index.len() + 1) + ahead + kept <= active.capacity;
        ready >= SPARES_FOR_BLOCKS || fits && !active.is_closed
    }

    /// Where the entries counted by the last [`Writer::append`] are.
    pub fn locations(&self) -> impl Iterator<Item = Location> + '_ {
        let segment = self.parts.active.number;
        let frames = self.group.headers().iter().filter(|h| h.kind.has_lsn());
        frames.map(move |h| Location { segment, position: h.position, lsn: h.lsn })
    }

    /// Appends entries from the front and makes them durable: one write, one sync. Returns how many; the rest wants
    /// the next segment. 0 means that there is no space for one now.
    ///
    /// # Panics
    /// If an entry breaks the rule that a partition's ranges follow each other without a jump.
    pub fn append(&mut self, entries: &[Entry]) -> Result<usize, WalError> {
        self.append_telling(entries, &mut |_, _| {})
    }

    /// [`Writer::append`]; `taken` is called with the number as soon as the entries count as durable: with
    /// [`Durability::Memory`] before they are written.
    pub fn append_telling(
        &mut self,
        entries: &[Entry],
        taken: &mut dyn FnMut(&Self, usize),
    ) -> Result<usize, WalError> {
        loop {
            if let Some(count) = self.append_once(entries, taken)? {
                return Ok(count);
            }
        }
    }

    /// `None`: a write or sync failed, and the segment is ended. The entries are as they were: the next segment is theirs.
    fn append_once(
        &mut self,
        entries: &[Entry],
        taken: &mut dyn FnMut(&Self, usize),
    ) -> Result<Option<usize>, WalError> {
        self.group.clear();
        if self.is_poisoned {
            return Err(WalError::Closed);
        }
        if entries.is_empty() || !self.make_room(&entries[0])? {
            return Ok(Some(0));
        }
        let count = self.fitting(entries);
        self.check(&entries[..count]);
        let blocks_before = self.parts.active.index.len();
        // The footer rides with the last group of a segment if its successor can be built at once.
        let seal = count < entries.len() && self.parts.rack.ready() > 0;
        self.encode(&entries[..count], seal)?;
        let position = self.parts.active.position;
        if self.parts.durability == Durability::Memory {
            self.take_over(&entries[..count], seal)?;
            taken(self, count);
            self.write(position, entries).map_err(|error| self.poison(error.into()))?;
            self.show_written();
            return Ok(Some(count));
        }
        if let Err(error) = self.write(position, entries) {
            let is_full = error.is_full() && error.operation != SYNC;
            self.end_here(error, blocks_before)?;
            return Ok(is_full.then_some(0));
        }
        self.failures = 0;
        self.take_over(&entries[..count], seal)?;
        self.show_written();
        taken(self, count);
        Ok(Some(count))
    }

    /// Readers may read up to here.
    fn show_written(&self) {
        let active = &self.parts.active;
        self.parts.catalogue.extend(active.number, active.position);
    }

    /// An `Idle` frame, synced: it witnesses the sync of the last group. Nothing if there was none since the last one.
    pub fn idle(&mut self) -> Result<(), WalError> {
        if self.needs_idle() {
            self.append(&[Entry::Idle])?;
        }
        Ok(())
    }

    /// Clean stop: everything logged lies below the end that a fresh, empty successor declares.
    pub fn close(&mut self) -> Result<(), WalError> {
        let active = &self.parts.active;
        if (active.position > active.built_end || active.is_closed) && !self.roll()? {
            self.idle()?;
        }
        Ok(())
    }

    /// The entry that retires what is not needed any more, if something is not; segments from `pinned` on are kept.
    /// What it retires is handed out by [`Writer::retired`] once it is durable.
    pub fn retirement(&self, pinned: u64) -> Option<Entry> {
        let state = &self.parts.state;
        let done = |s: &&Sealed| s.number < pinned && !s.runs.is_live(state);
        let below = self.parts.sealed.iter().take_while(done).count();
        if below == 0 {
            return None;
        }
        let active = &self.parts.active;
        let kept = self.parts.sealed.get(below);
        let (segment, lsn) = kept.map_or((active.number, active.first_lsn), |s| (s.number, s.first_lsn));
        Some(Entry::RetiredBelow { segment, lsn })
    }

    /// The oldest segment that holds a block some route still needs; the one that is written to if there is none.
    pub fn oldest_live(&self) -> u64 {
        let state = &self.parts.state;
        let live = self.parts.sealed.iter().find(|s| s.runs.is_live(state));
        live.map_or(self.parts.active.number, |s| s.number)
    }

    /// Segments whose retirement is durable: they may be recycled or removed now. Each is handed out once.
    pub fn retired(&mut self) -> Vec<Sealed> {
        let below = self.parts.state.retired_below;
        let count = self.parts.sealed.iter().take_while(|s| s.number < below).count();
        if count > 0 {
            self.parts.catalogue.retire(below);
        }
        self.parts.sealed.drain(..count).collect()
    }

    /// Refuses everything from now on.
    fn poison(&mut self, error: WalError) -> WalError {
        self.is_poisoned = true;
        error
    }

    /// Makes sure that the entry fits into the active segment, by rolling or growing. False if there is no space.
    fn make_room(&mut self, entry: &Entry) -> Result<bool, WalError> {
        let is_closed = self.parts.active.is_closed;
        let fits = !is_closed && self.fitting(std::slice::from_ref(entry)) > 0;
        let is_fresh = self.parts.active.position == self.parts.active.built_end;
        let fits_next = (is_closed || !is_fresh) && self.fits_a_spare(entry);
        if !fits && !fits_next && !self.parts.rack.can_grow(entry.bytes())? {
            // Larger than any segment, and no space to grow one: don't use up spares trying.
            return Ok(false);
        }
        if is_closed || !fits && !is_fresh {
            if !self.roll()? {
                return Ok(false);
            }
            if self.fitting(std::slice::from_ref(entry)) > 0 {
                return Ok(true);
            }
            if !self.parts.rack.can_grow(entry.bytes())? {
                return Ok(false);
            }
        } else if fits {
            return Ok(true);
        }
        self.grow(entry)
    }

    /// True if the next segment has room for it, if its states are as long as this one's.
    fn fits_a_spare(&self, entry: &Entry) -> bool {
        let end = page_up(self.parts.active.frames_start + entry.bytes());
        end + footer::reserve(1) <= self.parts.rack.segment_bytes()
    }

    /// The entry is larger than a whole segment: the segment grows. Written with zeros first, so that space is found
    /// missing here and not by a sync that counts.
    fn grow(&mut self, entry: &Entry) -> Result<bool, WalError> {
        let active = &mut self.parts.active;
        let need = active.position + entry.bytes() + footer::reserve(active.index.len() + 1);
        let need = page_up(need) + PAGE;
        let grown = write_zeros(active.file.as_ref(), active.capacity, need).and_then(|()| active.file.sync_data());
        match grown {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                // What it got is not kept: it would not be counted. Nothing but zeros was synced, and they are cut off.
                let given_back = active.file.set_len(active.capacity);
                return given_back.map(|()| false).map_err(|error| self.poison(error.into()));
            }
            Err(error) => return Err(self.poison(error.into())),
        }
        self.parts.rack.grew(need - active.capacity);
        active.capacity = need;
        Ok(true)
    }

    /// How many entries from the front fit into the active segment, the footer's space kept free.
    fn fitting(&self, entries: &[Entry]) -> usize {
        let active = &self.parts.active;
        let (mut end, mut blocks) = (active.position, active.index.len());
        for (count, entry) in entries.iter().enumerate() {
            end += entry.bytes();
            blocks += usize::from(matches!(entry, Entry::Block(_)));
            let whole = page_up(end) + footer::reserve(blocks);
            if whole > active.capacity || footer::is_at_limit(blocks) {
                return count;
            }
        }
        entries.len()
    }

    fn check(&mut self, entries: &[Entry]) {
        self.admission.clear();
        for entry in entries {
            let checked = self.admission.check(&self.parts.state, entry);
            assert!(checked.is_ok(), "{}", checked.err().map(|e| e.to_string()).unwrap_or_default());
        }
    }

    fn encode(&mut self, entries: &[Entry], seal: bool) -> Result<(), WalError> {
        let active = &mut self.parts.active;
        self.group.begin(active, self.parts.next_lsn, self.synced);
        for (i, entry) in entries.iter().enumerate() {
            let ends_group = i + 1 == entries.len() && !seal;
            self.group.push(i, entry, ends_group).map_err(entry_error)?;
        }
        for header in self.group.headers().iter().filter(|h| h.kind == Kind::Block) {
            active.index.push(IndexEntry::of(header));
        }
        if seal {
            self.group.push_footer(&active.index).map_err(entry_error)?;
        }
        Ok(())
    }

    /// One positional vectored write, in pieces if it goes past the page cache, and one sync. With the weaker durability
    /// only what lets segments go is synced: their files are removed next.
    fn write(&mut self, position: u64, entries: &[Entry]) -> Result<(), IoError> {
        let (active, metrics) = (&self.parts.active, &self.parts.metrics);
        let slices = self.group.slices(entries);
        let is_fsync = self.parts.durability == Durability::Fsync;
        let begun = Instant::now();
        if is_fsync && !self.is_read_back {
            active.file.write_pages_at(position, &slices)?;
        } else {
            active.file.write_at(position, &slices)?;
        }
        if is_fsync || self.group.headers().iter().any(|header| header.kind == Kind::RetiredBelow) {
            active.file.sync_data()?;
            metrics.wal_fsync_seconds.observe(begun.elapsed());
            metrics.wal_fsyncs.inc();
            self.synced = self.group.next_lsn() - 1;
        }
        metrics.wal_groups.inc();
        metrics.wal_bytes_appended.inc_by(self.group.end() - position);
        Ok(())
    }

    /// The group is durable: fold it, move on.
    fn take_over(&mut self, entries: &[Entry], closed: bool) -> Result<(), WalError> {
        let first = self.parts.next_lsn;
        for (i, entry) in entries.iter().enumerate() {
            let folded = self.parts.state.apply(first + i as u64, entry);
            folded.map_err(|e| WalError::Internal(format!("an entry was logged that breaks a rule: {e}")))?;
        }
        self.parts.next_lsn += entries.len() as u64;
        let active = &mut self.parts.active;
        for header in self.group.headers().iter().filter(|h| h.kind == Kind::Block) {
            active.runs.note(header);
        }
        active.position = self.group.end();
        active.digest.clone_from(self.group.digest());
        active.is_closed |= closed;
        self.is_idle = matches!(entries.last(), Some(Entry::Idle)) || entries.is_empty();
        Ok(())
    }
}

/// This part of the last segment is no place for blocks when there is no spare.
const KEPT_PART: u64 = 4;
const SYNC: &str = "sync";

fn entry_error(error: PayloadError) -> WalError {
    let PayloadError { kind, reason } = error;
    WalError::Entry { kind, reason }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
