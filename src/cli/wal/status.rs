//! `forebay wal status`: each partition's watermarks, and what the log keeps.

use super::super::args::WalArgs;
use super::super::exit::Failure;
use super::super::output::{Format, bytes, plain, print, screen, table, thousands};
use super::dump::Planned;
use super::{Names, look, verdict};
use crate::io::disk::Disk;
use crate::record::{Partition, batch};
use crate::wal::inspect::{Dumped, Overview, dump};
use crate::wal::{Entry, GapRange, OpenPlan, PartitionState, State};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

const SCHEMA: &str = "forebay.wal.status/1";

/// A log at one moment. The names are stable.
#[derive(Serialize)]
struct Status {
    schema: &'static str,
    wal_id: String,
    segments: usize,
    bytes: u64,
    needed_segments: usize,
    last_lsn: u64,
    undelivered_records: u64,
    /// Timestamp of the first undelivered record, ms since 1970.
    oldest_undelivered_ms: Option<i64>,
    damaged: bool,
    /// Damaged blocks that are to be delivered and not repaired.
    damaged_blocks: usize,
    /// Blocks that are delivered from repair files, and the bytes of these files.
    repaired_blocks: usize,
    repair_bytes: u64,
    /// Batches of direct mode that are planned and not delivered.
    plans: Vec<Plan>,
    partitions: Vec<Row>,
}

/// An open plan.
#[derive(Serialize)]
struct Plan {
    batch: u64,
    time_ms: i64,
    ranges: Vec<Planned>,
}

/// A partition; offsets are next offsets, `null` where there is none yet.
#[derive(Serialize)]
struct Row {
    topic: String,
    topic_id: Option<String>,
    partition: i32,
    tenure: u32,
    owned: bool,
    admitted: Option<i64>,
    acked: Option<i64>,
    delivered: Option<i64>,
    undelivered_records: u64,
    undelivered_bytes: u64,
    oldest_undelivered_ms: Option<i64>,
    output: Option<String>,
    gaps: Vec<Gap>,
}

/// Offsets Kafka no longer had when they were asked for.
#[derive(Serialize)]
struct Gap {
    first: i64,
    next: i64,
    reason: String,
}

impl Gap {
    fn of(range: &GapRange) -> Self {
        Self { first: range.first, next: range.next, reason: range.reason.clone() }
    }
}

/// What is not delivered of a partition.
#[derive(Clone, Copy, Default)]
struct Rest {
    records: u64,
    bytes: u64,
    oldest_ms: Option<i64>,
}

/// Shows it.
pub(super) fn run(args: &WalArgs) -> Result<i32, Failure> {
    let log = look(&args.dir)?;
    let status = status(&args.dir, &log)?;
    match args.output {
        Format::Json => print(&format!("{:#}\n", serde_json::json!(status)))?,
        Format::Jsonl => {
            let lines = status.partitions.iter().map(|row| format!("{}\n", serde_json::json!(row)));
            print(&lines.collect::<String>())?;
        }
        Format::Table => print(&text(&status))?,
    }
    Ok(verdict(status.damaged))
}

fn status(dir: &Path, log: &Overview) -> Result<Status, Failure> {
    let state = log.state.clone().unwrap_or_default();
    let names = Names::new(Some(&state));
    let rest = rest(dir, log, &state)?;
    let row = |(partition, known): (&Partition, &PartitionState)| {
        let rest = rest.get(partition).copied().unwrap_or_default();
        row(*partition, known, rest, &names)
    };
    Ok(Status {
        schema: SCHEMA,
        wal_id: format!("{:032x}", state.wal_id),
        segments: log.segments.len(),
        bytes: log.segments.iter().map(|segment| segment.bytes).sum(),
        needed_segments: log.segments.iter().filter(|segment| segment.live).count(),
        last_lsn: state.lsn,
        undelivered_records: rest.values().map(|rest| rest.records).sum(),
        oldest_undelivered_ms: rest.values().filter_map(|rest| rest.oldest_ms).min(),
        damaged: log.is_damaged(),
        damaged_blocks: log.damaged_blocks,
        repaired_blocks: log.repairs.0,
        repair_bytes: log.repairs.1,
        plans: state.plans.iter().map(|plan| open_plan(plan, &names)).collect(),
        partitions: state.partitions.iter().map(row).collect(),
    })
}

fn open_plan(plan: &OpenPlan, names: &Names) -> Plan {
    let ranges = plan.ranges.iter().map(|range| Planned::new(range, names)).collect();
    Plan { batch: plan.id, time_ms: plan.time_ms, ranges }
}

/// Reads the needed segments for blocks that are not delivered.
fn rest(dir: &Path, log: &Overview, state: &State) -> Result<BTreeMap<Partition, Rest>, Failure> {
    let mut rest: BTreeMap<Partition, Rest> = BTreeMap::new();
    for segment in log.segments.iter().filter(|segment| segment.live) {
        dump(&Disk, dir, segment.number, &mut |piece| {
            if let Dumped::Frame(header, Some(Entry::Block(block))) = piece
                && !state.is_settled(header.lsn, &block.header)
            {
                let rest = rest.entry(header.partition).or_default();
                rest.records += u64::from(header.count);
                rest.bytes += u64::from(header.payload_len);
                rest.oldest_ms = rest.oldest_ms.or_else(|| first_timestamp(&block.payload));
            }
            true
        })?;
    }
    Ok(rest)
}

fn first_timestamp(payload: &[u8]) -> Option<i64> {
    let payload = batch::unpacked(payload).ok()?;
    let first = batch::records(&payload).next()?.ok()?;
    (first.timestamp >= 0).then_some(first.timestamp)
}

fn row(partition: Partition, known: &PartitionState, rest: Rest, names: &Names) -> Row {
    let offset = |offset: i64| (offset >= 0).then_some(offset);
    let delivery = known.on_route(crate::wal::DEFAULT_ROUTE);
    let id = names.topic(partition.topic).map(|topic| topic.id);
    Row {
        topic: names.name(partition.topic),
        topic_id: id.filter(|id| !id.is_none()).map(|id| id.to_string()),
        partition: partition.number,
        tenure: known.tenure,
        owned: known.owned,
        admitted: offset(known.admitted),
        acked: offset(known.acked),
        delivered: offset(delivery.delivered),
        undelivered_records: rest.records,
        undelivered_bytes: rest.bytes,
        oldest_undelivered_ms: rest.oldest_ms,
        output: delivery.named,
        gaps: known.gaps.iter().map(Gap::of).collect(),
    }
}

fn text(status: &Status) -> String {
    let mut head = plain();
    head.add_row(["log", &status.wal_id]);
    let segments = format!("{}, {} of them needed", status.segments, status.needed_segments);
    head.add_row(["segments", &segments]);
    head.add_row(["bytes", &bytes(status.bytes)]);
    head.add_row(["last LSN", &status.last_lsn.to_string()]);
    if !status.plans.is_empty() {
        head.add_row(["open plans", &status.plans.len().to_string()]);
    }
    if status.damaged_blocks + status.repaired_blocks > 0 {
        let (damaged, repaired) = (status.damaged_blocks, status.repaired_blocks);
        let text = format!("{damaged} to be fetched again, {repaired} repaired ({})", bytes(status.repair_bytes));
        head.add_row(["damaged blocks", &text]);
    }
    head.add_row(["undelivered records", &thousands(status.undelivered_records)]);
    head.add_row(["oldest undelivered", &time(status.oldest_undelivered_ms)]);
    let headings = ["topic", "partition", "tenure", "admitted", "acked", "delivered", "undelivered", "gaps", "output"];
    let mut list = table(headings);
    for row in &status.partitions {
        let offset = |offset: Option<i64>| offset.map_or("-".to_string(), |offset| offset.to_string());
        list.add_row([
            row.topic.clone(),
            row.partition.to_string(),
            format!("{}{}", row.tenure, if row.owned { "" } else { " (ended)" }),
            offset(row.admitted),
            offset(row.acked),
            offset(row.delivered),
            thousands(row.undelivered_records),
            gaps(&row.gaps),
            row.output.clone().unwrap_or_default(),
        ]);
    }
    format!("{}\n{}", screen(&head), screen(&list))
}

/// How many, and the records in them.
fn gaps(gaps: &[Gap]) -> String {
    let records: i64 = gaps.iter().map(|gap| gap.next - gap.first).sum();
    let records = thousands(u64::try_from(records).unwrap_or(0));
    if gaps.is_empty() { "-".to_string() } else { format!("{} ({records} records)", gaps.len()) }
}

fn time(ms: Option<i64>) -> String {
    let at = ms.and_then(|ms| u64::try_from(ms).ok()).map(std::time::Duration::from_millis);
    let at = at.and_then(|since| std::time::UNIX_EPOCH.checked_add(since));
    at.map_or("-".to_string(), |at| humantime::format_rfc3339_millis(at).to_string())
}
