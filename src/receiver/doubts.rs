//! Blocks in doubt of partitions that are owned elsewhere: the group's commit says whose they are.

use super::ReceiverError;
use super::assign::ASK;
use super::leftovers::DURABLE;
use super::poll::Receiver;
use crate::kafka::consumer::Named;
use crate::kafka::tenure::{Committed, Settled, Ticket, Unsettled};
use crate::record::Partition;
use std::time::{Duration, Instant};

/// How often doubts are looked at.
const SETTLE: Duration = Duration::from_secs(1);

impl Receiver<'_> {
    /// Settles what is in doubt for partitions that are owned elsewhere.
    pub fn settle_doubts(&mut self) -> Result<(), ReceiverError> {
        if !self.assigning.joined || self.assigning.settled.is_some_and(|at| at.elapsed() < SETTLE) {
            return Ok(());
        }
        self.assigning.settled = Some(Instant::now());
        let doubts = self.owners().in_doubt();
        let mut asked: Vec<(Named, Partition, Ticket)> = Vec::new();
        let until = Instant::now() + DURABLE;
        for partition in doubts {
            let Some(topic) = self.shared.topics.get(partition.topic) else { continue };
            if self.is_at_the_sink(partition) {
                continue;
            }
            self.keep_durable(partition, until)?;
            let newest = self.shared.topics.newest(&topic.name).map(|newest| newest.number);
            let mut owners = self.owners();
            let members = owners.members.clone();
            let Some(ownership) = owners.get(partition) else { continue };
            if newest != Some(partition.topic) {
                let settled = ownership.settle_deleted(self.options.policy.sole);
                drop(owners);
                self.follow_settled(&(topic.name, partition.number), partition, settled)?;
            } else if let Some(ticket) = ownership.may_settle(&members) {
                asked.push(((topic.name, partition.number), partition, ticket));
            }
        }
        let names: Vec<Named> = asked.iter().map(|(named, ..)| named.clone()).collect();
        let Ok(committed) = self.member.committed(&names, ASK) else { return Ok(()) };
        for (named, partition, ticket) in asked {
            let of_it = committed.iter().find(|entry| (&entry.topic, entry.partition) == (&named.0, named.1));
            let Some(of_it) = of_it else { continue };
            let read = Committed::read(of_it.offset, &of_it.metadata);
            let settled = self.owners().get(partition).map(|ownership| ownership.settle(ticket, &read));
            if let Some(settled) = settled {
                self.follow_settled(&named, partition, settled)?;
            }
        }
        Ok(())
    }

    fn follow_settled(&mut self, named: &Named, partition: Partition, settled: Settled) -> Result<(), ReceiverError> {
        match settled {
            Settled::Frames(frames) => self.log_frames(partition, &frames),
            Settled::Not(Unsettled::NotYet) => Ok(()),
            Settled::Not(Unsettled::Hold(hold)) => {
                self.assigning.tell_once(named, &hold.to_string());
                Ok(())
            }
            Settled::Not(Unsettled::Stop(stop)) => {
                let (topic, partition) = named.clone();
                Err(ReceiverError::Stopped { topic, partition, stop })
            }
        }
    }
}
