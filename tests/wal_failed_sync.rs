//! What a log does when its disk fails: one failed write or sync is survived in the next segment, without a restart and
//! without asking Kafka again; the second in a row is final, and so is a failed directory sync.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/entries.rs"]
mod entries;

use entries::{block, delivered, owned};
use forebay::io::Storage;
use forebay::io::checked::Checked;
use forebay::io::fault::{Faults, Operation, Traced};
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::Partition;
use forebay::wal::options::SPARES;
use forebay::wal::{ErrorClass, Feed, FeedItem, Opened, Options, WalError, open};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const P: Partition = Partition { topic: 1, number: 0 };
const LONG: Duration = Duration::from_secs(20);
const EIO: i32 = 5;

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir, Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    options
}

fn start(storage: &Arc<dyn Storage>, options: Options) -> Opened {
    open(Arc::clone(storage), options).expect("opens")
}

/// Where the next block begins.
fn next_block(feed: &mut Feed) -> i64 {
    match feed.next(LONG).expect("readable") {
        Some(FeedItem::Block { block, .. }) => block.header.first,
        other => panic!("{other:?}"),
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A log on a disk whose syncs can be made to fail, with its spares ready.
fn on_faulty_disk(seed: u64) -> (Arc<Faults>, Options, Opened) {
    let faults = Arc::new(Faults::new(Arc::new(Sim::new(seed))));
    let storage: Arc<dyn Storage> = Arc::new(Checked::new(Arc::clone(&faults) as Arc<dyn Storage>));
    let mut settings = options(Path::new("/wal"));
    settings.idle = LONG;
    let opened = start(&storage, settings.clone());
    opened.log.append_synced(vec![owned(P), block(P, 0, 100)]).unwrap();
    wait_until("spares are ready", || opened.log.status().spares == SPARES);
    (faults, settings, opened)
}

#[test]
fn a_failed_sync_or_write_ends_the_segment_and_nothing_is_lost_or_doubled() {
    for operation in [Operation::Sync, Operation::Write] {
        let (faults, settings, Opened { log, mut feed, .. }) = on_faulty_disk(5);
        let segment = log.status().segments;
        faults.fail(operation, 0, EIO);
        for n in 1..4 {
            log.append_synced(vec![block(P, n, 100)]).unwrap();
        }
        assert_eq!(log.status().segments, segment + 1, "{operation:?}");
        assert_eq!(settings.metrics.wal_failed_syncs.get(), 1);
        let first: Vec<i64> = (0..4).map(|_| next_block(&mut feed)).collect();
        assert_eq!(first, [0, 1, 2, 3]);
        log.close().unwrap();
        let storage: Arc<dyn Storage> = faults;
        let again = start(&storage, settings);
        assert!(again.report.problems.is_empty() && again.report.corrupt.is_empty(), "{:?}", again.report);
        let mut feed = again.feed;
        let first: Vec<i64> = (0..4).map(|_| next_block(&mut feed)).collect();
        assert_eq!(first, [0, 1, 2, 3]);
    }
}

#[test]
fn a_segment_whose_sync_failed_is_never_used_again() {
    let (faults, settings, Opened { log, .. }) = on_faulty_disk(6);
    faults.fail(Operation::Sync, 0, EIO);
    log.append_synced(vec![block(P, 1, 100)]).unwrap();
    faults.take_trace();
    log.append_synced(vec![delivered(P, 2)]).unwrap();
    wait_until("it is retired", || log.status().segments == 1);
    log.close().unwrap();
    drop(settings);
    let trace = faults.take_trace();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let gone = |t: &&Traced| name(&t.path) == "00000000000000000001.wal";
    let operations: Vec<_> = trace.iter().filter(gone).map(|t| t.operation).collect();
    assert_eq!(operations, [Operation::Unlink], "not renamed to a spare, not synced again");
}

#[test]
fn after_two_failed_syncs_in_a_row_nothing_more_is_logged_or_handed_out() {
    let (faults, _, Opened { log, mut feed, .. }) = on_faulty_disk(7);
    assert_eq!(next_block(&mut feed), 0);
    faults.fail(Operation::Sync, 0, EIO);
    faults.fail(Operation::Sync, 1, EIO);
    let error = log.append_synced(vec![block(P, 1, 100)]).unwrap_err();
    assert_eq!((error.class(), error.exit_code()), (ErrorClass::Poisoned, 74));
    assert!(log.failure().is_some());
    assert!(matches!(feed.next(LONG), Err(WalError::Poisoned(_))));
    assert!(matches!(log.append(block(P, 2, 100)), Err(WalError::Poisoned(_))));
    assert!(log.close().is_err());
}

#[test]
fn a_failed_directory_sync_is_final() {
    let (faults, _, Opened { log, .. }) = on_faulty_disk(8);
    faults.fail(Operation::Sync, 0, EIO);
    faults.fail(Operation::SyncDir, 0, EIO);
    let error = log.append_synced(vec![block(P, 1, 100)]).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Poisoned);
}
