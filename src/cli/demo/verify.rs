//! Reads the output files and counts: the only source of the demo's verdict.

use anyhow::Context;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// How often each value occurs.
pub type Found = HashMap<String, u64>;

/// What the comparison says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Records in the output.
    pub delivered: u64,
    /// Produced and not there.
    pub lost: u64,
    /// Extra copies.
    pub doubled: u64,
}

/// Reads every file below `dir`, finished or open. With `torn_lines`, a last line that a kill cut short counts as
/// nothing; without, it is an error.
pub fn read(dir: &Path, torn_lines: bool) -> anyhow::Result<Found> {
    let mut found = Found::new();
    collect(dir, torn_lines, &mut found)?;
    Ok(found)
}

fn collect(dir: &Path, torn_lines: bool, found: &mut Found) -> anyhow::Result<()> {
    for entry in dir.read_dir().with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, torn_lines, found)?;
            continue;
        }
        let mut reader = BufReader::new(std::fs::File::open(&path)?);
        let mut line = String::new();
        for number in 1.. {
            line.clear();
            if reader.read_line(&mut line)? == 0 || (torn_lines && !line.ends_with('\n')) {
                break;
            }
            let place = || format!("{} line {number}", path.display());
            let record: serde_json::Value = serde_json::from_str(&line).with_context(place)?;
            let value = record["value"].as_str().with_context(place)?;
            *found.entry(value.to_string()).or_default() += 1;
        }
    }
    Ok(())
}

/// Compares with `produced` records per partition.
pub fn compare(found: &Found, produced: &[u64]) -> Verdict {
    let mut verdict = Verdict { delivered: found.values().sum(), ..Verdict::default() };
    verdict.doubled = verdict.delivered - found.len() as u64;
    for (partition, &count) in produced.iter().enumerate() {
        let lost = (0..count).filter(|&n| !found.contains_key(&super::load::value(partition as i32, n)));
        verdict.lost += lost.count() as u64;
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_doubled_are_counted() {
        let found = Found::from([("p0-0".to_string(), 1), ("p1-0".to_string(), 3)]);
        let verdict = compare(&found, &[2, 1]);
        assert_eq!(verdict, Verdict { delivered: 4, lost: 1, doubled: 2 });
    }
}
