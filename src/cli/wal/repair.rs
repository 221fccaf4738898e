//! `forebay wal repair`: shows which blocks are damaged and what can be done; with `--apply` it is done.
//!
//! Promises: without `--apply` nothing is changed and no lock is taken. With it the log is locked, damaged blocks that are
//! to be delivered are fetched again from Kafka, compared with the logged digest, and kept in repair files; segments are
//! not changed. Exit 3 while something that is to be delivered is damaged and not repaired.

use super::super::args::{ConfigArgs, KafkaArgs, RepairArgs};
use super::super::exit::{CONFIG, FAILED, FOUND, Failure, OK, UNAVAILABLE};
use super::super::output::{Format, print, screen, table, talk};
use super::super::{client, layers, output};
use super::{Names, file_name};
use crate::io::Storage;
use crate::io::disk::Disk;
use crate::kafka::again::{Again, Missing};
use crate::kafka::consumer::Settings;
use crate::pipeline::heal::assemble;
use crate::wal::recovery::table::Verdict;
use crate::wal::repair::{KeepError, Repairs};
use crate::wal::scan::survey::{Survey, survey};
use crate::wal::segment::LOCK;
use crate::wal::{CorruptBlock, Finding, State, WalError};
use comfy_table::Table;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

const SCHEMA: &str = "forebay.wal.repair/1";
/// Memory for fetched records.
const QUEUE_BYTES: usize = 4 << 20;

/// What is to be done about a damaged block, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// It is delivered or given up: it needs no repair.
    Settled,
    /// A repair file mends it.
    Repaired,
    /// It is to be fetched again; Kafka was not asked.
    ToFetch,
    /// It is to be fetched again, and Kafka has its offsets.
    InKafka,
    /// Kafka does not have it any more, or has something else.
    Lost,
    /// Kafka does not answer.
    Unanswered,
}

/// A damaged block. The names are stable.
#[derive(Serialize)]
struct Row {
    topic: String,
    partition: i32,
    first: i64,
    next: i64,
    records: u32,
    file: String,
    position: u64,
    lsn: u64,
    outcome: Outcome,
    detail: Option<String>,
}

/// The plan, or what came of it.
#[derive(Serialize)]
struct Report {
    schema: &'static str,
    ok: bool,
    applied: bool,
    blocks: Vec<Row>,
    /// Other damage that keeps the log from being opened, in words.
    beyond_repair: Vec<String>,
}

/// Plans, and does it with `--apply`.
pub(in super::super) fn run(args: &RepairArgs) -> Result<i32, Failure> {
    let storage: Arc<dyn Storage> = Arc::new(Disk);
    let dir = args.wal.dir.as_path();
    let lock = if args.apply { Some(lock(storage.as_ref(), dir)?) } else { None };
    let found = survey(storage.as_ref(), dir)?;
    if found.segments.is_empty() && found.findings.is_empty() {
        return Err(Failure::new(FAILED, anyhow::anyhow!("there is no log in {}", dir.display())));
    }
    let client = if args.from_kafka { Some(client(&args.kafka, dir)?) } else { None };
    let repairer = Repairer::new(&storage, dir, &found, client, args.apply);
    let mut blocks: Vec<Row> = Vec::new();
    for block in &found.corrupt {
        // Who did not answer once is not asked again: each question takes its time.
        let silent = blocks.last().filter(|row| row.outcome == Outcome::Unanswered).and_then(|row| row.detail.clone());
        blocks.push(repairer.row(block, silent)?);
    }
    drop(lock);
    let beyond_repair = beyond_repair(&found);
    let open = |row: &Row| !matches!(row.outcome, Outcome::Settled | Outcome::Repaired);
    let ok = beyond_repair.is_empty() && !blocks.iter().any(open);
    let report = Report { schema: SCHEMA, ok, applied: args.apply, blocks, beyond_repair };
    show(args.wal.output, &report)?;
    Ok(code(&report))
}

/// What keeps the log from being opened, but for the blocks that can be fetched again.
fn beyond_repair(found: &Survey) -> Vec<String> {
    let live = found.live_corrupt();
    let is_live = |f: &Finding| live.iter().any(|block| f.path == block.path && f.lsn == Some(block.lsn));
    let fatal = |f: &&Finding| matches!(f.verdict, Verdict::Refuse | Verdict::Unreadable) && !is_live(f);
    found.findings.iter().filter(fatal).map(|f| f.clone().into_error().to_string()).collect()
}

fn code(report: &Report) -> i32 {
    let unanswered = report.blocks.iter().any(|row| row.outcome == Outcome::Unanswered);
    match (report.ok, unanswered) {
        (true, _) => OK,
        (false, true) => UNAVAILABLE,
        (false, false) => FOUND,
    }
}

fn lock(storage: &dyn Storage, dir: &Path) -> Result<Box<dyn Send + Sync>, Failure> {
    let path = dir.join(LOCK);
    if !storage.exists(&path)? {
        return Err(Failure::new(FAILED, anyhow::anyhow!("there is no log in {}", dir.display())));
    }
    let held = || {
        let text = format!("{} is in use: a running forebay repairs its log by itself", dir.display());
        Failure::new(CONFIG, anyhow::anyhow!(text))
    };
    storage.lock(&path)?.ok_or_else(held)
}

/// Only how to reach Kafka matters; the rest of the configuration may be missing.
fn client(args: &KafkaArgs, dir: &Path) -> Result<Again, Failure> {
    let KafkaArgs { config, set, brokers } = args.clone();
    let (wal, sink, topic) = (Some(dir.display().to_string()), Some("null".to_owned()), vec!["^.*".to_owned()]);
    let settings = ConfigArgs { config, set, brokers, topic, group: None, wal, sink };
    let kafka = layers::read(&settings)?.config.kafka;
    let settings = Settings {
        brokers: kafka.brokers,
        group: kafka.group,
        instance_id: None,
        session_timeout: kafka.session_timeout,
        queue_bytes: QUEUE_BYTES,
        wire_bytes: None,
        properties: kafka.properties.0,
    };
    Again::new(&settings).map_err(|error| Failure::new(CONFIG, client::error(&error)))
}

struct Repairer {
    names: Names,
    state: State,
    repairs: Repairs,
    client: Option<Again>,
    apply: bool,
    live: Vec<CorruptBlock>,
}

impl Repairer {
    fn new(storage: &Arc<dyn Storage>, dir: &Path, found: &Survey, client: Option<Again>, apply: bool) -> Self {
        let state = found.state.clone().unwrap_or_default();
        let wal_id = found.segments.last().map_or(state.wal_id, |last| last.header.wal_id);
        let repairs = Repairs::new(Arc::clone(storage), dir, wal_id, found.repairs.clone());
        let live = found.live_corrupt();
        Self { names: Names::new(Some(&state)), state, repairs, client, apply, live }
    }

    /// `silent`: Kafka did not answer the last time, and why.
    fn row(&self, block: &CorruptBlock, silent: Option<String>) -> Result<Row, Failure> {
        let (outcome, detail) = self.outcome(block, silent)?;
        Ok(Row {
            topic: self.names.name(block.partition.topic),
            partition: block.partition.number,
            first: block.first,
            next: block.next,
            records: block.count,
            file: file_name(&block.path),
            position: block.position,
            lsn: block.lsn,
            outcome,
            detail,
        })
    }

    fn outcome(&self, block: &CorruptBlock, silent: Option<String>) -> Result<(Outcome, Option<String>), Failure> {
        if !self.live.contains(block) {
            return Ok((Outcome::Settled, None));
        }
        if self.repairs.has(block) {
            return Ok((Outcome::Repaired, None));
        }
        let Some(client) = &self.client else {
            return Ok((Outcome::ToFetch, None));
        };
        if silent.is_some() {
            return Ok((Outcome::Unanswered, silent));
        }
        Ok(match self.ask(client, block)? {
            Ok(outcome) => (outcome, None),
            Err(Missing::Gone(why)) => (Outcome::Lost, Some(why)),
            Err(Missing::Later(why)) => (Outcome::Unanswered, Some(why)),
        })
    }

    fn ask(&self, client: &Again, block: &CorruptBlock) -> Result<Result<Outcome, Missing>, Failure> {
        let Some(topic) = self.state.topics.get(&block.partition.topic) else {
            return Ok(Err(Missing::Gone("the log does not know the topic's name".to_owned())));
        };
        let named = (topic.name.clone(), block.partition.number);
        if !self.apply {
            let looked = client.look(&named, topic.id, block.first, block.next);
            return Ok(looked.map(|()| Outcome::InKafka));
        }
        let fetched = match client.fetch(&named, topic.id, block.first, block.next) {
            Ok(fetched) => assemble(block, fetched),
            Err(missing) => return Ok(Err(missing)),
        };
        match self.repairs.keep(block, &fetched) {
            Ok(_) => Ok(Ok(Outcome::Repaired)),
            Err(KeepError::Refused(refusal)) => Ok(Err(Missing::Gone(refusal.to_string()))),
            Err(KeepError::Wal(error)) => Err(error.into()),
        }
    }
}

fn show(format: Format, report: &Report) -> Result<(), Failure> {
    match format {
        Format::Json => print(&format!("{:#}\n", serde_json::json!(report)))?,
        Format::Jsonl => {
            let lines = report.blocks.iter().map(|row| format!("{}\n", serde_json::json!(row)));
            print(&lines.collect::<String>())?;
        }
        Format::Table => {
            if !report.blocks.is_empty() {
                print(&screen(&rows(&report.blocks)))?;
            }
            report.beyond_repair.iter().for_each(|text| talk(text));
            talk(&summary(report));
        }
    }
    Ok(())
}

fn rows(blocks: &[Row]) -> Table {
    let mut screen = table(["block", "records", "file", "byte", "LSN", "outcome", "detail"]);
    for row in blocks {
        let block = format!("{}/{} [{}, {})", row.topic, row.partition, row.first, row.next);
        let records = output::thousands(u64::from(row.records));
        let (outcome, detail) = (words(row.outcome), row.detail.as_deref().unwrap_or_default());
        let (position, lsn) = (row.position.to_string(), row.lsn.to_string());
        screen.add_row([&block, &records, &row.file, &position, &lsn, outcome, detail]);
    }
    screen
}

fn words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Settled => "delivered: needs no repair",
        Outcome::Repaired => "repaired",
        Outcome::ToFetch => "to be fetched again",
        Outcome::InKafka => "Kafka has it",
        Outcome::Lost => "LOST",
        Outcome::Unanswered => "Kafka does not answer",
    }
}

fn summary(report: &Report) -> String {
    let count = |outcome| report.blocks.iter().filter(|row| row.outcome == outcome).count();
    let repairable = count(Outcome::ToFetch) + count(Outcome::InKafka);
    if !report.beyond_repair.is_empty() {
        return "the log can't be opened: this damage is beyond repair, whatever Kafka has".to_owned();
    }
    match (report.blocks.len(), repairable, report.ok) {
        (0, _, true) => "ok: no block is damaged".to_owned(),
        (_, _, true) => format!("ok: {} repaired, the others are delivered", count(Outcome::Repaired)),
        (_, 0, false) => {
            format!("{} of {} damaged blocks can't be repaired", count(Outcome::Lost), report.blocks.len())
        }
        (_, _, false) => {
            format!("{repairable} can be fetched again: `--from-kafka --apply` does it, and so does the next run")
        }
    }
}

impl From<crate::io::IoError> for Failure {
    fn from(error: crate::io::IoError) -> Self {
        WalError::from(error).into()
    }
}
