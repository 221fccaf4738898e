//! What counts as a frame, and what damage takes with it.

use crate::asked::Asked;
use crate::image::{Image, WAL_ID, block, flip_header, log_of, look, numbered, owned, path};
use crc32fast::Hasher;
use forebay::io::Storage;
use forebay::wal::State;
use forebay::wal::format::frame::{FRAME_HEADER, FrameHeader, Kind};
use forebay::wal::format::{ALIGN, PAGE};
use forebay::wal::scan::{BadPart, Damage, Piece, Scanner};
use std::sync::Arc;

fn next_damage(scanner: &mut Scanner) -> Damage {
    match scanner.next_piece() {
        Some(Piece::Damage(damage)) => damage,
        other => panic!("no damage: {other:?}"),
    }
}

fn next_frame(scanner: &mut Scanner) -> FrameHeader {
    match scanner.next_piece() {
        Some(Piece::Frame(header, _)) => header,
        other => panic!("no frame: {other:?}"),
    }
}

#[test]
fn a_frame_counts_only_in_its_order() {
    // States and footers repeat the LSN before them.
    for (kind, lsn, counts) in [
        (Kind::Empty, 5, true),
        (Kind::Empty, 4, false),
        (Kind::Empty, 6, false),
        (Kind::Footer, 4, true),
        (Kind::Footer, 3, false),
        (Kind::Footer, 5, false),
    ] {
        let mut image = Image::new(1, 5, State::new(WAL_ID));
        image.push(FrameHeader { lsn, ..FrameHeader::new(kind) }, b"payload", ALIGN);
        let is_frame = matches!(image.scan().next_piece(), Some(Piece::Frame(..)));
        assert_eq!(is_frame, counts, "{kind:?} with LSN {lsn}");
    }
}

#[test]
fn a_frame_that_goes_beyond_the_end_does_not_count() {
    let mut image = Image::first();
    image.push(numbered(1), &[1; 100], PAGE);
    let limit = image.end() - ALIGN;
    let file = Arc::new(Asked::new(image.bytes.clone()));
    let mut scanner = Scanner::new(file, image.header.salt, image.start, 1, limit);
    let damage = next_damage(&mut scanner);
    assert_eq!((damage.position, damage.end, damage.part), (image.start, limit, BadPart::Header));
    assert!(damage.header.is_none() && damage.is_last, "{damage:?}");
    assert!(scanner.next_piece().is_none());
}

#[test]
fn a_frame_whose_pad_the_file_cuts_off_is_damaged() {
    let mut image = Image::first();
    image.push(numbered(1), &[1; 100], PAGE);
    let cut = image.bytes[..image.bytes.len() - ALIGN as usize].to_vec();
    let damage = next_damage(&mut image.scanner(Arc::new(Asked::new(cut))));
    assert_eq!((damage.part, damage.reason.as_str()), (BadPart::Payload, "the file ends inside the frame"));
}

#[test]
fn a_damaged_payload_takes_nothing_but_its_own_frame() {
    let mut image = Image::new(1, 5, State::new(WAL_ID));
    let first = image.push(numbered(5), &[1; 100], ALIGN);
    let footer = image.push(FrameHeader { kind: Kind::Footer, ..numbered(5) }, &[1; 100], ALIGN);
    let second = image.push(numbered(6), &[1; 100], ALIGN);
    for frame in [first, footer] {
        image.bytes[frame as usize + FRAME_HEADER] ^= 1;
    }
    let mut scanner = image.scan();
    let damage = next_damage(&mut scanner);
    assert_eq!((damage.position, damage.end, damage.lsn, damage.end_lsn), (first, footer, 5, 6));
    let damage = next_damage(&mut scanner);
    assert_eq!((damage.position, damage.end, damage.lsn, damage.end_lsn), (footer, second, 6, 6));
    assert_eq!(next_frame(&mut scanner).lsn, 6);
}

#[test]
fn behind_a_damaged_header_the_scan_goes_on_at_a_frame_that_is_not_older() {
    let mut image = Image::new(1, 5, State::new(WAL_ID));
    let damaged = image.push(numbered(5), b"", ALIGN);
    image.push(numbered(2), b"", ALIGN);
    let next = image.push(numbered(6), b"", ALIGN);
    image.bytes[damaged as usize + 20] ^= 1;
    let mut scanner = image.scan();
    let damage = next_damage(&mut scanner);
    assert_eq!((damage.position, damage.end, damage.lsn, damage.end_lsn), (damaged, next, 5, 6));
    assert!(!damage.is_last);
    assert_eq!(next_frame(&mut scanner).lsn, 6);
}

#[test]
fn the_next_frame_is_found_however_far_away_it_is() {
    for distance in [8, 65_536, 65_544, 200_000] {
        let mut image = Image::new(1, 5, State::new(WAL_ID));
        image.bytes.resize(image.bytes.len() + distance, 0);
        // Of a header alone, at the very end.
        let position = image.push(numbered(6), b"", ALIGN);
        let mut scanner = image.scan();
        assert_eq!(next_damage(&mut scanner).end, position, "{distance}");
        assert_eq!(next_frame(&mut scanner).lsn, 6, "{distance}");
        assert!(scanner.next_piece().is_none());
    }
}

#[test]
fn a_frame_begins_on_a_multiple_of_eight_or_is_none() {
    let mut image = Image::new(1, 5, State::new(WAL_ID));
    let limit = image.bytes.len() + 8 + 73 * 8;
    image.bytes.resize(image.bytes.len() + 8 + 161, 0);
    image.push(numbered(6), b"", 1);
    image.bytes.resize(limit, 0);
    let damage = next_damage(&mut image.scan());
    assert!(damage.is_last && damage.end == limit as u64, "{damage:?}");
}

#[test]
fn zeros_that_cannot_be_read_are_damage() {
    let mut image = Image::first();
    let frame = image.push(FrameHeader { kind: Kind::Block, ..numbered(1) }, &[0; 8192], PAGE);
    let sim = log_of(&[&image]);
    sim.fail_reads(&path(1), frame + PAGE..frame + 2 * PAGE).unwrap();
    let damage = next_damage(&mut image.scanner(sim.open(&path(1), false).unwrap()));
    assert_eq!((damage.part, damage.reason.as_str()), (BadPart::Payload, "can't be read"));
    assert!(damage.unreadable && damage.header.is_some_and(|header| header.kind == Kind::Block));
}

#[test]
fn a_damaged_header_is_unreadable_only_if_it_is_itself() {
    let mut image = Image::first();
    let frames = [1, 2, 3].map(|lsn| image.push(numbered(lsn), &[1; 100], PAGE));
    let sim = log_of(&[&image]);
    sim.fail_reads(&path(1), frames[0]..frames[1]).unwrap();
    let damage = next_damage(&mut image.scanner(sim.open(&path(1), false).unwrap()));
    assert_eq!((damage.position, damage.end, damage.unreadable), (frames[0], frames[1], true));

    let sim = log_of(&[&image]);
    flip_header(&sim, 1, frames[0]);
    sim.fail_reads(&path(1), frames[1]..frames[2]).unwrap();
    let damage = next_damage(&mut image.scanner(sim.open(&path(1), false).unwrap()));
    assert_eq!((damage.position, damage.end, damage.unreadable), (frames[0], frames[2], false));
}

#[test]
fn the_digest_of_the_headers_is_known_before_and_behind_each_frame() {
    let mut image = Image::new(1, 1, State::new(WAL_ID));
    image.digest = Hasher::new();
    let mut expected = vec![0];
    for lsn in [1, 2, 3] {
        image.push(numbered(lsn), b"payload", ALIGN);
        expected.push(image.digest.clone().finalize());
    }
    let last = image.bytes.len() - 104;
    image.bytes[last + 20] ^= 1;
    let mut scanner = image.scan().with_digest(Some(Hasher::new()));
    for pair in expected.windows(2).take(2) {
        next_frame(&mut scanner);
        assert_eq!((scanner.digest_before(), scanner.digest()), (Some(pair[0]), Some(pair[1])));
    }
    next_damage(&mut scanner);
    assert_eq!((scanner.digest_before(), scanner.digest()), (Some(expected[2]), None));
}

#[test]
fn where_the_log_can_be_cut_the_digest_of_what_is_before_is_known() {
    let mut image = Image::first();
    image.entry(&owned());
    let (cut, digest) = (image.end(), image.digest.clone().finalize());
    image.synced = 1;
    image.entry(&block(0));
    image.entry(&block(1));
    let survey = look(&log_of(&[&image]));
    let found = survey.segments[0].cut.as_ref().unwrap();
    assert_eq!((found.position, found.lsn, found.digest), (cut, 2, Some(digest)));
}
