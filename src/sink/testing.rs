//! Blocks and a log for the sinks' unit tests.

use super::{SinkError, SinkLog, Source};
use crate::record::batch::{BatchBuilder, RecordRef};
use crate::record::{Block, BlockHeader, Partition};

pub(super) fn source(number: i32) -> Source {
    Source { partition: Partition { topic: 1, number }, topic: "t".into(), incarnation: 0 }
}

/// Records `first..next`, each with the value `record <offset>`.
pub(super) fn block(number: i32, first: i64, next: i64) -> Block {
    let mut batch = BatchBuilder::new(Vec::new(), first);
    for offset in first..next {
        let value = format!("record {offset}");
        let value = Some(value.as_bytes());
        batch.push(&RecordRef { offset, timestamp: 1, key: None, value, headers: &[] });
    }
    let batch = batch.finish(next, -1);
    let header = BlockHeader {
        partition: source(number).partition,
        first,
        next,
        leader_epoch: -1,
        tenure: 1,
        count: batch.count,
        digest: batch.digest,
        payload_crc: batch.payload_crc,
    };
    Block { header, payload: batch.buffer.into() }
}

/// A log that takes every name and keeps no block.
pub(super) struct NoLog;

impl SinkLog for NoLog {
    fn name_output(&self, _partition: Partition, _name: &str) -> Result<(), SinkError> {
        Ok(())
    }

    fn read_blocks(&self, _partition: Partition, first: i64, next: i64) -> Result<Vec<Block>, SinkError> {
        Err(SinkError::Fatal(format!("[{first}, {next}) is not in the log")))
    }
}
