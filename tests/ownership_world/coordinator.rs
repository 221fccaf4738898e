//! The coordinator as kafka.md found it: it checks the member and the generation of a commit, not who owns the
//! partition.

use forebay::kafka::tenure::{Committed, Membership, Metadata, Order};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Fate {
    Sent,
    Applied,
    Refused,
}

/// A commit on its way to the coordinator, or its result on the way back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) slot: usize,
    pub(super) sender: Membership,
    pub(super) order: Order,
    pub(super) fate: Fate,
    /// The client still waits for the result.
    pub(super) awaited: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Coordinator {
    pub(super) generation: i32,
    pub(super) last_member: u64,
    /// The member id of each slot that is in the group.
    pub(super) members: Vec<Option<u64>>,
    pub(super) owner: Option<usize>,
    /// The owner is being asked to let go.
    pub(super) moving: bool,
    pub(super) committed: Option<(i64, Metadata)>,
    pub(super) network: Vec<Request>,
}

impl Coordinator {
    pub(super) fn is_member(&self, slot: usize, membership: Option<Membership>) -> bool {
        membership.is_some_and(|membership| self.members[slot] == Some(membership.member))
    }

    pub(super) fn new_member(&mut self, slot: usize) {
        self.last_member += 1;
        self.members[slot] = Some(self.last_member);
    }

    /// A new generation: members that do not answer are dropped, the partition stays where it is if it can.
    pub(super) fn rebalance(&mut self, present: &[bool]) {
        self.generation += 1;
        for (member, present) in self.members.iter_mut().zip(present) {
            *member = member.filter(|_| *present);
        }
        if self.owner.is_none_or(|owner| self.members[owner].is_none()) {
            self.hand_over();
        }
    }

    /// The partition goes to the next member in turn, the owner itself last.
    pub(super) fn hand_over(&mut self) {
        let slots = self.members.len();
        let before = self.owner.unwrap_or(slots - 1);
        let turn = (1..=slots).map(|step| (before + step) % slots);
        self.owner = turn.into_iter().find(|slot| self.members[*slot].is_some());
        self.moving = false;
    }

    /// A member that let go joins again; only then another one is given the partition (the cooperative protocol).
    pub(super) fn let_go(&mut self, slot: usize, present: &[bool]) {
        if self.owner == Some(slot) && self.moving {
            self.hand_over();
            self.rebalance(present);
        }
    }

    pub(super) fn accepts(&self, request: &Request) -> bool {
        self.generation == request.sender.generation && self.is_member(request.slot, Some(request.sender))
    }

    pub(super) fn apply(&mut self, request: usize) {
        let Order { next, metadata, .. } = self.network[request].order.clone();
        self.committed = Some((next, metadata));
    }

    pub(super) fn read(&self) -> Committed {
        match &self.committed {
            None => Committed::None,
            Some((offset, metadata)) => Committed::Ours { offset: *offset, metadata: metadata.clone() },
        }
    }
}
