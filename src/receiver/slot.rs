//! One assigned partition of a receiver: where it reads next and the block being built.
//!
//! Promises: blocks are contiguous (`first` is where the last one ended), each record is copied once, records below
//! the next offset are suppressed, never logged twice. Never: no I/O, no clock; time is passed in.

use super::plan::empty_block;
use crate::io::pool::Pool;
use crate::kafka::fetched::Fetched;
use crate::record::batch::{BatchBuilder, HeaderRef, RECORD_OVERHEAD, RecordRef};
use crate::record::{Block, BlockHeader, Partition};
use std::collections::VecDeque;
use std::time::Instant;

/// Offsets one batch can span.
const OFFSETS_MAX: i64 = i32::MAX as i64 - 1;

/// When a block is closed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of payload; a larger record is a block by itself.
    pub block_bytes: usize,
    /// Records.
    pub block_records: u32,
    /// Largest record taken at all.
    pub record_bytes_max: usize,
}

/// What became of one message.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in the open block.
    Kept,
    /// It lies below the next offset: it was here already.
    Suppressed,
    /// It exceeds the limit; nothing was changed.
    TooLarge(usize),
    /// So many offsets are missing before it that one batch can't span them; nothing was changed. Log the missing
    /// range as empty ([`Slot::skip_to`]) and take it again.
    Far,
}

/// An assigned partition.
#[derive(Debug)]
pub struct Slot {
    /// Key in the log.
    pub partition: Partition,
    /// The tenure its blocks belong to.
    pub tenure: u32,
    /// Next offset to take.
    pub next: i64,
    /// Leader epoch of the last record, if it is the one before `next`; else -1: markers and aborted records may be of
    /// a newer one.
    pub leader_epoch: i32,
    /// When the open block got its first record.
    pub opened: Option<Instant>,
    /// Direct mode: where the ranges end that are run again; while there are any, blocks end nowhere else.
    again: VecDeque<i64>,
    open: Option<BatchBuilder>,
}

impl Slot {
    /// A partition that reads from `next` on.
    pub fn new(partition: Partition, tenure: u32, next: i64) -> Self {
        Self { partition, tenure, next, leader_epoch: -1, opened: None, again: VecDeque::new(), open: None }
    }

    /// The same with ranges to run again; each begins where the one before it ends.
    #[must_use]
    pub fn run_again(self, again: VecDeque<i64>) -> Self {
        Self { again, ..self }
    }

    /// True while there are ranges to run again.
    pub fn is_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// Blocks end by size again.
    pub fn forget_again(&mut self) {
        self.again.clear();
    }

    /// Closes the first range that is run again, if it ends at or below `seen`: nothing more of it will come.
    pub fn seal_again(&mut self, seen: i64, pool: &Pool) -> Option<Block> {
        let end = *self.again.front().filter(|end| **end <= seen)?;
        self.again.pop_front();
        let first = self.open.as_ref().map_or(self.next, BatchBuilder::first);
        let sealed = self.seal_to(end, pool);
        self.pass(end);
        Some(sealed.unwrap_or_else(|| empty_block(self.partition, self.tenure, first, end)))
    }

    /// Bytes in the open block.
    pub fn open_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, BatchBuilder::bytes)
    }

    /// Takes one record; blocks that are full before or after it are handed to `sealed`.
    #[inline]
    pub fn take<'a, M: Fetched<'a>>(
        &mut self,
        message: M,
        headers: &mut Vec<HeaderRef<'a>>,
        limits: &Limits,
        pool: &Pool,
        now: Instant,
        mut sealed: impl FnMut(Block),
    ) -> Taken {
        let offset = message.offset();
        if offset < self.next {
            return Taken::Suppressed;
        }
        message.headers(headers);
        let (key, value) = (message.key(), message.value());
        let bytes = size(key, value, headers);
        if bytes > limits.record_bytes_max {
            return Taken::TooLarge(bytes);
        }
        let must_close = self.open.as_ref().is_some_and(|open| {
            open.count() > 0
                && self.again.is_empty()
                && (open.bytes() + bytes + RECORD_OVERHEAD > limits.block_bytes
                    || open.count() >= limits.block_records
                    || offset - open.first() >= OFFSETS_MAX)
        });
        if must_close {
            self.seal(pool).into_iter().for_each(&mut sealed);
        }
        let first = self.next;
        if self.open.is_none() && offset - first >= OFFSETS_MAX {
            return Taken::Far;
        }
        let open = self.open.get_or_insert_with(|| BatchBuilder::new(pool.take(), first));
        if open.count() == 0 {
            self.opened = Some(now);
        }
        let record = RecordRef { offset, timestamp: message.timestamp(), key, value, headers };
        open.push_encoded(&record, message.encoded());
        self.next = offset + 1;
        self.leader_epoch = message.leader_epoch();
        Taken::Kept
    }

    /// Closes the open block, if it holds records.
    pub fn seal(&mut self, pool: &Pool) -> Option<Block> {
        self.seal_to(self.next, pool)
    }

    /// Closes the range at `next` (end of partition): the open block covers it. Without an open block there is nothing
    /// to hand on; the caller logs an empty range `[self.next, next)`.
    pub fn seal_to(&mut self, next: i64, pool: &Pool) -> Option<Block> {
        let open = self.open.take()?;
        self.opened = None;
        let first = open.first();
        let encoded = open.finish(next, self.leader_epoch);
        let leader_epoch = self.leader_epoch;
        self.pass(next);
        Some(Block {
            header: BlockHeader {
                partition: self.partition,
                first,
                next,
                leader_epoch,
                tenure: self.tenure,
                count: encoded.count,
                digest: encoded.digest,
                payload_crc: encoded.payload_crc,
            },
            payload: pool.share(encoded.buffer),
        })
    }

    /// Passes over offsets without records; the caller logs the range. To be called with no open block.
    pub fn skip_to(&mut self, next: i64) {
        assert!(self.open.is_none() && next > self.next, "skip to {next} from {}", self.next);
        self.pass(next);
    }

    fn pass(&mut self, next: i64) {
        if next > self.next {
            self.leader_epoch = -1;
        }
        self.next = next;
    }

    /// Throws the open block away (its partition was lost before it was admitted); returns its records.
    pub fn discard(&mut self) -> u32 {
        self.opened = None;
        self.open.take().map_or(0, |open| {
            (self.next, self.leader_epoch) = (open.first(), -1);
            open.count()
        })
    }
}

#[inline]
fn size(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[HeaderRef<'_>]) -> usize {
    let headers: usize = headers.iter().map(|(name, value)| 10 + name.len() + value.map_or(0, <[u8]>::len)).sum();
    key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers
}
