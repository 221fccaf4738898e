//! The receivers of one WAL as members of the group: who has joined since when.
//!
//! A commit carries the member id and generation of its sender; the coordinator applies it only while both are current.
//! So a receiver that has joined in a newer generation, or (static membership) under a newer member id, has no older
//! commit left that could still be applied.

use std::hash::{DefaultHasher, Hash, Hasher};

/// One membership, as the client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Membership {
    /// Stands for the member id.
    pub member: u64,
    /// The group's generation.
    pub generation: i32,
}

impl Membership {
    /// The membership of this member id and generation; `None` while the client has none (no id or no generation).
    pub fn new(member_id: &str, generation: i32) -> Option<Self> {
        let mut hasher = DefaultHasher::new();
        member_id.hash(&mut hasher);
        let member = hasher.finish();
        (generation >= 0 && !member_id.is_empty()).then_some(Self { member, generation })
    }

    /// True when no commit sent as `older`, which was current earlier, can be applied any more.
    pub fn supersedes(self, older: Self) -> bool {
        self.member != older.member || self.generation > older.generation
    }
}

/// The latest membership of every receiver of one WAL, shared by all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Members {
    latest: Vec<Option<Membership>>,
}

impl Members {
    /// None of the receivers has joined yet.
    pub fn new(receivers: usize) -> Self {
        Self { latest: vec![None; receivers] }
    }

    /// Call first thing in every rebalance callback (assign, also an empty one, and revoke) and again right before
    /// each [`super::Ownership::release`], with the client's membership at that moment: a commit is never sent under a
    /// newer one than was seen when its tenure ended. A client that has just lost its membership has none: nothing is
    /// noted then.
    pub fn seen(&mut self, receiver: usize, membership: Option<Membership>) {
        self.latest[receiver] = membership.or(self.latest[receiver]);
    }

    /// The latest membership of a receiver; `None` before it first joined.
    pub fn of(&self, receiver: usize) -> Option<Membership> {
        self.latest[receiver]
    }

    /// For model checking: renames memberships, so that equal situations become equal states.
    #[doc(hidden)]
    pub fn rename(&mut self, name: impl Fn(Membership) -> Membership) {
        self.latest.iter_mut().flatten().for_each(|membership| *membership = name(*membership));
    }
}

/// What must have happened before a receiver's old commits are out of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Past {
    /// Nothing: it has no old commit here.
    Clear,
    /// It must join: an earlier life of the process may have sent one.
    EarlierLife,
    /// It must join anew after this.
    Member(Membership),
}

impl Past {
    /// After a commit sent at the latest under this membership.
    pub(super) fn after(last: Option<Membership>) -> Self {
        last.map_or(Self::EarlierLife, Self::Member)
    }

    pub(super) fn is_over(self, now: Option<Membership>) -> bool {
        match self {
            Self::Clear => true,
            Self::EarlierLife => now.is_some(),
            Self::Member(then) => now.is_some_and(|now| now.supersedes(then)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_newer_generation_or_another_member_id_puts_old_commits_out_of_the_way() {
        let then = Membership::new("a", 5).unwrap();
        let over = |now| Past::Member(then).is_over(now);
        assert!(!over(None));
        assert!(!over(Some(then)));
        assert!(!over(Membership::new("a", 4)));
        assert!(over(Membership::new("a", 6)));
        assert!(over(Membership::new("b", 5)), "static membership: same generation, newer id");
        assert!(Past::Clear.is_over(None));
        assert!(!Past::EarlierLife.is_over(None));
        assert!(Past::EarlierLife.is_over(Some(then)));
    }

    #[test]
    fn a_client_without_a_membership_tells_nothing() {
        assert_eq!(Membership::new("", 3), None);
        assert_eq!(Membership::new("a", -1), None);
        let mut members = Members::new(1);
        members.seen(0, Membership::new("a", 5));
        members.seen(0, None);
        assert_eq!(members.of(0), Membership::new("a", 5));
    }
}
