//! What can happen next.

use super::coordinator::Fate;
use super::process::Entry;
use super::{World, WorldSettings};
use forebay::kafka::tenure::{Settled, Unsettled, Wait};

/// One step of somebody. Slots number all receivers of all processes; requests are numbered as they lie in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Start,
    // What costs a fault or the revoke.
    /// SIGKILL or a power cut, and a restart; so many entries beyond the last sync survive.
    Kill {
        process: usize,
        survive: usize,
    },
    /// The coordinator drops a member that lives on as a zombie until it hears of it.
    Expire {
        slot: usize,
    },
    /// The client gives up waiting; the request lives on in the network.
    Timeout {
        request: usize,
    },
    /// The commit is applied, and the client's second try is refused.
    AppliedRefused {
        request: usize,
    },
    /// Refused although member and generation are right.
    RefusedThoughOwned {
        request: usize,
    },
    /// The receiver gives its tenure up and takes the partition again, still the same member: its position was lost.
    Reopen {
        slot: usize,
    },
    /// The coordinator gives the partition to another member.
    Move,
    /// A client that is no member any more joins as a new one, and its receiver has not heard of either.
    Renew {
        slot: usize,
    },
    /// The client gives another partition back by itself: that answers the revocation its receiver has not heard of.
    AnswerEarly {
        slot: usize,
    },
    /// The disk or the quota is full.
    Fill {
        process: usize,
    },
    // What happens by itself. The order is that of the quiet continuation.
    /// The coordinator notices that a member is gone.
    Kick {
        slot: usize,
    },
    /// The client hears that it is no member any more.
    Lost {
        slot: usize,
    },
    /// The client leaves to join anew.
    Leave {
        slot: usize,
    },
    /// The client's background thread joins the new generation.
    Advance {
        slot: usize,
    },
    /// The rebalance callback runs.
    Callback {
        slot: usize,
    },
    /// A revoke ends: all done, or its time is up.
    Release {
        slot: usize,
    },
    /// The member that let go joins again, so that another one can be given the partition.
    Rejoin {
        slot: usize,
    },
    Join {
        slot: usize,
    },
    /// The coordinator works on a commit.
    Handle {
        request: usize,
    },
    /// The client gets the result.
    Result {
        request: usize,
    },
    /// All that kept the log full is delivered or disowned: there is space again.
    Space {
        process: usize,
    },
    /// What waits for space is withdrawn, because the partition is to be opened or its doubt settled.
    Withdraw {
        process: usize,
    },
    Sync {
        process: usize,
    },
    Read {
        slot: usize,
    },
    Open {
        slot: usize,
    },
    ReadDoubt {
        process: usize,
    },
    Settle {
        process: usize,
    },
    Admit {
        slot: usize,
    },
    Commit {
        slot: usize,
    },
}

impl Step {
    /// True for what a quiet continuation leaves out.
    pub fn costs(self) -> bool {
        let rare = matches!(self, Self::Move | Self::Renew { .. } | Self::AnswerEarly { .. } | Self::Fill { .. });
        rare || self.is_fault()
    }

    /// False for steps after which the same memberships are known as before.
    pub fn concerns_the_group(self) -> bool {
        !matches!(
            self,
            Self::Fill { .. }
                | Self::Space { .. }
                | Self::Withdraw { .. }
                | Self::Sync { .. }
                | Self::Read { .. }
                | Self::Open { .. }
                | Self::ReadDoubt { .. }
                | Self::Settle { .. }
                | Self::Admit { .. }
                | Self::Commit { .. }
        )
    }

    pub fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Kill { .. }
                | Self::Expire { .. }
                | Self::Reopen { .. }
                | Self::Timeout { .. }
                | Self::AppliedRefused { .. }
                | Self::RefusedThoughOwned { .. }
        )
    }
}

impl World {
    /// All steps possible, those of a quiet continuation in the order in which it takes them.
    pub fn steps(&self, settings: &WorldSettings, steps: &mut Vec<Step>) {
        self.faults_possible(settings, steps);
        for slot in 0..self.kafka.members.len() {
            self.group_steps(slot, steps);
        }
        for (request, state) in self.kafka.network.iter().enumerate() {
            steps.push(if state.fate == Fate::Sent { Step::Handle { request } } else { Step::Result { request } });
        }
        for (process, state) in self.processes.iter().enumerate() {
            // What is neither delivered nor disowned keeps the log full.
            if state.full && state.disk.blocks.is_empty() {
                steps.push(Step::Space { process });
            }
            if state.full && !state.ownership.is_durable() && state.ownership.tenure().is_none() {
                steps.push(Step::Withdraw { process });
            }
            let passes = if state.full { !state.clone().take_tail().is_empty() } else { !state.tail.is_empty() };
            if passes {
                steps.push(Step::Sync { process });
            }
            if state.doubt_read.is_some() {
                steps.push(Step::Settle { process });
            } else if let Some(ticket) = state.ownership.may_settle(&state.members) {
                // A read that would tell nothing now is no step.
                let settled = state.ownership.clone().settle(ticket, &self.kafka.read());
                if !matches!(settled, Settled::Not(Unsettled::NotYet)) && self.kafka.committed.is_some() {
                    steps.push(Step::ReadDoubt { process });
                }
            }
        }
        for slot in 0..self.kafka.members.len() {
            self.work_steps(slot, settings, steps);
        }
    }

    fn faults_possible(&self, settings: &WorldSettings, steps: &mut Vec<Step>) {
        let kafka = &self.kafka;
        if self.faults > 0 {
            for (process, state) in self.processes.iter().enumerate() {
                let all = state.tail.len();
                let some = (0..=all).filter(|survive| !settings.coarse || *survive == 0 || *survive == all);
                steps.extend(some.map(|survive| Step::Kill { process, survive }));
            }
            for slot in 0..kafka.members.len() {
                if kafka.is_member(slot, self.receiver(slot).membership) {
                    steps.push(Step::Expire { slot });
                }
                if !settings.coarse && self.holds(slot) && !self.receiver(slot).closing {
                    steps.push(Step::Reopen { slot });
                }
            }
            for (request, state) in kafka.network.iter().enumerate().filter(|(_, state)| state.awaited) {
                steps.push(Step::Timeout { request });
                if state.fate == Fate::Sent && kafka.accepts(state) {
                    steps.extend([Step::AppliedRefused { request }, Step::RefusedThoughOwned { request }]);
                }
            }
        }
        for slot in 0..kafka.members.len() {
            let receiver = self.receiver(slot);
            let holds = self.holds(slot) && !receiver.closing;
            let is_member = kafka.is_member(slot, receiver.membership);
            let busy = holds || receiver.read.is_some();
            if self.renewals > 0 && busy && receiver.membership.is_some() && !is_member {
                steps.push(Step::Renew { slot });
            }
            let revoked = receiver.to_call && kafka.owner == Some(slot) && kafka.moving;
            if self.early_answers > 0 && holds && is_member && revoked {
                steps.push(Step::AnswerEarly { slot });
            }
        }
        for (process, state) in self.processes.iter().enumerate().filter(|(_, state)| self.fills > 0 && !state.full) {
            // Without a block to hold back it makes no difference.
            if state.tail.iter().any(|entry| matches!(entry, Entry::Block { .. })) {
                steps.push(Step::Fill { process });
            }
        }
        let others = kafka.members.iter().flatten().count() > 1;
        if self.revokes > 0 && others && kafka.owner.is_some() && !kafka.moving {
            steps.push(Step::Move);
        }
    }

    fn group_steps(&self, slot: usize, steps: &mut Vec<Step>) {
        if self.kafka.members[slot].is_some() && !self.present()[slot] {
            steps.push(Step::Kick { slot });
        }
        let receiver = self.receiver(slot);
        let Some(membership) = receiver.membership else {
            steps.push(Step::Join { slot });
            return;
        };
        if !self.kafka.is_member(slot, receiver.membership) {
            steps.push(Step::Lost { slot });
        } else if membership.generation < self.kafka.generation {
            steps.push(Step::Advance { slot });
        }
        if receiver.leaving {
            steps.push(Step::Leave { slot });
        }
        if receiver.to_call && !receiver.closing {
            steps.push(Step::Callback { slot });
        }
        if receiver.closing {
            steps.push(Step::Release { slot });
        }
        if receiver.to_rejoin {
            steps.push(Step::Rejoin { slot });
        }
    }

    fn work_steps(&self, slot: usize, settings: &WorldSettings, steps: &mut Vec<Step>) {
        let (process, receiver_number) = self.place(slot);
        let state = &self.processes[process];
        let receiver = &state.receivers[receiver_number];
        let holds = self.holds(slot);
        if receiver.read.is_some() {
            steps.push(Step::Open { slot });
        } else if receiver.assigned && !holds && self.halted.is_none() {
            let awaited = self.kafka.network.iter().any(|request| request.slot == slot && request.awaited);
            match state.ownership.may_open(receiver_number, &state.members) {
                Ok(_) => steps.push(Step::Read { slot }),
                // Nothing will come that could make it sure: only joining anew helps.
                Err(Wait::NotJoined { receiver }) if receiver == receiver_number && !awaited => {
                    steps.push(Step::Leave { slot });
                }
                Err(_) => {}
            }
        }
        let more = state.ownership.fold().is_some_and(|fold| fold.admitted < settings.records as i64);
        let room = !settings.coarse || !state.tail.iter().any(|entry| matches!(entry, Entry::Block { .. }));
        if holds && more && room && !receiver.closing {
            steps.push(Step::Admit { slot });
        }
        if receiver.membership.is_some() && state.ownership.due(receiver_number).is_some() {
            steps.push(Step::Commit { slot });
        }
    }
}
