//! Where blocks go. A [`Sink`] delivers blocks of many partitions, each partition in offset order, and says what it has.
//!
//! Promises: a receipt is returned only for output that is durable. Never: a sink decides nothing about Kafka or the
//! log; it is asked, it answers.
//!
//! What the caller owes: receipts are appended to the log in the order they were returned, and durable before the next
//! call of [`Sink::deliver`] or [`Sink::tick`] (a sink publishes on that next call what those receipts cover). After an
//! error of [`Sink::deliver`] other than [`SinkError::Retry`] the sink is not called again; after a `Retry` the same
//! blocks are delivered again, others may come along.

pub mod file;
pub mod null;
pub mod render;
pub mod stdout;
pub mod target;

#[cfg(test)]
mod testing;

use crate::io::IoError;
use crate::record::{Block, Partition};
use std::collections::HashMap;
use std::time::Duration;

/// What a sink can promise about records delivered again after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Output and progress commit together: each record's effect exactly once.
    Transactional,
    /// Delivering again leads to the same final state: as if once (atomic publish, cut-back file).
    Idempotent,
    /// Blocks in doubt at a crash may come twice.
    AtLeastOnce,
}

/// A partition as sinks see it: the key and the words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The key used in the log.
    pub partition: Partition,
    /// Topic name.
    pub topic: String,
    /// 0 for the first incarnation of a topic of this name in the log, 1 for the next…; part of output paths.
    pub incarnation: u32,
}

/// The durable fact that a sink has `[first, next)` of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Whose records.
    pub partition: Partition,
    /// First offset covered.
    pub first: i64,
    /// One past the last offset covered.
    pub next: i64,
    /// The sink's own words, kept verbatim in the log and given back by [`Sink::restore`].
    pub detail: Vec<u8>,
    /// First offset whose blocks the log must keep although they are delivered (their output may still be torn
    /// by a later write); `None`: nothing is needed any more.
    pub keep_from: Option<i64>,
}

/// What the log knows of a sink's output for one partition when the process starts.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The partition.
    pub source: Source,
    /// The last durable receipt, if any.
    pub receipt: Option<Receipt>,
    /// The last output name logged through [`SinkLog::name_output`], if any; empty when it was taken back.
    pub named: Option<String>,
}

/// The part of the log a sink may use. Blocking.
pub trait SinkLog {
    /// Makes the name of an output durable in the log *before* the output is created; returns when it is synced. An empty
    /// name takes the last one back.
    fn name_output(&self, partition: Partition, name: &str) -> Result<(), SinkError>;
    /// Makes several names durable as [`SinkLog::name_output`] does; worth implementing where one sync can do for all.
    fn name_outputs(&self, names: &[(Partition, String)]) -> Result<(), SinkError> {
        names.iter().try_for_each(|(partition, name)| self.name_output(*partition, name))
    }
    /// Reads delivered blocks of the partition that the log still keeps, covering `[first, next)`, in order, and as
    /// they were delivered: with the same ranges, and processed the same way.
    fn read_blocks(&self, partition: Partition, first: i64, next: i64) -> Result<Vec<Block>, SinkError>;
}

/// Why a delivery did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Nothing of the call took effect that matters; try again after the delay.
    #[error("{reason}; trying again in {after:?}")]
    Retry {
        /// How long to wait.
        after: Duration,
        /// What happened.
        reason: String,
    },
    /// It is not known whether the call took effect: ask [`Sink::watermark`] before sending again.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The output can't go on; the process stops with this message.
    #[error("{0}")]
    Fatal(String),
    /// The output's storage failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// A destination for blocks. Called from one thread; may block.
pub trait Sink: Send {
    /// The promise this sink can keep.
    fn tier(&self) -> Tier;
    /// Called once per partition known to the log, before the first delivery: bring the output to exactly what
    /// the last durable receipt says. May be called again after an error; a crash inside changes nothing for the next.
    fn restore(&mut self, restored: &[Restored], log: &dyn SinkLog) -> Result<(), SinkError>;
    /// The next offset the sink itself says it has for the partition, for sinks that keep one.
    fn watermark(&mut self, source: &Source) -> Result<Option<i64>, SinkError>;
    /// Delivers the blocks (per partition in offset order) and returns, when all of it is durable, one receipt
    /// per partition that occurs in `blocks`.
    fn deliver(&mut self, blocks: &[(Source, Block)], log: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError>;
    /// Called between deliveries and at a clean stop: finish outputs that are old enough (`closing`: all of them).
    /// May return receipts that replace earlier ones (same `next`, other detail). What they finish is published by the
    /// next call: **at a clean stop call `tick(true)`, log the receipts, and repeat until none is returned.**
    fn tick(&mut self, closing: bool, log: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError>;
}

/// One plain receipt for each partition in `blocks`, for sinks that have nothing to add.
fn receipts(blocks: &[(Source, Block)]) -> Vec<Receipt> {
    let mut receipts: Vec<Receipt> = Vec::new();
    let mut places = HashMap::new();
    for (source, block) in blocks {
        let place = *places.entry(source.partition).or_insert_with(|| {
            let (partition, first) = (source.partition, block.header.first);
            receipts.push(Receipt { partition, first, next: first, detail: Vec::new(), keep_from: None });
            receipts.len() - 1
        });
        receipts[place].next = block.header.next;
    }
    receipts
}
