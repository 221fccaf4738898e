//! What a segment, its frames and its successor say of each other.

use crate::image::{
    Image, P, assert_sound, block, empty, flip, flip_header, flip_payload, last_after, log_of, look, opened, owned,
    sealed, told,
};
use forebay::wal::Entry;
use forebay::wal::format::{FRAMES_START, PAGE};
use forebay::wal::recovery::table::Verdict;
use forebay::wal::scan::segment::{self, Bounds, DIFFERS, Fold};
use forebay::wal::scan::survey::Survey;

#[test]
fn damage_of_a_pad_names_the_block_before_it_and_loses_nothing() {
    let mut image = Image::first();
    let frames = [image.entry(&owned()), image.entry(&block(0))];
    image.synced = 2;
    image.entry(&Entry::Idle);
    let sim = log_of(&[&image]);
    for frame in &frames {
        flip(&sim, 1, frame + PAGE - 1);
    }
    let survey = look(&sim);
    assert_eq!(told(&survey), frames.map(|frame| (Verdict::Report, 1, frame)));
    let ranges: Vec<_> = survey.findings.iter().map(|finding| finding.range).collect();
    assert_eq!(ranges, [None, Some((P, 0, 1))]);
    assert_eq!(survey.state, Some(image.state));
}

#[test]
fn without_a_state_of_the_last_segment_nothing_is_folded() {
    let (image, _) = sealed();
    let last = last_after(&image);
    let sim = log_of(&[&image, &last]);
    let copies = [FRAMES_START, last.twin()];
    for copy in copies {
        flip_payload(&sim, 2, copy);
    }
    let survey = look(&sim);
    assert_eq!(told(&survey), copies.map(|copy| (Verdict::Refuse, 2, copy)));
    assert!(survey.broken);
    assert_eq!(survey.state, Some(image.state));
}

/// The segments of which it is said that their state differs from the frames before it.
fn differing(survey: &Survey) -> Vec<(Verdict, u64, u64)> {
    let of = told(survey).into_iter().zip(&survey.findings);
    of.filter(|(_, finding)| finding.reason == DIFFERS).map(|(told, _)| told).collect()
}

#[test]
fn a_state_is_compared_with_the_frames_before_it() {
    let (image, places) = sealed();
    let (right, wrong) = (image.successor(), image.altered_successor());
    assert_sound(&look(&log_of(&[&image, &right])));
    let differs = (Verdict::Report, 2, FRAMES_START);
    assert_eq!(told(&look(&log_of(&[&image, &wrong]))), [differs]);
    // A lost footer loses nothing that is folded.
    let sim = log_of(&[&image, &wrong]);
    flip_payload(&sim, 1, places.footer);
    assert_eq!(told(&look(&sim)), [(Verdict::Report, 1, places.footer), differs]);

    // With a segment whose state is lost, they are scanned in another way.
    let second = last_after(&image);
    for (third, expected) in
        [(second.successor(), vec![]), (second.altered_successor(), vec![(Verdict::Report, 3, FRAMES_START)])]
    {
        let sim = log_of(&[&image, &second, &third]);
        for copy in [FRAMES_START, image.twin()] {
            flip_payload(&sim, 1, copy);
        }
        assert_eq!(differing(&look(&sim)), expected);
    }
}

#[test]
fn a_file_that_ends_below_what_was_built_is_refused() {
    let mut image = Image::first();
    image.entry(&owned());
    image.header.built_end = image.end() + PAGE;
    let survey = look(&log_of(&[&image]));
    assert_eq!(told(&survey), [(Verdict::Refuse, 1, image.end())]);
}

#[test]
fn a_sealed_segment_that_lacks_its_last_frame_is_refused() {
    let (image, _) = sealed();
    let mut last = image.follow(image.lsn + 1, image.state.clone());
    // As after damage, when no digest is known.
    last.header.predecessor.digest = 0;
    assert_sound(&look(&log_of(&[&image, &last])));
    last.header.predecessor.end_lsn += 1;
    assert_eq!(told(&look(&log_of(&[&image, &last]))), [(Verdict::Refuse, 1, image.end())]);
}

#[test]
fn what_follows_a_lost_control_frame_is_left_to_the_next_state() {
    let mut image = Image::first();
    let lost = image.entry(&owned());
    image.entry(&empty(0, 5));
    image.footer(PAGE);
    let last = image.successor();
    let sim = log_of(&[&image, &last]);
    flip_payload(&sim, 1, lost);
    let survey = look(&sim);
    assert_eq!(told(&survey), [(Verdict::Report, 1, lost)]);
    assert!(!survey.broken);
    assert_eq!(survey.state, Some(image.state));
}

#[test]
fn a_lost_control_frame_of_the_last_segment_is_refused() {
    let mut image = Image::first();
    let lost = image.entry(&owned());
    image.synced = 1;
    image.entry(&Entry::Idle);
    let sim = log_of(&[&image]);
    flip_payload(&sim, 1, lost);
    assert_eq!(told(&look(&sim)), [(Verdict::Refuse, 1, lost)]);
}

#[test]
fn unwritten_bytes_are_the_end_only_above_what_is_known_to_be_synced() {
    let mut image = Image::first();
    image.entry(&owned());
    image.entry(&block(0));
    let end = image.end();
    image.bytes.resize(image.bytes.len() + PAGE as usize, 0);
    let sim = log_of(&[&image]);
    let segment = opened(&sim, 1);
    for (witness, expected) in [(2, vec![]), (3, vec![(Verdict::Refuse, end)])] {
        let never = || false;
        let bounds = Bounds { sealed: None, witness, later_state: &never };
        let (mut fold, mut findings, mut corrupt) = (Fold::default(), Vec::new(), Vec::new());
        segment::scan(&segment, &bounds, &mut fold, &mut findings, &mut corrupt);
        let found: Vec<_> = findings.iter().map(|finding| (finding.verdict, finding.position)).collect();
        assert_eq!(found, expected, "synced through {witness}");
    }
}

#[test]
fn both_states_of_a_segment_may_be_lost_if_no_frame_is() {
    // Without a footer nothing says which frames there were.
    let mut full = Image::first();
    full.entry(&owned());
    full.entry(&block(0));
    for image in [full, Image::first()] {
        let last = image.successor();
        let sim = log_of(&[&image, &last]);
        for copy in [FRAMES_START, image.twin()] {
            flip_header(&sim, 1, copy);
        }
        let survey = look(&sim);
        assert_eq!(told(&survey), [(Verdict::Report, 1, FRAMES_START)]);
        assert!(!survey.broken);
        assert_eq!(survey.state, Some(last.state));
    }
}

#[test]
fn blocks_lost_together_with_both_states_are_named_by_the_footer() {
    let (image, places) = sealed();
    let last = last_after(&image);
    let sim = log_of(&[&image, &last]);
    for frame in [FRAMES_START, image.twin(), places.owned, places.blocks[0]] {
        flip_header(&sim, 1, frame);
    }
    let survey = look(&sim);
    let stops = (Verdict::StopPartition, 1, places.blocks[0]);
    assert_eq!(told(&survey), [(Verdict::Report, 1, FRAMES_START), stops]);
    let corrupt: Vec<_> = survey.corrupt.iter().map(|block| (block.first, block.next, block.lsn)).collect();
    assert_eq!(corrupt, [(0, 1, 2)]);
}

#[test]
fn a_damaged_block_is_named_and_still_counts() {
    let (image, places) = sealed();
    let sim = log_of(&[&image, &last_after(&image)]);
    flip_payload(&sim, 1, places.blocks[0]);
    let survey = look(&sim);
    assert_eq!(told(&survey), [(Verdict::StopPartition, 1, places.blocks[0])]);
    assert_eq!(survey.corrupt.len(), 1);
    let scan = &survey.segments[0];
    assert_eq!((scan.frames, scan.runs.blocks(), scan.next_lsn), (3, 2, 4));
}

#[test]
fn a_damaged_frame_is_torn_only_from_where_the_segment_was_built_on() {
    for is_built in [true, false] {
        let mut image = Image::first();
        image.entry(&owned());
        image.header.built_end = image.end();
        let damaged = image.entry(&block(0));
        if is_built {
            image.header.built_end = image.end();
        }
        let sim = log_of(&[&image]);
        flip_payload(&sim, 1, damaged);
        let survey = look(&sim);
        let verdict = if is_built { Verdict::StopPartition } else { Verdict::Torn };
        assert_eq!(told(&survey), [(verdict, 1, damaged)]);
        assert_eq!(survey.corrupt.len(), usize::from(is_built));
        assert_eq!(survey.segments[0].torn_at, (!is_built).then_some(damaged));
    }
}
