//! Minutes in which the sink takes nothing while the input goes on: memory stays bounded, and the log by its quota if it has
//! one (else it takes all that comes); the group stays as it is, and everything arrives afterwards.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::process::LIMIT;
use crate::common::{Load, Run, Scratch, env_number, unique};
use crate::{asked, report};

const PARTITIONS: i32 = 4;
const RSS_MAX: u64 = 256 << 20;

fn dir_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    // A file may be retired between the listing and the look.
    let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.blocks() * 512));
    sizes.sum()
}

/// The partition and number of a raw line `p<partition>-<number>-…`.
fn parse(line: &str) -> (usize, u64) {
    let mut words = line.strip_prefix('p').unwrap().split('-');
    let mut word = || words.next().unwrap().parse::<u64>().unwrap();
    (word() as usize, word())
}

#[test]
fn stall() {
    let Some(kafka) = asked("stall") else { return };
    let seconds = env_number("FOREBAY_STALL_SECONDS", 120);
    let rate = env_number("FOREBAY_RATE", 20_000);
    // None: 0.
    let quota = env_number("FOREBAY_QUOTA_MIB", 512);
    let scratch = Scratch::new("stall");
    let (topic, group) = (unique("stall"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]);
    let mut run = Run::new(kafka, &topic, &group, scratch.path()).set("sink.format=raw").stdout_sink();
    if quota > 0 {
        run = run.set(&format!("wal.max_bytes={quota}MiB"));
    }
    let mut process = run.spawn();
    let load = Load::start(kafka, &topic, PARTITIONS, 0, rate, 1024);
    let start = Instant::now();
    let (mut rss, mut wal) = (0, 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(500));
        assert!(!process.has_ended(), "{}", process.stderr());
        rss = rss.max(process.rss());
        wal = wal.max(dir_bytes(run.wal()));
    }
    let generations = kafka.generations(&group);
    let next = load.stop();
    let committed = kafka.committed(&group, &topic, PARTITIONS);
    let taken: i64 = committed.into_iter().flatten().sum();
    let pipe = BufReader::new(process.pipe.take().unwrap());
    let all = next * PARTITIONS as u64;
    let mut found = vec![0_u64; PARTITIONS as usize];
    for line in pipe.lines().take(all as usize) {
        let (partition, number) = parse(&line.unwrap());
        assert_eq!(number, found[partition], "partition {partition}");
        found[partition] += 1;
    }
    rss = rss.max(process.rss_peak());
    process.terminate();
    process.finish(LIMIT).expect(0);
    let delivered: u64 = found.iter().sum();
    report(
        "stall",
        json!({
            "seconds": seconds, "produced": all, "taken_while_stalled": taken, "delivered": delivered,
            "rss_max_bytes": rss, "wal_max_bytes": wal, "generations": generations,
        }),
    );
    assert_eq!(delivered, all);
    assert!(rss <= RSS_MAX, "RSS {rss}");
    assert!(quota == 0 || wal <= quota << 20, "log {wal}");
    assert_eq!((generations, kafka.generations(&group)), (1, 1), "rebalanced");
}
