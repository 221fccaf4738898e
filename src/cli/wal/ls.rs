//! `forebay wal ls`: the segments.
//!
//! Promises: exit 3 if anything that was durable does not verify, so that a list with holes is not taken for the whole.

use super::super::args::WalArgs;
use super::super::exit::Failure;
use super::super::output::{Format, bytes, rows, table, talk};
use super::{Names, file_name, look, verdict};
use crate::wal::inspect::{Overview, SegmentSummary};
use comfy_table::Table;
use serde::Serialize;

/// One segment. The names are stable.
#[derive(Serialize)]
struct Row {
    segment: u64,
    file: String,
    bytes: u64,
    end: u64,
    first_lsn: u64,
    next_lsn: u64,
    salt: String,
    state: &'static str,
    frames: u64,
    blocks: u64,
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    topic: String,
    partition: i32,
    first: i64,
    next: i64,
}

/// Lists them.
pub(super) fn run(args: &WalArgs) -> Result<i32, Failure> {
    let log = look(&args.dir)?;
    let names = Names::new(log.state.as_ref());
    let list: Vec<_> = log.segments.iter().map(|segment| row(segment, &names)).collect();
    rows(args.output, "forebay.wal.ls/1", "segments", &list, || screen(&list))?;
    if args.output == Format::Table {
        talk(&others(&log));
    }
    Ok(verdict(log.is_damaged()))
}

fn row(segment: &SegmentSummary, names: &Names) -> Row {
    let range = |(partition, first, next): &(crate::record::Partition, i64, i64)| Range {
        topic: names.name(partition.topic),
        partition: partition.number,
        first: *first,
        next: *next,
    };
    Row {
        segment: segment.number,
        file: file_name(&segment.path),
        bytes: segment.bytes,
        end: segment.end,
        first_lsn: segment.first_lsn,
        next_lsn: segment.next_lsn,
        salt: format!("{:016x}", segment.header.salt),
        state: match (segment.sealed, segment.live) {
            (false, _) => "last",
            (true, true) => "needed",
            (true, false) => "delivered",
        },
        frames: segment.frames,
        blocks: segment.blocks,
        ranges: segment.ranges.iter().map(range).collect(),
    }
}

fn screen(list: &[Row]) -> Table {
    let mut screen = table(["segment", "size", "end", "LSNs", "frames", "blocks", "salt", "state"]);
    for row in list {
        screen.add_row([
            row.segment.to_string(),
            bytes(row.bytes),
            row.end.to_string(),
            format!("[{}, {})", row.first_lsn, row.next_lsn),
            row.frames.to_string(),
            row.blocks.to_string(),
            row.salt.clone(),
            row.state.to_string(),
        ]);
    }
    screen
}

fn others(log: &Overview) -> String {
    format!("{} spares, {} copies of cut tails", log.spares, log.torn_copies)
}
