//! The only door to the file system: a small blocking, positional interface with a real disk behind it and a
//! simulated one that loses, reorders and lies the way disks do.
//!
//! Promises: nothing is durable until `sync_data` (contents) or `sync_dir` (names) returned `Ok`; nothing is retried.

pub mod checked;
mod direct;
pub mod disk;
pub mod fault;
pub mod hook;
pub mod pool;
pub mod sim;
pub mod standard;
pub mod volume;

use std::fmt::Debug;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The [`IoError::operation`] of a failed directory sync.
pub const SYNC_DIR: &str = "sync directory";

/// An operation on a file or directory that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}{}: {source}", path.display(), position.map(|p| format!(" at byte {p}")).unwrap_or_default())]
pub struct IoError {
    /// The verb: "write", "sync", "rename"…
    pub operation: &'static str,
    /// What it was done to.
    pub path: PathBuf,
    /// The byte position, where there is one.
    pub position: Option<u64>,
    /// The system's own error.
    pub source: std::io::Error,
}

impl IoError {
    /// An error of `operation` on `path`, without a position.
    pub fn new(operation: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Self { operation, path: path.to_path_buf(), position: None, source: source.into() }
    }

    /// An error of `operation` on `path` at byte `position`.
    pub fn at(operation: &'static str, path: &Path, position: u64, source: impl Into<std::io::Error>) -> Self {
        Self { operation, path: path.to_path_buf(), position: Some(position), source: source.into() }
    }

    /// True when the disk or a quota is full: nothing is broken, space may come back.
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded)
    }
}

/// A directory tree on some medium. All calls block.
pub trait Storage: Send + Sync + Debug {
    /// Creates a file that does not exist yet (`O_EXCL`), readable and writable, mode 0600. The name is durable only after [`Storage::sync_dir`].
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, IoError>;
    /// Opens an existing file, for writing too if `write`.
    fn open(&self, path: &Path, write: bool) -> Result<Arc<dyn File>, IoError>;
    /// Names of the regular files directly inside `dir`, sorted.
    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError>;
    /// Atomically renames, replacing `to`.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError>;
    /// Removes a file's name.
    fn unlink(&self, path: &Path) -> Result<(), IoError>;
    /// Makes the names inside `dir` durable.
    fn sync_dir(&self, dir: &Path) -> Result<(), IoError>;
    /// Creates `dir` and its missing parents (mode 0700) and makes their names durable.
    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError>;
    /// True if a file or directory of that name exists.
    fn exists(&self, path: &Path) -> Result<bool, IoError>;
    /// Takes an exclusive advisory lock on the file (created if missing) until the guard is dropped;
    /// `Ok(None)` when another process holds it.
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, IoError>;
    /// Bytes a process may still allocate on the volume that holds `dir`.
    fn free_bytes(&self, dir: &Path) -> Result<u64, IoError>;
}

/// An open file. Positional; safe to share between threads.
pub trait File: Send + Sync + Debug {
    /// Writes all slices, one after the other, from `position` on. On an error any part may have been written.
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError>;
    /// [`File::write_at`] of whole pages that are synced right behind it: a large one may go past the page cache, into space
    /// that was written before. Promises no more than `write_at`. One at a time and thread, and nothing else may write to
    /// these pages meanwhile.
    fn write_pages_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.write_at(position, slices)
    }
    /// [`File::write_at`] of bytes that will be synced soon and hardly be read again: they begin to go to the disk at once
    /// and need not stay in memory. Promises no more than `write_at`.
    fn write_once_at(&self, position: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.write_at(position, &[IoSlice::new(bytes)])
    }
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError>;
    /// Length in bytes.
    fn len(&self) -> Result<u64, IoError>;
    /// Sets the length; growing leaves a hole.
    fn set_len(&self, len: u64) -> Result<(), IoError>;
    /// Makes contents and length durable (`fdatasync`). After an error the file must be given up: never retry.
    fn sync_data(&self) -> Result<(), IoError>;
    /// A hint that the next look at these bytes should be at the medium, not at a copy in memory. Promises nothing.
    fn forget(&self, _position: u64, _len: u64) {}
    /// True for a file of length zero.
    fn is_empty(&self) -> Result<bool, IoError> {
        Ok(self.len()? == 0)
    }
}
