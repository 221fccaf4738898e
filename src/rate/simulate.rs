//! A simulated pipeline that shows how a controller answers to a step: for tests and for the plot.
//!
//! The plant: batches are planned at multiples of the interval, each of `rate · interval` records or what there is; one
//! runs while at most one more waits; a batch takes `fixed + records / capacity`, a few percent more or less; its end is
//! reported to the controller.
//!
//! That bound is what lets a controller settle after the pipeline has become slower. Spark plans a batch at every multiple
//! whatever waits: after a slowdown of five times it first works off the queue, some 35 batches with either controller.
//!
//! Promises: pure and repeatable; the noise comes from a fixed seed. Never: it is no measurement of a real pipeline.

use super::{Batch, Controller, Settings};
use std::collections::VecDeque;
use std::time::Duration;

/// Batches planned and not yet done, the running one included.
const IN_FLIGHT: usize = 2;

/// What the pipeline can do and what it is offered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Records per second that processing reaches without the fixed cost; above zero.
    pub capacity: f64,
    /// The cost of any batch.
    pub fixed: Duration,
    /// Records per second that arrive, above zero; none: there is always more than can be taken.
    pub offered: Option<f64>,
    /// A batch takes up to this part more or less.
    pub noise: f64,
}

impl Load {
    /// Records per second that fill the whole interval: the best any controller can do, and the new rate after a step.
    pub fn sustainable(&self, interval: Duration) -> f64 {
        let interval = interval.as_secs_f64();
        (interval - self.fixed.as_secs_f64()).max(0.0) * self.capacity / interval
    }
}

/// One batch of a response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Its number, 0 for the first one planned after the step.
    pub batch: i64,
    /// When it was planned, seconds after the step.
    pub at: f64,
    /// The rate in force, records per second.
    pub rate: f64,
    /// What the pipeline can sustain then.
    pub sustainable: f64,
    /// Records in it.
    pub records: u64,
    /// Seconds it took.
    pub processing: f64,
    /// Seconds it waited.
    pub scheduling: f64,
}

/// Runs a controller on `before` for so many batches and on `after` for as many; one point a batch.
pub fn step_response(settings: &Settings, before: &Load, after: &Load, batches: usize) -> Vec<Point> {
    let mut plant = Plant::new(settings, *before);
    while plant.points.len() < batches {
        plant.tick();
    }
    plant.step(*after);
    while plant.points.len() < 2 * batches {
        plant.tick();
    }
    plant.finish(batches)
}

struct Plant {
    controller: Controller,
    interval: f64,
    load: Load,
    tick: u64,
    /// Records that arrived and are in no batch yet.
    waiting: f64,
    /// When the last batch planned will be done.
    busy_until: f64,
    running: VecDeque<Batch>,
    points: Vec<Point>,
    step_at: f64,
    noise: u64,
}

impl Plant {
    fn new(settings: &Settings, load: Load) -> Self {
        let (controller, interval) = (Controller::new(*settings), settings.interval.as_secs_f64());
        let (running, points) = (VecDeque::new(), Vec::new());
        let (tick, waiting, busy_until, step_at, noise) = (0, 0.0, 0.0, 0.0, 1);
        Self { controller, interval, load, tick, waiting, busy_until, running, points, step_at, noise }
    }

    /// From the next tick on.
    fn step(&mut self, load: Load) {
        self.load = load;
        self.step_at = (self.tick + 1) as f64 * self.interval;
    }

    /// The next multiple of the interval: what is done by then is reported, then a batch is planned if there is room.
    fn tick(&mut self) {
        self.tick += 1;
        let now = self.tick as f64 * self.interval;
        self.waiting += self.load.offered.map_or(0.0, |offered| offered * self.interval);
        while self.running.front().is_some_and(|batch| batch.at.as_secs_f64() <= now) {
            let done = self.running.pop_front();
            done.map(|batch| self.controller.batch_done(&batch));
        }
        if self.running.len() < IN_FLIGHT {
            self.plan(now);
        }
    }

    fn plan(&mut self, now: f64) {
        let rate = self.controller.rate().unwrap_or(f64::MAX);
        let allowed = rate * self.interval;
        let records = self.load.offered.map_or(allowed, |_| allowed.min(self.waiting)).floor();
        if records < 1.0 {
            return;
        }
        self.waiting -= self.load.offered.map_or(0.0, |_| records);
        let start = now.max(self.busy_until);
        let noise = 1.0 + self.load.noise * self.random();
        let processing = (self.load.fixed.as_secs_f64() + records / self.load.capacity) * noise;
        self.busy_until = start + processing;
        self.running.push_back(Batch {
            records: records as u64,
            processing: Duration::from_secs_f64(processing),
            scheduling: Duration::from_secs_f64(start - now),
            at: Duration::from_secs_f64(self.busy_until),
            failed: false,
        });
        let sustainable = self.load.sustainable(Duration::from_secs_f64(self.interval));
        let (batch, scheduling) = (self.points.len() as i64, start - now);
        self.points.push(Point { batch, at: now, rate, sustainable, records: records as u64, processing, scheduling });
    }

    /// Between -1 and 1: xorshift.
    fn random(&mut self) -> f64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        (self.noise >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    fn finish(mut self, before: usize) -> Vec<Point> {
        for point in &mut self.points {
            point.batch -= before as i64;
            point.at -= self.step_at;
        }
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(500);

    fn load(capacity: f64, fixed_ms: u64, noise: f64) -> Load {
        Load { capacity, fixed: Duration::from_millis(fixed_ms), offered: None, noise }
    }

    /// On which side of the band of 10 % around what is sustainable the rate is: -1, 0, 1.
    fn side(point: &Point) -> i32 {
        let ratio = point.rate / point.sustainable;
        i32::from(ratio > 1.1) - i32::from(ratio < 0.9)
    }

    /// How often the rate went from one side of the band to the other.
    fn overshoots(points: &[Point]) -> usize {
        let sides: Vec<_> = points.iter().map(side).filter(|side| *side != 0).collect();
        sides.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    #[track_caller]
    fn assert_settles(kind: Kind, before: &Load, after: &Load) {
        let points = step_response(&Settings::new(kind, INTERVAL), before, after, 60);
        let after_step: Vec<_> = points.into_iter().filter(|point| point.batch >= 0).collect();
        let text = || {
            let line = |point: &Point| {
                format!(
                    "{:3} {:9.0} of {:9.0}, waited {:.2}",
                    point.batch, point.rate, point.sustainable, point.scheduling
                )
            };
            after_step.iter().take(30).map(line).collect::<Vec<_>>().join("\n")
        };
        let late = after_step.iter().find(|point| point.batch >= 10 && side(point) != 0);
        assert!(late.is_none(), "{kind:?} is outside at {late:?}\n{}", text());
        assert!(overshoots(&after_step) <= 1, "{kind:?} overshoots\n{}", text());
        assert!(after_step.iter().all(|point| point.rate >= 100.0));
    }

    #[test]
    fn both_controllers_settle_after_a_step_of_five_times_in_capacity() {
        for kind in [Kind::Pid, Kind::SelfTuning] {
            for noise in [0.0, 0.03] {
                for fixed in [0, 20, 50] {
                    assert_settles(kind, &load(20_000.0, fixed, noise), &load(100_000.0, fixed, noise));
                    assert_settles(kind, &load(100_000.0, fixed, noise), &load(20_000.0, fixed, noise));
                }
            }
        }
    }

    #[test]
    fn both_controllers_settle_after_a_step_of_five_times_in_load() {
        for kind in [Kind::Pid, Kind::SelfTuning] {
            for fixed in [0, 20, 50] {
                let full = load(50_000.0, fixed, 0.03);
                let quiet = Load { offered: Some(0.25 * full.sustainable(INTERVAL)), ..full };
                let busy = Load { offered: Some(1.25 * full.sustainable(INTERVAL)), ..full };
                assert_settles(kind, &quiet, &busy);
            }
        }
    }

    /// What ten batches with all there is took after forty of a trickle, as a part of what was possible; before the
    /// trickle the pipeline was busy for `busy` batches.
    fn burst_after_a_trickle(kind: Kind, fixed_ms: u64, busy: usize) -> f64 {
        let full = load(100_000.0, fixed_ms, 0.03);
        let mut plant = Plant::new(&Settings::new(kind, INTERVAL), full);
        let mut run = |load, batches| {
            plant.step(load);
            let first = plant.points.len();
            while plant.points.len() < first + batches {
                plant.tick();
            }
            plant.points[first..].iter().map(|point| point.records).sum::<u64>()
        };
        run(full, busy);
        run(Load { offered: Some(40.0), ..full }, 40);
        run(full, 10) as f64 / (10.0 * full.sustainable(INTERVAL) * INTERVAL.as_secs_f64())
    }

    #[test]
    fn small_batches_with_a_fixed_cost_collapse_the_pid_alone() {
        for (fixed, busy, pid_most, tuned_least) in
            [(250, 0, 0.2, 0.75), (400, 0, 0.1, 0.7), (250, 30, 0.2, 0.9), (400, 30, 0.1, 0.7)]
        {
            let [pid, tuned] = [Kind::Pid, Kind::SelfTuning].map(|kind| burst_after_a_trickle(kind, fixed, busy));
            assert!(pid < pid_most, "fixed {fixed} ms, busy {busy}: the PID took {pid}");
            assert!(tuned > tuned_least, "fixed {fixed} ms, busy {busy}: self-tuning took {tuned}");
        }
    }
}
