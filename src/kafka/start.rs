//! Where does an assigned partition start? The table of answers apart from the ownership protocol, as one pure, total
//! function of what the log, the group's commit and the settings say.
//!
//! | the log | the group's commit | start |
//! |---|---|---|
//! | any | unreadable metadata of ours | hold |
//! | any | another incarnation of the topic | 0 |
//! | unknown | ours, without an entry of this WAL | the protocol |
//! | unknown | ours, with an entry of this WAL | stop: the log lost what that entry acknowledges |
//! | knows it | ours, `acked[me]` beyond the log's next | fetched again if that is the commit and Kafka has it, else stop |
//! | knows it | ours, `acked[me]` below what the log knows, or the commit below an entry | hold, `kafka`: the commit |
//! | knows it | ours | the protocol |
//! | knows it, no commit of Forebay's seen yet | none, or the foreign one it began at | the log's next |
//! | knows it | foreign | `hold`, `log`: the log's next, `kafka`: the commit |
//! | knows it | none | the only instance: the log's next, else hold |
//! | unknown, knew another incarnation | foreign or none | 0 |
//! | unknown | foreign | the commit |
//! | unknown | none | the configured start |
//!
//! Promises: nothing is skipped without a [`Start::Kafka`] that an operator asked for; every hold and stop names its
//! numbers. Never: it asks no broker; where Kafka's own range is needed it answers [`Start::AskRange`].

use super::gap::{Gap, OnGap};
use super::tenure::metadata::MetadataError;

/// What the log knows of this incarnation of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogView {
    /// Next offset to admit.
    pub next: i64,
    /// The highest offset of ours known to be applied.
    pub acked: Option<i64>,
    /// Where the last tenure opened, if it opened without a commit of Forebay's and none of ours is known to be applied
    /// since: a crash then must not look like a group that was deleted or set back.
    pub unclaimed: Option<i64>,
}

/// The group's commit for the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// There is none.
    None,
    /// Without Forebay's metadata.
    Foreign {
        /// The offset committed.
        offset: i64,
    },
    /// With Forebay's metadata for this incarnation of the topic.
    Ours {
        /// The offset committed.
        offset: i64,
        /// This WAL's entry.
        acked: Option<i64>,
        /// The highest entry of any WAL.
        highest: Option<i64>,
    },
    /// With Forebay's metadata for another incarnation of the topic.
    OtherTopic,
    /// With metadata that begins as Forebay's and can't be read.
    Unreadable(MetadataError),
}

/// What Kafka has of the partition: `[first, next)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First offset available.
    pub first: i64,
    /// The end of the log.
    pub next: i64,
}

/// Where to start when neither the log nor the group knows the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// Kafka's first offset; also for partitions that appear later.
    Earliest,
    /// Kafka's end.
    Latest,
    /// This offset.
    Offset(i64),
}

/// `on_foreign_commit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnForeign {
    /// Do nothing until an operator decides.
    Hold,
    /// Go on where the log ends.
    Log,
    /// Go on at the commit.
    Kafka,
}

/// The settings that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `start`.
    pub start: StartAt,
    /// `on_foreign_commit`.
    pub on_foreign: OnForeign,
    /// True when this WAL is the group's only instance.
    pub sole: bool,
    /// `on_gap`.
    pub on_gap: OnGap,
}

/// Everything the answer depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `None`: the log does not know this incarnation of the partition.
    pub log: Option<LogView>,
    /// The log knows an earlier incarnation of the topic, with this partition.
    pub former: bool,
    /// The group's commit.
    pub group: Group,
    /// Kafka's range, if it was asked.
    pub range: Option<Range>,
    /// Settings.
    pub policy: Policy,
}

/// Where to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// As the ownership protocol says.
    Protocol,
    /// At the log's next; what the log holds undelivered is this WAL's own.
    Log,
    /// At a commit that is not Forebay's; the log does not know the partition.
    Commit(i64),
    /// At the group's commit, because the operator said so; the log knew the partition.
    Kafka(i64),
    /// At the configured start, resolved to a number.
    Configured(i64),
    /// At 0: the topic was deleted and created again.
    Incarnation,
    /// The log lost `[first, next)`, which this WAL acknowledged; Kafka still has it. An event.
    FetchAgain {
        /// The log's next.
        first: i64,
        /// `acked[me]`, which is also the group's commit.
        next: i64,
    },
    /// Ask again with [`Question::range`].
    AskRange,
    /// Not at all, until an operator decides.
    Hold(Hold),
    /// Not at all: something is lost.
    Stop(Stop),
}

/// Why a partition is held. Nothing is lost; an operator decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Hold {
    /// Someone else's commit.
    #[error(
        "the log ends at {log}, the group's commit {commit} is not Forebay's; \
         set on_foreign_commit to \"log\" or \"kafka\""
    )]
    Foreign {
        /// The log's next.
        log: i64,
        /// The commit.
        commit: i64,
    },
    /// The group has no commit, and other instances may have been at work.
    #[error("the log ends at {log}, the group has no commit; with instances = 1 the log's position is used")]
    NoCommit {
        /// The log's next.
        log: i64,
    },
    /// The commit's metadata does not know commits of this WAL that are known to be applied.
    #[error(
        "this log's commits reached {log}, the group's commit {commit} knows of {known:?}; it was set back or rewritten"
    )]
    Forgotten {
        /// How far this WAL's commits reached.
        log: i64,
        /// The commit.
        commit: i64,
        /// This WAL's entry.
        known: Option<i64>,
    },
    /// The commit lies below what a WAL acknowledged.
    #[error("the group's commit {commit} lies below {acked}, which a WAL of the group acknowledged; it was set back")]
    Below {
        /// The commit.
        commit: i64,
        /// The entry beyond it.
        acked: i64,
    },
    /// Metadata of another version, or malformed.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Kafka no longer has the start, and the policy is to wait.
    #[error("{0}; kafka.on_gap is \"pause\"")]
    Gap(Gap),
}

/// What can't be vouched for. The partition stops, naming the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Stop {
    /// The log lost acknowledged data that can't be fetched again by itself.
    #[error("the log lost acknowledged data, offsets [{first}, {next})")]
    LostAcknowledged {
        /// The log's next.
        first: i64,
        /// `acked[me]`.
        next: i64,
    },
    /// The group knows acknowledged data of this WAL, the log does not know the partition.
    #[error("the log does not know the partition although this WAL acknowledged offsets up to {next}")]
    LostPartition {
        /// `acked[me]`.
        next: i64,
    },
    /// Kafka no longer has what comes next, or has it anew, and the policy is to stop.
    #[error("{0}; kafka.on_gap = \"skip\" goes on without them")]
    Gap(Gap),
    /// A commit was confirmed for blocks that had been disowned: a rule of the protocol was broken.
    #[error("offsets [{first}, {next}) were disowned and a commit of this WAL for them was applied")]
    DisownedApplied {
        /// First offset disowned.
        first: i64,
        /// The offset committed.
        next: i64,
    },
}

/// Answers by the table of this module's page. Whether Kafka still has the start is
/// [`super::gap::decide`]'s question.
pub fn decide(question: &Question) -> Start {
    let Question { log, former, group, policy, .. } = question;
    match (log, group) {
        (_, Group::Unreadable(error)) => Start::Hold(Hold::Metadata(error.clone())),
        (_, Group::OtherTopic) => Start::Incarnation,
        (None, Group::Ours { acked: None, .. }) => Start::Protocol,
        (None, Group::Ours { acked: Some(next), .. }) => Start::Stop(Stop::LostPartition { next: *next }),
        (Some(log), Group::Ours { offset, acked, highest }) => ours(question, *log, *offset, *acked, *highest),
        (Some(LogView { unclaimed: Some(_), .. }), Group::None) => Start::Log,
        (Some(log), Group::Foreign { offset }) if log.unclaimed == Some(*offset) => Start::Log,
        (Some(log), Group::Foreign { offset }) => match policy.on_foreign {
            OnForeign::Hold => Start::Hold(Hold::Foreign { log: log.next, commit: *offset }),
            OnForeign::Log => Start::Log,
            OnForeign::Kafka => Start::Kafka(*offset),
        },
        (Some(_), Group::None) if policy.sole => Start::Log,
        (Some(log), Group::None) => Start::Hold(Hold::NoCommit { log: log.next }),
        (None, Group::Foreign { .. } | Group::None) if *former => Start::Incarnation,
        (None, Group::Foreign { offset }) => Start::Commit(*offset),
        (None, Group::None) => configured(policy.start, question.range),
    }
}

fn ours(question: &Question, log: LogView, commit: i64, acked: Option<i64>, highest: Option<i64>) -> Start {
    if let Some(next) = acked.filter(|acked| *acked > log.next) {
        return lost(question.range, log.next, next, commit);
    }
    let held = match (log.acked, highest) {
        (Some(log), _) if acked.is_none_or(|known| known < log) => Hold::Forgotten { log, commit, known: acked },
        (_, Some(acked)) if commit < acked => Hold::Below { commit, acked },
        _ => return Start::Protocol,
    };
    if question.policy.on_foreign == OnForeign::Kafka { Start::Kafka(commit) } else { Start::Hold(held) }
}

fn lost(range: Option<Range>, first: i64, next: i64, commit: i64) -> Start {
    match range {
        None if commit == next => Start::AskRange,
        Some(range) if commit == next && range.first <= first && range.next >= next => {
            Start::FetchAgain { first, next }
        }
        _ => Start::Stop(Stop::LostAcknowledged { first, next }),
    }
}

fn configured(start: StartAt, range: Option<Range>) -> Start {
    match (start, range) {
        (StartAt::Offset(offset), _) => Start::Configured(offset),
        (_, None) => Start::AskRange,
        (StartAt::Earliest, Some(range)) => Start::Configured(range.first),
        (StartAt::Latest, Some(range)) => Start::Configured(range.next),
    }
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
