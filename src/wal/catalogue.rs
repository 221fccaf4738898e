//! Which segments there are and how far they are durable: what readers in other threads need to know.

use super::retention::Runs;
use super::segment::{Active, wal_name};
use crate::record::Lsn;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Segment number.
    pub segment: u64,
    /// Position in it.
    pub position: u64,
    /// LSN of the frame there.
    pub lsn: Lsn,
}

/// One segment, for readers.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Number.
    pub number: u64,
    /// Salt.
    pub salt: u64,
    /// LSN of the first frame after the states.
    pub first_lsn: Lsn,
    /// Where that frame is.
    pub start: u64,
    /// Everything below is durable.
    pub end: u64,
    /// Bytes of the file.
    pub len: u64,
    /// Its blocks, summed up; empty for the active segment.
    pub runs: Arc<Runs>,
    /// A successor follows: `end` does not move any more.
    pub sealed: bool,
    /// Its frames were written by this process, or looked at when the log was opened.
    pub verified: bool,
}

impl Listed {
    /// A segment that was just built.
    pub fn of(active: &Active) -> Self {
        Self {
            number: active.number,
            salt: active.salt,
            first_lsn: active.first_lsn,
            start: active.frames_start,
            end: active.position,
            len: active.capacity,
            runs: Arc::default(),
            sealed: false,
            verified: true,
        }
    }
}

/// The segments by number. Written by the log's thread only.
#[derive(Debug)]
pub struct Catalogue {
    dir: PathBuf,
    segments: Mutex<BTreeMap<u64, Listed>>,
}

impl Catalogue {
    /// A catalogue of these segments.
    pub fn new(dir: &Path, segments: impl IntoIterator<Item = Listed>) -> Self {
        let segments = segments.into_iter().map(|s| (s.number, s)).collect();
        Self { dir: dir.to_path_buf(), segments: Mutex::new(segments) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Listed>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of a segment.
    pub fn path(&self, number: u64) -> PathBuf {
        self.dir.join(wal_name(number))
    }

    /// Adds or replaces a segment.
    pub fn put(&self, segment: Listed) {
        self.lock().insert(segment.number, segment);
    }

    /// The active segment is durable up to `end`.
    pub fn extend(&self, number: u64, end: u64) {
        if let Some(segment) = self.lock().get_mut(&number) {
            segment.end = end;
        }
    }

    /// A successor follows.
    pub fn seal(&self, number: u64, end: u64, runs: &Arc<Runs>) {
        if let Some(segment) = self.lock().get_mut(&number) {
            (segment.end, segment.sealed) = (end, true);
            segment.runs = Arc::clone(runs);
        }
    }

    /// Forgets segments below a number.
    pub fn retire(&self, below: u64) {
        let mut segments = self.lock();
        *segments = segments.split_off(&below);
    }

    /// The segment with this number.
    pub fn get(&self, number: u64) -> Option<Listed> {
        self.lock().get(&number).cloned()
    }

    /// The lowest segment with this number or a higher one.
    pub fn at_or_after(&self, number: u64) -> Option<Listed> {
        self.lock().range(number..).next().map(|(_, s)| s.clone())
    }

    /// Where segment `number` is durable up to, and whether it is sealed.
    pub fn end_of(&self, number: u64) -> Option<(u64, bool)> {
        self.lock().get(&number).map(|s| (s.end, s.sealed))
    }

    /// Numbers of all segments, ascending.
    pub fn numbers(&self) -> Vec<u64> {
        self.lock().keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(number: u64, end: u64) -> Listed {
        Listed {
            number,
            salt: number,
            first_lsn: 1,
            start: 0,
            end,
            len: 1 << 20,
            runs: Arc::default(),
            sealed: false,
            verified: true,
        }
    }

    #[test]
    fn a_segment_ends_where_it_was_extended_to_or_sealed_until_it_retires() {
        let catalogue = Catalogue::new(Path::new("wal"), [listed(3, 100), listed(4, 200)]);
        let ends = || [3, 4, 5].map(|number| catalogue.end_of(number));
        assert_eq!(ends(), [Some((100, false)), Some((200, false)), None]);
        catalogue.seal(3, 150, &Arc::default());
        catalogue.extend(4, 300);
        assert_eq!(ends(), [Some((150, true)), Some((300, false)), None]);
        catalogue.retire(4);
        assert_eq!(ends(), [None, Some((300, false)), None]);
    }
}
