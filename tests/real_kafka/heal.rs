//! Damaged blocks that Kafka still has are fetched again while delivery goes on; what it no longer has stops its
//! partition at the exact range.

use std::path::Path;

use crate::common::harm::{Logged, delivered_to, pick, undelivered_blocks};
use crate::common::process::{Finished, LIMIT, forebay};
use crate::common::verify::lines;
use crate::common::{Dice, Format, Kafka, Run, Scratch, delivered, kafka, unique, wait_for};

const PARTITIONS: i32 = 4;
const RECORDS: u64 = 8000;

/// A run whose log has many blocks in many segments, all acknowledged, none delivered.
struct Undelivered {
    topic: String,
    group: String,
    run: Run,
}

fn undelivered(kafka: &Kafka, scratch: &Scratch, name: &str) -> Undelivered {
    let (topic, group) = (unique(name), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]);
    kafka.fill(&topic, PARTITIONS, 0, RECORDS, 200);
    let run = Run::new(kafka, &topic, &group, scratch.path())
        .set("sink.format=raw")
        .set("block.bytes=64KiB")
        .set("wal.segment_bytes=512KiB");
    Undelivered { topic, group, run }
}

impl Undelivered {
    fn wait_acknowledged(&self, kafka: &Kafka) {
        let all = vec![Some(RECORDS as i64); PARTITIONS as usize];
        wait_for("commit of everything", LIMIT, || {
            (kafka.committed(&self.group, &self.topic, PARTITIONS) == all).then_some(())
        });
    }

    /// A pipe that nobody reads keeps everything acknowledged and undelivered, but for what fits into it; the kill keeps
    /// it so. Returns how far each partition is delivered.
    fn fill_and_kill(&self, kafka: &Kafka) -> Vec<i64> {
        let process = self.run.clone().stdout_sink().spawn();
        self.wait_acknowledged(kafka);
        process.kill();
        delivered_to(self.wal(), PARTITIONS)
    }

    /// Everything that was not delivered before came once.
    fn assert_delivered(&self, before: &[i64]) {
        let verdict = delivered(&[self.run.out()], &self.topic, PARTITIONS, RECORDS, Format::Raw);
        let found = (verdict.lost as i64, verdict.doubled, verdict.disordered, verdict.strange);
        assert_eq!(found, (before.iter().sum(), 0, 0, 0), "{verdict:#?}");
    }

    fn wal(&self) -> &Path {
        self.run.wal()
    }
}

/// Damages these blocks; returns what their payloads were.
fn harm(wal: &Path, damaged: &[Logged], dice: &mut Dice) -> Vec<Vec<u8>> {
    let payloads = damaged.iter().map(|block| block.payload(wal)).collect();
    for block in damaged {
        block.harm(wal, dice);
    }
    payloads
}

/// The blocks are in repair files, byte for byte.
fn assert_repaired(wal: &Path, damaged: &[Logged], payloads: &[Vec<u8>]) {
    for (block, payload) in damaged.iter().zip(payloads) {
        let repaired = block.repaired(wal).unwrap_or_else(|| panic!("{block:?} was not repaired"));
        assert!(repaired == *payload, "{block:?} differs");
    }
}

/// For each partition the first damaged block, if any: nothing from there on was delivered, everything before was.
fn assert_stopped(log: &Undelivered, before: &[i64], damaged: &[Logged], finished: &Finished) {
    let (out, topic) = (log.run.out(), &log.topic);
    for partition in 0..PARTITIONS {
        let first = damaged.iter().filter(|block| block.partition == partition).min_by_key(|block| block.first);
        let end = first.map_or(RECORDS as i64, |block| block.first);
        let found = lines(out, topic, partition, Format::Raw);
        assert_eq!(found.len() as i64, end - before[partition as usize], "partition {partition}");
        if let Some(block) = first {
            finished.says(&format!("{topic}/{partition} {}", block.range()));
        }
    }
}

#[test]
fn damaged_blocks_are_fetched_again_and_delivered() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("heal");
    let mut dice = Dice::new("heal");
    let log = undelivered(kafka, &scratch, "heal");
    let before = log.fill_and_kill(kafka);
    let damaged = pick(undelivered_blocks(log.wal(), PARTITIONS), 40, &mut dice);
    let payloads = harm(log.wal(), &damaged, &mut dice);
    // A copy that is not delivered to the end keeps its repair files.
    let process = log.run.clone().stdout_sink().spawn();
    wait_for("repair of all", LIMIT, || (process.status()["wal"]["damage"]["repaired"] == 40).then_some(()));
    assert_repaired(log.wal(), &damaged, &payloads);
    process.kill();
    let before: Vec<i64> = delivered_to(log.wal(), PARTITIONS).into_iter().zip(before).map(|(a, b)| a.max(b)).collect();
    let checked = forebay(&["wal", "check", &log.wal().display().to_string()]);
    assert_eq!(checked.status.code(), Some(3), "{}", checked.stdout);
    assert!(checked.stdout.contains("mended by"), "{}", checked.stdout);
    assert!(!checked.stdout.contains("corrupt-block"), "{}", checked.stdout);
    log.run.drain();
    log.assert_delivered(&before);
}

#[test]
fn one_run_repairs_and_delivers_everything() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("heal-at-once");
    let mut dice = Dice::new("heal-at-once");
    let log = undelivered(kafka, &scratch, "heal-at-once");
    let before = log.fill_and_kill(kafka);
    let damaged = pick(undelivered_blocks(log.wal(), PARTITIONS), 30, &mut dice);
    harm(log.wal(), &damaged, &mut dice);
    let finished = log.run.drain();
    assert_eq!(finished.number("repaired"), 30);
    log.assert_delivered(&before);
    assert_eq!(log.run.drain().number("records"), 0);
}

/// Blocks of one codec are read by a run that is set to another.
#[test]
fn compressed_blocks_are_repaired_and_delivered() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("heal-compressed");
    let mut dice = Dice::new("heal-compressed");
    let mut log = undelivered(kafka, &scratch, "heal-compressed");
    // Enough of them that many blocks lie in finished ones.
    log.run = log.run.set("wal.segment_bytes=64KiB");
    let process = log.run.clone().set("wal.compression=zstd").stdout_sink().spawn();
    log.wait_acknowledged(kafka);
    let (_, metrics) = process.ask("/metrics");
    let saved = metrics.lines().find_map(|line| line.strip_prefix("forebay_wal_bytes_saved_total ")).unwrap();
    let values = RECORDS * PARTITIONS as u64 * 200;
    assert!(saved.parse::<u64>().unwrap() > values / 2, "{saved} of {values}");
    process.kill();
    let wal = log.wal().display().to_string();
    let dumped = forebay(&["wal", "dump", &wal, "--records", "--partition", "3"]);
    assert_eq!(dumped.status.code(), Some(0), "{}", dumped.stderr);
    assert!(dumped.stdout.lines().count() > RECORDS as usize / 2 && dumped.stdout.contains("\"p3-"), "not readable");
    let before = delivered_to(log.wal(), PARTITIONS);
    let damaged = pick(undelivered_blocks(log.wal(), PARTITIONS), 20, &mut dice);
    harm(log.wal(), &damaged, &mut dice);
    let finished = log.run.clone().set("wal.compression=lz4").drain();
    assert_eq!(finished.number("repaired"), 20);
    log.assert_delivered(&before);
}

/// The log is damaged under a running process; the scrubber finds it before anybody reads it.
#[test]
fn the_scrubber_finds_damage_of_a_running_log() {
    use std::io::{BufRead, BufReader};
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("scrub");
    let mut dice = Dice::new("scrub");
    let log = undelivered(kafka, &scratch, "scrub");
    let run = log.run.clone().set("wal.scrub_every=1s").set("wal.scrub_rate=1GiB").stdout_sink();
    let mut process = run.spawn();
    log.wait_acknowledged(kafka);
    let damaged = pick(undelivered_blocks(log.wal(), PARTITIONS), 25, &mut dice);
    let payloads = harm(log.wal(), &damaged, &mut dice);
    wait_for("repair of all", LIMIT, || (process.status()["wal"]["damage"]["repaired"] == 25).then_some(()));
    assert_repaired(log.wal(), &damaged, &payloads);
    assert!(process.status()["wal"]["damage"]["scrubbed_bytes"].as_u64().unwrap() > 0);
    let (_, metrics) = process.ask("/metrics");
    assert!(metrics.contains("forebay_wal_repaired_blocks_total 25"), "{metrics}");
    // What went into the pipe before is there too.
    let pipe = BufReader::new(process.pipe.take().unwrap());
    let mut next = [0_u64; PARTITIONS as usize];
    for line in pipe.lines().take(RECORDS as usize * PARTITIONS as usize) {
        let line = line.unwrap();
        let mut words = line.strip_prefix('p').unwrap().split('-');
        let mut word = || words.next().unwrap().parse::<u64>().unwrap();
        let (partition, number) = (word() as usize, word());
        assert_eq!(number, next[partition], "partition {partition}");
        next[partition] += 1;
    }
    assert_eq!(next, [RECORDS; PARTITIONS as usize]);
    process.stop();
}

#[test]
fn a_deleted_topic_stops_each_partition_at_its_exact_range() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("heal-deleted");
    let mut dice = Dice::new("heal-deleted");
    let log = undelivered(kafka, &scratch, "heal-deleted");
    let before = log.fill_and_kill(kafka);
    let all: Vec<Logged> =
        undelivered_blocks(log.wal(), PARTITIONS).into_iter().filter(|block| block.partition != 0).collect();
    let damaged = pick(all, 12, &mut dice);
    harm(log.wal(), &damaged, &mut dice);
    kafka.delete_topic(&log.topic);
    // Of another topic, so that the group has something to do.
    let other = unique("heal-other");
    kafka.create_topic(&other, 1, &[]);
    let mut process = Run::new(kafka, &other, &log.group, scratch.path()).set("sink.format=raw").spawn();
    let firsts = (1..PARTITIONS).filter(|p| damaged.iter().any(|block| block.partition == *p)).count() as u64;
    wait_for("end of all attempts", LIMIT, || {
        let damage = process.status()["wal"]["damage"].clone();
        (damage["given_up"].as_u64() >= Some(firsts) && damage["waiting"] == 0).then_some(())
    });
    process.terminate();
    let finished = process.finish(LIMIT);
    finished.expect(3);
    finished.says("no longer exists");
    assert_stopped(&log, &before, &damaged, &finished);
}

/// Deleted and created again with other records at the same offsets: they are not taken for the logged ones.
#[test]
fn another_incarnation_of_a_topic_mends_nothing() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("heal-again");
    let mut dice = Dice::new("heal-again");
    let log = undelivered(kafka, &scratch, "heal-again");
    let before = log.fill_and_kill(kafka);
    let damaged = pick(undelivered_blocks(log.wal(), PARTITIONS), 6, &mut dice);
    harm(log.wal(), &damaged, &mut dice);
    kafka.delete_topic(&log.topic);
    kafka.create_topic(&log.topic, PARTITIONS, &[]);
    // The same records once more: only the topic's id tells.
    kafka.fill(&log.topic, PARTITIONS, 0, RECORDS, 200);
    let other = unique("heal-again-other");
    kafka.create_topic(&other, 1, &[]);
    let mut process = Run::new(kafka, &other, &log.group, scratch.path()).set("sink.format=raw").spawn();
    wait_for("end of all attempts", LIMIT, || {
        let damage = process.status()["wal"]["damage"].clone();
        (damage["given_up"].as_u64() > Some(0) && damage["waiting"] == 0).then_some(())
    });
    process.terminate();
    let finished = process.finish(LIMIT);
    finished.expect(3);
    finished.says("deleted and created again");
    assert_stopped(&log, &before, &damaged, &finished);
}

/// Kafka's retention took the first of two damaged blocks: that partition stops, the other goes on.
#[test]
fn what_retention_took_stops_its_partition_alone() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("heal-retention");
    let mut dice = Dice::new("heal-retention");
    let log = undelivered(kafka, &scratch, "heal-retention");
    let before = log.fill_and_kill(kafka);
    let all = undelivered_blocks(log.wal(), PARTITIONS);
    let of =
        |partition: i32| all.iter().find(|block| block.partition == partition && block.first > 500).unwrap().clone();
    let damaged = [of(1), of(2)];
    harm(log.wal(), &damaged, &mut dice);
    kafka.delete_records(&log.topic, 1, damaged[0].first + 1);
    let finished = log.run.clone().exit_at_end().finish();
    finished.expect(3);
    finished.says("Kafka has only offsets");
    assert_stopped(&log, &before, &damaged[..1], &finished);
}

/// `wal repair`: the plan, what Kafka has, the repair; then everything is delivered without Kafka's help.
#[test]
fn wal_repair_plans_and_applies() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("wal-repair");
    let mut dice = Dice::new("wal-repair");
    let log = undelivered(kafka, &scratch, "wal-repair");
    let before = log.fill_and_kill(kafka);
    let damaged = pick(undelivered_blocks(log.wal(), PARTITIONS), 10, &mut dice);
    let payloads = harm(log.wal(), &damaged, &mut dice);
    let wal = log.wal().display().to_string();
    let repair = |more: &[&str], code: i32| -> serde_json::Value {
        let finished = forebay(&[&["wal", "repair", &wal, "--output", "json"], more].concat());
        assert_eq!(finished.status.code(), Some(code), "{}{}", finished.stdout, finished.stderr);
        serde_json::from_str(&finished.stdout).unwrap_or_default()
    };
    let outcomes = |report: &serde_json::Value, outcome: &str| {
        let blocks = report["blocks"].as_array().unwrap();
        blocks.iter().filter(|block| block["outcome"] == outcome).count()
    };
    assert_eq!(outcomes(&repair(&[], 3), "to-fetch"), 10);
    repair(&["--apply"], 2);
    assert_eq!(outcomes(&repair(&["--from-kafka", "--brokers", "127.0.0.1:1"], 69), "unanswered"), 10);
    let here = ["--from-kafka", "--brokers", kafka.brokers()];
    assert_eq!(outcomes(&repair(&here, 3), "in-kafka"), 10);
    let process = log.run.clone().stdout_sink().spawn();
    process.wait_says("the log is open");
    repair(&[&here[..], &["--apply"]].concat(), 78);
    process.kill();
    let applied = repair(&[&here[..], &["--apply"]].concat(), 0);
    let mended = outcomes(&applied, "repaired") + outcomes(&applied, "settled");
    assert_eq!(mended, 10, "{applied:#}");
    assert_repaired(log.wal(), &damaged, &payloads);
    let table = forebay(&["wal", "repair", &wal]);
    assert_eq!(table.status.code(), Some(0), "{}", table.stdout);
    assert!(table.stdout.contains(&format!("{}/{} {}", log.topic, damaged[0].partition, damaged[0].range())));
    kafka.delete_topic(&log.topic);
    let other = unique("wal-repair-other");
    kafka.create_topic(&other, 1, &[]);
    let before: Vec<i64> = delivered_to(log.wal(), PARTITIONS).into_iter().zip(before).map(|(a, b)| a.max(b)).collect();
    let process = Run::new(kafka, &other, &log.group, scratch.path()).set("sink.format=raw").spawn();
    wait_for("delivery of everything from the log", LIMIT, || {
        (delivered_to(log.wal(), PARTITIONS) == [RECORDS as i64; PARTITIONS as usize]).then_some(())
    });
    process.kill();
    log.assert_delivered(&before);
}
