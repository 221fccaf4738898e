//! Files in memory that a test damages in place, one damage at a time: read-only for everyone else.

use forebay::io::{File, IoError, Storage};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

#[derive(Debug)]
pub struct Held {
    pub bytes: Vec<u8>,
    /// Reads that touch these fail.
    pub unreadable: Option<Range<usize>>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Memory {
    pub files: BTreeMap<PathBuf, Arc<Mutex<Held>>>,
}

impl Memory {
    pub fn new(files: &BTreeMap<PathBuf, Vec<u8>>) -> Self {
        let held = |(path, bytes): (&PathBuf, &Vec<u8>)| {
            (path.clone(), Arc::new(Mutex::new(Held { bytes: bytes.clone(), unreadable: None })))
        };
        Self { files: files.iter().map(held).collect() }
    }

    /// Changes a file's bytes.
    pub fn change<T>(&self, path: &Path, change: impl FnOnce(&mut Held) -> T) -> T {
        change(&mut self.files[path].lock().unwrap())
    }
}

fn refused<T>(operation: &'static str, path: &Path) -> Result<T, IoError> {
    Err(IoError::new(operation, path, Error::from(ErrorKind::ReadOnlyFilesystem)))
}

impl Storage for Memory {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, IoError> {
        refused("create", path)
    }

    fn open(&self, path: &Path, _write: bool) -> Result<Arc<dyn File>, IoError> {
        let held = self.files.get(path).ok_or_else(|| IoError::new("open", path, ErrorKind::NotFound))?;
        Ok(Arc::new(HeldFile { held: Arc::clone(held), path: path.to_path_buf() }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        let inside = self.files.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn rename(&self, from: &Path, _to: &Path) -> Result<(), IoError> {
        refused("rename", from)
    }

    fn unlink(&self, path: &Path) -> Result<(), IoError> {
        refused("unlink", path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        refused("sync", dir)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError> {
        refused("create directory", dir)
    }

    fn exists(&self, path: &Path) -> Result<bool, IoError> {
        Ok(self.files.contains_key(path))
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, IoError> {
        refused("lock", path)
    }

    fn free_bytes(&self, _dir: &Path) -> Result<u64, IoError> {
        Ok(0)
    }
}

#[derive(Debug)]
struct HeldFile {
    held: Arc<Mutex<Held>>,
    path: PathBuf,
}

impl File for HeldFile {
    fn write_at(&self, _position: u64, _slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        refused("write", &self.path)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        let held = self.held.lock().unwrap();
        let start = (position as usize).min(held.bytes.len());
        let end = (start + buffer.len()).min(held.bytes.len());
        if held.unreadable.as_ref().is_some_and(|bad| bad.start < end && start < bad.end) {
            return Err(IoError::at("read", &self.path, position, Error::from_raw_os_error(5)));
        }
        buffer[..end - start].copy_from_slice(&held.bytes[start..end]);
        Ok(end - start)
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.held.lock().unwrap().bytes.len() as u64)
    }

    fn set_len(&self, _len: u64) -> Result<(), IoError> {
        refused("set length of", &self.path)
    }

    fn sync_data(&self) -> Result<(), IoError> {
        refused("sync", &self.path)
    }
}
