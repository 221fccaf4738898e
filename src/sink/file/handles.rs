//! The file handles of a sink with many partitions: so many open at a time, the one unused longest is closed first.
//!
//! Promises: [`Handles::sync`] returns after everything written through it is durable; a handle is synced before it is
//! closed, since an error of the device is reported only to those who have the file open.

use crate::io::{File, IoError, Storage};
use crate::record::Partition;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

/// Writes of this size begin to go to the disk at once, so that the sync has less to wait for, and leave memory to others.
const LARGE: usize = 256 << 10;

#[derive(Debug)]
struct Handle {
    file: Arc<dyn File>,
    used: u64,
    dirty: bool,
}

impl Handle {
    fn new(file: Arc<dyn File>) -> Self {
        Self { file, used: 0, dirty: false }
    }
}

fn sync_all(handles: &mut [&mut Handle]) -> Result<(), IoError> {
    for handle in handles {
        handle.file.sync_data()?;
        handle.dirty = false;
    }
    Ok(())
}

/// At most `max` open files, one a partition.
#[derive(Debug)]
pub(super) struct Handles {
    storage: Arc<dyn Storage>,
    max: usize,
    sync_threads: usize,
    open: HashMap<Partition, Handle>,
    clock: u64,
}

impl Handles {
    pub fn new(storage: Arc<dyn Storage>, max: usize, sync_threads: usize) -> Self {
        Self { storage, max: max.max(1), sync_threads, open: HashMap::new(), clock: 0 }
    }

    /// Creates a file that does not exist. Its name is not durable yet.
    pub fn create(&mut self, partition: Partition, path: &Path) -> Result<(), IoError> {
        self.make_room()?;
        let file = self.storage.create_new(path)?;
        self.clock += 1;
        self.open.insert(partition, Handle { used: self.clock, dirty: true, file });
        Ok(())
    }

    /// Writes to the partition's file, opening it if needed. Nothing is durable before [`Handles::sync`].
    pub fn write(&mut self, partition: Partition, path: &Path, position: u64, bytes: &[u8]) -> Result<(), IoError> {
        if bytes.is_empty() {
            return Ok(());
        }
        if !self.open.contains_key(&partition) {
            self.make_room()?;
        }
        self.clock += 1;
        let handle = match self.open.entry(partition) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(closed) => closed.insert(Handle::new(self.storage.open(path, true)?)),
        };
        handle.used = self.clock;
        handle.dirty = true;
        if bytes.len() >= LARGE {
            handle.file.write_once_at(position, bytes)
        } else {
            handle.file.write_at(position, &[IoSlice::new(bytes)])
        }
    }

    /// Syncs every file written to since the last call, each once. Several at a time where that is asked for: the file
    /// system then commits their metadata together.
    pub fn sync(&mut self) -> Result<(), IoError> {
        let mut dirty: Vec<_> = self.open.iter_mut().filter(|(_, handle)| handle.dirty).collect();
        dirty.sort_unstable_by_key(|(partition, _)| **partition);
        let mut handles: Vec<&mut Handle> = dirty.into_iter().map(|(_, handle)| handle).collect();
        if self.sync_threads <= 1 || handles.len() <= 1 {
            return sync_all(&mut handles);
        }
        let share = handles.len().div_ceil(self.sync_threads);
        std::thread::scope(|scope| {
            let threads: Vec<_> = handles.chunks_mut(share).map(|share| scope.spawn(|| sync_all(share))).collect();
            let results: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            // A panic in there is a bug; it goes on here.
            results.into_iter().try_for_each(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    /// Closes the partition's file, which must have been synced.
    pub fn close(&mut self, partition: Partition) {
        let closed = self.open.remove(&partition);
        assert!(closed.is_none_or(|handle| !handle.dirty), "a file is synced before it is closed");
    }

    fn make_room(&mut self) -> Result<(), IoError> {
        while self.open.len() >= self.max {
            let Some((&oldest, handle)) = self.open.iter().min_by_key(|(_, handle)| handle.used) else {
                break;
            };
            if handle.dirty {
                handle.file.sync_data()?;
            }
            self.open.remove(&oldest);
        }
        Ok(())
    }
}
