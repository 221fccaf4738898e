//! The sled copy of the dedupe table.
//!
//! Promises: a copy is used only if it carries this log's stamp and equals what the log says. Whatever is wrong with
//! it (missing, damaged, another log's, ahead or behind) it is rebuilt from the log, and why is told. Never: its
//! failure, a panic of sled's included, stops nothing but itself; the log holds the same facts.

use super::{Row, Table};
use crate::record::{Lsn, Partition};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

const STAMP: &[u8] = b"\xff stamp";
/// sled's page cache; the table is small.
const CACHE_BYTES: u64 = 1 << 20;
/// How often and how long it is waited for a copy that is still being closed.
const LOCKED_TRIES: u32 = 50;
const LOCKED_WAIT: Duration = Duration::from_millis(20);

/// For which state of which log a copy is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The log's id.
    pub wal_id: u128,
    /// The last synced LSN when the copy was written.
    pub lsn: Lsn,
}

/// What was found at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The copy equals the log.
    Matched,
    /// The copy was made anew from the log.
    Rebuilt(String),
    /// There is none, and none is kept.
    Absent(String),
}

/// The copy could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// sled's own error.
    #[error("dedupe table: {0}")]
    Sled(#[from] sled::Error),
    /// sled panicked.
    #[error("dedupe table: {0}")]
    Panicked(String),
}

/// The open copy.
#[derive(Debug)]
pub struct Store {
    db: Option<sled::Db>,
}

impl Store {
    /// Opens the copy in `dir` and compares it with the log's rows. A copy that can't be opened is moved aside by
    /// removing the directory: everything in it can be computed again. Where none can be kept it is [`Origin::Absent`].
    /// Blocking.
    pub fn open(dir: &Path, log: &Table, stamp: Stamp) -> (Self, Origin) {
        let kept = Self::keep(dir, log, stamp);
        kept.unwrap_or_else(|error| (Self { db: None }, Origin::Absent(error.to_string())))
    }

    fn keep(dir: &Path, log: &Table, stamp: Stamp) -> Result<(Self, Origin), StoreError> {
        let opened = unless_it_panics(|| open(dir).map_err(|error| format!("could not be opened: {error}")));
        let found = opened.and_then(|db| match unless_it_panics(|| Ok(mismatch(&db, log, stamp).err())) {
            Ok(mismatch) => Ok((db, mismatch)),
            Err(why) => {
                // It would write what it has, and panic once more.
                std::mem::forget(db);
                Err(why)
            }
        });
        let (db, mismatch) = match found {
            Ok(found) => found,
            Err(why) => {
                std::fs::remove_dir_all(dir).map_err(sled::Error::from)?;
                (open(dir)?, Some(why))
            }
        };
        let origin = match mismatch {
            None => Origin::Matched,
            Some(why) => {
                db.clear()?;
                Origin::Rebuilt(why)
            }
        };
        let store = Self { db: Some(db) };
        store.save(log, stamp)?;
        Ok((store, origin))
    }

    /// Writes all rows and the stamp in one batch. Returns before it is durable: sled syncs in the background.
    pub fn save(&self, table: &Table, stamp: Stamp) -> Result<(), StoreError> {
        let Some(db) = &self.db else { return Ok(()) };
        let mut batch = sled::Batch::default();
        for (partition, row) in table.rows() {
            let mut value = [0; 20];
            value[..8].copy_from_slice(&row.admit.to_le_bytes());
            value[8..16].copy_from_slice(&row.deliver.to_le_bytes());
            value[16..].copy_from_slice(&row.tenure.to_le_bytes());
            let key = (u64::from(partition.topic) << 32 | u64::from(partition.number as u32)).to_be_bytes();
            batch.insert(&key, &value);
        }
        let mut value = [0; 24];
        value[..16].copy_from_slice(&stamp.wal_id.to_le_bytes());
        value[16..].copy_from_slice(&stamp.lsn.to_le_bytes());
        batch.insert(STAMP, &value);
        let applied = unless_it_panics(|| Ok(db.apply_batch(batch))).map_err(StoreError::Panicked)?;
        Ok(applied?)
    }

    /// Makes what was saved durable as far as sled can, for a clean stop.
    pub fn close(self) -> Result<(), StoreError> {
        if let Some(db) = &self.db {
            unless_it_panics(|| Ok(db.flush())).map_err(StoreError::Panicked)??;
        }
        Ok(())
    }
}

/// sled panics on some of the files that a power cut leaves.
fn unless_it_panics<T>(attempt: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|_| Err("sled panicked over it".to_owned()))
}

fn mismatch(db: &sled::Db, log: &Table, stamp: Stamp) -> Result<(), String> {
    let found = db.get(STAMP).map_err(|error| error.to_string())?;
    let found = found.ok_or("it is new")?;
    if found.len() != 24 || found[..16] != stamp.wal_id.to_le_bytes() {
        return Err("it belongs to another log".to_string());
    }
    let mut rows = Table::default();
    for entry in db.iter() {
        let (key, value) = entry.map_err(|error| error.to_string())?;
        if key.as_ref() == STAMP {
            continue;
        }
        let (partition, row) = decode(&key, &value).ok_or("a row is malformed")?;
        rows.set(partition, row);
    }
    if rows == *log { Ok(()) } else { Err("it differs from the log".to_string()) }
}

/// Waits a moment for a copy that was closed just now: sled lets go of its file in the background.
fn open(dir: &Path) -> sled::Result<sled::Db> {
    let open = || sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(Some(1_000)).open();
    let mut opened = open();
    for _ in 0..LOCKED_TRIES {
        if !opened.as_ref().is_err_and(|error| error.to_string().contains("could not acquire lock")) {
            break;
        }
        std::thread::sleep(LOCKED_WAIT);
        opened = open();
    }
    opened
}

fn decode(key: &[u8], value: &[u8]) -> Option<(Partition, Row)> {
    let key = u64::from_be_bytes(key.try_into().ok()?);
    if value.len() != 20 {
        return None;
    }
    let admit = i64::from_le_bytes(value[..8].try_into().ok()?);
    let deliver = i64::from_le_bytes(value[8..16].try_into().ok()?);
    let tenure = u32::from_le_bytes(value[16..].try_into().ok()?);
    Some((Partition { topic: (key >> 32) as u32, number: key as u32 as i32 }, Row { admit, deliver, tenure }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP_ONE: Stamp = Stamp { wal_id: 7, lsn: 12 };

    fn table(admit: i64) -> Table {
        Table::new([(Partition { topic: 1, number: 3 }, Row { admit, deliver: 2, tenure: 4 })])
    }

    #[test]
    fn an_equal_copy_is_kept_and_any_other_is_rebuilt() {
        let dir = tempfile::tempdir().unwrap();
        let open = |table: &Table, stamp| {
            let (store, origin) = Store::open(dir.path(), table, stamp);
            store.close().unwrap();
            origin
        };
        assert!(matches!(open(&table(9), STAMP_ONE), Origin::Rebuilt(_)), "it is new");
        assert_eq!(open(&table(9), STAMP_ONE), Origin::Matched);
        assert!(matches!(open(&table(8), STAMP_ONE), Origin::Rebuilt(_)), "ahead of the log");
        assert_eq!(open(&table(8), Stamp { lsn: 13, ..STAMP_ONE }), Origin::Matched);
        assert!(matches!(open(&table(8), Stamp { wal_id: 8, lsn: 13 }), Origin::Rebuilt(_)), "another log");
    }

    #[test]
    fn a_damaged_copy_is_rebuilt() {
        let dir = tempfile::tempdir().unwrap();
        Store::open(dir.path(), &table(9), STAMP_ONE).0.close().unwrap();
        std::fs::write(dir.path().join("db"), [0xab; 4096]).unwrap();
        let (_, origin) = Store::open(dir.path(), &table(9), STAMP_ONE);
        assert!(matches!(origin, Origin::Rebuilt(_)), "{origin:?}");
    }

    #[test]
    fn where_no_copy_can_be_kept_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dedupe");
        std::fs::write(&path, "no directory").unwrap();
        let (store, origin) = Store::open(&path, &table(9), STAMP_ONE);
        assert!(matches!(origin, Origin::Absent(_)), "{origin:?}");
        store.save(&table(10), STAMP_ONE).unwrap();
        store.close().unwrap();
    }

    #[test]
    fn a_panic_is_an_error() {
        assert!(unless_it_panics(|| -> Result<(), String> { panic!("as sled does") }).is_err());
        assert_eq!(unless_it_panics(|| Ok(7)), Ok(7));
    }

    #[test]
    fn what_was_saved_lies_in_the_files_once_the_copy_is_closed() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let stamp = Stamp { lsn: 13, ..STAMP_ONE };
        let (store, _) = Store::open(dir.path(), &table(9), STAMP_ONE);
        store.save(&table(10), stamp).unwrap();
        // The last handle that goes would write it too, but could not say that it failed.
        let handle = store.db.clone();
        store.close().unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), other.path().join(entry.file_name())).unwrap();
            }
        }
        let (copy, origin) = Store::open(other.path(), &table(10), stamp);
        assert_eq!(origin, Origin::Matched);
        copy.close().unwrap();
        drop(handle);
    }
}
