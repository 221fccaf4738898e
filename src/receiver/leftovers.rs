//! What an earlier tenure admitted and the log has not made durable yet: it becomes durable, or it is withdrawn.
//!
//! Promises: after it, all that the protocol believes to be admitted is durable. Never: it does not wait for space.

use super::ReceiverError;
use super::late::For;
use super::poll::Receiver;
use crate::kafka::tenure::Ownership;
use crate::record::Partition;
use crate::wal::repair::Attempt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What was admitted before may take so long to become durable.
pub(super) const DURABLE: Duration = Duration::from_secs(1);
/// Why a partition waits while [`Receiver::is_at_the_sink`].
pub(super) const AT_THE_SINK: &str = "planned blocks are still being delivered";

impl Receiver<'_> {
    /// Makes sure that what was admitted before is durable: a moment of waiting spares fetching it again; never for space,
    /// which may have to come from the tenure that is about to open. What is not durable at `until` is withdrawn. Not for
    /// what [`Receiver::is_at_the_sink`].
    pub(super) fn keep_durable(&self, partition: Partition, until: Instant) -> Result<(), ReceiverError> {
        let log = &self.shared.log;
        let marks = log.marks(partition);
        loop {
            let full = log.is_full() || Instant::now() >= until;
            let Some(tenure) = self.left_behind(partition, marks.durable()) else { return Ok(()) };
            if full {
                let durable = log.withdraw(partition, tenure)?;
                self.left_behind(partition, durable);
                self.owners().get(partition).into_iter().for_each(Ownership::withdrawn);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Direct mode: planned blocks of the partition are on their way to the sink. They can't be withdrawn any more, and how
    /// far they go is known only when they are delivered.
    pub(super) fn is_at_the_sink(&self, partition: Partition) -> bool {
        self.shared.log.marks(partition).in_flight.load(Ordering::Acquire) > 0
    }

    /// Direct mode: why nothing of the partition can be delivered until a person repairs its log. What is planned would
    /// wait in memory for that.
    pub(super) fn beyond_repair(&self, partition: Partition) -> Option<String> {
        let repairs = self.shared.log.repairs();
        if self.options.direct.is_none() || repairs.counts().given_up == 0 {
            return None;
        }
        let mut open = repairs.open().into_iter().filter(|open| open.block.partition == partition);
        open.find_map(|open| match open.attempt {
            Attempt::Never(why) => Some(format!("{}, and it can't be repaired: {why}", open.block)),
            Attempt::New | Attempt::Later(_) => None,
        })
    }

    /// Holds partitions that are [`Receiver::beyond_repair`].
    pub(super) fn hold_damaged(&mut self) -> Result<(), ReceiverError> {
        let damaged = |lane: usize| Some((lane, self.beyond_repair(self.lanes[lane].slot.partition)?));
        match (0..self.lanes.len()).find_map(damaged) {
            Some((lane, why)) => self.put_off(lane, why, For::Person),
            None => Ok(()),
        }
    }

    /// Tells the protocol how far a partition that nobody here holds is durable; its last tenure, if that is not all.
    fn left_behind(&self, partition: Partition, durable: i64) -> Option<u32> {
        let mut owners = self.owners();
        let ownership = owners.get(partition).filter(|ownership| ownership.tenure().is_none())?;
        let tenure = ownership.fold()?.tenure;
        ownership.durable(tenure, durable);
        (!ownership.is_durable()).then_some(tenure)
    }
}
