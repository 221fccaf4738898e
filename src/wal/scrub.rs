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
#[path = "scrub_tests.rs"]
mod tests;
