//! Entries of the log for the tests of the log itself. Included by path: the rest of `common` is about processes and
//! brokers.

#![allow(dead_code, reason = "no test needs all of it")]

use bytes::Bytes;
use forebay::record::batch::{BatchBuilder, RecordRef, payload_crc};
use forebay::record::{Block, BlockHeader, Partition};
use forebay::wal::Entry;
use std::ops::Range;
use std::time::{Duration, Instant};

/// A block of one offset. Its bytes are no records, and follow from partition and offset.
pub fn plain(partition: Partition, tenure: u32, first: i64, bytes: usize) -> Block {
    let start = first * 3 + i64::from(partition.number);
    let payload: Vec<u8> = (0..bytes as i64).map(|i| (i + start) as u8).collect();
    let header = BlockHeader {
        partition,
        first,
        next: first + 1,
        leader_epoch: 0,
        tenure,
        count: 1,
        digest: 0,
        payload_crc: payload_crc(&payload),
    };
    Block { header, payload: Bytes::from(payload) }
}

/// [`plain`], in the first tenure.
pub fn block(partition: Partition, first: i64, bytes: usize) -> Entry {
    Entry::Block(plain(partition, 1, first, bytes))
}

/// A block with a record for each of the offsets, as Kafka would have them, with these values.
pub fn recorded(partition: Partition, tenure: u32, offsets: Range<i64>, value: impl Fn(i64) -> Vec<u8>) -> Block {
    let Range { start: first, end: next } = offsets;
    let mut builder = BatchBuilder::new(Vec::new(), first);
    for offset in offsets {
        let value = value(offset);
        builder.push(&RecordRef { offset, timestamp: 1000 + offset, key: None, value: Some(&value), headers: &[] });
    }
    let encoded = builder.finish(next, 3);
    let header = BlockHeader {
        partition,
        first,
        next,
        leader_epoch: 3,
        tenure,
        count: encoded.count,
        digest: encoded.digest,
        payload_crc: encoded.payload_crc,
    };
    Block { header, payload: Bytes::from(encoded.buffer) }
}

/// The first tenure, from offset 0.
pub fn owned(partition: Partition) -> Entry {
    Entry::Owned { partition, tenure: 1, first: 0, next: 0, acked_entries: String::new() }
}

/// A receipt for everything below `next`.
pub fn delivered(partition: Partition, next: i64) -> Entry {
    Entry::Delivered { route: 0, partition, first: 0, next, through_lsn: 0, keep_from: None, detail: vec![1] }
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
