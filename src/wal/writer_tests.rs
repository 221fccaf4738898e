use super::*;
use crate::io::fault::{Faults, Operation};
use crate::io::sim::Sim;
use crate::wal::format::frame::FRAME_HEADER;
use crate::wal::options::{Options, SPARES};
use crate::wal::recovery::{Recovered, recover};
use crate::wal::testing::{DIR, P, block, bytes_of_all_files, delivered, owned, path};
use std::panic::{AssertUnwindSafe, catch_unwind};

const SEGMENT: u64 = 64 << 10;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

struct World {
    sim: Sim,
    faults: Arc<Faults>,
    metrics: Arc<Metrics>,
    writer: Writer,
}

fn options(seed: u64) -> Options {
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    (options.segment_bytes, options.seed) = (SEGMENT, Some(seed));
    options
}

fn world(spares: usize) -> World {
    world_with(spares, options(1))
}

/// A new log with so many spares, in which the partition is owned. Nobody makes more of them.
fn world_with(spares: usize, options: Options) -> World {
    let sim = Sim::new(1);
    let faults = Arc::new(Faults::new(Arc::new(sim.clone())));
    let storage = Arc::clone(&faults) as Arc<dyn Storage>;
    let Recovered { mut writer, .. } = recover(&storage, &options).unwrap();
    for _ in 0..spares {
        assert!(writer.rack().work(&mut || {}).unwrap());
    }
    assert_eq!(writer.rack().ready(), spares);
    assert_eq!(writer.append(&[owned()]).unwrap(), 1);
    World { sim, faults, metrics: options.metrics, writer }
}

fn small_blocks(count: i64) -> Vec<Entry> {
    (0..count).map(|first| block(first, 8)).collect()
}

/// Payloads with which a block just takes so many pages, or one byte more, up to a whole segment.
fn sizes() -> impl Iterator<Item = usize> {
    let frame = block(0, 0).bytes();
    (1..=SEGMENT / PAGE).flat_map(move |pages| [0, 1].map(|more| (pages * PAGE - frame + more) as usize))
}

#[test]
fn a_block_has_room_exactly_if_the_segment_takes_it_together_with_its_footer() {
    // With so many blocks the footer needs one more page for the next.
    for count in [0, 71] {
        let mut taken = 0;
        for bytes in sizes() {
            let World { mut writer, .. } = world(1);
            assert_eq!(writer.append(&small_blocks(count)).unwrap(), count as usize);
            let next = block(count, bytes);
            let has_room = writer.has_room(&next, 0);
            assert_eq!(writer.append(&[next]).unwrap(), 1, "{bytes} bytes after {count} blocks");
            assert_eq!(has_room, writer.segment() == 1, "{bytes} bytes after {count} blocks");
            taken += usize::from(has_room);
        }
        assert!((1..sizes().count()).contains(&taken), "{taken} of them after {count} blocks");
    }
}

#[test]
fn a_block_has_no_room_behind_others_with_which_the_segment_is_full() {
    for (bytes, fit) in [((20_000, 25_000), false), ((8000, 8000), true)] {
        let World { mut writer, .. } = world(1);
        let entries = [block(0, bytes.0), block(1, bytes.1)];
        assert!(entries.iter().all(|entry| writer.has_room(entry, 0)), "each one alone");
        assert_eq!(writer.has_room(&entries[1], entries[0].bytes()), fit, "{bytes:?}");
        assert_eq!(writer.append(&entries).unwrap(), 1 + usize::from(fit), "{bytes:?}");
    }
}

#[test]
fn without_a_spare_blocks_leave_a_quarter_of_the_segment_to_receipts() {
    let quarter = (SEGMENT / 4) as usize;
    let (mut without, with) = (world(0).writer, world(1).writer);
    for bytes in sizes() {
        let has_room = with.has_room(&block(0, bytes + quarter), 0);
        assert_eq!(without.has_room(&block(0, bytes), 0), has_room, "{bytes} bytes");
    }
    let mut next = 0;
    while without.has_room(&block(next, 3000), 0) {
        assert_eq!(without.append(&[block(next, 3000)]).unwrap(), 1);
        next += 1;
    }
    assert!(next > 0, "the rest is for blocks");
    for receipt in 0..SEGMENT / 4 / PAGE {
        assert_eq!(without.append(&[delivered(next)]).unwrap(), 1, "receipt {receipt}");
    }
}

#[test]
fn a_segment_that_is_closed_or_too_short_has_room_only_with_the_spares_that_blocks_need() {
    let (short, long) = (block(0, 100), block(0, 3 * SEGMENT as usize));
    for spares in 0..=SPARES {
        let World { mut writer, .. } = world(spares);
        let is_enough = spares >= SPARES_FOR_BLOCKS;
        assert!(writer.has_room(&short, 0), "{spares} spares");
        assert_eq!(writer.has_room(&long, 0), is_enough, "{spares} spares");
        writer.parts.active.is_closed = true;
        assert_eq!(writer.has_room(&short, 0), is_enough, "{spares} spares");
    }
}

#[test]
fn a_group_is_witnessed_by_one_idle_frame_or_by_the_next_segment() {
    let World { mut writer, .. } = world(1);
    let lsn = writer.durable_lsn();
    assert!(writer.needs_idle());
    for _ in 0..2 {
        writer.idle().unwrap();
        assert_eq!((writer.needs_idle(), writer.durable_lsn()), (false, lsn + 1));
    }
    writer.append(&[block(0, 100)]).unwrap();
    assert!(writer.needs_idle());
    assert!(writer.roll().unwrap());
    writer.idle().unwrap();
    assert_eq!((writer.needs_idle(), writer.durable_lsn()), (false, lsn + 2));
}

#[test]
fn damage_of_the_last_group_is_no_tear_after_a_clean_stop_that_found_no_spare() {
    let World { sim, mut writer, .. } = world(0);
    writer.append(&[block(0, 700)]).unwrap();
    let payload = writer.locations().next().unwrap().position as usize + FRAME_HEADER;
    let lsn = writer.durable_lsn();
    writer.close().unwrap();
    assert_eq!((writer.segment(), writer.durable_lsn(), writer.needs_idle()), (1, lsn + 1, false));
    drop(writer);
    let sim = sim.kill();
    sim.damage(&path(1), |bytes| bytes[payload] ^= 1).unwrap();
    let storage: Arc<dyn Storage> = Arc::new(sim);
    let report = recover(&storage, &options(2)).unwrap().report;
    assert_eq!((report.corrupt.len(), report.torn), (1, None));
}

#[test]
fn a_group_that_failed_goes_on_at_once_in_the_next_segment_and_one_that_found_no_space_waits() {
    let cases = [
        (Operation::Write, EIO, 1, 2),
        (Operation::Sync, EIO, 1, 2),
        (Operation::Sync, ENOSPC, 1, 2),
        (Operation::Write, ENOSPC, 0, 1),
    ];
    for (operation, errno, count, segment) in cases {
        let World { faults, metrics, mut writer, .. } = world(SPARES);
        let entries = [block(0, 100)];
        faults.fail(operation, 0, errno);
        let case = format!("{operation:?} {errno}");
        assert_eq!(writer.append(&entries).unwrap(), count, "{case}");
        assert_eq!(writer.segment(), segment, "{case}");
        assert_eq!(metrics.wal_failed_syncs.get(), count as u64, "{case}");
        assert_eq!(writer.append(&entries[count..]).unwrap(), 1 - count, "{case}");
        assert_eq!((writer.segment(), writer.state().partitions[&P].admitted), (2, 1), "{case}");
    }
}

#[test]
fn the_footer_rides_with_the_last_group_only_if_the_next_segment_can_be_built_at_once() {
    let entries = [block(0, 20_000), block(1, 40_000)];
    for spares in [0, 1] {
        let World { faults, mut writer, .. } = world(spares);
        let before = faults.count(Operation::Sync);
        let syncs = || faults.count(Operation::Sync) - before;
        assert_eq!(writer.append(&entries).unwrap(), 1);
        let kinds: Vec<Kind> = writer.group.headers().iter().map(|header| header.kind).collect();
        assert_eq!((kinds, syncs()), ([Kind::Block, Kind::Footer][..=spares].to_vec(), 1));
        assert_eq!(writer.parts.active.is_closed, spares > 0);
        if spares > 0 {
            assert_eq!(writer.append(&entries[1..]).unwrap(), 1);
            assert_eq!((writer.segment(), syncs()), (2, 3), "one of what is built, one of the group");
        } else {
            assert_eq!(writer.append(&[delivered(1)]).unwrap(), 1, "receipts still have room");
            assert_eq!((writer.segment(), syncs()), (1, 2));
        }
    }
}

#[test]
fn on_a_full_disk_the_longest_block_for_a_spare_is_logged_and_a_longer_one_uses_up_none() {
    let World { sim, mut writer, .. } = world(2);
    sim.set_capacity(Some(sim.used()));
    let end = (SEGMENT - footer::reserve(1)) / PAGE * PAGE;
    let longest = (end - writer.parts.active.frames_start - block(0, 0).bytes()) as usize;
    assert_eq!(writer.append(&[block(0, longest + 1)]).unwrap(), 0);
    assert_eq!((writer.segment(), writer.rack().ready()), (1, 2));
    assert_eq!(writer.append(&[block(0, longest)]).unwrap(), 1);
    assert_eq!((writer.segment(), writer.rack().ready()), (2, 1));
}

#[test]
fn a_long_block_for_which_a_grown_segment_found_no_space_uses_up_no_spare() {
    let World { sim, faults, mut writer, .. } = world(2);
    let long = [block(0, 3 * SEGMENT as usize)];
    // The zeros are written, the block is not.
    let before = faults.count(Operation::Write);
    assert!(writer.grow(&long[0]).unwrap());
    assert!(faults.count(Operation::Write) > before);
    faults.fail(Operation::Write, 0, ENOSPC);
    assert_eq!(writer.append(&long).unwrap(), 0);
    sim.set_capacity(Some(sim.used()));
    assert_eq!(writer.append(&long).unwrap(), 0);
    assert_eq!((writer.segment(), writer.rack().ready()), (1, 2));
    assert_eq!(writer.append(&[block(0, 100)]).unwrap(), 1, "a short one goes into the next");
    sim.set_capacity(None);
    assert_eq!(writer.append(&[block(1, 3 * SEGMENT as usize)]).unwrap(), 1);
    assert_eq!(writer.segment(), 3);
}

#[test]
fn on_a_full_disk_a_block_leaves_a_segment_that_found_no_space_before_it_had_any() {
    let World { sim, faults, mut writer, .. } = world(2);
    assert!(writer.roll().unwrap());
    let entries = [block(0, 40_000)];
    faults.fail(Operation::Write, 0, ENOSPC);
    assert_eq!(writer.append(&entries).unwrap(), 0);
    sim.set_capacity(Some(sim.used()));
    assert_eq!(writer.append(&entries).unwrap(), 1);
    assert_eq!(writer.segment(), 3);
}

#[test]
fn a_segment_grows_by_what_is_counted_and_by_enough_however_many_blocks_it_begins_with() {
    for count in [0, 71] {
        let World { sim, mut writer, .. } = world(1);
        // The last group has no witness: the next start copies it into the segment that it builds.
        assert_eq!(writer.append(&small_blocks(count)).unwrap(), count as usize);
        drop(writer);
        let sim = sim.kill();
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let Recovered { mut writer, .. } = recover(&storage, &options(2)).unwrap();
        assert_eq!(writer.parts.active.index.len(), count as usize);
        // A little more than whole pages: how long the footer is decides how many follow.
        let bytes = 25 * PAGE + 8 - block(0, 0).bytes();
        assert_eq!(writer.append(&[block(count, bytes as usize)]).unwrap(), 1, "after {count} blocks");
        assert_eq!(writer.rack().used(), bytes_of_all_files(&sim), "after {count} blocks");
    }
}

#[test]
fn a_segment_takes_as_many_blocks_as_leave_room_for_its_footer_and_not_one_less() {
    // Behind what is there, 437 of these and what is kept for their footer fill it to the last byte.
    let pages = 24;
    let World { sim, mut writer, .. } = world_with(1, Options { segment_bytes: pages * PAGE, ..options(1) });
    let blocks = small_blocks(438);
    assert_eq!(writer.append(&blocks).unwrap(), 437);
    assert_eq!(writer.group.headers().last().map(|header| header.kind), Some(Kind::Footer));
    assert_eq!(sim.files()[&path(1)].len() as u64, pages * PAGE);
    assert_eq!(writer.append(&blocks[437..]).unwrap(), 1);
    assert_eq!(writer.segment(), 2);
}

#[test]
fn a_segment_that_ends_without_another_group_gets_a_footer_if_it_just_fits() {
    let pages = 24;
    let World { sim, metrics, mut writer, .. } = world_with(1, Options { segment_bytes: pages * PAGE, ..options(1) });
    assert_eq!(writer.append(&small_blocks(437)).unwrap(), 437);
    assert_eq!(writer.group.headers().last().map(|header| header.kind), Some(Kind::Block));
    assert!(writer.roll().unwrap());
    assert_eq!(writer.group.headers().last().map(|header| header.kind), Some(Kind::Footer));
    assert_eq!((sim.files()[&path(1)].len() as u64, metrics.wal_segments.get()), (pages * PAGE, 2));
}

#[test]
fn a_segment_that_is_full_of_copied_blocks_ends_without_a_footer() {
    let World { sim, mut writer, .. } = world(1);
    assert_eq!(writer.append(&[block(0, SEGMENT as usize)]).unwrap(), 1);
    drop(writer);
    let sim = sim.kill();
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let Recovered { mut writer, .. } = recover(&storage, &options(2)).unwrap();
    let number = writer.segment();
    let len = sim.files()[&path(number)].len();
    assert_eq!((writer.has_blocks(), writer.parts.active.position), (true, len as u64));
    while !writer.roll().unwrap() {
        assert!(writer.rack().work(&mut || {}).unwrap());
    }
    assert_eq!((writer.segment(), sim.files()[&path(number)].len()), (number + 1, len));
}

#[test]
fn entries_that_jump_are_refused_before_anything_of_them_is_written() {
    let World { sim, mut writer, .. } = world(1);
    let before = (sim.operations(), writer.durable_lsn());
    let refused = catch_unwind(AssertUnwindSafe(|| writer.append(&[block(0, 10), block(2, 10)])));
    assert!(refused.is_err());
    assert_eq!((sim.operations(), writer.durable_lsn()), before);
}

#[test]
fn bytes_are_counted_with_padding_and_footers() {
    let World { metrics, mut writer, .. } = world(1);
    let begun = writer.parts.active.built_end;
    writer.append(&[block(0, 5000)]).unwrap();
    assert_eq!(metrics.wal_bytes_appended.get(), writer.parts.active.position - begun);
    assert!(writer.roll().unwrap());
    let (end, _) = writer.catalogue().end_of(1).unwrap();
    assert_eq!(metrics.wal_bytes_appended.get(), end - begun);
    writer.append(&[block(1, 9000)]).unwrap();
    let active = &writer.parts.active;
    assert_eq!(metrics.wal_bytes_appended.get(), end - begun + active.position - active.built_end);
}
