//! The README says what the program does: settings and metrics in it are the ones in the code.

#![allow(clippy::unwrap_used, clippy::panic)]

use forebay::config::reference;
use forebay::metrics::Metrics;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

fn between(from: &str, to: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let after = text.split_once(from).unwrap_or_else(|| panic!("no {from} in the README")).1;
    let after = after.split_once("-->\n").unwrap().1;
    after.split_once(to).unwrap_or_else(|| panic!("no {to} in the README")).0.to_string()
}

/// Name and kind of everything exported.
fn exported() -> BTreeMap<String, String> {
    let metrics = Metrics::new();
    let _ = metrics.partition("topic", 0);
    metrics.lost("topic", 0, 1);
    metrics.time_to_loss("topic", 0, Some(Duration::from_secs(1)));
    metrics.wal_fsync_seconds.observe(Duration::from_millis(1));
    let text = metrics.encode();
    let mut found = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        found.insert(format!("{name}{suffix}"), kind.to_string());
    }
    found
}

#[test]
fn the_reference_of_settings_is_the_generated_one() {
    let written = between("<!-- settings:", "<!-- end of settings -->");
    assert_eq!(written, reference::markdown(), "run `forebay check --print-reference` and put its output there");
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let table = between("<!-- metrics:", "<!-- end of metrics -->");
    let mut documented = BTreeMap::new();
    for line in table.lines().skip(2) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        documented.insert(cells[1].trim_matches('`').to_string(), cells[2].to_string());
    }
    assert_eq!(documented, exported());
}
