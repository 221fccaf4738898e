//! How long until Kafka drops records that were not read? An estimate from looks at Kafka's first offset. Pure.
//!
//! Retention deletes whole segments, so the first offset stands still and then jumps: the estimate is a mean over the
//! looks that are kept, and it is none before the first jump.

use std::collections::VecDeque;
use std::time::Duration;

/// Looks kept of a partition.
const LOOKS: usize = 20;

/// One look at a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// When, on any monotone clock.
    pub at: Duration,
    /// Kafka's first offset.
    pub low: i64,
    /// The next offset to read.
    pub next: i64,
}

impl Look {
    /// Records between Kafka's first offset and the position.
    fn margin(&self) -> i64 {
        (self.next - self.low).max(0)
    }
}

/// The last looks at a partition.
#[derive(Clone, Debug, Default)]
pub struct Track {
    looks: VecDeque<Look>,
}

impl Track {
    /// Takes a look in. One that goes back (the topic was created again, the position was set back) begins anew.
    pub fn look(&mut self, look: Look) {
        if self.looks.back().is_some_and(|last| look.low < last.low || look.next < last.next || look.at <= last.at) {
            self.looks.clear();
        }
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(look);
    }

    /// When Kafka's first offset reaches the position, if both go on as they did over the looks that are kept; `None`
    /// while the distance does not shrink or the first offset stands still.
    pub fn time_to_loss(&self) -> Option<Duration> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        let shrunk = first.margin() - last.margin();
        if shrunk <= 0 || last.low <= first.low {
            return None;
        }
        let seconds = last.at.saturating_sub(first.at).as_secs_f64() * last.margin() as f64 / shrunk as f64;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(looks: &[(u64, i64, i64)]) -> Option<u64> {
        let mut track = Track::default();
        for (at, low, next) in looks {
            track.look(Look { at: Duration::from_secs(*at), low: *low, next: *next });
        }
        track.time_to_loss().map(|time| time.as_secs())
    }

    #[test]
    fn the_distance_shrinks_by_the_difference_of_both() {
        // 10 a second are dropped, nothing is read, 1,000 are left.
        assert_eq!(estimate(&[(0, 0, 1300), (30, 300, 1300)]), Some(100));
        // 4 a second are read meanwhile.
        assert_eq!(estimate(&[(0, 0, 1300), (30, 300, 1420)]), Some(186));
        // It jumped once in five looks.
        assert_eq!(estimate(&[(0, 0, 600), (30, 0, 600), (60, 0, 600), (90, 300, 600), (120, 300, 600)]), Some(120));
        assert_eq!(estimate(&[(0, 0, 300), (30, 300, 300)]), Some(0), "the position is next");
        assert_eq!(estimate(&[(0, 100, 200), (30, 0, 50), (60, 10, 50)]), Some(120), "the topic was created again");
        assert_eq!(estimate(&[(0, 0, 300), (30, 400, 300)]), Some(0), "it is lost already");
    }

    #[test]
    fn there_is_nothing_to_say_while_it_does_not_shrink() {
        for looks in [
            &[][..],
            &[(0, 0, 10)],
            &[(0, 5, 10), (30, 5, 10)],
            &[(0, 5, 10), (30, 10, 15)],
            &[(0, 5, 10), (30, 10, 40)],
            &[(0, 5, 10), (30, 5, 10), (60, 0, 3)],
        ] {
            assert_eq!(estimate(looks), None, "{looks:?}");
        }
    }

    #[test]
    fn looks_are_bounded_and_old_ones_are_forgotten() {
        let mut track = Track::default();
        for at in 1..=100 {
            // Fast at first, slow later.
            let low = if at <= 50 { at as i64 * 1000 } else { 50_000 + (at as i64 - 50) * 10 };
            track.look(Look { at: Duration::from_secs(at), low, next: 60_000 });
        }
        assert_eq!(track.looks.len(), LOOKS);
        assert_eq!(track.time_to_loss().unwrap().as_secs(), 950);
    }
}
