//! Blocks of the log damaged at random, in a log that waits for its sink and in one that is being delivered: all fetched
//! again from Kafka, everything delivered once, every byte as it was produced.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::harm::{Logged, delivered_to, pick, undelivered_blocks};
use crate::common::process::{Forebay, LIMIT};
use crate::common::produce::value;
use crate::common::{Dice, Kafka, Run, Scratch, env_number, unique, wait_for};
use crate::{asked, report};

const PARTITIONS: i32 = 8;
/// So many are damaged in one log.
const A_ROUND: u64 = 250;
const RECORDS: u64 = 12_000;
const BYTES: usize = 200;
/// The way through a log while it is being repaired.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the rounds gave.
#[derive(Default)]
struct Sum {
    damaged: u64,
    repaired: u64,
    lost: u64,
    doubled: u64,
    /// Records delivered while something was damaged and not repaired yet.
    delivered_meanwhile: u64,
}

#[test]
fn heal() {
    let Some(kafka) = asked("heal") else { return };
    let wanted = env_number("FOREBAY_DAMAGED", 1000);
    let start = Instant::now();
    let (mut sum, mut dice) = (Sum::default(), Dice::new("heal"));
    while sum.damaged < wanted {
        let count = A_ROUND.min(wanted - sum.damaged) as usize;
        round(kafka, count, &mut dice, &mut sum);
    }
    let seconds = (start.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    report(
        "heal",
        json!({
            "damaged": sum.damaged, "repaired": sum.repaired, "lost": sum.lost, "doubled": sum.doubled,
            "delivered_meanwhile": sum.delivered_meanwhile, "seconds": seconds,
        }),
    );
    assert_eq!((sum.repaired, sum.lost, sum.doubled), (sum.damaged, 0, 0));
    assert!(sum.delivered_meanwhile > 0, "delivery waited for the repairs");
}

/// One log. Half of the damage is done under the running process, where the scrubber finds it; the repair files are compared
/// with what was logged. The other half is done before a start and repaired while delivery goes on.
fn round(kafka: &'static Kafka, count: usize, dice: &mut Dice, sum: &mut Sum) {
    let scratch = Scratch::new("heal");
    let (topic, group) = (unique("heal"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]);
    kafka.fill(&topic, PARTITIONS, 0, RECORDS, BYTES);
    let run = Run::new(kafka, &topic, &group, scratch.path())
        .set("sink.format=raw")
        .set("block.bytes=32KiB")
        .set("wal.segment_bytes=512KiB")
        .set("wal.scrub_every=1s")
        .set("wal.scrub_rate=1GiB")
        .stdout_sink();
    // Nobody reads the pipe: everything is acknowledged and nothing delivered.
    let process = run.spawn();
    let all = vec![Some(RECORDS as i64); PARTITIONS as usize];
    wait_for("commit of everything", LIMIT, || (kafka.committed(&group, &topic, PARTITIONS) == all).then_some(()));
    let damaged = pick(undelivered_blocks(run.wal(), PARTITIONS), count, dice);
    let payloads: Vec<Vec<u8>> = damaged.iter().map(|block| block.payload(run.wal())).collect();
    let (live, standing): (Vec<_>, Vec<_>) = damaged.iter().zip(&payloads).enumerate().partition(|(i, _)| i % 2 == 0);
    for (_, (block, _)) in &live {
        block.harm(run.wal(), dice);
    }
    wait_for("repair of what was damaged under the running process", PATIENCE, || {
        (repaired(&process) == live.len() as u64).then_some(())
    });
    let same = |(block, payload): (&Logged, &Vec<u8>)| block.repaired(run.wal()).as_ref() == Some(payload);
    sum.repaired += live.iter().filter(|(_, pair)| same(*pair)).count() as u64;
    process.kill();
    for (_, (block, _)) in &standing {
        block.harm(run.wal(), dice);
    }
    sum.damaged += damaged.len() as u64;
    let next = delivered_to(run.wal(), PARTITIONS).into_iter().map(|next| next as u64).collect();
    deliver(run.spawn(), next, standing.len() as u64, sum);
}

fn repaired(process: &Forebay) -> u64 {
    let (_, metrics) = process.ask("/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix("forebay_wal_repaired_blocks_total "));
    line.unwrap().parse().unwrap()
}

/// Reads everything from these numbers on; `expected` blocks of it are to be repaired.
fn deliver(mut process: Forebay, next: Vec<u64>, expected: u64, sum: &mut Sum) {
    let pipe = process.pipe.take().unwrap();
    let lines = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&lines);
    let all = next.iter().map(|next| RECORDS - next).sum::<u64>();
    let reader = std::thread::spawn(move || read(pipe, next, &counter));
    wait_for("delivery of everything", PATIENCE, || {
        let before = lines.load(Ordering::Relaxed);
        if repaired(&process) < expected {
            sum.delivered_meanwhile = sum.delivered_meanwhile.max(before);
        }
        (lines.load(Ordering::Relaxed) >= all || reader.is_finished()).then_some(())
    });
    wait_for("count of the last repair", LIMIT, || (repaired(&process) == expected).then_some(()));
    sum.repaired += expected;
    process.terminate();
    process.finish(LIMIT).expect(0);
    let (lost, doubled) = reader.join().unwrap();
    sum.lost += lost;
    sum.doubled += doubled;
}

/// Every line is compared with what was produced; returns how many were missing and how many came again.
fn read(pipe: ChildStdout, mut next: Vec<u64>, lines: &AtomicU64) -> (u64, u64) {
    let (mut doubled, mut expected) = (0, String::new());
    for line in BufReader::new(pipe).lines() {
        let line = line.unwrap();
        let mut words = line.strip_prefix('p').unwrap().split('-');
        let mut word = || words.next().unwrap().parse::<u64>().unwrap();
        let (partition, number) = (word() as usize, word());
        value(&mut expected, partition as i32, number, BYTES);
        assert_eq!(line, expected, "other bytes than were produced");
        assert!(number <= next[partition], "p{partition}-{number} after {}", next[partition]);
        doubled += u64::from(number < next[partition]);
        next[partition] = next[partition].max(number + 1);
        lines.fetch_add(1, Ordering::Relaxed);
    }
    (next.iter().map(|next| RECORDS - next).sum(), doubled)
}
