//! The part of the log that sinks may use: names made durable, blocks read again as they were delivered.

use super::Processor;
use super::delivery::ROUTE;
use crate::record::{Block, Partition};
use crate::sink::{SinkError, SinkLog};
use crate::wal::{Entry, Log, WalError};
use std::cell::RefCell;

/// See the module.
pub(super) struct LogView<'a> {
    pub log: &'a Log,
    pub processor: RefCell<&'a mut dyn Processor>,
}

impl SinkLog for LogView<'_> {
    fn name_output(&self, partition: Partition, name: &str) -> Result<(), SinkError> {
        self.name_outputs(&[(partition, name.to_string())])
    }

    fn name_outputs(&self, names: &[(Partition, String)]) -> Result<(), SinkError> {
        let named = |(partition, name): &(Partition, String)| Entry::Named {
            route: ROUTE,
            partition: *partition,
            name: name.clone(),
        };
        let entries = names.iter().map(named).collect();
        self.log.append_synced(entries).map(|_| ()).map_err(|error| SinkError::Fatal(error.to_string()))
    }

    fn read_blocks(&self, partition: Partition, first: i64, next: i64) -> Result<Vec<Block>, SinkError> {
        let fatal = |error: WalError| SinkError::Fatal(error.to_string());
        let blocks = self.log.read_blocks(partition, first, next).map_err(fatal)?;
        let mut processor = self.processor.borrow_mut();
        blocks.into_iter().map(|block| processor.process(block).map_err(SinkError::Fatal)).collect()
    }
}
