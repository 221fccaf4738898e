//! What keeps the number of states small without hiding anything.

use super::World;
use super::coordinator::Fate;
use super::steps::Step;
use forebay::kafka::tenure::{Answer, Membership};

const NOBODY: u64 = u64::MAX;

impl World {
    /// What commutes with all that others do is done at once. A commit that can't be accepted any more is refused, and
    /// the client hears of it; a client without a tenure follows the group (it may still read and act on it late).
    pub(super) fn settle_down(&mut self) -> bool {
        let mut network = std::mem::take(&mut self.kafka.network);
        let (refused, mut rest): (Vec<_>, Vec<_>) = network.drain(..).partition(|request| {
            request.fate == Fate::Refused || (request.fate == Fate::Sent && !self.kafka.accepts(request))
        });
        rest.sort_by_key(|request| (request.slot, request.order.tenure, request.order.next, request.awaited));
        self.kafka.network = rest;
        for request in refused.iter().filter(|request| request.awaited) {
            self.result(request.slot, &request.order, Answer::Refused);
        }
        let late = (0..self.kafka.members.len()).find(|slot| self.follows(*slot));
        let Some(slot) = late else { return false };
        self.advance(slot);
        self.callback(slot);
        true
    }

    pub(super) fn follows(&self, slot: usize) -> bool {
        let receiver = self.receiver(slot);
        let behind = receiver.membership.is_some_and(|of| of.generation < self.kafka.generation);
        (behind || receiver.to_call)
            && !self.holds(slot)
            && !receiver.closing
            && self.kafka.is_member(slot, receiver.membership)
    }

    /// Numbers generations and member ids anew in their order, so that equal situations become equal states.
    pub(super) fn rename(&mut self) {
        let kafka = &self.kafka;
        let mut generations = vec![kafka.generation];
        let mut members: Vec<u64> = kafka.members.iter().flatten().copied().collect();
        let receivers = self.processes.iter().flat_map(|process| &process.receivers);
        let of_clients = receivers.filter_map(|receiver| receiver.membership);
        let of_requests = kafka.network.iter().map(|request| request.sender);
        let noted = self
            .processes
            .iter()
            .flat_map(|process| (0..process.receivers.len()).filter_map(|receiver| process.members.of(receiver)));
        let used: Vec<Membership> = of_clients.chain(of_requests).chain(noted).collect();
        generations.extend(used.iter().map(|membership| membership.generation));
        members.extend(used.iter().map(|membership| membership.member));
        generations.sort_unstable();
        generations.dedup();
        members.sort_unstable();
        members.dedup();
        let generation = |old: i32| generations.partition_point(|other| *other < old) as i32;
        // An id that nobody bears comes never again.
        let member = |old: u64| members.binary_search(&old).map_or(NOBODY, |place| place as u64);
        let name = |old: Membership| Membership { member: member(old.member), generation: generation(old.generation) };
        self.kafka.generation = generation(self.kafka.generation);
        self.kafka.last_member = members.len() as u64;
        self.kafka.members.iter_mut().flatten().for_each(|old| *old = member(*old));
        self.kafka.network.iter_mut().for_each(|request| request.sender = name(request.sender));
        for process in &mut self.processes {
            process.ownership.rename(&process.members, name);
            process.members.rename(name);
            for receiver in &mut process.receivers {
                receiver.membership = receiver.membership.map(name);
                if let Some((ticket, _)) = &mut receiver.read {
                    ticket.rename(name);
                }
            }
        }
    }

    /// A process none of whose receivers is a member has no part in what the others do until it joins or reads: its own
    /// steps can be taken first. Returns whether `steps` was cut down to those.
    pub fn own_steps_first(&self, steps: &mut Vec<Step>) -> bool {
        for (number, process) in self.processes.iter().enumerate() {
            let slots = process.first_slot..process.first_slot + process.receivers.len();
            let apart = slots.clone().all(|slot| !self.kafka.is_member(slot, self.receiver(slot).membership));
            let own: Vec<Step> = steps.iter().copied().filter(|step| self.place_of(*step) == number).collect();
            let meets_others = |step: &Step| {
                matches!(
                    step,
                    Step::Join { .. }
                        | Step::Renew { .. }
                        | Step::Rejoin { .. }
                        | Step::Read { .. }
                        | Step::ReadDoubt { .. }
                        | Step::Handle { .. }
                )
            };
            if apart && own.iter().any(|step| !step.costs()) && !own.iter().any(meets_others) && own.len() < steps.len()
            {
                *steps = own;
                return true;
            }
        }
        false
    }

    /// The process that takes or suffers a step; none for the coordinator's.
    pub(super) fn place_of(&self, step: Step) -> usize {
        match step {
            Step::Start | Step::Move | Step::Kick { .. } => usize::MAX,
            Step::Kill { process, .. }
            | Step::Fill { process }
            | Step::Space { process }
            | Step::Withdraw { process }
            | Step::Sync { process }
            | Step::ReadDoubt { process }
            | Step::Settle { process } => process,
            Step::Timeout { request }
            | Step::AppliedRefused { request }
            | Step::RefusedThoughOwned { request }
            | Step::Handle { request }
            | Step::Result { request } => self.place(self.kafka.network[request].slot).0,
            Step::Expire { slot }
            | Step::Renew { slot }
            | Step::AnswerEarly { slot }
            | Step::Reopen { slot }
            | Step::Lost { slot }
            | Step::Leave { slot }
            | Step::Advance { slot }
            | Step::Callback { slot }
            | Step::Release { slot }
            | Step::Rejoin { slot }
            | Step::Join { slot }
            | Step::Read { slot }
            | Step::Open { slot }
            | Step::Admit { slot }
            | Step::Commit { slot } => self.place(slot).0,
        }
    }
}
