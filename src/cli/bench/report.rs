//! What a benchmark found, in numbers.
//!
//! Promises: the names of the fields are stable; they are the keys of the JSON document. The conclusions are computed from
//! the runs alone.

use super::args::SinkKind;
use super::exact::{Checked, Delivery};
use super::latency::Latency;
use super::machine::Machine;
use super::plan::{Mode, Point};
use super::stats::{Spread, ratio};
use serde::{Deserialize, Serialize};

/// A shorter run says little: starting and stopping weigh too much.
pub(super) const SECONDS_MIN: f64 = 3.0;

/// What a measured process tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Measured {
    /// Records delivered.
    pub records: u64,
    /// How often each was: bare consumption repeats itself to be long enough.
    pub passes: u64,
    /// Bytes of them, as the process counts: `forebay run` counts what it keeps of keys, headers and times too.
    pub bytes: u64,
    /// From the first record fetched to the last durable receipt.
    pub seconds: f64,
    /// `records / seconds`.
    pub records_per_s: f64,
    /// CPU time of the process over `seconds`.
    pub cpu_seconds: f64,
    /// The most memory it had resident at once.
    pub rss_peak_bytes: u64,
    /// Syncs of the log, and how long half and 99 of 100 of them took at most.
    pub fsyncs: u64,
    /// See `fsyncs`.
    pub fsync_p50_us: u64,
    /// See `fsyncs`.
    pub fsync_p99_us: u64,
    /// Times the sink made output durable.
    pub sink_syncs: u64,
    /// See `fsyncs`.
    pub sink_sync_p50_us: u64,
    /// See `fsyncs`.
    pub sink_sync_p99_us: u64,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            records: 0,
            passes: 1,
            bytes: 0,
            seconds: 0.0,
            records_per_s: 0.0,
            cpu_seconds: 0.0,
            rss_peak_bytes: 0,
            fsyncs: 0,
            fsync_p50_us: 0,
            fsync_p99_us: 0,
            sink_syncs: 0,
            sink_sync_p50_us: 0,
            sink_sync_p99_us: 0,
        }
    }
}

/// One run of one mode.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    /// What ran.
    pub mode: Mode,
    /// Counted from 1.
    pub round: u32,
    /// Place of its sizes in `points`.
    pub point: usize,
    /// What the process told.
    #[serde(flatten)]
    pub measured: Measured,
    /// Millions of bytes of values in a second.
    pub mb_per_s: f64,
    /// For a million records.
    pub cpu_seconds_per_million: f64,
    /// It took less than [`SECONDS_MIN`].
    pub too_short: bool,
    /// Is each record there once?
    pub delivery: Delivery,
}

impl Run {
    /// From what the process told and what was found in its output.
    pub fn new(
        mode: Mode,
        round: u32,
        (index, point): (usize, &Point),
        measured: Measured,
        delivery: Delivery,
    ) -> Self {
        let Measured { records, seconds, records_per_s, cpu_seconds, .. } = measured;
        Self {
            mode,
            round,
            point: index,
            measured,
            mb_per_s: (records_per_s * point.record_bytes as f64 / 1e4).round() / 100.0,
            cpu_seconds_per_million: (cpu_seconds / records.max(1) as f64 * 1e9).round() / 1000.0,
            too_short: seconds < SECONDS_MIN,
            delivery,
        }
    }
}

/// The runs of a mode at a point together.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ModeSummary {
    /// What ran.
    pub mode: Mode,
    /// How often.
    pub runs: usize,
    /// Of the runs.
    pub records_per_s: Spread,
    /// Of the runs.
    pub mb_per_s: Spread,
    /// Of the runs.
    pub cpu_seconds_per_million: Spread,
    /// Of the runs.
    pub rss_peak_bytes: Spread,
    /// Of the runs.
    pub fsyncs: Spread,
    /// Of the runs.
    pub fsync_p50_us: Spread,
    /// Of the runs.
    pub fsync_p99_us: Spread,
    /// At least one run was.
    pub too_short: bool,
    /// All runs were.
    pub exact: bool,
    /// How the runs were checked.
    pub checked: Checked,
}

/// Medians next to each other; none where a mode was not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Ratios {
    /// Records a second.
    pub receiver_to_direct: Option<f64>,
    /// Records a second.
    pub receiver_to_consume: Option<f64>,
    /// CPU time for a record.
    pub cpu_receiver_to_consume: Option<f64>,
    /// Records a second.
    pub direct_to_consume: Option<f64>,
    /// Records a second.
    pub receiver_to_receiver_os: Option<f64>,
    /// Records a second.
    pub receiver_to_receiver_memory: Option<f64>,
}

/// What was found at one point.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PointReport {
    /// The sizes.
    #[serde(flatten)]
    pub point: Point,
    /// Mode by mode, in the order of the runs.
    pub modes: Vec<ModeSummary>,
    /// Their medians next to each other.
    pub ratios: Ratios,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Name and version of this document.
    pub schema: &'static str,
    /// Where it ran.
    pub machine: Machine,
    /// The embedded broker, or `host:port,…`.
    pub kafka: String,
    /// Where records went.
    pub sink: SinkKind,
    /// `KEY=VALUE` that all measured processes had.
    pub settings: Vec<String>,
    /// Further settings while latency was measured.
    pub latency_settings: Vec<String>,
    /// Each run, in the order of time.
    pub runs: Vec<Run>,
    /// Those of the first point.
    pub ratios: Ratios,
    /// Each point's conclusions.
    pub points: Vec<PointReport>,
    /// Mode by mode.
    pub latency: Vec<Latency>,
    /// What weakens these numbers.
    pub warnings: Vec<String>,
    /// From start to end.
    pub seconds: f64,
}

impl Report {
    /// Every record of every run was delivered once.
    pub fn is_exact(&self) -> bool {
        let mut deliveries = self.runs.iter().map(|run| run.delivery).chain(self.latency.iter().map(|l| l.delivery));
        deliveries.all(|delivery| delivery.is_exact())
    }
}

/// The conclusions at each point.
pub(super) fn conclude(points: &[Point], modes: &[Mode], runs: &[Run]) -> Vec<PointReport> {
    let at = |(index, point): (usize, &Point)| {
        let of = |mode: &Mode| {
            let runs: Vec<_> = runs.iter().filter(|run| run.point == index && run.mode == *mode).collect();
            summarize(*mode, &runs)
        };
        let modes: Vec<_> = modes.iter().filter_map(of).collect();
        PointReport { point: point.clone(), ratios: ratios(&modes), modes }
    };
    points.iter().enumerate().map(at).collect()
}

fn summarize(mode: Mode, runs: &[&Run]) -> Option<ModeSummary> {
    let spread = |value: fn(&Run) -> f64| Spread::of(runs.iter().map(|run| value(run)));
    Some(ModeSummary {
        mode,
        runs: runs.len(),
        records_per_s: spread(|run| run.measured.records_per_s)?,
        mb_per_s: spread(|run| run.mb_per_s)?,
        cpu_seconds_per_million: spread(|run| run.cpu_seconds_per_million)?,
        rss_peak_bytes: spread(|run| run.measured.rss_peak_bytes as f64)?,
        fsyncs: spread(|run| run.measured.fsyncs as f64)?,
        fsync_p50_us: spread(|run| run.measured.fsync_p50_us as f64)?,
        fsync_p99_us: spread(|run| run.measured.fsync_p99_us as f64)?,
        too_short: runs.iter().any(|run| run.too_short),
        exact: runs.iter().all(|run| run.delivery.is_exact()),
        checked: runs.first()?.delivery.checked,
    })
}

fn ratios(modes: &[ModeSummary]) -> Ratios {
    let of = |mode, value: fn(&ModeSummary) -> f64| modes.iter().find(|summary| summary.mode == mode).map(value);
    let rate = |mode| of(mode, |summary| summary.records_per_s.median);
    let cpu = |mode| of(mode, |summary| summary.cpu_seconds_per_million.median);
    let receiver = rate(Mode::Receiver);
    Ratios {
        receiver_to_direct: ratio(receiver, rate(Mode::Direct)),
        receiver_to_consume: ratio(receiver, rate(Mode::Consume)),
        cpu_receiver_to_consume: ratio(cpu(Mode::Receiver), cpu(Mode::Consume)),
        direct_to_consume: ratio(rate(Mode::Direct), rate(Mode::Consume)),
        receiver_to_receiver_os: ratio(receiver, rate(Mode::ReceiverOs)),
        receiver_to_receiver_memory: ratio(receiver, rate(Mode::ReceiverMemory)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mode: Mode, index: usize, records_per_s: f64, cpu_seconds: f64) -> Run {
        let seconds = 1_000_000.0 / records_per_s;
        let measured = Measured {
            records: 1_000_000,
            bytes: 100_000_000,
            seconds,
            records_per_s,
            cpu_seconds,
            ..Measured::default()
        };
        Run::new(mode, 1, (index, &point()), measured, Delivery::counted(1, 1))
    }

    fn point() -> Point {
        Point { sweep: None, records: 1_000_000, record_bytes: 100, partitions: 4, receivers: 1, block_bytes: None }
    }

    #[test]
    fn a_run_gets_its_rates_and_is_flagged_when_short() {
        let short = run(Mode::Receiver, 0, 500_000.0, 2.5);
        assert!(short.too_short);
        assert_eq!((short.mb_per_s, short.cpu_seconds_per_million), (50.0, 2.5));
        assert!(!run(Mode::Receiver, 0, 300_000.0, 2.5).too_short);
    }

    #[test]
    fn ratios_are_those_of_the_medians_of_their_point() {
        let runs = [
            run(Mode::Receiver, 0, 100.0, 3.0),
            run(Mode::Receiver, 0, 900.0, 3.0),
            run(Mode::Receiver, 0, 300.0, 6.0),
            run(Mode::Consume, 0, 400.0, 2.0),
            run(Mode::Direct, 1, 50.0, 1.0),
            run(Mode::Receiver, 1, 100.0, 1.0),
        ];
        let modes = [Mode::Consume, Mode::Direct, Mode::Receiver, Mode::ReceiverOs];
        let points = conclude(&[point(), point()], &modes, &runs);
        assert_eq!(points[0].ratios.receiver_to_consume, Some(0.75));
        assert_eq!(points[0].ratios.cpu_receiver_to_consume, Some(1.5));
        assert_eq!(points[0].ratios.receiver_to_direct, None);
        assert_eq!(points[1].ratios.receiver_to_direct, Some(2.0));
        assert_eq!(points[1].ratios.receiver_to_consume, None);
        assert_eq!(points[0].modes.len(), 2);
        let receiver = &points[0].modes[1];
        assert_eq!(receiver.records_per_s, Spread { median: 300.0, min: 100.0, max: 900.0 });
        assert_eq!((receiver.runs, receiver.too_short, receiver.exact), (3, false, true));
    }
}
