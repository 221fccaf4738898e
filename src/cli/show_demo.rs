//! `forebay demo`: runs it and shows what it found.

use super::args::DemoCommand;
use super::demo::{self, Report};
use super::exit::{FAILED, FOUND, Failure, OK};
use super::output::{Format, plain, print, screen, talk, thousands};

/// Exit code 3 if anything was lost or doubled.
pub(super) fn run(args: &DemoCommand) -> Result<i32, Failure> {
    let report = demo::run(&args.demo).map_err(|error| Failure::new(FAILED, error))?;
    match args.output {
        Format::Table => print(&table(&report))?,
        Format::Json | Format::Jsonl => print(&format!("{}\n", serde_json::json!(report)))?,
    }
    talk(&demo::epilogue(&report.dir));
    Ok(if report.is_clean() { OK } else { FOUND })
}

fn table(report: &Report) -> String {
    let mut table = plain();
    table.add_row(["produced", &thousands(report.produced)]);
    table.add_row(["delivered", &thousands(report.delivered)]);
    table.add_row(["lost", &thousands(report.lost)]);
    table.add_row(["delivered twice", &thousands(report.doubled)]);
    table.add_row(["suppressed", &thousands(report.suppressed)]);
    let kills = format!("{}, {} of them between sync and commit", report.kills, report.kills_in_window);
    table.add_row(["kills", &kills]);
    table.add_row(["time", &format!("{:.1} s", report.seconds)]);
    screen(&table)
}
