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
    /// Files that went bad since; they lie there until they are written again or their segment is retired.
    spoilt: BTreeMap<Place, Kept>,
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
                let mut room = self.room();
                room.kept.remove(&place(block));
                room.spoilt.insert(place(block), kept);
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

    /// Keeps a block that was fetched again, if it is the one that was logged; durable when this returns. Returns by
    /// how many bytes the repair files grew.
    pub fn keep(&self, block: &CorruptBlock, fetched: &Block) -> Result<u64, KeepError> {
        accept::accept(block, fetched)?;
        let target = Target { wal_id: self.wal_id, segment: block.segment, salt: block.salt };
        let header = frame_header(block, fetched);
        let kept = files::write(self.storage.as_ref(), &self.dir, &target, &header, &fetched.payload)?;
        let bytes = kept.bytes();
        let mut room = self.room();
        room.kept.insert(place(block), kept);
        room.open.remove(&place(block));
        let replaced = room.spoilt.remove(&place(block)).map_or(0, |spoilt| spoilt.bytes());
        drop(room);
        self.changes.fetch_add(1, Ordering::AcqRel);
        Ok(bytes.saturating_sub(replaced))
    }

    /// Grows whenever a block was repaired or forgotten.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Forgets what belongs to segments below this number, which are retired, and removes its files. Returns their bytes.
    pub fn retire(&self, below: u64) -> Result<u64, WalError> {
        let mut room = self.room();
        let Room { kept, spoilt, .. } = &mut *room;
        let gone = [kept, spoilt].map(|files| {
            let later = files.split_off(&(below, 0));
            std::mem::replace(files, later)
        });
        room.open = room.open.split_off(&(below, 0));
        room.moot = room.moot.split_off(&(below, 0));
        drop(room);
        let gone = || gone.iter().flat_map(BTreeMap::values);
        let names: Vec<String> = gone().map(Kept::name).collect();
        files::remove(self.storage.as_ref(), &self.dir, names.iter())?;
        Ok(gone().map(Kept::bytes).sum())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::Sim;
    use crate::record::batch::{BatchBuilder, RecordRef};
    use crate::record::{BlockHeader, Partition};
    use crate::wal::segment::{repair_name, wal_name};
    use bytes::Bytes;

    const DIR: &str = "/wal";
    const SEGMENT: u64 = 3;

    /// What Kafka has at this offset.
    fn block_of(first: i64) -> Block {
        let mut builder = BatchBuilder::new(Vec::new(), first);
        let value = vec![first as u8; 100];
        builder.push(&RecordRef { offset: first, timestamp: 1000, key: None, value: Some(&value), headers: &[] });
        let encoded = builder.finish(first + 1, 3);
        let header = BlockHeader {
            partition: Partition { topic: 1, number: 0 },
            first,
            next: first + 1,
            leader_epoch: 3,
            tenure: 1,
            count: encoded.count,
            digest: encoded.digest,
            payload_crc: encoded.payload_crc,
        };
        Block { header, payload: Bytes::from(encoded.buffer) }
    }

    /// The same as a damaged place, with the offset as its LSN.
    fn damaged(first: i64) -> CorruptBlock {
        let BlockHeader { partition, first, next, tenure, count, digest, .. } = block_of(first).header;
        let lsn = first as u64;
        CorruptBlock {
            path: Path::new(DIR).join(wal_name(SEGMENT)),
            segment: SEGMENT,
            salt: 77,
            position: 4096 * lsn,
            end: 4096 * (lsn + 1),
            lsn,
            partition,
            tenure,
            first,
            next,
            count,
            digest,
            header: None,
        }
    }

    fn path(block: &CorruptBlock) -> PathBuf {
        Path::new(DIR).join(repair_name(block.segment, block.lsn))
    }

    fn repairs(sim: &Sim) -> Repairs {
        sim.create_dir_all(Path::new(DIR)).unwrap();
        Repairs::new(Arc::new(sim.clone()), Path::new(DIR), 1, Vec::new())
    }

    #[test]
    fn a_damaged_block_is_wanted_once_and_no_more_when_it_is_kept() {
        let repairs = repairs(&Sim::new(1));
        let (seventh, eighth) = (damaged(7), damaged(8));
        assert!(repairs.want(&seventh));
        let later = Attempt::Later("no answer".to_owned());
        assert!(repairs.note(&seventh, later.clone()));
        assert!(!repairs.want(&seventh), "it is known");
        assert_eq!(repairs.wanted(), [Open { block: seventh.clone(), attempt: later }]);
        assert!(!repairs.has(&seventh));
        repairs.keep(&seventh, &block_of(7)).unwrap();
        assert!(repairs.has(&seventh) && !repairs.has(&eighth));
        assert!(!repairs.want(&seventh), "it is mended");
        assert!(repairs.open().is_empty());
        let mended = repairs.find(&seventh).unwrap();
        assert_eq!((mended.header, mended.payload), (block_of(7).header, block_of(7).payload));
        assert!(repairs.want(&eighth));
    }

    #[test]
    fn a_good_file_that_mends_another_block_is_not_handed_out() {
        let sim = Sim::new(1);
        let repairs = repairs(&sim);
        let (seventh, eighth) = (damaged(7), damaged(8));
        repairs.keep(&seventh, &block_of(7)).unwrap();
        repairs.keep(&eighth, &block_of(8)).unwrap();
        let other = sim.files()[&path(&eighth)].clone();
        sim.damage(&path(&seventh), |bytes| *bytes = other).unwrap();
        assert!(repairs.find(&seventh).is_none());
        assert!(!repairs.has(&seventh) && repairs.want(&seventh), "it is fetched once more");
        assert!(repairs.find(&eighth).unwrap().payload == block_of(8).payload);
        repairs.keep(&seventh, &block_of(7)).unwrap();
        assert!(repairs.find(&seventh).unwrap().payload == block_of(7).payload);
    }

    #[test]
    fn a_file_that_went_bad_is_counted_once_and_goes_with_its_segment() {
        let sim = Sim::new(1);
        let repairs = repairs(&sim);
        let seventh = damaged(7);
        let bytes = repairs.keep(&seventh, &block_of(7)).unwrap();
        let spoil = || {
            sim.damage(&path(&seventh), |file| file[100] ^= 1).unwrap();
            assert!(repairs.find(&seventh).is_none());
        };
        spoil();
        assert_eq!(repairs.keep(&seventh, &block_of(7)).unwrap(), 0, "its place is taken");
        spoil();
        assert_eq!(repairs.retire(SEGMENT).unwrap(), 0);
        assert_eq!(repairs.retire(SEGMENT + 1).unwrap(), bytes);
        assert!(!sim.files().contains_key(&path(&seventh)));
        assert_eq!(repairs.retire(SEGMENT + 1).unwrap(), 0);
    }

    #[test]
    fn what_was_not_tried_what_waits_and_what_was_given_up_is_told_apart() {
        let repairs = repairs(&Sim::new(1));
        let (seventh, eighth) = (damaged(7), damaged(8));
        let later = |why: &str| Attempt::Later(why.to_owned());
        let never = || Attempt::Never("Kafka no longer has it".to_owned());
        assert!(!repairs.has_untried(), "there is nothing to try");
        assert!(repairs.want(&seventh) && repairs.want(&eighth));
        assert!(repairs.note(&seventh, later("no answer")));
        assert!(repairs.has_untried());
        assert!(repairs.note(&eighth, never()));
        assert!(!repairs.has_untried());
        assert!(!repairs.note(&eighth, never()) && !repairs.note(&seventh, later("no answer")), "known");
        assert!(repairs.note(&seventh, later("no leader")));
        assert!(!repairs.note(&damaged(9), never()), "nobody wants it");
        assert_eq!(repairs.counts(), Counts { kept: 0, bytes: 0, waiting: 1, given_up: 1 });
        let bytes = repairs.keep(&seventh, &block_of(7)).unwrap();
        assert_eq!(repairs.counts(), Counts { kept: 1, bytes, waiting: 0, given_up: 1 });
    }
}
