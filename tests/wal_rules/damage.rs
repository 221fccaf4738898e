//! What zeros, old bytes and a rewritten frame are taken for.

use crate::entries::{block, plain};
use crate::world::{DIR, P, delivered, owned, path, spares, start};
use forebay::io::sim::Sim;
use forebay::record::batch::payload_crc;
use forebay::wal::format::frame::{FRAME_HEADER, FrameHeader, Kind};
use forebay::wal::inspect::inspect;
use forebay::wal::{Entry, ErrorClass};
use std::path::Path;

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
        let logged = plain(P, 1, 0, 600).payload;
        let payload = bytes.windows(600).position(|bytes| bytes == logged).unwrap();
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
