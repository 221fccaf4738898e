//! The real disk.
//!
//! Promises: writes are complete or an error; `sync_data` is one `fdatasync`, `sync_dir` one `fsync` of the directory.
//! Never: it does not retry a sync, whatever the errno, and does not follow an error with a second attempt.

use super::{File, IoError, Storage};
use rustix::fs::{self, FlockOperation};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many slices Linux takes in one `pwritev` (`IOV_MAX`).
const MAX_SLICES: usize = 1024;

/// The operating system's file systems.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Storage for Disk {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, IoError> {
        let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).clone();
        open(path, &options, "create")
    }

    fn open(&self, path: &Path, write: bool) -> Result<Arc<dyn File>, IoError> {
        open(path, OpenOptions::new().read(true).write(write), "open")
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        let failed = |e| IoError::new("list", dir, e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        std::fs::rename(from, to).map_err(|e| IoError::new("rename", from, e))
    }

    fn unlink(&self, path: &Path) -> Result<(), IoError> {
        std::fs::remove_file(path).map_err(|e| IoError::new("unlink", path, e))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        let failed = |e: io::Error| IoError::new(super::SYNC_DIR, dir, e);
        let handle = std::fs::File::open(or_here(dir)).map_err(failed)?;
        fs::fsync(&handle).map_err(|e| failed(e.into()))
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError> {
        // Top down, and each level synced before the next one is made: so after a kill at most the deepest existing
        // directory can have a name that is not durable, and only that one is synced again.
        let missing: Vec<&Path> = dir.ancestors().take_while(|d| !or_here(d).exists()).collect();
        let existing = missing.last().map_or(Some(dir), |d| d.parent());
        if let Some(parent) = existing.and_then(Path::parent) {
            match self.sync_dir(parent) {
                // A directory we may not open is not one we made an entry in.
                Err(e) if e.source.kind() == ErrorKind::PermissionDenied => {}
                other => other?,
            }
        }
        for level in missing.iter().rev() {
            match DirBuilder::new().mode(0o700).create(level) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                    return Err(IoError::new("create directory", level, e));
                }
                _ => self.sync_dir(level.parent().unwrap_or(Path::new("")))?,
            }
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> Result<bool, IoError> {
        path.try_exists().map_err(|e| IoError::new("look up", path, e))
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, IoError> {
        let failed = |e| IoError::new("lock", path, e);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
        let file = options.open(path).map_err(failed)?;
        match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(failed(e.into())),
        }
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64, IoError> {
        let volume = fs::statvfs(or_here(dir)).map_err(|e| IoError::new("measure free space of", dir, e))?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }
}

/// The empty path means the current directory, which system calls do not know.
fn or_here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

fn open(path: &Path, options: &OpenOptions, operation: &'static str) -> Result<Arc<dyn File>, IoError> {
    let file = options.open(path).map_err(|e| IoError::new(operation, path, e))?;
    Ok(Arc::new(DiskFile { file, path: path.to_path_buf() }))
}

/// One open file.
#[derive(Debug)]
struct DiskFile {
    file: std::fs::File,
    /// As opened; a later rename does not change it. Only for messages.
    path: PathBuf,
}

impl File for DiskFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        let mut slices: Vec<IoSlice<'_>> = slices.iter().filter(|s| !s.is_empty()).copied().collect();
        let mut rest = slices.as_mut_slice();
        let mut position = position;
        while !rest.is_empty() {
            let failed = |e: io::Error| IoError::at("write", &self.path, position, e);
            match rustix::io::pwritev(&self.file, &rest[..rest.len().min(MAX_SLICES)], position) {
                Ok(0) => return Err(failed(ErrorKind::WriteZero.into())),
                Ok(written) => {
                    IoSlice::advance_slices(&mut rest, written);
                    position += written as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(failed(e.into())),
            }
        }
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = position + filled as u64;
            match self.file.read_at(&mut buffer[filled..], at) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(IoError::at("read", &self.path, at, e)),
            }
        }
        Ok(filled)
    }

    fn write_out(&self, position: u64, len: u64) {
        // The kernel starts to write dirty pages of the range and does not wait for them. A refusal changes nothing.
        let _ = rustix::fs::fadvise(&self.file, position, NonZeroU64::new(len), rustix::fs::Advice::DontNeed);
    }

    fn forget(&self, position: u64, len: u64) {
        // Clean pages are dropped; dirty ones are newer than the medium. A refusal changes nothing.
        let _ = rustix::fs::fadvise(&self.file, position, NonZeroU64::new(len), rustix::fs::Advice::DontNeed);
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.file.metadata().map_err(|e| IoError::new("measure", &self.path, e))?.len())
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        self.file.set_len(len).map_err(|e| IoError::at("set length of", &self.path, len, e))
    }

    fn sync_data(&self) -> Result<(), IoError> {
        fs::fdatasync(&self.file).map_err(|e| IoError::new("sync", &self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn more_slices_than_the_system_takes_at_once_are_written_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = Disk.create_new(&path).unwrap();
        let bytes: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
        let mut slices: Vec<IoSlice<'_>> = bytes.chunks(2).map(IoSlice::new).collect();
        slices.insert(7, IoSlice::new(&[]));
        file.write_at(3, &slices).unwrap();
        let mut read = vec![9; 6000];
        assert_eq!(file.read_at(0, &mut read).unwrap(), 5003);
        assert_eq!(read[..3], [0, 0, 0]);
        assert_eq!(read[3..5003], bytes);
        assert!(Disk.create_new(&path).is_err(), "O_EXCL");
    }

    #[test]
    fn directories_and_files_are_private() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b/c");
        Disk.create_dir_all(&dir).unwrap();
        Disk.create_dir_all(&dir).unwrap();
        let file = dir.join("f");
        Disk.create_new(&file).unwrap().sync_data().unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&root.path().join("a")), mode(&file)), (0o700, 0o700, 0o600));
        assert_eq!(Disk.list(&dir).unwrap(), ["f"]);
        assert_eq!(Disk.list(&root.path().join("a/b")).unwrap(), Vec::<String>::new());
        assert!(Disk.free_bytes(&dir).unwrap() > 0);
    }

    #[test]
    fn a_lock_is_held_until_its_guard_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("LOCK");
        let guard = Disk.lock(&path).unwrap();
        assert!(guard.is_some());
        assert!(Disk.lock(&path).unwrap().is_none());
        drop(guard);
        assert!(Disk.lock(&path).unwrap().is_some());
    }
}
