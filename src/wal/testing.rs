//! Entries of a log with one partition, and one that the test takes the steps of, for the tests of its parts.

use super::commit::{Shared, Worker};
use super::format::entry::Entry;
use super::options::Options;
use super::queue::Unit;
use super::recovery::{Recovered, recover};
use super::segment::wal_name;
use crate::io::Storage;
use crate::io::fault::Faults;
use crate::io::sim::Sim;
use crate::metrics::Metrics;
use crate::record::batch::payload_crc;
use crate::record::{Block, BlockHeader, Partition};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the log lies.
pub const DIR: &str = "/wal";
/// How long its segments are: the least there is.
pub const SEGMENT: u64 = 64 << 10;
/// Whose records.
pub const P: Partition = Partition { topic: 1, number: 0 };

/// [`block`], not an entry yet.
pub fn plain(first: i64, bytes: usize) -> Block {
    let payload = vec![first as u8 + 1; bytes];
    let header = BlockHeader {
        partition: P,
        first,
        next: first + 1,
        leader_epoch: 0,
        tenure: 1,
        count: 1,
        digest: 0,
        payload_crc: payload_crc(&payload),
    };
    Block { header, payload: payload.into() }
}

/// A block of one offset in the first tenure.
pub fn block(first: i64, bytes: usize) -> Entry {
    Entry::Block(plain(first, bytes))
}

/// The first tenure, from offset 0.
pub fn owned() -> Entry {
    Entry::Owned { partition: P, tenure: 1, first: 0, next: 0, acked_entries: String::new() }
}

/// A receipt for everything below `next`.
pub fn delivered(next: i64) -> Entry {
    Entry::Delivered { route: 0, partition: P, first: 0, next, through_lsn: 0, keep_from: None, detail: vec![1] }
}

/// The path of a segment.
pub fn path(number: u64) -> PathBuf {
    Path::new(DIR).join(wal_name(number))
}

/// The work of a log, which the test tells to be done.
pub struct World {
    /// Its disk.
    pub sim: Sim,
    /// Between them.
    pub faults: Arc<Faults>,
    /// Who does it.
    pub worker: Worker,
}

/// Short segments; no idle frame comes between.
pub fn settings() -> Options {
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    options.segment_bytes = SEGMENT;
    options.idle = Duration::from_secs(3600);
    options.seed = Some(1);
    options
}

/// A new log with so many spares, in which the partition is owned. Nobody makes more of them.
pub fn world(spares: usize, options: Options) -> World {
    let sim = Sim::new(1);
    let faults = Arc::new(Faults::new(Arc::new(sim.clone())));
    let storage = Arc::clone(&faults) as Arc<dyn Storage>;
    let Recovered { writer, feed_from, .. } = recover(&storage, &options).unwrap();
    for _ in 0..spares {
        assert!(writer.rack().work(&mut || {}).unwrap());
    }
    assert_eq!(writer.rack().ready(), spares);
    let shared = Arc::new(Shared::new(&writer, feed_from, &options));
    let mut worker = Worker::new(writer, options, shared);
    worker.push(Unit { entries: vec![owned()], reply: None });
    assert!(worker.work(&mut || {}).unwrap(), "it is logged");
    World { sim, faults, worker }
}

/// What all files of the directory take.
pub fn bytes_of_all_files(sim: &Sim) -> u64 {
    sim.files().values().map(|bytes| bytes.len() as u64).sum()
}

/// # Panics
/// If it does not come true in 20 seconds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
