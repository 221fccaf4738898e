//! What the lives append: small, page-crossing and segment-filling blocks of two partitions, receipts, tenures.

use bytes::Bytes;
use forebay::record::batch::payload_crc;
use forebay::record::{Block, BlockHeader, Partition};
use forebay::wal::Entry;

pub const P: Partition = Partition { topic: 1, number: 0 };
pub const Q: Partition = Partition { topic: 1, number: 1 };

/// A block of ten offsets. No two attempts have the same bytes: `attempt` is in them.
pub fn block(partition: Partition, tenure: u32, first: i64, bytes: usize, attempt: u64) -> Entry {
    let seed = first as u64 * 31 + partition.number as u64 * 7 + attempt * 131;
    let payload: Vec<u8> = (0..bytes as u64).map(|i| (i * 13 + (i >> 8) + seed) as u8 | 1).collect();
    let header = BlockHeader {
        partition,
        first,
        next: first + 10,
        leader_epoch: 3,
        tenure,
        count: 10,
        digest: attempt as u32,
        payload_crc: payload_crc(&payload),
    };
    Entry::Block(Block { header, payload: Bytes::from(payload) })
}

pub fn owned(partition: Partition, tenure: u32, first: i64) -> Entry {
    Entry::Owned { partition, tenure, first, next: first, acked_entries: String::new() }
}

pub fn delivered(partition: Partition, next: i64, through_lsn: u64) -> Entry {
    let detail = format!("file {next}").into_bytes();
    Entry::Delivered { route: 0, partition, first: 0, next, through_lsn, keep_from: None, detail }
}

/// Blocks with their LSNs; the first entry has LSN 1.
pub fn blocks(entries: &[Entry]) -> impl DoubleEndedIterator<Item = (u64, &Block)> {
    entries.iter().enumerate().filter_map(|(i, entry)| match entry {
        Entry::Block(block) => Some((i as u64 + 1, block)),
        _ => None,
    })
}
