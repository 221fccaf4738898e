//! The sink that keeps nothing: for measuring everything before it.
//!
//! Promises: it counts and gives receipts at once. Never: it does not go on where files wait to be published.

use super::{Receipt, Restored, Sink, SinkError, SinkLog, Source, Tier, file, receipts};
use crate::record::Block;

/// Counts what it drops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Null {
    records: u64,
    bytes: u64,
}

impl Null {
    /// Records dropped so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of block payload dropped so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Sink for Null {
    fn tier(&self) -> Tier {
        Tier::Idempotent
    }

    fn restore(&mut self, restored: &[Restored], _log: &dyn SinkLog) -> Result<(), SinkError> {
        file::refuse_to_leave(restored)
    }

    fn watermark(&mut self, _source: &Source) -> Result<Option<i64>, SinkError> {
        Ok(None)
    }

    fn deliver(&mut self, blocks: &[(Source, Block)], _log: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError> {
        for (_, block) in blocks {
            self.records += u64::from(block.header.count);
            self.bytes += block.payload.len() as u64;
        }
        Ok(receipts(blocks))
    }

    fn tick(&mut self, _closing: bool, _log: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NoLog, block, source};
    use super::*;

    #[test]
    fn it_counts_and_answers_for_each_partition() {
        let mut sink = Null::default();
        let blocks = [(source(2), block(2, 0, 3)), (source(1), block(1, 4, 9))];
        let receipts = sink.deliver(&blocks, &NoLog).unwrap();
        assert_eq!((sink.records(), receipts.len()), (8, 2));
        assert_eq!((receipts[1].first, receipts[1].next, receipts[1].keep_from), (4, 9, None));
        assert!(sink.bytes() > 0);
    }
}
