//! Random logs on the real disk, and random damage to copies of them.

use bytes::Bytes;
use forebay::io::Storage;
use forebay::io::disk::Disk;
use forebay::metrics::Metrics;
use forebay::record::batch::{BatchBuilder, Codec, HeaderRef, RecordRef, pack};
use forebay::record::{Block, BlockHeader, Partition, TopicId};
use forebay::wal::recovery::{Recovered, recover};
use forebay::wal::writer::Writer;
use forebay::wal::{Entry, Options, PlanRange};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const SECTOR: usize = 512;
const PAGE: usize = 4096;
const PARTITIONS: [Partition; 3] =
    [Partition { topic: 1, number: 0 }, Partition { topic: 1, number: 7 }, Partition { topic: 2, number: 0 }];

/// Numbers that follow from a seed.
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts it.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 32) as usize) % limit.max(1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let is_text = self.one_in(2);
        (0..len).map(|_| if is_text { b'a' + self.below(26) as u8 } else { self.next() as u8 }).collect()
    }
}

/// A log and what was done with it.
pub struct Life {
    seed: u64,
    dir: TempDir,
    log: Option<Recovered>,
    incarnations: u64,
    /// Where partitions stand, entries under way included.
    admitted: BTreeMap<Partition, i64>,
    tenures: BTreeMap<Partition, u32>,
    plans: u64,
    topics: u32,
}

impl Life {
    /// Lives a random life; not running any more at the end.
    pub fn live(seed: u64, rng: &mut Rng) -> Self {
        let (log, dir) = (None, tempfile::tempdir().unwrap());
        let (admitted, tenures) = (BTreeMap::new(), BTreeMap::new());
        let mut life = Self { seed, dir, log, incarnations: 0, admitted, tenures, plans: 0, topics: 2 };
        life.open();
        life.append(&[topic(1), topic(2), Entry::Route { route: 1, name: "file:/out".into() }]);
        for partition in PARTITIONS {
            let entry = life.owned(partition, rng.below(1000) as i64);
            life.append(&[entry]);
        }
        for _ in 0..30 + rng.below(60) {
            life.step(rng);
        }
        life.end(rng);
        life
    }

    fn options(&self) -> Options {
        let mut options = Options::new(self.dir.path(), Arc::new(Metrics::new()));
        options.segment_bytes = 64 << 10 << (self.seed % 3);
        options.seed = Some(self.seed * 1000 + self.incarnations);
        options
    }

    fn writer(&mut self) -> &mut Writer {
        &mut self.log.as_mut().unwrap().writer
    }

    fn open(&mut self) {
        self.incarnations += 1;
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        self.log = Some(recover(&storage, &self.options()).unwrap());
        self.spares();
        let state = self.writer().state().clone();
        self.admitted = state.partitions.iter().map(|(p, known)| (*p, known.admitted)).collect();
        self.tenures = state.partitions.iter().map(|(p, known)| (*p, known.tenure)).collect();
    }

    fn spares(&mut self) {
        let rack = Arc::clone(self.writer().rack());
        while rack.work(&mut || {}).unwrap() {}
    }

    fn append(&mut self, mut entries: &[Entry]) {
        while !entries.is_empty() {
            let count = self.writer().append(entries).unwrap();
            entries = &entries[count..];
            self.spares();
        }
    }

    fn step(&mut self, rng: &mut Rng) {
        match rng.below(20) {
            0 => self.writer().idle().unwrap(),
            1 => {
                self.writer().roll().unwrap();
                self.spares();
            }
            2 | 3 => self.retire(),
            4 => {
                self.writer().close().unwrap();
                self.log = None;
                self.open();
            }
            5 => {
                self.log = None;
                self.open();
            }
            _ => {
                let entries: Vec<Entry> = (0..=rng.below(4)).map(|_| self.entry(rng)).collect();
                self.append(&entries);
            }
        }
    }

    fn retire(&mut self) {
        if let Some(entry) = self.writer().retirement(u64::MAX) {
            self.append(&[entry]);
            let retired = self.writer().retired();
            self.writer().rack().hand_over(retired.iter().map(|s| (s.number, s.len)));
            self.spares();
        }
    }

    /// The last group may be torn, witnessed by an idle frame or a successor, or followed by nothing.
    fn end(&mut self, rng: &mut Rng) {
        match rng.below(5) {
            0 => self.writer().close().unwrap(),
            1 => self.writer().idle().unwrap(),
            2 => {}
            _ => self.tear(rng),
        }
        self.log = None;
    }

    /// A group of which the disk kept only some sectors.
    fn tear(&mut self, rng: &mut Rng) {
        let path = |number: u64| self.dir.path().join(format!("{number:020}.wal"));
        let number = self.log.as_ref().unwrap().writer.segment();
        let before = fs::read(path(number)).unwrap();
        let path = path(number);
        let entries: Vec<Entry> = (0..=rng.below(4)).map(|_| self.entry(rng)).collect();
        self.append(&entries);
        if self.writer().segment() != number {
            return;
        }
        let mut after = fs::read(&path).unwrap();
        for at in (0..after.len()).step_by(SECTOR) {
            if after[at..at + SECTOR] != before[at..at + SECTOR] && rng.one_in(3) {
                after[at..at + SECTOR].copy_from_slice(&before[at..at + SECTOR]);
            }
        }
        fs::write(path, after).unwrap();
    }

    fn owned(&mut self, partition: Partition, next: i64) -> Entry {
        let tenure = self.tenures.entry(partition).or_default();
        *tenure += 1;
        self.admitted.insert(partition, next);
        Entry::Owned { partition, tenure: *tenure, first: next, next, acked_entries: format!("abc:{next}") }
    }

    fn entry(&mut self, rng: &mut Rng) -> Entry {
        let partition = PARTITIONS[rng.below(3)];
        let (tenure, first) = (self.tenures[&partition], self.admitted[&partition]);
        let next = first + 1 + rng.below(9) as i64;
        match rng.below(24) {
            0 | 1 => {
                self.admitted.insert(partition, next);
                Entry::Empty { partition, tenure, first, next }
            }
            2 => {
                self.admitted.insert(partition, next);
                Entry::Gap { partition, tenure, first, next, reason: "retention: gone before it was read: ü".into() }
            }
            3 => Entry::Confirmed { partition, tenure, next: first },
            4..=7 => {
                let through_lsn = self.writer().durable_lsn();
                let next = self.writer().state().partitions[&partition].admitted;
                let keep_from = rng.one_in(3).then_some(next);
                let detail = {
                    let len = rng.below(60);
                    rng.bytes(len)
                };
                Entry::Delivered { route: 0, partition, first: 0, next, through_lsn, keep_from, detail }
            }
            8 => Entry::Named { route: 0, partition, name: format!("out/{first}.jsonl") },
            9 => {
                self.topics += 1;
                topic(self.topics)
            }
            10 => {
                self.plans += 1;
                let range = PlanRange { topic: 2, partition: 0, from: 1 << 40, until: 2 << 40 };
                let ranges = vec![range; rng.below(3)];
                Entry::Plan { route: 1, id: self.plans, time_ms: -1, ranges, blocks: vec![] }
            }
            11 => Entry::PlanDropped { route: 1, id: self.plans },
            12 => self.owned(partition, next),
            13 => Entry::Disowned { partition, tenure, first: next - 5, next },
            14 => Entry::Returning { partition, tenure, first: first - 1, next: first },
            _ => {
                self.admitted.insert(partition, next);
                block(partition, tenure, first, next, rng)
            }
        }
    }

    /// Copies the files.
    pub fn copy_to(&self, dir: &Path) {
        for path in files(self.dir.path(), "") {
            fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn topic(number: u32) -> Entry {
    Entry::Topic { number, name: format!("topic-{number}"), id: TopicId([number as u8; 16]) }
}

fn block(partition: Partition, tenure: u32, first: i64, next: i64, rng: &mut Rng) -> Entry {
    let mut builder = BatchBuilder::new(Vec::new(), first);
    let limit = *[40, 40, 900, 9000, 60_000].get(rng.below(5)).unwrap();
    let limit = if rng.one_in(150) { 2 << 20 } else { limit };
    for offset in first..next {
        let [key, value] =
            [20, limit].map(|limit| rng.below(limit)).map(|len| (!rng.one_in(6)).then(|| rng.bytes(len)));
        let name = rng.bytes(5);
        let headers: [HeaderRef<'_>; 2] = [(&name, None), (b"source", Some(b"shop"))];
        let timestamp = 1_700_000_000_000 + rng.below(1 << 20) as i64 - (1 << 19);
        let headers = &headers[..rng.below(3)];
        builder.push(&RecordRef { offset, timestamp, key: key.as_deref(), value: value.as_deref(), headers });
    }
    let encoded = builder.finish(next, 3);
    let (count, digest, payload_crc) = (encoded.count, encoded.digest, encoded.payload_crc);
    let header = BlockHeader { partition, first, next, leader_epoch: 3, tenure, count, digest, payload_crc };
    let block = Block { header, payload: Bytes::from(encoded.buffer) };
    Entry::Block(match rng.below(8) {
        0 => pack(block, Codec::Lz4),
        1 => pack(block, Codec::Zstd),
        _ => block,
    })
}

fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file() && path.to_str().unwrap().ends_with(end));
    files.sort();
    files
}

/// Damages a copy in one to three places; says how.
pub fn damage(dir: &Path, rng: &mut Rng) -> String {
    let times = 1 + rng.below(3) / 2 + rng.below(3) / 2;
    (0..times).map(|_| damage_once(dir, rng)).collect::<Vec<_>>().join("; ")
}

fn damage_once(dir: &Path, rng: &mut Rng) -> String {
    let segments = files(dir, ".wal");
    let Some(path) = segments.get(rng.below(segments.len())) else { return "nothing left".to_owned() };
    let other = &segments[rng.below(segments.len())];
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut bytes = fs::read(path).unwrap();
    let pages = (bytes.len() / PAGE).max(1);
    // Half of the time where most of the bytes that matter are.
    let page = if rng.one_in(2) { rng.below(pages) } else { rng.below(pages.min(12)) };
    let at = page * PAGE;
    let how = rng.below(100);
    let told = match how {
        0..=39 => {
            let among = if rng.one_in(2) { PAGE } else { 120 };
            let bit = rng.below(among * 8);
            if let Some(byte) = bytes.get_mut(at + bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            format!("bit {bit} of page {page}")
        }
        40..=54 => {
            let (sector, len) = (at + rng.below(8) * SECTOR, if rng.one_in(2) { SECTOR } else { PAGE });
            let len = len.min(bytes.len().saturating_sub(sector));
            bytes.get_mut(sector..sector + len).unwrap_or_default().fill(0);
            format!("{len} bytes zeroed at {sector}")
        }
        55..=74 => {
            let from = fs::read(other).unwrap();
            let source = rng.below((from.len() / PAGE).max(1)) * PAGE;
            let source = if rng.one_in(2) { source } else { at };
            if at + PAGE <= bytes.len() && source + PAGE <= from.len() {
                bytes[at..at + PAGE].copy_from_slice(&from[source..source + PAGE]);
            }
            format!("page at {source} of {} put at {at}", other.display())
        }
        75..=79 => {
            let page = rng.bytes(PAGE.min(bytes.len().saturating_sub(at)));
            bytes[at..at + page.len()].copy_from_slice(&page);
            format!("noise at {at}")
        }
        80..=87 => {
            let len = rng.below(bytes.len());
            bytes.truncate(if rng.one_in(2) { len } else { len / PAGE * PAGE });
            format!("cut to {}", bytes.len())
        }
        88..=91 => {
            fs::remove_file(path).unwrap();
            return format!("{name} removed");
        }
        92..=95 => {
            let number: u64 = name[..20].parse().unwrap();
            fs::copy(path, dir.join(format!("{:020}.wal", number + 1 + rng.below(2) as u64))).unwrap();
            return format!("{name} copied to a later number");
        }
        96..=98 => {
            fs::copy(path, other).unwrap();
            return format!("{name} copied over {}", other.display());
        }
        _ => {
            fs::write(dir.join("notes.txt"), "x").unwrap();
            return "a file that does not belong there".to_owned();
        }
    };
    fs::write(path, bytes).unwrap();
    format!("{name}: {told}")
}
