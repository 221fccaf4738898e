//! The rate of a running pipeline: what receivers ask before they take, what the delivery tells when a batch is done, what
//! an operator changes. Shared by all of them behind one short lock a round, none a record.
//!
//! Promises: without limits and without a controller nothing is asked and nothing is locked. A change counts from the
//! next round on. Never: it does not wait.

use super::limiter::{Demand, Grant, Limiter};
use super::limits::Limits;
use super::{Batch, Controller, Kind, Settings};
use crate::record::Partition;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub struct Governor {
    parts: Mutex<Parts>,
    limited: AtomicBool,
}

#[derive(Debug)]
struct Parts {
    limiter: Limiter,
    controller: Option<Controller>,
    /// What a controller that is switched on later starts with.
    settings: Settings,
}

/// Limits and controller as they are in force.
#[derive(Clone, Debug, PartialEq)]
pub struct InForce {
    /// Fixed limits.
    pub limits: Limits,
    /// Which controller.
    pub kind: Kind,
    /// Records per second for the pipeline, the lower of the fixed limit and the controller's; none: unlimited.
    pub rate: Option<f64>,
}

impl Governor {
    /// With these limits and this controller.
    pub fn new(limits: Limits, settings: Settings, now: Duration) -> Self {
        let parts = Mutex::new(Parts { limiter: Limiter::new(limits, now), controller: None, settings });
        let governor = Self { parts, limited: AtomicBool::new(false) };
        governor.set_controller(settings.kind, now);
        governor
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, parts: &mut Parts, now: Duration) {
        let rate = parts.controller.as_ref().and_then(Controller::rate);
        parts.limiter.set_rate(rate, now);
        self.limited.store(!parts.limiter.is_unlimited(), Ordering::Release);
    }

    /// True when receivers must ask before they take.
    pub fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Acquire)
    }

    /// Replaces the fixed limits.
    pub fn set_limits(&self, limits: Limits, now: Duration) {
        let mut parts = self.parts();
        parts.limiter.set(limits, now);
        self.settle(&mut parts, now);
    }

    /// Goes on with this controller, at the rate in force if there was another one.
    pub fn set_controller(&self, kind: Kind, now: Duration) {
        let mut parts = self.parts();
        let settings = Settings { kind, ..parts.settings };
        match (&mut parts.controller, kind) {
            (_, Kind::None) => parts.controller = None,
            (Some(controller), _) => controller.set(settings),
            (none, _) => *none = Some(Controller::new(settings)),
        }
        self.settle(&mut parts, now);
    }

    /// What is in force.
    pub fn in_force(&self) -> InForce {
        let parts = self.parts();
        let kind = parts.controller.as_ref().map_or(Kind::None, |controller| controller.settings().kind);
        InForce { limits: parts.limiter.limits().clone(), kind, rate: parts.limiter.rate() }
    }

    /// A partition was assigned.
    pub fn open(&self, partition: Partition, topic: &str, now: Duration) {
        self.parts().limiter.open(partition, topic, now);
    }

    /// A partition is gone.
    pub fn close(&self, partition: Partition) {
        self.parts().limiter.close(partition);
    }

    /// [`Limiter::round`].
    pub fn round(&self, demands: &[Demand], now: Duration, grants: &mut Vec<Grant>) -> Option<Duration> {
        self.parts().limiter.round(demands, now, grants)
    }

    /// [`Limiter::charge`], for all that a round took.
    pub fn charge(&self, taken: impl IntoIterator<Item = (Partition, u64, u64)>) {
        let mut parts = self.parts();
        for (partition, records, bytes) in taken {
            parts.limiter.charge(partition, records, bytes);
        }
    }

    /// A batch came to its end: the controller learns.
    pub fn batch_done(&self, batch: &Batch) {
        if !self.is_limited() {
            return;
        }
        let mut parts = self.parts();
        let Some(controller) = &mut parts.controller else { return };
        if controller.batch_done(batch).is_some() {
            let rate = controller.rate();
            parts.limiter.set_rate(rate, batch.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::limits::Limit;

    const ZERO: Duration = Duration::ZERO;
    const P: Partition = Partition { topic: 1, number: 0 };

    #[test]
    fn only_what_is_limited_asks_and_a_change_counts_at_once() {
        let none = Settings::new(Kind::None, Duration::from_secs(1));
        let governor = Governor::new(Limits::default(), none, ZERO);
        assert!(!governor.is_limited());
        governor.open(P, "t", ZERO);
        let pipeline = Limit { records: Some(100.0), bytes: None };
        governor.set_limits(Limits { pipeline, ..Limits::default() }, ZERO);
        assert!(governor.is_limited());
        let mut grants = Vec::new();
        let demand = [Demand { partition: P, lag: 1000, most: u64::MAX }];
        governor.round(&demand, Duration::from_secs(10), &mut grants);
        assert_eq!(grants[0].records, 100);
        governor.charge([(P, 100, 0)]);
        governor.round(&demand, Duration::from_millis(10_020), &mut grants);
        assert_eq!(grants[0].records, 2);
        governor.set_limits(Limits::default(), Duration::from_secs(11));
        assert!(!governor.is_limited());
    }

    #[test]
    fn the_controllers_rate_is_in_force_until_it_is_taken_away() {
        let pid = Settings::new(Kind::Pid, Duration::from_secs(1));
        let governor = Governor::new(Limits::default(), pid, ZERO);
        assert!(governor.is_limited());
        assert_eq!(governor.in_force().rate, Some(10_000.0));
        for number in 1..3 {
            let at = Duration::from_secs(number);
            let processing = Duration::from_millis(500);
            governor.batch_done(&Batch { records: 1000, processing, scheduling: ZERO, at, failed: false });
        }
        assert_eq!(governor.in_force().rate, Some(2000.0), "1000 records in half a second");
        governor.set_controller(Kind::None, ZERO);
        assert!(!governor.is_limited());
    }
}
