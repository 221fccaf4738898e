//! Damaged blocks and what mends them: repair files outside the chain of segments, which override the damaged frame.
//!
//! Promises: only what is equal to the block that was logged, by its digest, is ever kept or handed out ([`accept`]); a
//! kept block is durable when [`Repairs::keep`] returns. Never: a segment is not changed, and nothing is fetched here:
//! who can fetch asks what is missing ([`Repairs::wanted`]).

pub mod accept;
pub mod files;
pub mod format;

use super::error::WalError;
use super::format::frame::{FrameHeader, Kind};
use super::scan::finding::CorruptBlock;
use crate::io::Storage;
use crate::record::Block;
use accept::Refusal;
use files::{Kept, Place};
use format::Target;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How far the repair of a block has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Nobody has tried yet.
    New,
    /// Not now: why. It is tried again.
    Later(String),
    /// It can't be repaired: why. Its partition stays stopped.
    Never(String),
}

/// A damaged block that no repair file mends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Which.
    pub block: CorruptBlock,
    /// How far its repair has come.
    pub attempt: Attempt,
}

impl std::fmt::Display for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { block, attempt } = self;
        match attempt {
            Attempt::New => write!(f, "{block}; to be fetched again"),
            Attempt::Later(why) => write!(f, "{block}; not repaired yet: {why}"),
            Attempt::Never(why) => write!(f, "{block}; cannot be repaired: {why}"),
        }
    }
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Repair files in use.
    pub kept: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Damaged blocks that are to be delivered and not repaired yet.
    pub waiting: usize,
    /// Damaged blocks that can't be repaired.
    pub given_up: usize,
}

/// Why a block was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It is not the block that was logged.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its file can't be written.
    #[error(transparent)]
    Wal(#[from] WalError),
}

/// The damaged blocks of an open log. Shared between threads.
#[derive(Debug)]
pub struct Repairs {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    wal_id: u128,
    room: Mutex<Room>,
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct Room {
    kept: BTreeMap<Place, Kept>,
    open: BTreeMap<Place, Open>,
    /// Damaged blocks that nobody needs any more.
    moot: BTreeSet<Place>,
}

fn place(block: &CorruptBlock) -> Place {
    (block.segment, block.lsn)
}

impl Repairs {
    /// Those of the log in `dir`, with these files known to verify.
    pub fn new(storage: Arc<dyn Storage>, dir: &Path, wal_id: u128, kept: Vec<Kept>) -> Self {
        let kept = kept.into_iter().map(|kept| ((kept.target.segment, kept.header.lsn), kept)).collect();
        let room = Mutex::new(Room { kept, ..Room::default() });
        Self { storage, dir: dir.to_path_buf(), wal_id, room, changes: AtomicU64::new(0) }
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block again, if a repair file mends it. Reads the file; blocks.
    pub fn find(&self, block: &CorruptBlock) -> Option<Block> {
        let kept = self.room().kept.get(&place(block)).filter(|kept| kept.mends(block)).cloned()?;
        match files::read(self.storage.as_ref(), &self.dir, &kept.name()) {
            Ok((again, found)) if again == kept => Some(found),
            read => {
                let reason = read.err().unwrap_or_else(|| "it is another file now".to_owned());
                tracing::warn!("repair file {}: {reason}; the block is fetched once more", kept.name());
                self.room().kept.remove(&place(block));
                None
            }
        }
    }

    /// True if a repair file mends the block.
    pub fn has(&self, block: &CorruptBlock) -> bool {
        self.room().kept.get(&place(block)).is_some_and(|kept| kept.mends(block))
    }

    /// Notes a damaged block that is needed. True if it was not known, and nobody has said that it is not needed.
    pub fn want(&self, block: &CorruptBlock) -> bool {
        let mut room = self.room();
        let at = place(block);
        let is_mended = room.kept.get(&at).is_some_and(|kept| kept.mends(block));
        if is_mended || room.open.contains_key(&at) || room.moot.contains(&at) {
            return false;
        }
        room.open.insert(at, Open { block: block.clone(), attempt: Attempt::New });
        true
    }

    /// Damaged blocks that are not repaired and not given up, in the order of the log.
    pub fn wanted(&self) -> Vec<Open> {
        let never = |open: &&Open| matches!(open.attempt, Attempt::Never(_));
        self.room().open.values().filter(|open| !never(open)).cloned().collect()
    }

    /// All damaged blocks that are not repaired, in the order of the log.
    pub fn open(&self) -> Vec<Open> {
        self.room().open.values().cloned().collect()
    }

    /// True while there are blocks whose repair nobody has tried.
    pub fn has_untried(&self) -> bool {
        self.room().open.values().any(|open| open.attempt == Attempt::New)
    }

    /// Nobody needs the damaged block any more: the feed goes on behind it.
    pub fn forget(&self, block: &CorruptBlock) {
        let mut room = self.room();
        room.open.remove(&place(block));
        room.moot.insert(place(block));
        drop(room);
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// True if it was said that nobody needs the block.
    pub fn is_moot(&self, block: &CorruptBlock) -> bool {
        self.room().moot.contains(&place(block))
    }

    /// Notes how an attempt at a repair ended; true if that was not known.
    pub fn note(&self, block: &CorruptBlock, attempt: Attempt) -> bool {
        let mut room = self.room();
        match room.open.get_mut(&place(block)) {
            Some(open) if open.attempt != attempt => {
                open.attempt = attempt;
                true
            }
            _ => false,
        }
    }

    /// Keeps a block that was fetched again, if it is the one that was logged; durable when this returns. Returns the
    /// bytes of its file.
    pub fn keep(&self, block: &CorruptBlock, fetched: &Block) -> Result<u64, KeepError> {
        accept::accept(block, fetched)?;
        let target = Target { wal_id: self.wal_id, segment: block.segment, salt: block.salt };
        let header = frame_header(block, fetched);
        let kept = files::write(self.storage.as_ref(), &self.dir, &target, &header, &fetched.payload)?;
        let bytes = kept.bytes();
        let mut room = self.room();
        room.kept.insert(place(block), kept);
        room.open.remove(&place(block));
        drop(room);
        self.changes.fetch_add(1, Ordering::AcqRel);
        Ok(bytes)
    }

    /// Grows whenever a block was repaired or forgotten.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Forgets what belongs to segments below this number, which are retired, and removes its files. Returns their bytes.
    pub fn retire(&self, below: u64) -> Result<u64, WalError> {
        let mut room = self.room();
        let later = room.kept.split_off(&(below, 0));
        let gone = std::mem::replace(&mut room.kept, later);
        room.open = room.open.split_off(&(below, 0));
        room.moot = room.moot.split_off(&(below, 0));
        drop(room);
        let names: Vec<String> = gone.values().map(Kept::name).collect();
        files::remove(self.storage.as_ref(), &self.dir, names.iter())?;
        Ok(gone.values().map(Kept::bytes).sum())
    }

    /// How many there are.
    pub fn counts(&self) -> Counts {
        let room = self.room();
        let given_up = room.open.values().filter(|open| matches!(open.attempt, Attempt::Never(_))).count();
        Counts {
            kept: room.kept.len(),
            bytes: room.kept.values().map(Kept::bytes).sum(),
            waiting: room.open.len() - given_up,
            given_up,
        }
    }
}

/// The block's frame header as its segment should have it.
fn frame_header(block: &CorruptBlock, fetched: &Block) -> FrameHeader {
    let known = block.header.unwrap_or_else(|| FrameHeader {
        lsn: block.lsn,
        position: block.position,
        first: block.first,
        next: block.next,
        partition: block.partition,
        leader_epoch: fetched.header.leader_epoch,
        count: block.count,
        digest: block.digest,
        tenure: block.tenure,
        ..FrameHeader::new(Kind::Block)
    });
    FrameHeader { payload_crc: crate::record::batch::payload_crc(&fetched.payload), ..known }
}
