//! Scans the segments of a log: each by itself, several at once where that pays, as if one after the other.
//!
//! Every segment begins with the complete state, so its scan needs nothing of the one before; whether the state is what
//! the frames before it add up to is compared afterwards. Memory: one window for each thread, one state for each segment
//! that is being scanned. Never writes.

use super::finding::{CorruptBlock, Finding};
use super::quick;
use super::segment::{self, Bounds, DIFFERS, Fold, Segment, SegmentScan};
use super::states;
use super::survey::Survey;
use crate::wal::format::FRAMES_START;
use crate::wal::format::header::Predecessor;
use crate::wal::format::state::State;
use crate::wal::recovery::table::Verdict;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Less than this is not worth a thread.
const WORTH_THREADS: u64 = 16 << 20;
/// More threads find memory no faster.
const THREADS_MAX: usize = 8;

/// What the scan of one segment gave.
struct Part {
    scan: SegmentScan,
    findings: Vec<Finding>,
    corrupt: Vec<CorruptBlock>,
    /// Only the last segment's is kept whole.
    state: Option<State>,
    /// Fingerprints of the state at its beginning and at its end; `None` where it can't be known.
    begins: Option<u32>,
    ends: Option<u32>,
    broken: bool,
}

/// Scans all of them into the survey; of the newest ones every byte, of so many bytes.
pub fn scan_all(segments: &[Segment], newest: u64, survey: &mut Survey) {
    let Some(parts) = scan_apart(segments, newest, survey.witness) else {
        return scan_in_order(segments, survey);
    };
    let mut before: Option<u32> = None;
    for mut part in parts {
        survey.findings.extend(part.findings);
        let differs = before.zip(part.begins).is_some_and(|(ends, begins)| ends != begins);
        if differs {
            let (path, lsn) = (part.scan.path.clone(), part.scan.header.first_lsn.checked_sub(1));
            let (verdict, position, reason) = (Verdict::Report, FRAMES_START, DIFFERS.to_owned());
            survey.findings.push(Finding { verdict, path, position, lsn, range: None, reason });
            part.scan.damaged = true;
        }
        survey.corrupt.extend(part.corrupt);
        before = part.ends;
        survey.broken = part.broken;
        survey.state = part.state;
        survey.segments.push(part.scan);
    }
}

/// One after the other, the fold going on where a state is damaged.
fn scan_in_order(segments: &[Segment], survey: &mut Survey) {
    let mut fold = Fold::default();
    for (i, segment) in segments.iter().enumerate() {
        let (findings, corrupt) = (&mut survey.findings, &mut survey.corrupt);
        let bounds = (survey.witness, &later_state(segments, i) as &dyn Fn() -> bool);
        survey.segments.push(scan_one(segments, i, bounds, &mut fold, findings, corrupt));
        debug_assert_eq!(segment.number, survey.segments[i].number);
    }
    survey.broken = fold.broken;
    survey.state = fold.state;
}

/// Each by itself. `None` if a segment has no good state of its own.
fn scan_apart(segments: &[Segment], newest: u64, witness: u64) -> Option<Vec<Part>> {
    let mut verified = 0u64;
    let mut quick = vec![false; segments.len()];
    for (i, segment) in segments.iter().enumerate().rev() {
        quick[i] = verified >= newest && i + 1 < segments.len();
        verified = verified.saturating_add(segment.len);
    }
    let work = |i: usize| scan_part(segments, i, quick[i], witness);
    let bytes: u64 = segments.iter().map(|s| s.len).sum();
    // Asking for the number of cores costs more than a small log.
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if bytes < WORTH_THREADS { 1 } else { cores().min(THREADS_MAX).min(segments.len()) };
    if threads <= 1 {
        return (0..segments.len()).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let parts: Mutex<Vec<Option<Part>>> = Mutex::new((0..segments.len()).map(|_| None).collect());
    let scan = || {
        while let Some(i) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < segments.len()) {
            let part = work(i);
            parts.lock().unwrap_or_else(PoisonError::into_inner)[i] = part;
        }
    };
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(scan)));
        scan();
    });
    parts.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
}

fn scan_part(segments: &[Segment], i: usize, quick: bool, witness: u64) -> Option<Part> {
    let segment = &segments[i];
    if quick
        && let Some(declared) = successor(segments, i)
        && let Some(scan) = quick::scan(segment, &declared)
    {
        let (findings, corrupt) = (Vec::new(), Vec::new());
        let (state, begins, ends, broken) = (None, None, None, false);
        return Some(Part { scan, findings, corrupt, state, begins, ends, broken });
    }
    let begins = fingerprint(states::read(&segment.file, &segment.header, segment.len).state.as_ref()?);
    let mut fold = Fold::default();
    let (mut findings, mut corrupt) = (Vec::new(), Vec::new());
    let bounds = (witness, &later_state(segments, i) as &dyn Fn() -> bool);
    let scan = scan_one(segments, i, bounds, &mut fold, &mut findings, &mut corrupt);
    let ends = fold.state.as_ref().filter(|_| !fold.broken).and_then(fingerprint);
    let state = fold.state.filter(|_| i + 1 == segments.len());
    Some(Part { scan, findings, corrupt, state, begins, ends, broken: fold.broken })
}

fn scan_one(
    segments: &[Segment],
    i: usize,
    (witness, later_state): (u64, &dyn Fn() -> bool),
    fold: &mut Fold,
    findings: &mut Vec<Finding>,
    corrupt: &mut Vec<CorruptBlock>,
) -> SegmentScan {
    let bounds = Bounds { sealed: successor(segments, i), witness, later_state };
    segment::scan(&segments[i], &bounds, fold, findings, corrupt)
}

/// What the next segment's header says of this one.
fn successor(segments: &[Segment], i: usize) -> Option<Predecessor> {
    let declared = segments.get(i + 1).map(|next| next.header.predecessor);
    declared.filter(|by| by.number == segments[i].number)
}

fn later_state(segments: &[Segment], i: usize) -> impl Fn() -> bool {
    move || segments[i + 1..].iter().any(|s| states::read(&s.file, &s.header, s.len).state.is_some())
}

/// Of the canonical encoding; `None` if it is too large for one.
fn fingerprint(state: &State) -> Option<u32> {
    let mut bytes = Vec::new();
    state.encode(&mut bytes).ok()?;
    Some(crc32fast::hash(&bytes))
}
