//! What the running pipeline looks like: the snapshot for `/status` and `/readyz`, and the gauges.

use super::Snapshot;
use super::snapshot::{Damage, Gap, Partition as Row, PartitionState, Receiver, Sink, Wal};
use super::supervise::Running;
use crate::receiver::{Idle, View};
use crate::record::Partition;
use crate::wal::GapRange;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(super) use super::snapshot::Phase;

/// Looks at everything once.
pub(super) fn snapshot(running: &Running, phase: Phase) -> Snapshot {
    let views = running.shared.views.all();
    let status = running.log.status();
    let retrying = running.progress.retrying.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Snapshot {
        mode: match running.config.mode {
            crate::config::Mode::Receiver => super::snapshot::Mode::Receiver,
            crate::config::Mode::Direct => super::snapshot::Mode::Direct,
        },
        phase,
        uptime_seconds: running.started.elapsed().as_secs_f64(),
        wal: Wal {
            dir: running.config.wal.dir.display().to_string(),
            id: format!("{:032x}", running.log.wal_id()),
            segments: status.segments as u64,
            bytes: status.bytes,
            max_bytes: running.config.wal.max_bytes,
            durable_lsn: running.log.durable_lsn(),
            full: status.is_full,
            damage: damage(running),
        },
        receivers: views.iter().enumerate().map(receiver).collect(),
        sink: Sink {
            target: running.config.sink.target.as_ref().map_or_else(String::new, ToString::to_string),
            retries: running.metrics.sink_retries.get(),
            waiting: retrying.clone(),
        },
        rate: running.shared.governor.in_force().rate,
        partitions: partitions(running, &views),
        gaps: gaps(running),
        reasons_not_ready: reasons(running, &views, status.is_full, retrying),
    }
}

fn damage(running: &Running) -> Damage {
    let counts = running.log.repairs().counts();
    Damage {
        scrubbed_bytes: running.metrics.wal_scrubbed_bytes.get(),
        scrub_found: running.metrics.wal_scrub_damaged.get(),
        waiting: counts.waiting as u64,
        given_up: counts.given_up as u64,
        repaired: running.metrics.wal_repaired_blocks.get(),
        repair_files: counts.kept as u64,
    }
}

fn receiver((number, view): (usize, &View)) -> Receiver {
    Receiver {
        number: number as u32,
        joined: view.joined,
        partitions: view.partitions.len(),
        paused: if view.paused { view.partitions.len() } else { 0 },
        by_librdkafka: view.by_client,
        error: view.trouble.clone(),
    }
}

fn reasons(running: &Running, views: &[View], full: bool, retrying: Option<String>) -> Vec<String> {
    let mut reasons = Vec::new();
    for (number, view) in views.iter().enumerate() {
        if let Some(trouble) = &view.trouble {
            reasons.push(format!("kafka ({}): {trouble}", running.config.kafka.brokers));
        } else if !view.joined {
            reasons.push(format!("receiver {number} has not joined group {:?} yet", running.config.kafka.group));
        }
        reasons.extend(view.waiting.iter().chain(&view.parked).chain(&view.held).map(ToString::to_string));
    }
    if full {
        reasons.push(format!("the log in {} is full (disk or wal.max_bytes)", running.config.wal.dir.display()));
    }
    reasons.extend(retrying.map(|why| format!("sink: {why}")));
    reasons.extend(running.corrupt());
    reasons
}

fn partitions(running: &Running, views: &[View]) -> Vec<Row> {
    let mut owned = Owned { times: running.shared.gaps.times_to_loss(), ..Owned::default() };
    for view in views {
        for (topic, partition, next, end) in &view.partitions {
            owned.taken.insert((topic.clone(), *partition), (*next, *end, view.paused));
        }
        for (idle, state) in idle(view) {
            owned.idle.insert((idle.topic.clone(), idle.partition), (state, idle.why.clone()));
        }
    }
    let table = running.shared.table.lock().unwrap_or_else(PoisonError::into_inner);
    let rows: Vec<_> = table.rows().collect();
    drop(table);
    let mut shown: Vec<Row> =
        rows.into_iter().filter_map(|(partition, row)| show(running, &owned, partition, row.tenure)).collect();
    let known: BTreeSet<_> = shown.iter().map(|row| (row.topic.clone(), row.partition)).collect();
    // Never opened: the log does not know it yet.
    let unknown = owned.idle.into_iter().filter(|(named, _)| !known.contains(named));
    shown.extend(unknown.map(|((topic, partition), (state, why))| Row {
        topic,
        partition,
        state,
        reason: Some(why),
        ..Row::default()
    }));
    shown.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    shown
}

/// What is assigned to the receivers of this process, by topic and partition.
#[derive(Default)]
struct Owned {
    /// Fetched: next offset, Kafka's end, whether it is paused.
    taken: BTreeMap<(String, i32), (i64, Option<i64>, bool)>,
    /// Not fetched: why.
    idle: BTreeMap<(String, i32), (PartitionState, String)>,
    times: BTreeMap<(String, i32), Duration>,
}

/// Assigned partitions that do not open by themselves in a moment.
fn idle(view: &View) -> impl Iterator<Item = (&Idle, PartitionState)> {
    let parked = view.parked.iter().map(|idle| (idle, PartitionState::Paused));
    parked.chain(view.held.iter().map(|idle| (idle, PartitionState::Held)))
}

fn gaps(running: &Running) -> Vec<Gap> {
    let show = |(partition, range): (Partition, GapRange)| {
        let topic = running.shared.topics.get(partition.topic)?;
        let GapRange { first, next, reason } = range;
        let incarnation = topic.incarnation;
        Some(Gap { topic: topic.name, incarnation, partition: partition.number, first, next, reason })
    };
    running.shared.gaps.declared().into_iter().filter_map(show).collect()
}

fn show(running: &Running, all: &Owned, partition: Partition, tenure: u32) -> Option<Row> {
    let topic = running.shared.topics.get(partition.topic)?;
    let is_newest = running.shared.topics.newest(&topic.name).is_some_and(|newest| newest.number == topic.number);
    let named = (topic.name.clone(), partition.number);
    let owned = all.taken.get(&named).filter(|_| is_newest);
    let idle = all.idle.get(&named).filter(|_| is_newest && owned.is_none());
    let marks = running.log.marks(partition);
    let durable = marks.durable.load(Ordering::Acquire);
    let acked = marks.acked();
    let delivered = marks.delivered.load(Ordering::Acquire);
    if owned.is_none() && idle.is_none() && delivered >= durable {
        return None;
    }
    let end = owned.and_then(|(_, end, _)| *end);
    let behind = |end: i64| u64::try_from(end - delivered.max(0)).unwrap_or(0);
    Some(Row {
        topic: topic.name,
        partition: partition.number,
        state: match (owned, idle) {
            (None, Some((state, _))) => *state,
            (None, None) => PartitionState::Leaving,
            (Some((_, _, true)), _) => PartitionState::Paused,
            (Some(_), _) => PartitionState::Active,
        },
        tenure,
        admitted: owned.map_or(durable, |(next, _, _)| *next),
        durable,
        acked: (acked >= 0).then_some(acked),
        delivered,
        end,
        lag: end.map(behind),
        time_to_loss_seconds: all.times.get(&named).filter(|_| owned.is_some()).map(Duration::as_secs),
        reason: idle.map(|(_, why)| why.clone()),
    })
}

/// Sets the gauges that nobody else sets.
pub(super) fn gauges(running: &Running, snapshot: &Snapshot) {
    let metrics = &running.metrics;
    metrics.queue_bytes.set(running.log.queued_bytes() as i64);
    metrics.wal_full.set(i64::from(snapshot.wal.full));
    metrics.rate_records_per_second.set(snapshot.rate.map_or(-1, |rate| rate as i64));
    for row in snapshot.partitions.iter().filter(|row| row.state != PartitionState::Leaving) {
        let series = metrics.partition(&row.topic, row.partition);
        series.admitted.set(row.admitted);
        series.durable.set(row.durable);
        series.delivered.set(row.delivered);
        series.lag.set(row.lag.unwrap_or(0) as i64);
    }
}
