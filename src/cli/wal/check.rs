//! `forebay wal check`: verifies every byte up to the end of the log.
//!
//! Promises: exit 3 if anything that was durable does not verify; a torn tail, which a crash leaves, is information.

use super::super::args::WalArgs;
use super::super::exit::{FOUND, Failure, OK};
use super::super::output::{Format, bytes, print, table, talk, thousands};
use super::{Names, look};
use crate::record::Partition;
use crate::wal::inspect::Overview;
use crate::wal::recovery::table::Verdict;
use crate::wal::{Finding, GapRange};
use comfy_table::Table;
use serde::Serialize;

const SCHEMA: &str = "forebay.wal.check/1";

/// One damaged place. The names are stable.
#[derive(Serialize)]
struct Row {
    /// `torn`, `damaged` (nothing is lost), `corrupt-block`, `corrupt` or `unreadable`.
    finding: &'static str,
    file: String,
    position: u64,
    lsn: Option<u64>,
    topic: Option<String>,
    partition: Option<i32>,
    first: Option<i64>,
    next: Option<i64>,
    reason: String,
}

/// What was verified.
#[derive(Serialize)]
struct Verified {
    schema: &'static str,
    ok: bool,
    segments: usize,
    bytes: u64,
    frames: u64,
    blocks: u64,
    findings: Vec<Row>,
    /// Declared gaps: events, not damage.
    gaps: Vec<Gap>,
}

/// Offsets Kafka no longer had when they were asked for.
#[derive(Serialize)]
struct Gap {
    topic: String,
    partition: i32,
    first: i64,
    next: i64,
    reason: String,
}

/// Checks and prints what was found.
pub(super) fn run(args: &WalArgs) -> Result<i32, Failure> {
    let log = look(&args.dir)?;
    let names = Names::new(log.state.as_ref());
    let verified = verified(&log, &names);
    match args.output {
        Format::Json => print(&format!("{:#}\n", serde_json::json!(verified)))?,
        Format::Jsonl => {
            let lines = verified.findings.iter().map(|row| format!("{}\n", serde_json::json!(row)));
            print(&lines.collect::<String>())?;
        }
        Format::Table => {
            for Gap { topic, partition, first, next, reason } in &verified.gaps {
                talk(&format!("gap: {topic}/{partition} [{first}, {next}): {reason}"));
            }
            if !verified.findings.is_empty() {
                print(&super::super::output::screen(&screen(&verified.findings)))?;
            }
            talk(&summary(&verified));
        }
    }
    Ok(if verified.ok { OK } else { FOUND })
}

fn verified(log: &Overview, names: &Names) -> Verified {
    Verified {
        schema: SCHEMA,
        ok: !log.is_damaged(),
        segments: log.segments.len(),
        bytes: log.segments.iter().map(|segment| segment.end).sum(),
        frames: log.segments.iter().map(|segment| segment.frames).sum(),
        blocks: log.segments.iter().map(|segment| segment.blocks).sum(),
        findings: log.findings.iter().map(|finding| row(finding, names)).collect(),
        gaps: gaps(log, names),
    }
}

fn gaps(log: &Overview, names: &Names) -> Vec<Gap> {
    let partitions = log.state.iter().flat_map(|state| &state.partitions);
    let each = partitions.flat_map(|(partition, known)| known.gaps.iter().map(move |range| (partition, range)));
    let gap = |(partition, range): (&Partition, &GapRange)| Gap {
        topic: names.name(partition.topic),
        partition: partition.number,
        first: range.first,
        next: range.next,
        reason: range.reason.clone(),
    };
    each.map(gap).collect()
}

fn row(finding: &Finding, names: &Names) -> Row {
    let (partition, first, next) = match finding.range {
        Some((partition, first, next)) => (Some(partition), Some(first), Some(next)),
        None => (None, None, None),
    };
    Row {
        finding: match finding.verdict {
            Verdict::Torn => "torn",
            Verdict::Report => "damaged",
            Verdict::StopPartition => "corrupt-block",
            Verdict::Refuse => "corrupt",
            Verdict::Unreadable => "unreadable",
        },
        file: finding.path.display().to_string(),
        position: finding.position,
        lsn: finding.lsn,
        topic: partition.map(|partition| names.name(partition.topic)),
        partition: partition.map(|partition| partition.number),
        first,
        next,
        reason: finding.reason.clone(),
    }
}

fn screen(findings: &[Row]) -> Table {
    let mut screen = table(["finding", "file", "byte", "LSN", "offsets", "reason"]);
    for row in findings {
        let offsets = match (&row.topic, row.partition, row.first, row.next) {
            (Some(topic), Some(partition), Some(first), Some(next)) => {
                format!("{topic}/{partition} [{first}, {next})")
            }
            _ => String::new(),
        };
        let lsn = row.lsn.map(|lsn| lsn.to_string()).unwrap_or_default();
        screen.add_row([row.finding, &row.file, &row.position.to_string(), &lsn, &offsets, &row.reason]);
    }
    screen
}

fn summary(verified: &Verified) -> String {
    let (segments, frames) = (verified.segments, thousands(verified.frames));
    let blocks = thousands(verified.blocks);
    let size = bytes(verified.bytes);
    let what = format!("{segments} segments, {size}, {frames} frames, {blocks} blocks");
    let torn = verified.findings.iter().any(|row| row.finding == "torn");
    match (verified.ok, torn) {
        (true, false) => format!("ok: {what}; every byte verifies"),
        (true, true) => format!("ok: {what}; the end is torn, as a crash leaves it: nothing acknowledged is there"),
        (false, _) => format!("DAMAGED: {what}; nothing was changed"),
    }
}
