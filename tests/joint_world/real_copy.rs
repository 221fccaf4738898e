//! The real copy of the dedupe table in real directories, of which a crash leaves what lay in the files at some moment.

use super::copies::Copy;
use crate::crash_world::steps::Random;
use forebay::dedupe::store::{Origin, Store};
use forebay::dedupe::{Row, Table};
use forebay::record::Partition;
use forebay::wal::State;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// See the module.
pub struct RealCopy {
    home: TempDir,
    made: usize,
    /// What the files held, oldest first.
    left: Vec<PathBuf>,
    store: Option<(Store, PathBuf)>,
    /// Copies that were found to equal the log, and others.
    pub matched: u64,
    pub rebuilt: u64,
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copied(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What is in the directory, read without the product: whose it is and its rows.
fn rows_in(dir: &Path) -> Option<(u128, Table)> {
    let read = || {
        let db = sled::Config::new().path(dir).open().ok()?;
        let mut wal_id = None;
        let mut rows = Vec::new();
        for pair in db.iter() {
            let (key, value) = pair.ok()?;
            if let (Ok(key), Ok(value)) = (<[u8; 8]>::try_from(&key[..]), <[u8; 20]>::try_from(&value[..])) {
                let number = |range: std::ops::Range<usize>| i64::from_le_bytes(value[range].try_into().unwrap());
                let tenure = u32::from_le_bytes(value[16..].try_into().unwrap());
                let row = Row { admit: number(0..8), deliver: number(8..16), tenure };
                let key = u64::from_be_bytes(key);
                rows.push((Partition { topic: (key >> 32) as u32, number: key as u32 as i32 }, row));
            } else {
                wal_id = Some(u128::from_le_bytes(value[..16].try_into().ok()?));
            }
        }
        Some((wal_id?, Table::new(rows)))
    };
    catch_unwind(AssertUnwindSafe(read)).ok().flatten()
}

impl RealCopy {
    pub fn new() -> Self {
        let (left, home) = (Vec::new(), tempfile::tempdir().unwrap());
        Self { home, made: 0, left, store: None, matched: 0, rebuilt: 0 }
    }

    fn fresh(&mut self) -> PathBuf {
        self.made += 1;
        self.home.path().join(self.made.to_string())
    }

    /// A power cut may leave what the files hold now.
    fn note(&mut self, dir: &Path) {
        let to = self.fresh();
        copied(dir, &to);
        self.left.push(to);
    }

    fn of(&mut self, copy: &Copy) -> PathBuf {
        let dir = self.fresh();
        Store::open(&dir, &copy.table, copy.stamp).0.close().unwrap();
        dir
    }

    /// The directory as a start finds it.
    fn found(&mut self, saved: &[Copy], random: &mut Random) -> PathBuf {
        let dir = self.fresh();
        let (Some(newest), Some(last)) = (saved.last().cloned(), self.left.last().cloned()) else { return dir };
        let from = match random.below(8) {
            0 => return dir,
            1 => self.of(&newest.foreign()),
            2 => self.of(&newest.ahead()),
            3 | 4 => last,
            _ => self.left[random.below(self.left.len() as u64) as usize].clone(),
        };
        copied(&from, &dir);
        if random.below(4) == 0 {
            harm(&dir.join("db"), random);
        }
        dir
    }

    /// What the product does at a start. The error says what of it is wrong.
    pub fn open(&mut self, state: &State, saved: &[Copy], random: &mut Random) -> Result<(), String> {
        let dir = self.found(saved, random);
        let look = self.fresh();
        let known = if dir.exists() {
            copied(&dir, &look);
            rows_in(&look)
        } else {
            None
        };
        let Copy { table, stamp } = Copy::of(state);
        let is_equal = known == Some((state.wal_id, table.clone()));
        let (store, origin) = Store::open(&dir, &table, stamp);
        match &origin {
            Origin::Matched if is_equal => self.matched += 1,
            Origin::Rebuilt(_) if !is_equal => self.rebuilt += 1,
            other => return Err(format!("{other:?} of a copy with {known:?}; the log has {table:?}")),
        }
        self.note(&dir);
        self.store = Some((store, dir));
        Ok(())
    }

    pub fn save(&mut self, copy: &Copy) {
        if let Some((store, dir)) = self.store.take() {
            store.save(&copy.table, copy.stamp).unwrap();
            self.note(&dir);
            self.store = Some((store, dir));
        }
    }

    /// The process is gone. Once it is closed, the copy holds what was saved last.
    pub fn close(&mut self, last: &Copy) -> Result<(), String> {
        let Some((store, dir)) = self.store.take() else { return Ok(()) };
        store.close().map_err(|error| error.to_string())?;
        let closed = self.fresh();
        copied(&dir, &closed);
        self.note(&dir);
        match rows_in(&closed) {
            Some(known) if known == (last.stamp.wal_id, last.table.clone()) => Ok(()),
            known => Err(format!("the copy holds {known:?} after it was closed, saved was {last:?}")),
        }
    }
}

/// The file is shorter than it was, or a sector of it is another.
fn harm(path: &Path, random: &mut Random) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = random.below(bytes.len() as u64 + 1) as usize;
    if random.below(2) == 0 {
        bytes.truncate(at);
    } else {
        let sector = at / 512 * 512;
        bytes.iter_mut().skip(sector).take(512).for_each(|byte| *byte = random.below(256) as u8);
    }
    std::fs::write(path, bytes).unwrap();
}
