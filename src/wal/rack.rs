//! The rack of spares: files prepared for the next segments, and what becomes of retired ones.
//!
//! Promises: a spare was written with zeros or used before, at full length, and its name is durable before anything in
//! it is overwritten. No space is not an error here, it is remembered ([`Rack::is_short`]). A spare that can't be written or
//! synced is given up; the second one in a row is an error.

use super::error::WalError;
use super::options::{SPARES, SPARES_FOR_BLOCKS};
use super::segment::{recycled_name, wal_name, write_zeros};
use crate::io::{IoError, Storage};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Kept free of the quota, at most and as a part of it: what the file system adds to the lengths of files (extents,
/// directories) and the dedupe table's own files.
const RESERVE_MAX: u64 = 4 << 20;
const RESERVE_PART: u64 = 64;

/// So many spares are kept of what is retired: a burst retires several segments at once.
const SPARES_KEPT: usize = 8;
/// How long one missing spare is waited for.
const RETIRES_WITHIN: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Shelf {
    ready: Vec<String>,
    made: u64,
    /// Bytes of segments and spares.
    used: u64,
    /// When a spare was last taken.
    taken: Option<Instant>,
    short: bool,
    /// Retired segments, number and bytes, whose files are to be recycled or removed.
    retired: VecDeque<(u64, u64)>,
    /// Segments whose files are not used again: a write or sync of them failed.
    suspect: Vec<u64>,
    /// Spares in a row that could not be written or synced.
    failed: u32,
    stopped: bool,
}

/// The rack. Shared by the log's thread, which takes, and the thread that prepares.
#[derive(Debug)]
pub struct Rack {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    segment_bytes: u64,
    /// The quota without its reserve.
    max_bytes: Option<u64>,
    shelf: Mutex<Shelf>,
    changed: Condvar,
}

impl Rack {
    /// A rack with the spares found in the directory; `sizes` are a segment's and the quota for the whole directory, of
    /// which a part stays free for what the file system adds. `used` counts the bytes of segments and of these spares.
    pub fn new(
        storage: Arc<dyn Storage>,
        dir: PathBuf,
        sizes: (u64, Option<u64>),
        ready: Vec<String>,
        used: u64,
    ) -> Self {
        let (segment_bytes, quota) = sizes;
        let max_bytes = quota.map(|quota| quota - (quota / RESERVE_PART).min(RESERVE_MAX));
        let shelf = Mutex::new(Shelf { ready, used, ..Shelf::default() });
        Self { storage, dir, segment_bytes, max_bytes, shelf, changed: Condvar::new() }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a spare for use. Its name is durable.
    pub fn take(&self) -> Option<String> {
        let mut shelf = self.shelf();
        let spare = shelf.ready.pop();
        shelf.taken = Some(Instant::now());
        drop(shelf);
        self.changed.notify_all();
        spare
    }

    /// Bytes of a segment, and of a spare.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Puts back a spare that was not used after all.
    pub fn put_back(&self, spare: String) {
        self.shelf().ready.push(spare);
        self.changed.notify_all();
    }

    /// Removes a spare that could not be written or synced.
    pub fn discard(&self, spare: &str) -> Result<(), WalError> {
        let path = self.dir.join(spare);
        let len = self.storage.open(&path, false)?.len()?;
        self.storage.unlink(&path)?;
        self.storage.sync_dir(&self.dir)?;
        self.shrank(len);
        self.changed.notify_all();
        Ok(())
    }

    /// The file of this segment is removed when it retires.
    pub fn never_reuse(&self, number: u64) {
        self.shelf().suspect.push(number);
    }

    /// Spares that can be taken now.
    pub fn ready(&self) -> usize {
        self.shelf().ready.len()
    }

    /// Bytes of all segments and spares.
    pub fn used(&self) -> u64 {
        self.shelf().used
    }

    /// A segment grew by so many bytes.
    pub fn grew(&self, bytes: u64) {
        self.shelf().used += bytes;
    }

    /// True when spares are missing and there is no space or quota to make them: no more blocks may be admitted.
    pub fn is_short(&self) -> bool {
        let shelf = self.shelf();
        shelf.short && shelf.ready.len() < SPARES_FOR_BLOCKS
    }

    /// Notes whether there is space and quota for the spares that blocks need. Before the first blocks are admitted:
    /// otherwise each start on a full disk would admit some until a spare could not be made, and would cost one itself.
    pub fn look_for_space(&self) -> Result<(), WalError> {
        let free = self.storage.free_bytes(&self.dir)?;
        let mut shelf = self.shelf();
        let left = self.max_bytes.map_or(u64::MAX, |max| max.saturating_sub(shelf.used));
        let possible = shelf.ready.len() as u64 + free.min(left) / self.segment_bytes;
        shelf.short = possible < SPARES_FOR_BLOCKS as u64;
        Ok(())
    }

    /// False if an entry of this size fits into no segment and there is neither space nor quota for a longer one.
    pub fn can_grow(&self, bytes: u64) -> Result<bool, WalError> {
        if bytes < self.segment_bytes / 2 {
            return Ok(true);
        }
        let quota = self.max_bytes.is_none_or(|max| self.used() + bytes <= max);
        Ok(quota && self.storage.free_bytes(&self.dir)? >= bytes)
    }

    /// So many bytes are gone.
    pub fn shrank(&self, bytes: u64) {
        let mut shelf = self.shelf();
        shelf.used = shelf.used.saturating_sub(bytes);
    }

    /// Waits until something changed, at most so long.
    pub fn wait(&self, timeout: Duration) {
        let shelf = self.shelf();
        if !shelf.stopped {
            drop(self.changed.wait_timeout(shelf, timeout));
        }
    }

    /// Makes one more spare if some are missing; true if one was made. `pause` is called between the pieces that are
    /// written.
    fn prepare(&self, pause: &mut dyn FnMut()) -> Result<bool, WalError> {
        let number = {
            let mut shelf = self.shelf();
            if shelf.stopped || shelf.ready.len() >= SPARES {
                shelf.short = false;
                return Ok(false);
            }
            if self.max_bytes.is_some_and(|max| shelf.used + self.segment_bytes > max) {
                shelf.short = true;
                return Ok(false);
            }
            shelf.made += 1;
            shelf.made
        };
        // Not even begun: zeros would be written and removed again, over and over. Who can't be asked may have room.
        if self.storage.free_bytes(&self.dir).is_ok_and(|free| free < self.segment_bytes) {
            self.shelf().short = true;
            return Ok(false);
        }
        let made = self.make(&format!("new-{number}"), self.segment_bytes, pause)?;
        let is_made = made.is_some();
        match made {
            Some(name) => {
                let mut shelf = self.shelf();
                shelf.used += self.segment_bytes;
                shelf.ready.push(name);
                drop(shelf);
                self.look_for_space()?;
            }
            None => self.shelf().short = true,
        }
        self.changed.notify_all();
        Ok(is_made)
    }

    /// Makes a spare of a length; `None` if there is no space, or if it could not be written for the first time in a row.
    pub fn make(&self, stem: &str, bytes: u64, pause: &mut dyn FnMut()) -> Result<Option<String>, WalError> {
        const PIECE: u64 = 4 << 20;
        let name = self.free_name(stem)?;
        let (unfinished, finished) = (self.dir.join(format!("{name}.tmp")), self.dir.join(&name));
        let file = match self.storage.create_new(&unfinished) {
            Err(error) if error.is_full() => return Ok(None),
            other => other?,
        };
        let mut from = 0;
        while from < bytes {
            let to = (from + PIECE).min(bytes);
            // Synced piece by piece: one large sync would hold up the log's own. Not retried: the file is given up.
            let written = write_zeros(file.as_ref(), from, to).and_then(|()| file.sync_data());
            if let Err(error) = written {
                return self.give_up(&unfinished, error);
            }
            from = to;
            // What is retired meanwhile is ready sooner than this one.
            self.take_in_retired()?;
            pause();
        }
        self.storage.rename(&unfinished, &finished)?;
        self.storage.sync_dir(&self.dir)?;
        self.shelf().failed = 0;
        Ok(Some(name))
    }

    fn give_up(&self, path: &Path, error: IoError) -> Result<Option<String>, WalError> {
        if !error.is_full() {
            let mut shelf = self.shelf();
            shelf.failed += 1;
            if shelf.failed > 1 {
                return Err(error.into());
            }
            tracing::error!("a spare segment is given up: {error}");
        }
        self.storage.unlink(path)?;
        self.storage.sync_dir(&self.dir)?;
        Ok(None)
    }

    fn free_name(&self, stem: &str) -> Result<String, WalError> {
        for attempt in 0_u64.. {
            let name = match attempt {
                0 => format!("{stem}.spare"),
                _ => format!("{stem}-{attempt}.spare"),
            };
            let taken = self.storage.exists(&self.dir.join(&name))?
                || self.storage.exists(&self.dir.join(format!("{name}.tmp")))?;
            if !taken {
                return Ok(name);
            }
        }
        Err(WalError::Internal("no free name for a spare".to_owned()))
    }

    /// Hands over retired segments: [`Rack::work`] recycles or removes their files.
    pub fn hand_over(&self, retired: impl IntoIterator<Item = (u64, u64)>) {
        self.shelf().retired.extend(retired);
        self.changed.notify_all();
    }

    /// Does what is to be done next: retired segments, or one missing spare. False if there was nothing, or no space.
    pub fn work(&self, pause: &mut dyn FnMut()) -> Result<bool, WalError> {
        if self.take_in_retired()? {
            return Ok(true);
        }
        self.prepare(pause)
    }

    fn take_in_retired(&self) -> Result<bool, WalError> {
        let mut any = false;
        loop {
            let retired = self.shelf().retired.pop_front();
            let Some((number, len)) = retired else {
                return Ok(any);
            };
            self.recycle(number, len)?;
            any = true;
        }
    }

    /// Tells the preparing thread to end.
    pub fn stop(&self) {
        self.shelf().stopped = true;
        self.changed.notify_all();
    }

    /// The preparing thread: works until it is told to stop and no retired segment is left.
    pub fn run(&self, pause: &mut dyn FnMut()) -> Result<(), WalError> {
        const LOOK_AGAIN: Duration = Duration::from_millis(200);
        loop {
            if self.is_done() {
                return Ok(());
            }
            let worked = if self.may_wait() { self.take_in_retired()? } else { self.work(pause)? };
            if !worked {
                self.wait(LOOK_AGAIN);
            }
        }
    }

    /// With only one spare missing it is worth waiting a moment for a segment to be retired: a new spare costs writing all
    /// of it.
    fn may_wait(&self) -> bool {
        let shelf = self.shelf();
        shelf.ready.len() + 1 == SPARES && shelf.taken.is_some_and(|taken| taken.elapsed() < RETIRES_WITHIN)
    }

    /// Retired segments are kept as spares up to this number; more where there is no quota that they would use up.
    fn kept(&self) -> usize {
        if self.max_bytes.is_none() { SPARES_KEPT } else { SPARES }
    }

    fn is_done(&self) -> bool {
        let shelf = self.shelf();
        shelf.stopped && shelf.retired.is_empty()
    }

    /// Takes in a retired segment, or removes it if enough spares are there or its size is another. The log no
    /// longer names it: the frame that retires it is durable.
    fn recycle(&self, number: u64, len: u64) -> Result<(), WalError> {
        let path = self.dir.join(wal_name(number));
        let name = recycled_name(number);
        let is_sound = !self.shelf().suspect.contains(&number);
        let wanted = is_sound && len == self.segment_bytes && self.ready() < self.kept();
        if wanted {
            self.storage.rename(&path, &self.dir.join(&name))?;
        } else {
            self.storage.unlink(&path)?;
        }
        // Before this the old name could come back; nothing may be overwritten until then.
        self.storage.sync_dir(&self.dir)?;
        let mut shelf = self.shelf();
        if wanted {
            shelf.ready.insert(0, name);
        } else {
            shelf.used = shelf.used.saturating_sub(len);
        }
        shelf.suspect.retain(|suspect| *suspect != number);
        shelf.short &= shelf.ready.len() < SPARES_FOR_BLOCKS;
        drop(shelf);
        self.changed.notify_all();
        Ok(())
    }
}

#[cfg(test)]
#[path = "rack_tests.rs"]
mod tests;
