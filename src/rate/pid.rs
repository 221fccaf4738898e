//! The rate controller of Spark Streaming, `org.apache.spark.streaming.scheduler.rate.PIDRateEstimator` (3.5.3).
//!
//! ```text
//! processing rate  = records / processing time
//! error            = latest rate − processing rate
//! historical error = scheduling delay · processing rate / batch interval
//! error's change   = (error − latest error) / time since the latest update
//! new rate         = max(min rate, latest rate − P · error − I · historical error − D · error's change)
//! ```
//!
//! Promises: the rates of Spark's estimator, step by step (`tests/pid_golden.rs` holds 600 of its own), for whole
//! milliseconds; finer times are used as they are. One difference: a failed batch changes nothing, where Spark counts it.
//! Never: it does not know the fixed cost of a batch, so small batches look slow to it and throttle it down to the
//! minimum; [`super::self_tuning`] does not share that.

use super::Batch;
use std::time::Duration;

/// The weights of the three terms. [`Gains::default`] holds Spark's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gains {
    /// P (`spark.streaming.backpressure.pid.proportional`): of the error; not negative.
    pub proportional: f64,
    /// I (`…pid.integral`): of the error that the scheduling delay stands for; not negative.
    pub integral: f64,
    /// D (`…pid.derived`): of the error's change; not negative.
    pub derivative: f64,
}

impl Default for Gains {
    fn default() -> Self {
        Self { proportional: 1.0, integral: 0.2, derivative: 0.0 }
    }
}

/// The estimator's state.
#[derive(Clone, Debug)]
pub struct Pid {
    interval_ms: f64,
    gains: Gains,
    min_rate: f64,
    latest: Option<Latest>,
}

#[derive(Clone, Copy, Debug)]
struct Latest {
    at: Duration,
    rate: f64,
    error: f64,
}

impl Pid {
    /// An estimator for batches every `interval` that never gives less than `min_rate` records per second.
    pub fn new(interval: Duration, gains: Gains, min_rate: f64) -> Self {
        Self { interval_ms: millis(interval), gains, min_rate, latest: None }
    }

    /// Learns from a batch; the new rate in records per second. None for the first batch, which only sets the start, and
    /// for a batch that failed, is empty, took no time or did not end later than the one before.
    pub fn batch_done(&mut self, batch: &Batch) -> Option<f64> {
        let later = self.latest.is_none_or(|latest| batch.at > latest.at);
        if batch.failed || !later || batch.records == 0 || batch.processing.is_zero() {
            return None;
        }
        let processing_rate = batch.records as f64 / millis(batch.processing) * 1000.0;
        let Some(latest) = self.latest else {
            self.latest = Some(Latest { at: batch.at, rate: processing_rate, error: 0.0 });
            return None;
        };
        let since_update = millis(batch.at.saturating_sub(latest.at)) / 1000.0;
        let error = latest.rate - processing_rate;
        let historical_error = millis(batch.scheduling) * processing_rate / self.interval_ms;
        let error_change = (error - latest.error) / since_update;
        let Gains { proportional, integral, derivative } = self.gains;
        let rate = latest.rate - proportional * error - integral * historical_error - derivative * error_change;
        let rate = rate.max(self.min_rate);
        self.latest = Some(Latest { at: batch.at, rate, error });
        Some(rate)
    }
}

/// Exact for whole milliseconds.
fn millis(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(records: u64, processing_us: u64, at_ms: u64) -> Batch {
        Batch {
            records,
            processing: Duration::from_micros(processing_us),
            scheduling: Duration::ZERO,
            at: Duration::from_millis(at_ms),
            failed: false,
        }
    }

    #[test]
    fn what_says_nothing_changes_nothing() {
        let mut pid = Pid::new(Duration::from_secs(1), Gains::default(), 100.0);
        assert_eq!(pid.batch_done(&batch(1_000, 500_000, 0)), None, "the first sets the start, also at time zero");
        assert_eq!(pid.batch_done(&batch(0, 500_000, 1_000)), None, "empty");
        assert_eq!(pid.batch_done(&batch(10, 0, 1_000)), None, "took no time");
        assert_eq!(pid.batch_done(&batch(10, 1_000, 0)), None, "not later");
        assert_eq!(pid.batch_done(&Batch { failed: true, ..batch(10, 1_000, 1_000) }), None, "failed");
        assert_eq!(pid.batch_done(&batch(3_000, 500_000, 1_000)), Some(6_000.0));
    }

    #[test]
    fn times_below_a_millisecond_count() {
        let mut pid = Pid::new(Duration::from_millis(200), Gains::default(), 100.0);
        pid.batch_done(&batch(100, 250, 1));
        let rate = pid.batch_done(&batch(100, 500, 2)).unwrap();
        assert!((rate - 200_000.0).abs() < 1e-6, "{rate}");
    }
}
