//! What an earlier tenure admitted and the log has not made durable yet: it becomes durable, or it is withdrawn.
//!
//! Promises: after it, all that the protocol believes to be admitted is durable. Never: it does not wait for space.

use super::ReceiverError;
use super::poll::Receiver;
use crate::kafka::tenure::Ownership;
use crate::record::Partition;
use std::time::{Duration, Instant};

/// What was admitted before may take so long to become durable.
const DURABLE: Duration = Duration::from_secs(1);

impl Receiver<'_> {
    /// Makes sure that what was admitted before is durable: a moment of waiting spares fetching it again; never for space,
    /// which may have to come from the tenure that is about to open. What waits longer is withdrawn.
    pub(super) fn keep_durable(&self, partition: Partition) -> Result<(), ReceiverError> {
        let log = &self.shared.log;
        let marks = log.marks(partition);
        let until = Instant::now() + DURABLE;
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

    /// Tells the protocol how far a partition that nobody here holds is durable; its last tenure, if that is not all.
    fn left_behind(&self, partition: Partition, durable: i64) -> Option<u32> {
        let mut owners = self.owners();
        let ownership = owners.get(partition).filter(|ownership| ownership.tenure().is_none())?;
        let tenure = ownership.fold()?.tenure;
        ownership.durable(tenure, durable);
        (!ownership.is_durable()).then_some(tenure)
    }
}
