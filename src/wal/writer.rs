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
        let fits = self.fitting(std::slice::from_ref(entry)) > 0;
        let is_fresh = self.parts.active.position == self.parts.active.built_end;
        let fits_next = !is_fresh && self.fits_a_spare(entry);
        if !fits && !fits_next && !self.parts.rack.can_grow(entry.bytes())? {
            // Larger than any segment, and no space to grow one: don't use up spares trying.
            return Ok(false);
        }
        if self.parts.active.is_closed || !fits && !is_fresh {
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
mod tests {
    use super::*;
    use crate::io::fault::{Faults, Operation};
    use crate::io::sim::Sim;
    use crate::wal::format::frame::FRAME_HEADER;
    use crate::wal::options::{Options, SPARES};
    use crate::wal::recovery::{Recovered, recover};
    use crate::wal::testing::{DIR, P, block, bytes_of_all_files, delivered, owned, path};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const SEGMENT: u64 = 64 << 10;
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;

    struct World {
        sim: Sim,
        faults: Arc<Faults>,
        metrics: Arc<Metrics>,
        writer: Writer,
    }

    fn options(seed: u64) -> Options {
        let mut options = Options::new(DIR, Arc::new(Metrics::new()));
        (options.segment_bytes, options.seed) = (SEGMENT, Some(seed));
        options
    }

    fn world(spares: usize) -> World {
        world_with(spares, options(1))
    }

    /// A new log with so many spares, in which the partition is owned. Nobody makes more of them.
    fn world_with(spares: usize, options: Options) -> World {
        let sim = Sim::new(1);
        let faults = Arc::new(Faults::new(Arc::new(sim.clone())));
        let storage = Arc::clone(&faults) as Arc<dyn Storage>;
        let Recovered { mut writer, .. } = recover(&storage, &options).unwrap();
        for _ in 0..spares {
            assert!(writer.rack().work(&mut || {}).unwrap());
        }
        assert_eq!(writer.rack().ready(), spares);
        assert_eq!(writer.append(&[owned()]).unwrap(), 1);
        World { sim, faults, metrics: options.metrics, writer }
    }

    fn small_blocks(count: i64) -> Vec<Entry> {
        (0..count).map(|first| block(first, 8)).collect()
    }

    /// Payloads with which a block just takes so many pages, or one byte more, up to a whole segment.
    fn sizes() -> impl Iterator<Item = usize> {
        let frame = block(0, 0).bytes();
        (1..=SEGMENT / PAGE).flat_map(move |pages| [0, 1].map(|more| (pages * PAGE - frame + more) as usize))
    }

    #[test]
    fn a_block_has_room_exactly_if_the_segment_takes_it_together_with_its_footer() {
        // With so many blocks the footer needs one more page for the next.
        for count in [0, 71] {
            let mut taken = 0;
            for bytes in sizes() {
                let World { mut writer, .. } = world(1);
                assert_eq!(writer.append(&small_blocks(count)).unwrap(), count as usize);
                let next = block(count, bytes);
                let has_room = writer.has_room(&next, 0);
                assert_eq!(writer.append(&[next]).unwrap(), 1, "{bytes} bytes after {count} blocks");
                assert_eq!(has_room, writer.segment() == 1, "{bytes} bytes after {count} blocks");
                taken += usize::from(has_room);
            }
            assert!((1..sizes().count()).contains(&taken), "{taken} of them after {count} blocks");
        }
    }

    #[test]
    fn a_block_has_no_room_behind_others_with_which_the_segment_is_full() {
        for (bytes, fit) in [((20_000, 25_000), false), ((8000, 8000), true)] {
            let World { mut writer, .. } = world(1);
            let entries = [block(0, bytes.0), block(1, bytes.1)];
            assert!(entries.iter().all(|entry| writer.has_room(entry, 0)), "each one alone");
            assert_eq!(writer.has_room(&entries[1], entries[0].bytes()), fit, "{bytes:?}");
            assert_eq!(writer.append(&entries).unwrap(), 1 + usize::from(fit), "{bytes:?}");
        }
    }

    #[test]
    fn without_a_spare_blocks_leave_a_quarter_of_the_segment_to_receipts() {
        let quarter = (SEGMENT / 4) as usize;
        let (mut without, with) = (world(0).writer, world(1).writer);
        for bytes in sizes() {
            let has_room = with.has_room(&block(0, bytes + quarter), 0);
            assert_eq!(without.has_room(&block(0, bytes), 0), has_room, "{bytes} bytes");
        }
        let mut next = 0;
        while without.has_room(&block(next, 3000), 0) {
            assert_eq!(without.append(&[block(next, 3000)]).unwrap(), 1);
            next += 1;
        }
        assert!(next > 0, "the rest is for blocks");
        for receipt in 0..SEGMENT / 4 / PAGE {
            assert_eq!(without.append(&[delivered(next)]).unwrap(), 1, "receipt {receipt}");
        }
    }

    #[test]
    fn a_segment_that_is_closed_or_too_short_has_room_only_with_the_spares_that_blocks_need() {
        let (short, long) = (block(0, 100), block(0, 3 * SEGMENT as usize));
        for spares in 0..=SPARES {
            let World { mut writer, .. } = world(spares);
            let is_enough = spares >= SPARES_FOR_BLOCKS;
            assert!(writer.has_room(&short, 0), "{spares} spares");
            assert_eq!(writer.has_room(&long, 0), is_enough, "{spares} spares");
            writer.parts.active.is_closed = true;
            assert_eq!(writer.has_room(&short, 0), is_enough, "{spares} spares");
        }
    }

    #[test]
    fn a_group_is_witnessed_by_one_idle_frame_or_by_the_next_segment() {
        let World { mut writer, .. } = world(1);
        let lsn = writer.durable_lsn();
        assert!(writer.needs_idle());
        for _ in 0..2 {
            writer.idle().unwrap();
            assert_eq!((writer.needs_idle(), writer.durable_lsn()), (false, lsn + 1));
        }
        writer.append(&[block(0, 100)]).unwrap();
        assert!(writer.needs_idle());
        assert!(writer.roll().unwrap());
        writer.idle().unwrap();
        assert_eq!((writer.needs_idle(), writer.durable_lsn()), (false, lsn + 2));
    }

    #[test]
    fn damage_of_the_last_group_is_no_tear_after_a_clean_stop_that_found_no_spare() {
        let World { sim, mut writer, .. } = world(0);
        writer.append(&[block(0, 700)]).unwrap();
        let payload = writer.locations().next().unwrap().position as usize + FRAME_HEADER;
        let lsn = writer.durable_lsn();
        writer.close().unwrap();
        assert_eq!((writer.segment(), writer.durable_lsn(), writer.needs_idle()), (1, lsn + 1, false));
        drop(writer);
        let sim = sim.kill();
        sim.damage(&path(1), |bytes| bytes[payload] ^= 1).unwrap();
        let storage: Arc<dyn Storage> = Arc::new(sim);
        let report = recover(&storage, &options(2)).unwrap().report;
        assert_eq!((report.corrupt.len(), report.torn), (1, None));
    }

    #[test]
    fn a_group_that_failed_goes_on_at_once_in_the_next_segment_and_one_that_found_no_space_waits() {
        let cases = [
            (Operation::Write, EIO, 1, 2),
            (Operation::Sync, EIO, 1, 2),
            (Operation::Sync, ENOSPC, 1, 2),
            (Operation::Write, ENOSPC, 0, 1),
        ];
        for (operation, errno, count, segment) in cases {
            let World { faults, metrics, mut writer, .. } = world(SPARES);
            let entries = [block(0, 100)];
            faults.fail(operation, 0, errno);
            let case = format!("{operation:?} {errno}");
            assert_eq!(writer.append(&entries).unwrap(), count, "{case}");
            assert_eq!(writer.segment(), segment, "{case}");
            assert_eq!(metrics.wal_failed_syncs.get(), count as u64, "{case}");
            assert_eq!(writer.append(&entries[count..]).unwrap(), 1 - count, "{case}");
            assert_eq!((writer.segment(), writer.state().partitions[&P].admitted), (2, 1), "{case}");
        }
    }

    #[test]
    fn the_footer_rides_with_the_last_group_only_if_the_next_segment_can_be_built_at_once() {
        let entries = [block(0, 20_000), block(1, 40_000)];
        for spares in [0, 1] {
            let World { faults, mut writer, .. } = world(spares);
            let before = faults.count(Operation::Sync);
            let syncs = || faults.count(Operation::Sync) - before;
            assert_eq!(writer.append(&entries).unwrap(), 1);
            let kinds: Vec<Kind> = writer.group.headers().iter().map(|header| header.kind).collect();
            assert_eq!((kinds, syncs()), ([Kind::Block, Kind::Footer][..=spares].to_vec(), 1));
            assert_eq!(writer.parts.active.is_closed, spares > 0);
            if spares > 0 {
                assert_eq!(writer.append(&entries[1..]).unwrap(), 1);
                assert_eq!((writer.segment(), syncs()), (2, 3), "one of what is built, one of the group");
            } else {
                assert_eq!(writer.append(&[delivered(1)]).unwrap(), 1, "receipts still have room");
                assert_eq!((writer.segment(), syncs()), (1, 2));
            }
        }
    }

    #[test]
    fn on_a_full_disk_the_longest_block_for_a_spare_is_logged_and_a_longer_one_uses_up_none() {
        let World { sim, mut writer, .. } = world(2);
        sim.set_capacity(Some(sim.used()));
        let end = (SEGMENT - footer::reserve(1)) / PAGE * PAGE;
        let longest = (end - writer.parts.active.frames_start - block(0, 0).bytes()) as usize;
        assert_eq!(writer.append(&[block(0, longest + 1)]).unwrap(), 0);
        assert_eq!((writer.segment(), writer.rack().ready()), (1, 2));
        assert_eq!(writer.append(&[block(0, longest)]).unwrap(), 1);
        assert_eq!((writer.segment(), writer.rack().ready()), (2, 1));
    }

    #[test]
    fn a_segment_grows_by_what_is_counted_and_by_enough_however_many_blocks_it_begins_with() {
        for count in [0, 71] {
            let World { sim, mut writer, .. } = world(1);
            // The last group has no witness: the next start copies it into the segment that it builds.
            assert_eq!(writer.append(&small_blocks(count)).unwrap(), count as usize);
            drop(writer);
            let sim = sim.kill();
            let storage: Arc<dyn Storage> = Arc::new(sim.clone());
            let Recovered { mut writer, .. } = recover(&storage, &options(2)).unwrap();
            assert_eq!(writer.parts.active.index.len(), count as usize);
            // A little more than whole pages: how long the footer is decides how many follow.
            let bytes = 25 * PAGE + 8 - block(0, 0).bytes();
            assert_eq!(writer.append(&[block(count, bytes as usize)]).unwrap(), 1, "after {count} blocks");
            assert_eq!(writer.rack().used(), bytes_of_all_files(&sim), "after {count} blocks");
        }
    }

    #[test]
    fn a_segment_takes_as_many_blocks_as_leave_room_for_its_footer_and_not_one_less() {
        // Behind what is there, 437 of these and what is kept for their footer fill it to the last byte.
        let pages = 24;
        let World { sim, mut writer, .. } = world_with(1, Options { segment_bytes: pages * PAGE, ..options(1) });
        let blocks = small_blocks(438);
        assert_eq!(writer.append(&blocks).unwrap(), 437);
        assert_eq!(writer.group.headers().last().map(|header| header.kind), Some(Kind::Footer));
        assert_eq!(sim.files()[&path(1)].len() as u64, pages * PAGE);
        assert_eq!(writer.append(&blocks[437..]).unwrap(), 1);
        assert_eq!(writer.segment(), 2);
    }

    #[test]
    fn a_segment_that_ends_without_another_group_gets_a_footer_if_it_just_fits() {
        let pages = 24;
        let World { sim, metrics, mut writer, .. } =
            world_with(1, Options { segment_bytes: pages * PAGE, ..options(1) });
        assert_eq!(writer.append(&small_blocks(437)).unwrap(), 437);
        assert_eq!(writer.group.headers().last().map(|header| header.kind), Some(Kind::Block));
        assert!(writer.roll().unwrap());
        assert_eq!(writer.group.headers().last().map(|header| header.kind), Some(Kind::Footer));
        assert_eq!((sim.files()[&path(1)].len() as u64, metrics.wal_segments.get()), (pages * PAGE, 2));
    }

    #[test]
    fn a_segment_that_is_full_of_copied_blocks_ends_without_a_footer() {
        let World { sim, mut writer, .. } = world(1);
        assert_eq!(writer.append(&[block(0, SEGMENT as usize)]).unwrap(), 1);
        drop(writer);
        let sim = sim.kill();
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let Recovered { mut writer, .. } = recover(&storage, &options(2)).unwrap();
        let number = writer.segment();
        let len = sim.files()[&path(number)].len();
        assert_eq!((writer.has_blocks(), writer.parts.active.position), (true, len as u64));
        while !writer.roll().unwrap() {
            assert!(writer.rack().work(&mut || {}).unwrap());
        }
        assert_eq!((writer.segment(), sim.files()[&path(number)].len()), (number + 1, len));
    }

    #[test]
    fn entries_that_jump_are_refused_before_anything_of_them_is_written() {
        let World { sim, mut writer, .. } = world(1);
        let before = (sim.operations(), writer.durable_lsn());
        let refused = catch_unwind(AssertUnwindSafe(|| writer.append(&[block(0, 10), block(2, 10)])));
        assert!(refused.is_err());
        assert_eq!((sim.operations(), writer.durable_lsn()), before);
    }

    #[test]
    fn bytes_are_counted_with_padding_and_footers() {
        let World { metrics, mut writer, .. } = world(1);
        let begun = writer.parts.active.built_end;
        writer.append(&[block(0, 5000)]).unwrap();
        assert_eq!(metrics.wal_bytes_appended.get(), writer.parts.active.position - begun);
        assert!(writer.roll().unwrap());
        let (end, _) = writer.catalogue().end_of(1).unwrap();
        assert_eq!(metrics.wal_bytes_appended.get(), end - begun);
        writer.append(&[block(1, 9000)]).unwrap();
        let active = &writer.parts.active;
        assert_eq!(metrics.wal_bytes_appended.get(), end - begun + active.position - active.built_end);
    }
}
