//! From settings to limits and controller. Pure.

use crate::config::{Config, Controller, Mode, Rate};
use crate::rate::limits::{Limit, Limits};
use crate::rate::pid::Gains;
use crate::rate::{Kind, Settings};
use std::time::Duration;

/// A controller needs an interval above zero.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// The fixed limits.
pub fn limits(rate: &Rate) -> Limits {
    let limit = |records: Option<u32>, bytes: Option<u64>| Limit {
        records: records.map(f64::from),
        bytes: bytes.map(|bytes| bytes as f64),
    };
    Limits {
        pipeline: limit(rate.records, rate.bytes),
        each_topic: limit(rate.topic_records, rate.topic_bytes),
        each_partition: limit(rate.partition_records, rate.partition_bytes),
        burst: rate.burst,
        ..Limits::default()
    }
}

/// The controller. A batch is what the sink is given at once; in direct mode a plan gathers it first.
pub fn settings(config: &Config) -> Settings {
    let Rate { controller, initial_records, min_records, proportional, integral, derivative, .. } = config.rate;
    let kind = match controller {
        Controller::None => Kind::None,
        Controller::Pid => Kind::Pid,
        Controller::SelfTuning => Kind::SelfTuning,
    };
    let gathered = match config.mode {
        Mode::Receiver => config.sink.batch_age,
        Mode::Direct => config.sink.batch_age.max(config.direct.batch_interval),
    };
    Settings {
        initial_rate: f64::from(initial_records),
        min_rate: f64::from(min_records),
        gains: Gains { proportional, integral, derivative },
        ..Settings::new(kind, gathered.max(INTERVAL_MIN))
    }
}
