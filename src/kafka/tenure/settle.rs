//! What one read of the committed offset and its metadata decides about the blocks in doubt.
//!
//! Pure functions. `acked[me]` divides the doubt: below it the blocks are ours, beyond it nothing was acknowledged by
//! us. What lies beyond is adopted where a tenure opens exactly there, and disowned otherwise.

use super::fold::Fold;
use super::rules::{Rule, Rules};
use super::{Committed, Fence};
use crate::kafka::start::{Group, Start};
use crate::record::TopicId;

/// What to log and where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// A commit of ours up to here is applied and the log does not know it yet.
    pub confirm: Option<i64>,
    /// What to give up.
    pub disown: Option<(i64, i64)>,
    /// Where the tenure begins.
    pub first: i64,
    /// Where fetching begins.
    pub next: i64,
    /// The group's commit that this tenure builds on; `None`: there is none of Forebay's, so one is due at once.
    pub committed: Option<i64>,
}

/// What a read says, as the owner's start sees it.
pub(super) fn group(committed: &Committed, topic: TopicId, me: super::WalId) -> Group {
    match committed {
        Committed::None => Group::None,
        Committed::Foreign { offset } => Group::Foreign { offset: *offset },
        Committed::Unreadable { error, .. } => Group::Unreadable(error.clone()),
        Committed::Ours { metadata, .. } if differ(metadata.topic, topic) => Group::OtherTopic,
        Committed::Ours { offset, metadata } => {
            Group::Ours { offset: *offset, acked: metadata.acked.get(me), highest: metadata.acked.highest() }
        }
    }
}

fn differ(a: TopicId, b: TopicId) -> bool {
    a != b && !a.is_none() && !b.is_none()
}

/// The plan of an assignment; `None` when `start` opens nothing. `commit` is the offset read and `acked[me]`.
pub(super) fn assigned(
    log: Option<&Fold>,
    start: &Start,
    commit: (i64, Option<i64>),
    rules: Rules,
    fence: Fence,
) -> Option<Plan> {
    let at = |offset| Plan { confirm: None, disown: None, first: offset, next: offset, committed: None };
    match (start, log) {
        (Start::Protocol, None) => Some(Plan { committed: Some(commit.0), ..at(commit.0) }),
        (Start::Protocol, Some(log)) => Some(protocol(log, commit, rules, fence)),
        // A known incarnation began here already; the first commit of it has not been applied yet.
        (Start::Log | Start::Incarnation, Some(log)) => Some(Plan { committed: None, ..as_logged(log) }),
        (Start::Kafka(offset), Some(log)) => {
            // What this WAL acknowledged it delivers; a commit set back below that fetches nothing twice.
            let offset = log.acked.map_or(*offset, |acked| acked.max(*offset));
            Some(Plan { committed: None, ..protocol(log, (offset, log.acked), rules, fence) })
        }
        (Start::Commit(offset) | Start::Configured(offset) | Start::Kafka(offset), _) => Some(at(*offset)),
        (Start::Incarnation, None) => Some(at(0)),
        (Start::FetchAgain { first, next }, _) => {
            // The commit stays where it is: what is fetched again was acknowledged before.
            Some(Plan { confirm: Some(*next), committed: Some(*next), ..at(*first) })
        }
        (Start::Log, None) | (Start::AskRange | Start::Hold(_) | Start::Stop(_), _) => None,
    }
}

/// The log's own position: everything in doubt is adopted.
fn as_logged(log: &Fold) -> Plan {
    let first = log.doubt().map_or(log.admitted, |(first, _)| first);
    Plan { confirm: None, disown: None, first, next: log.admitted, committed: None }
}

fn protocol(log: &Fold, (commit, acked): (i64, Option<i64>), rules: Rules, fence: Fence) -> Plan {
    if !rules.hold(Rule::ReadAtAssign) {
        return Plan { committed: Some(commit), ..as_logged(log) };
    }
    let acked = if rules.hold(Rule::OwnEntry) { acked } else { Some(commit.min(log.admitted)) };
    let (confirm, rest) = divided(log, acked);
    let plan = Plan { confirm, disown: None, first: commit, next: commit, committed: Some(commit) };
    let Some((first, next)) = rest else {
        return if fence == Fence::None { Plan { next: commit.max(log.admitted), ..plan } } else { plan };
    };
    let adopt = rules.hold(Rule::Adopt) && (first == commit || !rules.hold(Rule::AdoptWithoutHole));
    if fence == Fence::None {
        // Without a fence it may be delivered already: nothing can be given up.
        Plan { first: commit.min(first), next: commit.max(next), ..plan }
    } else if adopt {
        Plan { first, next, ..plan }
    } else {
        Plan { disown: rest.filter(|_| rules.hold(Rule::Disown)), ..plan }
    }
}

/// Divides the doubt by `acked[me]`: how far to confirm, and what stays beyond.
pub(super) fn divided(log: &Fold, acked: Option<i64>) -> (Option<i64>, Option<(i64, i64)>) {
    let confirm = acked.filter(|to| log.acked.is_none_or(|known| known < *to));
    let mut after = *log;
    if let Some(to) = confirm {
        after.confirm(to);
    }
    (confirm, after.doubt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tenure 1 began at 10, its commits are known up to 20, and `[20, 30)` is in doubt.
    const LOG: Fold = Fold { tenure: 1, admitted: 30, acked: Some(20), undecided: 10, seen: true };

    fn plan(commit: i64, acked: Option<i64>, fence: Fence) -> Plan {
        assigned(Some(&LOG), &Start::Protocol, (commit, acked), Rules::all(), fence).unwrap()
    }

    #[test]
    fn what_our_applied_commit_covers_is_ours_the_rest_is_adopted_or_disowned() {
        let base = Plan { confirm: None, disown: None, first: 0, next: 0, committed: None };
        let rows = [
            // Not applied, nobody went on: adopted.
            ((20, Some(20)), Plan { first: 20, next: 30, ..base }),
            // Applied, the answer lost: ours.
            ((30, Some(30)), Plan { confirm: Some(30), first: 30, next: 30, ..base }),
            // Applied in part, nobody went on.
            ((25, Some(25)), Plan { confirm: Some(25), first: 25, next: 30, ..base }),
            // Applied in part, then another WAL went on.
            ((40, Some(25)), Plan { confirm: Some(25), disown: Some((25, 30)), first: 40, next: 40, ..base }),
            // Not applied, another WAL went on: inside, at the end and beyond.
            ((25, Some(20)), Plan { disown: Some((20, 30)), first: 25, next: 25, ..base }),
            ((30, Some(20)), Plan { disown: Some((20, 30)), first: 30, next: 30, ..base }),
            ((40, Some(20)), Plan { disown: Some((20, 30)), first: 40, next: 40, ..base }),
            // All of ours applied, another WAL went on.
            ((40, Some(30)), Plan { confirm: Some(30), first: 40, next: 40, ..base }),
        ];
        for ((commit, acked), expected) in rows {
            let expected = Plan { committed: Some(commit), ..expected };
            assert_eq!(plan(commit, acked, Fence::Commit), expected, "commit {commit}, acked {acked:?}");
        }
    }

    #[test]
    fn without_a_fence_nothing_is_given_up_and_nothing_is_fetched_twice() {
        for (commit, acked, next) in [(20, 20, 30), (25, 20, 30), (40, 20, 40), (30, 30, 30)] {
            let plan = plan(commit, Some(acked), Fence::None);
            assert_eq!((plan.disown, plan.next), (None, next), "{commit}");
        }
    }

    #[test]
    fn an_operators_commit_disowns_but_never_undoes_what_was_acknowledged() {
        let plan = |offset| assigned(Some(&LOG), &Start::Kafka(offset), (offset, None), Rules::all(), Fence::Commit);
        let ahead = Plan { confirm: None, disown: Some((20, 30)), first: 50, next: 50, committed: None };
        assert_eq!(plan(50), Some(ahead));
        let back = Plan { confirm: None, disown: None, first: 20, next: 30, committed: None };
        assert_eq!(plan(5), Some(back));
    }

    #[test]
    fn the_logs_position_keeps_all_of_it() {
        let plan = assigned(Some(&LOG), &Start::Log, (0, None), Rules::all(), Fence::Commit);
        assert_eq!(plan, Some(Plan { confirm: None, disown: None, first: 20, next: 30, committed: None }));
    }

    #[test]
    fn a_new_incarnation_that_the_log_knows_goes_on_from_the_log() {
        let plan = |log: Option<&Fold>| assigned(log, &Start::Incarnation, (70, None), Rules::all(), Fence::Commit);
        let base = Plan { confirm: None, disown: None, first: 0, next: 0, committed: None };
        assert_eq!(plan(None), Some(base));
        assert_eq!(plan(Some(&LOG)), Some(Plan { first: 20, next: 30, ..base }));
    }

    #[test]
    fn lost_data_is_fetched_from_the_logs_next_and_the_commit_stays() {
        let log = Fold { admitted: 15, acked: Some(10), ..LOG };
        let start = Start::FetchAgain { first: 15, next: 20 };
        let plan = assigned(Some(&log), &start, (20, Some(20)), Rules::all(), Fence::Commit);
        let expected = Plan { confirm: Some(20), disown: None, first: 15, next: 15, committed: Some(20) };
        assert_eq!(plan, Some(expected));
    }
}
