use super::*;
use crate::io::sim::Sim;
use crate::metrics::Metrics;
use crate::wal::catalogue::Listed;
use crate::wal::format::footer::IndexEntry;
use crate::wal::format::frame::FRAME_HEADER;
use crate::wal::testing::{DIR, P, block, owned, path};
use crate::wal::{Delivery, Options, PartitionState, open};
use std::collections::BTreeMap;
use std::path::Path;

/// The first segment of a log with blocks of P at offsets 0 to 2, each with a padding; and their frames.
fn written() -> (Sim, Listed, Vec<FrameHeader>) {
    let sim = Sim::new(1);
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    (options.segment_bytes, options.idle) = (64 << 10, Duration::from_secs(3600));
    let log = open(Arc::new(sim.clone()), options).unwrap().log;
    log.append_synced(vec![owned()]).unwrap();
    for first in 0..3 {
        log.append_synced(vec![block(first, 1000)]).unwrap();
    }
    let listed = log.catalogue().get(1).unwrap();
    log.close().unwrap();
    let file = sim.open(&path(1), false).unwrap();
    let mut scanner = Scanner::new(file, listed.salt, listed.start, listed.first_lsn, listed.end);
    let mut blocks = Vec::new();
    while let Some(piece) = scanner.next_piece() {
        match piece {
            Piece::Frame(header, _) if header.kind == Kind::Block => blocks.push(header),
            Piece::Frame(..) => {}
            Piece::Damage(damage) => panic!("{damage:?}"),
        }
    }
    assert!(blocks.len() == 3 && blocks.iter().all(|header| header.pad_len > 0), "{blocks:?}");
    (sim, listed, blocks)
}

/// A feed of a log that has this segment and ends before `next_lsn`.
fn feed_of(sim: &Sim, listed: Listed, next_lsn: Lsn, state: State, corrupt: Vec<CorruptBlock>) -> Feed {
    let from = Location { segment: listed.number, position: listed.start, lsn: listed.first_lsn };
    let catalogue = Arc::new(Catalogue::new(Path::new(DIR), [listed]));
    let handover = Arc::new(Handover::new(1 << 20, from, next_lsn, Arc::new(Metrics::new())));
    Feed::new(Arc::new(sim.clone()), catalogue, handover, state, corrupt)
}

fn corrupt(segment: u64, position: u64) -> CorruptBlock {
    let header = FrameHeader { position, lsn: 5, next: 1, partition: P, ..FrameHeader::new(Kind::Block) };
    CorruptBlock::new(Path::new(DIR), segment, 7, &IndexEntry::of(&header), None)
}

/// The first offset of the next block there is.
fn next_of(feed: &mut Feed) -> Option<i64> {
    match feed.next(Duration::ZERO).unwrap() {
        Some(FeedItem::Block { block, .. }) => Some(block.header.first),
        None => None,
        other => panic!("{other:?}"),
    }
}

/// With weaker durability a block counts before it is written.
#[test]
fn what_is_not_where_it_is_read_from_yet_is_waited_for_and_not_left_out() {
    let (sim, listed, blocks) = written();
    let (number, end, last) = (listed.number, listed.end, blocks[2]);
    let shown = Listed { end: last.position, ..listed };
    let mut feed = feed_of(&sim, shown, last.lsn + 1, State::new(1), Vec::new());
    assert_eq!([next_of(&mut feed), next_of(&mut feed)], [Some(0), Some(1)]);
    let (begun, time) = (Instant::now(), Duration::from_millis(100));
    assert!(feed.next(time).unwrap().is_none());
    assert!(begun.elapsed() >= time, "given up after {:?}", begun.elapsed());
    feed.reader.catalogue.extend(number, end);
    assert_eq!([next_of(&mut feed), next_of(&mut feed)], [Some(2), None]);
    assert!(!feed.handover.is_behind());
}

#[test]
fn only_blocks_that_were_settled_when_the_log_was_opened_are_passed_over_when_they_are_damaged() {
    let (written, listed, blocks) = written();
    let delivery = BTreeMap::from([(0, Delivery { delivered: 10, ..Delivery::default() })]);
    let delivered = PartitionState { delivery, ..PartitionState::default() };
    // The last block was logged later, in a tenure that began below what was delivered.
    let partitions = BTreeMap::from([(P, delivered)]);
    let state = State { lsn: blocks[1].lsn, partitions, ..State::new(1) };
    for in_payload in [true, false] {
        let sim = written.snapshot();
        for block in &blocks {
            let padding = block.position as usize + FRAME_HEADER + block.payload_len as usize;
            let at = padding - usize::from(in_payload);
            sim.damage(&path(1), |bytes| bytes[at] ^= 1).unwrap();
        }
        let mut feed = feed_of(&sim, listed.clone(), blocks[2].lsn + 1, state.clone(), Vec::new());
        match feed.next(Duration::ZERO).unwrap() {
            Some(FeedItem::Corrupt(damaged)) if in_payload => assert_eq!(damaged.first, 2),
            Some(FeedItem::Block { block, .. }) if !in_payload => {
                assert_eq!((block.header.first, block.payload), (2, Bytes::from(vec![3; 1000])));
            }
            other => panic!("in the payload: {in_payload}: {other:?}"),
        }
        assert!(feed.next(Duration::ZERO).unwrap().is_none());
    }
}

#[test]
fn damage_that_only_recovery_could_name_is_what_it_found_there() {
    let (sim, listed, _) = written();
    let state = State { lsn: 10, ..State::new(1) };
    let places = [(1, 50), (1, 100), (1, 150), (1, 200), (2, 150)];
    let known = places.map(|(segment, position)| corrupt(segment, position)).to_vec();
    let mut feed = feed_of(&sim, listed.clone(), 11, state, known.clone());
    let damage = |lsn, frames| Damage {
        position: 100,
        end: 200,
        lsn,
        end_lsn: lsn + frames,
        part: BadPart::Header,
        header: None,
        unreadable: false,
        is_last: false,
        reason: String::new(),
    };
    let Ok(Step::Damaged(blocks)) = feed.reader.known_damage(1, &damage(5, 2)) else { panic!("two are known") };
    assert_eq!(blocks, known[1..3].to_vec());
    assert!(feed.reader.known_damage(1, &damage(5, 3)).is_err(), "one more is missing");
    feed.reader.corrupt.clear();
    for lsn in [9, 10] {
        let step = feed.reader.known_damage(1, &damage(lsn, 0));
        assert!(matches!(step, Ok(Step::Nothing)), "LSN {lsn}: recovery has looked at it");
    }
    assert!(feed.reader.known_damage(1, &damage(9, 1)).is_err(), "a frame is missing since");
    assert!(feed.reader.known_damage(1, &damage(11, 0)).is_err(), "written later");
    feed.reader.catalogue.put(Listed { verified: false, ..listed });
    assert!(feed.reader.known_damage(1, &damage(9, 0)).is_err(), "nobody has looked at it");
}

#[test]
fn a_detour_goes_on_behind_segments_that_are_retired() {
    let (sim, listed, blocks) = written();
    let passed = blocks[2].lsn;
    let feed = feed_of(&sim, listed, passed + 1, State::new(1), Vec::new());
    let mut detour = Detour::new(corrupt(0, 0), Location::default());
    let mut walk = || detour.walk(&feed.reader, passed).unwrap();
    assert!(matches!(walk(), Some(FeedItem::PassedOver(_))));
    assert!(walk().is_none(), "the tenure's beginning is no block");
    for block in &blocks {
        assert!(matches!(walk(), Some(FeedItem::Block { lsn, .. }) if lsn == block.lsn), "LSN {}", block.lsn);
    }
    assert!(detour.is_over(passed));
    // The same when there is none left.
    feed.reader.catalogue.retire(u64::MAX);
    let mut detour = Detour::new(corrupt(1, 0), Location { segment: 1, ..Location::default() });
    let mut walk = || detour.walk(&feed.reader, passed).unwrap();
    assert!(matches!(walk(), Some(FeedItem::PassedOver(_))));
    assert!(walk().is_none() && walk().is_none());
}
