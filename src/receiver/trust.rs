//! Is a hole in the offsets real? A pure function.
//!
//! librdkafka's batch consumption counts an end of partition (and an error) at offset *o* as a consumed record *o*, and
//! it pauses and resumes all partitions of a member in every rebalance, going on at that position: record *o* would be
//! skipped. So after such an event the first thing that does not continue at our own next offset is not believed: the
//! partition is fetched again from there. What then comes first is the truth: compaction, markers and aborted records
//! leave real holes.

/// Whether librdkafka's position for a partition can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The last thing taken was a record.
    Sure,
    /// The last thing taken was an event.
    Unsure,
    /// It was told where to fetch, after an event.
    Verifying,
}

/// What to do with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take it.
    Take,
    /// Drop it and fetch again from our own next offset.
    Verify,
}

/// Judges something that continues (or repeats) at our next offset, or leaves a hole.
#[inline]
pub fn judge(trust: Trust, continues: bool) -> (Step, Trust) {
    match (trust, continues) {
        (Trust::Unsure, false) => (Step::Verify, Trust::Verifying),
        _ => (Step::Take, Trust::Sure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hole_behind_an_event_is_looked_at_again() {
        for trust in [Trust::Sure, Trust::Unsure, Trust::Verifying] {
            assert_eq!(judge(trust, true), (Step::Take, Trust::Sure));
        }
        assert_eq!(judge(Trust::Sure, false), (Step::Take, Trust::Sure), "compaction");
        assert_eq!(judge(Trust::Unsure, false), (Step::Verify, Trust::Verifying));
        assert_eq!(judge(Trust::Verifying, false), (Step::Take, Trust::Sure), "it is real");
    }
}
