//! What the scrubber finds under a running log.

use crate::world::{
    BLOCKS, DIR, Dice, P, Q, RECORDS, Taken, again, damage, damage_some, logged, options, path, places, repairs, start,
};
use forebay::io::Storage;
use forebay::metrics::Metrics;
use forebay::record::Partition;
use forebay::wal::repair::Repairs;
use forebay::wal::scan::survey::survey;
use forebay::wal::scrub::{Pace, Scrubber};
use forebay::wal::{Entry, Log, Opened, open};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
