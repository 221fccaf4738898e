//! A token bucket whose clock is passed in.
//!
//! Promises: between any two moments what is charged is at most `rate · time + burst` (and one token, where a burst is
//! less than ten), plus what one charge may go beyond the level; that debt is paid back before anything more is allowed.
//! Never: no clock, no waiting; time that goes back counts as standing still.

use std::time::Duration;

/// Below so many tokens a burst has no room for the part of a token that was left over, which would be lost each time.
const FEW: f64 = 10.0;

/// Tokens that come at a rate and are kept up to a burst. Without a rate it is always full.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Tokens per second; none: unlimited.
    rate: Option<f64>,
    /// The most it holds.
    burst: f64,
    /// Below zero: a debt.
    level: f64,
    at: Duration,
}

impl Bucket {
    /// A bucket full at `now` that holds what comes in the time of `burst`, and one token at least.
    pub fn new(rate: Option<f64>, burst: Duration, now: Duration) -> Self {
        let most = most(rate, burst);
        Self { rate, burst: most, level: most, at: now }
    }

    /// Goes on at another rate. What is left and what is owed keep their length in time; what is left goes up to the new
    /// burst.
    pub fn set(&mut self, rate: Option<f64>, burst: Duration, now: Duration) {
        self.fill(now);
        self.level = match (self.rate, rate) {
            // A bucket that had no limit starts full, as a new one does.
            (None, Some(_)) => most(rate, burst),
            (Some(old), Some(new)) if old > 0.0 => (self.level * new / old).min(most(rate, burst)),
            _ => 0.0,
        };
        (self.rate, self.burst) = (rate, most(rate, burst));
    }

    /// Whole tokens to be had now.
    pub fn available(&mut self, now: Duration) -> u64 {
        if self.rate.is_none() {
            return u64::MAX;
        }
        self.fill(now);
        self.level.max(0.0) as u64
    }

    /// Takes tokens, more than there are if need be.
    pub fn charge(&mut self, tokens: u64) {
        if self.rate.is_some() {
            self.level -= tokens as f64;
        }
    }

    /// How long after the last look a token is to be had; none: never, at a rate of zero.
    pub fn wait(&self) -> Option<Duration> {
        match self.rate {
            None => Some(Duration::ZERO),
            Some(_) if self.level >= 1.0 => Some(Duration::ZERO),
            Some(rate) => Duration::try_from_secs_f64((1.0 - self.level) / rate).ok(),
        }
    }

    /// True if there is a limit.
    pub fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        if let Some(rate) = self.rate {
            let room = self.burst.max((self.burst + 1.0).min(FEW));
            self.level = (self.level + rate * passed.as_secs_f64()).min(room);
        }
    }
}

fn most(rate: Option<f64>, burst: Duration) -> f64 {
    match rate {
        Some(rate) if rate > 0.0 => (rate * burst.as_secs_f64()).max(1.0),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_bucket_fills_at_its_rate_up_to_its_burst() {
        let mut bucket = Bucket::new(Some(1_000.0), at(100), at(0));
        assert_eq!(bucket.available(at(0)), 100);
        bucket.charge(100);
        assert_eq!(bucket.wait(), Some(at(1)));
        assert_eq!(bucket.available(at(50)), 50);
        assert_eq!(bucket.available(at(20)), 50, "time that goes back stands still");
        assert_eq!(bucket.available(at(51)), 51, "and counts once when it comes again");
        assert_eq!(bucket.available(at(9_000)), 100);
    }

    #[test]
    fn a_debt_is_paid_back_first() {
        let mut bucket = Bucket::new(Some(1_000.0), at(100), at(0));
        bucket.charge(600);
        assert_eq!(bucket.available(at(400)), 0);
        assert_eq!(bucket.wait(), Some(at(101)));
        assert_eq!(bucket.available(at(510)), 10);
    }

    #[test]
    fn no_rate_is_no_limit_and_a_rate_of_zero_lets_nothing_through() {
        let mut free = Bucket::new(None, SECOND, at(0));
        free.charge(1 << 60);
        assert_eq!((free.available(at(1)), free.wait()), (u64::MAX, Some(Duration::ZERO)));
        let mut shut = Bucket::new(Some(0.0), SECOND, at(0));
        assert_eq!((shut.available(at(1_000_000)), shut.wait()), (0, None));
        shut.set(Some(10.0), SECOND, at(1_000_000));
        assert_eq!(shut.available(at(1_000_500)), 5);
    }

    #[test]
    fn a_change_of_rate_keeps_what_is_left_and_what_is_owed() {
        let mut bucket = Bucket::new(Some(1_000.0), SECOND, at(0));
        bucket.set(Some(10.0), SECOND, at(0));
        assert_eq!(bucket.available(at(0)), 10, "up to the new burst");
        bucket.charge(5);
        bucket.set(Some(1_000.0), SECOND, at(0));
        assert_eq!(bucket.available(at(0)), 500, "half a burst was left");
        bucket.charge(2_500);
        bucket.set(Some(10.0), SECOND, at(0));
        assert_eq!(bucket.wait(), Some(at(2_100)), "two seconds were owed");
        bucket.set(None, SECOND, at(0));
        bucket.set(Some(10.0), SECOND, at(0));
        assert_eq!(bucket.available(at(0)), 10);
    }

    #[test]
    fn a_rate_below_one_in_a_burst_still_comes_through() {
        let mut slow = Bucket::new(Some(0.5), at(100), at(0));
        slow.charge(1);
        assert_eq!(slow.available(at(1_999)), 0);
        assert_eq!(slow.available(at(2_000)), 1);
    }
}
