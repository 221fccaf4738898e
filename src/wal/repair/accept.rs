//! Is what was fetched again the block that was logged? Pure.
//!
//! Promises: a block passes only if its digest, computed anew from its payload, is the logged one: offsets, timestamps,
//! keys, values and headers of all records are what they were. Batch boundaries and compression may differ.

use crate::record::{Block, batch};
use crate::wal::scan::finding::CorruptBlock;

/// It is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another partition or range.
    #[error("the block fetched again is another one: [{first}, {next})")]
    Range {
        /// Its first offset.
        first: i64,
        /// One past its last offset.
        next: i64,
    },
    /// Not as many records: compaction or retention has taken some of them.
    #[error(
        "Kafka has {found} of {logged} records in that range now: a compacted topic may legitimately lose some; \
         what was logged can't be had again"
    )]
    Fewer {
        /// Records fetched.
        found: u32,
        /// Records logged.
        logged: u32,
    },
    /// Other records at the same offsets.
    #[error(
        "Kafka has other records there now: digest {found:08x}, logged {logged:08x} (compacted and written anew, or the \
         topic was truncated)"
    )]
    Digest {
        /// Of what was fetched.
        found: u32,
        /// Of what was logged.
        logged: u32,
    },
    /// What was fetched is no valid payload.
    #[error("what was fetched is not a valid block: {0}")]
    Payload(String),
}

/// Passes only the block that was logged.
pub fn accept(logged: &CorruptBlock, fetched: &Block) -> Result<(), Refusal> {
    let header = &fetched.header;
    if (header.partition, header.first, header.next) != (logged.partition, logged.first, logged.next) {
        return Err(Refusal::Range { first: header.first, next: header.next });
    }
    let invalid = |error: batch::BatchError| Refusal::Payload(error.to_string());
    let found = batch::check(&fetched.payload).map_err(invalid)?;
    if found != logged.count {
        return Err(Refusal::Fewer { found, logged: logged.count });
    }
    let found = batch::digest(&fetched.payload, logged.first).map_err(invalid)?;
    if found != logged.digest {
        return Err(Refusal::Digest { found, logged: logged.digest });
    }
    Ok(())
}
