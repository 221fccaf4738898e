//! A storage that writes down every change in order, knows files by identity and not by name, and can refuse one
//! operation.

use bytes::Bytes;
use forebay::io::sim::Sim;
use forebay::io::{File, IoError, Storage};
use forebay::wal::Entry;
use forebay::wal::format::frame::{FRAME_HEADER, FrameHeader};
use forebay::wal::format::header::{HEADER_BYTES, SegmentHeader};
use std::collections::HashMap;
use std::io::{Error, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A file, whatever it is called.
pub type Id = usize;

/// What a write held.
#[derive(Clone, Debug, Default)]
pub struct Held {
    pub header: Option<SegmentHeader>,
    pub frames: usize,
    /// `RetiredBelow` frames: the segment they name.
    pub retired_below: u64,
}

/// A change, in the order it was asked for.
#[derive(Clone, Debug)]
pub enum Change {
    Create,
    Rename(Id, String, String),
    Unlink(String),
    SyncDir,
    Write { id: Id, name: String, position: u64, len: u64, held: Held },
    Sync { id: Id, ok: bool },
}

/// What is refused, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The sync of a segment fails.
    Sync,
    /// A write to a segment finds no space after half of its bytes.
    Space,
}

#[derive(Debug, Default)]
struct Notes {
    names: HashMap<PathBuf, Id>,
    files: usize,
    salts: HashMap<Id, u64>,
    changes: Vec<Change>,
    /// Refuse this one, after so many others of its kind.
    planned: Option<(Refusal, u64)>,
}

/// The storage.
#[derive(Clone, Debug)]
pub struct Recorder {
    inner: Sim,
    notes: Arc<Mutex<Notes>>,
}

fn base(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

impl Recorder {
    pub fn new(inner: Sim) -> Self {
        Self { inner, notes: Arc::default() }
    }

    pub fn refuse(&self, what: Refusal, later: u64) {
        self.notes.lock().unwrap().planned = Some((what, later));
    }

    /// True if what was planned has not come yet.
    pub fn is_planned(&self) -> bool {
        self.notes.lock().unwrap().planned.is_some()
    }

    pub fn changes(&self) -> Vec<Change> {
        self.notes.lock().unwrap().changes.clone()
    }

    /// Names and identities of the segments that are there.
    pub fn segments(&self) -> HashMap<Id, String> {
        let notes = self.notes.lock().unwrap();
        let segments = notes.names.iter().filter(|(path, _)| base(path).ends_with(".wal"));
        segments.map(|(path, id)| (*id, base(path))).collect()
    }

    fn is_refused(&self, what: Refusal) -> bool {
        let planned = &mut self.notes.lock().unwrap().planned;
        match planned {
            Some((refusal, 0)) if *refusal == what => {
                *planned = None;
                true
            }
            Some((refusal, left)) if *refusal == what => {
                *left -= 1;
                false
            }
            _ => false,
        }
    }

    fn wrap(&self, inner: Arc<dyn File>, path: &Path) -> Arc<dyn File> {
        let mut notes = self.notes.lock().unwrap();
        let next = notes.files;
        let id = *notes.names.entry(path.to_path_buf()).or_insert(next);
        notes.files += usize::from(id == next);
        Arc::new(Recorded { inner, id, recorder: self.clone() })
    }

    fn name_of(&self, id: Id) -> String {
        let notes = self.notes.lock().unwrap();
        notes.names.iter().find(|(_, known)| **known == id).map(|(path, _)| base(path)).unwrap_or_default()
    }
}

impl Storage for Recorder {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, IoError> {
        let file = self.inner.create_new(path)?;
        self.notes.lock().unwrap().names.remove(path);
        let file = self.wrap(file, path);
        self.notes.lock().unwrap().changes.push(Change::Create);
        Ok(file)
    }

    fn open(&self, path: &Path, write: bool) -> Result<Arc<dyn File>, IoError> {
        Ok(self.wrap(self.inner.open(path, write)?, path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        self.inner.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.inner.rename(from, to)?;
        let mut notes = self.notes.lock().unwrap();
        let id = notes.names.remove(from).unwrap_or(usize::MAX);
        notes.names.insert(to.to_path_buf(), id);
        notes.changes.push(Change::Rename(id, base(from), base(to)));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> Result<(), IoError> {
        self.inner.unlink(path)?;
        let mut notes = self.notes.lock().unwrap();
        notes.names.remove(path);
        notes.changes.push(Change::Unlink(base(path)));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.inner.sync_dir(dir)?;
        self.notes.lock().unwrap().changes.push(Change::SyncDir);
        Ok(())
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError> {
        self.inner.create_dir_all(dir)
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

#[derive(Debug)]
struct Recorded {
    inner: Arc<dyn File>,
    id: Id,
    recorder: Recorder,
}

impl Recorded {
    fn is_segment(&self) -> bool {
        self.recorder.name_of(self.id).ends_with(".wal")
    }
}

impl File for Recorded {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let name = self.recorder.name_of(self.id);
        let held = held(&bytes, position, self.id, &mut self.recorder.notes.lock().unwrap().salts);
        let change = Change::Write { id: self.id, name, position, len: bytes.len() as u64, held };
        self.recorder.notes.lock().unwrap().changes.push(change);
        if self.is_segment() && self.recorder.is_refused(Refusal::Space) {
            self.inner.write_at(position, &[IoSlice::new(&bytes[..bytes.len() / 2])])?;
            return Err(IoError::at("write", Path::new("segment"), position, Error::from(ErrorKind::StorageFull)));
        }
        self.inner.write_at(position, slices)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        self.inner.read_at(position, buffer)
    }

    fn len(&self) -> Result<u64, IoError> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<(), IoError> {
        let ok = !(self.is_segment() && self.recorder.is_refused(Refusal::Sync));
        if ok {
            self.inner.sync_data()?;
        }
        self.recorder.notes.lock().unwrap().changes.push(Change::Sync { id: self.id, ok });
        let refused = || IoError::new("sync", Path::new("segment"), Error::from_raw_os_error(5));
        if ok { Ok(()) } else { Err(refused()) }
    }
}

/// Reads the frames of a write, as far as they begin in it.
fn held(bytes: &[u8], position: u64, id: Id, salts: &mut HashMap<Id, u64>) -> Held {
    let mut held = Held::default();
    let mut at = 0;
    if position == 0
        && let Ok(header) = SegmentHeader::decode(bytes)
    {
        held.header = Some(header);
        salts.insert(id, header.salt);
        at = 2 * HEADER_BYTES;
    }
    let salt = salts.get(&id).copied().unwrap_or_default();
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= FRAME_HEADER) {
        let Ok(header) = FrameHeader::decode(rest, salt, position + at as u64) else {
            break;
        };
        let payload = rest.get(FRAME_HEADER..FRAME_HEADER + header.payload_len as usize).unwrap_or_default();
        let entry = Entry::decode(&header, &Bytes::copy_from_slice(payload));
        if let Ok(Some(Entry::RetiredBelow { segment, .. })) = entry {
            held.retired_below = held.retired_below.max(segment);
        }
        held.frames += 1;
        at += header.frame_len() as usize;
    }
    held
}
