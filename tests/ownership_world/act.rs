//! What a step does.

use super::coordinator::{Fate, Request};
use super::process::{Entry, Receiver};
use super::steps::Step;
use super::{POLICY, World, WorldSettings};
use forebay::kafka::tenure::{
    Answer, Commit, Frame, Membership, Opening, Order, Revocation, Settled, Standing, Unsettled,
};

impl World {
    /// Takes a step that [`World::steps`] offered.
    pub fn take(&mut self, settings: &WorldSettings, step: Step) {
        self.act(settings, step);
        while self.settle_down() {}
        if settings.coarse {
            self.sync_confirmations(settings);
        }
        if step.concerns_the_group() {
            self.rename();
        }
    }

    pub(super) fn act(&mut self, settings: &WorldSettings, step: Step) {
        if step.is_fault() {
            self.faults -= 1;
        }
        match step {
            Step::Start => {}
            Step::Kill { process, survive } => self.kill(settings, process, survive),
            Step::Expire { slot } | Step::Kick { slot } => {
                self.kafka.members[slot] = None;
                self.kafka.rebalance(&self.present());
            }
            Step::Timeout { request } => {
                let late = self.kafka.network[request].clone();
                self.kafka.network[request].awaited = false;
                if late.fate != Fate::Sent {
                    self.kafka.network.remove(request);
                }
                self.result(late.slot, &late.order, Answer::Unanswered);
            }
            Step::AppliedRefused { request } => {
                self.kafka.apply(request);
                self.kafka.network[request].fate = Fate::Refused;
            }
            Step::RefusedThoughOwned { request } => self.kafka.network[request].fate = Fate::Refused,
            Step::Move => {
                self.revokes -= 1;
                self.kafka.moving = true;
                self.kafka.rebalance(&self.present());
            }
            Step::Renew { slot } => {
                self.renewals -= 1;
                self.enter(settings, slot);
                let (process, receiver) = self.place(slot);
                self.processes[process].receivers[receiver].to_call = true;
            }
            Step::AnswerEarly { slot } => {
                self.early_answers -= 1;
                let (process, receiver) = self.place(slot);
                self.processes[process].receivers[receiver].out_of_turn = true;
                self.kafka.let_go(slot, &self.present());
            }
            Step::Fill { process } => {
                self.fills -= 1;
                self.processes[process].full = true;
            }
            Step::Space { process } => self.processes[process].full = false,
            Step::Withdraw { process } => self.processes[process].withdraw(),
            Step::Reopen { slot } => self.reopen(slot),
            Step::Lost { slot } => self.let_go(slot),
            Step::Leave { slot } => self.leave(settings, slot),
            Step::Advance { slot } => self.advance(slot),
            Step::Callback { slot } => self.callback(slot),
            Step::Release { slot } => self.release(slot),
            Step::Rejoin { slot } => self.rejoin(slot),
            Step::Join { slot } => self.join(settings, slot),
            Step::Handle { request } => self.handle(request),
            Step::Result { request } => {
                let Request { slot, order, fate, .. } = self.kafka.network.remove(request);
                let answer = if fate == Fate::Applied { Answer::Applied } else { Answer::Refused };
                self.result(slot, &order, answer);
            }
            Step::Sync { process } => self.sync(settings, process),
            Step::Read { slot } => self.read(slot),
            Step::Open { slot } => self.open(slot),
            Step::ReadDoubt { process } => self.read_doubt(process),
            Step::Settle { process } => self.settle(process),
            Step::Admit { slot } => self.admit(slot),
            Step::Commit { slot } => self.commit(slot),
        }
    }

    pub(super) fn sync_confirmations(&mut self, settings: &WorldSettings) {
        for process in 0..self.processes.len() {
            let tail = &self.processes[process].tail;
            if tail.iter().all(|entry| matches!(entry, Entry::Frame(Frame::Confirmed { .. }))) {
                self.sync(settings, process);
            }
        }
    }

    pub(super) fn kill(&mut self, settings: &WorldSettings, process: usize, survive: usize) {
        let state = &mut self.processes[process];
        for entry in state.tail.drain(..survive) {
            state.disk.store(&entry, &mut self.out, settings.rules);
        }
        state.start(settings, process);
        let slots = state.first_slot..state.first_slot + state.receivers.len();
        for request in self.kafka.network.iter_mut().filter(|request| slots.contains(&request.slot)) {
            request.awaited = false;
        }
        self.kafka.network.retain(|request| request.awaited || request.fate == Fate::Sent);
    }

    /// The client is no member any more: the callback comes with «lost», nothing can be committed.
    pub(super) fn let_go(&mut self, slot: usize) {
        let (process, number) = self.place(slot);
        let process = &mut self.processes[process];
        process.receivers[number] = Receiver::default();
        process.ownership.revoke(number, Revocation::TooLate);
        process.ownership.release(number, &process.members);
    }

    pub(super) fn leave(&mut self, settings: &WorldSettings, slot: usize) {
        let member = self.kafka.is_member(slot, self.receiver(slot).membership);
        self.let_go(slot);
        // A static member does not leave; its next client replaces it.
        if member && !settings.statics {
            self.kafka.members[slot] = None;
            self.kafka.rebalance(&self.present());
        }
    }

    pub(super) fn advance(&mut self, slot: usize) {
        let generation = self.kafka.generation;
        let (process, receiver) = self.place(slot);
        let receiver = &mut self.processes[process].receivers[receiver];
        receiver.membership = receiver.membership.map(|old| Membership { generation, ..old });
        receiver.to_call = true;
    }

    pub(super) fn join(&mut self, settings: &WorldSettings, slot: usize) {
        self.enter(settings, slot);
        self.callback(slot);
    }

    /// The client becomes a new member.
    fn enter(&mut self, settings: &WorldSettings, slot: usize) {
        let replaces = settings.statics && self.kafka.members[slot].is_some();
        if !replaces {
            // An older member of this slot does not answer and is dropped; what it had is free.
            self.kafka.members[slot] = None;
        }
        if !replaces && self.kafka.owner == Some(slot) {
            self.kafka.hand_over();
        }
        self.kafka.new_member(slot);
        let member = self.kafka.last_member;
        let (process, receiver) = self.place(slot);
        let generation = self.kafka.generation;
        self.processes[process].receivers[receiver].membership = Some(Membership { member, generation });
        if replaces {
            self.kafka.let_go(slot, &self.present());
        } else {
            self.kafka.rebalance(&self.present());
        }
        let generation = self.kafka.generation;
        self.processes[process].receivers[receiver].membership = Some(Membership { member, generation });
    }

    pub(super) fn callback(&mut self, slot: usize) {
        let (process, number) = self.place(slot);
        let process = &mut self.processes[process];
        let receiver = &mut process.receivers[number];
        let Some(membership) = receiver.membership else { return };
        receiver.to_call = false;
        process.members.seen(number, Some(membership));
        let owner = self.kafka.owner == Some(slot) && !self.kafka.moving;
        let holds = process.ownership.tenure().is_some_and(|(holder, _)| holder == number);
        // The revocation that was answered comes first, also when the partition has come back since.
        let early = std::mem::take(&mut receiver.out_of_turn) && holds;
        if early {
            process.ownership.revoke(number, Revocation::judge(false, true));
        }
        if early && process.ownership.closed(number) {
            receiver.leaving |= process.ownership.release(number, &process.members);
            receiver.assigned = owner;
        } else if holds && (early || !owner) {
            receiver.closing = true;
            process.ownership.revoke(number, Revocation::InTurn);
        } else {
            receiver.read = receiver.read.take().filter(|_| owner);
            receiver.assigned = owner;
            if !receiver.to_rejoin && self.kafka.is_member(slot, Some(membership)) {
                // It had not heard of the partition before that was taken away again.
                self.kafka.let_go(slot, &self.present());
            }
        }
    }

    fn reopen(&mut self, slot: usize) {
        let (process, number) = self.place(slot);
        let process = &mut self.processes[process];
        process.ownership.revoke(number, Revocation::InTurn);
        process.members.seen(number, process.receivers[number].membership);
        process.ownership.release(number, &process.members);
    }

    pub(super) fn release(&mut self, slot: usize) {
        let (process, number) = self.place(slot);
        let process = &mut self.processes[process];
        let receiver = &mut process.receivers[number];
        (receiver.closing, receiver.assigned) = (false, false);
        receiver.to_rejoin = true;
        process.members.seen(number, receiver.membership);
        process.ownership.release(number, &process.members);
    }

    pub(super) fn rejoin(&mut self, slot: usize) {
        let (process, number) = self.place(slot);
        let receiver = &mut self.processes[process].receivers[number];
        receiver.to_rejoin = false;
        if self.kafka.is_member(slot, self.receiver(slot).membership) {
            self.kafka.let_go(slot, &self.present());
        }
    }

    pub(super) fn handle(&mut self, request: usize) {
        let accepted = self.kafka.accepts(&self.kafka.network[request]);
        if accepted {
            self.kafka.apply(request);
        }
        if self.kafka.network[request].awaited {
            self.kafka.network[request].fate = if accepted { Fate::Applied } else { Fate::Refused };
        } else {
            self.kafka.network.remove(request);
        }
    }

    pub(super) fn result(&mut self, slot: usize, order: &Order, answer: Answer) {
        let (process, receiver) = self.place(slot);
        let process = &mut self.processes[process];
        let reply = process.ownership.answered(order.tenure, order.next, answer);
        process.append(reply.frames);
        process.receivers[receiver].leaving |= reply.rejoin;
        if let Some(stop) = reply.stop {
            self.halted = Some(stop.to_string());
        }
    }

    pub(super) fn sync(&mut self, settings: &WorldSettings, process: usize) {
        let process = &mut self.processes[process];
        for entry in process.take_tail() {
            process.disk.store(&entry, &mut self.out, settings.rules);
            match entry {
                Entry::Frame(Frame::Owned { tenure, .. }) => process.ownership.synced(tenure),
                Entry::Frame(_) => {}
                Entry::Block { tenure, offset } => process.ownership.durable(tenure, offset + 1),
            }
        }
    }

    fn read(&mut self, slot: usize) {
        let (number, receiver) = self.place(slot);
        let process = &mut self.processes[number];
        let Ok(ticket) = process.ownership.may_open(receiver, &process.members) else { return };
        process.receivers[receiver].read = Some((ticket, self.kafka.read()));
        if process.receivers.len() == 1 {
            // One thread: nothing comes between.
            self.open(slot);
        }
    }

    fn read_doubt(&mut self, number: usize) {
        let process = &mut self.processes[number];
        let ticket = process.ownership.may_settle(&process.members);
        process.doubt_read = ticket.map(|ticket| (ticket, self.kafka.read()));
        if process.receivers.len() == 1 {
            self.settle(number);
        }
    }

    fn admit(&mut self, slot: usize) {
        let (process, _) = self.place(slot);
        let process = &mut self.processes[process];
        let (Some(fold), Some((_, tenure))) = (process.ownership.fold(), process.ownership.tenure()) else { return };
        let offset = fold.admitted;
        if process.ownership.admit(tenure, offset + 1) {
            process.tail.push(Entry::Block { tenure, offset });
        }
    }

    pub(super) fn open(&mut self, slot: usize) {
        let (process, number) = self.place(slot);
        let process = &mut self.processes[process];
        let Some((ticket, committed)) = process.receivers[number].read.take() else { return };
        match process.ownership.open(number, ticket, &committed, false, POLICY, None) {
            Opening::Open(opened) => process.append(opened.frames),
            Opening::ReadAgain => {}
            Opening::AskRange => self.halted = Some("the log lost acknowledged data".to_owned()),
            Opening::Hold(hold) => self.halted = Some(hold.to_string()),
            Opening::Await(gap) => self.halted = Some(gap.to_string()),
            Opening::Stop(stop) => self.halted = Some(stop.to_string()),
        }
    }

    pub(super) fn settle(&mut self, process: usize) {
        let process = &mut self.processes[process];
        let Some((ticket, committed)) = process.doubt_read.take() else { return };
        match process.ownership.settle(ticket, &committed) {
            Settled::Frames(frames) => process.append(frames),
            Settled::Not(Unsettled::NotYet) => {}
            Settled::Not(Unsettled::Hold(hold)) => self.halted = Some(hold.to_string()),
            Settled::Not(Unsettled::Stop(stop)) => self.halted = Some(stop.to_string()),
        }
    }

    pub(super) fn commit(&mut self, slot: usize) {
        let (process, number) = self.place(slot);
        let process = &mut self.processes[process];
        let Receiver { membership, out_of_turn, .. } = process.receivers[number];
        let commit = process.ownership.take_commit(number, Standing { membership, out_of_turn }, None);
        match (commit, membership) {
            (Ok(Commit::Send(order)), Some(sender)) => {
                self.kafka.network.push(Request { slot, sender, order, fate: Fate::Sent, awaited: true });
            }
            (Ok(Commit::Rejoin), _) => process.receivers[number].leaving = true,
            _ => {}
        }
    }
}
