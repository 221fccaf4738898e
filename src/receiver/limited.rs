//! Taking records while limits are in force: each partition's queue by itself, no more than its grant.
//!
//! Promises: what is over a limit stays in librdkafka's bounded queue, which then stops fetching: nothing is fetched
//! twice for a limit, and the membership does not notice. What had arrived in the common queue before the limits were set
//! is taken first, and charged. Never: it does not pause and seek.

use super::ReceiverError;
use super::poll::{BATCH, Receiver};
use super::trust::Trust;
use crate::clock;
use crate::kafka::consumer::Named;
use crate::kafka::fetched::Fetched;
use crate::rate::limiter::{Demand, Grant};
use crate::record::Partition;
use std::time::{Duration, Instant};

/// How long a round rests at most when nothing may be taken.
const REST_MAX: Duration = Duration::from_millis(10);
const REST_MIN: Duration = Duration::from_millis(1);

/// Kept from round to round.
#[derive(Debug, Default)]
pub(super) struct Limited {
    demands: Vec<Demand>,
    grants: Vec<Grant>,
    taken: Vec<(Partition, u64, u64)>,
    /// Mean bytes of a record, of those taken lately.
    record_bytes: f64,
}

impl Limited {
    /// So many records may be taken within a grant. While their size is not known, one where bytes are limited: it may be
    /// taken whole, and shows the size.
    fn most(&self, grant: Grant) -> usize {
        let by_bytes = match grant.bytes {
            u64::MAX => u64::MAX,
            _ if self.record_bytes == 0.0 => 1,
            bytes => (bytes as f64 / self.record_bytes.max(1.0)).ceil() as u64,
        };
        grant.records.min(by_bytes.max(1)).min(BATCH as u64) as usize
    }

    fn note(&mut self, partition: Partition, records: u64, bytes: u64) {
        if records > 0 {
            let mean = bytes as f64 / records as f64;
            self.record_bytes += (mean - self.record_bytes) / if self.record_bytes > 0.0 { 8.0 } else { 1.0 };
        }
        self.taken.push((partition, records, bytes));
    }
}

impl Receiver<'_> {
    /// Fetches partitions that were assigned, each from an offset. Under limits nothing of them arrives together.
    pub(super) fn start_fetching(&mut self, starts: &[(Named, i64)]) -> Result<(), ReceiverError> {
        Ok(self.member.assign(starts, self.shared.governor.is_limited())?)
    }

    /// One round within the limits.
    pub(super) fn take_limited(&mut self) -> Result<(), ReceiverError> {
        if self.member.wire().is_some() {
            return self.take_shares();
        }
        for lane in &mut self.lanes {
            if self.member.fetch_apart(&lane.named) {
                // What is still on its way into the common queue comes after what is in its own: that is no hole.
                lane.trust = Trust::Unsure;
            }
        }
        self.member.fetch(&mut self.batch, Duration::ZERO);
        if !self.batch.is_empty() {
            return self.take_leftovers();
        }
        self.take_shares()
    }

    /// Gives each partition its grant.
    fn take_shares(&mut self) -> Result<(), ReceiverError> {
        let mut limited = std::mem::take(&mut self.limited);
        limited.demands.clear();
        let demand = |lane| Demand { partition: lane_partition(lane), lag: self.not_taken(lane), most: u64::MAX };
        limited.demands.extend(self.lanes.iter().map(demand));
        let wait = self.shared.governor.round(&limited.demands, clock::monotonic(), &mut limited.grants);
        let round = self.take_granted(&mut limited);
        let idle = limited.taken.is_empty();
        self.shared.governor.charge(limited.taken.drain(..));
        self.limited = limited;
        round?;
        if idle {
            std::thread::sleep(wait.unwrap_or(REST_MAX).clamp(REST_MIN, REST_MAX));
        }
        Ok(())
    }

    /// Takes what had arrived together: it can't be held back, since it is older than what is in the partitions' own queues.
    fn take_leftovers(&mut self) -> Result<(), ReceiverError> {
        let mut taken = Vec::new();
        for message in self.batch.iter().filter(|message| message.error().is_none()) {
            let named = (message.topic().to_string(), message.partition());
            if let Some(lane) = self.by_name.get(&named) {
                let bytes = message.value().map_or(0, <[u8]>::len) as u64;
                taken.push((lane_partition(&self.lanes[*lane]), 1, bytes));
            }
        }
        self.shared.governor.charge(taken);
        self.take_batch(Instant::now()).map(drop)
    }

    fn take_granted(&mut self, limited: &mut Limited) -> Result<(), ReceiverError> {
        for at in 0..limited.demands.len() {
            let (partition, grant) = (limited.demands[at].partition, limited.grants[at]);
            // Taking may have ended a lane.
            let Some(lane) = self.lanes.get(at).filter(|lane| lane_partition(lane) == partition) else { continue };
            if grant.is_none() {
                continue;
            }
            let most = limited.most(grant);
            if self.member.wire().is_some() {
                let named = lane.named.clone();
                if let Some((records, bytes)) = self.take_part(Some(&named), most, Duration::ZERO)? {
                    limited.note(partition, records, bytes);
                }
                continue;
            }
            self.member.fetch_own(&lane.named, most, &mut self.batch);
            if !self.batch.is_empty() {
                let (records, bytes) = self.take_batch(Instant::now())?;
                limited.note(partition, records, bytes);
            }
        }
        Ok(())
    }
}

fn lane_partition(lane: &super::poll::Lane) -> Partition {
    lane.slot.partition
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_of_bytes_is_turned_into_records_by_their_mean_size() {
        let mut limited = Limited::default();
        let bytes = |bytes| Grant { records: u64::MAX, bytes };
        assert_eq!(limited.most(bytes(20_000)), 1, "nothing known yet: the one that shows it");
        assert_eq!(limited.most(Grant { records: 3, bytes: u64::MAX }), 3, "bytes are not limited");
        limited.note(Partition { topic: 1, number: 0 }, 10, 1000);
        assert_eq!(limited.most(bytes(1000)), 10);
        assert_eq!(limited.most(bytes(1)), 1);
        assert_eq!(limited.most(Grant { records: 3, bytes: 1000 }), 3);
        assert_eq!(limited.most(Grant::ALL), BATCH);
    }
}
