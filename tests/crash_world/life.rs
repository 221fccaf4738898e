//! One machine with a log on it, and what was asked of that log: the promise is checked against this.

use super::entries::blocks;
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::Block;
use forebay::wal::catalogue::Location;
use forebay::wal::feed::Handover;
use forebay::wal::inspect::inspect;
use forebay::wal::recovery::{Recovered, recover};
use forebay::wal::writer::Writer;
use forebay::wal::{Entry, Feed, FeedItem, Options, State, WalError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub const DIR: &str = "/wal";
/// The smallest there is.
pub const SEGMENT_BYTES: u64 = 64 << 10;

/// What a log may hold: everything durable, then any part from the front of one of the attempts made since.
#[derive(Clone, Default)]
pub struct Expected {
    pub durable: Arc<Vec<Entry>>,
    /// Oldest first. More than one, where appends failed without anything becoming durable since.
    attempts: Vec<Arc<Vec<Entry>>>,
    /// The fold of everything durable; `None` until a log was opened.
    base: Option<Arc<State>>,
    /// Equal for equal expectations.
    pub key: u64,
}

fn key_of(key: u64, entries: &[Entry]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, entries.len()).hash(&mut hasher);
    for entry in entries {
        match entry {
            Entry::Block(block) => format!("{:?}", block.header).hash(&mut hasher),
            other => format!("{other:?}").hash(&mut hasher),
        }
    }
    hasher.finish()
}

impl Expected {
    fn attempt(&mut self, entries: &[Entry]) {
        self.key = key_of(self.key, entries);
        self.attempts.push(Arc::new(entries.to_vec()));
    }

    /// The last attempt's first `count` entries are durable.
    fn confirm(&mut self, count: usize) -> Result<(), String> {
        let entries = self.attempts.pop().ok_or("nothing was attempted")?;
        self.settle(&entries[..count])
    }

    fn settle(&mut self, entries: &[Entry]) -> Result<(), String> {
        self.attempts.clear();
        self.key = key_of(self.durable.len() as u64, entries);
        let base = self.base.as_mut().map(Arc::make_mut).ok_or("no log was opened")?;
        let durable = Arc::make_mut(&mut self.durable);
        for entry in entries {
            durable.push(entry.clone());
            base.apply(durable.len() as u64, entry).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Compares what recovery found; from then on that is durable.
    fn recovered(&mut self, state: &State, found: &[(u64, Block)]) -> Result<(), String> {
        let (lsn, durable) = (state.lsn, self.durable.len());
        let base = match &self.base {
            Some(base) => State::clone(base),
            None => State::new(state.wal_id),
        };
        if lsn < durable as u64 {
            return Err(format!("lost: {lsn} of {durable} durable entries are left"));
        }
        let more = lsn as usize - durable;
        let mut reason = format!("{more} entries that nobody appended");
        let nothing = Arc::default();
        let candidates = self.attempts.iter().rev().chain((more == 0).then_some(&nothing));
        for attempt in candidates.filter(|attempt| attempt.len() >= more) {
            match compare(&base, &self.durable, &attempt[..more], state, found) {
                Ok(()) => {
                    let attempt = Arc::clone(attempt);
                    self.base = Some(Arc::new(base));
                    return self.settle(&attempt[..more]);
                }
                Err(why) => reason = why,
            }
        }
        Err(reason)
    }
}

fn compare(
    base: &State,
    durable: &[Entry],
    more: &[Entry],
    state: &State,
    found: &[(u64, Block)],
) -> Result<(), String> {
    let mut folded;
    let expected = if more.is_empty() {
        base
    } else {
        folded = base.clone();
        for (i, entry) in more.iter().enumerate() {
            let lsn = (durable.len() + i) as u64 + 1;
            folded.apply(lsn, entry).map_err(|e| e.to_string())?;
        }
        &folded
    };
    if expected != state {
        return Err(format!("the state is {state:?}\nexpected {expected:?}"));
    }
    // What was given up is forgotten together with the segments that held it.
    let wanted = |lsn: u64, b: &Block| lsn >= state.kept_lsn && !state.is_settled(lsn, &b.header);
    let offset = durable.len() as u64;
    let all = blocks(durable).chain(blocks(more).map(|(lsn, block)| (lsn + offset, block)));
    let expected: Vec<(u64, &Block)> = all.filter(|(lsn, block)| wanted(*lsn, block)).collect();
    let is_equal = |(one, other): (&(u64, Block), &(u64, &Block))| {
        one.0 == other.0 && one.1.header == other.1.header && one.1.payload == other.1.payload
    };
    if found.len() == expected.len() && found.iter().zip(&expected).all(is_equal) {
        return Ok(());
    }
    let name = |lsn: u64, b: &Block| (lsn, b.header.partition.number, b.header.first, b.header.digest);
    let found: Vec<_> = found.iter().map(|(lsn, b)| name(*lsn, b)).collect();
    let expected: Vec<_> = expected.iter().map(|(lsn, b)| name(*lsn, b)).collect();
    Err(format!("blocks (LSN, partition, first, attempt) {found:?}\nexpected {expected:?}"))
}

/// The disk as it was in the middle of an operation, and what was expected of it then.
pub struct Moment {
    pub operation: u64,
    pub sim: Sim,
    pub expected: Expected,
}

/// What ends a life.
#[derive(Debug)]
pub enum End {
    /// The log reported an error, or the machine stopped: the process ends.
    Process(WalError),
    /// The promise is broken.
    Violation(String),
}

impl From<WalError> for End {
    fn from(error: WalError) -> Self {
        Self::Process(error)
    }
}

impl End {
    /// True if only space is missing.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Process(WalError::Io(error)) => error.is_full(),
            Self::Process(error) => matches!(error, WalError::Full { .. }),
            Self::Violation(_) => false,
        }
    }
}

/// See the module.
pub struct Life {
    pub sim: Sim,
    log: Option<Recovered>,
    pub expected: Expected,
    /// What was watched and not taken yet.
    pub moments: Vec<Moment>,
    pub attempts: u64,
    /// Failed writes and syncs after which the log went on, and processes that ended because of an error.
    pub survived: u64,
    pub ended: u64,
    /// Machines that follow this one are watched too.
    pub watches: bool,
    pub metrics: Arc<Metrics>,
    /// How large segments are.
    pub segment_bytes: u64,
    starts: u64,
    /// The way to a feed, if someone reads along.
    handover: Option<Arc<Handover>>,
}

impl Life {
    pub fn new(sim: Sim, expected: Expected, metrics: &Arc<Metrics>) -> Self {
        let metrics = Arc::clone(metrics);
        Self {
            sim,
            log: None,
            expected,
            moments: Vec::new(),
            attempts: 0,
            survived: 0,
            ended: 0,
            watches: false,
            segment_bytes: SEGMENT_BYTES,
            starts: 0,
            handover: None,
            metrics,
        }
    }

    pub fn writer(&mut self) -> &mut Writer {
        &mut self.log.as_mut().expect("open").writer
    }

    pub fn is_open(&self) -> bool {
        self.log.is_some()
    }

    fn options(&self) -> Options {
        let mut options = Options::new(DIR, Arc::clone(&self.metrics));
        options.segment_bytes = self.segment_bytes;
        // Salts are never used twice, and follow from what happened.
        let seed = self.sim.hash() ^ self.starts.wrapping_mul(7919) ^ self.expected.key;
        options.seed = Some(seed);
        // Every other start takes the older segments by their footers.
        options.verify_bytes = if seed.is_multiple_of(2) { 0 } else { u64::MAX };
        options
    }

    /// Keeps what was watched since the last call: what is expected of it is what is expected now.
    pub fn collect(&mut self) {
        for (operation, sim) in self.sim.take_moments() {
            self.moments.push(Moment { operation, sim, expected: self.expected.clone() });
        }
    }

    /// Starts the process, compares everything recovered with what was appended, prepares nothing.
    pub fn open(&mut self) -> Result<(), End> {
        self.starts += 1;
        let storage: Arc<dyn Storage> = Arc::new(self.sim.clone());
        let recovered = recover(&storage, &self.options());
        self.collect();
        let log = recovered?;
        if let Some(finding) = log.report.problems.first() {
            return Err(End::Violation(format!("false alarm: {finding:?}")));
        }
        if let Some(corrupt) = log.report.corrupt.first() {
            return Err(End::Violation(format!("false alarm: {corrupt}")));
        }
        let found = self.blocks_of(&log)?;
        self.expected.recovered(log.writer.state(), &found).map_err(End::Violation)?;
        self.log = Some(log);
        Ok(())
    }

    /// What the feed of a log that was just opened hands out.
    fn blocks_of(&self, log: &Recovered) -> Result<Vec<(u64, Block)>, End> {
        let (mut feed, _) = self.feed_of(log, 1 << 20);
        let mut found = Vec::new();
        while let Some(item) = feed.next(Duration::ZERO)? {
            match item {
                FeedItem::Block { lsn, block } => found.push((lsn, block)),
                FeedItem::Planned(block) => {
                    return Err(End::Violation(format!("{:?} was never planned", block.header)));
                }
                FeedItem::PassedOver(partition) => {
                    return Err(End::Violation(format!("passed over something of {partition:?}")));
                }
                FeedItem::Corrupt(corrupt) => return Err(End::Violation(format!("handed out {corrupt}"))),
            }
        }
        Ok(found)
    }

    fn feed_of(&self, log: &Recovered, bytes: usize) -> (Feed, Arc<Handover>) {
        let (writer, from): (&Writer, Location) = (&log.writer, log.feed_from);
        let next = writer.durable_lsn() + 1;
        let handover = Arc::new(Handover::new(bytes, from, next, Arc::clone(&self.metrics)));
        let (state, storage) = (writer.state().clone(), Arc::new(self.sim.clone()));
        let feed = Feed::new(storage, Arc::clone(writer.catalogue()), Arc::clone(&handover), state, Vec::new());
        (feed, handover)
    }

    /// The feed of a log that was just opened, which also gets what is appended from now on.
    pub fn feed(&mut self, bytes: usize) -> Feed {
        let (feed, handover) = self.feed_of(self.log.as_ref().expect("open"), bytes);
        self.handover = Some(handover);
        feed
    }

    /// As the log's worker does when entries are durable.
    fn hand_over(&mut self, entries: &[Entry]) {
        let Some(handover) = self.handover.clone() else { return };
        let writer = self.writer();
        let blocks = entries.iter().zip(writer.locations()).filter_map(|(entry, at)| match entry {
            Entry::Block(block) => Some((at, block)),
            _ => None,
        });
        handover.put(blocks, writer.durable_lsn() + 1);
    }

    /// The entry that retires what is not needed any more; where the feed reads nothing is given up.
    pub fn retirement(&mut self) -> Option<Entry> {
        let pinned = self.handover.as_ref().map_or(u64::MAX, |handover| handover.pinned());
        self.writer().retirement(pinned)
    }

    /// Recycles what was retired durably.
    pub fn recycle(&mut self) -> Result<(), End> {
        let retired = self.writer().retired();
        self.writer().rack().hand_over(retired.iter().map(|s| (s.number, s.len)));
        self.spares()
    }

    /// Prepares spares and recycles what is retired.
    pub fn spares(&mut self) -> Result<(), End> {
        let rack = Arc::clone(self.writer().rack());
        let result = loop {
            match rack.work(&mut || {}) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.collect();
        Ok(result?)
    }

    /// Appends in as many groups as it takes; false if there is no room now.
    pub fn append(&mut self, entries: &[Entry]) -> Result<bool, End> {
        let mut rest = entries;
        while !rest.is_empty() {
            self.expected.attempt(rest);
            let appended = self.writer().append(rest);
            self.collect();
            let count = appended?;
            if count == 0 {
                return Ok(false);
            }
            self.expected.confirm(count).map_err(End::Violation)?;
            let (lsn, durable) = (self.writer().durable_lsn(), self.expected.durable.len());
            if lsn != durable as u64 {
                return Err(End::Violation(format!("LSN {lsn} is durable after {durable} entries")));
            }
            self.hand_over(&rest[..count]);
            rest = &rest[count..];
            self.spares()?;
        }
        Ok(true)
    }

    pub fn roll(&mut self) -> Result<(), End> {
        let rolled = self.writer().roll();
        self.collect();
        rolled?;
        self.spares()
    }

    pub fn retire(&mut self) -> Result<(), End> {
        let entry = self.retirement();
        if entry.is_some() && self.append(entry.as_slice())? { self.recycle() } else { Ok(()) }
    }

    /// A clean stop.
    pub fn close(&mut self) -> Result<(), End> {
        // With no room for the next segment it ends with an `Idle` frame instead.
        self.expected.attempt(&[Entry::Idle]);
        let closed = self.writer().close();
        self.collect();
        closed?;
        if self.writer().durable_lsn() > self.expected.durable.len() as u64 {
            self.expected.confirm(1).map_err(End::Violation)?;
        }
        self.log = None;
        Ok(())
    }

    /// The process is gone; the machine goes on as `next`.
    pub fn goes_on(&mut self, next: Sim) {
        (self.log, self.handover) = (None, None);
        self.sim = next;
        if self.watches {
            self.sim.watch();
        }
    }

    /// `wal check` finds nothing.
    pub fn inspect(&self) -> Result<(), String> {
        match inspect(&self.sim, Path::new(DIR)) {
            Ok(overview) if overview.is_damaged() => Err(format!("false alarm: {:?}", overview.findings)),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("can't be inspected: {error}")),
        }
    }
}
