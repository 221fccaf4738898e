//! A simulated machine with one disk, for finding what real disks hide in tests.
//!
//! It promises only what a disk does: contents are durable after `sync_data`, names after `sync_dir`. Everything else may
//! be kept, lost or garbled by a power cut, sector by sector and name by name, in any order ([`Sim::crash`]); a killed
//! process loses nothing ([`Sim::kill`]). A sync that fails drops some of what it should have written and **lies**: the
//! cache still shows the new bytes, the next sync succeeds without writing them. All of it follows from a seed.
//!
//! Operations that change something are numbered from 0; the machine can stop at a number or an error can be planned
//! for one. Only names inside one directory can be renamed.

mod image;
mod inode;
mod machine;
mod pages;
mod random;

use super::{File, IoError, SYNC_DIR, Storage};
use image::{Entry, Image};
use inode::Harm;
use machine::{Machine, split};
use random::Random;
use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The simulated machine. Cloning the handle shares the machine; [`Sim::snapshot`] copies it.
#[derive(Clone, Debug)]
pub struct Sim {
    machine: Arc<Mutex<Machine>>,
}

impl Sim {
    /// An empty disk of unlimited size.
    pub fn new(seed: u64) -> Self {
        Self::around(Image::new(), seed, None)
    }

    fn around(image: Image, seed: u64, capacity: Option<u64>) -> Self {
        Self { machine: Arc::new(Mutex::new(Machine::new(image, seed, capacity))) }
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many changing operations there were.
    pub fn operations(&self) -> u64 {
        self.machine().operations
    }

    /// Stops the machine in the middle of the changing operation with this number: it may or may not take place,
    /// a write perhaps in part, and every call from then on fails.
    pub fn crash_at(&self, operation: u64) {
        self.machine().crash_at = Some(operation);
    }

    /// True once the machine has stopped; everything it returned since is meaningless.
    pub fn is_down(&self) -> bool {
        self.machine().down
    }

    /// Plans an I/O error for the changing operation with this number: a write may be done in part; a sync loses some
    /// of its data and marks all of it clean.
    pub fn fail_at(&self, operation: u64) {
        self.machine().fail_at.insert(operation, machine::EIO);
    }

    /// The same with "no space left", as disks say that allocate late.
    pub fn refuse_at(&self, operation: u64) {
        self.machine().fail_at.insert(operation, machine::ENOSPC);
    }

    /// Limits the disk to this many bytes of file contents; a write beyond it is done in part and fails.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.machine().capacity = bytes;
    }

    /// True if the disk has a limit.
    pub fn is_limited(&self) -> bool {
        self.machine().capacity.is_some()
    }

    /// Bytes in all files.
    pub fn used(&self) -> u64 {
        self.machine().image.used()
    }

    /// A new machine with the disk as a power cut leaves it, by the choices of `seed`.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        self.after_power_cut(seed, Harm::Garbage)
    }

    /// [`Sim::crash`] in which pages on their way may also become unreadable, until they are written again.
    #[must_use]
    pub fn crash_unreadably(&self, seed: u64) -> Self {
        self.after_power_cut(seed, Harm::Unreadable)
    }

    fn after_power_cut(&self, seed: u64, harm: Harm) -> Self {
        let machine = self.machine();
        let image = machine.image.after_power_cut(&mut Random(seed), harm);
        Self::around(image, seed, machine.capacity)
    }

    /// The same machine after a kill of the process: everything written is still visible, nothing more is durable.
    /// Locks are released, planned errors forgotten, operations counted from 0 again.
    #[must_use]
    pub fn kill(&self) -> Self {
        let machine = self.machine();
        Self::around(machine.image.clone(), machine.random.0, machine.capacity)
    }

    /// [`Sim::kill`], after which clean pages leave the cache: where a sync failed, readers see what the medium has.
    #[must_use]
    pub fn kill_and_evict(&self, seed: u64) -> Self {
        let killed = self.kill();
        killed.machine().image.evict(&mut Random(seed));
        killed
    }

    /// From now on keeps the disk as it is before each changing operation, and in the middle of each write.
    pub fn watch(&self) {
        self.machine().moments = Some(Vec::new());
    }

    /// Keeps nothing any more.
    pub fn watch_no_more(&self) {
        self.machine().moments = None;
    }

    /// What was kept since the last call, in order: the number of the operation, and a machine that was stopped there.
    pub fn take_moments(&self) -> Vec<(u64, Self)> {
        let mut machine = self.machine();
        let capacity = machine.capacity;
        let moments = machine.moments.as_mut().map(std::mem::take).unwrap_or_default();
        moments.into_iter().map(|(operation, image)| (operation, Self::around(image, operation, capacity))).collect()
    }

    /// An independent copy of the whole machine.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self { machine: Arc::new(Mutex::new(self.machine().clone())) }
    }

    /// A hash of names and contents, visible and pending: equal for machines that can't be told apart.
    pub fn hash(&self) -> u64 {
        self.machine().image.hash()
    }

    /// Makes reads that touch these bytes of the file fail.
    pub fn fail_reads(&self, path: &Path, bytes: Range<u64>) -> Result<(), IoError> {
        let mut machine = self.machine();
        let number = machine.file(path).map_err(|e| IoError::new("open", path, e))?;
        machine.unreadable.insert(number, bytes);
        Ok(())
    }

    /// Damages the file behind everyone's back: changes its visible and its durable bytes.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Result<(), IoError> {
        let mut machine = self.machine();
        let number = machine.file(path).map_err(|e| IoError::new("open", path, e))?;
        let inode = machine.image.inode_mut(number);
        let mut bytes = inode.cache.to_vec();
        change(&mut bytes);
        inode.set_len(0);
        inode.write(0, &bytes);
        inode.sync();
        Ok(())
    }

    /// The visible contents of every file, by path.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let machine = self.machine();
        let mut files = BTreeMap::new();
        for (path, directory) in machine.image.directories() {
            for (name, entry) in &directory.names {
                if let Entry::File(number) = entry {
                    files.insert(path.join(name), machine.image.inode(*number).cache.to_vec());
                }
            }
        }
        files
    }

    fn open_file(&self, number: usize, path: &Path) -> Arc<dyn File> {
        Arc::new(SimFile { sim: self.clone(), number, path: path.to_path_buf() })
    }

    fn make_dir(&self, dir: &Path) -> Result<(), IoError> {
        let (parent, name) = split(dir);
        let made = self.machine().atomic(|m| {
            m.directory(parent)?.link(name, Entry::Directory);
            m.image.add_directory(dir);
            Ok(())
        });
        made.map_err(|e| IoError::new("create directory", dir, e))
    }

    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Path) -> Result<(), IoError> {
        let (parent, name) = split(dir);
        let removed = self.machine().atomic(|m| {
            m.directory(parent)?.unlink(name);
            m.image.remove_directory(dir);
            Ok(())
        });
        removed.map_err(|e| IoError::new("remove directory", dir, e))
    }
}

impl Storage for Sim {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, IoError> {
        let failed = |e| IoError::new("create", path, e);
        self.machine().atomic(|m| m.create(path)).map_err(failed)?;
        let number = self.machine().file(path).map_err(failed)?;
        Ok(self.open_file(number, path))
    }

    fn open(&self, path: &Path, _write: bool) -> Result<Arc<dyn File>, IoError> {
        let machine = self.machine();
        let found = machine.check_up().and_then(|()| machine.file(path));
        Ok(self.open_file(found.map_err(|e| IoError::new("open", path, e))?, path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        let mut machine = self.machine();
        let found = machine.check_up().and_then(|()| machine.directory(dir));
        let names = &found.map_err(|e| IoError::new("list", dir, e))?.names;
        Ok(names.iter().filter(|(_, e)| **e != Entry::Directory).map(|(n, _)| n.clone()).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.machine().atomic(|m| m.rename(from, to)).map_err(|e| IoError::new("rename", from, e))
    }

    fn unlink(&self, path: &Path) -> Result<(), IoError> {
        let unlinked = self.machine().atomic(|m| {
            m.file(path)?;
            let (dir, name) = split(path);
            m.directory(dir)?.unlink(name);
            Ok(())
        });
        unlinked.map_err(|e| IoError::new("unlink", path, e))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.machine().sync_dir(dir).map_err(|e| IoError::new(SYNC_DIR, dir, e))
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError> {
        // As on the real disk: the deepest existing directory is synced again, the others as they are made.
        let missing: Vec<&Path> = {
            let machine = self.machine();
            let exists = |d: &Path| machine.image.directory(d).is_some();
            dir.ancestors().take_while(|d| !exists(d)).collect()
        };
        let existing = missing.last().map_or(Some(dir), |d| d.parent());
        if let Some(parent) = existing.and_then(Path::parent) {
            self.sync_dir(parent)?;
        }
        for level in missing.iter().rev() {
            self.make_dir(level)?;
            self.sync_dir(split(level).0).inspect_err(|_| drop(self.remove_dir(level)))?;
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> Result<bool, IoError> {
        let machine = self.machine();
        machine.check_up().map_err(|e| IoError::new("look up", path, e))?;
        Ok(machine.entry(path).is_some() || machine.image.directory(path).is_some())
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, IoError> {
        let failed = |e| IoError::new("lock", path, e);
        if !self.exists(path)? {
            self.machine().atomic(|m| m.create(path)).map_err(failed)?;
        }
        let mut machine = self.machine();
        machine.check_up().map_err(failed)?;
        if !machine.locks.insert(path.to_path_buf()) {
            return Ok(None);
        }
        Ok(Some(Box::new(Lock { sim: self.clone(), path: path.to_path_buf() })))
    }

    fn free_bytes(&self, _dir: &Path) -> Result<u64, IoError> {
        Ok(self.machine().free())
    }
}

struct Lock {
    sim: Sim,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.sim.machine().locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct SimFile {
    sim: Sim,
    number: usize,
    path: PathBuf,
}

impl File for SimFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        let joined: Vec<u8>;
        let bytes: &[u8] = if let [one] = slices {
            one
        } else {
            joined = slices.iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
            &joined
        };
        let written = self.sim.machine().write(self.number, position, bytes);
        written.map_err(|e| IoError::at("write", &self.path, position, e))
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        let read = self.sim.machine().read(self.number, position, buffer);
        read.map_err(|e| IoError::at("read", &self.path, position, e))
    }

    fn len(&self) -> Result<u64, IoError> {
        let machine = self.sim.machine();
        machine.check_up().map_err(|e| IoError::new("measure", &self.path, e))?;
        Ok(machine.image.inode(self.number).cache.len() as u64)
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        let set = self.sim.machine().atomic(|m| {
            let growth = len.saturating_sub(m.image.inode(self.number).cache.len() as u64);
            if growth > m.free() {
                return Err(ErrorKind::StorageFull.into());
            }
            m.image.inode_mut(self.number).set_len(len as usize);
            Ok(())
        });
        set.map_err(|e| IoError::at("set length of", &self.path, len, e))
    }

    fn sync_data(&self) -> Result<(), IoError> {
        self.sim.machine().sync(self.number).map_err(|e| IoError::new("sync", &self.path, e))
    }
}

#[cfg(test)]
mod tests;
