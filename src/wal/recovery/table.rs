//! The recovery table: what a damaged place means. Pure and total.
//!
//! *Proven* = the bytes were durable once: below the end a successor declares, below `built_end`, or a later frame of
//! the same salt, a receipt or Kafka's commit says so.
//!
//! | damaged part | not proven | proven |
//! |---|---|---|
//! | one header copy, one `State` twin (the other is good) | report | report |
//! | both header copies | refuse | refuse |
//! | both `State`s, a later segment has a good one | report | report |
//! | both `State`s of the last segment | refuse | refuse |
//! | footer, padding | torn | report |
//! | control frame, a later segment has a good `State` | torn | report |
//! | control frame, no later `State` | torn | refuse |
//! | block of a known range | torn | stop that partition |
//! | a frame of which nothing is known | torn | refuse |
//! | any frame, because of a read error | torn | stop: unreadable |
//!
//! Kafka not asked or unreachable counts as "does not say so": the tail is cut from the log, but its bytes are kept,
//! and what Kafka's commit proves is compared before anything is admitted or committed.

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A copy of the segment header.
    Header {
        /// The other copy is good.
        twin: bool,
    },
    /// A copy of the state.
    State {
        /// The other copy is good.
        twin: bool,
    },
    /// The index of the segment.
    Footer,
    /// Zero bytes after a good frame.
    Pad,
    /// A frame known not to be a block.
    Control,
    /// A block whose partition and range are known.
    Block,
    /// Nothing is known.
    Unknown,
}

/// What Kafka's commit says about the damaged place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kafka {
    /// Not asked yet, or unreachable.
    Unknown,
    /// The commit of this WAL does not reach it.
    Below,
    /// The commit of this WAL is beyond it.
    Beyond,
}

/// All that is known of a damaged place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub struct Evidence {
    /// What is damaged.
    pub part: Part,
    /// A successor declares an end beyond it.
    pub sealed: bool,
    /// It lies below `built_end`.
    pub built: bool,
    /// A valid frame of the same salt has `synced_through` at or above its LSN.
    pub witness: bool,
    /// A receipt names it. The scan leaves it at `false`: a block is handed out after its sync, so that the frame of its
    /// receipt is a `witness` already.
    pub receipt: bool,
    /// What Kafka says. The scan leaves it at `Unknown`: Kafka is asked when the log is open, before anything is admitted.
    pub kafka: Kafka,
    /// It could not be read.
    pub unreadable: bool,
    /// A later segment has a good `State`.
    pub later_state: bool,
}

/// What it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An unacknowledged tail cut by a crash: normal, the log ends here.
    Torn,
    /// Damage that loses nothing: told, not fatal.
    Report,
    /// Corrupt, and known to concern one partition: that partition stops.
    StopPartition,
    /// Corrupt: the log is not opened.
    Refuse,
    /// Acknowledged bytes can't be read: the log is not opened.
    Unreadable,
}

/// Decides.
pub fn decide(evidence: &Evidence) -> Verdict {
    let proven =
        evidence.sealed || evidence.built || evidence.witness || evidence.receipt || evidence.kafka == Kafka::Beyond;
    match evidence.part {
        Part::Header { twin: true } | Part::State { twin: true } => Verdict::Report,
        Part::State { twin: false } if evidence.later_state => Verdict::Report,
        Part::Header { twin: false } | Part::State { twin: false } if evidence.unreadable => Verdict::Unreadable,
        Part::Header { twin: false } | Part::State { twin: false } => Verdict::Refuse,
        _ if !proven => Verdict::Torn,
        _ if evidence.unreadable => Verdict::Unreadable,
        Part::Footer | Part::Pad => Verdict::Report,
        Part::Control if evidence.later_state => Verdict::Report,
        Part::Block => Verdict::StopPartition,
        Part::Control | Part::Unknown => Verdict::Refuse,
    }
}
