//! From the moment a record is due at the producer to the moment its line comes out of the measured process.
//!
//! Promises: both moments are read from the same clock, in this process. A record counts from when it was *due*, so that a
//! stalled producer or broker shows as latency and does not hide it. The line comes through a pipe from the sink `stdout`:
//! after the record was durable, committed and delivered. Every record of the run is looked for exactly once.

use super::child::{self, Child, Common};
use super::cluster::Cluster;
use super::exact::{Delivery, Tally};
use super::plan::{Mode, Point};
use super::stats::quantile;
use super::value::{VALUE_BYTES_MIN, Value};
use super::watch::Stop;
use crate::cli::exit::Failure;
use crate::clock;
use serde::Serialize;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Settings of the measured process: nothing waits for more to come.
const SETTINGS: [&str; 2] = ["sink.batch_age=0s", "sink.format=raw"];
/// The embedded broker answers an empty fetch only after the whole wait, also if a record comes meanwhile.
pub(super) const EMBEDDED_WAIT: &str = "fetch.wait.max.ms=2";
const PARTITIONS: u64 = 4;
/// The embedded broker looks for each offset from the beginning of its partition on: with few partitions, or with all of
/// them growing at once, that would soon be all that is measured. So each of many grows for a while, one after the other.
const PARTITIONS_EMBEDDED: u64 = 32;
const TURNS_A_SECOND: u64 = 4;
/// After the first record has come, this long is not measured.
const WARM: Duration = Duration::from_millis(500);
/// The first record, and the last ones, come within this.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);
/// Bytes of a pipe's worth of lines.
const BUFFER_BYTES: usize = 1 << 16;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Records a second.
    pub rate: u64,
    /// For how long.
    pub seconds: u64,
    /// Of a value.
    pub record_bytes: u64,
}

/// The latency of a mode.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Latency {
    /// What was measured.
    pub mode: Mode,
    /// Records a second that were due.
    pub rate: u64,
    /// Records measured.
    pub records: u64,
    /// Half of them took no longer; and so on.
    pub p50_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1,000.
    pub p999_us: u64,
    /// All.
    pub max_us: u64,
    /// Each record of the whole run, the unmeasured beginning included.
    pub delivery: Delivery,
}

/// When lines came.
#[derive(Default)]
struct Arrivals {
    /// Micros since the first line; 0 before it.
    first: AtomicU64,
    seen: Mutex<Vec<(Value, u64)>>,
}

/// `KEY=VALUE` that the measured process gets besides those of the benchmark.
pub(super) fn settings(embedded: bool) -> Vec<String> {
    let wait = embedded.then(|| format!("kafka.properties.{EMBEDDED_WAIT}"));
    SETTINGS.iter().map(ToString::to_string).chain(wait).collect()
}

/// Measures one mode on a topic of its own.
pub(super) fn measure(
    cluster: &Cluster,
    common: &Common,
    mode: Mode,
    load: Load,
    (name, dir): (&str, &Path),
    stop: &Stop,
) -> Result<Latency, Failure> {
    cluster.create(name, partitions(cluster))?;
    let result = measure_on(cluster, common, mode, load, (name, dir), stop);
    cluster.delete(name);
    result
}

fn measure_on(
    cluster: &Cluster,
    common: &Common,
    mode: Mode,
    load: Load,
    (topic, dir): (&str, &Path),
    stop: &Stop,
) -> Result<Latency, Failure> {
    let mut child = start(cluster, common, mode, topic, dir)?;
    let arrivals = Arc::new(Arrivals::default());
    let (to, out) = (Arc::clone(&arrivals), child.stdout());
    let reader = std::thread::spawn(move || out.map_or(Ok(()), |out| read(out, &to)));
    let length = Duration::from_secs(load.seconds);
    let given_up = clock::monotonic() + PATIENCE;
    // The pipe ends when the process does.
    let due = |at: Duration| {
        !reader.is_finished()
            && match arrivals.first.load(Ordering::Acquire) {
                0 => at < given_up,
                first => at < Duration::from_micros(first) + WARM + length,
            }
    };
    let bytes = load.record_bytes.max(VALUE_BYTES_MIN as u64);
    let run = if cluster.is_embedded() { (load.rate / TURNS_A_SECOND).max(1) } else { 1 };
    let extents = cluster.pace((topic, partitions(cluster), run), load.rate, bytes, stop, due)?;
    let expected: u64 = extents.iter().map(|(first, next)| next - first).sum();
    let until = Instant::now() + PATIENCE;
    let count = || arrivals.seen.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
    while count() < expected && Instant::now() < until {
        if let Some(status) = child.ended(stop)? {
            return Err(child.failure(&format!("ended by itself ({status}) while its latency was measured")));
        }
        std::thread::sleep(LOOK);
    }
    let first = arrivals.first.load(Ordering::Acquire);
    if first == 0 {
        return Err(child.failure(&format!("delivered nothing within {PATIENCE:?}")));
    }
    // Doubles of the last records would come at once.
    std::thread::sleep(WARM / 5);
    drop(child);
    // The pipe has ended with the process.
    let _ = reader.join();
    let seen = arrivals.seen.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(judge(mode, load.rate, &seen, Duration::from_micros(first) + WARM, &extents))
}

fn partitions(cluster: &Cluster) -> u64 {
    if cluster.is_embedded() { PARTITIONS_EMBEDDED } else { PARTITIONS }
}

fn start(cluster: &Cluster, common: &Common, mode: Mode, topic: &str, dir: &Path) -> anyhow::Result<Child> {
    let mut common = common.clone();
    common.set.extend(settings(cluster.is_embedded()));
    if cluster.is_embedded() {
        common
            .properties
            .extend(EMBEDDED_WAIT.split_once('=').map(|(name, value)| (name.to_string(), value.to_string())));
    }
    let partitions = partitions(cluster);
    let point = Point { sweep: None, records: 0, record_bytes: 0, partitions, receivers: 1, block_bytes: None };
    let mut command = child::command(&common, mode, topic, &point, (topic, dir))?;
    if mode == Mode::Consume {
        command.arg("--follow");
    } else {
        command.args(["--sink", "stdout"]);
    }
    Child::start(command, mode, dir, Stdio::piped())
}

/// Notes when each line came: the moment its part of the pipe was read.
fn read(out: ChildStdout, arrivals: &Arrivals) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, out);
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let taken = reader.fill_buf()?;
        if taken.is_empty() {
            return Ok(());
        }
        let at = clock::monotonic().as_micros() as u64;
        let length = taken.len();
        rest.extend_from_slice(taken);
        reader.consume(length);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if whole == 0 {
            continue;
        }
        let unknown = Value { partition: u64::MAX, sequence: 0, micros: at };
        let lines = rest[..whole - 1].split(|byte| *byte == b'\n');
        let values = lines.map(|line| (Value::read(line).unwrap_or(unknown), at));
        arrivals.seen.lock().unwrap_or_else(PoisonError::into_inner).extend(values);
        // Only the first of them is kept.
        let _ = arrivals.first.compare_exchange(0, at, Ordering::AcqRel, Ordering::Acquire);
        rest.drain(..whole);
    }
}

fn judge(mode: Mode, rate: u64, seen: &[(Value, u64)], from: Duration, extents: &[(u64, u64)]) -> Latency {
    let mut tally = Tally::new(extents);
    let mut took = Vec::with_capacity(seen.len());
    for (value, at) in seen {
        tally.add(value.partition, value.sequence);
        if u128::from(value.micros) >= from.as_micros() {
            took.push(at.saturating_sub(value.micros));
        }
    }
    took.sort_unstable();
    let at = |p| quantile(&took, p).unwrap_or_default();
    Latency {
        mode,
        rate,
        records: took.len() as u64,
        p50_us: at(0.5),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: at(1.0),
        delivery: tally.finish(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_due_before_the_start_are_looked_for_but_not_measured() {
        let value = |sequence, micros| Value { partition: 0, sequence, micros };
        let seen = [(value(0, 10), 900_010), (value(1, 2_000_000), 2_000_300), (value(2, 2_000_100), 2_000_500)];
        let latency = judge(Mode::Receiver, 10, &seen, Duration::from_secs(1), &[(0, 3)]);
        assert_eq!((latency.records, latency.p50_us, latency.max_us), (2, 300, 400));
        assert!(latency.delivery.is_exact());
        let again = [seen[0], seen[1], seen[1]];
        let latency = judge(Mode::Receiver, 10, &again, Duration::from_secs(1), &[(0, 3)]);
        assert_eq!((latency.delivery.lost, latency.delivery.doubled), (1, 1));
    }
}
