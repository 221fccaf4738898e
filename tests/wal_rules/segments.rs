//! What a state holds, what retires, what a start builds and keeps.

use crate::entries::{block, plain};
use crate::world::{DIR, LONG, P, Q, delivered, everything, options, owned, path, spares, start};
use forebay::config::Durability;
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::TopicId;
use forebay::wal::catalogue::Location;
use forebay::wal::feed::{Feed, Handover};
use forebay::wal::format::frame::{FRAME_HEADER, FrameHeader, Kind};
use forebay::wal::options::SPARES;
use forebay::wal::recovery::recover;
use forebay::wal::{Entry, Options, State, WalError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn a_state_alone_knows_all_that_the_segments_before_it_held() {
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    let entries = everything();
    let mut folded = State::new(log.writer.state().wal_id);
    for (i, entry) in entries.iter().enumerate() {
        folded.apply(i as u64 + 1, entry).unwrap();
    }
    assert_eq!(log.writer.append(&entries).unwrap(), entries.len());
    assert!(log.writer.roll().unwrap());
    assert_eq!(log.writer.state(), &folded);
    assert!(!folded.plans.is_empty() && !folded.partitions[&P].gaps.is_empty());
    drop(log);
    // Only the second segment is left: whatever its state does not say is not known any more.
    let sim = sim.kill();
    sim.unlink(&path(1)).unwrap();
    let second = sim.files()[&path(2)].clone();
    let state = second_state(&second);
    assert_eq!(state, folded);
}

/// The first state of a segment.
fn second_state(bytes: &[u8]) -> State {
    let salt = u64::from_le_bytes(bytes[40..48].try_into().unwrap());
    let header = FrameHeader::decode(&bytes[8192..], salt, 8192).unwrap();
    assert_eq!(header.kind, Kind::State);
    let payload = 8192 + FRAME_HEADER;
    State::decode(&bytes[payload..payload + header.payload_len as usize]).unwrap()
}

#[test]
fn a_segment_retires_when_every_route_is_past_it_and_no_open_output_needs_it() {
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    let routes = [(0, "file"), (1, "pipe")].map(|(route, name)| Entry::Route { route, name: name.into() });
    log.writer.append(&routes).unwrap();
    log.writer.append(&[owned(P), block(P, 0, 100), block(P, 1, 100)]).unwrap();
    assert!(log.writer.roll().unwrap());
    let mut needed = |receipt: Entry| {
        log.writer.append(&[receipt]).unwrap();
        log.writer.retirement(u64::MAX).is_none()
    };
    assert!(needed(delivered(0, P, 1, None)), "a block is not delivered");
    assert!(needed(delivered(0, P, 2, None)), "the other route has nothing");
    assert!(needed(delivered(1, P, 1, None)), "the other route is behind");
    assert!(needed(delivered(1, P, 2, Some(1))), "its last page may have to be written again");
    assert!(!needed(delivered(1, P, 2, None)));
    assert!(log.writer.retirement(1).is_none(), "a reader is at the segment");
}

#[test]
fn a_last_segment_is_built_anew_unless_it_has_a_block_of_its_own_or_is_half_full() {
    let receipt = || {
        let detail = vec![7; 900];
        Entry::Delivered { route: 0, partition: P, first: 0, next: 1, through_lsn: 3, keep_from: None, detail }
    };
    let lives: [(&str, Vec<Entry>, u64); 5] = [
        ("nothing", Vec::new(), 2),
        ("a receipt", vec![receipt()], 2),
        ("a block of its own", vec![receipt(), block(P, 1, 10), receipt()], 3),
        // A group takes a page, and the half of what the states leave has room for six.
        ("up to its half", vec![receipt(); 6], 2),
        ("beyond its half", vec![receipt(); 7], 3),
    ];
    for (what, entries, number) in lives {
        let sim = Sim::new(1);
        let mut log = start(&sim, 1).unwrap();
        log.writer.append(&[owned(P), block(P, 0, 700)]).unwrap();
        assert!(log.writer.roll().unwrap());
        for entry in &entries {
            assert_eq!(log.writer.append(std::slice::from_ref(entry)).unwrap(), 1, "{what}");
        }
        assert_eq!(log.writer.segment(), 2, "{what}");
        let (state, lsn) = (log.writer.state().clone(), log.writer.durable_lsn());
        drop(log);
        let sim = sim.kill();
        let log = start(&sim, 2).unwrap();
        assert_eq!(log.writer.segment(), number, "{what}");
        assert_eq!((log.writer.state(), log.writer.durable_lsn()), (&state, lsn), "{what}");
        assert_eq!(sim.files().contains_key(&path(3)), number == 3, "{what}");
    }
}

/// States are in every segment: however large they are, lives without a block leave nothing behind.
#[test]
fn lives_in_a_row_with_a_large_state_leave_one_segment() {
    for words in [100, 20_000] {
        let mut sim = Sim::new(1);
        let mut log = start(&sim, 1).unwrap();
        let owned = Entry::Owned { partition: P, tenure: 1, first: 0, next: 0, acked_entries: "a".repeat(words) };
        log.writer.append(&[owned]).unwrap();
        log.writer.append(&[block(P, 0, 700)]).unwrap();
        assert!(log.writer.roll().unwrap());
        for life in 2..9 {
            log.writer.append(&[Entry::Idle]).unwrap();
            drop(log);
            sim = sim.kill();
            log = start(&sim, life).unwrap();
        }
        assert_eq!(log.writer.segment(), 2, "{words}");
        let there: u64 = sim.files().values().map(|bytes| bytes.len() as u64).sum();
        assert_eq!(log.writer.rack().used(), there, "{words}: all of it is counted");
    }
}

/// It may have lost what counted as durable long before, and the next sync may say that all is well.
#[test]
fn a_failed_sync_is_final_where_not_every_group_is_synced() {
    let sim = Sim::new(1);
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let mut log = recover(&storage, &Options { durability: Durability::Os, ..options(1) }).unwrap();
    spares(&log);
    log.writer.append(&[owned(P), block(P, 0, 700)]).unwrap();
    assert!(log.writer.roll().unwrap());
    log.writer.append(&[block(P, 1, 10)]).unwrap();
    log.writer.append(&[delivered(0, P, 1, None)]).unwrap();
    let retires = log.writer.retirement(u64::MAX).unwrap();
    // The write comes before it.
    sim.fail_at(sim.operations() + 1);
    let failed = log.writer.append(&[retires]);
    assert!(matches!(&failed, Err(WalError::Io(error)) if error.operation == "sync"), "{failed:?}");
    assert!(matches!(log.writer.append(&[block(P, 2, 10)]), Err(WalError::Closed)));
    assert!(log.writer.retired().is_empty(), "nothing goes");
}

#[test]
fn a_spare_that_was_not_finished_is_removed_and_never_used() {
    let sim = Sim::new(1);
    drop(start(&sim, 1).unwrap());
    for name in ["new-7.spare.tmp", "recovery.spare.tmp"] {
        let file = sim.create_new(&Path::new(DIR).join(name)).unwrap();
        // Its length is right already, its zeros may be anywhere.
        file.set_len(64 << 10).unwrap();
    }
    sim.sync_dir(Path::new(DIR)).unwrap();
    let sim = sim.kill();
    let log = start(&sim, 2).unwrap();
    let left: Vec<PathBuf> = sim.files().into_keys().collect();
    assert!(!left.iter().any(|path| path.extension().is_some_and(|ending| ending == "tmp")), "{left:?}");
    assert_eq!(log.writer.rack().used(), sim.files().values().map(|bytes| bytes.len() as u64).sum::<u64>());
}

#[test]
fn a_start_keeps_so_many_spares_and_tells_what_is_there() {
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    log.writer.append(&[owned(P), block(P, 0, 700)]).unwrap();
    assert!(log.writer.roll().unwrap());
    log.writer.append(&[block(P, 1, 700)]).unwrap();
    spares(&log);
    drop(log);
    let sim = sim.kill();
    for extra in 0..3 {
        let file = sim.create_new(&Path::new(DIR).join(format!("extra-{extra}.spare"))).unwrap();
        file.set_len(64 << 10).unwrap();
    }
    sim.sync_dir(Path::new(DIR)).unwrap();
    let options = options(2);
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let log = recover(&storage, &options).unwrap();
    // One became the segment that follows.
    assert_eq!((log.writer.rack().ready(), log.writer.segment()), (SPARES - 1, 3));
    let bytes: u64 = sim.files().values().map(|bytes| bytes.len() as u64).sum();
    assert_eq!((options.metrics.wal_segments.get(), options.metrics.wal_bytes.get()), (3, bytes as i64));
    assert_eq!(log.writer.rack().used(), bytes);
}

#[test]
fn a_feed_that_is_told_of_more_than_there_is_keeps_its_callers_time() {
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    log.writer.append(&[owned(P), block(P, 0, 700)]).unwrap();
    let beyond = log.writer.durable_lsn() + 5;
    let from = Location { segment: 1, position: 0, lsn: 1 };
    let behind = Arc::new(Handover::new(1 << 20, from, beyond, Arc::new(Metrics::new())));
    let catalogue = Arc::clone(log.writer.catalogue());
    let mut feed = Feed::new(Arc::new(sim), catalogue, behind, State::new(1), Vec::new());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(
        move || {
            while tell.send(feed.next(Duration::from_millis(20)).map(|item| item.is_some())).is_ok() {}
        },
    );
    assert!(told.recv_timeout(LONG).expect("the block").unwrap());
    for _ in 0..2 {
        assert!(!told.recv_timeout(LONG).expect("its time is over").unwrap());
    }
}

#[test]
fn offsets_do_not_jump_and_tenures_do_not_go_back() {
    let mut state = State::new(1);
    state.apply(1, &Entry::Owned { partition: P, tenure: 2, first: 5, next: 5, acked_entries: String::new() }).unwrap();
    let mut lsn = 1;
    let mut apply = |entry: Entry| {
        lsn += 1;
        state.apply(lsn, &entry).is_ok()
    };
    assert!(!apply(Entry::Block(plain(P, 2, 6, 1))), "a hole");
    assert!(!apply(Entry::Block(plain(P, 2, 4, 1))), "an overlap");
    assert!(!apply(Entry::Block(plain(P, 1, 5, 1))), "an older tenure");
    assert!(!apply(Entry::Block(plain(Q, 2, 0, 1))), "a partition that was never owned");
    assert!(apply(Entry::Block(plain(P, 2, 5, 1))));
    assert!(apply(Entry::Gap { partition: P, tenure: 2, first: 6, next: 9, reason: "retention".into() }));
    assert!(apply(Entry::Block(plain(P, 2, 9, 1))));
    assert!(!apply(Entry::Owned { partition: P, tenure: 2, first: 0, next: 0, acked_entries: String::new() }));
}

#[test]
fn a_topic_made_again_under_its_name_is_another_one() {
    let mut state = State::new(1);
    let topic = |number, id| Entry::Topic { number, name: "orders".into(), id: TopicId([id; 16]) };
    state.apply(1, &topic(1, 7)).unwrap();
    assert_eq!(state.topic_number("orders", TopicId([7; 16])), Some(1));
    assert_eq!(state.topic_number("orders", TopicId([8; 16])), None);
    state.apply(2, &topic(2, 8)).unwrap();
    assert_eq!(state.topic_number("orders", TopicId([8; 16])), Some(2));
    assert_eq!(state.topic_number("orders", TopicId([7; 16])), Some(1));
}
