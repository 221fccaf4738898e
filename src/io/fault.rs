//! A storage that fails on request and remembers what was asked of it, for tests of single errors and of order.
//!
//! Promises: a failed operation reaches nothing behind it; every operation is counted and traced, failed ones too.
//! It does not model loss: that is [`super::sim`].

use super::{File, IoError, SYNC_DIR, Storage};
use std::collections::HashMap;
use std::io::{Error, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The kinds of operations that can be counted and made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Operation {
    Create,
    Open,
    List,
    Rename,
    Unlink,
    SyncDir,
    CreateDir,
    Lock,
    Write,
    Read,
    SetLen,
    Sync,
}

/// One operation as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// What.
    pub operation: Operation,
    /// On what. For operations on an open file, the path it was opened by; for a rename, the old path.
    pub path: PathBuf,
    /// The new path of a rename.
    pub to: Option<PathBuf>,
    /// Whether it was made to fail.
    pub failed: bool,
}

#[derive(Debug, Default)]
struct Record {
    counts: HashMap<Operation, u64>,
    planned: HashMap<(Operation, u64), i32>,
    always: HashMap<Operation, i32>,
    trace: Vec<Traced>,
    past_the_cache: u64,
}

/// Wraps a storage; see the module.
#[derive(Debug)]
pub struct Faults {
    inner: Arc<dyn Storage>,
    record: Arc<Mutex<Record>>,
}

fn locked(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(record: &Mutex<Record>, operation: Operation, path: &Path, to: Option<&Path>) -> Result<(), IoError> {
    let mut record = locked(record);
    let count = record.counts.entry(operation).or_default();
    let number = *count;
    *count += 1;
    let errno = record.planned.remove(&(operation, number)).or_else(|| record.always.get(&operation).copied());
    let traced = Traced { operation, path: path.into(), to: to.map(Into::into), failed: errno.is_some() };
    record.trace.push(traced);
    match errno {
        Some(errno) => Err(IoError::new(verb(operation), path, Error::from_raw_os_error(errno))),
        None => Ok(()),
    }
}

fn verb(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "create",
        Operation::Open => "open",
        Operation::List => "list",
        Operation::Rename => "rename",
        Operation::Unlink => "unlink",
        Operation::SyncDir => SYNC_DIR,
        Operation::CreateDir => "create directory",
        Operation::Lock => "lock",
        Operation::Write => "write",
        Operation::Read => "read",
        Operation::SetLen => "set length of",
        Operation::Sync => "sync",
    }
}

impl Faults {
    /// Wraps `inner`; nothing fails until asked to.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, record: Arc::default() }
    }

    /// Writes so far for which the page cache was not asked for.
    pub fn past_the_cache(&self) -> u64 {
        locked(&self.record).past_the_cache
    }

    /// Makes the operation that has `later` others of its kind before it, counted from now, fail once with `errno`.
    pub fn fail(&self, operation: Operation, later: u64, errno: i32) {
        let mut record = locked(&self.record);
        let number = record.counts.get(&operation).copied().unwrap_or_default() + later;
        record.planned.insert((operation, number), errno);
    }

    /// Makes every operation of the kind fail from now on (`None`: no longer).
    pub fn fail_always(&self, operation: Operation, errno: Option<i32>) {
        let mut record = locked(&self.record);
        match errno {
            Some(errno) => record.always.insert(operation, errno),
            None => record.always.remove(&operation),
        };
    }

    /// How many operations of the kind were asked for.
    pub fn count(&self, operation: Operation) -> u64 {
        locked(&self.record).counts.get(&operation).copied().unwrap_or_default()
    }

    /// Takes everything asked for since the last call, in order.
    pub fn take_trace(&self) -> Vec<Traced> {
        std::mem::take(&mut locked(&self.record).trace)
    }

    fn note(&self, operation: Operation, path: &Path) -> Result<(), IoError> {
        note(&self.record, operation, path, None)
    }

    fn wrap(&self, inner: Arc<dyn File>, path: &Path) -> Arc<dyn File> {
        Arc::new(FaultyFile { inner, path: path.into(), record: Arc::clone(&self.record) })
    }
}

impl Storage for Faults {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, IoError> {
        self.note(Operation::Create, path)?;
        Ok(self.wrap(self.inner.create_new(path)?, path))
    }

    fn open(&self, path: &Path, write: bool) -> Result<Arc<dyn File>, IoError> {
        self.note(Operation::Open, path)?;
        Ok(self.wrap(self.inner.open(path, write)?, path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        self.note(Operation::List, dir)?;
        self.inner.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        note(&self.record, Operation::Rename, from, Some(to))?;
        self.inner.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> Result<(), IoError> {
        self.note(Operation::Unlink, path)?;
        self.inner.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.note(Operation::SyncDir, dir)?;
        self.inner.sync_dir(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError> {
        self.note(Operation::CreateDir, dir)?;
        self.inner.create_dir_all(dir)
    }

    fn exists(&self, path: &Path) -> Result<bool, IoError> {
        self.inner.exists(path)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, IoError> {
        self.note(Operation::Lock, path)?;
        self.inner.lock(path)
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64, IoError> {
        self.inner.free_bytes(dir)
    }
}

#[derive(Debug)]
struct FaultyFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    record: Arc<Mutex<Record>>,
}

impl FaultyFile {
    fn note(&self, operation: Operation) -> Result<(), IoError> {
        note(&self.record, operation, &self.path, None)
    }
}

impl File for FaultyFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.note(Operation::Write)?;
        self.inner.write_at(position, slices)
    }

    fn write_pages_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.note(Operation::Write)?;
        locked(&self.record).past_the_cache += 1;
        self.inner.write_pages_at(position, slices)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        self.note(Operation::Read)?;
        self.inner.read_at(position, buffer)
    }

    fn forget(&self, position: u64, len: u64) {
        self.inner.forget(position, len);
    }

    fn len(&self) -> Result<u64, IoError> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        self.note(Operation::SetLen)?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<(), IoError> {
        self.note(Operation::Sync)?;
        self.inner.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::Sim;
    use super::*;

    #[test]
    fn the_nth_operation_fails_once_and_is_traced() {
        let storage = Faults::new(Arc::new(Sim::new(1)));
        storage.fail(Operation::Write, 1, 28);
        let file = storage.create_new(Path::new("/f")).unwrap();
        file.write_at(0, &[IoSlice::new(b"a")]).unwrap();
        assert!(file.write_at(1, &[IoSlice::new(b"b")]).unwrap_err().is_full());
        file.write_at(1, &[IoSlice::new(b"c")]).unwrap();
        storage.rename(Path::new("/f"), Path::new("/g")).unwrap();
        assert_eq!((storage.count(Operation::Write), storage.count(Operation::Sync)), (3, 0));
        let trace = storage.take_trace();
        assert_eq!(trace.iter().map(|t| t.failed).collect::<Vec<_>>(), [false, false, true, false, false]);
        assert_eq!((trace[4].operation, trace[4].to.as_deref()), (Operation::Rename, Some(Path::new("/g"))));
        assert!(storage.take_trace().is_empty());
    }
}
