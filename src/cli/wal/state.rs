//! The log in one line, for `forebay check`.

use super::super::exit::{FOUND, OK};
use super::super::output::{bytes, thousands};
use crate::io::Storage;
use crate::io::disk::Disk;
use crate::wal::inspect::{Overview as Log, inspect};
use std::path::Path;

/// The log in one line.
#[derive(Debug, serde::Serialize)]
pub(in crate::cli) struct Overview {
    /// For people.
    pub text: String,
    /// The exit code it asks for.
    #[serde(skip)]
    pub code: i32,
}

/// Looks at the log; a directory that does not exist yet is fine.
pub(in crate::cli) fn overview(dir: &Path) -> Overview {
    let new = || Overview { text: format!("{} will be new", dir.display()), code: OK };
    match Disk.exists(dir) {
        Ok(true) => {}
        Ok(false) => return new(),
        Err(error) => return Overview { text: error.to_string(), code: super::super::exit::IO },
    }
    match inspect(&Disk, dir) {
        Ok(log) if log.segments.is_empty() && log.findings.is_empty() => new(),
        Ok(log) => describe(dir, &log),
        Err(error) => Overview { code: i32::from(error.exit_code()), text: error.to_string() },
    }
}

fn describe(dir: &Path, log: &Log) -> Overview {
    let total = log.segments.iter().map(|segment| segment.bytes).sum();
    let live = log.segments.iter().filter(|segment| segment.live).count();
    let (size, count) = (bytes(total), thousands(log.segments.len() as u64));
    let text = format!("{}: {count} segments, {size}, {live} with blocks to deliver", dir.display());
    if log.is_damaged() {
        Overview { text: format!("{text}; damaged, see `forebay wal check`"), code: FOUND }
    } else {
        Overview { text: format!("{text}; every byte verifies"), code: OK }
    }
}
