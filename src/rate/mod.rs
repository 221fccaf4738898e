//! How fast records may be taken: controllers that learn a rate from finished batches, limits that hold it.
//!
//! * [`Controller`]: records per second from what each batch took; Spark's PID ([`pid`]) or [`self_tuning`];
//! * [`limits`], [`limiter`]: records and bytes per second for the pipeline, each topic and each partition;
//! * [`governor`]: all of it, shared by a running pipeline;
//! * [`share`]: who gets how much of a limit;
//! * [`simulate`]: a simulated pipeline to see a controller's step response.
//!
//! Promises: pure; time is passed in, so the same calls give the same rates; a batch that failed changes nothing. Never:
//! no clock, no thread, no waiting, no allocation per record.

mod bucket;
pub mod governor;
pub mod limiter;
pub mod limits;
pub mod pid;
pub mod self_tuning;
pub mod share;
pub mod simulate;

use pid::{Gains, Pid};
use self_tuning::SelfTuning;
use std::time::Duration;

/// What is known of a batch that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Records in it.
    pub records: u64,
    /// From the start of its execution to its end.
    pub processing: Duration,
    /// How long it waited, planned, for its execution to start.
    pub scheduling: Duration,
    /// When it ended, on a clock that never goes back.
    pub at: Duration,
    /// It was not delivered. Such a batch says nothing about speed.
    pub failed: bool,
}

/// Which controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// No rate but the fixed limits; only the first batch is held to [`Settings::initial_rate`].
    #[default]
    None,
    /// Spark's.
    Pid,
    /// The one that tells the fixed cost of a batch from the cost of a record.
    SelfTuning,
}

/// How a rate is found. The value may be replaced at run time: [`Controller::set`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Which controller.
    pub kind: Kind,
    /// Time between two batches; above zero.
    pub interval: Duration,
    /// Records per second until the first batch has shown what is possible: a start with a large backlog does not take
    /// all of it at once, with or without a controller.
    pub initial_rate: f64,
    /// No controller goes below this, records per second; above zero.
    pub min_rate: f64,
    /// The PID's.
    pub gains: Gains,
    /// The part of the interval that processing shall take, for [`Kind::SelfTuning`]; above 0, at most 1.
    pub utilization: f64,
}

impl Settings {
    /// The defaults for batches every `interval`.
    pub fn new(kind: Kind, interval: Duration) -> Self {
        Self {
            kind,
            interval,
            initial_rate: 10_000.0,
            min_rate: 100.0,
            gains: Gains::default(),
            utilization: self_tuning::UTILIZATION,
        }
    }
}

/// Learns from each batch how many records per second to take.
#[derive(Clone, Debug)]
pub struct Controller {
    settings: Settings,
    law: Law,
    /// In force now; none: no rate but the fixed limits.
    rate: Option<f64>,
}

#[derive(Clone, Debug)]
enum Law {
    None,
    Pid(Pid),
    SelfTuning(SelfTuning),
}

impl Law {
    fn new(settings: &Settings, rate: f64) -> Self {
        match settings.kind {
            Kind::None => Self::None,
            Kind::Pid => Self::Pid(Pid::new(settings.interval, settings.gains, settings.min_rate)),
            Kind::SelfTuning => {
                Self::SelfTuning(SelfTuning::new(settings.interval, settings.utilization, settings.min_rate, rate))
            }
        }
    }
}

impl Controller {
    /// A controller that has seen nothing yet; [`Settings::initial_rate`] is in force.
    pub fn new(settings: Settings) -> Self {
        let rate = settings.initial_rate.max(settings.min_rate);
        Self { settings, law: Law::new(&settings, rate), rate: Some(rate) }
    }

    /// The rate in force, records per second; none when only fixed limits count.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Learns from a batch; the new rate if it has one. To be called once a batch, in the order of their ends. A failed
    /// one changes nothing.
    pub fn batch_done(&mut self, batch: &Batch) -> Option<f64> {
        let rate = match &mut self.law {
            Law::None if !batch.failed => {
                self.rate = None;
                None
            }
            Law::None => None,
            Law::Pid(pid) => pid.batch_done(batch),
            Law::SelfTuning(tuning) => tuning.batch_done(batch),
        };
        self.rate = rate.or(self.rate);
        rate
    }

    /// Goes on with other settings. The rate in force stays until a batch gives the next one; what was learned is
    /// forgotten if anything differs.
    pub fn set(&mut self, settings: Settings) {
        if settings == self.settings {
            return;
        }
        let rate = self.rate.unwrap_or(settings.initial_rate).max(settings.min_rate);
        let was_unbound = self.rate.is_none();
        self.law = Law::new(&settings, rate);
        self.rate = if settings.kind == Kind::None && was_unbound { None } else { Some(rate) };
        self.settings = settings;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn batch(records: u64, processing_ms: u64, number: u64) -> Batch {
        Batch {
            records,
            processing: Duration::from_millis(processing_ms),
            scheduling: Duration::ZERO,
            at: SECOND * number as u32,
            failed: false,
        }
    }

    #[test]
    fn the_first_batch_is_bounded_with_and_without_a_controller() {
        for kind in [Kind::None, Kind::Pid, Kind::SelfTuning] {
            let mut controller = Controller::new(Settings::new(kind, SECOND));
            assert_eq!(controller.rate(), Some(10_000.0), "{kind:?}");
            controller.batch_done(&Batch { failed: true, ..batch(10_000, 5_000, 1) });
            assert_eq!(controller.rate(), Some(10_000.0), "{kind:?}: a failed batch is no first batch");
            controller.batch_done(&batch(10_000, 500, 2));
            assert_eq!(controller.rate().is_none(), kind == Kind::None);
        }
    }

    #[test]
    fn a_failed_batch_changes_nothing() {
        for kind in [Kind::Pid, Kind::SelfTuning] {
            let mut clean = Controller::new(Settings::new(kind, SECOND));
            let mut disturbed = clean.clone();
            for number in 1..30 {
                let failed = Batch { failed: true, ..batch(7, 9_000, number) };
                assert_eq!(disturbed.batch_done(&failed), None);
                let good = batch(9_000 + number * 100, 700 + number * 10, number);
                assert_eq!(clean.batch_done(&good), disturbed.batch_done(&good), "{kind:?}, batch {number}");
            }
        }
    }

    #[test]
    fn settings_change_while_running_and_the_rate_in_force_stays() {
        let mut controller = Controller::new(Settings::new(Kind::Pid, SECOND));
        controller.batch_done(&batch(50_000, 1_000, 1));
        assert_eq!(controller.batch_done(&batch(50_000, 1_000, 2)), Some(50_000.0));
        controller.set(Settings::new(Kind::SelfTuning, SECOND));
        assert_eq!(controller.rate(), Some(50_000.0));
        let tuned = controller.batch_done(&batch(50_000, 1_000, 3)).unwrap();
        assert!((tuned - 50_000.0 * self_tuning::UTILIZATION).abs() < 1.0, "{tuned}");
        controller.set(Settings { min_rate: 60_000.0, ..Settings::new(Kind::SelfTuning, SECOND) });
        assert_eq!(controller.rate(), Some(60_000.0));
    }
}
