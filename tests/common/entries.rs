//! Entries of the log, as small as they can be, for the tests of the log itself. Included by path: the rest of `common` is
//! about processes and brokers.

use bytes::Bytes;
use forebay::record::batch::payload_crc;
use forebay::record::{Block, BlockHeader, Partition};
use forebay::wal::Entry;

/// A block of one offset in the first tenure. Its bytes follow from partition and offset.
pub fn block(partition: Partition, first: i64, bytes: usize) -> Entry {
    let start = first * 3 + i64::from(partition.number);
    let payload: Vec<u8> = (0..bytes as i64).map(|i| (i + start) as u8).collect();
    let header = BlockHeader {
        partition,
        first,
        next: first + 1,
        leader_epoch: 0,
        tenure: 1,
        count: 1,
        digest: 0,
        payload_crc: payload_crc(&payload),
    };
    Entry::Block(Block { header, payload: Bytes::from(payload) })
}

/// The first tenure, from offset 0.
pub fn owned(partition: Partition) -> Entry {
    Entry::Owned { partition, tenure: 1, first: 0, next: 0, acked_entries: String::new() }
}

/// A receipt for everything below `next`.
pub fn delivered(partition: Partition, next: i64) -> Entry {
    Entry::Delivered { route: 0, partition, first: 0, next, through_lsn: 0, keep_from: None, detail: vec![1] }
}
