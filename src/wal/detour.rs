//! The way back to a damaged block: what the feed left out of one partition, from the damage to where it is now.
//!
//! Promises: blocks of the partition come in the order of the log, none twice, none past a block that is not repaired and
//! still needed.

use super::catalogue::Location;
use super::error::WalError;
use super::feed::{Cursor, FeedItem, Reader, Step};
use super::scan::finding::CorruptBlock;
use crate::record::{Block, Lsn, Partition};
use std::collections::VecDeque;

/// See the module.
#[derive(Debug)]
pub(super) struct Detour {
    partition: Partition,
    /// Damaged blocks that come before anything at the cursor.
    damaged: VecDeque<CorruptBlock>,
    cursor: Cursor,
    /// The first damaged block was not repaired when it was last asked for.
    waits: bool,
    /// The damaged block that was last handed out as such.
    told: Lsn,
    /// Blocks of direct mode that come after everything that was logged.
    held: Vec<Block>,
}

impl Detour {
    /// Begins at a damaged block; what follows it begins at `after`.
    pub fn new(damaged: CorruptBlock, after: Location) -> Self {
        let (partition, told) = (damaged.partition, damaged.lsn);
        let cursor = Cursor::at(after);
        Self { partition, damaged: VecDeque::from([damaged]), cursor, waits: true, told, held: Vec::new() }
    }

    /// A further damaged block in the same place.
    pub fn also(&mut self, damaged: CorruptBlock) {
        self.damaged.push_back(damaged);
    }

    /// Keeps a block of direct mode for the end.
    pub fn hold(&mut self, block: Block) {
        self.held.push(block);
    }

    /// What was kept for the end.
    pub fn held(self) -> Vec<Block> {
        self.held
    }

    /// Something was repaired.
    pub fn wake(&mut self) {
        self.waits = false;
    }

    /// False while it waits for a repair.
    pub fn can_go_on(&self) -> bool {
        !self.waits
    }

    /// True when it has come to where the feed is.
    pub fn is_over(&self, passed: Lsn) -> bool {
        self.damaged.is_empty() && self.cursor.at.lsn > passed
    }

    /// One step; gives the next block of the partition if there is one. The feed has come through `passed`.
    pub fn walk(&mut self, reader: &Reader, passed: Lsn) -> Result<Option<FeedItem>, WalError> {
        if let Some(damaged) = self.damaged.front() {
            let is_retired = reader.catalogue.get(damaged.segment).is_none();
            if is_retired || reader.repairs.is_moot(damaged) {
                self.damaged.pop_front();
                return Ok(Some(FeedItem::PassedOver(self.partition)));
            }
            let found = reader.repairs.find(damaged);
            if found.is_none() {
                reader.repairs.want(damaged);
                self.waits = true;
                // The one before it was repaired or passed over, and the partition said to go on.
                if std::mem::replace(&mut self.told, damaged.lsn) != damaged.lsn {
                    return Ok(Some(FeedItem::Corrupt(damaged.clone())));
                }
            }
            let lsn = damaged.lsn;
            return Ok(found.map(|block| {
                self.damaged.pop_front();
                FeedItem::Block { lsn, block }
            }));
        }
        if self.is_over(passed) {
            return Ok(None);
        }
        self.skip_retired(reader);
        match reader.step(&mut self.cursor, Some(self.partition)) {
            Ok(Step::Block { lsn, block }) if block.header.partition == self.partition => {
                Ok(Some(FeedItem::Block { lsn, block }))
            }
            Ok(Step::Damaged(blocks)) => {
                self.damaged.extend(blocks.into_iter().filter(|block| block.partition == self.partition));
                Ok(None)
            }
            Ok(Step::Block { .. } | Step::Nothing | Step::CaughtUp) => Ok(None),
            // What was retired under it holds nothing that is still to be delivered.
            Err(_) if self.is_retired(reader) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_retired(&self, reader: &Reader) -> bool {
        reader.catalogue.get(self.cursor.at.segment).is_none()
    }

    /// Goes on at the oldest segment that is left, if this one is gone.
    fn skip_retired(&mut self, reader: &Reader) {
        if self.is_retired(reader)
            && let Some(next) = reader.catalogue.at_or_after(self.cursor.at.segment)
        {
            self.cursor = Cursor::at(Location { segment: next.number, position: next.start, lsn: next.first_lsn });
        }
    }
}
