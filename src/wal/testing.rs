//! Entries of a log with one partition, for the tests of its parts.

use super::format::entry::Entry;
use super::segment::wal_name;
use crate::io::sim::Sim;
use crate::record::batch::payload_crc;
use crate::record::{Block, BlockHeader, Partition};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the log lies.
pub const DIR: &str = "/wal";
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
