//! A self-tuning regulator: it learns what a batch costs and sets the rate at which processing takes a chosen part of
//! the interval.
//!
//! The cost is `time = fixed + each · records` ([`Cost`]). Where Spark's PID divides records by time and so takes the
//! fixed cost of a small batch for a slow pipeline, this one keeps the two apart:
//!
//! - recursive least squares whose parameters wander (a Kalman filter of two states). What a batch can't tell apart, it
//!   does not move: with batches all alike only their sum is corrected, and small batches say little about `each`;
//! - a batch far from what was expected (three standard deviations) is a change of the plant: what was known is
//!   forgotten in proportion to the surprise, so a step is followed in about two batches;
//! - a batch that took less than half of what the rate allowed and was done in time says nothing against the rate: it
//!   stays. A quiet hour does not throttle the burst after it;
//! - a rate rises at most [`GROWTH`] times in one batch: an estimate is not trusted far from where it was made;
//! - what waits is worked off: the part of the interval used shrinks with the scheduling delay, by half at most.
//!
//! Promises: pure; the rate is finite and never below the minimum. Never: it does not go to the minimum because the fixed
//! cost alone is longer than the interval, since fewer records would not make such a batch shorter.

use super::Batch;
use std::time::Duration;

/// The part of an interval that processing takes by default. The rest lets a queue drain and absorbs noise.
pub const UTILIZATION: f64 = 0.95;

/// A rate rises at most so many times in one batch.
pub const GROWTH: f64 = 4.0;

/// Standard deviation of a batch's time around its expectation, as a part of it.
const NOISE: f64 = 0.05;
/// And never less than this, seconds: what a scheduler may add.
const NOISE_MIN: f64 = 200e-6;
/// How far the parameters wander from one batch to the next, as a part of what they stand for.
const WANDER: f64 = 0.02;
/// Squared standard deviations beyond which a batch means that the plant has changed.
const SURPRISE: f64 = 9.0;
/// No record costs less, seconds.
const EACH_MIN: f64 = 1e-9;
/// The part of the scheduling delay that the next batch makes good.
const DRAIN: f64 = 0.2;
/// At least this part of an interval goes to records, however long the fixed cost is.
const RECORDS_MIN: f64 = 0.1;

/// What a batch costs, in seconds, and how well that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Of any batch.
    pub fixed: f64,
    /// Of each record.
    pub each: f64,
    /// Variances of `fixed` and `each`, and their covariance.
    var_fixed: f64,
    var_each: f64,
    covariance: f64,
}

impl Cost {
    /// After one batch: all of it is put on the records, which asks for the lowest rate, and nothing is certain.
    fn first(records: f64, time: f64) -> Self {
        let each = (time / records).max(EACH_MIN);
        let (var_fixed, var_each) = (time * time, each * each);
        Self { fixed: 0.0, each, var_fixed, var_each, covariance: -time * each }
    }

    /// The time expected for so many records.
    pub fn time(&self, records: f64) -> f64 {
        self.fixed + self.each * records
    }

    /// Corrects the estimate by one batch.
    fn learn(&mut self, records: f64, time: f64) {
        let expected = self.time(records);
        let surprise = time - expected;
        let noise = (NOISE * time).powi(2) + NOISE_MIN.powi(2);
        self.wander(expected);
        if surprise.powi(2) > SURPRISE * (self.variance(records) + noise) {
            let part = surprise / expected;
            self.var_fixed = (part * self.fixed).powi(2);
            self.var_each = (part * self.each).powi(2);
            self.covariance = 0.0;
        }
        let variance = self.variance(records) + noise;
        let gain_fixed = (self.var_fixed + self.covariance * records) / variance;
        let gain_each = (self.covariance + self.var_each * records) / variance;
        self.fixed += gain_fixed * surprise;
        self.each += gain_each * surprise;
        self.var_fixed -= gain_fixed * gain_fixed * variance;
        self.var_each -= gain_each * gain_each * variance;
        self.covariance -= gain_fixed * gain_each * variance;
        self.make_possible();
    }

    /// Variance of the time expected for so many records.
    fn variance(&self, records: f64) -> f64 {
        self.var_fixed + 2.0 * self.covariance * records + self.var_each * records * records
    }

    /// Forgets a little.
    fn wander(&mut self, expected: f64) {
        self.var_fixed += (WANDER * expected).powi(2);
        self.var_each += (WANDER * self.each).powi(2);
    }

    /// No cost is negative; what one parameter gives up, the other takes over as far as the two are linked.
    fn make_possible(&mut self) {
        // Rounding may not make a variance negative or a covariance larger than the two allow.
        self.var_fixed = self.var_fixed.max(NOISE_MIN.powi(2));
        self.var_each = self.var_each.clamp((1e-3 * self.each).powi(2), f64::MAX);
        if self.fixed < 0.0 {
            self.each -= self.covariance / self.var_fixed * self.fixed;
            self.fixed = 0.0;
        }
        if self.each < EACH_MIN {
            let step = EACH_MIN - self.each;
            self.fixed = (self.fixed + self.covariance / self.var_each * step).max(0.0);
            self.each = EACH_MIN;
        }
        // Never less certain than "anything up to twice as much".
        let most = self.each * self.each;
        if self.var_each > most {
            self.covariance *= (most / self.var_each).sqrt();
            self.var_each = most;
        }
        let limit = 0.999 * (self.var_fixed * self.var_each).sqrt();
        self.covariance = self.covariance.clamp(-limit, limit);
    }
}

/// The regulator's state.
#[derive(Clone, Debug)]
pub struct SelfTuning {
    interval: f64,
    utilization: f64,
    min_rate: f64,
    rate: f64,
    cost: Option<Cost>,
}

impl SelfTuning {
    /// A regulator for batches every `interval` that shall take `utilization` of it, with `rate` in force. It never
    /// gives less than `min_rate` records per second.
    pub fn new(interval: Duration, utilization: f64, min_rate: f64, rate: f64) -> Self {
        Self { interval: interval.as_secs_f64(), utilization, min_rate, rate, cost: None }
    }

    /// What it takes a batch to cost; none before the first.
    pub fn cost(&self) -> Option<Cost> {
        self.cost
    }

    /// Learns from a batch; the new rate in records per second. None for a batch that says nothing about the rate: it
    /// failed, is empty or took no time, or it was small and done in time.
    pub fn batch_done(&mut self, batch: &Batch) -> Option<f64> {
        if batch.failed || batch.records == 0 || batch.processing.is_zero() {
            return None;
        }
        let (records, time) = (batch.records as f64, batch.processing.as_secs_f64());
        match &mut self.cost {
            Some(cost) => cost.learn(records, time),
            None => self.cost = Some(Cost::first(records, time)),
        }
        let delay = batch.scheduling.as_secs_f64();
        let in_time = time + delay <= self.utilization * self.interval;
        if in_time && records < 0.5 * self.rate * self.interval {
            return None;
        }
        self.rate = self.wanted(delay).min(GROWTH * self.rate).max(self.min_rate);
        Some(self.rate)
    }

    /// The rate that fills the chosen part of the interval, less what is needed to work off the delay.
    fn wanted(&self, delay: f64) -> f64 {
        let Some(cost) = self.cost else { return self.rate };
        let for_records = (self.utilization * self.interval - cost.fixed).max(RECORDS_MIN * self.interval);
        let drained = (for_records - DRAIN * delay).max(0.5 * for_records);
        drained / cost.each / self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn batch(records: f64, seconds: f64) -> Batch {
        let processing = Duration::from_secs_f64(seconds);
        Batch { records: records as u64, processing, scheduling: Duration::ZERO, at: SECOND, failed: false }
    }

    /// A regulator that has seen batches of these sizes at this cost.
    fn tuned(fixed: f64, each: f64, sizes: &[f64]) -> SelfTuning {
        let mut tuning = SelfTuning::new(SECOND, UTILIZATION, 100.0, 10_000.0);
        for records in sizes {
            tuning.batch_done(&batch(*records, fixed + each * records));
        }
        tuning
    }

    #[test]
    fn two_sizes_tell_the_fixed_cost_from_that_of_a_record() {
        let cost = tuned(0.3, 1e-5, &[2_000.0, 40_000.0, 39_000.0]).cost().unwrap();
        assert!((cost.fixed - 0.3).abs() < 0.01, "{cost:?}");
        assert!((cost.each - 1e-5).abs() < 5e-7, "{cost:?}");
        assert!((cost.time(65_000.0) - 0.95).abs() < 0.03, "{cost:?}");
    }

    #[test]
    fn batches_all_alike_tell_their_sum_and_nothing_runs_away() {
        let mut tuning = tuned(0.3, 1e-5, &[2_000.0, 60_000.0]);
        for _ in 0..20_000 {
            tuning.batch_done(&batch(65_000.0, 0.95));
        }
        let cost = tuning.cost().unwrap();
        assert!((cost.time(65_000.0) - 0.95).abs() < 1e-3, "{cost:?}");
        assert!((cost.fixed - 0.3).abs() < 0.05, "{cost:?}");
    }

    #[test]
    fn a_long_trickle_does_not_unlearn_what_a_record_costs() {
        let mut tuning = tuned(0.3, 1e-5, &[2_000.0, 60_000.0, 65_000.0, 65_000.0]);
        let rate = tuning.rate;
        let mut random = 1u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (noise, size) =
                (0.9 + 0.2 * (random >> 40) as f64 / f64::from(1 << 24), (1 + (random >> 30) % 1_000) as f64);
            assert_eq!(tuning.batch_done(&batch(size, (0.3 + 1e-5 * size) * noise)), None);
        }
        let cost = tuning.cost().unwrap();
        assert!(tuning.rate.to_bits() == rate.to_bits() && (cost.each / 1e-5 - 1.0).abs() < 0.3, "{cost:?}");
    }

    #[test]
    fn a_small_batch_that_is_late_does_count() {
        let mut tuning = tuned(0.1, 1e-5, &[2_000.0, 40_000.0, 80_000.0]);
        assert!(tuning.rate > 80_000.0);
        let lower = tuning.batch_done(&batch(10_000.0, 1.0)).unwrap();
        assert!(lower < 15_000.0, "{lower}: nine times slower");
    }

    #[test]
    fn a_fixed_cost_beyond_the_interval_is_not_made_worse_by_tiny_batches() {
        let mut tuning = SelfTuning::new(SECOND, UTILIZATION, 100.0, 10_000.0);
        for _ in 0..30 {
            let records = tuning.rate;
            tuning.batch_done(&batch(records, 1.5 + 1e-5 * records));
        }
        assert!(tuning.rate > 5_000.0, "{}, {:?}", tuning.rate, tuning.cost());
    }

    #[test]
    fn a_delay_is_worked_off() {
        let mut tuning = tuned(0.0, 1e-5, &[2_000.0, 40_000.0, 95_000.0]);
        let late = Batch { scheduling: SECOND, ..batch(95_000.0, 0.95) };
        let rate = tuning.batch_done(&late).unwrap();
        assert!((rate / 75_000.0 - 1.0).abs() < 0.02, "{rate}");
        let later = Batch { scheduling: SECOND * 100, ..late };
        let rate = tuning.batch_done(&later).unwrap();
        assert!((rate / 47_500.0 - 1.0).abs() < 0.02, "{rate}: half at most");
    }

    proptest! {
        #[test]
        fn any_batches_at_all_give_a_finite_rate_that_never_falls_below_the_minimum_or_jumps(
            batches in prop::collection::vec(
                (prop_oneof![0..100u64, 0..10_000_000u64, any::<u64>()], any::<u32>(), 0..100_000u64),
                1..200,
            ),
            interval_ms in 1..60_000u64,
            shift in 0..31u32,
        ) {
            let mut tuning = SelfTuning::new(Duration::from_millis(interval_ms), UTILIZATION, 100.0, 10_000.0);
            let mut before = 10_000.0;
            for (records, processing, delay) in batches {
                let batch = Batch {
                    records,
                    processing: Duration::from_micros(u64::from(processing >> shift)),
                    scheduling: Duration::from_millis(delay),
                    at: SECOND,
                    failed: false,
                };
                if let Some(rate) = tuning.batch_done(&batch) {
                    prop_assert!(rate.is_finite() && rate >= 100.0 && rate <= (GROWTH * before).max(100.0), "{rate}");
                    before = rate;
                }
                if let Some(cost) = tuning.cost() {
                    prop_assert!(cost.fixed >= 0.0 && cost.each >= EACH_MIN && cost.time(1e6).is_finite(), "{cost:?}");
                }
            }
        }
    }
}
