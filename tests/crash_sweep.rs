//! The log on the simulated disk: a small life of appends, rolls, retirements and restarts, with a power cut, a kill or
//! an I/O error at every single operation, recovery included.
//!
//! The property: what recovery finds is the fold of a prefix of what was appended; everything that was durable is in it
//! and comes back once, in order, byte for byte; a crash is never reported as damage; recovering again changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::batch::payload_crc;
use forebay::record::{Block, BlockHeader, Partition};
use forebay::wal::catalogue::Location;
use forebay::wal::feed::Handover;
use forebay::wal::inspect::inspect;
use forebay::wal::recovery::{Recovered, recover};
use forebay::wal::writer::Writer;
use forebay::wal::{Entry, Feed, FeedItem, Options, State, WalError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const DIR: &str = "/wal";
const P: Partition = Partition { topic: 1, number: 0 };
const Q: Partition = Partition { topic: 1, number: 1 };

fn options(incarnation: u64) -> Options {
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    options.seed = Some(incarnation * 7919 + 1);
    options
}

fn block(partition: Partition, tenure: u32, first: i64, bytes: usize) -> Entry {
    let payload: Vec<u8> =
        (0..bytes).map(|i| (i as i64 * 31 + first * 7 + i64::from(partition.number)) as u8).collect();
    let header = BlockHeader {
        partition,
        first,
        next: first + 10,
        leader_epoch: 3,
        tenure,
        count: 10,
        digest: bytes as u32,
        payload_crc: payload_crc(&payload),
    };
    Entry::Block(Block { header, payload: Bytes::from(payload) })
}

fn owned(partition: Partition, tenure: u32, first: i64) -> Entry {
    Entry::Owned { partition, tenure, first, next: first, acked_entries: String::new() }
}

fn delivered(partition: Partition, next: i64, through_lsn: u64) -> Entry {
    let detail = format!("file {next}").into_bytes();
    Entry::Delivered { route: 0, partition, first: 0, next, through_lsn, keep_from: None, detail }
}

#[derive(Clone)]
enum Step {
    Append(Vec<Entry>),
    Idle,
    Retire,
    Roll,
    /// Clean stop and start.
    Restart,
    /// The process is killed and started again.
    Kill,
}

/// Fills several segments, delivers and retires some of them, restarts in both ways.
fn workload() -> Vec<Step> {
    use Step::{Append, Idle, Kill, Restart, Retire, Roll};
    let confirmed = |next| Entry::Confirmed { partition: P, tenure: 1, next };
    vec![
        Append(vec![owned(P, 1, 0), owned(Q, 1, 50)]),
        Append(vec![block(P, 1, 0, 100), block(Q, 1, 50, 5000)]),
        Idle,
        Append(vec![block(P, 1, 10, 9000), block(P, 1, 20, 1), confirmed(20)]),
        Append(vec![block(Q, 1, 60, 30_000), block(Q, 1, 70, 30_000), block(P, 1, 30, 700)]),
        Append(vec![delivered(P, 40, 9), delivered(Q, 60, 4)]),
        Retire,
        Kill,
        Append(vec![block(P, 1, 40, 4096), delivered(Q, 80, 8)]),
        Retire,
        Append(vec![Entry::Disowned { partition: P, tenure: 1, first: 40, next: 50 }, owned(P, 2, 40)]),
        Restart,
        Append(vec![block(P, 2, 40, 90_000), delivered(Q, 80, 8)]),
        Idle,
        Roll,
        Append(vec![delivered(P, 50, 17)]),
        Retire,
        Append(vec![block(P, 2, 50, 10)]),
    ]
}

/// One machine and what was asked of the log on it.
struct Life {
    sim: Sim,
    log: Option<Recovered>,
    incarnation: u64,
    /// Everything appended, in LSN order; what is beyond `durable` was under way.
    attempted: Vec<Entry>,
    durable: usize,
}

impl Life {
    fn new(sim: Sim) -> Self {
        Self { sim, log: None, incarnation: 0, attempted: Vec::new(), durable: 0 }
    }

    fn writer(&mut self) -> &mut Writer {
        &mut self.log.as_mut().expect("open").writer
    }

    fn open(&mut self) -> Result<(), WalError> {
        self.incarnation += 1;
        let storage: Arc<dyn Storage> = Arc::new(self.sim.clone());
        self.log = Some(recover(&storage, &options(self.incarnation))?);
        let recovered = self.writer().durable_lsn() as usize;
        assert!(recovered >= self.durable, "lost: {recovered} of {} durable", self.durable);
        assert!(recovered <= self.attempted.len(), "frames that nobody appended");
        self.attempted.truncate(recovered);
        self.durable = recovered;
        self.spares()
    }

    fn spares(&mut self) -> Result<(), WalError> {
        let rack = Arc::clone(self.writer().rack());
        while rack.work(&mut || {})? {}
        Ok(())
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), WalError> {
        let mut rest = entries;
        while !rest.is_empty() {
            self.attempted.truncate(self.durable);
            self.attempted.extend_from_slice(rest);
            let count = self.writer().append(rest)?;
            self.durable = self.writer().durable_lsn() as usize;
            rest = &rest[count..];
            self.spares()?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), WalError> {
        match step {
            Step::Append(entries) => self.append(entries)?,
            Step::Idle if self.writer().needs_idle() => self.append(&[Entry::Idle])?,
            Step::Idle => {}
            Step::Retire => {
                if let Some(entry) = self.writer().retirement(u64::MAX) {
                    self.append(&[entry])?;
                    let retired = self.writer().retired();
                    assert!(!retired.is_empty());
                    self.writer().rack().hand_over(retired.iter().map(|s| (s.number, s.len)));
                    self.spares()?;
                }
            }
            Step::Roll => {
                self.writer().roll()?;
                self.spares()?;
            }
            Step::Restart => {
                self.writer().close()?;
                self.log = None;
                self.open()?;
            }
            Step::Kill => {
                self.log = None;
                self.sim = self.sim.kill();
                self.open()?;
            }
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), WalError> {
        self.open()?;
        workload().iter().try_for_each(|step| self.step(step))
    }

    /// The same life on another machine, not running.
    fn on(&self, sim: Sim) -> Self {
        Self {
            sim,
            log: None,
            incarnation: self.incarnation + 1000,
            attempted: self.attempted.clone(),
            durable: self.durable,
        }
    }

    /// Opens and compares everything with what was appended.
    fn verify(&mut self) {
        self.assert_undamaged();
        self.open().expect("recovers");
        self.assert_undamaged();
        let log = self.log.as_ref().expect("open");
        let state = fold(log.writer.state().wal_id, &self.attempted);
        assert_eq!(log.writer.state(), &state, "state differs from the fold of what was appended");
        let found = blocks_of(&self.sim, log);
        // What was given up is forgotten together with the segments that held it.
        let wanted = |lsn: u64, b: &Block| lsn >= state.kept_lsn && !state.is_settled(lsn, &b.header);
        let expected: Vec<_> = blocks(&self.attempted).filter(|(lsn, b)| wanted(*lsn, b)).collect();
        let names =
            |lsn: u64, b: &Block| (lsn, b.header.partition.number, b.header.tenure, b.header.first, b.header.next);
        let found_names: Vec<_> = found.iter().map(|(lsn, b)| names(*lsn, b)).collect();
        let expected_names: Vec<_> = expected.iter().map(|(lsn, b)| names(*lsn, b)).collect();
        assert_eq!(found_names, expected_names, "blocks to deliver, state {state:#?}");
        for ((found_lsn, found), (lsn, block)) in found.iter().zip(expected) {
            assert_eq!((*found_lsn, found.header), (lsn, block.header));
            assert_eq!(found.payload, block.payload);
        }
    }

    fn assert_undamaged(&self) {
        if !self.sim.exists(Path::new(DIR)).unwrap() {
            return;
        }
        let overview = inspect(&self.sim, Path::new(DIR)).expect("readable");
        assert!(!overview.is_damaged(), "false alarm: {:?}", overview.findings);
    }
}

fn fold(wal_id: u128, entries: &[Entry]) -> State {
    let mut state = State::new(wal_id);
    for (i, entry) in entries.iter().enumerate() {
        state.apply(i as u64 + 1, entry).expect("allowed");
    }
    state
}

fn blocks(entries: &[Entry]) -> impl DoubleEndedIterator<Item = (u64, &Block)> {
    entries.iter().enumerate().filter_map(|(i, entry)| match entry {
        Entry::Block(block) => Some((i as u64 + 1, block)),
        _ => None,
    })
}

/// What the feed of a log that was just opened hands out.
fn blocks_of(sim: &Sim, log: &Recovered) -> Vec<(u64, Block)> {
    let (writer, from): (&Writer, Location) = (&log.writer, log.feed_from);
    let handover = Arc::new(Handover::new(1 << 20, from, writer.durable_lsn() + 1, Arc::new(Metrics::new())));
    let state = writer.state().clone();
    let mut feed = Feed::new(Arc::new(sim.clone()), Arc::clone(writer.catalogue()), handover, state, Vec::new());
    let mut found = Vec::new();
    while let Some(item) = feed.next(Duration::ZERO).expect("readable") {
        match item {
            FeedItem::Block { lsn, block } => found.push((lsn, block)),
            FeedItem::Planned(block) => panic!("{:?} was never planned", block.header),
            FeedItem::Corrupt(corrupt) => panic!("{corrupt:?}"),
        }
    }
    found
}

/// How many operations the whole life takes.
fn operations() -> u64 {
    let mut life = Life::new(Sim::new(1));
    let mut total = 0;
    life.open().unwrap();
    for step in workload() {
        if matches!(step, Step::Kill) {
            total += life.sim.operations();
        }
        life.step(&step).unwrap();
    }
    total += life.sim.operations();
    life.verify_running();
    total
}

impl Life {
    fn verify_running(&mut self) {
        self.log = None;
        self.sim = self.sim.kill();
        self.verify();
    }
}

/// Runs the life with something planned for operation `op`, counted over kills.
fn run_until(op: u64, plan: fn(&Sim, u64)) -> (Life, Result<(), WalError>) {
    let mut life = Life::new(Sim::new(op));
    plan(&life.sim, op);
    let mut left = op;
    let mut run = || -> Result<(), WalError> {
        life.open()?;
        for step in workload() {
            if matches!(step, Step::Kill) {
                left = left.saturating_sub(life.sim.operations());
                life.log = None;
                life.sim = life.sim.kill();
                plan(&life.sim, left);
                life.open()?;
            } else {
                life.step(&step)?;
            }
        }
        Ok(())
    };
    let result = run();
    (life, result)
}

fn with_context(context: &str, body: impl FnOnce()) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    if let Err(panic) = result {
        eprintln!("failed at {context}");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn the_whole_life_without_a_fault() {
    assert!(operations() > 100);
    let mut life = Life::new(Sim::new(1));
    life.run().unwrap();
    life.verify_running();
}

#[test]
fn a_power_cut_at_every_operation() {
    for op in 0..operations() {
        let (crashed, result) = run_until(op, Sim::crash_at);
        assert!(result.is_err() && crashed.sim.is_down(), "operation {op}");
        for seed in 0..8 {
            with_context(&format!("operation {op}, seed {seed}"), || {
                let mut life = crashed.on(crashed.sim.crash(seed));
                life.verify();
                let hash = life.writer().state().clone();
                life.log = None;
                let mut again = life.on(life.sim.crash(seed + 100));
                again.verify();
                assert_eq!(again.writer().state(), &hash, "recovering twice changed something");
                again.append(&[owned(P, 9, 900), block(P, 9, 900, 3000)]).unwrap();
                again.verify_running();
            });
        }
    }
}

#[test]
fn a_power_cut_at_every_operation_of_every_recovery() {
    for op in (0..operations()).step_by(3) {
        let (crashed, _) = run_until(op, Sim::crash_at);
        for second in 0.. {
            let mut life = crashed.on(crashed.sim.crash(second));
            life.sim.crash_at(second);
            let opened = life.open();
            if opened.is_ok() {
                break;
            }
            with_context(&format!("operation {op}, then operation {second} of recovery"), || {
                life.on(life.sim.crash(second + 7)).verify();
            });
        }
    }
}

#[test]
fn an_io_error_at_every_operation_then_a_kill_and_a_power_cut() {
    let mut survived = 0;
    for op in 0..operations() {
        let (failed, result) = run_until(op, Sim::fail_at);
        // A failed write or sync of a file's contents is survived in the next segment.
        survived += u64::from(result.is_ok());
        with_context(&format!("operation {op}"), || {
            let mut killed = failed.on(failed.sim.kill());
            killed.verify();
            killed.log = None;
            for seed in 0..4 {
                // What recovery found counts as durable now.
                killed.on(killed.sim.crash(seed)).verify();
            }
            for seed in 0..4 {
                failed.on(failed.sim.crash(seed)).verify();
            }
        });
    }
    assert!(survived > 20, "{survived} failures were survived");
    assert!(survived < operations(), "not even a failed directory sync stopped it");
}

/// A deterministic generator (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 8) % bound
    }
}

/// A step that the rules allow in this state.
fn any_step(state: &State, attempted: &[Entry], random: &mut Random) -> Step {
    let partition = [P, Q][random.below(2) as usize];
    let known = state.partitions.get(&partition).cloned().unwrap_or_default();
    if known.tenure == 0 {
        return Step::Append(vec![owned(partition, 1, 0)]);
    }
    let size = [1, 600, 3900, 4000, 20_000, 70_000][random.below(6) as usize];
    let bytes = 1 + random.below(size) as usize;
    let (tenure, at) = (known.tenure, known.admitted);
    match random.below(16) {
        0..=5 => {
            Step::Append((0..=random.below(3) as i64).map(|i| block(partition, tenure, at + 10 * i, bytes)).collect())
        }
        6 => Step::Append(vec![Entry::Empty { partition, tenure, first: at, next: at + 5 }]),
        7 => Step::Append(vec![Entry::Confirmed { partition, tenure, next: at }]),
        8 | 9 => {
            // Receipts end where blocks end.
            let mut ends =
                blocks(attempted).map(|(_, b)| b.header).filter(|h| h.partition == partition).map(|h| h.next);
            let end = if random.below(2) == 0 { ends.next_back().filter(|end| *end <= at) } else { None };
            Step::Append(vec![delivered(partition, end.unwrap_or(at), state.lsn)])
        }
        10 => {
            let (from, first) = (known.acked.max(known.delivered()).max(0), at);
            let given_up = Entry::Disowned { partition, tenure, first: from, next: first };
            Step::Append(vec![given_up, owned(partition, tenure + 1, from)])
        }
        11 => Step::Idle,
        12 | 13 => Step::Retire,
        14 => Step::Roll,
        _ => Step::Restart,
    }
}

/// Many steps; now and then a kill, a power cut, an I/O error or a full disk.
fn random_life(seed: u64) {
    let mut random = Random(seed);
    let mut life = Life::new(Sim::new(seed));
    life.verify();
    for _ in 0..40 {
        match random.below(8) {
            0 => life.sim.crash_at(life.sim.operations() + random.below(12)),
            1 => life.sim.fail_at(life.sim.operations() + random.below(12)),
            _ => {}
        }
        for _ in 0..random.below(8) {
            let state = life.log.as_ref().unwrap().writer.state();
            let step = any_step(state, &life.attempted[..life.durable], &mut random);
            if life.step(&step).is_err() {
                break;
            }
        }
        let sim = if life.sim.is_down() || random.below(2) == 0 {
            life.sim.crash(random.below(1 << 40))
        } else {
            life.sim.kill()
        };
        life.log = None;
        life.sim = sim;
        life.incarnation += 1;
        life.verify();
    }
}

#[test]
fn random_lives() {
    let seeds = std::env::var("FOREBAY_SWEEP").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        with_context(&format!("seed {seed}"), || random_life(seed));
    }
}
