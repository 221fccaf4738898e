//! Direct mode: closed blocks are gathered into batches; each batch's plan, the ranges of its blocks, is logged in their
//! place, and only when it is durable are they handed to the sink. Plans that a crash left open are run again.
//!
//! Promises: nothing is delivered that no durable plan covers; a plan is run again with the same ranges, so with the same
//! blocks, and under the same id. Batches do not wait for each other: plan *n + 1* is made while *n* is delivered. A
//! batch without records is no batch. Never: the data is not logged, and what is not delivered is not committed.
//!
//! A plan is made from what was fetched, not from what Kafka announced: its ranges end at or below the last stable
//! offset, and nothing in it can be gone before it is read for the first time.

use super::ReceiverError;
use super::poll::Receiver;
use crate::clock;
use crate::record::batch::payload_crc;
use crate::record::{Block, BlockHeader, Partition};
use crate::wal::{Entry, OpenPlan, PlanRange};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// The route all plans belong to; there is one so far.
const ROUTE: u16 = 0;
/// Ranges of one plan at most.
const RANGES_MAX: usize = 10_000;

/// When a batch is closed.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Its first record has waited so long.
    pub interval: Duration,
    /// It holds so many bytes.
    pub bytes: usize,
}

/// What all receivers share: the plans the log left open, and the next id.
#[derive(Debug)]
pub struct Plans {
    next_id: u64,
    open: HashMap<Partition, Vec<(u64, PlanRange)>>,
}

impl Plans {
    /// From the log. Ids go on at `next_id`, above all that were used.
    pub fn new(next_id: u64, plans: &[OpenPlan]) -> Self {
        let mut open: HashMap<Partition, Vec<_>> = HashMap::new();
        for plan in plans {
            for range in &plan.ranges {
                open.entry(range.partition()).or_default().push((plan.id, *range));
            }
        }
        Self { next_id, open }
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// The ends of the ranges to run again for a partition that starts at `start`.
    fn chain(&self, partition: Partition, start: i64) -> VecDeque<i64> {
        self.open.get(&partition).map(|ranges| chain(ranges, start)).unwrap_or_default()
    }
}

/// Open plans are run again only as an unbroken chain from `start`; where two begin at one offset the newer one counts.
fn chain(ranges: &[(u64, PlanRange)], start: i64) -> VecDeque<i64> {
    let mut ends = VecDeque::new();
    let mut at = start;
    while let Some((_, range)) =
        ranges.iter().filter(|(_, range)| range.from == at && range.until > at).max_by_key(|(id, _)| id)
    {
        ends.push_back(range.until);
        at = range.until;
    }
    ends
}

/// The batch that is being gathered.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    blocks: Vec<Block>,
    bytes: usize,
    since: Option<Instant>,
    /// Ends of the ranges that are run again and not handed on yet.
    again: HashMap<Partition, VecDeque<i64>>,
}

impl Gathering {
    /// True when there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

/// A block for a range without records.
pub(super) fn empty_block(partition: Partition, tenure: u32, first: i64, next: i64) -> Block {
    let payload = Bytes::new();
    let payload_crc = payload_crc(&payload);
    let header = BlockHeader { partition, first, next, leader_epoch: -1, tenure, count: 0, digest: 0, payload_crc };
    Block { header, payload }
}

impl Receiver<'_> {
    /// A tenure opened at `start`: what of its open plans is to be run again.
    pub(super) fn plans_again(&mut self, partition: Partition, start: i64) -> VecDeque<i64> {
        if self.options.direct.is_none() {
            return VecDeque::new();
        }
        let ends = self.shared.plans.lock().unwrap_or_else(PoisonError::into_inner).chain(partition, start);
        if let Some(last) = ends.back() {
            let (topic, ranges) = (partition.topic, ends.len());
            tracing::info!(
                receiver = self.number,
                topic,
                partition = partition.number,
                ranges,
                start,
                last,
                "open plans are run again"
            );
        }
        self.gathering.again.insert(partition, ends.clone());
        ends
    }

    /// Puts a closed block into the batch, or hands it on if it belongs to a plan that is run again.
    pub(super) fn gather(&mut self, block: Block) {
        let BlockHeader { partition, tenure, first, next, .. } = block.header;
        if let Some(ends) = self.gathering.again.get_mut(&partition)
            && ends.front() == Some(&next)
        {
            ends.pop_front();
            if self.may_admit(partition, tenure, first, next) {
                self.shared.log.hand_on_planned(vec![block]);
            }
            return;
        }
        self.gathering.bytes += block.payload.len();
        self.gathering.since.get_or_insert_with(Instant::now);
        self.gathering.blocks.push(block);
    }

    /// Closes the batch when it is due.
    pub(super) fn plan_due(&mut self, now: Instant) -> Result<(), ReceiverError> {
        let Some(batching) = self.options.direct else { return Ok(()) };
        let first = self.lanes.iter().filter_map(|lane| lane.slot.opened).chain(self.gathering.since).min();
        let Some(since) = first else { return Ok(()) };
        let open: usize = self.lanes.iter().map(|lane| lane.slot.open_bytes()).sum();
        let full = self.gathering.bytes + open >= batching.bytes || self.gathering.blocks.len() >= RANGES_MAX;
        if !full && now.duration_since(since) < batching.interval {
            return Ok(());
        }
        for lane in 0..self.lanes.len() {
            let slot = &mut self.lanes[lane].slot;
            if !slot.is_again()
                && let Some(block) = slot.seal(&self.shared.pool)
            {
                self.gather(block);
            }
        }
        self.log_plan()
    }

    /// Logs the plan of what was gathered.
    pub(super) fn log_plan(&mut self) -> Result<(), ReceiverError> {
        let Gathering { mut blocks, again, .. } = std::mem::take(&mut self.gathering);
        self.gathering.again = again;
        blocks.retain(|block| {
            let BlockHeader { partition, tenure, first, next, .. } = block.header;
            self.may_admit(partition, tenure, first, next)
        });
        if blocks.is_empty() {
            return Ok(());
        }
        let range = |block: &Block| {
            let BlockHeader { partition, first, next, .. } = block.header;
            PlanRange { topic: partition.topic, partition: partition.number, from: first, until: next }
        };
        let ranges = blocks.iter().map(range).collect();
        let id = self.shared.plans.lock().unwrap_or_else(PoisonError::into_inner).take_id();
        self.shared.metrics.plans.inc();
        self.shared.metrics.blocks_admitted.inc_by(blocks.len() as u64);
        Ok(self.shared.log.append_plan(Entry::Plan { route: ROUTE, id, time_ms: clock::wall_ms(), ranges, blocks })?)
    }

    /// Forgets what was gathered for partitions that are gone.
    pub(super) fn drop_gathered(&mut self, partitions: &[Partition]) {
        self.gathering.blocks.retain(|block| !partitions.contains(&block.header.partition));
        self.gathering.bytes = self.gathering.blocks.iter().map(|block| block.payload.len()).sum();
        self.gathering.again.retain(|partition, _| !partitions.contains(partition));
    }

    /// Closes ranges that are run again and end at or below `next`: everything of them has been seen.
    pub(super) fn close_again(&mut self, lane: usize, next: i64) {
        while let Some(block) = self.lanes[lane].slot.seal_again(next, &self.shared.pool) {
            self.gather(block);
        }
    }

    /// Kafka ends at `end`, within a range that was planned: it is not run again as it was.
    pub(super) fn forget_again(&mut self, lane: usize, end: i64) {
        let slot = &mut self.lanes[lane].slot;
        if slot.is_again() {
            let partition = slot.partition;
            slot.forget_again();
            self.gathering.again.remove(&partition);
            let (topic, number) = &self.lanes[lane].named;
            tracing::warn!(
                receiver = self.number,
                topic,
                partition = number,
                end,
                "Kafka ends within an open plan; what there is gets a new plan"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: i64, until: i64) -> PlanRange {
        PlanRange { topic: 1, partition: 0, from, until }
    }

    #[test]
    fn only_an_unbroken_chain_from_the_start_is_run_again() {
        let ranges = [(1, range(10, 20)), (1, range(20, 25)), (2, range(25, 40)), (3, range(50, 60))];
        assert_eq!(chain(&ranges, 10), [20, 25, 40]);
        assert_eq!(chain(&ranges, 20), [25, 40]);
        assert_eq!(chain(&ranges, 50), [60]);
        for start in [0, 12, 40, 60] {
            assert_eq!(chain(&ranges, start), [0; 0], "{start}");
        }
    }

    #[test]
    fn of_two_plans_for_one_offset_the_newer_counts() {
        let ranges = [(7, range(10, 30)), (3, range(10, 20)), (3, range(20, 30))];
        assert_eq!(chain(&ranges, 10), [30]);
        assert_eq!(chain(&ranges, 20), [30]);
    }

    #[test]
    fn ids_go_on_above_all_that_were_used() {
        let plan = OpenPlan { route: 0, id: 4, time_ms: 0, ranges: vec![range(1, 2)] };
        let mut plans = Plans::new(5, &[plan]);
        assert_eq!((plans.take_id(), plans.take_id()), (5, 6));
        assert_eq!(plans.chain(Partition { topic: 1, number: 0 }, 1), [2]);
        assert_eq!(plans.chain(Partition { topic: 1, number: 1 }, 1), [0; 0]);
    }
}
