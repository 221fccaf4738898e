//! The order of a real run's system calls: what must be durable before what.
//!
//! Durable here means: written by a call that ended before the sync began that ended well, in a file whose name was
//! synced in the same way. What a failed sync was to cover is never durable, whatever a later one says.

use super::trace::{Call, Made, Moment, Piece, Trace};
use bytes::Bytes;
use forebay::wal::Entry;
use forebay::wal::format::frame::{FRAME_HEADER, FrameHeader};
use forebay::wal::format::header::{HEADER_BYTES, SegmentHeader};
use std::collections::{HashMap, HashSet};

/// What a frame says that matters here.
#[derive(Clone, Debug)]
enum Fact {
    Admitted { partition: i32, next: i64 },
    RetiredBelow(u64),
    Named(String),
    Receipt { name: String, len: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Written,
    Durable,
    Lost,
}

#[derive(Debug)]
struct Write {
    end: u64,
    /// Each with the end of its frame.
    facts: Vec<(u64, Fact)>,
    done: bool,
    fate: Fate,
}

#[derive(Debug, Default)]
struct File {
    salt: u64,
    writes: HashMap<usize, Write>,
    is_named: bool,
    /// Where a write was cut short, and what it did not get to: the next one from there does.
    rest: Option<(u64, Vec<(u64, Fact)>)>,
    /// From an earlier trace: everything in it counts as durable.
    reach: u64,
}

/// What was looked at, and what was wrong.
#[derive(Debug, Default)]
pub struct Report {
    pub commits: usize,
    pub receipts: usize,
    pub removed: usize,
    pub created: usize,
    /// Frames that could not be seen because a buffer was cut.
    pub unseen: usize,
    pub violations: Vec<String>,
}

/// The rules, applied to one trace after the other.
#[derive(Debug, Default)]
pub struct Order {
    files: HashMap<String, File>,
    admitted: HashMap<i32, i64>,
    retired_below: u64,
    named: HashSet<String>,
    /// Writes and names that a sync under way will cover.
    covered: HashMap<usize, Vec<(String, usize)>>,
    covered_names: HashMap<usize, Vec<String>>,
    pub report: Report,
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn segment(path: &str) -> Option<u64> {
    base(path).strip_suffix(".wal")?.parse().ok()
}

impl Order {
    /// Looks through a whole trace.
    pub fn check(&mut self, trace: &Trace) {
        for moment in &trace.moments {
            match *moment {
                Moment::Begin(i) => self.begin(i, &trace.calls[i].call),
                Moment::End(i, ok) => self.end(i, ok, &trace.calls[i]),
            }
        }
        // The next trace numbers its calls anew.
        self.covered.clear();
        self.covered_names.clear();
        for file in self.files.values_mut() {
            let durable = file.writes.values().filter(|w| w.fate == Fate::Durable).map(|w| w.end).max();
            file.reach = file.reach.max(durable.unwrap_or_default());
            let kept = std::mem::take(&mut file.writes).into_values().enumerate();
            file.writes = kept.map(|(i, write)| (usize::MAX - i, write)).collect();
        }
    }

    fn wrong(&mut self, text: String) {
        self.report.violations.push(text);
    }

    fn begin(&mut self, i: usize, call: &Call) {
        match call {
            Call::Write { path, pieces, position } => self.write(i, path, pieces, *position),
            Call::Sync(path) => {
                let done = |file: &File| {
                    let open = file.writes.iter().filter(|(_, w)| w.done && w.fate == Fate::Written);
                    open.map(|(i, _)| (path.clone(), *i)).collect::<Vec<_>>()
                };
                let writes = self.files.get(path).map(done).unwrap_or_default();
                self.covered.insert(i, writes);
                let inside = self.files.iter().filter(|(name, file)| parent(name) == path && !file.is_named);
                self.covered_names.insert(i, inside.map(|(name, _)| name.clone()).collect());
            }
            Call::Rename(from, _) | Call::Unlink(from) => {
                if let Some(number) = segment(from) {
                    self.report.removed += 1;
                    // What has no durable name holds nothing durable: it was not used.
                    let is_named = self.files.get(from).is_none_or(|file| file.is_named);
                    if is_named && number >= self.retired_below {
                        let below = self.retired_below;
                        self.wrong(format!("segment {number} goes, durably retired is only what is below {below}"));
                    }
                }
            }
            Call::Create(path) => {
                if let Some(name) =
                    path.strip_suffix(".part").and_then(|path| path.find("topic=").map(|at| &path[at..]))
                {
                    self.report.created += 1;
                    if !self.named.contains(name) {
                        self.wrong(format!("{name} is made before its name is durable in the log"));
                    }
                }
            }
            Call::Send(bytes) => {
                for (partition, offset) in super::kafka::committed(bytes) {
                    self.commit(partition, offset);
                }
            }
            Call::Truncate(_) => {}
        }
    }

    fn end(&mut self, i: usize, ok: bool, made: &Made) {
        match &made.call {
            Call::Write { path, position, .. } => {
                let Some(file) = self.files.get_mut(path) else { return };
                let Some(write) = file.writes.get_mut(&i) else { return };
                write.done = ok;
                if made.is_short() {
                    write.end = position.unwrap_or_default() + made.returned.unwrap_or_default() as u64;
                    let (written, rest) = write.facts.drain(..).partition(|(end, _)| *end <= write.end);
                    (write.facts, file.rest) = (written, Some((write.end, rest)));
                }
            }
            Call::Sync(_) => {
                for (path, i) in self.covered.remove(&i).unwrap_or_default() {
                    if let Some(write) = self.files.get_mut(&path).and_then(|file| file.writes.get_mut(&i)) {
                        write.fate = if ok { Fate::Durable } else { Fate::Lost };
                    }
                    self.fold(&path);
                }
                for path in self.covered_names.remove(&i).unwrap_or_default() {
                    if let Some(file) = self.files.get_mut(&path).filter(|_| ok) {
                        file.is_named = true;
                        self.fold(&path);
                    }
                }
            }
            Call::Rename(from, to) if ok => {
                let mut file = self.files.remove(from).unwrap_or_default();
                file.is_named = false;
                self.files.insert(to.clone(), file);
            }
            Call::Unlink(path) if ok => drop(self.files.remove(path)),
            Call::Create(path) if ok => {
                self.files.entry(path.clone()).or_default();
            }
            _ => {}
        }
    }

    /// Takes in what has become durable in a segment.
    fn fold(&mut self, path: &str) {
        let Some(file) = self.files.get_mut(path).filter(|file| file.is_named) else { return };
        for write in file.writes.values_mut().filter(|write| write.fate == Fate::Durable) {
            for (_, fact) in write.facts.drain(..) {
                match fact {
                    Fact::Admitted { partition, next } => {
                        let known = self.admitted.entry(partition).or_default();
                        *known = (*known).max(next);
                    }
                    Fact::RetiredBelow(below) => self.retired_below = self.retired_below.max(below),
                    Fact::Named(name) => drop(self.named.insert(name)),
                    Fact::Receipt { .. } => {}
                }
            }
        }
    }

    fn write(&mut self, i: usize, path: &str, pieces: &[Piece], position: Option<u64>) {
        if base(path) == super::driver::COMMITS {
            let text: String = pieces.iter().map(|p| String::from_utf8_lossy(&p.shown).into_owned()).collect();
            if let Ok(offset) = text.trim().parse() {
                self.commit(0, offset);
            }
            return;
        }
        let file = self.files.entry(path.to_owned()).or_default();
        let len: u64 = pieces.iter().map(|piece| piece.len as u64).sum();
        let position = position.unwrap_or_default();
        let is_log = path.ends_with(".wal") || path.ends_with(".spare");
        let rest = file.rest.take_if(|(from, _)| *from == position);
        let (facts, unseen) = match rest {
            Some((_, facts)) => (facts, 0),
            None if is_log => facts(file, pieces, position),
            None => (Vec::new(), 0),
        };
        self.report.unseen += unseen;
        let receipts: Vec<Fact> = facts.iter().map(|(_, f)| f.clone()).collect();
        file.writes.insert(i, Write { end: position + len, facts, done: false, fate: Fate::Written });
        // What a new segment begins with was logged before.
        for receipt in receipts.into_iter().filter(|_| path.ends_with(".wal")) {
            if let Fact::Receipt { name, len } = receipt {
                self.receipt(&name, len);
            }
        }
    }

    fn commit(&mut self, partition: i32, offset: i64) {
        self.report.commits += 1;
        let durable = self.admitted.get(&partition).copied().unwrap_or_default();
        if offset > durable {
            self.wrong(format!("partition {partition} is committed up to {offset}, durable is {durable}"));
        }
    }

    fn receipt(&mut self, name: &str, len: u64) {
        self.report.receipts += 1;
        let ours = |path: &str| path.strip_suffix(".part").unwrap_or(path).ends_with(name);
        let found = self.files.iter().find(|(path, _)| ours(path));
        let durable = found.map(|(_, file)| {
            let ends = file.writes.values().filter(|write| write.fate == Fate::Durable).map(|write| write.end);
            (ends.max().unwrap_or_default().max(file.reach), file.is_named)
        });
        match durable {
            Some((reach, true)) if reach >= len => {}
            other => self.wrong(format!("a receipt says {len} bytes of {name}; durable and named: {other:?}")),
        }
    }
}

/// The bytes `at..at + want` of a write, if they were shown.
fn shown(pieces: &[Piece], at: u64, want: usize) -> Option<&[u8]> {
    let mut start = 0;
    for piece in pieces {
        let end = start + piece.len as u64;
        if at < end {
            let from = (at - start) as usize;
            return piece.shown.get(from..from + want);
        }
        start = end;
    }
    None
}

/// The frames of a write to a segment with their ends, and how many could not be seen.
fn facts(file: &mut File, pieces: &[Piece], position: u64) -> (Vec<(u64, Fact)>, usize) {
    let (mut facts, mut at) = (Vec::new(), 0);
    let len: u64 = pieces.iter().map(|piece| piece.len as u64).sum();
    if position == 0 {
        let page = shown(pieces, 0, HEADER_BYTES).and_then(|page| SegmentHeader::decode(page).ok());
        let Some(header) = page else { return (facts, 0) };
        file.salt = header.salt;
        at = 2 * HEADER_BYTES as u64;
        facts.push((at, Fact::RetiredBelow(header.retired_below)));
    }
    while at < len {
        let Some(bytes) = shown(pieces, at, FRAME_HEADER) else { return (facts, 1) };
        let Ok(header) = FrameHeader::decode(bytes, file.salt, position + at) else { break };
        let end = position + at + header.frame_len();
        let block = header.block().map(|block| (block.partition.number, block.next));
        if let Some((partition, next)) = block {
            facts.push((end, Fact::Admitted { partition, next }));
        } else if let Some(payload) = shown(pieces, at + FRAME_HEADER as u64, header.payload_len as usize) {
            facts.extend(fact(&header, payload).map(|fact| (end, fact)));
        } else if header.kind.has_lsn() && header.payload_len > 0 {
            return (facts, 1);
        }
        at += header.frame_len();
    }
    (facts, 0)
}

fn fact(header: &FrameHeader, payload: &[u8]) -> Option<Fact> {
    let partition = header.partition.number;
    match Entry::decode(header, &Bytes::copy_from_slice(payload)).ok()?? {
        Entry::Empty { next, .. } | Entry::Gap { next, .. } | Entry::Owned { next, .. } => {
            Some(Fact::Admitted { partition, next })
        }
        Entry::RetiredBelow { segment, .. } => Some(Fact::RetiredBelow(segment)),
        Entry::Named { name, .. } => Some(Fact::Named(name)),
        Entry::Delivered { detail, .. } => receipt(&detail),
        _ => None,
    }
}

/// The file sink's words: see `wal_format.md`.
fn receipt(detail: &[u8]) -> Option<Fact> {
    let len = u64::from_le_bytes(detail.get(2..10)?.try_into().ok()?);
    let name = std::str::from_utf8(detail.get(36..)?).ok()?.to_owned();
    Some(Fact::Receipt { name, len })
}
