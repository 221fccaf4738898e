//! One machine through all its lives: a simulated disk, a modelled log, the file sink, and what its readers see.
//!
//! The log lives on the same machine: names and receipts, of which a power cut takes those not synced, and blocks, which
//! are gone once a durable receipt lets them go.

use forebay::io::sim::Sim;
use forebay::io::{File, IoError, Storage};
use forebay::record::batch::{BatchBuilder, RecordRef, records};
use forebay::record::{Block, BlockHeader, Partition};
use forebay::sink::file::{FileOptions, FileSink};
use forebay::sink::render::{Format, Renderer};
use forebay::sink::{Receipt, Restored, Sink, SinkError, SinkLog, Source};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const PARTITIONS: i32 = 2;
pub const BLOCKS: i64 = 9;

pub fn source(number: i32) -> Source {
    Source { partition: Partition { topic: 1, number }, topic: "orders".into(), incarnation: 0 }
}

pub fn block(number: i32, first: i64, records: i64, size: usize) -> Block {
    let mut batch = BatchBuilder::new(Vec::new(), first);
    for offset in first..first + records {
        let value = format!("{number}:{offset:06} {}", "x".repeat(size));
        let (key, value) = (Some(&b"\xffkey"[..]), Some(value.as_bytes()));
        batch.push(&RecordRef { offset, timestamp: 1_700_000_000_000, key, value, headers: &[] });
    }
    let next = first + records;
    let batch = batch.finish(next, -1);
    let header = BlockHeader {
        partition: source(number).partition,
        first,
        next,
        leader_epoch: -1,
        tenure: 1,
        count: batch.count,
        digest: batch.digest,
        payload_crc: batch.payload_crc,
    };
    Block { header, payload: batch.buffer.into() }
}

/// Blocks of very different sizes, so that file ends fall everywhere in their pages.
pub fn workload() -> Vec<Vec<Block>> {
    let of = |number: i32| {
        let mut first = 10;
        let mut blocks = Vec::new();
        for at in 0..BLOCKS {
            let (count, size) = (1 + (at + i64::from(number)) % 4, [30, 700, 150, 2600, 5][(at % 5) as usize]);
            blocks.push(block(number, first, count, size));
            first += count + at % 2;
        }
        blocks
    };
    (0..PARTITIONS).map(of).collect()
}

pub fn rendered(format: Format, blocks: &[Block]) -> Vec<u8> {
    let mut out = Vec::new();
    for block in blocks {
        let renderer = Renderer::new(format, &source(block.header.partition.number));
        for record in records(&block.payload) {
            renderer.record(&record.unwrap(), &mut out);
        }
    }
    out
}

#[derive(Clone, Debug)]
pub enum Entry {
    Named(Partition, String),
    Receipt(Receipt),
}

/// The modelled log. Every append and sync is an operation of the machine, so that it can stop there too.
#[derive(Debug)]
pub struct Log {
    file: Arc<dyn File>,
    blocks: Vec<Vec<Block>>,
    state: Mutex<(Vec<Entry>, usize)>,
    missing: Option<Missing>,
}

/// A rule that a test leaves out on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    FileSync,
    DirSync,
    NameSync,
    ReceiptSync,
    KeptTail,
}

impl Log {
    pub fn open(sim: &Sim, entries: Vec<Entry>, missing: Option<Missing>) -> Result<Self, SinkError> {
        let path = Path::new("/log");
        let file = match sim.open(path, true) {
            Ok(file) => file,
            Err(_) => sim.create_new(path)?,
        };
        let synced = entries.len();
        Ok(Self { file, blocks: workload(), state: Mutex::new((entries, synced)), missing })
    }

    fn append(&self, entry: Entry) -> Result<(), SinkError> {
        self.file.write_at(0, &[IoSlice::new(b"entry")])?;
        self.state.lock().unwrap().0.push(entry);
        Ok(())
    }

    fn sync(&self) -> Result<(), SinkError> {
        self.file.sync_data()?;
        let mut state = self.state.lock().unwrap();
        state.1 = state.0.len();
        Ok(())
    }

    /// What recovery finds: everything after a kill, what was synced and perhaps more after a power cut.
    fn after(&self, power_cut: Option<u64>) -> Vec<Entry> {
        let (mut entries, synced) = self.state.lock().unwrap().clone();
        if let Some(seed) = power_cut {
            entries.truncate(synced + (seed % 7) as usize % (entries.len() - synced + 1));
        }
        entries
    }

    fn restored(&self) -> Vec<Restored> {
        let (entries, synced) = self.state.lock().unwrap().clone();
        (0..PARTITIONS).map(|number| fold(&entries[..synced], number)).collect()
    }
}

pub fn fold(entries: &[Entry], number: i32) -> Restored {
    let source = source(number);
    let mut restored = Restored { source, receipt: None, named: None };
    for entry in entries {
        match entry {
            Entry::Named(p, name) if p.number == number => restored.named = Some(name.clone()),
            Entry::Receipt(receipt) if receipt.partition.number == number => {
                restored.receipt = Some(receipt.clone());
            }
            _ => {}
        }
    }
    restored
}

impl SinkLog for Log {
    fn name_output(&self, partition: Partition, name: &str) -> Result<(), SinkError> {
        self.append(Entry::Named(partition, name.into()))?;
        if self.missing == Some(Missing::NameSync) { Ok(()) } else { self.sync() }
    }

    fn read_blocks(&self, partition: Partition, first: i64, next: i64) -> Result<Vec<Block>, SinkError> {
        let (entries, synced) = self.state.lock().unwrap().clone();
        let receipt = fold(&entries[..synced], partition.number).receipt.unwrap();
        let kept = receipt.keep_from.filter(|_| self.missing != Some(Missing::KeptTail));
        if kept.is_none_or(|kept| kept > first) {
            return Err(SinkError::Fatal(format!("[{first}, {next}) was retired")));
        }
        let blocks = &self.blocks[partition.number as usize];
        let within = blocks.iter().filter(|b| b.header.first >= first && b.header.next <= next);
        Ok(within.cloned().collect())
    }
}

/// The machine's disk with some syncs left out.
#[derive(Debug)]
pub struct Lax(pub Sim, pub Option<Missing>);

#[derive(Debug)]
pub struct LaxFile(Arc<dyn File>);

impl Storage for Lax {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, IoError> {
        self.wrap(self.0.create_new(path)?)
    }
    fn open(&self, path: &Path, write: bool) -> Result<Arc<dyn File>, IoError> {
        self.wrap(self.0.open(path, write)?)
    }
    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        self.0.list(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.0.rename(from, to)
    }
    fn unlink(&self, path: &Path) -> Result<(), IoError> {
        self.0.unlink(path)
    }
    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        if self.1 == Some(Missing::DirSync) { Ok(()) } else { self.0.sync_dir(dir) }
    }
    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError> {
        self.0.create_dir_all(dir)
    }
    fn exists(&self, path: &Path) -> Result<bool, IoError> {
        self.0.exists(path)
    }
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, IoError> {
        self.0.lock(path)
    }
    fn free_bytes(&self, dir: &Path) -> Result<u64, IoError> {
        self.0.free_bytes(dir)
    }
}

impl Lax {
    #[allow(clippy::unnecessary_wraps)]
    fn wrap(&self, file: Arc<dyn File>) -> Result<Arc<dyn File>, IoError> {
        Ok(if self.1 == Some(Missing::FileSync) { Arc::new(LaxFile(file)) } else { file })
    }
}

impl File for LaxFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.0.write_at(position, slices)
    }
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        self.0.read_at(position, buffer)
    }
    fn len(&self) -> Result<u64, IoError> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> Result<(), IoError> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> Result<(), IoError> {
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub struct Setup {
    pub format: Format,
    pub roll_bytes: u64,
    pub roll_age: Duration,
    pub missing: Option<Missing>,
}

/// One machine through all its lives.
pub struct World {
    pub setup: Setup,
    pub sim: Sim,
    pub entries: Vec<Entry>,
    /// Every published file any reader ever saw.
    pub seen: BTreeMap<PathBuf, Vec<u8>>,
}

impl World {
    pub fn new(setup: &Setup, seed: u64) -> Self {
        let sim = Sim::new(seed);
        // The volume the sink writes to is there before the first life.
        sim.create_dir_all(Path::new("/out")).unwrap();
        Self { setup: setup.clone(), sim, entries: Vec::new(), seen: BTreeMap::new() }
    }

    /// One life, from the start to a clean stop or to whatever ends it earlier; then, as `power_cut` says, what is left.
    pub fn live(&mut self, power_cut: Option<u64>) -> Result<(), SinkError> {
        let mut result = Ok(());
        let log = Log::open(&self.sim, self.entries.clone(), self.setup.missing);
        match log {
            Ok(log) => {
                result = self.deliver(&log);
                self.entries = log.after(power_cut);
            }
            Err(error) => result = result.and(Err(error)),
        }
        self.observe();
        self.sim = power_cut.map_or_else(|| self.sim.kill(), |seed| self.sim.crash(seed));
        self.observe();
        result
    }

    pub fn deliver(&self, log: &Log) -> Result<(), SinkError> {
        let storage = Arc::new(Lax(self.sim.clone(), self.setup.missing));
        let Setup { format, roll_bytes, roll_age, .. } = self.setup;
        let options = FileOptions { format, roll_bytes, roll_age, max_open: 1, sync_threads: 1 };
        let mut sink = FileSink::new(storage, Path::new("/out"), options);
        let keep = |receipts: Vec<Receipt>| {
            receipts.into_iter().try_for_each(|receipt| log.append(Entry::Receipt(receipt)))?;
            if log.missing == Some(Missing::ReceiptSync) { Ok(()) } else { log.sync() }
        };
        let restored = log.restored();
        sink.restore(&restored, log)?;
        let next = |r: &Restored| r.receipt.as_ref().map_or(i64::MIN, |r| r.next);
        let next: Vec<i64> = restored.iter().map(next).collect();
        let left = |number: i32| {
            let blocks = &log.blocks[number as usize];
            blocks.iter().filter(|b| b.header.first >= next[number as usize]).cloned().collect::<Vec<_>>()
        };
        let (zero, one) = (left(0), left(1));
        for at in (0..zero.len().max(one.len())).step_by(2) {
            let of = |number: i32, blocks: &[Block]| {
                let taken = blocks.iter().skip(at).take(2).cloned();
                taken.map(|block| (source(number), block)).collect::<Vec<_>>()
            };
            let mut batch = of(0, &zero);
            batch.extend(of(1, &one));
            deliver_patiently(&mut sink, &batch, log, &self.sim).and_then(keep)?;
            if at % 4 == 2 {
                sink.tick(false, log).and_then(keep)?;
            }
        }
        // As the contract says: until there is nothing left to publish.
        for _ in 0..3 {
            sink.tick(true, log).and_then(keep)?;
        }
        Ok(())
    }

    /// What readers see: a published file is complete lines of the right records, and never changes.
    fn observe(&mut self) {
        for (path, bytes) in self.sim.files() {
            if path.extension().is_some_and(|e| e == self.setup.format.extension()) {
                let before = self.seen.entry(path.clone()).or_insert_with(|| bytes.clone());
                assert_eq!(*before, bytes, "{} changed after it was published", path.display());
            }
        }
    }

    /// After a clean stop everything is published, and no power cut takes any of it back.
    pub fn check(&mut self) {
        let blocks = workload();
        for seed in 0..4 {
            let files = self.sim.crash(seed).files();
            for number in 0..PARTITIONS {
                let dir = PathBuf::from(format!("/out/topic=orders/partition={number}"));
                let below: Vec<_> = files.iter().filter(|(path, _)| path.starts_with(&dir)).collect();
                for (path, _) in &below {
                    let published = path.extension().is_some_and(|e| e == self.setup.format.extension());
                    assert!(published, "{} is left over", path.display());
                }
                let all: Vec<u8> = below.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
                let expected = rendered(self.setup.format, &blocks[number as usize]);
                assert!(all == expected, "partition {number} has {} of {} bytes", all.len(), expected.len());
            }
            for (path, bytes) in &self.seen {
                assert_eq!(files.get(path), Some(bytes), "{} was seen by readers", path.display());
            }
        }
    }
}

/// Waits out a full disk, the way the processor does; room comes back after the third try.
pub fn deliver_patiently(
    sink: &mut FileSink,
    batch: &[(Source, Block)],
    log: &Log,
    sim: &Sim,
) -> Result<Vec<Receipt>, SinkError> {
    for _ in 0..3 {
        match sink.deliver(batch, log) {
            Err(SinkError::Retry { .. }) => {}
            other => return other,
        }
    }
    sim.set_capacity(None);
    sink.deliver(batch, log)
}

/// Directories that a failed sync lost can't be made durable by syncing again: these are here from the start.
pub fn with_dirs(setup: &Setup, seed: u64) -> World {
    let world = World::new(setup, seed);
    for number in 0..PARTITIONS {
        let dir = format!("/out/topic=orders/partition={number}");
        world.sim.create_dir_all(Path::new(&dir)).unwrap();
    }
    world
}
