//! The summary of a run: one screen, or one JSON object on one line.

use super::output::{Format, bytes, micros, plain, screen, thousands};
use crate::pipeline::Summary;
use std::io::{self, Write};

/// Writes the summary to `out`.
pub(super) fn write(out: &mut dyn Write, format: Format, summary: &Summary) -> io::Result<()> {
    match format {
        Format::Table => out.write_all(table(summary).as_bytes())?,
        Format::Json | Format::Jsonl => {
            serde_json::to_writer(&mut *out, summary)?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()
}

fn table(summary: &Summary) -> String {
    let rate = summary.records_per_s;
    let byte_rate = if summary.seconds > 0.0 { summary.bytes as f64 / summary.seconds } else { 0.0 };
    let syncs = |count, p50, p99| format!("{}, p50 {}, p99 {}", thousands(count), micros(p50), micros(p99));
    let mut table = plain();
    table.add_row(["records", &format!("{} in {} blocks", thousands(summary.records), thousands(summary.blocks))]);
    table.add_row(["bytes", &bytes(summary.bytes)]);
    table.add_row(["time", &format!("{:.2} s", summary.seconds)]);
    table.add_row(["rate", &format!("{} records/s, {}/s", thousands(rate as u64), bytes(byte_rate as u64))]);
    table.add_row(["CPU time", &format!("{:.2} s", summary.cpu_seconds)]);
    table.add_row(["peak memory", &bytes(summary.rss_peak_bytes)]);
    table.add_row(["log syncs", &syncs(summary.fsyncs, summary.fsync_p50_us, summary.fsync_p99_us)]);
    table.add_row(["log bytes", &bytes(summary.wal_bytes_appended)]);
    table.add_row(["sink syncs", &syncs(summary.sink_syncs, summary.sink_sync_p50_us, summary.sink_sync_p99_us)]);
    table.add_row(["commits", &format!("{}, {} not confirmed", thousands(summary.commits), summary.commits_failed)]);
    table.add_row(["suppressed", &thousands(summary.suppressed)]);
    if summary.gaps > 0 {
        let records = thousands(summary.gaps_records);
        table.add_row(["gaps", &format!("{}, {records} records Kafka no longer had", thousands(summary.gaps))]);
    }
    if summary.repaired > 0 {
        table.add_row(["repaired", &format!("{} damaged blocks fetched again", thousands(summary.repaired))]);
    }
    table.add_row(["lag", &thousands(summary.lag)]);
    screen(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_or_a_line() {
        let summary = Summary { records: 1_234_567, seconds: 2.0, records_per_s: 617_283.5, ..Summary::default() };
        let written = |format| {
            let mut out = Vec::new();
            write(&mut out, format, &summary).unwrap();
            String::from_utf8(out).unwrap()
        };
        let screen = written(Format::Table);
        assert!(screen.contains("1,234,567") && screen.contains("617,283 records/s"), "{screen}");
        assert!(screen.lines().count() < 24 && screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
        let line = written(Format::Json);
        assert_eq!(line.lines().count(), 1);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["records"], 1_234_567);
    }
}
