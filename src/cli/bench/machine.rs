//! The machine under a benchmark: numbers mean nothing without it.

use super::disk::Figure;
use crate::io::Storage;
use crate::io::disk::Disk;
use crate::io::volume::Volume;
use serde::Serialize;
use std::path::Path;

/// What a report says of the machine.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    /// What runs in parallel.
    pub cores: usize,
    /// Name of the processor.
    pub cpu: Option<String>,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// Version of this program.
    pub version: &'static str,
    /// Where log and output are.
    pub volume: Volume,
    /// Bytes that may be allocated there.
    pub free_bytes: u64,
    /// Writes with a sync at the end of a file.
    pub syncs: Vec<Figure>,
}

impl Machine {
    /// Looks around; `dir` is where log and output will be.
    pub fn of(dir: &Path, syncs: Vec<Figure>) -> Result<Self, crate::io::IoError> {
        let first = |path: &str, name: &str| {
            let text = std::fs::read_to_string(path).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_start_matches([' ', '\t', ':']).trim().to_string())
        };
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: first("/proc/cpuinfo", "model name"),
            memory_bytes: memory("MemTotal:"),
            kernel: first("/proc/sys/kernel/osrelease", ""),
            version: env!("CARGO_PKG_VERSION"),
            volume: Volume::of(dir)?,
            free_bytes: Disk.free_bytes(dir)?,
            syncs,
        })
    }
}

/// Bytes of memory that could be used without swapping; 0 if the system does not tell.
pub(super) fn memory_available() -> u64 {
    memory("MemAvailable:")
}

fn memory(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
