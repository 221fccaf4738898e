//! What is read back from the segments is what was logged, no less and nothing twice, whatever part of them is damaged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/entries.rs"]
mod entries;

use entries::recorded;
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::{Block, Partition};
use forebay::wal::format::frame::{FRAME_HEADER, FrameHeader, Kind};
use forebay::wal::inspect::{Dumped, dump};
use forebay::wal::segment::{FileName, classify, wal_name};
use forebay::wal::{Entry, Feed, FeedItem, Log, Opened, Options, PlanRange, WalError, open};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const P: Partition = Partition { topic: 1, number: 0 };
const Q: Partition = Partition { topic: 1, number: 1 };
const DIR: &str = "/wal";
const BLOCKS: i64 = 24;
const LONG: Duration = Duration::from_secs(20);

/// What Kafka has at `[first, next)`: a record for each offset.
fn block_of(partition: Partition, tenure: u32, first: i64, next: i64) -> Block {
    recorded(partition, tenure, first..next, |offset| vec![(offset as u8) ^ (partition.number as u8); 3000])
}

fn block(partition: Partition, tenure: u32, first: i64, next: i64) -> Entry {
    Entry::Block(block_of(partition, tenure, first, next))
}

fn owned(partition: Partition, tenure: u32, first: i64) -> Entry {
    Entry::Owned { partition, tenure, first, next: first, acked_entries: String::new() }
}

fn options() -> Options {
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    options.idle = LONG;
    options.seed = Some(7);
    options
}

fn start(sim: &Sim, options: Options) -> Opened {
    open(Arc::new(sim.clone()), options).expect("opens")
}

/// A log of several sealed segments with footers, closed; P and Q have a block at each offset, none is delivered.
fn logged() -> Sim {
    let sim = Sim::new(5);
    let log = start(&sim, options()).log;
    log.append_synced(vec![owned(P, 1, 0), owned(Q, 1, 0)]).unwrap();
    for first in 0..BLOCKS {
        let mut pair = vec![block(P, 1, first, first + 1), block(Q, 1, first, first + 1)];
        // The last one of a group is padded to a page: sometimes one of P, sometimes one of Q.
        if first % 2 == 1 {
            pair.reverse();
        }
        log.append_synced(pair).unwrap();
    }
    log.close().unwrap();
    sim
}

/// A frame and the number of its segment.
type Found = (u64, FrameHeader);

fn frames(sim: &Sim) -> Vec<Found> {
    let mut found = Vec::new();
    for name in sim.list(Path::new(DIR)).unwrap() {
        let FileName::Segment(number) = classify(&name) else { continue };
        let mut note = |piece: Dumped<'_>| {
            if let Dumped::Frame(header, _) = piece {
                found.push((number, *header));
            }
            true
        };
        dump(sim, Path::new(DIR), number, &mut note).unwrap();
    }
    found
}

/// The block at this offset, which must lie in the first segment.
fn early(frames: &[Found], partition: Partition, first: i64) -> Found {
    let is_it = |h: &FrameHeader| h.kind == Kind::Block && (h.partition, h.first) == (partition, first);
    let found = *frames.iter().find(|(_, header)| is_it(header)).unwrap();
    assert_eq!(found.0, 1, "{found:?}");
    found
}

fn footer(frames: &[Found], segment: u64) -> Found {
    *frames.iter().find(|(number, header)| *number == segment && header.kind == Kind::Footer).unwrap()
}

/// Changes a byte of a frame, counted from its beginning.
fn damage(sim: &Sim, (segment, header): &Found, byte: u64) {
    let at = (header.position + byte) as usize;
    sim.damage(&Path::new(DIR).join(wal_name(*segment)), |bytes| bytes[at] ^= 0x24).unwrap();
}

const IN_HEADER: u64 = 20;
const IN_PAYLOAD: u64 = FRAME_HEADER as u64 + 700;

/// All that the feed gives now.
fn take(feed: &mut Feed) -> Vec<FeedItem> {
    let mut items = Vec::new();
    while let Some(item) = feed.next(Duration::ZERO).expect("readable") {
        items.push(item);
        assert!(items.len() < 1000, "no end of it");
    }
    items
}

/// The first offset of a block, which must have the bytes that were logged.
fn offset(block: &Block) -> i64 {
    let Block { header, payload } = block;
    let logged = block_of(header.partition, header.tenure, header.first, header.next);
    assert!(*payload == logged.payload, "wrong bytes: {header:?}");
    header.first
}

fn offsets(items: &[FeedItem], partition: Partition) -> Vec<i64> {
    let of_it = |item: &FeedItem| match item {
        FeedItem::Block { block, .. } if block.header.partition == partition => Some(offset(block)),
        _ => None,
    };
    items.iter().filter_map(of_it).collect()
}

/// Which blocks are said to be corrupt.
fn corrupt(items: &[FeedItem]) -> Vec<(Partition, i64)> {
    let told = |item: &FeedItem| match item {
        FeedItem::Corrupt(block) => Some((block.partition, block.first)),
        _ => None,
    };
    items.iter().filter_map(told).collect()
}

/// Repairs the blocks that are said to be corrupt.
fn mend(log: &Log, items: &[FeedItem]) {
    for item in items {
        if let FeedItem::Corrupt(block) = item {
            let again = block_of(block.partition, block.tenure, block.first, block.next);
            log.keep_repair(block, &again).unwrap();
        }
    }
}

fn all_from(first: i64) -> Vec<i64> {
    (first..BLOCKS).collect()
}

#[test]
fn blocks_that_were_damaged_together_are_told_and_handed_out_one_after_the_other() {
    let sim = logged();
    let found = frames(&sim);
    let places = [(P, 2), (Q, 2), (P, 3), (Q, 3)].map(|(partition, first)| early(&found, partition, first).1.position);
    // The headers of all four are gone; the footer has their names.
    let (from, to) = (places.iter().min().unwrap(), places.iter().max().unwrap());
    let (from, to) = (*from as usize, *to as usize + FRAME_HEADER);
    sim.damage(&Path::new(DIR).join(wal_name(1)), |bytes| bytes[from..to].fill(0)).unwrap();
    let Opened { log, mut feed, report, .. } = start(&sim, options());
    assert_eq!(report.corrupt.len(), 4);
    for before in [2, 3] {
        let items = take(&mut feed);
        let mut told = corrupt(&items);
        told.sort_unstable();
        assert_eq!(told, [(P, before), (Q, before)]);
        for partition in [P, Q] {
            let expected = if before == 2 { vec![0, 1] } else { vec![2] };
            assert_eq!(offsets(&items, partition), expected);
        }
        mend(&log, &items);
    }
    let items = take(&mut feed);
    assert_eq!((offsets(&items, P), offsets(&items, Q)), (all_from(3), all_from(3)));
    assert!(corrupt(&items).is_empty() && log.repairs().open().is_empty());
    log.close().unwrap();
}

#[test]
fn a_partition_that_catches_up_does_not_hold_up_the_others() {
    let sim = logged();
    damage(&sim, &early(&frames(&sim), P, 2), IN_PAYLOAD);
    let Opened { log, mut feed, .. } = start(&sim, options());
    let items = take(&mut feed);
    assert_eq!((offsets(&items, P), offsets(&items, Q)), (vec![0, 1], all_from(0)));
    let new: Vec<i64> = (BLOCKS..BLOCKS + 4).collect();
    log.append_synced(new.iter().map(|first| block(Q, 1, *first, *first + 1)).collect()).unwrap();
    mend(&log, &items);
    let items = take(&mut feed);
    assert_eq!((offsets(&items, P), offsets(&items, Q)), (all_from(2), new));
    let is_of = |item: &FeedItem, partition: Partition| match item {
        FeedItem::Block { block, .. } => block.header.partition == partition,
        other => panic!("{other:?}"),
    };
    let first_of_q = items.iter().position(|item| is_of(item, Q)).unwrap();
    let last_of_p = items.iter().rposition(|item| is_of(item, P)).unwrap();
    assert!(first_of_q < last_of_p, "{first_of_q}, {last_of_p}");
    log.close().unwrap();
}

#[test]
fn planned_blocks_of_a_partition_that_waits_for_a_repair_come_behind_its_logged_ones() {
    let sim = logged();
    damage(&sim, &early(&frames(&sim), P, 2), IN_PAYLOAD);
    let Opened { log, mut feed, .. } = start(&sim, options());
    let damaged = take(&mut feed);
    assert_eq!(corrupt(&damaged), [(P, 2)]);
    let blocks: Vec<Block> = [P, Q].map(|partition| block_of(partition, 1, BLOCKS, BLOCKS + 1)).into();
    let bytes = blocks[0].payload.len();
    let range = |block: &Block| {
        let header = &block.header;
        PlanRange { topic: 1, partition: header.partition.number, from: header.first, until: header.next }
    };
    let plan = Entry::Plan { route: 0, id: 1, time_ms: 0, ranges: blocks.iter().map(range).collect(), blocks };
    log.append_plan(plan).unwrap();
    log.append_synced(vec![]).unwrap();
    let items = take(&mut feed);
    assert!(matches!(&items[..], [FeedItem::Planned(block)] if block.header.partition == Q), "{items:?}");
    assert_eq!(log.planned_bytes(), bytes, "the other one is still to come");
    mend(&log, &damaged);
    let mut items = take(&mut feed);
    let last = items.pop();
    assert!(matches!(&last, Some(FeedItem::Planned(block)) if block.header.partition == P), "{last:?}");
    assert_eq!((offsets(&items, P), items.len()), (all_from(2), all_from(2).len()));
    assert_eq!(log.planned_bytes(), 0);
    log.close().unwrap();
}

#[test]
fn blocks_with_a_damaged_padding_are_read_whole_and_once() {
    let sim = logged();
    let found = frames(&sim);
    let stops = early(&found, P, 2);
    for partition in [P, Q] {
        let is_padded = |(_, h): &&Found| h.kind == Kind::Block && h.partition == partition && h.pad_len > 0;
        let padded: Vec<_> = found.iter().filter(is_padded).filter(|found| **found != stops).collect();
        assert!(padded.iter().any(|(_, h)| h.first < 10) && padded.iter().any(|(_, h)| h.first >= 10));
        for found in padded {
            damage(&sim, found, FRAME_HEADER as u64 + u64::from(found.1.payload_len));
        }
    }
    damage(&sim, &stops, IN_PAYLOAD);
    let Opened { log, mut feed, .. } = start(&sim, options());
    let items = take(&mut feed);
    assert_eq!((offsets(&items, P), offsets(&items, Q)), (vec![0, 1], all_from(0)));
    let read = log.read_blocks(P, 3, BLOCKS).unwrap();
    assert!(read.iter().all(|block| block.header.partition == P));
    assert_eq!(read.iter().map(offset).collect::<Vec<_>>(), all_from(3));
    mend(&log, &items);
    let items = take(&mut feed);
    assert_eq!((offsets(&items, P), offsets(&items, Q)), (all_from(2), vec![]), "those of Q have come already");
    // Q keeps all segments; P is delivered up to here.
    let (route, partition, detail) = (0, P, vec![1]);
    let receipt = Entry::Delivered { route, partition, first: 0, next: 10, through_lsn: 0, keep_from: None, detail };
    log.append_synced(vec![receipt]).unwrap();
    log.close().unwrap();
    let Opened { log, mut feed, .. } = start(&sim, options());
    let items = take(&mut feed);
    assert_eq!((offsets(&items, P), offsets(&items, Q)), (all_from(10), all_from(0)));
    log.close().unwrap();
}

#[test]
fn damage_that_nobody_can_name_stops_a_partition_that_catches_up_too() {
    let sim = logged();
    let found = frames(&sim);
    damage(&sim, &early(&found, P, 2), IN_PAYLOAD);
    let mut options = options();
    options.verify_bytes = 0;
    let Opened { log, mut feed, report, .. } = start(&sim, options);
    assert!(report.unverified.contains(&2), "{:?}", report.unverified);
    let items = take(&mut feed);
    assert_eq!((offsets(&items, P), offsets(&items, Q)), (vec![0, 1], all_from(0)));
    let is_of_p = |(number, h): &&Found| *number == 2 && h.kind == Kind::Block && h.partition == P;
    let lost = *found.iter().filter(is_of_p).nth(1).unwrap();
    damage(&sim, &lost, IN_HEADER);
    damage(&sim, &footer(&found, 2), IN_HEADER);
    mend(&log, &items);
    let handed_out = take_until_it_stops(&mut feed, 2);
    assert_eq!(offsets(&handed_out, P), (2..lost.1.first).collect::<Vec<_>>());
}

/// Takes all that the feed gives before it stops at a damage, which lies in this segment.
fn take_until_it_stops(feed: &mut Feed, segment: u64) -> Vec<FeedItem> {
    let mut items = Vec::new();
    let error = loop {
        match feed.next(Duration::ZERO) {
            Ok(Some(item)) => items.push(item),
            Ok(None) => panic!("passed over: {:?} of P, {:?} of Q", offsets(&items, P), offsets(&items, Q)),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains(&wal_name(segment)), "{error}");
    items
}

#[test]
fn a_header_that_is_damaged_while_the_log_is_open_stops_all_where_no_footer_names_it() {
    let sim = Sim::new(5);
    let log = start(&sim, options()).log;
    log.append_synced(vec![owned(P, 1, 0), owned(Q, 1, 0)]).unwrap();
    for first in 0..4 {
        log.append_synced(vec![block(P, 1, first, first + 1), block(Q, 1, first, first + 1)]).unwrap();
    }
    // Killed: its last segment has no footer.
    let sim = sim.kill();
    drop(log);
    let found = frames(&sim);
    for (partition, lost) in [(P, 1), (Q, 1), (Q, 2)] {
        let sim = sim.snapshot();
        let Opened { mut feed, report, .. } = start(&sim, options());
        assert_eq!((report.corrupt.len(), report.copied), (0, 2), "the last group is in the next segment now");
        damage(&sim, &early(&found, partition, lost), IN_HEADER);
        let items = take_until_it_stops(&mut feed, 1);
        assert_eq!(offsets(&items, partition), (0..lost).collect::<Vec<_>>());
        assert!(corrupt(&items).is_empty());
    }
}

#[test]
fn more_damage_than_recovery_has_seen_stops_all_where_the_footer_is_lost_too() {
    let sim = logged();
    let found = frames(&sim);
    for is_known in [false, true] {
        let sim = sim.snapshot();
        if is_known {
            damage(&sim, &early(&found, P, 2), IN_HEADER);
        }
        let Opened { mut feed, report, .. } = start(&sim, options());
        assert_eq!(report.corrupt.len(), usize::from(is_known));
        damage(&sim, &early(&found, Q, 2), IN_HEADER);
        damage(&sim, &footer(&found, 1), IN_HEADER);
        let items = take_until_it_stops(&mut feed, 1);
        let of_p = if is_known { vec![0, 1] } else { vec![0, 1, 2] };
        assert_eq!((offsets(&items, P), offsets(&items, Q)), (of_p, vec![0, 1]));
    }
}

#[test]
fn a_damaged_block_that_recovery_has_named_is_told_although_the_footer_is_lost_later() {
    let sim = logged();
    let found = frames(&sim);
    damage(&sim, &early(&found, P, 2), IN_HEADER);
    let Opened { log, mut feed, report, .. } = start(&sim, options());
    assert_eq!(report.corrupt.len(), 1);
    damage(&sim, &footer(&found, 1), IN_HEADER);
    let items = take(&mut feed);
    assert_eq!((offsets(&items, P), offsets(&items, Q)), (vec![0, 1], all_from(0)));
    assert_eq!(corrupt(&items), [(P, 2)]);
    mend(&log, &items);
    let items = take(&mut feed);
    assert_eq!((offsets(&items, P), offsets(&items, Q)), (all_from(2), vec![]));
    log.close().unwrap();
}

#[test]
fn damage_beside_a_range_does_not_keep_it_from_being_read_again() {
    let sim = logged();
    let found = frames(&sim);
    let Opened { log, .. } = start(&sim, options());
    for partition in [P, Q] {
        // The neighbours lie in the same segment.
        early(&found, partition, 1);
        early(&found, partition, 3);
        damage(&sim, &early(&found, partition, 2), IN_PAYLOAD);
    }
    for partition in [P, Q] {
        let read = |first, next| log.read_blocks(partition, first, next).unwrap();
        assert_eq!(read(0, 2).iter().map(offset).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(read(3, BLOCKS).iter().map(offset).collect::<Vec<_>>(), all_from(3));
    }
    assert!(log.repairs().open().is_empty(), "nobody has missed anything");
    match log.read_blocks(P, 1, 4) {
        Err(WalError::Corrupt { range, .. }) => assert_eq!(range, Some((P, 2, 3))),
        other => panic!("{other:?}"),
    }
    let wanted: Vec<_> = log.repairs().wanted().iter().map(|open| (open.block.partition, open.block.first)).collect();
    assert_eq!(wanted, [(P, 2)]);
    log.close().unwrap();
}

/// Tenures and first offsets of the blocks of P in `[first, next)`.
fn read(log: &Log, first: i64, next: i64) -> Result<Vec<(u32, i64)>, WalError> {
    let blocks = log.read_blocks(P, first, next)?;
    Ok(blocks.iter().map(|block| (block.header.tenure, offset(block))).collect())
}

#[test]
fn ranges_without_records_are_no_holes_and_what_was_never_logged_is_one() {
    let sim = Sim::new(6);
    let Opened { log, .. } = start(&sim, options());
    let gap = Entry::Gap { partition: P, tenure: 1, first: 7, next: 9, reason: "retention".to_owned() };
    let empty = Entry::Empty { partition: P, tenure: 1, first: 4, next: 6 };
    let before = [owned(P, 1, 2), block(P, 1, 2, 3), block(P, 1, 3, 4), empty];
    let after = [block(P, 1, 6, 7), gap, block(P, 1, 9, 10), block(P, 1, 10, 15)];
    log.append_synced([before, after].concat()).unwrap();
    assert_eq!(read(&log, 2, 10).unwrap(), [(1, 2), (1, 3), (1, 6), (1, 9)]);
    assert!(read(&log, 4, 6).unwrap().is_empty());
    assert_eq!(read(&log, 12, 13).unwrap(), [(1, 10)], "the whole block that has it");
    for (first, next) in [(0, 10), (1, 3), (14, 16)] {
        let missing = read(&log, first, next);
        assert!(matches!(missing, Err(WalError::NotKept { .. })), "[{first}, {next}): {missing:?}");
    }
    log.close().unwrap();
}

#[test]
fn a_damaged_padding_makes_no_hole_of_a_range_without_records() {
    let sim = Sim::new(6);
    let Opened { log, .. } = start(&sim, options());
    let empty = Entry::Empty { partition: P, tenure: 1, first: 1, next: 3 };
    log.append_synced(vec![owned(P, 1, 0), block(P, 1, 0, 1), empty]).unwrap();
    log.append_synced(vec![block(P, 1, 3, 4)]).unwrap();
    let found = *frames(&sim).iter().find(|(_, header)| header.kind == Kind::Empty).unwrap();
    assert!(found.1.pad_len > 0);
    damage(&sim, &found, FRAME_HEADER as u64 + u64::from(found.1.payload_len));
    assert_eq!(read(&log, 0, 4).unwrap(), [(1, 0), (1, 3)]);
    log.close().unwrap();
}

#[test]
fn where_offsets_were_logged_twice_the_later_blocks_count() {
    let sim = Sim::new(7);
    let Opened { log, .. } = start(&sim, options());
    let first_life = vec![owned(P, 1, 0), block(P, 1, 0, 1), block(P, 1, 1, 2), block(P, 1, 2, 6)];
    log.append_synced(first_life).unwrap();
    assert_eq!(read(&log, 0, 6).unwrap(), [(1, 0), (1, 1), (1, 2)]);
    log.append_synced(vec![owned(P, 2, 2), block(P, 2, 2, 3)]).unwrap();
    assert_eq!(read(&log, 0, 3).unwrap(), [(1, 0), (1, 1), (2, 2)]);
    let missing = read(&log, 0, 6);
    assert!(matches!(missing, Err(WalError::NotKept { .. })), "the rest has not come again: {missing:?}");
    log.append_synced(vec![block(P, 2, 3, 6)]).unwrap();
    assert_eq!(read(&log, 0, 6).unwrap(), [(1, 0), (1, 1), (2, 2), (2, 3)]);
    log.close().unwrap();
}

#[test]
fn the_bytes_in_memory_are_those_of_the_blocks_that_nobody_took_yet() {
    let sim = Sim::new(8);
    let Opened { log, mut feed, .. } = start(&sim, options());
    log.append_synced(vec![owned(P, 1, 0)]).unwrap();
    log.append_synced((0..3).map(|first| block(P, 1, first, first + 1)).collect()).unwrap();
    let mut left: usize = (0..3).map(|first| block_of(P, 1, first, first + 1).payload.len()).sum();
    for first in 0..3 {
        assert_eq!(log.status().feed_bytes, left);
        match feed.next(LONG).unwrap() {
            Some(FeedItem::Block { block, .. }) => {
                assert_eq!(offset(&block), first);
                left -= block.payload.len();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((log.status().feed_bytes, left), (0, 0));
    log.close().unwrap();
}
