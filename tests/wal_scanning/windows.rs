//! The window through which files are read.

use crate::asked::Asked;
use crate::image::{DIR, path};
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::wal::format::PAGE;
use forebay::wal::scan::window::Window;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32 / 4).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn what_was_read_is_not_read_again() {
    const LEN: usize = 8192;
    let bytes = pattern(LEN);
    // The file may be shorter than what may be looked at.
    for (limit, expected) in [(8192, vec![(0, LEN)]), (10_000, vec![(0, 10_000), (8192, 10_000 - LEN)])] {
        let asked = Arc::new(Asked::new(bytes.clone()));
        let mut window = Window::new(asked.clone(), limit);
        for (position, len) in
            [(0, 96), (0, 96), (8, 96), (4000, 200), (8096, 96), (limit, 8), (limit + 8, 96), (0, 8), (8000, 8)]
        {
            let from = LEN.min(position as usize);
            assert_eq!(window.bytes(position, len), &bytes[from..LEN.min(from + len)], "{position}");
        }
        assert_eq!(asked.reads(), expected, "limit {limit}");
    }
}

#[test]
fn a_window_shows_what_the_file_has_wherever_it_is_moved() {
    const MIB: usize = 1 << 20;
    let bytes = pattern(3 * MIB);
    let limit = 3 * MIB - 4096;
    // A read may give less than it was asked for.
    for most in [usize::MAX, 1000] {
        let asked = Arc::new(Asked { most, ..Asked::new(bytes.clone()) });
        let mut window = Window::new(asked.clone(), limit as u64);
        for position in [8, MIB - 50, MIB + 2000, 5 * MIB / 2, limit - 100, 100, 0] {
            assert!(window.bytes(position as u64, 100) == &bytes[position..position + 100], "{most}, {position}");
        }
        let furthest = asked.reads().into_iter().map(|(position, len)| position as usize + len).max();
        assert_eq!(furthest, Some(limit), "looks no further than it is told");
    }
}

#[test]
fn what_cannot_be_read_is_shown_as_zeros_and_nothing_else_is() {
    let mut bytes = pattern(4 * PAGE as usize);
    let sim = Sim::new(1);
    sim.create_dir_all(Path::new(DIR)).unwrap();
    let file = sim.create_new(&path(1)).unwrap();
    file.write_at(0, &[IoSlice::new(&bytes)]).unwrap();
    sim.fail_reads(&path(1), PAGE..2 * PAGE).unwrap();
    bytes[PAGE as usize..2 * PAGE as usize].fill(0);
    let mut window = Window::new(file, 4 * PAGE);
    assert!(window.bytes(100, 4 * PAGE as usize) == &bytes[100..]);
    for (range, expected) in [
        (100..PAGE, false),
        (100..PAGE + 1, true),
        (PAGE + 8..PAGE + 16, true),
        (2 * PAGE - 1..4 * PAGE, true),
        (2 * PAGE..4 * PAGE, false),
    ] {
        assert_eq!(window.is_unreadable(&range), expected, "{range:?}");
    }
}
