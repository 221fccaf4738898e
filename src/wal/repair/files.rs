//! Repair files in the log's directory: written, read, removed.
//!
//! Promises: a file has its name only after its bytes are synced, and [`write`] returns after the name is. Never: it does
//! not touch a segment. A directory sync that fails is final, as everywhere in the log.

use super::format::{self, RepairError, Target};
use crate::io::{IoError, Storage};
use crate::record::{Block, Lsn};
use crate::wal::error::WalError;
use crate::wal::format::MAX_PAYLOAD;
use crate::wal::format::frame::{FRAME_HEADER, FrameHeader};
use crate::wal::scan::finding::CorruptBlock;
use crate::wal::segment::{repair_name, unfinished_name};
use bytes::Bytes;
use std::io::IoSlice;
use std::path::Path;

/// The longest repair file.
const BYTES_MAX: u64 = (format::REPAIR_HEADER + FRAME_HEADER) as u64 + MAX_PAYLOAD as u64 + 8;

/// A repair file that verifies, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What it mends.
    pub target: Target,
    /// The block's frame header.
    pub header: FrameHeader,
}

impl Kept {
    /// Its file name.
    pub fn name(&self) -> String {
        repair_name(self.target.segment, self.header.lsn)
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        format::REPAIR_HEADER as u64 + self.header.frame_len()
    }

    /// True if it is this block again: the same place in the same segment, the same records by their digest.
    pub fn mends(&self, block: &CorruptBlock) -> bool {
        let Self { target, header } = self;
        (target.segment, target.salt, header.lsn, header.position)
            == (block.segment, block.salt, block.lsn, block.position)
            && (header.partition, header.first, header.next) == (block.partition, block.first, block.next)
            && (header.digest, header.count, header.tenure) == (block.digest, block.count, block.tenure)
    }
}

/// What the repair files of a directory are.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Those of this log that verify.
    pub kept: Vec<Kept>,
    /// The others: name and what is wrong.
    pub bad: Vec<(String, String)>,
}

/// Reads and verifies these files, one at a time.
pub fn load(storage: &dyn Storage, dir: &Path, names: &[String], wal_id: u128) -> Loaded {
    let mut loaded = Loaded::default();
    for name in names {
        match read(storage, dir, name) {
            Ok((kept, _)) if kept.target.wal_id != wal_id => {
                loaded.bad.push((name.clone(), "it belongs to another log".to_owned()));
            }
            Ok((kept, _)) if kept.name() != *name => {
                loaded.bad.push((name.clone(), format!("it says that it is {}", kept.name())));
            }
            Ok((kept, _)) => loaded.kept.push(kept),
            Err(reason) => loaded.bad.push((name.clone(), reason)),
        }
    }
    loaded
}

/// Reads and verifies one file.
pub fn read(storage: &dyn Storage, dir: &Path, name: &str) -> Result<(Kept, Block), String> {
    let read = || -> Result<Vec<u8>, IoError> {
        let file = storage.open(&dir.join(name), false)?;
        let mut bytes = vec![0; file.len()?.min(BYTES_MAX) as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(filled as u64, &mut bytes[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    };
    let bytes = read().map_err(|error| error.to_string())?;
    let (target, header, payload) = format::decode(&bytes).map_err(|error: RepairError| error.to_string())?;
    let block = header.block().ok_or("not a block")?;
    Ok((Kept { target, header }, Block { header: block, payload: Bytes::copy_from_slice(payload) }))
}

/// Writes one file and makes it and its name durable. What a crash or an earlier attempt left of it is replaced.
pub fn write(
    storage: &dyn Storage,
    dir: &Path,
    target: &Target,
    header: &FrameHeader,
    payload: &[u8],
) -> Result<Kept, WalError> {
    let len = payload.len() as u32;
    let pad_len = format::pad_of(len);
    let header = FrameHeader { payload_len: len, pad_len, ..*header };
    let kept = Kept { target: *target, header };
    let unfinished = dir.join(unfinished_name(&kept.name()));
    if storage.exists(&unfinished)? {
        storage.unlink(&unfinished)?;
    }
    let file = storage.create_new(&unfinished)?;
    let head = format::encode(target, &header, len);
    let pad = [0; 8];
    let slices = [IoSlice::new(&head), IoSlice::new(payload), IoSlice::new(&pad[..pad_len as usize])];
    if let Err(error) = file.write_at(0, &slices).and_then(|()| file.sync_data()) {
        // On a full disk what is unfinished is in the way of everything else.
        let _ = storage.unlink(&unfinished);
        return Err(error.into());
    }
    // Named only now that it is whole and durable, and relied on only once the name is durable too.
    storage.rename(&unfinished, &dir.join(kept.name()))?;
    storage.sync_dir(dir)?;
    Ok(kept)
}

/// Removes these files.
pub fn remove<'a>(storage: &dyn Storage, dir: &Path, names: impl Iterator<Item = &'a String>) -> Result<(), WalError> {
    let mut any = false;
    for name in names {
        storage.unlink(&dir.join(name))?;
        any = true;
    }
    if any {
        storage.sync_dir(dir)?;
    }
    Ok(())
}

/// Where a block of this log is kept again, if it is.
pub fn find<'a>(kept: &'a [Kept], block: &CorruptBlock) -> Option<&'a Kept> {
    kept.iter().find(|kept| kept.mends(block))
}

/// A segment and an LSN in it.
pub type Place = (u64, Lsn);
