use super::*;
use crate::io::IoError;
use crate::io::sim::Sim;
use crate::record::BlockHeader;
use crate::wal::options::SPARES;
use crate::wal::testing::{P, SEGMENT, block, delivered, owned, plain, settings, wait_until};
use crate::wal::{ErrorClass, FeedItem};
use bytes::Bytes;
use std::path::{Path, PathBuf};

const LONG: Duration = Duration::from_secs(20);

fn started(sim: &Sim, seed: u64) -> Opened {
    open(Arc::new(sim.clone()), Options { seed: Some(seed), ..settings() }).unwrap()
}

#[test]
fn a_thread_that_panics_poisons_the_log_and_gives_its_directory_free() {
    let sim = Sim::new(1);
    let Opened { log, mut feed, .. } = started(&sim, 1);
    log.append_synced(vec![owned(), block(0, 100)]).unwrap();
    assert!(log.append_synced(vec![block(5, 100)]).is_err(), "offsets are missing before it");
    wait_until("the log is poisoned", || log.failure().is_some());
    assert_eq!(log.failure().map(|error| error.class()), Some(ErrorClass::Internal));
    assert!(matches!(feed.next(LONG), Err(WalError::Poisoned(_))));
    assert!(matches!(log.append(block(1, 100)), Err(WalError::Poisoned(_))));
    assert!(matches!(log.close(), Err(WalError::Poisoned(_))));
    let mut again = None;
    wait_until("its directory is free", || {
        again = open(Arc::new(sim.clone()), Options { seed: Some(2), ..settings() }).ok();
        again.is_some()
    });
    assert_eq!(again.unwrap().state.partitions[&P].admitted, 1);
}

#[test]
fn what_waits_for_space_counts_as_queued_until_it_is_withdrawn_and_is_never_logged_then() {
    let sim = Sim::new(1);
    sim.set_capacity(Some((1 + SPARES as u64) * SEGMENT));
    let Opened { log, mut feed, .. } = started(&sim, 1);
    log.append_synced(vec![owned(), block(0, 100), block(1, 100)]).unwrap();
    let large = block(2, 200_000);
    let bytes = large.bytes();
    log.append(large).unwrap();
    // The log's thread has taken both when this is durable.
    log.append_synced(vec![delivered(1)]).unwrap();
    assert_eq!((log.queued_bytes(), log.status().queued_bytes as u64), (bytes, bytes));
    assert_eq!(log.withdraw(P, 1).unwrap(), 2, "so far it is durable");
    assert_eq!((log.queued_bytes(), log.status().queued_bytes), (0, 0));
    sim.set_capacity(None);
    log.append_synced(vec![block(2, 50)]).unwrap();
    for (first, bytes) in [(0, 100), (1, 100), (2, 50)] {
        match feed.next(LONG).unwrap() {
            Some(FeedItem::Block { block, .. }) => {
                assert_eq!((block.header.first, block.payload.len()), (first, bytes));
            }
            other => panic!("{other:?}"),
        }
    }
    log.close().unwrap();
}

#[test]
fn blocks_of_a_plan_that_is_run_again_are_handed_out_and_not_logged() {
    let Opened { log, mut feed, .. } = started(&Sim::new(1), 1);
    let lsn = log.append_synced(vec![owned()]).unwrap();
    log.hand_on_planned(vec![plain(0, 300), plain(1, 40)]);
    assert_eq!((log.planned_bytes(), log.marks(P).in_flight.load(Ordering::Acquire)), (340, 2));
    for (first, left) in [(0, 40), (1, 0)] {
        match feed.next(LONG).unwrap() {
            Some(FeedItem::Planned(block)) => assert_eq!(block.header.first, first),
            other => panic!("{other:?}"),
        }
        assert_eq!(log.planned_bytes(), left);
    }
    assert_eq!((log.durable_lsn(), log.marks(P).durable()), (lsn, 0));
    log.close().unwrap();
}

#[test]
fn a_log_has_its_name_for_life() {
    let sim = Sim::new(1);
    let Opened { log, state, .. } = started(&sim, 1);
    let id = log.wal_id();
    assert_eq!(id, state.wal_id);
    log.close().unwrap();
    assert_eq!(started(&sim, 2).log.wal_id(), id);
    assert_ne!(started(&Sim::new(1), 3).log.wal_id(), id);
}

#[test]
fn what_the_log_alone_writes_and_what_is_too_long_is_refused_with_all_that_came_with_it() {
    let log = started(&Sim::new(1), 1).log;
    log.append_synced(vec![owned()]).unwrap();
    let around = block(0, 0).bytes();
    let with_bytes = |bytes: u64| {
        let payload = Bytes::from(vec![0; (bytes - around) as usize]);
        Entry::Block(Block { payload, ..plain(0, 0) })
    };
    let limit = u64::from(MAX_PAYLOAD);
    assert!(check(&with_bytes(limit)).is_ok());
    for entry in [Entry::Idle, Entry::RetiredBelow { segment: 1, lsn: 1 }, with_bytes(limit + 1)] {
        let refused = log.append_synced(vec![block(0, 100), entry]);
        assert!(matches!(refused, Err(WalError::Entry { .. })), "{refused:?}");
    }
    assert_eq!((log.marks(P).durable(), log.queued_bytes()), (0, 0));
    log.close().unwrap();
}

#[test]
fn of_what_fails_around_repairs_only_a_sync_of_the_directory_poisons_the_log() {
    let log = started(&Sim::new(1), 1).log;
    let fails = |operation: &'static str| {
        let source = std::io::Error::from_raw_os_error(5);
        log.note_failure(WalError::Io(IoError::new(operation, Path::new("/wal"), source)))
    };
    assert!(matches!(fails("write"), WalError::Io(_)));
    log.append_synced(vec![owned()]).unwrap();
    assert!(matches!(fails(SYNC_DIR), WalError::Poisoned(_)));
    assert!(matches!(log.append(block(0, 100)), Err(WalError::Poisoned(_))));
}

#[test]
fn a_damaged_block_is_settled_when_it_is_delivered_or_was_given_up_after_it_or_its_segment_is_gone() {
    let log = started(&Sim::new(1), 1).log;
    let begun = log.append_synced(vec![owned()]).unwrap();
    log.append_synced((0..5).map(|first| block(first, 100)).collect()).unwrap();
    let disowned = Entry::Disowned { partition: P, tenure: 1, first: 3, next: 5 };
    let given_up = log.append_synced(vec![disowned]).unwrap();
    log.append_synced(vec![delivered(1)]).unwrap();
    let salt = log.catalogue().get(1).unwrap().salt;
    let damaged = |first: i64| CorruptBlock {
        path: PathBuf::from("1.wal"),
        segment: 1,
        salt,
        position: 0,
        end: 0,
        lsn: begun + 1 + first as u64,
        partition: P,
        tenure: 1,
        first,
        next: first + 1,
        count: 1,
        digest: 0,
        header: None,
    };
    let settled = (0..5).map(|first| log.is_settled(&damaged(first))).collect::<Vec<_>>();
    assert_eq!(settled, [true, false, false, true, true]);
    let needed = [
        CorruptBlock { lsn: given_up, ..damaged(3) },
        CorruptBlock { lsn: given_up + 9, ..damaged(3) },
        CorruptBlock { tenure: 2, ..damaged(3) },
    ];
    for block in &needed {
        assert!(!log.is_settled(block), "logged later: {block:?}");
    }
    assert!(log.is_settled(&CorruptBlock { segment: 2, ..damaged(1) }), "there is no such segment");
    assert!(log.is_settled(&CorruptBlock { salt: salt ^ 1, ..damaged(1) }), "it is another segment now");
    log.close().unwrap();
}

#[test]
fn whoever_waits_alone_or_among_others_finds_all_it_sent_before_durable() {
    let Opened { log, .. } = started(&Sim::new(1), 1);
    let (tell, told) = mpsc::channel();
    for number in 0..4 {
        let (log, tell) = (log.clone(), tell.clone());
        std::thread::spawn(move || {
            let partition = Partition { topic: 1, number };
            let of_mine = |block: Block| Block { header: BlockHeader { partition, ..block.header }, ..block };
            let tenure = Entry::Owned { partition, tenure: 1, first: 0, next: 0, acked_entries: String::new() };
            log.append_synced(vec![tenure]).unwrap();
            for first in 0..400 {
                let block = Entry::Block(of_mine(plain(first, 10)));
                // Each has times in which it mostly waits, and is alone while others only send or look on.
                if (first / 50 + i64::from(number)) % 4 < 2 || first % 50 == 49 {
                    log.append_synced(vec![block]).unwrap();
                    assert_eq!(log.marks(partition).durable(), first + 1);
                } else {
                    log.append(block).unwrap();
                }
                if first % 7 == 0 {
                    log.append_synced(Vec::new()).unwrap();
                    assert_eq!(log.marks(partition).durable(), first + 1);
                }
            }
            tell.send(number).unwrap();
        });
    }
    drop(tell);
    let ended = (0..4).map_while(|_| told.recv_timeout(LONG).ok()).count();
    assert_eq!((ended, log.failure().is_some(), log.queued_bytes()), (4, false, 0));
    log.close().unwrap();
}
