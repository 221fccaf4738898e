//! Every row of the recovery table, walked over all inputs; and damage of real segments judged by it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/entries.rs"]
mod entries;

use entries::{block, owned, plain};
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::{Partition, TopicId};
use forebay::wal::inspect::inspect;
use forebay::wal::recovery::table::{Evidence, Kafka, Part, Verdict, decide};
use forebay::wal::recovery::{Recovered, recover};
use forebay::wal::{Entry, ErrorClass, Options, WalError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DIR: &str = "/wal";
const P: Partition = Partition { topic: 1, number: 0 };
const PARTS: [Part; 9] = [
    Part::Header { twin: true },
    Part::Header { twin: false },
    Part::State { twin: true },
    Part::State { twin: false },
    Part::Footer,
    Part::Pad,
    Part::Control,
    Part::Block,
    Part::Unknown,
];

/// A part that is added to the table does not compile here until it is among [`PARTS`].
fn place(part: Part) -> usize {
    match part {
        Part::Header { twin } => usize::from(!twin),
        Part::State { twin } => 2 + usize::from(!twin),
        Part::Footer => 4,
        Part::Pad => 5,
        Part::Control => 6,
        Part::Block => 7,
        Part::Unknown => 8,
    }
}

fn all_evidence() -> Vec<Evidence> {
    let mut all = Vec::new();
    for part in PARTS {
        for kafka in [Kafka::Unknown, Kafka::Below, Kafka::Beyond] {
            for bits in 0..64_u8 {
                let bit = |n: u8| bits >> n & 1 == 1;
                let (sealed, built, witness) = (bit(0), bit(1), bit(2));
                let (receipt, unreadable, later_state) = (bit(3), bit(4), bit(5));
                all.push(Evidence { part, sealed, built, witness, receipt, kafka, unreadable, later_state });
            }
        }
    }
    all
}

/// The table of the module's documentation, written the other way around.
fn by_the_book(e: &Evidence) -> Verdict {
    let proven = e.sealed || e.built || e.witness || e.receipt || e.kafka == Kafka::Beyond;
    let column = |torn: Verdict, proven_verdict: Verdict| match (proven, e.unreadable) {
        (false, _) => torn,
        (true, true) => Verdict::Unreadable,
        (true, false) => proven_verdict,
    };
    let refuse = if e.unreadable { Verdict::Unreadable } else { Verdict::Refuse };
    match e.part {
        Part::Header { twin } => [refuse, Verdict::Report][usize::from(twin)],
        Part::State { twin } => [refuse, Verdict::Report][usize::from(twin || e.later_state)],
        Part::Footer | Part::Pad => column(Verdict::Torn, Verdict::Report),
        Part::Control if e.later_state => column(Verdict::Torn, Verdict::Report),
        Part::Control | Part::Unknown => column(Verdict::Torn, Verdict::Refuse),
        Part::Block => column(Verdict::Torn, Verdict::StopPartition),
    }
}

#[test]
fn every_row_of_the_table() {
    let all = all_evidence();
    assert!(PARTS.iter().enumerate().all(|(i, part)| place(*part) == i), "each part once");
    let each: std::collections::HashSet<String> = all.iter().map(|evidence| format!("{evidence:?}")).collect();
    assert_eq!((all.len(), each.len()), (9 * 3 * 64, 9 * 3 * 64));
    for evidence in all {
        assert_eq!(decide(&evidence), by_the_book(&evidence), "{evidence:?}");
    }
}

#[test]
fn one_more_proof_never_makes_damage_a_torn_tail() {
    for evidence in all_evidence() {
        if decide(&evidence) == Verdict::Torn {
            continue;
        }
        let proofs: [fn(&mut Evidence); 5] = [
            |e| e.sealed = true,
            |e| e.built = true,
            |e| e.witness = true,
            |e| e.receipt = true,
            |e| e.kafka = Kafka::Beyond,
        ];
        for add in proofs {
            let mut more = evidence;
            add(&mut more);
            assert_ne!(decide(&more), Verdict::Torn, "{evidence:?}");
        }
    }
}

fn options(incarnation: u64) -> Options {
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    options.seed = Some(incarnation);
    options
}

fn start(sim: &Sim, incarnation: u64) -> Result<Recovered, WalError> {
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let recovered = recover(&storage, &options(incarnation))?;
    while recovered.writer.rack().work(&mut || {})? {}
    Ok(recovered)
}

/// A log of three segments; the last one holds two groups and an `Idle` frame. Killed, or stopped cleanly.
fn log_on(sim: &Sim, clean: bool) {
    log_of(sim, 1, clean);
}

/// The same frames, but for salts and the log's id, which follow from the seed.
fn log_of(sim: &Sim, seed: u64, clean: bool) {
    let mut log = start(sim, seed).unwrap();
    let writer = &mut log.writer;
    let owned = Entry::Owned { partition: P, tenure: 1, first: 0, next: 0, acked_entries: "a:1".into() };
    let topic = Entry::Topic { number: 1, name: "t".into(), id: TopicId([1; 16]) };
    writer.append(&[topic, owned]).unwrap();
    for i in 0..3 {
        writer.append(&[block(P, i, 700), block(P, i + 3, 300)][..1]).unwrap();
    }
    assert!(writer.roll().unwrap());
    writer.append(&[block(P, 3, 900), Entry::Confirmed { partition: P, tenure: 1, next: 2 }]).unwrap();
    assert!(writer.roll().unwrap());
    writer.append(&[block(P, 4, 100), block(P, 5, 100)]).unwrap();
    writer.append(&[block(P, 6, 5000)]).unwrap();
    writer.idle().unwrap();
    if clean {
        writer.close().unwrap();
    }
}

fn path(number: u64) -> PathBuf {
    Path::new(DIR).join(format!("{number:020}.wal"))
}

/// Flips one bit in every `step`th byte below each segment's end, one at a time.
fn each_flip(clean: bool, step: usize, mut check: impl FnMut(&Sim, &Path, u64)) {
    let sim = Sim::new(1);
    log_on(&sim, clean);
    let sim = sim.kill();
    let overview = inspect(&sim, Path::new(DIR)).unwrap();
    assert!(!overview.is_damaged(), "{:?}", overview.findings);
    for segment in overview.segments {
        for position in (0..segment.end).step_by(step) {
            let damaged = sim.snapshot();
            let path = path(segment.number);
            damaged.damage(&path, |bytes| bytes[position as usize] ^= 1 << (position % 8)).unwrap();
            check(&damaged, &path, position);
        }
    }
}

#[test]
fn after_a_clean_stop_any_flipped_byte_is_reported_with_its_place() {
    each_flip(true, 61, |sim, path, position| {
        let overview = inspect(sim, Path::new(DIR)).unwrap();
        assert!(overview.is_damaged(), "{} byte {position} unseen", path.display());
        let named = overview
            .findings
            .iter()
            .any(|f| f.path == path && f.position <= position && f.lsn.is_some() && !f.reason.is_empty());
        assert!(named, "{} byte {position}: {:?}", path.display(), overview.findings);
    });
}

#[test]
fn acknowledged_bytes_are_never_taken_for_a_torn_tail() {
    let sim = Sim::new(1);
    log_on(&sim, false);
    let whole = start(&sim.kill(), 2).unwrap().writer.state().clone();
    each_flip(false, 37, |sim, path, position| {
        let opened = start(sim, 2);
        let place = || format!("{} byte {position}", path.display());
        match opened {
            Err(error) => assert_eq!(error.class(), ErrorClass::Corrupt, "{}: {error}", place()),
            Ok(log) => {
                // The Idle frame itself is the one thing nothing witnesses.
                let lost = whole.lsn - log.writer.state().lsn;
                assert!(lost <= 1, "{}: {lost} frames lost", place());
                let told = lost == 1 || !log.report.corrupt.is_empty() || !log.report.problems.is_empty();
                assert!(told, "{}: damage unseen", place());
                let partitions = (&log.writer.state().partitions, &whole.partitions);
                assert_eq!(partitions.0, partitions.1, "{}: the state changed", place());
            }
        }
    });
}

#[test]
fn a_missing_or_exchanged_segment_is_named() {
    for number in 1..=3 {
        let sim = Sim::new(1);
        log_on(&sim, true);
        sim.unlink(&path(number)).unwrap();
        let error = start(&sim, 2).err().unwrap();
        assert_eq!(error.class(), ErrorClass::Corrupt);
        assert!(error.to_string().contains(&format!("{number:020}.wal")), "{error}");
    }
    let (ours, theirs) = (Sim::new(1), Sim::new(2));
    log_on(&ours, true);
    let mut other = start(&theirs, 77).unwrap();
    assert!(other.writer.roll().unwrap());
    let foreign = theirs.files()[&path(2)].clone();
    ours.damage(&path(2), |bytes| *bytes = foreign).unwrap();
    assert_eq!(start(&ours, 2).err().unwrap().class(), ErrorClass::Corrupt);

    // The same of a log in which the same happened: nothing but who it is tells them apart.
    let (ours, twin) = (Sim::new(1), Sim::new(2));
    log_on(&ours, true);
    log_of(&twin, 77, true);
    let theirs = twin.files()[&path(2)].clone();
    ours.damage(&path(2), |bytes| *bytes = theirs).unwrap();
    let error = start(&ours, 2).err().expect("a twin's segment is not ours");
    assert_eq!(error.class(), ErrorClass::Corrupt);
    assert!(error.to_string().contains("does not continue segment"), "{error}");
}

#[test]
fn another_version_is_refused_by_name() {
    let sim = Sim::new(1);
    log_on(&sim, true);
    sim.damage(&path(4), |bytes| {
        for page in [0, 4096] {
            bytes[page + 8] = 2;
            let crc = crc32fast::hash(&bytes[page..page + 4092]);
            bytes[page + 4092..page + 4096].copy_from_slice(&crc.to_le_bytes());
        }
    })
    .unwrap();
    let error = start(&sim, 2).err().unwrap();
    assert_eq!(error.class(), ErrorClass::Version);
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn a_torn_group_is_cut_told_and_kept_as_a_copy() {
    // Two frames in a group that was never followed by anything: the first one is garbled, the second is there.
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    log.writer.append(&[owned(P)]).unwrap();
    let position = inspect(&sim, Path::new(DIR)).unwrap().segments[0].end;
    log.writer.append(&[block(P, 0, 600), block(P, 1, 600)]).unwrap();
    drop(log);
    let sim = sim.kill();
    sim.damage(&path(1), |bytes| bytes[position as usize + 300] ^= 1).unwrap();
    let overview = inspect(&sim, Path::new(DIR)).unwrap();
    assert!(!overview.is_damaged(), "{:?}", overview.findings);
    assert_eq!(overview.findings[0].position, position);
    let log = start(&sim, 2).unwrap();
    let torn = log.report.torn.clone().unwrap();
    assert_eq!((torn.path, torn.position), (path(1), position));
    let kept = sim.files()[&torn.kept_as.unwrap()].clone();
    let payload = plain(P, 1, 0, 600).payload;
    assert_eq!(kept[96..196], payload[..100], "the garbled block's payload begins here");
    assert_eq!(log.writer.state().partitions[&P].admitted, 0);
}

#[test]
fn frames_lost_together_with_both_states_are_not_passed_over() {
    // Nothing is left of segment 1 but its headers: the State of segment 2 knows how far it went, but not the blocks.
    for length in [8192, 28_672] {
        let sim = Sim::new(1);
        log_on(&sim, true);
        sim.damage(&path(1), |bytes| bytes[8192..].iter_mut().take(length).for_each(|byte| *byte = 0)).unwrap();
        let overview = inspect(&sim, Path::new(DIR)).unwrap();
        let lost = overview.findings.iter().any(|f| matches!(f.verdict, Verdict::Refuse | Verdict::StopPartition));
        assert_eq!(lost, length > 8192, "{length}: {:?}", overview.findings);
    }
    let sim = Sim::new(1);
    log_on(&sim, true);
    sim.damage(&path(1), |bytes| bytes.truncate(8192)).unwrap();
    assert_eq!(start(&sim, 2).err().unwrap().class(), ErrorClass::Corrupt);
}

#[test]
fn the_header_of_a_torn_frame_witnesses_what_was_synced_before_it() {
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    log.writer.append(&[owned(P)]).unwrap();
    let synced = inspect(&sim, Path::new(DIR)).unwrap().segments[0].end as usize;
    log.writer.append(&[block(P, 0, 600)]).unwrap();
    let torn = inspect(&sim, Path::new(DIR)).unwrap().segments[0].end as usize;
    log.writer.append(&[block(P, 1, 600)]).unwrap();
    drop(log);
    let sim = sim.kill();
    sim.damage(&path(1), |bytes| {
        bytes[synced + 300] ^= 1;
        bytes[torn + 300] ^= 1;
    })
    .unwrap();
    let overview = inspect(&sim, Path::new(DIR)).unwrap();
    assert!(overview.is_damaged(), "an acknowledged block was taken for a torn tail: {:?}", overview.findings);
}

/// A start fails at one of its operations, and a failed sync lies: the next process finds everything as it was in memory.
/// What it builds upon must be there after a power cut.
#[test]
fn what_a_failed_start_left_is_nothing_to_build_upon() {
    let mut failed = 0;
    for seed in 0..8 {
        for at in 0..30 {
            let sim = Sim::new(seed);
            log_on(&sim, false);
            let sim = sim.kill();
            // So much is copied into the next segment that it is not replaced by the start after it.
            let mut log = start(&sim, 2).unwrap();
            let next = log.writer.state().partitions[&P].admitted;
            log.writer.append(&[block(P, next, 18_000), block(P, next + 1, 18_000)]).unwrap();
            drop(log);
            let sim = sim.kill();
            sim.fail_at(at);
            if start(&sim, 3).is_ok() {
                continue;
            }
            failed += 1;
            let sim = sim.kill();
            let mut log = start(&sim, 4).unwrap();
            let next = log.writer.state().partitions[&P].admitted;
            log.writer.append(&[block(P, next, 100)]).unwrap();
            for cut in 0..4 {
                let again = start(&sim.crash(cut), 5).unwrap_or_else(|e| panic!("seed {seed}, operation {at}: {e}"));
                assert_eq!(again.writer.state().partitions[&P].admitted, next + 1, "seed {seed}, operation {at}");
            }
        }
    }
    assert!(failed > 50, "{failed}");
}
