//! `forebay wal dump`: the log frame by frame, or the records in it.
//!
//! Promises: writes as it reads; memory does not grow with the log.

use super::super::args::DumpArgs;
use super::super::exit::{FOUND, Failure, OK};
use super::super::output::Format;
use super::{Names, look};
use crate::io::disk::Disk;
use crate::record::batch::{self, BatchError};
use crate::record::{Block, Partition};
use crate::sink::Source;
use crate::sink::render::{self, Renderer};
use crate::wal::format::FRAMES_START;
use crate::wal::format::frame::{FrameHeader, Kind};
use crate::wal::inspect::{Dumped, dump};
use crate::wal::scan::Damage;
use crate::wal::{Entry, PlanRange, State};
use serde::Serialize;
use std::io::{self, BufWriter, StdoutLock, Write};

/// One line. The names are stable; what does not apply is left out.
#[derive(Default, Serialize)]
struct Row {
    segment: u64,
    position: u64,
    kind: String,
    lsn: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    synced_through: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenure: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Planned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// One range of a plan.
#[derive(Serialize)]
pub(super) struct Planned {
    topic: String,
    partition: i32,
    from: i64,
    until: i64,
}

impl Planned {
    /// As shown.
    pub fn new(range: &PlanRange, names: &Names) -> Self {
        let PlanRange { topic, partition, from, until } = *range;
        Self { topic: names.name(topic), partition, from, until }
    }
}

/// Prints it.
pub(super) fn run(args: &DumpArgs) -> Result<i32, Failure> {
    let log = look(&args.wal.dir)?;
    let mut dumper = Dumper {
        args,
        names: Names::new(log.state.as_ref()),
        out: BufWriter::new(io::stdout().lock()),
        segment: 0,
        lines: 0,
        result: Ok(()),
        rendered: Vec::new(),
    };
    dumper.begin()?;
    for segment in &log.segments {
        dumper.segment = segment.number;
        dump(&Disk, &args.wal.dir, segment.number, &mut |piece| dumper.show(&piece))?;
        std::mem::replace(&mut dumper.result, Ok(()))?;
        if dumper.is_full() {
            break;
        }
    }
    dumper.end()?;
    Ok(if log.is_damaged() { FOUND } else { OK })
}

struct Dumper<'a> {
    args: &'a DumpArgs,
    names: Names,
    out: BufWriter<StdoutLock<'static>>,
    segment: u64,
    lines: u64,
    result: io::Result<()>,
    rendered: Vec<u8>,
}

impl Dumper<'_> {
    fn is_full(&self) -> bool {
        self.args.limit.is_some_and(|limit| self.lines >= limit)
    }

    fn is_document(&self) -> bool {
        self.args.wal.output == Format::Json && !self.args.records
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.is_document() {
            self.out.write_all(b"{\"schema\":\"forebay.wal.dump/1\",\"frames\":[")?;
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if self.is_document() {
            self.out.write_all(b"]}\n")?;
        }
        self.out.flush()
    }

    /// Shows one piece; false when there is no use in going on.
    fn show(&mut self, piece: &Dumped<'_>) -> bool {
        if self.is_full() {
            return false;
        }
        self.result = match piece {
            Dumped::Frame(_, Some(Entry::Block(block))) if self.args.records => self.records(block),
            _ if self.args.records => Ok(()),
            Dumped::Segment(header) => {
                let detail = format!("built_end {} after segment {}", header.built_end, header.predecessor.number);
                let row =
                    Row { kind: "Segment".to_string(), lsn: header.first_lsn, detail: Some(detail), ..Row::default() };
                self.row(row, None)
            }
            Dumped::State(state) => self.state(state),
            Dumped::Frame(header, entry) => self.frame(header, *entry),
            Dumped::Damage(damage) => self.damage(damage),
        };
        self.result.is_ok()
    }

    fn state(&mut self, state: &State) -> io::Result<()> {
        let gaps: usize = state.partitions.values().map(|known| known.gaps.len()).sum();
        let (topics, partitions) = (state.topics.len(), state.partitions.len());
        let detail = format!("{topics} topics, {partitions} partitions, {gaps} gaps");
        self.row(
            Row {
                kind: "State".to_string(),
                position: FRAMES_START,
                lsn: state.lsn,
                detail: Some(detail),
                ..Row::default()
            },
            None,
        )
    }

    fn frame(&mut self, header: &FrameHeader, entry: Option<&Entry>) -> io::Result<()> {
        let row = frame_row(header, entry, &self.names);
        self.row(row, entry.and_then(Entry::partition))
    }

    fn damage(&mut self, damage: &Damage) -> io::Result<()> {
        let kind = if damage.is_last { "End" } else { "Damage" }.to_string();
        let mut row = Row { position: damage.position, kind, lsn: damage.lsn, ..Row::default() };
        row.bytes = damage.end - damage.position;
        let header = damage.header.as_ref().filter(|header| header.kind == Kind::Block);
        let what =
            header.map(|header| format!(" in {}", self.names.range(header.partition, header.first, header.next)));
        row.detail = Some(format!("{}{}", damage.reason, what.unwrap_or_default()));
        self.row(row, header.map(|header| header.partition))
    }

    /// Writes a line, if it is about what was asked for.
    fn row(&mut self, mut row: Row, partition: Option<Partition>) -> io::Result<()> {
        if !self.is_wanted(partition) {
            return Ok(());
        }
        row.segment = self.segment;
        match self.args.wal.output {
            Format::Table => writeln!(self.out, "{}", line(&row))?,
            Format::Json => {
                if self.lines > 0 {
                    self.out.write_all(b",\n")?;
                }
                serde_json::to_writer(&mut self.out, &row)?;
            }
            Format::Jsonl => {
                serde_json::to_writer(&mut self.out, &row)?;
                self.out.write_all(b"\n")?;
            }
        }
        self.lines += 1;
        Ok(())
    }

    fn is_wanted(&self, partition: Option<Partition>) -> bool {
        let topic = |wanted: &String| partition.is_some_and(|found| self.names.name(found.topic) == *wanted);
        let number = |wanted: i32| partition.is_some_and(|found| found.number == wanted);
        self.args.topic.as_ref().is_none_or(topic) && self.args.partition.is_none_or(number)
    }

    fn records(&mut self, block: &Block) -> io::Result<()> {
        let partition = block.header.partition;
        if !self.is_wanted(Some(partition)) {
            return Ok(());
        }
        let topic = self.names.topic(partition.topic);
        let source = Source {
            partition,
            incarnation: topic.as_ref().map_or(0, |topic| topic.incarnation),
            topic: topic.map_or_else(|| self.names.name(partition.topic), |topic| topic.name),
        };
        let renderer = Renderer::new(render::Format::Jsonl, &source);
        let invalid = |error: BatchError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let payload = batch::unpacked(&block.payload).map_err(invalid)?;
        for record in batch::records(&payload) {
            if self.is_full() {
                break;
            }
            let record = record.map_err(invalid)?;
            self.rendered.clear();
            renderer.record(&record, &mut self.rendered);
            self.out.write_all(&self.rendered)?;
            self.lines += 1;
        }
        Ok(())
    }
}

fn frame_row(header: &FrameHeader, entry: Option<&Entry>, names: &Names) -> Row {
    let about = entry.and_then(Entry::partition);
    let ranged = matches!(
        header.kind,
        Kind::Block | Kind::Empty | Kind::Gap | Kind::Owned | Kind::Disowned | Kind::Returning | Kind::Delivered
    );
    let block = header.kind == Kind::Block;
    Row {
        segment: 0,
        position: header.position,
        kind: format!("{:?}", header.kind),
        lsn: header.lsn,
        bytes: header.frame_len(),
        synced_through: Some(header.synced_through),
        topic: about.map(|partition| names.name(partition.topic)),
        partition: about.map(|partition| partition.number),
        tenure: (header.tenure > 0).then_some(header.tenure),
        first: ranged.then_some(header.first),
        next: (ranged || header.kind == Kind::Confirmed).then_some(header.next),
        records: block.then_some(header.count),
        batch: entry.and_then(|entry| match entry {
            Entry::Plan { id, .. } | Entry::PlanDropped { id, .. } => Some(*id),
            _ => None,
        }),
        ranges: entry.map_or_else(Vec::new, |entry| ranges(entry, names)),
        detail: entry.and_then(detail),
    }
}

fn ranges(entry: &Entry, names: &Names) -> Vec<Planned> {
    let Entry::Plan { ranges, .. } = entry else { return Vec::new() };
    ranges.iter().map(|range| Planned::new(range, names)).collect()
}

/// What the header does not tell.
fn detail(entry: &Entry) -> Option<String> {
    match entry {
        Entry::Topic { number, name, id } => Some(format!("#{number} is {name}, id {id}")),
        Entry::Owned { acked_entries, .. } if !acked_entries.is_empty() => Some(format!("acked {acked_entries}")),
        Entry::Gap { reason, .. } => Some(reason.clone()),
        Entry::Named { name, .. } | Entry::Route { name, .. } => Some(name.clone()),
        Entry::Delivered { through_lsn, keep_from, .. } => {
            let keep = keep_from.map(|from| format!(", keeps from {from}")).unwrap_or_default();
            Some(format!("through LSN {through_lsn}{keep}"))
        }
        Entry::RetiredBelow { segment, .. } => Some(format!("segment {segment}")),
        Entry::Plan { ranges, .. } => Some(format!("{} ranges", ranges.len())),
        _ => None,
    }
}

/// A line for people.
fn line(row: &Row) -> String {
    let Row { segment, position, lsn, kind, .. } = row;
    let partition = row.topic.as_ref().zip(row.partition);
    let range = match (row.first, row.next) {
        (Some(first), Some(next)) => Some(format!("[{first}, {next})")),
        (None, Some(next)) => Some(format!("below {next}")),
        _ => None,
    };
    let parts = [
        Some(format!("{segment:>6} {position:>10} {lsn:>8} {kind:<12}")),
        partition.map(|(topic, partition)| format!("{topic}/{partition}")),
        range,
        row.records.map(|records| format!("{records} records")),
        (row.bytes > 0).then(|| format!("{} B", row.bytes)),
        row.tenure.map(|tenure| format!("tenure {tenure}")),
        row.batch.map(|batch| format!("batch {batch}")),
        row.synced_through.map(|synced| format!("synced {synced}")),
        row.detail.clone(),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
