//! The ownership protocol: which of a log's blocks are this WAL's to deliver, in a group whose broker checks member and
//! generation but not ownership, and where a refused commit may have been applied.
//!
//! Rules, by the names that [`rules::Rule`] gives them so that a test can take each one away:
//! - **`Fence`**: a durable block is delivered only when it is acknowledged by us: a confirmed commit of ours beyond
//!   it, or `acked[me]` beyond it on a later read. The fact is logged as `Confirmed`.
//! - **`OwnEntry`**, **`CarryOver`**: each commit carries `acked=<wal>:<to>,…`, all entries read at the assignment
//!   with our own replaced by the offset committed. Only `acked[me]` says how far our applied commits reach.
//! - **`ReadAtAssign`**: at each assignment, before fetching, the committed offset *c* and its metadata are read.
//!   Undecided blocks below `acked[me]` are ours.
//! - **`Adopt`**, **`AdoptWithoutHole`**, **`Disown`**: beyond `acked[me]` nothing was acknowledged: if it continues
//!   from *c* without a hole it becomes part of the new tenure, otherwise it is `Disowned` and fetching starts at *c*.
//! - **`SyncBeforeCommit`**, **`DurableBeforeCommit`**: those frames, with `Owned`, are synced before the first
//!   commit; only what is durable is committed.
//! - **`SettleUnowned`**, **`SettleAfterJoin`**: when not the owner, the same read settles all doubt, but only when no
//!   old commit of ours can still be applied: we joined in a newer generation (static: under a newer member id), or
//!   another WAL committed since our tenure opened.
//! - **`OneInFlight`**: one commit in flight; the next covers all that became durable meanwhile.
//! - **`UnansweredStops`**: after a timeout or a lost connection nothing more is committed in that generation: leave,
//!   rejoin, read.
//! - **`RefusedIsInDoubt`**, **`CommitAfterRefusal`**: a refusal is an answer but no proof; if still owned, commit
//!   again.
//! - **`OwnTenureOnly`**, **`OwnedOnly`**: what became durable for an older tenure never commits; only partitions in
//!   the member's owned set do, and the entry is removed before the client unassigns.
//! - **`OneHolder`**, **`AllJoined`**: with several receivers on one WAL a tenure opens only when no other receiver of
//!   it holds one on that partition and all have joined since their last tenure there.
//! - **`SameMember`**: a tenure commits only under the member id it was opened with. A client that lost its session
//!   while it was answering for some partitions joins as a new member with the tenures of the others still open; the
//!   broker would apply their commits over those of the owners in between.
//! - **`DurableBeforeOpen`**: a tenure opens only when all that was admitted before it is durable. The log drops what
//!   still waits for space of older tenures; nothing that may be dropped may be adopted. On a full log it is withdrawn instead of waited for: the space may have
//!   to come from this very tenure.
//! - **`NoCommitOutOfTurn`**: a client that gives a partition back by itself has answered the revocation that it has
//!   not heard of yet, and the group goes on: nothing is committed until that revocation is heard, nor for it.
//!
//! What the caller does, in the thread that runs the rebalance callbacks:
//! 1. Assign callback (also an empty one): [`Members::seen`]; per partition [`Ownership::may_open`], read,
//!    [`Ownership::open`]; append the frames, sync, [`Ownership::synced`]. Then [`Ownership::may_settle`] for every
//!    other partition with doubt.
//! 2. Running: [`Ownership::admit`] before each append, [`Ownership::durable`] after each sync,
//!    [`Ownership::take_commit`] with the client's [`Standing`] at that moment, [`Ownership::answered`].
//! 3. Revoke callback: [`Members::seen`], [`Ownership::revoke`], at most five seconds of 2 until
//!    [`Ownership::closed`], [`Members::seen`] again and [`Ownership::release`], then unassign. When the assignment
//!    was lost: the same without waiting, [`Revocation::TooLate`].
//!
//! Promises: pure state machines, explored exhaustively by `tests/ownership_model.rs`. Never: no time, no I/O.
//!
//! Assumed: the number of receivers of a WAL with static membership is lowered only after a clean stop.

pub mod fold;
pub mod members;
pub mod metadata;
mod ownership;
pub mod rules;
mod settle;

pub use fold::{Fold, Frame};
pub use members::{Members, Membership};
pub use metadata::{Acked, Metadata, MetadataError, WalId};
pub use ownership::Ownership;
pub use rules::{Rule, Rules};

use crate::kafka::gap::Gap;
use crate::kafka::start::{Hold, Start, Stop};
use crate::record::TopicId;

/// `fence`: what must be known before a durable block is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fence {
    /// That it is acknowledged by us.
    Commit,
    /// Nothing; for a single instance only, two of them double.
    None,
}

/// What is the same for the whole life of a partition's [`Ownership`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// This WAL.
    pub wal: WalId,
    /// The incarnation of the topic.
    pub topic: TopicId,
    /// `fence`.
    pub fence: Fence,
    /// [`Rules::all`].
    pub rules: Rules,
}

/// One read of the group's commit for a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Committed {
    /// There is none.
    None,
    /// Without Forebay's metadata.
    Foreign {
        /// The offset committed.
        offset: i64,
    },
    /// With Forebay's metadata.
    Ours {
        /// The offset committed.
        offset: i64,
        /// The words stored with it.
        metadata: Metadata,
    },
    /// With metadata of Forebay's that this version can't read.
    Unreadable {
        /// The offset committed.
        offset: i64,
        /// Why.
        error: MetadataError,
    },
}

impl Committed {
    /// What the coordinator answered.
    pub fn read(offset: Option<i64>, metadata: &[u8]) -> Self {
        let Some(offset) = offset else { return Self::None };
        match Metadata::parse(metadata) {
            Ok(None) => Self::Foreign { offset },
            Ok(Some(metadata)) => Self::Ours { offset, metadata },
            Err(error) => Self::Unreadable { offset, error },
        }
    }

    /// The offset committed.
    pub fn offset(&self) -> Option<i64> {
        match self {
            Self::None => None,
            Self::Foreign { offset } | Self::Ours { offset, .. } | Self::Unreadable { offset, .. } => Some(*offset),
        }
    }

    /// The WAL that committed last.
    pub fn committer(&self) -> Option<WalId> {
        match self {
            Self::Ours { metadata, .. } => Some(metadata.wal),
            _ => None,
        }
    }
}

/// The right to use one read; get it before reading. A read made before another tenure opened is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    tenure: u32,
    safe: bool,
    /// The member id before the read; a tenure opened with it commits under no other.
    member: Option<u64>,
}

impl Ticket {
    /// For model checking: renames memberships, so that equal situations become equal states.
    #[doc(hidden)]
    pub fn rename(&mut self, name: impl Fn(Membership) -> Membership) {
        self.member = self.member.map(|member| name(Membership { member, generation: 0 }).member);
    }
}

/// Why a tenure can't open yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wait {
    /// Another receiver of this WAL has not let go.
    #[error("receiver {receiver} of this WAL still holds the partition")]
    Held {
        /// Which.
        receiver: usize,
    },
    /// A commit of an older tenure could still be applied.
    #[error("receiver {receiver} of this WAL has not joined the group since its last tenure")]
    NotJoined {
        /// Whose.
        receiver: usize,
    },
    /// Something admitted before still waits to be durable.
    #[error("offsets [{first}, {next}) admitted before are not durable yet")]
    NotDurable {
        /// How far what was admitted is durable.
        first: i64,
        /// What was admitted.
        next: i64,
    },
}

/// A tenure that opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its number.
    pub tenure: u32,
    /// To append in this order and to sync: `Confirmed`, `Disowned`, `Owned`, `Gap` as needed.
    pub frames: Vec<Frame>,
    /// The offset from which this tenure commits.
    pub first: i64,
    /// Where to begin fetching.
    pub fetch: i64,
    /// Which row of the start table applied; `Kafka`, `FetchAgain` and `Incarnation` are events to report.
    pub start: Start,
}

/// The answer to an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A tenure is open.
    Open(Opened),
    /// Ask Kafka for the partition's range and call again.
    AskRange,
    /// Another tenure opened since the ticket: begin again.
    ReadAgain,
    /// The partition stays idle until an operator decides.
    Hold(Hold),
    /// Kafka's end lies before the start: log the gap once, and call again until it no longer does.
    Await(Gap),
    /// The partition stops.
    Stop(Stop),
}

/// A commit to send.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    /// The tenure it belongs to; give it back with the answer.
    pub tenure: u32,
    /// The offset.
    pub next: i64,
    /// Its words; [`Metadata::encode`] does not fail on them.
    pub metadata: Metadata,
}

/// How the client stands in the group when a commit is about to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// Its membership; `None` while it has none.
    pub membership: Option<Membership>,
    /// It gave partitions back by itself and has not heard since whether that answered a revocation.
    pub out_of_turn: bool,
}

/// Is there something to commit?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// No, or not now.
    NotDue,
    /// This.
    Send(Order),
    /// The client is another member by now, and the tenure commits no more: leave the group and join anew.
    Rejoin,
}

/// How a partition is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// The group waits until the client unassigns.
    InTurn,
    /// The partition may be someone else's already.
    TooLate,
}

impl Revocation {
    /// `lost`: the client is no member any more; `out_of_turn` as in [`Standing`].
    pub fn judge(lost: bool, out_of_turn: bool) -> Self {
        if lost || out_of_turn { Self::TooLate } else { Self::InTurn }
    }
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Confirmed.
    Applied,
    /// The coordinator said no: illegal generation, unknown member, rebalance in progress, not the coordinator, and
    /// every other error that a broker answers with before it writes. An earlier copy of the request may be applied.
    Refused,
    /// Nothing is known and it may still be applied: a timeout, a lost connection, and the errors a broker answers with
    /// after it began to write (coordinator not available, request timed out).
    Unanswered,
}

/// What follows from an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// To append; they ride the next sync.
    pub frames: Vec<Frame>,
    /// Leave the group and join anew. With static membership that takes a new client: leaving does not happen there and
    /// the member id would stay.
    pub rejoin: bool,
    /// Stop the partition.
    pub stop: Option<Stop>,
}

/// The answer to a read by a WAL that does not own the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// All doubt is settled; append the frames, they ride the next sync.
    Frames(Vec<Frame>),
    /// It is not.
    Not(Unsettled),
}

/// Why doubt remains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsettled {
    /// An old commit might still be applied, or the partition is owned again.
    NotYet,
    /// An operator has to decide.
    Hold(Hold),
    /// The partition stops.
    Stop(Stop),
}

#[cfg(test)]
mod tests;
