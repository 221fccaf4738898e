//! Blocks that waited for their fence move on; what can't be read for now keeps its place.

use super::delivery::{Delivery, DeliveryError};
use super::fence::Verdict;
use super::lane::{Lane, straddles, verdict};
use crate::record::{Block, BlockHeader, Lsn};
use std::time::Instant;

impl Delivery {
    /// Moves on what is no longer in doubt.
    pub(super) fn release(&mut self) -> Result<(), DeliveryError> {
        if self.waiting_blocks == 0 {
            return Ok(());
        }
        let options = self.parts.options;
        let mut free = Vec::new();
        let repaired = self.parts.log.repairs().changes();
        for lane in self.lanes.values_mut() {
            if lane.held == Some(repaired) {
                continue;
            }
            lane.held = None;
            while let Some((lsn, header, _)) = lane.waiting.front() {
                let verdict = verdict(lane, *lsn, header, &options);
                if verdict == Verdict::Straddles {
                    return Err(straddles(lane, header));
                }
                if verdict == Verdict::Wait {
                    break;
                }
                let Some((lsn, header, block)) = lane.waiting.pop_front() else { break };
                self.waiting_blocks -= 1;
                self.last_release = Instant::now();
                self.waiting_bytes -= block.as_ref().map_or(0, |block| block.payload.len());
                if verdict == Verdict::Deliver {
                    // Later blocks are judged against what this one will have delivered.
                    lane.delivered = header.next;
                    free.push((lsn, header, block));
                } else {
                    lane.landed(lsn);
                }
            }
        }
        let mut unread = Vec::new();
        for (lsn, header, block) in free {
            let held = self.lanes.get(&header.partition).is_some_and(|lane| lane.held.is_some());
            if held || !self.add(lsn, &header, block.clone(), repaired)? {
                unread.push((lsn, header, block));
            }
            if self.batch.bytes >= self.parts.options.batch_bytes {
                self.flush()?;
            }
        }
        self.wait_again(unread);
        self.lanes.values().for_each(Lane::note_judged);
        Ok(())
    }

    /// Puts blocks back that can't be read for now, and those behind them.
    fn wait_again(&mut self, unread: Vec<(Lsn, BlockHeader, Option<Block>)>) {
        for (lsn, header, block) in unread.into_iter().rev() {
            self.waiting_blocks += 1;
            self.waiting_bytes += block.as_ref().map_or(0, |block| block.payload.len());
            let lane = self.lane(header.partition);
            lane.delivered = header.first;
            lane.waiting.push_front((lsn, header, block));
        }
    }

    pub(super) fn read_again(&self, header: &BlockHeader) -> Result<Block, DeliveryError> {
        let blocks = self.parts.log.read_blocks(header.partition, header.first, header.next)?;
        blocks.into_iter().find(|block| same(&block.header, header)).ok_or_else(|| {
            DeliveryError::Invariant(format!("block [{}, {}) is no longer in the log", header.first, header.next))
        })
    }
}

/// The same block by all that a repair keeps: only how its payload is encoded may differ.
fn same(a: &BlockHeader, b: &BlockHeader) -> bool {
    let key = |h: &BlockHeader| (h.partition, h.first, h.next, h.tenure, h.count, h.digest);
    key(a) == key(b)
}
