//! The rules of the ownership protocol by name, so that a test can take one away and watch the loss.
//!
//! Promises: outside tests and the demo's unprotected run, every rule is in force.

/// One rule of the protocol; see the module page of [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Rule {
    /// A durable block is delivered only when it is acknowledged by us.
    Fence,
    /// `acked[me]`, not the committed offset, says what of ours is acknowledged.
    OwnEntry,
    /// A committer carries over the entries of all other WALs.
    CarryOver,
    /// At each assignment, before fetching, the committed offset and its metadata decide where to start.
    ReadAtAssign,
    /// Undecided blocks that continue from the commit are adopted. Spares fetching them again; safety does not hang on
    /// it.
    Adopt,
    /// Undecided blocks are adopted only if they continue from the commit without a hole.
    AdoptWithoutHole,
    /// Undecided blocks that are not adopted are disowned.
    Disown,
    /// Doubt is settled by the same read when this WAL is not the owner.
    SettleUnowned,
    /// A read settles doubt only when no old commit of ours can still be applied.
    SettleAfterJoin,
    /// `Owned` is synced before the first commit.
    SyncBeforeCommit,
    /// Only what is durable is committed.
    DurableBeforeCommit,
    /// One commit in flight.
    OneInFlight,
    /// After an unanswered commit nothing more is committed in that generation: leave, rejoin, read.
    UnansweredStops,
    /// A refusal does not prove that the commit was not applied.
    RefusedIsInDoubt,
    /// After a refusal, if still owned, commit again.
    CommitAfterRefusal,
    /// What became durable for an older tenure never commits.
    OwnTenureOnly,
    /// Only partitions in the member's owned set are committed.
    OwnedOnly,
    /// A tenure opens only when no other receiver of the WAL holds one on that partition.
    OneHolder,
    /// A tenure opens only when all receivers of the WAL have joined since their last tenure there.
    AllJoined,
    /// A tenure commits only under the member id that it was opened with.
    SameMember,
    /// A tenure opens only when all that was admitted before it is durable.
    DurableBeforeOpen,
    /// Nothing is committed for a revocation that was answered before it was heard of.
    NoCommitOutOfTurn,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 22] = [
        Self::Fence,
        Self::OwnEntry,
        Self::CarryOver,
        Self::ReadAtAssign,
        Self::Adopt,
        Self::AdoptWithoutHole,
        Self::Disown,
        Self::SettleUnowned,
        Self::SettleAfterJoin,
        Self::SyncBeforeCommit,
        Self::DurableBeforeCommit,
        Self::OneInFlight,
        Self::UnansweredStops,
        Self::RefusedIsInDoubt,
        Self::CommitAfterRefusal,
        Self::OwnTenureOnly,
        Self::OwnedOnly,
        Self::OneHolder,
        Self::AllJoined,
        Self::SameMember,
        Self::DurableBeforeOpen,
        Self::NoCommitOutOfTurn,
    ];
}

/// Which rules are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    off: u32,
}

impl Rules {
    /// All of them: the only value for data that matters.
    pub const fn all() -> Self {
        Self { off: 0 }
    }

    /// For tests: all but these.
    #[doc(hidden)]
    pub fn broken_on_purpose(without: &[Rule]) -> Self {
        Self { off: without.iter().fold(0, |off, rule| off | 1 << *rule as u32) }
    }

    /// For the demo's unprotected run: start at the committed offset whatever the log says, deliver without asking.
    #[doc(hidden)]
    pub fn unprotected() -> Self {
        Self::broken_on_purpose(&[Rule::Fence, Rule::Adopt, Rule::Disown])
    }

    /// True when the rule is in force.
    pub const fn hold(self, rule: Rule) -> bool {
        self.off & (1 << rule as u32) == 0
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_can_be_taken_away_alone() {
        for (at, rule) in Rule::ALL.iter().enumerate() {
            assert_eq!(*rule as usize, at);
            let rules = Rules::broken_on_purpose(&[*rule]);
            assert!(Rule::ALL.iter().all(|other| rules.hold(*other) == (other != rule)));
        }
        assert!(Rule::ALL.iter().all(|rule| Rules::default().hold(*rule)));
    }
}
