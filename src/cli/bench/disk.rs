//! `forebay bench disk`: how long bytes take to become durable here, and whether the answer can be believed.
//!
//! Promises: each figure is a write followed by an `fdatasync`, through the same code as the log's; the files are removed.

use super::stats::quantile;
use super::watch::{Stop, bar};
use crate::cli::exit::{Failure, OK};
use crate::cli::output::{Format, bytes, micros, print, rows, screen, table, talk, thousands};
use crate::clock;
use crate::io::disk::Disk;
use crate::io::volume::Volume;
use crate::io::{File, IoError, Storage};
use serde::Serialize;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Sizes measured, and the last also as the rate of a sequential write.
const SIZES: [u64; 4] = [4 << 10, 64 << 10, 1 << 20, 16 << 20];
/// The one whose sync is judged.
const JUDGED: u64 = SIZES[0];
/// Bytes of the file that is written over.
const FILE_BYTES: u64 = 64 << 20;
/// How many writes are enough, and for how long at most.
const SAMPLES: usize = 500;
const TIME: Duration = Duration::from_millis(800);
/// Half the syncs of 4 KiB below this are no syncs, unless the device is persistent memory. A flush goes to the device and
/// back: the fastest drives that may answer at once (their cache survives power cuts) take about 10 µs for the write and
/// as much for the flush; drives without such a cache take several hundred.
const BELIEVABLE: Duration = Duration::from_micros(20);

#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct DiskArgs {
    /// Folder on the disk to measure [default: the current folder]
    #[arg(long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub dir: PathBuf,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Place {
    /// The end of the file: its length changes too.
    Growing,
    /// Blocks that were written before.
    Written,
}

/// Write and sync, many times.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figure {
    /// Bytes of each write.
    pub bytes: u64,
    place: Place,
    /// How many.
    pub samples: u64,
    /// Half took no longer.
    pub p50_us: u64,
    /// 99 of 100 took no longer.
    pub p99_us: u64,
    /// In a second, one after the other.
    pub syncs_per_s: f64,
    /// Millions of bytes in a second.
    pub mb_per_s: f64,
}

/// Runs `forebay bench disk`.
pub(super) fn run(args: &DiskArgs) -> Result<i32, Failure> {
    let stop = Stop::on_signals()?;
    let volume = Volume::of(&args.dir).map_err(io)?;
    let bar = bar(SIZES.len() as u64 * 2);
    let mut figures = Vec::new();
    let scratch = super::scratch(Some(&args.dir))?;
    for place in [Place::Growing, Place::Written] {
        for bytes in SIZES {
            bar.set_message(format!("{bytes} bytes"));
            figures.push(measure(scratch.path(), bytes, place, TIME, &stop)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let warnings = doubts(&volume, judged(&figures));
    match args.output {
        Format::Table => print(&format!("{}\n{}", headline(&volume), screen(&figures_table(&figures))))?,
        Format::Json => {
            let json = serde_json::json!({
                "schema": "forebay.bench.disk/1", "volume": volume, "figures": figures, "warnings": warnings,
                "believable": warnings.is_empty(),
            });
            print(&format!("{json:#}\n"))?;
        }
        Format::Jsonl => rows(Format::Jsonl, "", "", &figures, || table([]))?,
    }
    for warning in &warnings {
        talk(&format!("warning: {warning}"));
    }
    Ok(OK)
}

/// Sync figures for a report about something else: 4 KiB and 1 MiB at the end of a file; takes a second at most.
pub(super) fn quick(dir: &Path, stop: &Stop) -> Result<Vec<Figure>, Failure> {
    let time = Duration::from_millis(500);
    [JUDGED, 1 << 20].into_iter().map(|bytes| measure(dir, bytes, Place::Growing, time, stop)).collect()
}

/// The median sync of 4 KiB.
pub(super) fn judged(figures: &[Figure]) -> Duration {
    let of = figures.iter().filter(|figure| figure.bytes == JUDGED).map(|figure| figure.p50_us);
    Duration::from_micros(of.min().unwrap_or_default())
}

/// Why the disk's answers are not to be believed, given the median sync of 4 KiB.
pub(super) fn doubts(volume: &Volume, sync: Duration) -> Vec<String> {
    let mut doubts = Vec::new();
    let kind = &volume.file_system;
    if !volume.keeps {
        doubts.push(format!("{kind} keeps everything in memory: nothing here survives a power cut (choose --dir)"));
    } else if kind == "overlay" {
        doubts.push("overlay is a container's own layer, thrown away with it; measure a volume (--dir)".to_string());
    }
    if volume.keeps && sync < BELIEVABLE && !volume.is_persistent_memory() {
        doubts.push(format!(
            "half the syncs of 4 KiB took less than {BELIEVABLE:?}, faster than a flush can reach {} and return: something \
             between here and the medium does not flush",
            volume.device.as_deref().unwrap_or("a device")
        ));
    }
    doubts
}

fn measure(dir: &Path, bytes: u64, place: Place, time: Duration, stop: &Stop) -> Result<Figure, Failure> {
    let path = dir.join(format!("disk-{bytes}"));
    let file = Disk.create_new(&path).map_err(io)?;
    let result = sample(&*file, bytes, place, time, stop);
    Disk.unlink(&path).map_err(io)?;
    result
}

fn sample(file: &dyn File, bytes: u64, place: Place, time: Duration, stop: &Stop) -> Result<Figure, Failure> {
    // Not zeros: some devices don't write those.
    let content: Vec<u8> = (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let size = FILE_BYTES.max(bytes * 2);
    if place == Place::Written {
        for position in (0..size).step_by(content.len()) {
            file.write_at(position, &[IoSlice::new(&content)]).map_err(io)?;
        }
        file.sync_data().map_err(io)?;
    }
    let mut took = Vec::new();
    let until = clock::monotonic() + time;
    while took.len() < SAMPLES && clock::monotonic() < until {
        stop.check()?;
        let nth = took.len() as u64 * bytes;
        let position = if place == Place::Written { nth % size } else { nth };
        let before = clock::monotonic();
        file.write_at(position, &[IoSlice::new(&content)]).map_err(io)?;
        file.sync_data().map_err(io)?;
        took.push(clock::monotonic().saturating_sub(before).as_micros() as u64);
    }
    let seconds = took.iter().sum::<u64>() as f64 / 1e6;
    took.sort_unstable();
    let rate = took.len() as f64 / seconds.max(1e-9);
    Ok(Figure {
        bytes,
        place,
        samples: took.len() as u64,
        p50_us: quantile(&took, 0.5).unwrap_or_default(),
        p99_us: quantile(&took, 0.99).unwrap_or_default(),
        syncs_per_s: rate.round(),
        mb_per_s: (rate * bytes as f64 / 1e5).round() / 10.0,
    })
}

fn io(error: IoError) -> Failure {
    Failure::new(crate::cli::exit::IO, error)
}

fn headline(volume: &Volume) -> String {
    let device = volume.device.as_deref().map(|name| format!(" on {name}")).unwrap_or_default();
    let cache = volume.cache.as_deref().map(|cache| format!(", cache: {cache}")).unwrap_or_default();
    format!("{}{device}{cache}\n", volume.file_system)
}

fn figures_table(figures: &[Figure]) -> comfy_table::Table {
    let mut table = table(["write + sync", "where", "p50", "p99", "a second", "MB/s"]);
    for figure in figures {
        let place = match figure.place {
            Place::Growing => "end of the file",
            Place::Written => "over itself",
        };
        table.add_row([
            bytes(figure.bytes),
            place.to_string(),
            micros(figure.p50_us),
            micros(figure.p99_us),
            thousands(figure.syncs_per_s as u64),
            format!("{:.1}", figure.mb_per_s),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(file_system: &str, keeps: bool, device: &str) -> Volume {
        Volume {
            file_system: file_system.to_string(),
            keeps,
            device: Some(device.to_string()),
            rotational: None,
            cache: None,
        }
    }

    #[test]
    fn answers_that_cannot_be_are_doubted() {
        let doubts = |volume: &Volume, micros| doubts(volume, Duration::from_micros(micros));
        assert!(doubts(&volume("ext4", true, "nvme0n1"), 21).is_empty());
        assert!(doubts(&volume("ext4", true, "nvme0n1"), 19)[0].contains("nvme0n1"));
        assert!(doubts(&volume("ext4", true, "pmem0"), 2).is_empty());
        assert!(doubts(&volume("tmpfs", false, ""), 1)[0].contains("memory"));
        assert_eq!(doubts(&volume("overlay", true, "sda"), 3).len(), 2);
    }

    #[test]
    fn a_figure_counts_every_write() {
        let dir = tempfile::tempdir().unwrap();
        for place in [Place::Growing, Place::Written] {
            let figure = measure(dir.path(), 4096, place, Duration::from_millis(50), &Stop::default()).unwrap();
            assert!(figure.samples > 0 && figure.p99_us >= figure.p50_us, "{figure:?}");
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
