//! The real disk.
//!
//! Promises: writes are complete or an error; `sync_data` is one `fdatasync`, `sync_dir` one `fsync` of the directory.
//! Never: it does not retry a sync, whatever the errno, and does not follow an error with a second attempt.

use super::direct::Direct;
use super::{File, IoError, Storage};
use rustix::fs::{self, FlockOperation};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many slices Linux takes in one `pwritev` (`IOV_MAX`).
const MAX_SLICES: usize = 1024;
const PAGE: u64 = 4096;
/// `RWF_DONTCACHE`, since Linux 6.14: the write goes to the disk at once, its pages are dropped when they are there.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

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
            let parent = level.parent().unwrap_or(Path::new(""));
            match DirBuilder::new().mode(0o700).create(level) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => self.sync_dir(parent)?,
                Err(e) => return Err(IoError::new("create directory", level, e)),
                // The next sync would say that all is well, and a power cut would take the directory and all that is in
                // it by then: only a name made anew is written again.
                Ok(()) => self.sync_dir(parent).inspect_err(|_| drop(std::fs::remove_dir(level)))?,
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
            Err(Errno::WOULDBLOCK) => Ok(None),
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
    Ok(Arc::new(DiskFile { file, path: path.to_path_buf(), direct: Direct::default() }))
}

/// One open file.
#[derive(Debug)]
struct DiskFile {
    file: std::fs::File,
    /// As opened; a later rename does not change it. Only for messages.
    path: PathBuf,
    direct: Direct,
}

impl DiskFile {
    fn write(&self, position: u64, slices: &[IoSlice<'_>], flags: ReadWriteFlags) -> Result<(), (u64, io::Error)> {
        write_all(&self.file, position, slices, flags)
    }
}

/// Everything, or where it ended and why.
pub(super) fn write_all(
    file: &std::fs::File,
    mut position: u64,
    slices: &[IoSlice<'_>],
    flags: ReadWriteFlags,
) -> Result<(), (u64, io::Error)> {
    let mut slices: Vec<IoSlice<'_>> = slices.iter().filter(|s| !s.is_empty()).copied().collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        match rustix::io::pwritev2(file, &rest[..rest.len().min(MAX_SLICES)], position, flags) {
            Ok(0) => return Err((position, ErrorKind::WriteZero.into())),
            Ok(written) => {
                IoSlice::advance_slices(&mut rest, written);
                position += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err((position, e.into())),
        }
    }
    Ok(())
}

/// True if kernel or file system do not know a flag.
pub(super) fn is_unknown(error: &io::Error) -> bool {
    [Errno::OPNOTSUPP, Errno::INVAL, Errno::NOSYS].iter().any(|e| Some(e.raw_os_error()) == error.raw_os_error())
}

impl File for DiskFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.write(position, slices, ReadWriteFlags::empty()).map_err(|(at, e)| IoError::at("write", &self.path, at, e))
    }

    fn write_pages_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        match self.direct.write(&self.file, position, slices) {
            Ok(true) => Ok(()),
            Ok(false) => self.write_at(position, slices),
            Err((at, e)) => Err(IoError::at("write", &self.path, at, e)),
        }
    }

    fn write_once_at(&self, position: u64, bytes: &[u8]) -> Result<(), IoError> {
        // The last page is filled up by the next write, and would have to be read again for it.
        let whole = ((position + bytes.len() as u64) / PAGE * PAGE).saturating_sub(position) as usize;
        let (pages, rest) = bytes.split_at(whole.min(bytes.len()));
        match self.write(position, &[IoSlice::new(pages)], DONTCACHE) {
            Ok(()) => self.write_at(position + pages.len() as u64, &[IoSlice::new(rest)]),
            Err((at, e)) if is_unknown(&e) && at == position => {
                self.write_at(position, &[IoSlice::new(bytes)])?;
                // The kernel starts to write dirty pages of the range and does not wait. A refusal changes nothing.
                self.forget(position, bytes.len() as u64);
                Ok(())
            }
            Err((at, e)) => Err(IoError::at("write", &self.path, at, e)),
        }
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
    fn what_is_written_once_is_there_wherever_it_begins_and_ends() {
        let bytes: Vec<u8> = (0..50_000u32).map(|n| (n / 7) as u8).collect();
        // A file system in memory does not know the flag.
        for root in [std::env::temp_dir(), PathBuf::from("/dev/shm")].iter().filter(|root| root.exists()) {
            let dir = tempfile::tempdir_in(root).unwrap();
            let cuts = [vec![50_000], vec![10, 100, 4096, 8192, 20_000, 17_602], vec![4096; 12]];
            for (number, lengths) in cuts.iter().enumerate() {
                let file = Disk.create_new(&dir.path().join(number.to_string())).unwrap();
                let mut at = 0;
                for length in lengths {
                    file.write_once_at(at as u64, &bytes[at..at + length]).unwrap();
                    file.sync_data().unwrap();
                    at += length;
                }
                let mut read = vec![9; 60_000];
                assert_eq!(file.read_at(0, &mut read).unwrap(), at);
                assert_eq!(read[..at], bytes[..at]);
            }
            let reader = Disk.open(&dir.path().join("0"), false).unwrap();
            let error = reader.write_once_at(0, &bytes).unwrap_err();
            assert!(error.to_string().contains("write"), "not open for writing: {error}");
        }
    }

    #[test]
    fn a_large_write_that_fails_is_not_tried_in_another_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = std::fs::File::create_new(&path).unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let file = DiskFile { file, path, direct: Direct::with(full) };
        let bytes = vec![1; 1 << 20];
        let error = file.write_pages_at(8192, &[IoSlice::new(&bytes)]).unwrap_err();
        assert!(error.is_full() && error.position == Some(8192), "{error}");
        assert_eq!((error.operation, file.len().unwrap()), ("write", 0));
        file.write_pages_at(0, &[IoSlice::new(&bytes[..4096])]).unwrap();
        assert_eq!(file.len().unwrap(), 4096, "a small one goes the usual way");
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
