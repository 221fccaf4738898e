use super::*;
use crate::io::Storage;
use crate::io::sim::Sim;
use crate::wal::format::FRAMES_START;
use crate::wal::format::frame::{FrameHeader, Kind};
use crate::wal::open;
use crate::wal::options::Options;
use crate::wal::recovery::recover;
use crate::wal::segment::wal_name;
use crate::wal::testing::{DIR, block, owned, path};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const PACE: Pace = Pace { rate: u64::MAX, every: Duration::ZERO };

/// Collects what people are told.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<String>>);

impl Visit for Told {
    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{value:?}").unwrap();
    }
}

impl Subscriber for Told {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A segment with one block, and the position and the LSN of that.
fn written() -> (Sim, Listed, u64, u64) {
    let sim = Sim::new(1);
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    (options.segment_bytes, options.seed) = (64 << 10, Some(1));
    let mut writer = recover(&storage, &options).unwrap().writer;
    while writer.rack().work(&mut || {}).unwrap() {}
    assert_eq!(writer.append(&[owned(), block(0, 3000)]).unwrap(), 2);
    let at = writer.locations().last().unwrap();
    let listed = writer.catalogue().get(at.segment).unwrap();
    (sim, listed, at.position, at.lsn)
}

#[test]
fn what_is_right_at_the_second_look_is_no_damage_and_is_told_with_its_file() {
    let (sim, listed, position, lsn) = written();
    let path = Path::new(DIR).join(wal_name(listed.number));
    let good = sim.open(&path, false).unwrap();
    let harmed = sim.snapshot();
    harmed.damage(&path, |bytes| bytes[position as usize + 1000] ^= 1).unwrap();
    let bad = harmed.open(&path, false).unwrap();
    let mut scanner = Scanner::new(Arc::clone(&bad), listed.salt, position, lsn, listed.end);
    let Some(Piece::Damage(damage)) = scanner.next_piece() else { panic!("the damage is not seen") };
    assert!(is_still_damaged(&listed, &bad, &damage));
    let told = Told::default();
    let again = tracing::subscriber::with_default(told.clone(), || is_still_damaged(&listed, &good, &damage));
    assert!(!again);
    let text = told.0.lock().unwrap().clone();
    assert!(text.contains(&format!(" {} at byte {position} ", wal_name(listed.number))), "{text}");
}

/// An open log and its first segment, which is sealed; nothing of it is delivered.
fn logged() -> (Sim, Log, Listed) {
    let sim = Sim::new(1);
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    (options.segment_bytes, options.seed) = (64 << 10, Some(1));
    options.idle = Duration::from_secs(3600);
    let log = open(Arc::new(sim.clone()), options).unwrap().log;
    log.append_synced(vec![owned()]).unwrap();
    for first in 0..20 {
        log.append_synced(vec![block(first, 3000)]).unwrap();
    }
    let listed = log.catalogue().get(1).unwrap();
    assert!(listed.sealed);
    (sim, log, listed)
}

fn path_of(listed: &Listed) -> PathBuf {
    path(listed.number)
}

/// The first frame of this kind.
fn frame(sim: &Sim, listed: &Listed, kind: Kind) -> FrameHeader {
    let file = sim.open(&path_of(listed), false).unwrap();
    let mut scanner = Scanner::new(file, listed.salt, listed.start, listed.first_lsn, listed.end);
    while let Some(piece) = scanner.next_piece() {
        if let Piece::Frame(header, _) = piece
            && header.kind == kind
        {
            return header;
        }
    }
    panic!("there is no such frame")
}

fn flip(sim: &Sim, listed: &Listed, at: u64) {
    sim.damage(&path_of(listed), |bytes| bytes[at as usize] ^= 1).unwrap();
}

fn damage_at(file: &Arc<dyn File>, listed: &Listed, position: u64, lsn: u64) -> Damage {
    let mut scanner = Scanner::new(Arc::clone(file), listed.salt, position, lsn, listed.end);
    let Some(Piece::Damage(damage)) = scanner.next_piece() else { panic!("the damage is not seen") };
    assert_eq!(damage.position, position);
    damage
}

#[test]
fn damage_that_costs_no_block_is_told_once_and_nothing_is_asked_for() {
    let (sim, log, listed) = logged();
    let (owned, padded) = (frame(&sim, &listed, Kind::Owned), frame(&sim, &listed, Kind::Block));
    assert!(padded.pad_len > 0);
    flip(&sim, &listed, owned.position + 20);
    flip(&sim, &listed, padded.end() - 1);
    let (metrics, stop) = (Arc::new(Metrics::new()), Arc::default());
    let mut scrubber = Scrubber::new(&log, &metrics, PACE, &stop);
    for reading in 1..=2 {
        scrubber.scrub(&listed, u64::MAX).unwrap();
        assert_eq!(metrics.wal_scrub_damaged.get(), 2, "after reading {reading}");
        assert!(log.repairs().open().is_empty());
    }
    log.close().unwrap();
}

#[test]
fn what_is_retired_while_it_is_read_is_not_judged() {
    let (sim, log, listed) = logged();
    let (owned, block) = (frame(&sim, &listed, Kind::Owned), frame(&sim, &listed, Kind::Block));
    for at in [20, owned.position + 20, block.position + 1000] {
        flip(&sim, &listed, at);
    }
    log.catalogue().retire(listed.number + 1);
    let (metrics, stop) = (Arc::new(Metrics::new()), Arc::default());
    Scrubber::new(&log, &metrics, PACE, &stop).scrub(&listed, u64::MAX).unwrap();
    assert!(metrics.wal_scrubbed_bytes.get() > 0, "it was read");
    assert_eq!(metrics.wal_scrub_damaged.get(), 0);
    assert!(log.repairs().open().is_empty());
    log.close().unwrap();
}

#[test]
fn frames_are_not_judged_once_the_scrubber_is_told_to_stop() {
    let (sim, log, listed) = logged();
    let first = frame(&sim, &listed, Kind::Owned);
    assert_eq!(first.position, listed.start);
    flip(&sim, &listed, first.position + 20);
    let (metrics, stop) = (Arc::new(Metrics::new()), Arc::new(AtomicBool::new(true)));
    let mut scrubber = Scrubber::new(&log, &metrics, PACE, &stop);
    for (is_over, told) in [(true, 0), (false, 1)] {
        stop.store(is_over, Ordering::Release);
        scrubber.scrub(&listed, u64::MAX).unwrap();
        assert_eq!(metrics.wal_scrub_damaged.get(), told);
    }
    log.close().unwrap();
}

#[test]
fn what_is_right_at_the_second_look_is_neither_told_nor_asked_for() {
    let (sim, log, listed) = logged();
    let block = frame(&sim, &listed, Kind::Block);
    let harmed = sim.snapshot();
    flip(&harmed, &listed, block.position + 1000);
    let [good, bad] = [&sim, &harmed].map(|sim| sim.open(&path_of(&listed), false).unwrap());
    let damage = damage_at(&bad, &listed, block.position, block.lsn);
    let (metrics, stop) = (Arc::new(Metrics::new()), Arc::default());
    let mut scrubber = Scrubber::new(&log, &metrics, PACE, &stop);
    for (file, found) in [(&good, 0), (&bad, 1)] {
        scrubber.damaged(&listed, file, &damage);
        assert_eq!(metrics.wal_scrub_damaged.get(), found);
        assert_eq!(log.repairs().wanted().len() as u64, found);
    }
    log.close().unwrap();
}

#[test]
fn damage_where_the_frames_start_is_looked_at_once_more_too() {
    let (sim, listed, ..) = written();
    let harmed = sim.snapshot();
    flip(&harmed, &listed, FRAMES_START + 20);
    let [good, bad] = [&sim, &harmed].map(|sim| sim.open(&path_of(&listed), false).unwrap());
    let damage = damage_at(&bad, &listed, FRAMES_START, listed.first_lsn);
    assert!(is_still_damaged(&listed, &bad, &damage));
    assert!(!is_still_damaged(&listed, &good, &damage));
}
