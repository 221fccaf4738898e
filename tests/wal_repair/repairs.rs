//! What goes on once a block is repaired or given up, and what is accepted as its repair.

use crate::world::{
    BLOCKS, DIR, Dice, P, Q, RECORDS, Taken, again, block_of, damage, damage_some, live, logged, options, path, places,
    repairs, start,
};
use bytes::Bytes;
use forebay::io::Storage;
use forebay::io::fault::{Faults, Operation};
use forebay::io::sim::Sim;
use forebay::record::Block;
use forebay::record::batch::{BatchBuilder, RecordRef};
use forebay::wal::inspect::inspect;
use forebay::wal::repair::accept::Refusal;
use forebay::wal::repair::{Attempt, KeepError};
use forebay::wal::segment::{FileName, classify, repair_name};
use forebay::wal::{Entry, ErrorClass, Opened, open};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

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
