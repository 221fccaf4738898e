//! Opening a log: with every byte verified, and a long one until it is ready to deliver. Each in a process of its own, so
//! that its peak of memory is its own.

use crate::engines::{beginning, block, partition};
use crate::load::noise;
use anyhow::{Context, Result, ensure};
use forebay::io::disk::Disk;
use forebay::metrics::Metrics;
use forebay::wal::{FeedItem, Opened, Options};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BLOCK: usize = 1 << 20;
const PARTITIONS: usize = 4;
const TIMES: usize = 5;

/// Writes a log of so many GiB and verifies it, then one of so many more and opens it.
pub fn measure(dir: &Path, verified: f64, opened: f64) -> Result<()> {
    let dir = dir.join("recovery");
    std::fs::create_dir_all(&dir)?;
    let bytes = fill(&dir, verified)?;
    let runs = (0..TIMES).map(|_| own_process("verify", &dir)).collect::<Result<Vec<Value>>>()?;
    let seconds = median(&runs, "seconds");
    let verify = json!({
        "bytes": bytes, "seconds": seconds, "gigabytes_per_second": bytes as f64 / seconds / 1e9,
        "peak_rss_mib": median(&runs, "peak_rss_mib"),
    });
    println!("verified: {verify}");
    std::fs::remove_dir_all(&dir)?;
    std::fs::create_dir_all(&dir)?;
    let bytes = fill(&dir, opened)?;
    let runs = (0..TIMES).map(|_| own_process("open", &dir)).collect::<Result<Vec<Value>>>()?;
    let open = json!({
        "bytes": bytes, "seconds": median(&runs, "seconds"), "first_block_seconds": median(&runs, "first_block_seconds"),
        "peak_rss_mib": median(&runs, "peak_rss_mib"),
    });
    println!("opened: {open}");
    std::fs::remove_dir_all(&dir)?;
    println!("{}", json!({"verified": verify, "opened": open}));
    Ok(())
}

fn median(runs: &[Value], name: &str) -> f64 {
    let mut values: Vec<f64> = runs.iter().filter_map(|run| run[name].as_f64()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A log of undelivered blocks, stopped cleanly; its bytes.
fn fill(dir: &Path, gib: f64) -> Result<u64> {
    let Opened { log, .. } = forebay::wal::open(Arc::new(Disk), Options::new(dir, Arc::new(Metrics::new())))?;
    log.append_synced(beginning(PARTITIONS))?;
    let pool: Vec<_> = (0..16).map(|i| noise(i + 1, BLOCK)).collect();
    let blocks = (gib * f64::from(1 << 30)) as usize / BLOCK;
    for i in 0..blocks {
        log.append(block(partition(i % PARTITIONS), (i / PARTITIONS) as i64, pool[i % pool.len()].clone()))?;
        if i % 16 == 15 {
            log.append_synced(Vec::new())?;
        }
    }
    log.append_synced(Vec::new())?;
    log.close()?;
    Ok((blocks * BLOCK) as u64)
}

fn own_process(what: &str, dir: &Path) -> Result<Value> {
    let output = Command::new(std::env::current_exe()?).arg(what).arg(dir).output()?;
    ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("what it printed")
}

/// Opens, every byte verified.
pub fn verify(dir: &Path) -> Result<()> {
    let options = Options { verify_bytes: u64::MAX, ..Options::new(dir, Arc::new(Metrics::new())) };
    let begin = Instant::now();
    let Opened { log, report, .. } = forebay::wal::open(Arc::new(Disk), options)?;
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(report.segments > 1 && report.corrupt.is_empty() && report.problems.is_empty(), "damaged: {report:?}");
    println!("{}", json!({"seconds": seconds, "peak_rss_mib": peak_rss()}));
    log.close()?;
    Ok(())
}

/// Opens, and waits for the first block.
pub fn open(dir: &Path) -> Result<()> {
    let begin = Instant::now();
    let options = Options::new(dir, Arc::new(Metrics::new()));
    let Opened { log, mut feed, .. } = forebay::wal::open(Arc::new(Disk), options)?;
    let seconds = begin.elapsed().as_secs_f64();
    let item = feed.next(Duration::from_secs(10))?;
    ensure!(matches!(item, Some(FeedItem::Block { .. })), "no block");
    let first = begin.elapsed().as_secs_f64();
    println!("{}", json!({"seconds": seconds, "first_block_seconds": first, "peak_rss_mib": peak_rss()}));
    drop(feed);
    log.close()?;
    Ok(())
}

fn peak_rss() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
}
