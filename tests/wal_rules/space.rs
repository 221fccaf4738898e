//! What a full disk leaves.

use crate::entries::{block, plain, wait_until};
use crate::world::{LONG, P, delivered, options, owned, path, spares, start};
use forebay::io::Storage;
use forebay::io::fault::{Faults, Operation};
use forebay::io::sim::Sim;
use forebay::wal::format::frame::FRAME_HEADER;
use forebay::wal::recovery::recover;
use forebay::wal::{Entry, ErrorClass, FeedItem, Opened, Options, WalError, open};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A state that is longer than a spare: what the spare grows by counts.
#[test]
fn what_a_state_adds_to_a_spare_is_counted() {
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    let owned = Entry::Owned { partition: P, tenure: 1, first: 0, next: 0, acked_entries: "a".repeat(40_000) };
    log.writer.append(&[owned]).unwrap();
    assert!(log.writer.roll().unwrap());
    let lengths = || sim.files().values().map(|bytes| bytes.len() as u64).sum::<u64>();
    assert!(sim.files()[&path(2)].len() > 64 << 10);
    assert_eq!(log.writer.rack().used(), lengths());
    // Where there is no room for it nothing is taken.
    sim.set_capacity(Some(sim.used()));
    assert!(!log.writer.roll().unwrap());
    assert_eq!(log.writer.rack().used(), lengths());
    sim.set_capacity(None);
    assert!(log.writer.roll().unwrap());
    assert_eq!(log.writer.rack().used(), lengths());
}

#[test]
fn a_block_that_fits_into_a_spare_needs_no_room_for_a_longer_one() {
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    log.writer.append(&[owned(P), block(P, 0, 30_000)]).unwrap();
    sim.set_capacity(Some(sim.used()));
    assert_eq!(log.writer.append(&[block(P, 1, 40_000)]).unwrap(), 1);
    let (ready, used) = (log.writer.rack().ready(), log.writer.rack().used());
    assert_eq!(log.writer.append(&[block(P, 2, 70_000)]).unwrap(), 0, "it fits into none");
    assert_eq!((log.writer.rack().ready(), log.writer.rack().used()), (ready, used), "and uses up none");
    // Where the disk becomes full in the middle nothing is kept of what it got.
    sim.set_capacity(None);
    log.writer.roll().unwrap();
    let before = sim.files()[&path(log.writer.segment())].len();
    for operation in 0..2 {
        sim.refuse_at(sim.operations() + operation);
        assert_eq!(log.writer.append(&[block(P, 2, 70_000)]).unwrap(), 0, "operation {operation}");
        assert_eq!(sim.files()[&path(log.writer.segment())].len(), before, "operation {operation}");
    }
    assert_eq!(log.writer.append(&[block(P, 2, 70_000)]).unwrap(), 1);
}

#[test]
fn kills_on_a_full_disk_leave_room_for_recovery_and_receipts() {
    let mut sim = Sim::new(3);
    sim.set_capacity(Some(9 * (64 << 10)));
    for life in 0..12 {
        let disk: Arc<dyn Storage> = Arc::new(sim.clone());
        let Opened { log, mut feed, state, .. } =
            open(disk, options(life)).unwrap_or_else(|error| panic!("life {life}: {error}"));
        let known = state.partitions.get(&P).cloned().unwrap_or_default();
        if known.tenure == 0 {
            log.append_synced(vec![owned(P)]).unwrap();
        }
        let admitted = known.admitted.max(0);
        for first in admitted..admitted + 200 {
            log.append(block(P, first, 4000)).unwrap();
        }
        wait_until("full", || log.is_full());
        let durable = log.marks(P).durable();
        let next = (known.delivered().max(0) + 30).min(durable);
        for first in known.delivered().max(0)..next {
            let Some(FeedItem::Block { block, .. }) = feed.next(LONG).unwrap() else { panic!("no block {first}") };
            assert_eq!(block.header.first, first);
        }
        log.append(delivered(0, P, next, None)).unwrap();
        // The feed lets go of a segment when it is asked for what comes after.
        feed.next(Duration::ZERO).unwrap();
        wait_until("the receipt went through", || log.marks(P).delivered() == next);
        let from = Instant::now();
        while log.marks(P).durable() <= durable {
            assert!(
                from.elapsed() < Duration::from_secs(4),
                "life {life}, {:?} durable {durable} next {next}",
                log.status()
            );
        }
        wait_until("full", || log.is_full());
        drop(log);
        sim = sim.kill();
    }
}

#[test]
fn kills_in_a_row_on_a_full_disk_use_up_no_spares() {
    // So large that the frames of all lives fit into the half up to which a last segment is replaced.
    const SEGMENT: u64 = 256 << 10;
    let mut sim = Sim::new(3);
    sim.set_capacity(Some(9 * SEGMENT));
    let mut admitted = 0;
    for life in 1..40 {
        let disk: Arc<dyn Storage> = Arc::new(sim.clone());
        let mut options = options(u64::from(life));
        (options.segment_bytes, options.group_bytes) = (SEGMENT, 8 << 10);
        let Opened { log, state, .. } = open(disk, options).unwrap_or_else(|error| panic!("life {life}: {error}"));
        admitted = state.partitions.get(&P).map_or(0, |known| known.admitted);
        assert!(life == 1 || admitted > 50, "{admitted}");
        // Nothing is delivered in these lives, but every one joins the group anew and has more than there is room for.
        let entry =
            Entry::Owned { partition: P, tenure: life, first: admitted, next: admitted, acked_entries: "b".into() };
        log.append_synced(vec![entry]).unwrap();
        for first in admitted..admitted + 600 {
            log.append(Entry::Block(plain(P, life, first, 4000))).unwrap();
        }
        wait_until("full", || log.is_full());
        drop(log);
        sim = sim.kill();
    }
    let Opened { log, mut feed, state, .. } = {
        let options = Options { segment_bytes: SEGMENT, ..options(99) };
        open(Arc::new(sim), options).unwrap()
    };
    assert_eq!(state.partitions[&P].admitted, admitted, "a full disk takes no blocks");
    for first in 0..admitted {
        let Some(FeedItem::Block { block, .. }) = feed.next(LONG).unwrap() else { panic!("no block {first}") };
        assert_eq!(block.header.first, first);
    }
    log.append_synced(vec![delivered(0, P, admitted, None)]).unwrap();
    feed.next(Duration::ZERO).unwrap();
    wait_until("there is space again", || !log.is_full());
    log.append_synced(vec![Entry::Block(plain(P, 39, admitted, 4000))]).unwrap();
    log.close().unwrap();
}

#[test]
fn a_quota_larger_than_the_volume_keeps_a_new_log_from_starting_and_never_one_that_is_there() {
    let quota = |seed| Options { max_bytes: Some(16 * (64 << 10)), ..options(seed) };
    let recover_on = |sim: &Sim, seed| {
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        recover(&storage, &quota(seed))
    };
    let small = Sim::new(1);
    small.set_capacity(Some(12 * (64 << 10)));
    let error = recover_on(&small, 1).err().expect("too small");
    assert!(matches!(&error, WalError::Options(text) if text.contains("has only")), "{error}");
    // Something else takes the volume while the log is there.
    let sim = Sim::new(1);
    let mut log = recover_on(&sim, 1).unwrap();
    log.writer.append(&[owned(P), block(P, 0, 700)]).unwrap();
    spares(&log);
    let lsn = log.writer.durable_lsn();
    drop(log);
    let sim = sim.kill();
    sim.set_capacity(Some(5 * (64 << 10)));
    let mut log = recover_on(&sim, 2).unwrap();
    assert_eq!(log.writer.durable_lsn(), lsn);
    assert_eq!(log.writer.append(&[delivered(0, P, 1, None)]).unwrap(), 1);
}

#[test]
fn without_a_spare_a_small_segment_is_room_enough_to_open() {
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    log.writer.append(&[owned(P), block(P, 0, 700)]).unwrap();
    drop(log);
    let sim = sim.kill();
    for path in sim.files().into_keys().filter(|path| path.extension().is_some_and(|ending| ending == "spare")) {
        sim.unlink(&path).unwrap();
    }
    let mut options = options(2);
    options.segment_bytes = 1 << 20;
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let used: u64 = sim.files().values().map(|bytes| bytes.len() as u64).sum();
    sim.set_capacity(Some(used + (256 << 10)));
    let mut log = recover(&storage, &options).unwrap();
    assert_eq!(log.writer.append(&[delivered(0, P, 1, None)]).unwrap(), 1);
    drop(log);
    let sim = sim.kill();
    let used: u64 = sim.files().values().map(|bytes| bytes.len() as u64).sum();
    sim.set_capacity(Some(used));
    let storage: Arc<dyn Storage> = Arc::new(sim);
    let error = recover(&storage, &options).err().expect("no room at all");
    assert_eq!(error.class(), ErrorClass::Full, "{error}");
}

#[test]
fn a_torn_tail_that_finds_no_room_to_be_kept_does_not_keep_the_log_from_opening() {
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    log.writer.append(&[owned(P), block(P, 0, 700)]).unwrap();
    log.writer.idle().unwrap();
    log.writer.append(&[block(P, 1, 700)]).unwrap();
    let torn = log.writer.locations().next().unwrap().position as usize + FRAME_HEADER + 9;
    drop(log);
    let sim = sim.kill();
    sim.damage(&path(1), |bytes| bytes[torn] ^= 1).unwrap();
    for errno in [Some(28), None] {
        let faults = Arc::new(Faults::new(Arc::new(sim.snapshot())));
        if let Some(errno) = errno {
            faults.fail(Operation::Create, 0, errno);
        }
        let storage: Arc<dyn Storage> = faults;
        let log = recover(&storage, &options(2)).unwrap();
        let torn = log.report.torn.expect("it is torn");
        assert_eq!((log.writer.state().partitions[&P].admitted, torn.kept_as.is_some()), (1, errno.is_none()));
    }
}
