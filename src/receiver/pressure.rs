//! When to take less from Kafka. A pure function of what is queued and for how long.

use std::time::Duration;

/// A stall this long gives up what librdkafka has prefetched and pauses the partitions for real.
const LONG: Duration = Duration::from_secs(2);

/// What a receiver does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Take what comes.
    None,
    /// Take nothing for the moment; librdkafka's own bounded queue fills up and stops fetching.
    Hold,
    /// Pause the partitions, keep the membership.
    Pause,
}

/// Decides by the log's queue (`queued` of `limit` bytes not yet durable, `full` disk or quota) and the time since when
/// nothing was taken.
pub fn decide(queued: u64, limit: u64, full: bool, stalled: Option<Duration>) -> Pressure {
    // Once stalled, half of the queue must be gone before more is taken: no flapping.
    let limit = if stalled.is_some() { limit / 2 } else { limit };
    if !full && queued <= limit {
        Pressure::None
    } else if stalled.is_some_and(|stalled| stalled >= LONG) {
        Pressure::Pause
    } else {
        Pressure::Hold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case() {
        let short = Some(Duration::from_millis(10));
        for (queued, full, stalled, expected) in [
            (100, false, None, Pressure::None),
            (101, false, None, Pressure::Hold),
            (0, true, None, Pressure::Hold),
            (51, false, short, Pressure::Hold),
            (50, false, short, Pressure::None),
            (0, true, Some(LONG), Pressure::Pause),
            (51, false, Some(LONG), Pressure::Pause),
            (50, false, Some(LONG), Pressure::None),
        ] {
            assert_eq!(decide(queued, 100, full, stalled), expected, "{queued} {full} {stalled:?}");
        }
    }
}
