//! The two copies of the state.

use crate::asked::Asked;
use crate::image::{Image, WAL_ID, flip_header, flip_payload, log_of, numbered, path};
use crc32fast::Hasher;
use forebay::io::{File, Storage};
use forebay::record::TopicId;
use forebay::wal::format::frame::{FrameHeader, Kind};
use forebay::wal::format::{ALIGN, FRAMES_START, PAGE};
use forebay::wal::scan::states;
use forebay::wal::{Entry, State};
use std::sync::Arc;

/// A state of several pages.
fn long_state() -> State {
    let mut state = State::new(WAL_ID);
    for number in 1..=3 {
        let topic = Entry::Topic { number, name: "t".repeat(3000), id: TopicId([1; 16]) };
        state.apply(u64::from(number), &topic).unwrap();
    }
    state
}

#[test]
fn a_copy_of_the_state_that_cannot_be_read_is_told_from_one_that_is_wrong() {
    let image = Image::new(1, 4, long_state());
    let twin = image.twin();
    assert!(twin - FRAMES_START > 2 * PAGE);
    let sim = log_of(&[&image]);
    flip_payload(&sim, 1, FRAMES_START);
    sim.fail_reads(&path(1), twin + PAGE..twin + 2 * PAGE).unwrap();
    let file = sim.open(&path(1), false).unwrap();
    let states = states::read(&file, &image.header, image.end());
    assert!(states.state.is_none());
    let bad: Vec<_> = states.bad.iter().map(|bad| (bad.position, bad.unreadable)).collect();
    assert_eq!(bad, [(FRAMES_START, false), (twin, true)]);
}

#[test]
fn a_long_state_is_found_by_its_second_copy() {
    let image = Image::new(1, 4, long_state());
    let sim = log_of(&[&image]);
    flip_header(&sim, 1, FRAMES_START);
    let states = states::read(&sim.open(&path(1), false).unwrap(), &image.header, image.end());
    assert_eq!((states.end, states.bad.len()), (Some(image.start), 1));
    assert_eq!(states.digest.map(Hasher::finalize), Some(image.digest.finalize()));
    assert_eq!(states.state, Some(image.state));
}

#[test]
fn what_is_no_whole_state_is_not_taken_for_one() {
    let mut payload = Vec::new();
    long_state().encode(&mut payload).unwrap();
    for (what, kind, align, missing) in [
        ("another frame", Kind::Empty, PAGE, 0),
        ("it does not end where a page does", Kind::State, ALIGN, 0),
        ("it ends beyond the file", Kind::State, PAGE, PAGE),
    ] {
        let mut image = Image::blank(1, 4, State::new(WAL_ID));
        image.push(FrameHeader { kind, ..numbered(3) }, &payload, align);
        image.header.built_end = image.end().next_multiple_of(PAGE);
        let file: Arc<dyn File> = Arc::new(Asked::new(image.bytes.clone()));
        let states = states::read(&file, &image.header, image.end() - missing);
        assert!(states.state.is_none() && states.end.is_none(), "{what}");
    }
}
