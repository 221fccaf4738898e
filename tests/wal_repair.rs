//! Damaged blocks, repair files and the feed that goes back for them: on the simulated disk, with crashes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use forebay::io::Storage;
use forebay::io::fault::{Faults, Operation};
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::batch::{BatchBuilder, RecordRef};
use forebay::record::{Block, BlockHeader, Partition};
use forebay::wal::inspect::{Dumped, dump, inspect};
use forebay::wal::repair::accept::Refusal;
use forebay::wal::repair::{Attempt, KeepError, Repairs};
use forebay::wal::scan::survey::survey;
use forebay::wal::scrub::{Pace, Scrubber};
use forebay::wal::segment::{FileName, classify, repair_name, wal_name};
use forebay::wal::{CorruptBlock, Entry, ErrorClass, Feed, FeedItem, Log, Opened, Options, open};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const P: Partition = Partition { topic: 1, number: 0 };
const Q: Partition = Partition { topic: 1, number: 1 };
const DIR: &str = "/wal";
const BLOCKS: i64 = 40;
const RECORDS: i64 = 5;

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }
}

/// What Kafka has at `[first, first + RECORDS)`; `twist` changes a value.
fn block_of(partition: Partition, first: i64, twist: u8) -> Block {
    let mut builder = BatchBuilder::new(Vec::new(), first);
    for offset in first..first + RECORDS {
        let value = vec![(offset as u8) ^ (partition.number as u8) ^ twist; 700];
        let record = RecordRef { offset, timestamp: 1000 + offset, key: Some(b"k"), value: Some(&value), headers: &[] };
        builder.push(&record);
    }
    let encoded = builder.finish(first + RECORDS, 3);
    let header = BlockHeader {
        partition,
        first,
        next: first + RECORDS,
        leader_epoch: 3,
        tenure: 1,
        count: encoded.count,
        digest: encoded.digest,
        payload_crc: encoded.payload_crc,
    };
    Block { header, payload: Bytes::from(encoded.buffer) }
}

fn again(block: &CorruptBlock) -> Block {
    block_of(block.partition, block.first, 0)
}

fn options() -> Options {
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    options.idle = Duration::from_millis(2);
    options.seed = Some(11);
    options
}

fn start(sim: &Sim) -> Opened {
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    open(storage, options()).expect("opens")
}

/// A log of several sealed segments with footers, nothing of it delivered, cleanly closed.
fn logged(seed: u64) -> Sim {
    let sim = Sim::new(seed);
    let opened = start(&sim);
    let owned = |partition| Entry::Owned { partition, tenure: 1, first: 0, next: 0, acked_entries: String::new() };
    opened.log.append_synced(vec![owned(P), owned(Q)]).unwrap();
    for i in 0..BLOCKS {
        let blocks = [P, Q].map(|partition| Entry::Block(block_of(partition, i * RECORDS, 0)));
        opened.log.append_synced(blocks.into()).unwrap();
    }
    opened.log.close().unwrap();
    sim
}

/// A block's place: partition, number, segment, position, length of header and payload.
type Found = (Partition, i64, u64, u64, u64);

fn places(sim: &Sim) -> Vec<Found> {
    let mut found = Vec::new();
    let numbers: Vec<_> = inspect(sim, Path::new(DIR)).unwrap().segments.iter().map(|s| s.number).collect();
    for number in numbers {
        let mut note = |piece: Dumped<'_>| {
            if let Dumped::Frame(header, Some(Entry::Block(_))) = piece {
                let (first, len) = (header.first / RECORDS, 96 + u64::from(header.payload_len));
                found.push((header.partition, first, number, header.position, len));
            }
            true
        };
        dump(sim, Path::new(DIR), number, &mut note).unwrap();
    }
    found
}

fn path(segment: u64) -> PathBuf {
    Path::new(DIR).join(wal_name(segment))
}

fn damage(sim: &Sim, found: &Found, byte: u64) {
    let at = (found.3 + byte) as usize;
    sim.damage(&path(found.2), |bytes| bytes[at] ^= 0x24).unwrap();
}

/// Damages `count` random blocks that lie in segments with a footer.
fn damage_some(sim: &Sim, dice: &mut Dice, count: usize) -> Vec<Found> {
    let mut all = places(sim);
    let last = all.last().unwrap().2;
    all.retain(|found| found.2 < last);
    let mut damaged = Vec::new();
    for _ in 0..count {
        let found = all.swap_remove(dice.below(all.len()));
        damage(sim, &found, dice.below(found.4 as usize) as u64);
        damaged.push(found);
    }
    damaged
}

/// Everything the feed gives now: blocks by partition, each checked against Kafka's, and what is damaged.
#[derive(Default)]
struct Taken {
    next: BTreeMap<Partition, i64>,
    corrupt: Vec<CorruptBlock>,
    passed_over: Vec<Partition>,
}

impl Taken {
    fn take(&mut self, feed: &mut Feed) -> usize {
        let mut count = 0;
        while let Some(item) = feed.next(Duration::ZERO).expect("readable") {
            match item {
                FeedItem::Block { block, .. } => {
                    let Block { header, payload } = block;
                    let next = self.next.entry(header.partition).or_default();
                    assert_eq!(header.first, *next, "{:?}", header.partition);
                    assert!(payload == block_of(header.partition, header.first, 0).payload, "wrong bytes");
                    *next = header.next;
                    count += 1;
                }
                FeedItem::Corrupt(block) => self.corrupt.push(block),
                FeedItem::PassedOver(partition) => self.passed_over.push(partition),
                FeedItem::Planned(block) => panic!("{:?} was never planned", block.header),
            }
        }
        count
    }

    /// Repairs what is wanted, in any order, until all is delivered.
    fn heal(&mut self, log: &Log, feed: &mut Feed, dice: &mut Dice) {
        loop {
            self.take(feed);
            let wanted = log.repairs().wanted();
            if wanted.is_empty() {
                return;
            }
            let open = &wanted[dice.below(wanted.len())];
            log.keep_repair(&open.block, &again(&open.block)).unwrap();
        }
    }

    fn expect_all(&self) {
        assert_eq!(self.next, BTreeMap::from([(P, BLOCKS * RECORDS), (Q, BLOCKS * RECORDS)]));
    }
}

fn repairs(sim: &Sim) -> Vec<String> {
    let names = sim.list(Path::new(DIR)).unwrap();
    names.into_iter().filter(|name| classify(name) == FileName::Repair).collect()
}

#[test]
fn a_partition_goes_on_without_a_restart_once_its_block_is_repaired() {
    let clean = logged(5);
    let all = places(&clean);
    let found = *all.iter().find(|found| found.0 == P && found.1 == 7).unwrap();
    // Header, the header's checksum, payload, the last byte of the payload.
    for byte in [0, 9, 95, 96, 800, found.4 - 1] {
        let sim = clean.snapshot();
        damage(&sim, &found, byte);
        let before = sim.files()[&path(found.2)].clone();
        let Opened { log, mut feed, report, .. } = start(&sim);
        assert_eq!((report.corrupt.len(), report.mended.len()), (1, 0), "byte {byte}");
        let mut taken = Taken::default();
        taken.take(&mut feed);
        assert_eq!(taken.next, BTreeMap::from([(P, 7 * RECORDS), (Q, BLOCKS * RECORDS)]), "byte {byte}");
        let damaged = taken.corrupt.pop().unwrap();
        assert_eq!((damaged.partition, damaged.first, damaged.position), (P, 7 * RECORDS, found.3));
        assert!(taken.corrupt.is_empty());
        assert_eq!(log.repairs().wanted().len(), 1);
        log.append_synced(vec![Entry::Block(block_of(P, BLOCKS * RECORDS, 0))]).unwrap();
        log.keep_repair(&damaged, &again(&damaged)).unwrap();
        taken.take(&mut feed);
        assert_eq!(taken.next[&P], (BLOCKS + 1) * RECORDS, "byte {byte}");
        assert!(log.repairs().open().is_empty());
        let read = log.read_blocks(P, 6 * RECORDS, 9 * RECORDS).unwrap();
        assert!(read[1].payload == again(&damaged).payload);
        log.close().unwrap();
        assert!(sim.files()[&path(found.2)] == before, "the segment is not changed");
        assert_eq!(repairs(&sim), [repair_name(found.2, damaged.lsn)]);
        let whole = places(&sim).into_iter().map(|place| (place.0, place.1)).collect::<Vec<_>>();
        assert!(whole.starts_with(&all.iter().map(|place| (place.0, place.1)).collect::<Vec<_>>()), "dump shows it");
        let overview = inspect(&sim, Path::new(DIR)).unwrap();
        assert_eq!((overview.damaged_blocks, overview.repairs.0), (0, 1));
        assert!(overview.findings.iter().any(|finding| finding.reason.contains("mended")), "{:?}", overview.findings);

        let Opened { log, mut feed, report, .. } = start(&sim);
        assert_eq!((report.corrupt.len(), report.mended.len()), (0, 1));
        let mut taken = Taken::default();
        taken.take(&mut feed);
        assert_eq!(taken.next[&P], (BLOCKS + 1) * RECORDS);
        assert!(taken.corrupt.is_empty());
        log.close().unwrap();
    }
}

#[test]
fn a_partition_goes_on_behind_a_damaged_block_that_was_given_up() {
    let sim = logged(6);
    let found = *places(&sim).iter().find(|found| found.0 == P && found.1 == 7).unwrap();
    damage(&sim, &found, 800);
    let Opened { log, mut feed, .. } = start(&sim);
    let mut taken = Taken::default();
    taken.take(&mut feed);
    assert_eq!(taken.next[&P], 7 * RECORDS);
    let damaged = taken.corrupt.pop().unwrap();
    let disowned = Entry::Disowned { partition: P, tenure: 1, first: damaged.first, next: damaged.next };
    assert!(!log.is_settled(&damaged));
    log.append_synced(vec![disowned]).unwrap();
    assert!(log.is_settled(&damaged));
    log.repairs().forget(&damaged);
    taken.next.insert(P, damaged.next);
    taken.take(&mut feed);
    taken.expect_all();
    assert_eq!((taken.passed_over, taken.corrupt), (vec![P], vec![]));
    assert!(!log.repairs().want(&damaged) && log.repairs().open().is_empty());
    log.close().unwrap();
}

#[test]
fn a_partition_that_goes_on_to_the_next_damaged_block_says_that_it_stands_there() {
    let sim = logged(6);
    for number in [7, 9] {
        let found = *places(&sim).iter().find(|found| found.0 == P && found.1 == number).unwrap();
        damage(&sim, &found, 800);
    }
    let Opened { log, mut feed, .. } = start(&sim);
    let mut taken = Taken::default();
    taken.take(&mut feed);
    let seventh = taken.corrupt.pop().unwrap();
    log.keep_repair(&seventh, &again(&seventh)).unwrap();
    taken.take(&mut feed);
    let ninth = taken.corrupt.pop().unwrap();
    assert_eq!((ninth.first, taken.next[&P], taken.corrupt.len()), (9 * RECORDS, 9 * RECORDS, 0));
    log.keep_repair(&ninth, &again(&ninth)).unwrap();
    taken.take(&mut feed);
    taken.expect_all();
    log.close().unwrap();
}

#[test]
fn many_damaged_blocks_come_in_order_and_once_whatever_is_repaired_first() {
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let sim = logged(seed);
        let damaged = damage_some(&sim, &mut dice, 1 + seed as usize % 25);
        let Opened { log, mut feed, .. } = start(&sim);
        let mut taken = Taken::default();
        taken.heal(&log, &mut feed, &mut dice);
        taken.expect_all();
        assert_eq!(log.repairs().counts().kept, damaged.len(), "seed {seed}");
        log.close().unwrap();
    }
}

#[test]
fn what_is_logged_while_a_partition_goes_back_comes_after_it() {
    for seed in 0..10 {
        let mut dice = Dice(seed);
        let sim = logged(seed);
        damage_some(&sim, &mut dice, 6);
        let Opened { log, mut feed, .. } = start(&sim);
        let (mut taken, mut next) = (Taken::default(), BLOCKS);
        for round in 0..60 {
            let blocks = [P, Q].map(|partition| Entry::Block(block_of(partition, next * RECORDS, 0)));
            log.append_synced(blocks.into()).unwrap();
            next += 1;
            taken.take(&mut feed);
            let wanted = log.repairs().wanted();
            if let (0, Some(open)) = (round % 5, wanted.first()) {
                log.keep_repair(&open.block, &again(&open.block)).unwrap();
            }
        }
        taken.heal(&log, &mut feed, &mut dice);
        assert_eq!(taken.next, BTreeMap::from([(P, next * RECORDS), (Q, next * RECORDS)]), "seed {seed}");
        log.close().unwrap();
    }
}

/// A power cut or a kill at every operation of a repair: nothing but the logged bytes is ever handed out, and what is
/// missing is asked for and repaired again. What was said to be kept is there without Kafka.
#[test]
fn a_crash_anywhere_in_a_repair_is_survived() {
    let mut dice = Dice(3);
    let sim = logged(3);
    damage_some(&sim, &mut dice, 3);
    // How many operations a whole life takes.
    let whole = sim.snapshot();
    let from = whole.operations();
    live(&whole, &mut dice, usize::MAX);
    let operations = whole.operations() - from;
    assert!(operations > 20, "{operations}");
    for operation in 0..operations {
        for way in 0..3 {
            let machine = sim.snapshot();
            machine.crash_at(machine.operations() + operation);
            let kept = live(&machine, &mut dice, usize::MAX);
            let after = if way == 0 { machine.kill() } else { machine.crash(operation * 31 + way) };
            let Opened { log, mut feed, report, .. } = start(&after);
            assert!(report.mended.len() >= kept, "kept {kept}, found {}: operation {operation}", report.mended.len());
            let mut taken = Taken::default();
            taken.heal(&log, &mut feed, &mut dice);
            taken.expect_all();
            log.close().unwrap();
            assert_eq!(repairs(&after).len(), 3);
            assert!(after.list(Path::new(DIR)).unwrap().iter().all(|name| classify(name) != FileName::Unfinished));
        }
    }
}

/// Opens, repairs up to `most` blocks, and says how many were kept; the machine may stop at any moment.
fn live(sim: &Sim, dice: &mut Dice, most: usize) -> usize {
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let Ok(Opened { log, feed, .. }) = open(storage, options()) else { return 0 };
    let mut kept = 0;
    while kept < most {
        let wanted = log.repairs().wanted();
        if wanted.is_empty() {
            break;
        }
        let open = &wanted[dice.below(wanted.len())];
        if log.keep_repair(&open.block, &again(&open.block)).is_err() {
            break;
        }
        kept += usize::from(!sim.is_down());
    }
    drop(feed);
    let _ = log.close();
    kept
}

/// What a failed sync of the directory leaves of names is not known: nothing more is built upon them.
#[test]
fn a_repair_whose_name_was_not_synced_is_the_end_of_the_log() {
    let sim = logged(8);
    damage_some(&sim, &mut Dice(8), 1);
    let faults = Arc::new(Faults::new(Arc::new(sim)));
    let Opened { log, mut feed, .. } = open(Arc::clone(&faults) as Arc<dyn Storage>, options()).unwrap();
    let mut taken = Taken::default();
    taken.take(&mut feed);
    let damaged = taken.corrupt.pop().unwrap();
    faults.fail(Operation::SyncDir, 0, 5);
    assert!(matches!(log.keep_repair(&damaged, &again(&damaged)), Err(KeepError::Wal(_))));
    let block = Entry::Block(block_of(Q, BLOCKS * RECORDS, 0));
    assert_eq!(log.append_synced(vec![block]).unwrap_err().class(), ErrorClass::Poisoned);
}

#[test]
fn only_what_was_logged_is_accepted() {
    let mut dice = Dice(8);
    let sim = logged(8);
    damage_some(&sim, &mut dice, 1);
    let Opened { log, mut feed, .. } = start(&sim);
    let mut taken = Taken::default();
    taken.take(&mut feed);
    let damaged = taken.corrupt[0].clone();
    let refuse = |block: &Block| match log.keep_repair(&damaged, block) {
        Err(KeepError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let good = again(&damaged);
    // A value changed; its header may claim what it likes.
    let mut other = block_of(damaged.partition, damaged.first, 1);
    assert!(matches!(refuse(&other), Refusal::Digest { .. }));
    other.header = good.header;
    assert!(matches!(refuse(&other), Refusal::Digest { .. }));
    // A record compacted away.
    let mut builder = BatchBuilder::new(Vec::new(), damaged.first);
    let value = [1; 10];
    builder.push(&RecordRef { offset: damaged.first, timestamp: 0, key: None, value: Some(&value), headers: &[] });
    let fewer = builder.finish(damaged.next, 3);
    let fewer = Block { header: good.header, payload: Bytes::from(fewer.buffer) };
    let refusal = refuse(&fewer);
    assert!(refusal.to_string().contains("compacted"), "{refusal}");
    // Another range, another partition, bytes that are no batch.
    assert!(matches!(refuse(&block_of(damaged.partition, damaged.first + RECORDS, 0)), Refusal::Range { .. }));
    let elsewhere = if damaged.partition == P { Q } else { P };
    assert!(matches!(refuse(&block_of(elsewhere, damaged.first, 0)), Refusal::Range { .. }));
    let torn = Block { header: good.header, payload: good.payload.slice(..good.payload.len() - 1) };
    assert!(matches!(refuse(&torn), Refusal::Payload(_)));
    assert_eq!(taken.take(&mut feed), 0, "nothing past the damage");
    assert_eq!(repairs(&sim), Vec::<String>::new());
    log.repairs().note(&damaged, Attempt::Never("Kafka no longer has it".to_owned()));
    assert!(log.repairs().wanted().is_empty());
    let told = log.repairs().open()[0].to_string();
    let range = format!("[{}, {})", damaged.first, damaged.next);
    assert!(told.contains(&range) && told.contains("no longer"), "{told}");
    log.close().unwrap();
}

#[test]
fn a_damaged_or_foreign_repair_file_is_not_used() {
    let mut dice = Dice(6);
    let sim = logged(6);
    damage_some(&sim, &mut dice, 1);
    assert_eq!(live(&sim, &mut dice, 1), 1);
    let name = repairs(&sim).pop().unwrap();
    let file = Path::new(DIR).join(&name);
    let len = sim.files()[&file].len();
    for round in 0..60 {
        let machine = sim.snapshot();
        let at = if round < 30 { round * 5 } else { dice.below(len) };
        machine.damage(&file, |bytes| bytes[at] ^= 1).unwrap();
        let Opened { log, mut feed, report, .. } = start(&machine);
        assert_eq!((report.corrupt.len(), report.mended.len()), (1, 0));
        assert!(report.problems.iter().any(|finding| finding.path == file), "byte {at}");
        assert_eq!(repairs(&machine), Vec::<String>::new());
        let mut taken = Taken::default();
        taken.heal(&log, &mut feed, &mut dice);
        taken.expect_all();
        log.close().unwrap();
    }
    // The repair of another log, under the same name.
    let other = logged(77);
    damage_some(&other, &mut Dice(6), 1);
    let bytes = sim.files()[&file].clone();
    let mut foreign = options();
    foreign.seed = Some(99);
    let opened = open(Arc::new(Sim::new(1)) as Arc<dyn Storage>, foreign).unwrap();
    opened.log.close().unwrap();
    let mut wrong = bytes.clone();
    wrong[8] ^= 1;
    let crc = crc32fast::hash(&wrong[..60]);
    wrong[60..64].copy_from_slice(&crc.to_le_bytes());
    let machine = sim.snapshot();
    machine.damage(&file, |bytes| *bytes = wrong).unwrap();
    let Opened { log, report, .. } = start(&machine);
    assert!(report.problems.iter().any(|finding| finding.reason.contains("another log")), "{:?}", report.problems);
    log.close().unwrap();
}

/// One reading of every sealed segment.
fn scrub(log: &Log, metrics: &Arc<Metrics>, rate: u64) -> u64 {
    let stop = Arc::default();
    let pace = Pace { rate, every: Duration::from_secs(3600) };
    let mut scrubber = Scrubber::new(log, metrics, pace, &stop);
    // The first round sees the segments, which are due in an hour; those that were not read at the start are read.
    while scrubber.round() {}
    let mut scrubber = Scrubber::new(log, metrics, Pace { every: Duration::ZERO, ..pace }, &stop);
    for _ in 0..log.status().segments - 1 {
        assert!(scrubber.round());
    }
    metrics.wal_scrub_damaged.get()
}

#[test]
fn the_scrubber_finds_damage_under_a_running_log_and_asks_for_what_is_needed() {
    for seed in 0..10 {
        let (mut dice, metrics) = (Dice(seed), Arc::new(Metrics::new()));
        let sim = logged(seed);
        let Opened { log, mut feed, .. } = start(&sim);
        assert_eq!(scrub(&log, &metrics, 1 << 40), 0, "nothing is damaged");
        assert!(metrics.wal_scrubbed_bytes.get() > 300_000);
        let damaged = damage_some(&sim, &mut dice, 9);
        assert_eq!(scrub(&log, &metrics, 1 << 40), 9, "seed {seed}");
        assert_eq!(log.repairs().wanted().len(), 9);
        let mut taken = Taken::default();
        taken.heal(&log, &mut feed, &mut dice);
        taken.expect_all();
        assert!(taken.corrupt.is_empty() || !damaged.is_empty());
        // What is mended is not told again; what is delivered is told, not asked for.
        assert_eq!(scrub(&log, &metrics, 1 << 40), 9);
        assert!(log.repairs().wanted().is_empty());
        log.close().unwrap();
    }
}

#[test]
fn the_scrubber_tells_of_copies_and_of_delivered_blocks_and_asks_for_neither() {
    let (mut dice, metrics) = (Dice(4), Arc::new(Metrics::new()));
    let sim = logged(4);
    let Opened { log, mut feed, .. } = start(&sim);
    let mut taken = Taken::default();
    taken.heal(&log, &mut feed, &mut dice);
    // Q keeps the segments; P is delivered.
    log.append_synced(vec![delivered(P)]).unwrap();
    let all = places(&sim);
    let of_p = all.iter().find(|found| found.0 == P && found.1 == 3).unwrap();
    damage(&sim, of_p, 300);
    sim.damage(&path(of_p.2), |bytes| bytes[20] ^= 1).unwrap();
    sim.damage(&path(of_p.2), |bytes| bytes[8192 + 100] ^= 1).unwrap();
    assert_eq!(scrub(&log, &metrics, 1 << 40), 3, "a copy of the header, one of the state, a delivered block");
    assert!(log.repairs().open().is_empty());
    log.close().unwrap();
}

#[test]
fn the_scrubber_keeps_to_its_rate() {
    let metrics = Arc::new(Metrics::new());
    let sim = logged(2);
    let Opened { log, .. } = start(&sim);
    let rate = 4 << 20;
    let began = Instant::now();
    scrub(&log, &metrics, rate);
    let least = Duration::from_secs_f64(metrics.wal_scrubbed_bytes.get() as f64 / rate as f64);
    assert!(began.elapsed() >= least.mul_f64(0.9), "{:?} for {least:?}", began.elapsed());
    log.close().unwrap();
}

fn delivered(partition: Partition) -> Entry {
    Entry::Delivered {
        route: 0,
        partition,
        first: 0,
        next: BLOCKS * RECORDS,
        through_lsn: 0,
        keep_from: None,
        detail: vec![1],
    }
}

/// A block that the disk can't read keeps the log from being opened; once it is repaired it does not.
#[test]
fn an_unreadable_block_can_be_repaired_before_the_log_is_opened() {
    let sim = logged(12);
    let found = *places(&sim).iter().find(|found| found.0 == Q && found.1 == 5).unwrap();
    let at = found.3 + 1000;
    sim.fail_reads(&path(found.2), at..at + 100).unwrap();
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    assert!(open(Arc::clone(&storage), options()).is_err());
    let survey = survey(&sim, Path::new(DIR)).unwrap();
    let damaged = survey.live_corrupt();
    assert_eq!((damaged.len(), damaged[0].partition, damaged[0].first), (1, Q, 5 * RECORDS));
    let repairs = Repairs::new(storage, Path::new(DIR), survey.segments[0].header.wal_id, Vec::new());
    repairs.keep(&damaged[0], &again(&damaged[0])).unwrap();
    let Opened { log, mut feed, report, .. } = start(&sim);
    assert_eq!((report.corrupt.len(), report.mended.len()), (0, 1));
    let mut taken = Taken::default();
    taken.take(&mut feed);
    taken.expect_all();
    log.close().unwrap();
}

#[test]
fn repair_files_go_with_their_segment() {
    let mut dice = Dice(9);
    let sim = logged(9);
    damage_some(&sim, &mut dice, 4);
    let Opened { log, mut feed, .. } = start(&sim);
    let mut taken = Taken::default();
    taken.heal(&log, &mut feed, &mut dice);
    taken.expect_all();
    let bytes = log.status().bytes;
    log.append_synced(vec![delivered(P), delivered(Q)]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !repairs(&sim).is_empty() {
        assert!(Instant::now() < deadline);
        log.retire_repairs().unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(log.status().bytes < bytes);
    log.close().unwrap();
    // And what a crash left of them goes at the next start.
    let opened = start(&sim);
    assert!(opened.report.problems.iter().all(|finding| !finding.path.display().to_string().contains("repair")));
    opened.log.close().unwrap();
}
