//! Footers: how one is found, and what is taken by it.

use crate::asked::Asked;
use crate::image::{Image, LONG, WAL_ID, flip_payload, log_of, numbered, opened, sealed};
use forebay::io::File;
use forebay::wal::State;
use forebay::wal::format::footer::{self, IndexEntry};
use forebay::wal::format::frame::{FrameHeader, Kind};
use forebay::wal::format::header::Predecessor;
use forebay::wal::format::{ALIGN, FRAMES_START, PAGE};
use forebay::wal::scan::index::{self, Index};
use forebay::wal::scan::quick;
use std::sync::{Arc, mpsc};

/// Searched for within a time that no machine needs.
fn find(file: Arc<dyn File>, image: &Image, start: u64, end: u64) -> Option<Index> {
    let (salt, (tell, told)) = (image.header.salt, mpsc::channel());
    std::thread::spawn(move || drop(tell.send(index::find(&file, salt, start, end))));
    told.recv_timeout(LONG).expect("the search ends")
}

#[test]
fn a_footer_is_found_however_long_it_is_and_with_few_reads() {
    const START: u64 = 8200;
    const ENTRY: IndexEntry = IndexEntry {
        lsn: 1,
        position: 8192,
        length: 104,
        digest: 0,
        topic: 1,
        partition: 0,
        first: 0,
        next: 1,
        tenure: 1,
        count: 1,
    };
    // With 1169 of them the frame is a little longer than what is looked at first: that begins inside of its header.
    for entries in [0, 1, 1169, 3000] {
        let mut image = Image::blank(1, 1, State::new(WAL_ID));
        image.bytes.resize(START as usize + 40, 0);
        image.index = vec![ENTRY; entries];
        let position = image.footer(ALIGN);
        let (end, asked) = (image.end(), Arc::new(Asked::new(image.bytes.clone())));
        let found = find(asked.clone(), &image, START, end).expect("a footer");
        assert_eq!((found.position, found.blocks.len()), (position, entries));
        let reads = asked.reads();
        assert!(reads.len() < 10, "{entries}: {} reads", reads.len());
        assert!(find(asked.clone(), &image, position + ALIGN, end).is_none(), "looks no further back than it is told");
        assert!(find(asked.clone(), &image, START, end - ALIGN).is_none(), "it ends elsewhere");
        assert!(find(asked, &image, START, end + ALIGN).is_none(), "the file ends before");
    }
}

#[test]
fn only_a_footer_that_ends_the_segment_is_one() {
    let mut payload = Vec::new();
    footer::encode(&[], &mut payload).unwrap();
    let mut image = Image::blank(1, 1, State::new(WAL_ID));
    image.push(FrameHeader { kind: Kind::Block, ..numbered(1) }, &payload, PAGE);
    let search = |image: &Image| find(Arc::new(Asked::new(image.bytes.clone())), image, FRAMES_START, image.end());
    assert!(search(&image).is_none(), "a block whose payload reads as a footer's");
    image.footer(PAGE);
    assert!(search(&image).is_some());
    image.push(numbered(2), b"", PAGE);
    assert!(search(&image).is_none(), "a footer in the middle");
}

#[test]
fn a_segment_is_taken_by_its_footer_if_all_of_it_fits() {
    let (image, _) = sealed();
    let sim = log_of(&[&image]);
    let scan = quick::scan(&opened(&sim, 1), &image.ended()).expect("it fits, up to the last byte of the file");
    assert_eq!((scan.frames, scan.end, scan.next_lsn, scan.runs.blocks()), (3, image.end(), 4, 2));
    assert!(scan.sealed && !scan.verified);
    let beyond = Predecessor { end_position: image.end() + PAGE, ..image.ended() };
    assert!(quick::scan(&opened(&sim, 1), &beyond).is_none());
    for state in [FRAMES_START, image.twin()] {
        let sim = log_of(&[&image]);
        flip_payload(&sim, 1, state);
        assert!(quick::scan(&opened(&sim, 1), &image.ended()).is_none(), "the copy of the state at {state}");
    }

    let mut image = Image::new(1, 5, State::new(WAL_ID));
    image.footer(PAGE);
    let segment = opened(&log_of(&[&image]), 1);
    let scan = quick::scan(&segment, &image.ended()).expect("a segment of nothing but its state");
    assert_eq!((scan.frames, scan.next_lsn), (0, 5));
    let backwards = Predecessor { end_lsn: 4, ..image.ended() };
    assert!(quick::scan(&segment, &backwards).is_none(), "it ends before it begins");
}
