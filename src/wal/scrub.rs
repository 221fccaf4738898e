//! The scrubber: reads sealed segments again, slowly and past the page cache, to find damage while Kafka still has the
//! records.
//!
//! What was not verified when the log was opened comes first, and at any rate.
//!
//! Promises: it keeps to its rate, yields to everything else, ends soon after it is told to; a damaged block that is not
//! delivered is asked for ([`Repairs::want`](super::repair::Repairs::want)) and told with its exact range, other damage is
//! told. Never: it does not write, and does not judge the segment that is written to.

use super::catalogue::Listed;
use super::format::PAGE;
use super::format::header::{HEADER_BYTES, SegmentHeader};
use super::log::Log;
use super::scan::finding::CorruptBlock;
use super::scan::{BadPart, Damage, Piece, Scanner, lost, states};
use crate::io::{File, IoError};
use crate::metrics::Metrics;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at whether something is due, or it is over.
const NAP: Duration = Duration::from_millis(50);

/// How fast and how often.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes a second; 0: nothing is read.
    pub rate: u64,
    /// A segment is read again so long after it was sealed, and after each reading.
    pub every: Duration,
}

/// Reads until told to stop. Blocks; to be called on a thread of its own, whose priority it lowers.
pub fn run(log: &Log, metrics: &Arc<Metrics>, pace: Pace, stop: &Arc<AtomicBool>) {
    // A refusal changes nothing but who yields to whom.
    let _ = rustix::process::nice(19);
    let mut scrubber = Scrubber::new(log, metrics, pace, stop);
    while pace.rate > 0 && !stop.load(Ordering::Acquire) {
        if !scrubber.round() {
            std::thread::sleep(NAP);
        }
    }
}

/// What it remembers from round to round.
pub struct Scrubber<'a> {
    log: &'a Log,
    metrics: &'a Arc<Metrics>,
    pace: Pace,
    stop: &'a Arc<AtomicBool>,
    /// When a segment was first seen, or last read; `None`: neither by this process.
    read: BTreeMap<u64, Option<Instant>>,
    /// Damaged places that were told.
    told: BTreeSet<(u64, u64)>,
}

impl<'a> Scrubber<'a> {
    /// Has seen nothing yet.
    pub fn new(log: &'a Log, metrics: &'a Arc<Metrics>, pace: Pace, stop: &'a Arc<AtomicBool>) -> Self {
        Self { log, metrics, pace, stop, read: BTreeMap::new(), told: BTreeSet::new() }
    }

    /// Reads the segment that is most overdue; false if none is due.
    pub fn round(&mut self) -> bool {
        let catalogue = self.log.catalogue();
        let now = Instant::now();
        let sealed: Vec<Listed> = catalogue.numbers().into_iter().filter_map(|n| catalogue.get(n)).collect();
        let sealed: BTreeMap<u64, Listed> = sealed.into_iter().filter(|s| s.sealed).map(|s| (s.number, s)).collect();
        self.read.retain(|number, _| sealed.contains_key(number));
        self.told.retain(|(number, _)| sealed.contains_key(number));
        for (number, listed) in &sealed {
            self.read.entry(*number).or_insert(listed.verified.then_some(now));
        }
        let due = |(_, at): &(&u64, &Option<Instant>)| at.is_none_or(|at| now.duration_since(at) >= self.pace.every);
        let next = self.read.iter().filter(due).min_by_key(|(_, at)| **at).map(|(number, at)| (*number, *at));
        let Some((listed, last)) = next.and_then(|(number, at)| Some((sealed.get(&number)?, at))) else {
            return false;
        };
        let rate = if last.is_some() { self.pace.rate } else { u64::MAX };
        if let Err(error) = self.scrub(listed, rate)
            && self.is_there(listed)
        {
            tracing::warn!("scrubbing: {error}");
        }
        self.read.insert(listed.number, Some(Instant::now()));
        true
    }

    /// False once it is retired: then its bytes may change and mean nothing.
    fn is_there(&self, listed: &Listed) -> bool {
        self.log.catalogue().get(listed.number).is_some_and(|now| now.salt == listed.salt)
    }

    fn scrub(&mut self, listed: &Listed, rate: u64) -> Result<(), IoError> {
        let inner = self.log.storage().open(&self.log.catalogue().path(listed.number), false)?;
        let stop = Arc::clone(self.stop);
        let file: Arc<dyn File> = Arc::new(Paced { inner, rate, stop, metrics: Arc::clone(self.metrics) });
        let Some(header) = self.headers(listed, &file) else { return Ok(()) };
        for bad in states::read(&file, &header, listed.end).bad {
            self.tell(listed, bad.position, &format!("a copy of the state: {}", bad.reason));
        }
        let mut scanner = Scanner::new(Arc::clone(&file), listed.salt, listed.start, listed.first_lsn, listed.end);
        while let Some(piece) = scanner.next_piece() {
            if let Piece::Damage(damage) = piece {
                self.damaged(listed, &file, &damage);
            }
            if self.stop.load(Ordering::Acquire) {
                break;
            }
        }
        Ok(())
    }

    /// Verifies both copies of the header; a good one, if there is one.
    fn headers(&mut self, listed: &Listed, file: &Arc<dyn File>) -> Option<SegmentHeader> {
        let mut good = None;
        for position in [0, PAGE] {
            let mut page = [0; HEADER_BYTES];
            let read = file.read_at(position, &mut page);
            match read.map_err(|error| error.to_string()).and_then(|_| decode(&page, listed)) {
                Ok(header) => good = good.or(Some(header)),
                Err(reason) => self.tell(listed, position, &format!("a copy of the header: {reason}")),
            }
        }
        good
    }

    fn damaged(&mut self, listed: &Listed, file: &Arc<dyn File>, damage: &Damage) {
        if self.stop.load(Ordering::Acquire) || !self.is_there(listed) || !is_still_damaged(listed, file, damage) {
            return;
        }
        let lost = lost::blocks(file, listed.salt, damage, Some(listed.end));
        let path = self.log.catalogue().path(listed.number);
        match lost {
            _ if damage.part == BadPart::Pad => self.tell(listed, damage.position, &damage.reason),
            Some(lost) if !lost.is_empty() => {
                for named in lost {
                    let block = CorruptBlock::new(&path, listed.number, listed.salt, &named, damage.header);
                    self.damaged_block(listed, &block, &damage.reason);
                }
            }
            _ => {
                let (lsn, end) = (damage.lsn, damage.end_lsn);
                self.tell(listed, damage.position, &format!("LSN {lsn} to before {end}: {}", damage.reason));
            }
        }
    }

    fn damaged_block(&mut self, listed: &Listed, block: &CorruptBlock, reason: &str) {
        let repairs = self.log.repairs();
        if repairs.has(block) {
            return;
        }
        if self.log.is_settled(block) {
            self.tell(listed, block.position, &format!("{block}: {reason}; it is delivered, nothing is lost"));
        } else if repairs.want(block) {
            self.tell(listed, block.position, &format!("{block}: {reason}; it is to be fetched again"));
        }
    }

    fn tell(&mut self, listed: &Listed, position: u64, text: &str) {
        if self.told.insert((listed.number, position)) && self.is_there(listed) {
            self.metrics.wal_scrub_damaged.inc();
            let path = self.log.catalogue().path(listed.number);
            tracing::warn!("scrubbing found damage in {} at byte {position}: {text}", path.display());
        }
    }
}

fn decode(page: &[u8], listed: &Listed) -> Result<SegmentHeader, String> {
    let header = SegmentHeader::decode(page).map_err(|error| error.to_string())?;
    let same = (header.number, header.salt) == (listed.number, listed.salt);
    if same { Ok(header) } else { Err("it is another segment's".to_owned()) }
}

/// Looks once more: a single bad transfer is no damage of the medium.
fn is_still_damaged(listed: &Listed, file: &Arc<dyn File>, damage: &Damage) -> bool {
    let mut again = Scanner::new(Arc::clone(file), listed.salt, damage.position, damage.lsn, listed.end);
    let good = matches!(again.next_piece(), Some(Piece::Frame(..)));
    if good {
        let path = file_name(listed);
        tracing::warn!("scrubbing: {path} at byte {} was read wrong once and right the second time", damage.position);
    }
    !good
}

fn file_name(listed: &Listed) -> String {
    super::segment::wal_name(listed.number)
}

/// A file that is read at a limited rate, from the medium, and leaves nothing in the page cache.
#[derive(Debug)]
struct Paced {
    inner: Arc<dyn File>,
    rate: u64,
    stop: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl Paced {
    fn rest(&self, bytes: usize) {
        let until = Instant::now() + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        while !self.stop.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}

impl File for Paced {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.inner.write_at(position, slices)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        self.inner.forget(position, buffer.len() as u64);
        let read = self.inner.read_at(position, buffer);
        self.inner.forget(position, buffer.len() as u64);
        if let Ok(read) = read {
            self.metrics.wal_scrubbed_bytes.inc_by(read as u64);
            self.rest(read);
        }
        read
    }

    fn len(&self) -> Result<u64, IoError> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<(), IoError> {
        self.inner.sync_data()
    }
}

#[cfg(test)]
mod tests {
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
}
