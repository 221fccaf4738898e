//! What to do about offsets that Kafka no longer has, or has anew: the gap policy as one pure, total function.
//!
//! | found | `fail` | `skip` | `pause` |
//! |---|---|---|---|
//! | Kafka has the start | go on | go on | go on |
//! | Kafka begins beyond the start (retention, deleted records) | stop | gap `[start, first)`, go on at `first` | hold |
//! | Kafka ends before the start (truncated) | stop | gap `[end, start)`, wait until Kafka's end reaches the start | hold |
//! | the leader of the start's epoch ended before the start (truncated, perhaps written anew) | stop | gap `[end, start)`, go on | hold |
//! | the record before the start is another one (truncated and written anew) | stop | gap of that record, go on | hold |
//! | the topic was created again, part of its former life is unread | stop | gap of that part, go on | hold |
//! | the same, all of it was read | go on | go on | go on |
//! | the same, its end is not known | empty gap, go on | empty gap, go on | empty gap, go on |
//!
//! Promises: nothing is passed over without a [`Gap`] to log; every stop and hold names its range. Never: it asks nobody
//! and logs nothing.

use super::start::Range;

/// The reason in the log of a gap at the end of a deleted topic begins so.
pub const RECREATION: &str = "recreation";

/// `kafka.on_gap`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnGap {
    /// Stop, naming the range.
    #[default]
    Fail,
    /// Log the range and go on behind it.
    Skip,
    /// Leave the partition alone until Kafka has the range again or the setting is another one.
    Pause,
}

/// Why offsets are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Kafka dropped them before they were read.
    Retention,
    /// They were read; Kafka's log ends before them now.
    Truncation,
    /// They were read; a leader was elected that did not have them.
    Election,
    /// They were read; Kafka has other records there now.
    Replacement,
    /// The topic was deleted before they were read, and created again.
    Recreation,
}

/// Offsets that Kafka no longer has, or has anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gap {
    /// Why.
    pub cause: Cause,
    /// First offset.
    pub first: i64,
    /// One past the last offset.
    pub next: i64,
}

impl Gap {
    fn new(cause: Cause, first: i64, next: i64) -> Self {
        Self { cause, first, next }
    }

    /// Records that may be lost: offsets in the range.
    pub fn records(&self) -> u64 {
        u64::try_from(self.next - self.first).unwrap_or(0)
    }

    /// True when the range was read before, so that it lies below the position and moves nothing.
    pub fn looks_back(&self) -> bool {
        matches!(self.cause, Cause::Truncation | Cause::Election | Cause::Replacement)
    }

    /// The word that the reason in the log begins with.
    pub fn word(&self) -> &'static str {
        match self.cause {
            Cause::Retention => "retention",
            Cause::Truncation | Cause::Election | Cause::Replacement => "truncation",
            Cause::Recreation => RECREATION,
        }
    }
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cause, first, next } = self;
        match cause {
            Cause::Retention => write!(f, "Kafka no longer has offsets [{first}, {next})"),
            Cause::Truncation => write!(
                f,
                "the start {next} lies beyond Kafka's end {first}: offsets [{first}, {next}) were read and are gone; \
                 what Kafka gets there anew is not read"
            ),
            Cause::Election => write!(
                f,
                "a leader was elected whose log went no further than {first}: offsets [{first}, {next}) were read and are \
                 gone; what Kafka gets there anew is not read"
            ),
            Cause::Replacement => write!(
                f,
                "Kafka has another record at offset {first} than was read there: offsets up to {next}, at least \
                 [{first}, {next}), were replaced"
            ),
            Cause::Recreation if first == next => {
                write!(
                    f,
                    "the topic was deleted and created again; whether offsets from {first} on existed is not known"
                )
            }
            Cause::Recreation => {
                write!(f, "the topic was deleted and created again before offsets [{first}, {next}) were read")
            }
        }
    }
}

/// What was found about a partition's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Kafka has this range.
    Start {
        /// Where fetching is to begin.
        start: i64,
        /// What Kafka has.
        range: Range,
    },
    /// A new leader's log went on at `end`, in another epoch than what was read behind it.
    Elected {
        /// Where the new leader's records begin to be others.
        end: i64,
        /// Where fetching is to begin.
        start: i64,
    },
    /// Kafka has another record at this offset than the log; fetching goes on behind it.
    Replaced {
        /// The offset of the last record read.
        offset: i64,
        /// Where fetching is to begin.
        start: i64,
    },
    /// The topic has another id than before.
    Recreated {
        /// How far its former life was read.
        read: i64,
        /// Where that ended as far as it was seen; `None` when nobody looked.
        end: Option<i64>,
    },
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// There is no gap.
    Go,
    /// Log the gap, then go on.
    Skip(Gap),
    /// Log the gap once, then wait until Kafka's end reaches the start.
    Await(Gap),
    /// Leave the partition alone.
    Hold(Gap),
    /// Stop.
    Stop(Gap),
}

impl Action {
    /// The gap, if there is one.
    pub fn gap(self) -> Option<Gap> {
        match self {
            Self::Go => None,
            Self::Skip(gap) | Self::Await(gap) | Self::Hold(gap) | Self::Stop(gap) => Some(gap),
        }
    }
}

/// Answers by the table of this module's page.
pub fn decide(finding: Finding, policy: OnGap) -> Action {
    let (gap, skip): (Gap, fn(Gap) -> Action) = match finding {
        Finding::Start { start, range } if start < range.first => {
            (Gap::new(Cause::Retention, start, range.first), Action::Skip)
        }
        Finding::Start { start, range } if start > range.next => {
            (Gap::new(Cause::Truncation, range.next, start), Action::Await)
        }
        Finding::Elected { end, start } if end < start => (Gap::new(Cause::Election, end, start), Action::Skip),
        Finding::Replaced { offset, start } => (Gap::new(Cause::Replacement, offset, start), Action::Skip),
        Finding::Recreated { read, end: None } => return Action::Skip(Gap::new(Cause::Recreation, read, read)),
        Finding::Recreated { read, end: Some(end) } if read < end => {
            (Gap::new(Cause::Recreation, read, end), Action::Skip)
        }
        Finding::Start { .. } | Finding::Elected { .. } | Finding::Recreated { .. } => return Action::Go,
    };
    match policy {
        OnGap::Fail => Action::Stop(gap),
        OnGap::Skip => skip(gap),
        OnGap::Pause => Action::Hold(gap),
    }
}

/// Must the last record read be compared with Kafka's before a position is trusted? `known` is the leader epoch that
/// the position was good for, `now` that of the first record behind it; -1 is unknown. An older one is another history
/// too: epochs only grow within one.
pub fn must_compare(known: i32, now: i32) -> bool {
    now >= 0 && now != known
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Range = Range { first: 10, next: 40 };

    fn each(finding: Finding) -> [Action; 3] {
        [OnGap::Fail, OnGap::Skip, OnGap::Pause].map(|policy| decide(finding, policy))
    }

    fn start(start: i64) -> Finding {
        Finding::Start { start, range: RANGE }
    }

    #[test]
    fn kafka_has_the_start() {
        for at in [10, 11, 39, 40] {
            assert_eq!(each(start(at)), [Action::Go; 3], "{at}");
        }
        let empty = Range { first: 7, next: 7 };
        assert_eq!(each(Finding::Start { start: 7, range: empty }), [Action::Go; 3]);
    }

    #[test]
    fn kafka_begins_beyond_the_start() {
        for at in [0, 9] {
            let gap = Gap { cause: Cause::Retention, first: at, next: 10 };
            assert_eq!(each(start(at)), [Action::Stop(gap), Action::Skip(gap), Action::Hold(gap)]);
        }
        // All records are gone: the gap reaches to the end.
        let empty = Range { first: 40, next: 40 };
        let gap = Gap { cause: Cause::Retention, first: 12, next: 40 };
        assert_eq!(decide(Finding::Start { start: 12, range: empty }, OnGap::Skip), Action::Skip(gap));
    }

    #[test]
    fn kafka_ends_before_the_start() {
        let gap = Gap { cause: Cause::Truncation, first: 40, next: 41 };
        assert_eq!(each(start(41)), [Action::Stop(gap), Action::Await(gap), Action::Hold(gap)]);
    }

    #[test]
    fn a_leader_was_elected_that_had_less() {
        let gap = Gap { cause: Cause::Election, first: 100, next: 150 };
        let found = each(Finding::Elected { end: 100, start: 150 });
        assert_eq!(found, [Action::Stop(gap), Action::Skip(gap), Action::Hold(gap)]);
        for end in [150, 151] {
            assert_eq!(each(Finding::Elected { end, start: 150 }), [Action::Go; 3], "it had all: {end}");
        }
    }

    #[test]
    fn the_record_before_the_start_is_another_one() {
        let gap = Gap { cause: Cause::Replacement, first: 29, next: 30 };
        let found = each(Finding::Replaced { offset: 29, start: 30 });
        assert_eq!(found, [Action::Stop(gap), Action::Skip(gap), Action::Hold(gap)]);
    }

    #[test]
    fn the_topic_was_created_again() {
        let gap = Gap { cause: Cause::Recreation, first: 20, next: 40 };
        let found = each(Finding::Recreated { read: 20, end: Some(40) });
        assert_eq!(found, [Action::Stop(gap), Action::Skip(gap), Action::Hold(gap)]);
        for end in [20, 0] {
            assert_eq!(each(Finding::Recreated { read: 20, end: Some(end) }), [Action::Go; 3]);
        }
        let unknown = Gap { cause: Cause::Recreation, first: 20, next: 20 };
        assert_eq!(each(Finding::Recreated { read: 20, end: None }), [Action::Skip(unknown); 3]);
    }

    #[test]
    fn words_name_the_range() {
        for (cause, word) in [
            (Cause::Retention, "retention"),
            (Cause::Truncation, "truncation"),
            (Cause::Election, "truncation"),
            (Cause::Replacement, "truncation"),
            (Cause::Recreation, "recreation"),
        ] {
            let gap = Gap { cause, first: 3, next: 8 };
            assert!(gap.to_string().contains("[3, 8)"), "{gap}");
            assert_eq!((gap.word(), gap.records()), (word, 5));
            assert_eq!(gap.looks_back(), word == "truncation");
        }
    }

    #[test]
    fn another_leader_epoch_is_suspicious() {
        assert!(must_compare(3, 4) && must_compare(-1, 0) && must_compare(4, 3));
        assert!(!must_compare(3, 3) && !must_compare(3, -1) && !must_compare(-1, -1));
    }
}
