//! Damage of a log that was cleanly closed: every flipped bit, every sector zeroed, garbled, exchanged, doubled, rolled
//! back or unreadable, segments missing, doubled, stale or foreign. All of it is reported by what `wal check` looks with,
//! and no reader hands out a wrong byte.
//!
//! Two things no look at the files can tell, and the log does not rely on either: bytes beyond a segment's declared end
//! (never read), and whether a last segment that is gone altogether was ever there (Kafka's commit tells).
//!
//! `FOREBAY_FLIPS` says how many bits (`scripts/bit-flips.sh`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod corruption_world;
mod crash_world;

use corruption_world::memory::Memory;
use corruption_world::{Log, Segment};
use crash_world::life::DIR;
use crash_world::steps::{Random, Step};
use forebay::io::Storage;
use forebay::metrics::Metrics;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const MIB: u64 = 1 << 20;

/// Large and small groups, rolled, retired and recycled segments, several starts.
fn large() -> Log {
    use Step::{Cross, Fill, Huge, Idle, Kill, Receipt, Restart, Retire, Roll, Tenure, Two};
    let steps =
        [Two, Fill, Cross, Idle, Fill, Retire, Two, Cross, Kill, Fill, Roll, Cross, Tenure, Huge, Two, Restart, Fill];
    let rest = [Receipt, Fill, Idle, Fill, Two, Fill, Fill, Kill, Fill, Cross, Fill, Fill, Two, Fill, Fill, Fill, Fill];
    Log::of(&[&steps[..], &rest[..]].concat(), 128 << 10, MIB)
}

/// Three segments, as much of them structure as can be.
fn small() -> Log {
    Log::of(&[Step::Two, Step::Fill, Step::Roll, Step::Fill, Step::Fill], 64 << 10, 160 << 10)
}

/// All positions that are to be flipped, as (segment, bit).
struct Flips<'a> {
    log: &'a Log,
    bits: Vec<(usize, usize)>,
    next: AtomicU64,
    detected: AtomicU64,
}

impl<'a> Flips<'a> {
    fn new(log: &'a Log, bits: Vec<(usize, usize)>) -> Self {
        Self { log, bits, next: AtomicU64::new(0), detected: AtomicU64::new(0) }
    }

    /// Flips all; each on a copy of its thread, in place and back.
    fn run(&self) -> (u64, u64) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.work());
            }
        });
        (self.bits.len() as u64, self.detected.load(Ordering::Relaxed))
    }

    fn work(&self) {
        const PIECE: u64 = 256;
        let memory = Memory::new(&self.log.files);
        let storage: Arc<dyn Storage> = Arc::new(memory.clone());
        let metrics = Arc::new(Metrics::new());
        loop {
            let from = self.next.fetch_add(PIECE, Ordering::Relaxed) as usize;
            if from >= self.bits.len() {
                return;
            }
            for (number, bit) in &self.bits[from..self.bits.len().min(from + PIECE as usize)] {
                let segment = &self.log.segments[*number];
                let flip = || memory.change(&segment.path, |held| held.bytes[bit / 8] ^= 1 << (bit % 8));
                flip();
                self.log.check_reader(&storage, segment, &metrics);
                if Log::is_reported(&memory) {
                    self.detected.fetch_add(1, Ordering::Relaxed);
                } else {
                    eprintln!("UNSEEN: {}, byte {}, bit {}", segment.path.display(), bit / 8, bit % 8);
                }
                flip();
            }
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// All bits of the log from its first header to its end.
fn all_bits(log: &Log) -> Vec<(usize, usize)> {
    let of =
        |(number, segment): (usize, &Segment)| (0..segment.end * 8).map(move |bit| (number, bit)).collect::<Vec<_>>();
    log.segments.iter().enumerate().flat_map(of).collect()
}

/// All bits of headers, states, frame headers and footers; of padding and of the payloads some.
fn structure_bits(log: &Log) -> Vec<(usize, usize)> {
    let is_wanted = |(number, bit): &(usize, usize)| {
        let (segment, byte) = (&log.segments[*number], bit / 8);
        let within = |ranges: &[Range<usize>]| ranges.iter().any(|range| range.contains(&byte));
        let one_in = if within(&segment.payloads) {
            997
        } else if within(&segment.zeros) {
            31
        } else {
            1
        };
        bit % one_in == 0
    };
    all_bits(log).into_iter().filter(is_wanted).collect()
}

#[test]
fn every_flipped_bit_is_reported() {
    let begun = Instant::now();
    let (flips, detected) = if let Some(count) = number("FOREBAY_FLIPS") {
        let log = large();
        let all = all_bits(&log);
        assert_eq!(all.len() as u64, 8 * MIB);
        let step = (all.len() as u64 / count).max(1) as usize;
        Flips::new(&log, all.into_iter().step_by(step).take(count as usize).collect()).run()
    } else {
        let log = small();
        Flips::new(&log, structure_bits(&log)).run()
    };
    let seconds = begun.elapsed().as_secs_f64();
    println!(r#"{{"flips":{flips},"detected":{detected},"seconds":{seconds:.1}}}"#);
    assert_eq!(flips, detected);
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Damages one range of one file; `None` if that changes nothing.
type Damage<'a> = Box<dyn Fn(&mut Vec<u8>, Range<usize>, &mut Random) + 'a>;

fn damages<'a>(log: &'a Log, segment: &'a Segment) -> Vec<(&'static str, Damage<'a>)> {
    let other = |bytes: &[u8], at: &Range<usize>, random: &mut Random| {
        let count = (bytes.len() / at.len()) as u64;
        let from = random.below(count) as usize * at.len();
        bytes[from..from + at.len()].to_vec()
    };
    let neighbour = |at: &Range<usize>| if at.start == 0 { at.len() } else { at.start - at.len() };
    vec![
        ("zeroed", Box::new(|bytes, at, _| bytes[at].fill(0))),
        ("all ones", Box::new(|bytes, at, _| bytes[at].fill(0xff))),
        ("garbage", Box::new(|bytes, at, random| bytes[at].iter_mut().for_each(|b| *b = random.below(256) as u8))),
        (
            "swapped with its neighbour",
            Box::new(move |bytes, at, _| {
                let with = neighbour(&at);
                (0..at.len()).for_each(|i| bytes.swap(at.start + i, with + i));
            }),
        ),
        (
            "its neighbour, doubled",
            Box::new(move |bytes, at, _| {
                let from = neighbour(&at);
                bytes.copy_within(from..from + at.len(), at.start);
            }),
        ),
        (
            "another one of its file",
            Box::new(move |bytes, at, random| {
                let content = other(bytes, &at, random);
                bytes[at].copy_from_slice(&content);
            }),
        ),
        (
            "one of another segment",
            Box::new(move |bytes, at, random| {
                let which = &log.segments[random.below(log.segments.len() as u64) as usize];
                let content = other(&log.files[&which.path], &at, random);
                bytes[at].copy_from_slice(&content);
            }),
        ),
        (
            "rolled back",
            Box::new(move |bytes, at, random| {
                let older = |files: &&BTreeMap<PathBuf, Vec<u8>>| {
                    files
                        .get(&segment.path)
                        .is_some_and(|old| old.len() >= at.end && old[at.clone()] != bytes[at.clone()])
                };
                let found: Vec<_> = log.history.iter().filter(older).collect();
                if !found.is_empty() {
                    let old = &found[random.below(found.len() as u64) as usize][&segment.path];
                    bytes[at.clone()].copy_from_slice(&old[at]);
                }
            }),
        ),
    ]
}

#[test]
fn every_damaged_sector_is_reported() {
    let log = large();
    let metrics = Arc::new(Metrics::new());
    let memory = Memory::new(&log.files);
    let storage: Arc<dyn Storage> = Arc::new(memory.clone());
    let mut random = Random(1);
    let mut cases: BTreeMap<&str, u64> = BTreeMap::new();
    for segment in &log.segments {
        let good = &log.files[&segment.path];
        for (kind, damage) in damages(&log, segment) {
            for size in [512, 4096] {
                for start in (0..segment.end).step_by(size) {
                    let at = start..start + size;
                    let mut bytes = good.clone();
                    damage(&mut bytes, at.clone(), &mut random);
                    if bytes[..segment.end] == good[..segment.end] {
                        continue;
                    }
                    let place = || format!("{}, {at:?}: {kind}", segment.path.display());
                    memory.change(&segment.path, |held| held.bytes.clone_from(&bytes));
                    assert!(Log::is_reported(&memory), "unseen: {}", place());
                    log.check_reader(&storage, segment, &metrics);
                    if random.below(16) == 0 {
                        let mut files = log.files.clone();
                        files.insert(segment.path.clone(), bytes);
                        log.check_opened(&files, &metrics);
                    }
                    *cases.entry(kind).or_default() += 1;
                }
            }
        }
        for start in (0..segment.end).step_by(512) {
            memory.change(&segment.path, |held| {
                held.bytes.clone_from(good);
                held.unreadable = Some(start..start + 512);
            });
            assert!(Log::is_reported(&memory), "{}, byte {start} can't be read", segment.path.display());
            log.check_reader(&storage, segment, &metrics);
            *cases.entry("unreadable").or_default() += 1;
        }
        memory.change(&segment.path, |held| held.unreadable = None);
    }
    println!("{cases:?}");
    assert!(cases.len() == 9 && cases.values().all(|count| *count > 100), "{cases:?}");
}

fn reported(files: &BTreeMap<PathBuf, Vec<u8>>) -> bool {
    Log::is_reported(&Memory::new(files))
}

fn path(number: u64) -> PathBuf {
    Path::new(DIR).join(format!("{number:020}.wal"))
}

#[test]
fn missing_doubled_stale_and_foreign_segments_are_reported() {
    let (log, foreign) = (large(), small());
    let metrics = Arc::new(Metrics::new());
    let check = |files: BTreeMap<PathBuf, Vec<u8>>, what: String| {
        assert!(reported(&files), "unseen: {what}");
        log.check_opened(&files, &metrics);
    };
    let numbers: Vec<u64> = log.segments.iter().map(|s| s.listed.number).collect();
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    assert!(first > 1, "some segments were retired");
    for number in numbers {
        let changed = |change: &dyn Fn(&mut Files)| {
            let mut files = log.files.clone();
            change(&mut files);
            files
        };
        if number != last {
            check(changed(&|files| drop(files.remove(&path(number)))), format!("{number} missing"));
        }
        let doubled =
            |as_number| changed(&|files| drop(files.insert(path(as_number), log.files[&path(number)].clone())));
        check(doubled(last + 1), format!("{number} again as {}", last + 1));
        for other in (first..=last).filter(|other| *other != number) {
            check(doubled(other), format!("{number} in the place of {other}"));
        }
        for (path_of_foreign, bytes) in &foreign.files {
            if path_of_foreign.extension().is_some_and(|e| e == "wal") {
                let exchanged = changed(&|files| drop(files.insert(path(number), bytes.clone())));
                check(exchanged, format!("foreign {} as {number}", path_of_foreign.display()));
            }
        }
        // Old content of the same name: what the log wrote there before it was finished, or another life of the file.
        let old = log.history.iter().filter_map(|files| files.get(&path(number)));
        for bytes in old.filter(|bytes| bytes[..] != log.files[&path(number)][..]) {
            let end = log.segments[(number - first) as usize].end;
            if bytes.len() < end || bytes[..end] != log.files[&path(number)][..end] {
                check(
                    changed(&|files| drop(files.insert(path(number), bytes.clone()))),
                    format!("{number} rolled back"),
                );
            }
        }
        for cut in [0, 1, 4096, 8191, 8192, 20_000] {
            let end = log.segments[(number - first) as usize].end;
            let cut = if cut < end { cut } else { end - 1 };
            check(
                changed(&|files| files.get_mut(&path(number)).unwrap().truncate(cut)),
                format!("{number} cut to {cut}"),
            );
        }
    }
}

#[test]
fn retired_segments_that_come_back_are_not_read() {
    let log = large();
    let first = log.segments[0].listed.number;
    let old = log.history.iter().rev().find_map(|files| files.get(&path(first - 1)));
    let mut files = log.files.clone();
    files.insert(path(first - 1), old.expect("it was there once").clone());
    assert!(!reported(&files), "a name that came undone is no damage");
    log.check_opened(&files, &Arc::new(Metrics::new()));
}

#[test]
fn long_runs_of_damage_are_reported_and_never_skipped() {
    let log = large();
    let metrics = Arc::new(Metrics::new());
    let mut random = Random(2);
    for segment in &log.segments {
        for start in (0..segment.end).step_by(4096) {
            for len in [8 << 10, 12 << 10, 20 << 10, 32 << 10, segment.end] {
                let end = segment.end.min(start + len);
                let mut files = log.files.clone();
                let bytes = &mut files.get_mut(&segment.path).unwrap()[start..end];
                match random.below(3) {
                    0 => bytes.fill(0),
                    1 => bytes.iter_mut().for_each(|byte| *byte = random.below(256) as u8),
                    _ => bytes.rotate_left(4096.min(end - start - 1)),
                }
                if files[&segment.path] == log.files[&segment.path] {
                    continue;
                }
                assert!(reported(&files), "unseen: {}, {start}..{end}", segment.path.display());
                log.check_opened(&files, &metrics);
            }
        }
    }
}
