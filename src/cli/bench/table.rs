//! The report for people at a terminal.

use super::exact::Checked;
use super::latency::Latency;
use super::plan::Point;
use super::report::{ModeSummary, PointReport, Ratios, Report};
use super::stats::Spread;
use crate::cli::output::{bytes, micros, screen, table, thousands};

/// Everything, as text.
pub(super) fn screens(report: &Report) -> String {
    let mut text = vec![machine(report)];
    for point in &report.points {
        text.push(format!("\n{}\n{}", heading(&point.point), modes(point)));
        let ratios = ratios(&point.ratios);
        if !ratios.is_empty() {
            text.push(format!("{}\n", ratios.join(" · ")));
        }
    }
    if !report.latency.is_empty() {
        let rate = thousands(report.latency[0].rate);
        text.push(format!("\nlatency, due at the producer to delivered, {rate} records/s\n"));
        text.push(latency(&report.latency));
    }
    for warning in &report.warnings {
        text.push(format!("\nwarning: {warning}\n"));
    }
    text.concat()
}

/// One line about the machine, one about the runs.
pub(super) fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let syncs: Vec<_> = machine
        .syncs
        .iter()
        .map(|sync| format!("{} in {} ({:.0} MB/s)", bytes(sync.bytes), micros(sync.p50_us), sync.mb_per_s))
        .collect();
    let volume = &machine.volume;
    format!(
        "{} cores, {} memory, {}{}, write + sync of {}\nKafka: {} · sink: {} · {:.0} s in all\n",
        machine.cores,
        bytes(machine.memory_bytes),
        volume.file_system,
        volume.device.as_deref().map(|name| format!(" on {name}")).unwrap_or_default(),
        syncs.join(", "),
        report.kafka,
        format!("{:?}", report.sink).to_lowercase(),
        report.seconds,
    )
}

/// What a point is.
pub(super) fn heading(point: &Point) -> String {
    let block = point.block_bytes.map(|size| format!(", blocks of {}", bytes(size))).unwrap_or_default();
    let plural = |n: u64, one: &str| format!("{} {one}{}", thousands(n), if n == 1 { "" } else { "s" });
    format!(
        "{} of {} B, {}, {}{block}",
        plural(point.records, "record"),
        point.record_bytes,
        plural(point.partitions, "partition"),
        plural(point.receivers, "receiver"),
    )
}

fn modes(point: &PointReport) -> String {
    let mut table =
        table(["mode", "records/s", "from – to", "MB/s", "CPU s/M", "peak memory", "syncs", "p50", "p99", "each once"]);
    for mode in &point.modes {
        table.add_row(row(mode));
    }
    screen(&table)
}

/// The cells of a mode.
pub(super) fn row(mode: &ModeSummary) -> [String; 10] {
    let whole = |spread: Spread| thousands(spread.median as u64);
    let time = |spread: Spread| if mode.fsyncs.median > 0.0 { micros(spread.median as u64) } else { "–".to_string() };
    let rate = mode.records_per_s;
    [
        mode.mode.name().to_string(),
        format!("{}{}", whole(rate), if mode.too_short { " *" } else { "" }),
        format!("{} – {}", thousands(rate.min as u64), thousands(rate.max as u64)),
        format!("{:.0}", mode.mb_per_s.median),
        format!("{:.2}", mode.cpu_seconds_per_million.median),
        bytes(mode.rss_peak_bytes.median as u64),
        whole(mode.fsyncs),
        time(mode.fsync_p50_us),
        time(mode.fsync_p99_us),
        once(mode.exact, mode.checked),
    ]
}

/// The ratios that are known, in words.
pub(super) fn ratios(ratios: &Ratios) -> Vec<String> {
    [
        ("receiver / direct", ratios.receiver_to_direct),
        ("receiver / consume", ratios.receiver_to_consume),
        ("CPU receiver / consume", ratios.cpu_receiver_to_consume),
        ("direct / consume", ratios.direct_to_consume),
        ("receiver / receiver-os", ratios.receiver_to_receiver_os),
        ("receiver / receiver-memory", ratios.receiver_to_receiver_memory),
    ]
    .into_iter()
    .filter_map(|(name, ratio)| Some(format!("{name} {:.2}", ratio?)))
    .collect()
}

fn latency(latencies: &[Latency]) -> String {
    let mut table = table(["mode", "p50", "p99", "p99.9", "max", "records", "each once"]);
    for latency in latencies {
        table.add_row(latency_row(latency));
    }
    screen(&table)
}

/// The cells of a mode's latency.
pub(super) fn latency_row(latency: &Latency) -> [String; 7] {
    [
        latency.mode.name().to_string(),
        micros(latency.p50_us),
        micros(latency.p99_us),
        micros(latency.p999_us),
        micros(latency.max_us),
        thousands(latency.records),
        once(latency.delivery.is_exact(), latency.delivery.checked),
    ]
}

fn once(exact: bool, checked: Checked) -> String {
    let word = match (exact, checked) {
        (true, Checked::EachRecord) => "yes",
        (true, Checked::Count) => "counted",
        (false, _) => "NO",
    };
    word.to_string()
}
