//! From the log to the sink: durable blocks, in order, through the fence, processed, delivered, receipted.
//!
//! Promises: a block is delivered only when it is durable and acknowledged by us (with `fence = "commit"`); a receipt
//! is logged only after the sink says its output is durable; blocks of a partition are delivered in order. Never: it
//! does not talk to Kafka and does not move past a block it could not deliver.

pub mod delivery;
pub mod fence;
mod gather;
mod lane;
mod log_view;
pub mod progress;
mod release;

use crate::record::Block;

/// The user's own step between log and sink.
///
/// It must be deterministic: after a crash a block is processed again, and idempotent sinks rely on getting the same
/// bytes. It is called from one thread, for the blocks of each partition in order.
pub trait Processor: Send {
    /// Returns the block to be delivered in place of `block`. Partition, `first` and `next` must stay the same; the
    /// records may be others, fewer or none. An error stops the pipeline with its text.
    fn process(&mut self, block: Block) -> Result<Block, String>;
}

/// Delivers every block as it is.
#[derive(Debug, Default)]
pub struct Identity;

impl Processor for Identity {
    fn process(&mut self, block: Block) -> Result<Block, String> {
        Ok(block)
    }
}
