//! The course of a benchmark: fill a topic, let the modes take turns, check what each delivered, then the latencies.
//!
//! Promises: what the report says of a run is what its process told and what its output holds.

use super::args::{CompareArgs, SinkKind};
use super::child::{self, Child, Common};
use super::cluster::Cluster;
use super::exact::{self, Delivery, Extents, Lines};
use super::latency::{self, Latency, Load};
use super::machine::{Machine, memory_available};
use super::plan::{self, Axis, Mode, Plan, Point, Room};
use super::report::{Measured, Report, Run, conclude};
use super::watch::{Stop, bar};
use super::{disk, scratch};
use crate::cli::exit::{Failure, IO, USAGE};
use crate::clock;
use anyhow::{Context, anyhow};
use indicatif::ProgressBar;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Rounds unless told, and when no further one is begun.
const ROUNDS: u32 = 3;
const ROUNDS_TIME: Duration = Duration::from_secs(70);
/// Records of the run that tells how many make a run long enough, and how long that is, with some to spare.
const PROBE_RECORDS: u64 = 2_000_000;
const RUN_SECONDS: f64 = 4.0;
/// Log and output of a run, and what a run before left to be removed.
const SPACE_FACTOR: u64 = 3;
/// What a record takes there besides its value, at most in the format `raw`.
const OVERHEAD: u64 = 32;

/// A running benchmark.
struct Bench<'a> {
    args: &'a CompareArgs,
    common: Common,
    dir: PathBuf,
    stop: Stop,
    bar: ProgressBar,
    /// Processes started so far.
    started: u64,
    runs: Vec<Run>,
}

/// Records to be measured.
struct Records {
    /// Lives as long as its records are needed: an embedded one holds them.
    _cluster: Cluster,
    topic: String,
    extents: Extents,
    /// What every mode has to deliver.
    expected: u64,
    /// The values say which record they are.
    own: bool,
}

/// Runs everything.
pub(super) fn run(args: &CompareArgs) -> Result<Report, Failure> {
    let begin = Instant::now();
    let stop = Stop::on_signals()?;
    let usage = |error: String| Failure::new(USAGE, anyhow!(error));
    let room = Room { memory: memory_available() / 4, records: PROBE_RECORDS };
    let mut plan = plan::plan(args, room).map_err(usage)?;
    // What was asked for comes later and wins.
    let embedded = args.brokers.is_none().then(|| format!("kafka.properties.{}", latency::EMBEDDED_WAIT));
    let set: Vec<String> = embedded.into_iter().chain(args.set.iter().cloned()).collect();
    let common = Common { brokers: String::new(), properties: properties(&set).map_err(usage)?, set };
    let folder = scratch(args.dir.as_deref())?;
    let io = |error| Failure::new(IO, anyhow::Error::new(error));
    let syncs = disk::quick(folder.path(), &stop)?;
    let mut warnings = Vec::new();
    if args.sink != SinkKind::Null || plan.modes.iter().any(|mode| *mode != Mode::Consume) {
        warnings = disk::doubts(&crate::io::volume::Volume::of(folder.path()).map_err(io)?, disk::judged(&syncs));
    }
    let machine = Machine::of(folder.path(), syncs).map_err(io)?;
    let rounds = u64::from(args.runs.unwrap_or(ROUNDS));
    let latencies = if args.latency_rate > 0 { plan.modes.len() } else { 0 } as u64;
    let bar = bar(plan.points.len() as u64 * (rounds * plan.modes.len() as u64 + 1) + latencies);
    let mut bench = Bench { args, common, dir: folder.path().to_path_buf(), stop, bar, started: 0, runs: Vec::new() };
    has_room(&plan, machine.free_bytes)?;
    if let Some(records) = bench.probe(&plan)? {
        let most = machine.free_bytes / SPACE_FACTOR / (args.record_bytes + OVERHEAD);
        plan = plan::plan(args, Room { records: records.min(most), ..room }).map_err(usage)?;
        has_room(&plan, machine.free_bytes)?;
    }
    bench.points(&mut plan)?;
    let latency = bench.latencies(&plan.modes)?;
    bench.bar.finish_and_clear();
    let points = conclude(&plan.points, &plan.modes, &bench.runs);
    warnings.extend(doubts(&bench.runs));
    Ok(Report {
        schema: "forebay.bench/1",
        machine,
        kafka: args.brokers.clone().unwrap_or_else(|| "embedded".to_string()),
        sink: args.sink,
        settings: args.set.clone(),
        latency_settings: latency::settings(args.brokers.is_none()),
        ratios: points.first().map(|point| point.ratios).unwrap_or_default(),
        points,
        runs: bench.runs,
        latency,
        warnings,
        seconds: begin.elapsed().as_secs_f64(),
    })
}

fn doubts(runs: &[Run]) -> Vec<String> {
    let mut doubts = Vec::new();
    let short = runs.iter().filter(|run| run.too_short).count();
    if short > 0 {
        doubts.push(format!(
            "{short} of {} runs took less than 3 s, too short to judge: give more --records",
            runs.len()
        ));
    }
    let inexact = runs.iter().filter(|run| !run.delivery.is_exact()).count();
    if inexact > 0 {
        doubts.push(format!("{inexact} of {} runs did not deliver each record once", runs.len()));
    }
    doubts
}

/// The librdkafka settings among the settings: every client of the benchmark needs them.
fn properties(set: &[String]) -> Result<Vec<(String, String)>, String> {
    let mut properties = Vec::new();
    for setting in set {
        let (key, value) = setting.split_once('=').ok_or_else(|| format!("--set {setting} is not KEY=VALUE"))?;
        if let Some(name) = key.strip_prefix("kafka.properties.") {
            properties.push((name.to_string(), value.to_string()));
        }
    }
    Ok(properties)
}

fn has_room(plan: &Plan, free: u64) -> Result<(), Failure> {
    let most = plan.points.iter().map(|point| point.records * (point.record_bytes + OVERHEAD)).max().unwrap_or(0);
    if free >= most * SPACE_FACTOR {
        return Ok(());
    }
    let need = most * SPACE_FACTOR / 1_000_000;
    let error = anyhow!(
        "log and output need {need} MB, {} MB are free; give fewer --records or another --dir",
        free / 1_000_000
    );
    Err(Failure::new(USAGE, error))
}

impl Bench<'_> {
    /// How many records make a run long enough, where that is ours to choose: from one run that counts for nothing.
    fn probe(&mut self, plan: &Plan) -> Result<Option<u64>, Failure> {
        let modes = || plan.modes.iter().copied().filter(|mode| *mode != Mode::Consume);
        let mode = modes().find(|mode| *mode == Mode::Receiver).or_else(|| modes().next());
        let (Some(mode), None, None) = (mode, self.args.records, &self.args.brokers) else { return Ok(None) };
        let mut point = plan.points[0].clone();
        let records = self.records(&mut point)?;
        self.bar.set_message("one run to see how many records are enough");
        let (measured, _) = self.one(mode, &point, &records)?;
        Ok(Some((measured.records_per_s * RUN_SECONDS) as u64))
    }

    /// All points, those on the same records one after the other.
    fn points(&mut self, plan: &mut Plan) -> Result<(), Failure> {
        let mut records: Option<(Point, Records)> = None;
        for index in 0..plan.points.len() {
            let point = &mut plan.points[index];
            if records.as_ref().is_none_or(|(of, _)| !of.same_records(point)) {
                // The embedded broker's memory is given back before the next one takes it.
                drop(records.take());
                let asked = point.clone();
                let filled = self.records(point)?;
                records = Some((asked, filled));
            } else if let Some((_, records)) = &records {
                (point.records, point.partitions) = (records.expected, records.extents.len() as u64);
            }
            self.bar.inc(1);
            if let Some((_, records)) = &records {
                self.rounds(index, &plan.points[index], &plan.modes, records)?;
            }
        }
        Ok(())
    }

    fn rounds(&mut self, index: usize, point: &Point, modes: &[Mode], records: &Records) -> Result<(), Failure> {
        let begin = Instant::now();
        let mut longest = Duration::ZERO;
        for round in 1..=self.args.runs.unwrap_or(ROUNDS) {
            let this = Instant::now();
            for mode in modes {
                self.bar.set_message(format!("round {round}: {}", mode.name()));
                let (measured, delivery) = self.one(*mode, point, records)?;
                self.runs.push(Run::new(*mode, round, (index, point), measured, delivery));
                self.bar.inc(1);
            }
            longest = longest.max(this.elapsed());
            if self.args.runs.is_none() && begin.elapsed() + longest > ROUNDS_TIME {
                break;
            }
        }
        Ok(())
    }

    /// The records of a point: made, or found in the topic that was named.
    fn records(&mut self, point: &mut Point) -> Result<Records, Failure> {
        let (cluster, topic) = match (&self.args.brokers, &self.args.topic) {
            (Some(brokers), Some(topic)) => {
                (Cluster::at(brokers, &self.common.properties), self.topic_of(topic, point))
            }
            _ => (Cluster::embedded(&self.common.properties)?, "bench".to_string()),
        };
        self.common.brokers.clone_from(&cluster.brokers);
        let found = cluster.extents(&topic)?;
        let held = found.as_ref().is_some_and(|extents| extents.iter().any(|(low, high)| low < high));
        match found {
            Some(extents) if held => return self.found(cluster, topic, extents, point),
            Some(extents) => {
                let partitions = extents.len() as u64;
                point.records = point.records.div_ceil(partitions) * partitions;
                point.partitions = partitions;
            }
            None => cluster.create(&topic, point.partitions)?,
        }
        let bar = self.bar.clone();
        let mut made = 0;
        let of = point.records;
        let extents = cluster.fill(&topic, point.partitions, point.each(), point.record_bytes, &self.stop, |more| {
            made += more;
            bar.set_message(format!("producing {} %", made * 100 / of));
        })?;
        Ok(Records { _cluster: cluster, topic, extents, expected: point.records, own: true })
    }

    /// A topic that holds records already: consumed once, which counts them and warms the broker's cache.
    fn found(
        &mut self,
        cluster: Cluster,
        topic: String,
        extents: Extents,
        point: &mut Point,
    ) -> Result<Records, Failure> {
        let own = cluster.holds_values(&topic, &extents)?;
        let expected = extents.iter().map(|(low, high)| high - low).sum();
        let mut records = Records { _cluster: cluster, topic, extents, expected, own };
        self.bar.set_message("consuming once before the rounds");
        let (counted, _) = self.one(Mode::Consume, point, &records)?;
        if !own {
            // Offsets without records: markers of transactions, compaction.
            records.expected = counted.records / counted.passes.max(1);
        }
        point.records = records.expected;
        point.partitions = records.extents.len() as u64;
        point.record_bytes = counted.bytes / counted.records.max(1);
        Ok(records)
    }

    /// With a sweep over what a topic is, each point has its own.
    fn topic_of(&self, topic: &str, point: &Point) -> String {
        let varied = |axis| self.args.sweep.iter().any(|sweep| sweep.axis == axis);
        if varied(Axis::RecordBytes) || varied(Axis::Partitions) {
            format!("{topic}-{}b-{}p", point.record_bytes, point.partitions)
        } else {
            topic.to_string()
        }
    }

    /// One process, from its start to the check of its output.
    fn one(&mut self, mode: Mode, point: &Point, records: &Records) -> Result<(Measured, Delivery), Failure> {
        self.stop.check()?;
        let (name, dir) = self.next(mode)?;
        let mut command = child::command(&self.common, mode, &records.topic, point, (&name, &dir))?;
        child::to_end(&mut command, mode, self.args.sink, &dir);
        let told = dir.join("summary.json");
        let stdout = File::create(&told).with_context(|| format!("cannot create {}", told.display()))?;
        let mut child = Child::start(command, mode, &dir, stdout.into())?;
        child.wait(&self.stop)?;
        let told = std::fs::read(&told)?;
        let measured: Measured = serde_json::from_slice(&told)
            .map_err(|error| child.failure(&format!("ended without a summary ({error})")))?;
        let delivery = self.check(mode, &measured, records, &dir)?;
        std::fs::remove_dir_all(&dir)?;
        Ok((measured, delivery))
    }

    fn check(&self, mode: Mode, measured: &Measured, records: &Records, dir: &Path) -> anyhow::Result<Delivery> {
        let counted = Delivery::counted(records.expected * measured.passes, measured.records);
        let lines = match self.args.sink {
            SinkKind::Raw => Lines::Raw,
            SinkKind::Jsonl => Lines::Jsonl,
            SinkKind::Null => return Ok(counted),
        };
        if mode == Mode::Consume || !records.own {
            return Ok(counted);
        }
        let mut found = exact::read(&dir.join("out"), &records.topic, lines, &records.extents)?;
        // The process's own count must agree with what it wrote.
        found.lost = found.lost.max(counted.lost);
        found.doubled = found.doubled.max(counted.doubled);
        Ok(found)
    }

    fn latencies(&mut self, modes: &[Mode]) -> Result<Vec<Latency>, Failure> {
        let args = self.args;
        if args.latency_rate == 0 {
            return Ok(Vec::new());
        }
        let load = Load { rate: args.latency_rate, seconds: args.latency_seconds, record_bytes: args.record_bytes };
        let cluster = match &args.brokers {
            Some(brokers) => Cluster::at(brokers, &self.common.properties),
            None => Cluster::embedded(&self.common.properties)?,
        };
        self.common.brokers.clone_from(&cluster.brokers);
        let mut latencies = Vec::new();
        for mode in modes {
            self.bar.set_message(format!("latency: {}", mode.name()));
            let (name, dir) = self.next(*mode)?;
            let common = &self.common;
            latencies.push(latency::measure(&cluster, common, *mode, load, (&name, &dir), &self.stop)?);
            std::fs::remove_dir_all(&dir)?;
            self.bar.inc(1);
        }
        Ok(latencies)
    }

    /// A name no group or topic has, and a folder for the next process.
    fn next(&mut self, mode: Mode) -> std::io::Result<(String, PathBuf)> {
        self.started += 1;
        let name =
            format!("forebay-bench-{}-{}-{}-{}", mode.name(), clock::wall_ms(), std::process::id(), self.started);
        let dir = self.dir.join(self.started.to_string());
        std::fs::create_dir(&dir)?;
        Ok((name, dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn librdkafka_settings_reach_every_client() {
        let set = ["kafka.properties.sasl.username=a=b", "kafka.fence=none"].map(str::to_string);
        assert_eq!(properties(&set).unwrap(), [("sasl.username".to_string(), "a=b".to_string())]);
        assert!(properties(&["kafka.fence".to_string()]).unwrap_err().contains("KEY=VALUE"));
    }
}
