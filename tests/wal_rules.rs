//! Rules of the log that no single crash shows: what a state holds, what retires, what zeros, old bytes and a rewritten
//! frame are taken for, what a full disk leaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use forebay::config::Durability;
use forebay::io::Storage;
use forebay::io::fault::{Faults, Operation};
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::batch::payload_crc;
use forebay::record::{Block, BlockHeader, Partition, TopicId};
use forebay::wal::catalogue::Location;
use forebay::wal::feed::{Feed, Handover};
use forebay::wal::format::frame::{FRAME_HEADER, FrameHeader, Kind};
use forebay::wal::inspect::inspect;
use forebay::wal::options::SPARES;
use forebay::wal::recovery::{Recovered, recover};
use forebay::wal::segment::wal_name;
use forebay::wal::{Entry, ErrorClass, FeedItem, Opened, Options, PlanRange, State, WalError, open};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DIR: &str = "/wal";
const P: Partition = Partition { topic: 1, number: 0 };
const Q: Partition = Partition { topic: 1, number: 1 };
const LONG: Duration = Duration::from_secs(20);

fn options(seed: u64) -> Options {
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    options.idle = Duration::from_millis(5);
    options.seed = Some(seed);
    options
}

fn start(sim: &Sim, seed: u64) -> Result<Recovered, WalError> {
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let log = recover(&storage, &options(seed))?;
    spares(&log);
    Ok(log)
}

fn spares(log: &Recovered) {
    while log.writer.rack().work(&mut || {}).unwrap() {}
}

fn plain(partition: Partition, tenure: u32, first: i64, bytes: usize) -> Block {
    let payload = vec![first as u8 + 1; bytes];
    let header = BlockHeader {
        partition,
        first,
        next: first + 1,
        leader_epoch: 0,
        tenure,
        count: 1,
        digest: 0,
        payload_crc: payload_crc(&payload),
    };
    Block { header, payload: Bytes::from(payload) }
}

fn block(partition: Partition, first: i64, bytes: usize) -> Entry {
    Entry::Block(plain(partition, 1, first, bytes))
}

fn owned(partition: Partition) -> Entry {
    Entry::Owned { partition, tenure: 1, first: 0, next: 0, acked_entries: "a:1".into() }
}

fn delivered(route: u16, partition: Partition, next: i64, keep_from: Option<i64>) -> Entry {
    Entry::Delivered { route, partition, first: 0, next, through_lsn: 3, keep_from, detail: vec![7; 9] }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn path(number: u64) -> PathBuf {
    Path::new(DIR).join(wal_name(number))
}

/// Every kind of entry that leaves something in the state.
fn everything() -> Vec<Entry> {
    let gap =
        |first, reason: &str| Entry::Gap { partition: P, tenure: 1, first, next: first + 5, reason: reason.into() };
    let range = |from| PlanRange { topic: 1, partition: 1, from, until: from + 10 };
    let plan = |id, from| Entry::Plan { route: 0, id, time_ms: 5, ranges: vec![range(from)], blocks: Vec::new() };
    vec![
        Entry::Topic { number: 1, name: "orders".into(), id: TopicId([4; 16]) },
        Entry::Route { route: 0, name: "file".into() },
        owned(P),
        owned(Q),
        block(P, 0, 100),
        block(P, 1, 100),
        gap(2, "retention"),
        block(P, 7, 100),
        Entry::Empty { partition: P, tenure: 1, first: 8, next: 9 },
        Entry::Confirmed { partition: P, tenure: 1, next: 1 },
        plan(1, 0),
        plan(2, 10),
        Entry::PlanDropped { route: 0, id: 2 },
        Entry::Named { route: 0, partition: P, name: "orders/0/a.part".into() },
        delivered(0, P, 1, Some(0)),
        Entry::Disowned { partition: P, tenure: 1, first: 7, next: 9 },
        Entry::Owned { partition: P, tenure: 2, first: 7, next: 7, acked_entries: "b:2".into() },
        Entry::Block(plain(P, 2, 7, 50)),
        delivered(0, Q, 0, None),
    ]
}

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

/// A log of three segments; the last one holds several groups and was killed after an `Idle` frame.
fn killed() -> Sim {
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    log.writer.append(&[owned(P), block(P, 0, 700)]).unwrap();
    assert!(log.writer.roll().unwrap());
    log.writer.append(&[block(P, 1, 900)]).unwrap();
    assert!(log.writer.roll().unwrap());
    for first in 2..6 {
        log.writer.append(&[block(P, first, 5000), block(P, first + 10, 1)][..1]).unwrap();
    }
    log.writer.idle().unwrap();
    sim.kill()
}

#[test]
fn a_sector_of_zeros_never_ends_the_log_unseen() {
    let sim = killed();
    let whole = start(&sim.snapshot(), 2).unwrap().writer.state().clone();
    let segments = inspect(&sim, Path::new(DIR)).unwrap().segments;
    for segment in segments {
        for sector in (0..segment.end as usize).step_by(512) {
            let damaged = sim.snapshot();
            let mut changed = false;
            let zero = |bytes: &mut Vec<u8>| {
                let sector = &mut bytes[sector..sector + 512];
                changed = sector.iter().any(|byte| *byte != 0);
                sector.fill(0);
            };
            damaged.damage(&path(segment.number), zero).unwrap();
            if !changed {
                continue;
            }
            let place = format!("segment {}, byte {sector}", segment.number);
            match start(&damaged, 2) {
                Err(error) => assert_eq!(error.class(), ErrorClass::Corrupt, "{place}: {error}"),
                Ok(log) => {
                    let lost = whole.lsn - log.writer.state().lsn;
                    let told = !log.report.corrupt.is_empty() || !log.report.problems.is_empty();
                    // Of the `Idle` frame alone nothing is left to tell.
                    assert!(told || lost == 1, "{place}: {lost} frames lost unseen");
                    assert_eq!(log.writer.state().partitions, whole.partitions, "{place}");
                }
            }
        }
    }
}

#[test]
fn a_frame_that_was_rewritten_with_good_checksums_is_seen_by_its_successor() {
    let sim = killed();
    let rewrite = |bytes: &mut Vec<u8>| {
        let salt = u64::from_le_bytes(bytes[40..48].try_into().unwrap());
        let find = |at: &usize| {
            FrameHeader::decode(&bytes[*at..], salt, *at as u64).is_ok_and(|header| header.kind == Kind::Block)
        };
        let at = (8192..bytes.len() - FRAME_HEADER).step_by(8).find(find).unwrap();
        let mut header = FrameHeader::decode(&bytes[at..], salt, at as u64).unwrap();
        let end = at + FRAME_HEADER + header.payload_len as usize;
        bytes[end - 1] ^= 1;
        header.payload_crc = payload_crc(&bytes[at + FRAME_HEADER..end]);
        bytes[at..at + FRAME_HEADER].copy_from_slice(&header.encode(salt));
    };
    sim.damage(&path(2), rewrite).unwrap();
    let overview = inspect(&sim, Path::new(DIR)).unwrap();
    assert!(overview.is_damaged());
    assert_eq!(overview.findings[0].path, path(2));
}

#[test]
fn what_a_segment_was_built_with_is_never_a_tear() {
    // The last group has no witness: it is copied into the segment that the next start builds, and a kill follows.
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    log.writer.append(&[owned(P), block(P, 0, 700)]).unwrap();
    log.writer.append(&[block(P, 1, 700), block(P, 2, 700)]).unwrap();
    drop(log);
    let sim = sim.kill();
    let log = start(&sim, 2).unwrap();
    assert_eq!((log.report.copied, log.writer.segment()), (2, 2));
    let whole = log.writer.state().clone();
    drop(log);
    let sim = sim.kill();
    let again = start(&sim.snapshot(), 3).unwrap();
    assert_eq!(again.writer.state(), &whole);
    let second = inspect(&sim, Path::new(DIR)).unwrap().segments[1].clone();
    assert!(second.frames == 2 && second.end == second.header.built_end);
    for byte in (4 * 4096..second.end as usize).step_by(7) {
        let damaged = sim.snapshot();
        damaged.damage(&path(2), |bytes| bytes[byte] ^= 4).unwrap();
        match start(&damaged, 3) {
            Err(error) => assert_eq!(error.class(), ErrorClass::Corrupt, "byte {byte}: {error}"),
            Ok(log) => {
                assert_eq!(log.writer.state().partitions, whole.partitions, "byte {byte}");
                let told = log.report.problems.len() + log.report.corrupt.len();
                assert!(told > 0 && log.report.torn.is_none(), "byte {byte}: {:?}", log.report.torn);
            }
        }
    }
}

#[test]
fn no_page_takes_both_headers_or_both_states() {
    let sim = killed();
    let whole = start(&sim.snapshot(), 2).unwrap().writer.state().clone();
    for page in 0..4 {
        let damaged = sim.snapshot();
        damaged.damage(&path(3), |bytes| bytes[page * 4096..(page + 1) * 4096].fill(0xee)).unwrap();
        let before = damaged.files()[&path(3)].clone();
        let log = start(&damaged, 2).unwrap_or_else(|error| panic!("page {page}: {error}"));
        assert_eq!(log.writer.state().partitions, whole.partitions, "page {page}");
        assert!(!log.report.problems.is_empty(), "page {page}: damage untold");
        assert_eq!(damaged.files()[&path(3)], before, "page {page}: what was damaged stays to be looked at");
    }
}

#[test]
fn what_stops_a_partition_is_told_as_that_alone_and_other_damage_beside_it() {
    let sim = killed();
    sim.damage(&path(1), |bytes| {
        bytes[8192 + 120] ^= 1;
        let payload = bytes.windows(600).position(|bytes| bytes.iter().all(|byte| *byte == 1)).unwrap();
        bytes[payload] ^= 4;
    })
    .unwrap();
    let log = start(&sim, 2).unwrap();
    let (corrupt, problems) = (&log.report.corrupt, &log.report.problems);
    assert_eq!((corrupt.len(), problems.len()), (1, 1), "{corrupt:?} {problems:?}");
    assert_eq!((corrupt[0].partition, corrupt[0].first, &problems[0].path), (P, 0, &path(1)));
    assert_ne!(problems[0].lsn, Some(corrupt[0].lsn));
}

#[test]
fn a_damaged_segment_without_frames_of_its_own_is_followed_and_not_replaced() {
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    log.writer.append(&[owned(P), block(P, 0, 700)]).unwrap();
    log.writer.close().unwrap();
    drop(log);
    let sim = sim.kill();
    sim.damage(&path(2), |bytes| bytes[8192 + 120] ^= 1).unwrap();
    let before = sim.files()[&path(2)].clone();
    let log = start(&sim, 2).unwrap();
    assert_eq!((log.writer.segment(), log.report.problems.len()), (3, 1));
    assert_eq!(sim.files()[&path(2)], before);
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
fn damage_behind_the_frame_that_retires_is_told_and_nothing_more() {
    let sim = Sim::new(1);
    let mut log = start(&sim, 1).unwrap();
    log.writer.append(&[owned(P), block(P, 0, 700)]).unwrap();
    assert!(log.writer.roll().unwrap());
    log.writer.append(&[block(P, 1, 10)]).unwrap();
    log.writer.append(&[delivered(0, P, 1, None)]).unwrap();
    let retires = log.writer.retirement(u64::MAX).unwrap();
    log.writer.append(&[retires]).unwrap();
    let retired = log.writer.retired();
    log.writer.rack().hand_over(retired.iter().map(|segment| (segment.number, segment.len)));
    spares(&log);
    log.writer.append(&[Entry::Idle]).unwrap();
    let state = log.writer.state().clone();
    drop(log);
    let sim = sim.kill();
    assert!(!sim.files().contains_key(&path(1)));
    let kind = Kind::RetiredBelow as u8;
    sim.damage(&path(2), |bytes| {
        let page = bytes.chunks(4096).position(|page| page[..4] == *b"FBF1" && page[4] == kind).unwrap();
        bytes[4096 * page + 2000] ^= 1;
    })
    .unwrap();
    let log = start(&sim, 2).unwrap();
    assert_eq!((log.writer.state(), log.report.problems.len()), (&state, 1), "{:?}", log.report.problems);
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
