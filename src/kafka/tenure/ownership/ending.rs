//! How a tenure ends: revoked, closed, released; and what it left, withdrawn.
//!
//! Promises: nothing is admitted after the first step and nothing is committed after the last.

use super::super::members::{Members, Past};
use super::super::{Revocation, Rule};
use super::{Ownership, Phase};

impl Ownership {
    /// The partition is being taken away: nothing more is admitted. Make durable, await the answer, commit once more,
    /// all within five seconds, until [`Ownership::closed`]; then [`Ownership::release`], before the client unassigns.
    /// When it is too late for that the tenure is closed at once.
    pub fn revoke(&mut self, receiver: usize, revocation: Revocation) {
        let rules = self.settings.rules;
        if let Some(holder) = self.holder.as_mut().filter(|holder| holder.receiver == receiver) {
            holder.phase = Phase::Closing;
            holder.mute |= revocation == Revocation::TooLate && rules.hold(Rule::NoCommitOutOfTurn);
        }
    }

    /// True when a revoked tenure has nothing left to wait for.
    pub fn closed(&self, receiver: usize) -> bool {
        let Some(holder) = self.held().filter(|holder| holder.receiver == receiver) else { return true };
        let durable = self.log.is_none_or(|log| holder.durable.is_some_and(|durable| durable >= log.admitted));
        holder.mute || (durable && holder.in_flight.is_none() && self.due(receiver).is_none())
    }

    /// The tenure is over; what is not known to be applied is in doubt. [`Members::seen`] comes right before. True: a
    /// commit of it may still be applied, and only a newer membership of this receiver ends that doubt. A revocation in
    /// turn leads to one; where nothing else does, leave and join anew.
    pub fn release(&mut self, receiver: usize, members: &Members) -> bool {
        let rules = self.settings.rules;
        let Some(holder) = self.holder.as_mut().filter(|holder| holder.receiver == receiver) else { return false };
        if holder.offered {
            let now = members.of(receiver);
            let older = now.is_some_and(|now| holder.member.is_some_and(|member| member != now.member));
            // It was sent by a member that is no more.
            let past = if older && rules.hold(Rule::SameMember) { Past::Clear } else { Past::after(now) };
            self.past[receiver] = past;
            self.left = holder.in_flight.map(|next| (receiver, holder.tenure, next));
        }
        holder.released = true;
        if rules.hold(Rule::OwnedOnly) {
            self.holder = None;
        }
        !self.past[receiver].is_over(members.of(receiver))
    }

    /// What was admitted and is not durable was withdrawn from the log and never will be; Kafka still has it. While
    /// nobody here holds the partition.
    pub fn withdrawn(&mut self) {
        let durable = self.durable;
        if let Some(log) = self.log.as_mut().filter(|_| self.holder.is_none()) {
            log.admitted = log.admitted.min(durable);
        }
    }
}
