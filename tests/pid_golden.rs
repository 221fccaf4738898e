//! Forebay's PID against Spark's: `data/pid_spark_3.5.3.csv` holds 24 runs of 25 steps with random batches, gains and
//! intervals and the rates that Spark 3.5.3's own `PIDRateEstimator` gave. Every step must be equal to a relative 1e-9.

#![allow(clippy::unwrap_used, clippy::panic)]

use forebay::rate::pid::{Gains, Pid};
use forebay::rate::{Batch, Controller, Kind, Settings};
use std::collections::BTreeMap;
use std::time::Duration;

const GOLDEN: &str = include_str!("data/pid_spark_3.5.3.csv");

/// One call of Spark's estimator.
struct Step {
    interval: Duration,
    gains: Gains,
    min_rate: f64,
    batch: Batch,
    rate: Option<f64>,
}

impl Step {
    fn parse(line: &str) -> (u32, Self) {
        let fields: Vec<_> = line.split(',').collect();
        let [run, interval, p, i, d, min, at, records, processing, scheduling, rate] = fields[..] else {
            panic!("not a step: {line}");
        };
        let millis = |text: &str| Duration::from_millis(text.parse().unwrap());
        let gains =
            Gains { proportional: p.parse().unwrap(), integral: i.parse().unwrap(), derivative: d.parse().unwrap() };
        let batch = Batch {
            records: records.parse().unwrap(),
            processing: millis(processing),
            scheduling: millis(scheduling),
            at: millis(at),
            failed: false,
        };
        let rate = (!rate.is_empty()).then(|| rate.parse().unwrap());
        (run.parse().unwrap(), Self { interval: millis(interval), gains, min_rate: min.parse().unwrap(), batch, rate })
    }
}

fn runs() -> BTreeMap<u32, Vec<Step>> {
    let mut runs: BTreeMap<u32, Vec<Step>> = BTreeMap::new();
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#') && !line.starts_with("run,")) {
        let (run, step) = Step::parse(line);
        runs.entry(run).or_default().push(step);
    }
    runs
}

#[track_caller]
fn assert_equal(found: Option<f64>, expected: Option<f64>, place: &str) {
    match (found, expected) {
        (None, None) => {}
        (Some(found), Some(expected)) => {
            assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{place}: {found}, Spark has {expected}");
        }
        other => panic!("{place}: (found, Spark's) = {other:?}"),
    }
}

#[test]
fn every_step_is_sparks() {
    let runs = runs();
    assert_eq!(runs.len(), 24);
    for (number, steps) in &runs {
        assert_eq!(steps.len(), 25, "run {number}");
        let mut pid = Pid::new(steps[0].interval, steps[0].gains, steps[0].min_rate);
        for (at, step) in steps.iter().enumerate() {
            assert_equal(pid.batch_done(&step.batch), step.rate, &format!("run {number}, step {at}"));
        }
    }
}

#[test]
fn the_controller_is_the_estimator_and_failed_batches_between_change_nothing() {
    for (number, steps) in runs() {
        let first = &steps[0];
        let settings =
            Settings { gains: first.gains, min_rate: first.min_rate, ..Settings::new(Kind::Pid, first.interval) };
        let mut controller = Controller::new(settings);
        for (at, step) in steps.iter().enumerate() {
            let failed = Batch { failed: true, records: 3, processing: Duration::from_secs(9), ..step.batch };
            assert_eq!(controller.batch_done(&failed), None);
            assert_equal(controller.batch_done(&step.batch), step.rate, &format!("run {number}, step {at}"));
        }
    }
}

#[test]
fn the_defaults_are_sparks() {
    let settings = Settings::new(Kind::Pid, Duration::from_secs(1));
    assert_eq!(settings.gains, Gains { proportional: 1.0, integral: 0.2, derivative: 0.0 });
    assert!((settings.min_rate - 100.0).abs() < 1e-12);
}
