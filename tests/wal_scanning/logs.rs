//! Segment after segment: what is looked at, named, kept and retired.

use crate::image::{
    DIR, Image, P, WAL_ID, assert_sound, block, empty, flip, flip_payload, last_after, log_of, look, look_quickly,
    numbered, opened, owned, path, sealed, told,
};
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::wal::format::PAGE;
use forebay::wal::format::footer::IndexEntry;
use forebay::wal::format::frame::{FRAME_HEADER, FrameHeader};
use forebay::wal::format::header::{HEADER_BYTES, SegmentHeader};
use forebay::wal::recovery::table::Verdict;
use forebay::wal::repair::files;
use forebay::wal::scan::survey::{self, Survey};
use forebay::wal::scan::witness::witness;
use forebay::wal::{CorruptBlock, Entry, State};
use std::path::Path;

#[test]
fn a_large_log_is_looked_at_as_a_small_one_is() {
    let (first, _) = sealed();
    let mut second = last_after(&first);
    second.footer(PAGE);
    let last = second.successor();
    let sim = log_of(&[&first, &second, &last]);
    let (small, small_quick) = (look(&sim), look_quickly(&sim));
    // Space that was prepared and never written: now the log is worth several threads.
    sim.open(&path(1), true).unwrap().set_len(17 << 20).unwrap();
    let (large, large_quick) = (look(&sim), look_quickly(&sim));
    let seen = |survey: &Survey| -> Vec<_> {
        survey.segments.iter().map(|s| (s.number, s.frames, s.end, s.next_lsn, s.verified)).collect()
    };
    for (small, large) in [(&small, &large), (&small_quick, &large_quick)] {
        assert_sound(large);
        assert_eq!(seen(small), seen(large));
        assert_eq!(small.state, large.state);
    }
    let starts = |survey: &Survey| -> Vec<_> { survey.segments.iter().map(|s| s.frames_start).collect() };
    assert_eq!(starts(&small), starts(&small_quick));
    let verified: Vec<_> = large_quick.segments.iter().map(|s| s.verified).collect();
    assert_eq!(verified, [false, false, true]);
}

#[test]
fn a_corrupt_block_is_live_until_it_is_delivered_or_given_up() {
    let mut state = State::new(WAL_ID);
    let (route, through_lsn, keep_from, detail) = (0, 1, Some(2), vec![1]);
    let delivered = Entry::Delivered { route, partition: P, first: 0, next: 5, through_lsn, keep_from, detail };
    let disowned = Entry::Disowned { partition: P, tenure: 1, first: 7, next: 10 };
    for (lsn, entry) in (100..).zip([owned(), empty(0, 10), delivered, disowned]) {
        state.apply(lsn, &entry).unwrap();
    }
    let corrupt = |(first, next): (i64, i64)| {
        let header = FrameHeader { partition: P, tenure: 1, first, next, ..numbered(50) };
        CorruptBlock::new(&path(1), 1, 1, &IndexEntry::of(&header), None)
    };
    // The first of them is delivered, although it has to be kept.
    let corrupt = [(3, 5), (5, 7), (7, 10)].map(corrupt).to_vec();
    let survey = Survey { state: Some(state), corrupt, ..Survey::default() };
    let live: Vec<_> = survey.live_corrupt().iter().map(|block| (block.first, block.next)).collect();
    assert_eq!(live, [(5, 7)]);
}

#[test]
fn anything_out_of_order_has_every_segment_verified() {
    let (first, places) = sealed();
    let mut second = last_after(&first);
    second.footer(PAGE);
    let sim = log_of(&[&first, &second, &second.successor()]);
    flip_payload(&sim, 1, places.blocks[1]);
    assert!(look_quickly(&sim).corrupt.is_empty(), "not looked at");
    flip(&sim, 2, PAGE + 20);
    let survey = look_quickly(&sim);
    assert!(survey.segments.iter().all(|segment| segment.verified));
    assert_eq!(told(&survey), [(Verdict::Report, 2, PAGE), (Verdict::StopPartition, 1, places.blocks[1])]);
    assert_eq!(survey.corrupt.len(), 1);
}

#[test]
fn the_repair_file_of_a_block_that_was_not_looked_at_is_kept() {
    let (first, places) = sealed();
    let mut second = last_after(&first);
    second.footer(PAGE);
    let mut last = second.successor();
    let undamaged = last.entry(&block(3));
    let sim = log_of(&[&first, &second, &last]);
    flip_payload(&sim, 1, places.blocks[0]);
    let kept = first.mend(&sim, places.blocks[0], first.header.salt);
    let useless =
        [first.mend(&sim, places.blocks[1], first.header.salt + 9), last.mend(&sim, undamaged, last.header.salt)];
    for survey in [look_quickly(&sim), look(&sim)] {
        let names: Vec<_> = survey.repairs.iter().map(files::Kept::name).collect();
        assert_eq!((names.as_slice(), survey.useless.as_slice()), ([kept.clone()].as_slice(), useless.as_slice()));
    }
}

#[test]
fn a_repair_file_mends_its_own_block_and_nothing_else() {
    let (image, places) = sealed();
    let sim = log_of(&[&image, &last_after(&image)]);
    places.blocks.iter().for_each(|block| flip_payload(&sim, 1, *block));
    let name = image.mend(&sim, places.blocks[0], image.header.salt);
    let survey = look(&sim);
    let [mended, damaged] = places.blocks;
    assert_eq!(told(&survey), [(Verdict::Report, 1, mended), (Verdict::StopPartition, 1, damaged)]);
    assert!(survey.findings[0].reason.ends_with(&format!("mended by {name}")));

    // Nor does it mend that the block has no place among the others.
    let mut image = Image::first();
    image.entry(&owned());
    let jump = image.unfolded(&block(7));
    let sim = log_of(&[&image, &image.successor()]);
    flip_payload(&sim, 1, jump);
    image.mend(&sim, jump, image.header.salt);
    let survey = look(&sim);
    assert_eq!(told(&survey)[..2], [(Verdict::Report, 1, jump), (Verdict::Refuse, 1, jump)]);
    assert!(survey.refusal().is_some());
}

#[test]
fn a_segment_that_does_not_continue_the_one_before_it_is_refused() {
    let (image, _) = sealed();
    let refused = |last: &Image| {
        let survey = look(&log_of(&[&image, last]));
        let refused = survey.findings.iter().filter(|f| f.verdict == Verdict::Refuse && f.path == path(2));
        refused.map(|f| f.reason.clone()).collect::<Vec<_>>()
    };
    let (mut of_another, mut in_another) = (image.successor(), image.successor());
    of_another.header.predecessor.salt ^= 1;
    in_another.header.wal_id ^= 1;
    for last in [of_another, in_another] {
        assert_eq!(refused(&last), ["does not continue segment 1"]);
    }
    let [early, next, later] = [3, 4, 14].map(|lsn| refused(&image.follow(lsn, image.state.clone())));
    assert_eq!(early, ["begins at LSN 3, before the end of its predecessor"]);
    assert!(next.is_empty() && later.is_empty(), "a header may declare a jump: {later:?}");
}

#[test]
fn what_is_wrong_with_the_copies_of_a_header_is_told() {
    let image = Image::first();
    let found = |harm: &dyn Fn(&Sim)| {
        let (sim, mut findings) = (log_of(&[&image]), Vec::new());
        harm(&sim);
        let is_open = survey::open(&sim, Path::new(DIR), 1, &mut findings).unwrap().is_some();
        let verdicts: Vec<_> = findings.iter().map(|f| (f.verdict, f.position)).collect();
        (is_open, verdicts, findings.last().map(|f| f.reason.clone()).unwrap_or_default())
    };
    let fail = |sim: &Sim, from: u64| sim.fail_reads(&path(1), from..2 * PAGE).unwrap();
    let unreadable = [0, PAGE].map(|copy| (Verdict::Unreadable, copy)).to_vec();
    let (is_open, verdicts, _) = found(&|sim: &Sim| fail(sim, 0));
    assert_eq!((is_open, verdicts), (false, unreadable));
    let wrong = [0, PAGE].map(|copy| (Verdict::Refuse, copy)).to_vec();
    let (is_open, verdicts, _) = found(&|sim: &Sim| [0, PAGE].iter().for_each(|copy| flip(sim, 1, copy + 20)));
    assert_eq!((is_open, verdicts), (false, wrong));
    let (is_open, verdicts, _) = found(&|sim: &Sim| {
        flip(sim, 1, 20);
        fail(sim, PAGE);
    });
    assert_eq!((is_open, verdicts), (false, vec![(Verdict::Refuse, 0), (Verdict::Unreadable, PAGE)]));

    let other = SegmentHeader { retired_below: 1, ..image.header }.encode();
    let copy = |bytes: &mut Vec<u8>| bytes[HEADER_BYTES..2 * HEADER_BYTES].copy_from_slice(&other);
    let (is_open, verdicts, reason) = found(&|sim: &Sim| sim.damage(&path(1), copy).unwrap());
    assert_eq!((is_open, verdicts), (true, vec![(Verdict::Report, PAGE)]));
    assert_eq!(reason, "the two header copies differ");
}

/// What the last segment says of retired segments, where `RetiredBelow` follows a damaged frame, or is damaged itself;
/// what is damaged may be known to be synced, or lie where all was synced.
fn retired_below(is_built: bool, is_synced: bool, in_pad: bool) -> u64 {
    let mut image = Image::first();
    image.entry(&owned());
    let mut damaged = image.entry(&block(0));
    if is_built {
        image.header.built_end = image.end();
    }
    if is_synced && !in_pad {
        image.synced = 2;
    }
    let retired = image.entry(&Entry::RetiredBelow { segment: 9, lsn: 2 });
    if in_pad {
        damaged = retired;
    }
    if is_synced {
        image.synced = 3;
        image.entry(&Entry::Idle);
    }
    let sim = log_of(&[&image]);
    flip(&sim, 1, damaged + if in_pad { PAGE - 1 } else { FRAME_HEADER as u64 });
    witness(&opened(&sim, 1)).retired_below
}

#[test]
fn what_lies_behind_a_torn_frame_retires_nothing() {
    assert_eq!(retired_below(false, false, false), 0, "torn");
    assert_eq!(retired_below(false, true, false), 9, "damaged, but no tear");
    assert_eq!(retired_below(true, false, false), 9, "damaged where all was synced");
    assert_eq!(retired_below(false, false, true), 0, "torn itself");
    assert_eq!(retired_below(false, true, true), 9, "its pad alone is damaged");
}
