//! `forebay bench`: the modes next to each other and next to librdkafka alone, on an embedded Kafka or a real one.
//!
//! Promises: each run is a process of its own with a fresh log, output and group, the modes take turns, and every run's
//! output is checked record by record where there is one to read. Never: a folder, a process or a topic of ours is left
//! behind, except a topic that was asked for by name.

mod args;
mod chart;
mod child;
mod cluster;
mod compare;
pub mod consume;
mod disk;
mod exact;
mod html;
mod latency;
mod machine;
mod plan;
mod rate;
mod report;
mod stats;
mod table;
mod value;
mod watch;

pub(super) use args::BenchCommand;

use super::exit::{FOUND, Failure, IO, OK, USAGE};
use super::output::{Format, print};
use anyhow::Context;
use args::{CompareArgs, Part};
use report::Report;
use std::path::Path;

/// Runs the command; exit code 3 if a run lost or doubled anything.
pub(super) fn run(command: &BenchCommand) -> Result<i32, Failure> {
    match &command.part {
        Some(Part::Disk(args)) => disk::run(args),
        Some(Part::Rate(args)) => rate::run(args),
        Some(Part::Consume(args)) => {
            let counted = consume::consume(args, &mut std::io::stdout().lock())?;
            print(&format!("{}\n", serde_json::json!(counted)))?;
            Ok(OK)
        }
        None => whole(&command.compare),
    }
}

fn whole(args: &CompareArgs) -> Result<i32, Failure> {
    for file in args.svg.iter().chain(&args.html) {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            let error = anyhow::anyhow!("there is no folder for {}; create it first", file.display());
            return Err(Failure::new(USAGE, error));
        }
    }
    let report = compare::run(args)?;
    show(args, &report)?;
    Ok(if report.is_exact() { OK } else { FOUND })
}

fn show(args: &CompareArgs, report: &Report) -> Result<(), Failure> {
    let svg = chart::draw(report).context("cannot draw the chart")?;
    if let Some(file) = &args.svg {
        save(file, &svg)?;
    }
    if let Some(file) = &args.html {
        save(file, &html::page(report, &svg))?;
    }
    match args.output {
        Format::Table => print(&table::screens(report))?,
        Format::Json => print(&format!("{:#}\n", serde_json::json!(report)))?,
        Format::Jsonl => {
            let lines: Vec<_> = report.runs.iter().map(|run| format!("{}\n", serde_json::json!(run))).collect();
            print(&lines.concat())?;
        }
    }
    Ok(())
}

fn save(file: &Path, text: &str) -> Result<(), Failure> {
    let written = std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()));
    written.map_err(|error| Failure::new(IO, error))
}

/// A folder that is gone when it is dropped, inside `dir` or the current one.
fn scratch(dir: Option<&Path>) -> Result<tempfile::TempDir, Failure> {
    let dir = dir.unwrap_or(Path::new("."));
    let made = tempfile::Builder::new().prefix(".forebay-bench-").tempdir_in(dir);
    let made = made.with_context(|| format!("cannot make a folder in {}; choose another (--dir)", dir.display()));
    made.map_err(|error| Failure::new(IO, error))
}
