//! Letting go: of revoked partitions, of a membership that can't commit any more, of everything at the end.
//!
//! The order is always: nothing more is taken; open blocks are closed and handed to the log; they become durable; the
//! commit in flight is awaited; one more commit; only then the partition is gone. All of it within a few seconds:
//! safety does not hang on it, what is left over is in doubt and is settled later.

use super::commits::Commits;
use super::poll::{PARTITIONS_ASSUMED, Receiver, member};
use super::{ReceiverError, late::Assigning};
use crate::kafka::consumer::Named;
use crate::kafka::tenure::Revocation;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What one letting go may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same at the end of the process; with dead brokers a stop is to be over in five seconds.
const PATIENCE_AT_END: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);

impl Receiver<'_> {
    /// The group takes partitions away.
    pub fn revoked(&mut self, partitions: &[Named], lost: bool) -> Result<(), ReceiverError> {
        self.shared.metrics.rebalances.inc();
        self.note_membership();
        tracing::info!(receiver = self.number, partitions = partitions.len(), lost, "revoked");
        let ours: Vec<Named> = partitions.iter().filter(|named| self.by_name.contains_key(*named)).cloned().collect();
        let done = self.let_go_within(&ours, lost, PATIENCE);
        self.forget_late(partitions);
        self.member.unassign(&ours)?;
        done
    }

    /// Ends the tenures of these partitions in order and drops their lanes.
    pub fn let_go(&mut self, partitions: &[Named]) -> Result<(), ReceiverError> {
        self.let_go_within(partitions, false, PATIENCE)
    }

    fn let_go_within(&mut self, partitions: &[Named], lost: bool, patience: Duration) -> Result<(), ReceiverError> {
        let revocation = Revocation::judge(lost, self.out_of_turn);
        let in_turn = revocation == Revocation::InTurn;
        let sealed = if in_turn { self.seal(partitions) } else { Ok(()) };
        let sealed = sealed.and_then(|()| if in_turn { self.log_plan() } else { Ok(()) });
        let keys: Vec<_> = partitions
            .iter()
            .filter_map(|named| self.by_name.get(named))
            .map(|&lane| self.lanes[lane].slot.partition)
            .collect();
        self.drop_gathered(&keys);
        for key in &keys {
            if let Some(ownership) = self.owners().get(*key) {
                ownership.revoke(self.number, revocation);
            }
        }
        let waited = if in_turn { self.wait_closed(&keys, patience) } else { Ok(()) };
        // The client may have joined anew in the background: commits sent from now on would carry that membership.
        self.note_membership();
        for key in &keys {
            // Before the release: once it is free, another receiver of this process may open it at once.
            self.shared.governor.close(*key);
            let mut owners = self.owners();
            let members = owners.members.clone();
            if let Some(ownership) = owners.get(*key) {
                let doubt = ownership.release(self.number, &members);
                drop(owners);
                // Out of turn the group has gone on already; nobody else makes this member join anew.
                self.commits.rejoin |= doubt && !lost && !in_turn;
            }
        }
        self.drop_lanes(partitions);
        sealed.and(waited)
    }

    /// Closes open blocks and hands them on; on a full disk they are dropped instead, Kafka still has them.
    pub(super) fn seal(&mut self, partitions: &[Named]) -> Result<(), ReceiverError> {
        let full = self.shared.log.is_full();
        for named in partitions {
            let Some(&lane) = self.by_name.get(named) else { continue };
            let slot = &mut self.lanes[lane].slot;
            if full && self.options.direct.is_none() || slot.is_again() {
                slot.discard();
            } else if let Some(block) = slot.seal(&self.shared.pool) {
                self.admit(block)?;
            }
        }
        Ok(())
    }

    fn wait_closed(&mut self, keys: &[crate::record::Partition], patience: Duration) -> Result<(), ReceiverError> {
        let until = Instant::now() + patience;
        while Instant::now() < until && self.shared.log.failure().is_none() && !self.commits.rejoin {
            self.commit_round()?;
            let open = {
                let mut owners = self.owners();
                keys.iter().any(|key| owners.get(*key).is_some_and(|ownership| !ownership.closed(self.number)))
            };
            if !open {
                break;
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn drop_lanes(&mut self, partitions: &[Named]) {
        if self.options.policy.sole {
            // Nobody else reads on: if the topic is deleted now, this is where it ended.
            for lane in self.lanes.iter().filter(|lane| partitions.contains(&lane.named)) {
                self.shared.gaps.saw_end(lane.slot.partition, lane.seen_end);
            }
        }
        for (topic, partition) in partitions {
            self.shared.metrics.forget_partition(topic, *partition);
        }
        self.lanes.retain(|lane| !partitions.contains(&lane.named));
        let places = self.lanes.iter().enumerate().map(|(at, lane)| (lane.named.clone(), at));
        self.by_name = places.collect::<HashMap<_, _>>();
        self.assigning.changed = Some(Instant::now());
    }

    /// A commit had no answer, or the tenures are of another membership: nothing more may be committed under this one.
    /// Leaves, and joins as a new member.
    pub fn rejoin(&mut self) -> Result<(), ReceiverError> {
        tracing::warn!(receiver = self.number, "nothing more can be committed: leaving the group and joining anew");
        let all = self.names();
        self.let_go_within(&all, true, PATIENCE)?;
        let partitions = self.assigning.expected.unwrap_or(PARTITIONS_ASSUMED);
        self.out_of_turn = false;
        let fresh = member(self.number, self.options, partitions)?;
        let old = std::mem::replace(&mut self.member, fresh);
        old.close(&mut self.batch);
        self.commits = Commits::new(Instant::now());
        let expected = self.assigning.expected;
        self.assigning = Assigning::default();
        self.assigning.expected = expected;
        Ok(self.member.subscribe(&self.options.topics)?)
    }

    /// The end: makes durable and commits what was taken, as far as the time allows, and leaves.
    pub fn finish(mut self) {
        let all = self.names();
        let left = self.lanes.iter().map(|lane| self.not_taken(lane)).sum();
        if let Err(error) = self.let_go_within(&all, false, PATIENCE_AT_END) {
            tracing::warn!(receiver = self.number, "while stopping: {error}");
        }
        self.shared.views.update(self.number, |view| {
            view.settled = true;
            view.lag = left;
        });
        let Self { member, mut batch, .. } = self;
        member.close(&mut batch);
    }
}
