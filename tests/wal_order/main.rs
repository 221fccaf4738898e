//! The order of what the log does to files and names, whatever a disk would have made of it. A power cut at the right
//! moment finds most violations ([the sweep](../crash_sweep.rs)); here each one is seen at once, and named.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]

#[path = "../common/entries.rs"]
mod entries;
mod recorder;
mod rules;

use entries::{block, delivered, owned};
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::Partition;
use forebay::wal::recovery::{Recovered, recover};
use forebay::wal::{Entry, FeedItem, Opened, Options, WalError, open};
use recorder::{Change, Recorder, Refusal};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DIR: &str = "/wal";
const SEGMENT: u64 = 64 << 10;
const P: Partition = Partition { topic: 1, number: 0 };
const LONG: Duration = Duration::from_secs(20);

fn options(seed: u64) -> Options {
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    options.segment_bytes = SEGMENT;
    options.idle = Duration::from_millis(5);
    options.seed = Some(seed);
    options
}

fn start(storage: &Recorder, seed: u64) -> Result<Recovered, WalError> {
    let storage: Arc<dyn Storage> = Arc::new(storage.clone());
    recover(&storage, &options(seed))
}

fn spares(log: &Recovered) -> Result<(), WalError> {
    while log.writer.rack().work(&mut || {})? {}
    Ok(())
}

fn append(log: &mut Recovered, entry: Entry) -> Result<(), WalError> {
    for _ in 0..10 {
        if log.writer.append(std::slice::from_ref(&entry))? > 0 {
            return Ok(());
        }
        spares(log)?;
    }
    panic!("no space for {entry:?}");
}

/// Blocks over many segments, delivered and retired on the way.
fn work(log: &mut Recovered, blocks: std::ops::Range<i64>) -> Result<(), WalError> {
    spares(log)?;
    if log.writer.state().partitions.is_empty() {
        append(log, owned(P))?;
    }
    for first in blocks {
        append(log, block(P, first, [100, 5000, 20_000, 70_000][first as usize % 4]))?;
        if first % 5 == 4 {
            append(log, delivered(P, first))?;
            log.writer.idle()?;
            if let Some(entry) = log.writer.retirement(u64::MAX) {
                append(log, entry)?;
                let retired = log.writer.retired();
                log.writer.rack().hand_over(retired.iter().map(|s| (s.number, s.len)));
            }
        }
        spares(log)?;
    }
    Ok(())
}

fn check(changes: &[Change]) {
    rules::names_are_durable_before_use(changes);
    rules::contents_are_durable_before_their_name(changes);
    rules::segments_go_after_their_retirement(changes);
    rules::bytes_are_written_once(changes);
    rules::salts_are_new(changes);
    rules::a_failed_sync_is_the_last(changes);
}

#[test]
fn a_life_with_restarts_keeps_every_rule() {
    let storage = Recorder::new(Sim::new(1));
    for life in 0..4 {
        let (found, before) = (storage.segments(), storage.changes().len());
        let mut log = start(&storage, life).unwrap();
        if life > 0 {
            rules::a_start_trusts_what_it_synced(&found, &storage.changes()[before..]);
        }
        let blocks = life as i64 * 30..life as i64 * 30 + 30;
        work(&mut log, blocks).unwrap();
        if life % 2 == 1 {
            log.writer.close().unwrap();
        }
        drop(log);
        if life > 0 {
            rules::a_start_trusts_what_it_synced(&found, &storage.changes()[before..]);
        }
    }
    let changes = storage.changes();
    check(&changes);
    assert!(rules::segments_go_after_their_retirement(&changes) > 10, "segments were retired");
    let recycled =
        |c: &Change| matches!(c, Change::Rename(_, from, to) if from.ends_with(".wal") && to.ends_with(".spare"));
    assert!(changes.iter().any(recycled), "segments were recycled");
}

#[test]
fn on_a_full_disk_a_retired_file_is_used_again_at_once_and_by_the_rules() {
    let sim = Sim::new(9);
    sim.set_capacity(Some(6 * SEGMENT));
    let storage = Recorder::new(sim);
    let mut log = start(&storage, 1).unwrap();
    append(&mut log, owned(P)).unwrap();
    for first in 0..60 {
        append(&mut log, block(P, first, 20_000)).unwrap();
        if first % 3 == 2 {
            append(&mut log, delivered(P, first)).unwrap();
            if let Some(retirement) = log.writer.retirement(u64::MAX) {
                append(&mut log, retirement).unwrap();
            }
            let retired = log.writer.retired();
            log.writer.rack().hand_over(retired.iter().map(|s| (s.number, s.len)));
        }
    }
    let changes = storage.changes();
    check(&changes);
    assert!(rules::segments_go_after_their_retirement(&changes) > 20, "segments were retired");
}

#[test]
fn a_write_without_space_is_not_repeated_at_its_place() {
    let mut refused = 0;
    for later in 0..60 {
        let storage = Recorder::new(Sim::new(later));
        storage.refuse(Refusal::Space, later);
        let mut log = start(&storage, later).unwrap();
        work(&mut log, 0..20).unwrap();
        check(&storage.changes());
        refused += usize::from(!storage.is_planned());
    }
    assert!(refused > 20, "{refused} writes found no space");
}

#[test]
fn a_sync_that_failed_is_not_tried_again() {
    let mut failed = 0;
    for later in 0..60 {
        let storage = Recorder::new(Sim::new(later));
        storage.refuse(Refusal::Sync, later);
        let mut log = start(&storage, later).unwrap();
        // The log may stop, or go on in another segment.
        let _ = work(&mut log, 0..20);
        let _ = log.writer.close();
        check(&storage.changes());
        failed += rules::a_failed_sync_is_the_last(&storage.changes());
    }
    assert!(failed > 20, "{failed} syncs failed");
}

#[test]
fn with_its_threads_the_log_keeps_the_same_rules() {
    let storage = Recorder::new(Sim::new(5));
    let disk: Arc<dyn Storage> = Arc::new(storage.clone());
    let Opened { log, mut feed, .. } = open(disk, options(1)).unwrap();
    log.append_synced(vec![owned(P)]).unwrap();
    for first in 0..120 {
        log.append_synced(vec![block(P, first, 7000)]).unwrap();
        assert!(matches!(feed.next(LONG).unwrap(), Some(FeedItem::Block { .. })));
        if first % 10 == 9 {
            log.append_synced(vec![delivered(P, first)]).unwrap();
        }
    }
    let deadline = Instant::now() + LONG;
    while log.status().segments > 4 {
        assert!(Instant::now() < deadline, "retired segments stay: {:?}", log.status());
        std::thread::sleep(Duration::from_millis(1));
    }
    log.close().unwrap();
    let changes = storage.changes();
    check(&changes);
    assert!(rules::segments_go_after_their_retirement(&changes) > 5);
}
