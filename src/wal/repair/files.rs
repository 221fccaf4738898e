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
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::Sim;
    use crate::record::Partition;
    use crate::record::batch::payload_crc;
    use crate::wal::format::frame::Kind;
    use crate::wal::segment::wal_name;

    const DIR: &str = "/wal";
    const WAL_ID: u128 = 9;

    fn damaged() -> CorruptBlock {
        CorruptBlock {
            path: Path::new(DIR).join(wal_name(3)),
            segment: 3,
            salt: 77,
            position: 8192,
            end: 12288,
            lsn: 5,
            partition: Partition { topic: 1, number: 2 },
            tenure: 6,
            first: 10,
            next: 14,
            count: 4,
            digest: 99,
            header: None,
        }
    }

    fn sim() -> Sim {
        let sim = Sim::new(1);
        sim.create_dir_all(Path::new(DIR)).unwrap();
        sim
    }

    /// The file of [`damaged`], with a payload of this length.
    fn kept(sim: &Sim, len: usize) -> (Kept, Vec<u8>) {
        let block = damaged();
        let payload: Vec<u8> = (0..len).map(|i| i as u8 + 1).collect();
        let header = FrameHeader {
            lsn: block.lsn,
            position: block.position,
            first: block.first,
            next: block.next,
            partition: block.partition,
            count: block.count,
            digest: block.digest,
            tenure: block.tenure,
            payload_crc: payload_crc(&payload),
            ..FrameHeader::new(Kind::Block)
        };
        let target = Target { wal_id: WAL_ID, segment: block.segment, salt: block.salt };
        let kept = write(sim, Path::new(DIR), &target, &header, &payload).unwrap();
        (kept, payload)
    }

    #[test]
    fn a_repair_takes_as_many_bytes_as_its_file() {
        let sim = sim();
        for len in [1, 7, 8, 203] {
            let (kept, payload) = kept(&sim, len);
            let file = sim.files()[&Path::new(DIR).join(kept.name())].clone();
            assert_eq!(kept.bytes(), file.len() as u64, "payload of {len} bytes");
            let (again, block) = read(&sim, Path::new(DIR), &kept.name()).unwrap();
            assert_eq!((again, &block.payload[..]), (kept, &payload[..]));
        }
        assert_eq!(sim.list(Path::new(DIR)).unwrap(), [repair_name(3, 5)], "each one took the place of the last");
    }

    #[test]
    fn a_repair_mends_its_own_block_and_no_other() {
        let files = [kept(&sim(), 20).0];
        assert!(files[0].mends(&damaged()));
        assert_eq!(find(&files, &damaged()), Some(&files[0]));
        let others: [fn(&mut CorruptBlock); 10] = [
            |block| block.segment += 1,
            |block| block.salt += 1,
            |block| block.lsn += 1,
            |block| block.position += 8,
            |block| block.partition.number += 1,
            |block| block.first += 1,
            |block| block.next += 1,
            |block| block.digest += 1,
            |block| block.count += 1,
            |block| block.tenure += 1,
        ];
        for (number, change) in others.iter().enumerate() {
            let mut other = damaged();
            change(&mut other);
            assert!(!files[0].mends(&other) && find(&files, &other).is_none(), "{number}: {other:?}");
        }
    }

    #[test]
    fn only_a_file_of_this_log_under_its_own_name_is_loaded() {
        let sim = sim();
        let dir = Path::new(DIR);
        let (kept, _) = kept(&sim, 20);
        let (own, another) = (kept.name(), repair_name(3, 6));
        let names = [own.clone()];
        let loaded = load(&sim, dir, &names, WAL_ID);
        assert_eq!((loaded.kept, loaded.bad), (vec![kept], Vec::new()));
        let loaded = load(&sim, dir, &names, WAL_ID + 1);
        assert!(loaded.kept.is_empty());
        assert_eq!(loaded.bad, [(own.clone(), "it belongs to another log".to_owned())]);
        sim.rename(&dir.join(&own), &dir.join(&another)).unwrap();
        let loaded = load(&sim, dir, &[another.clone(), own.clone()], WAL_ID);
        assert!(loaded.kept.is_empty());
        assert_eq!(loaded.bad[0], (another, format!("it says that it is {own}")));
        assert_eq!((loaded.bad.len(), &loaded.bad[1].0), (2, &own), "and the other one is not there");
    }
}
