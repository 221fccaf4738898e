//! A storage in which a failed sync is final.
//!
//! Promises: after a file's sync failed, every later write, length change or sync through that handle is an error;
//! after a directory sync failed, every later change of the whole storage is. Reading goes on. The system itself would
//! mark the lost pages clean and call the next sync a success.

use super::{File, IoError, SYNC_DIR, Storage};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wraps a storage; see the module.
#[derive(Debug)]
pub struct Checked {
    inner: Arc<dyn Storage>,
    poisoned: Arc<AtomicBool>,
}

impl Checked {
    /// Wraps `inner`, with nothing latched.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, poisoned: Arc::default() }
    }

    fn refuse(&self, operation: &'static str, path: &Path) -> Result<(), IoError> {
        refuse_if(&self.poisoned, operation, path)
    }

    fn wrap(&self, file: Arc<dyn File>, path: &Path) -> Arc<dyn File> {
        let storage_poisoned = Arc::clone(&self.poisoned);
        Arc::new(CheckedFile { inner: file, path: path.into(), poisoned: AtomicBool::new(false), storage_poisoned })
    }

    fn latch(&self, result: Result<(), IoError>) -> Result<(), IoError> {
        if matches!(&result, Err(e) if e.operation == SYNC_DIR) {
            self.poisoned.store(true, Ordering::SeqCst);
        }
        result
    }
}

fn refuse_if(poisoned: &AtomicBool, operation: &'static str, path: &Path) -> Result<(), IoError> {
    if poisoned.load(Ordering::SeqCst) {
        return Err(IoError::new(operation, path, std::io::Error::other("an earlier sync failed")));
    }
    Ok(())
}

impl Storage for Checked {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, IoError> {
        self.refuse("create", path)?;
        Ok(self.wrap(self.inner.create_new(path)?, path))
    }

    fn open(&self, path: &Path, write: bool) -> Result<Arc<dyn File>, IoError> {
        Ok(self.wrap(self.inner.open(path, write)?, path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        self.inner.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.refuse("rename", from)?;
        self.inner.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> Result<(), IoError> {
        self.refuse("unlink", path)?;
        self.inner.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.refuse(SYNC_DIR, dir)?;
        self.latch(self.inner.sync_dir(dir))
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError> {
        self.refuse("create directory", dir)?;
        self.latch(self.inner.create_dir_all(dir))
    }

    fn exists(&self, path: &Path) -> Result<bool, IoError> {
        self.inner.exists(path)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, IoError> {
        self.inner.lock(path)
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64, IoError> {
        self.inner.free_bytes(dir)
    }
}

/// A file handle that latches its first failed sync.
#[derive(Debug)]
struct CheckedFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    poisoned: AtomicBool,
    storage_poisoned: Arc<AtomicBool>,
}

impl CheckedFile {
    fn refuse(&self, operation: &'static str) -> Result<(), IoError> {
        refuse_if(&self.storage_poisoned, operation, &self.path)?;
        refuse_if(&self.poisoned, operation, &self.path)
    }
}

impl File for CheckedFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.refuse("write")?;
        self.inner.write_at(position, slices)
    }

    fn write_pages_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.refuse("write")?;
        self.inner.write_pages_at(position, slices)
    }

    fn write_once_at(&self, position: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.refuse("write")?;
        self.inner.write_once_at(position, bytes)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        self.inner.read_at(position, buffer)
    }

    fn forget(&self, position: u64, len: u64) {
        self.inner.forget(position, len);
    }

    fn len(&self) -> Result<u64, IoError> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        self.refuse("set length of")?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<(), IoError> {
        self.refuse("sync")?;
        let result = self.inner.sync_data();
        if result.is_err() {
            self.poisoned.store(true, Ordering::SeqCst);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Faults, Operation};
    use super::super::sim::Sim;
    use super::*;

    const EIO: i32 = 5;

    #[test]
    fn a_failed_sync_is_final_for_its_file_alone() {
        let faults = Arc::new(Faults::new(Arc::new(Sim::new(1))));
        let storage = Checked::new(faults.clone());
        let (a, b) = (storage.create_new(Path::new("/a")).unwrap(), storage.create_new(Path::new("/b")).unwrap());
        faults.fail(Operation::Sync, 0, EIO);
        assert!(a.sync_data().is_err());
        assert!(a.sync_data().is_err());
        assert!(a.write_at(0, &[IoSlice::new(b"x")]).is_err());
        assert!(a.write_once_at(0, b"x").is_err());
        assert!(a.write_pages_at(0, &[IoSlice::new(b"x")]).is_err());
        assert!(a.set_len(9).is_err());
        b.write_at(0, &[IoSlice::new(b"x")]).unwrap();
        b.sync_data().unwrap();
        assert_eq!(faults.count(Operation::Sync), 2, "the disk is not asked twice");
    }

    #[test]
    fn a_failed_directory_sync_is_final_for_everything() {
        let faults = Arc::new(Faults::new(Arc::new(Sim::new(1))));
        let storage = Checked::new(faults.clone());
        let a = storage.create_new(Path::new("/a")).unwrap();
        faults.fail(Operation::SyncDir, 0, EIO);
        assert!(storage.sync_dir(Path::new("/")).is_err());
        assert!(storage.sync_dir(Path::new("/")).is_err());
        assert!(a.sync_data().is_err());
        assert!(storage.create_new(Path::new("/b")).is_err());
        assert!(storage.rename(Path::new("/a"), Path::new("/b")).is_err());
        assert!(storage.unlink(Path::new("/a")).is_err());
        assert_eq!(storage.list(Path::new("/")).unwrap(), ["a"]);
    }
}
