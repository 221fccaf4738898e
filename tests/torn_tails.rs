//! Torn tails are no corruption: the power is cut in the middle of a log's last group, what was on its way is kept, lost,
//! garbled, shifted or unreadable, over fresh segments and over recycled ones full of old frames. The log opens each time
//! and holds everything that was durable.
//!
//! `FOREBAY_TAILS` says how many different tails (`scripts/torn-tails.sh`), `FOREBAY_TAIL_LIFE` runs one life.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod crash_world;

use crash_world::entries::{P, Q, block};
use crash_world::life::{DIR, End, Expected, Life, Moment};
use crash_world::seen::Seen;
use crash_world::steps::{Random, Step, start};
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::wal::Entry;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Tails per moment of the last append.
const TAILS: u64 = 40;
const SECTOR: usize = 512;

/// Before the last group: what fills, recycles and ends segments.
const BEFORE: [Step; 9] =
    [Step::Small, Step::Two, Step::Cross, Step::Fill, Step::Roll, Step::Retire, Step::Retire, Step::Idle, Step::Kill];

struct Tails {
    wanted: u64,
    seen: Seen,
    made: AtomicU64,
    refused: AtomicU64,
    /// Tails of which a part, but not all, was kept.
    parted: AtomicU64,
    /// Those that were damaged beyond what a power cut does.
    mangled: AtomicU64,
    lives: AtomicU64,
}

fn told(end: End) -> String {
    match end {
        End::Process(error) => format!("refused: {error}"),
        End::Violation(why) => why,
    }
}

/// The entries of the last group: of one block, of many, of all sizes.
fn last_group(life: &mut Life, random: &mut Random) -> Vec<Entry> {
    let state = life.writer().state();
    let size = [40, 700, 4000, 5000, 12_000, 20_000][random.below(6) as usize];
    let mut admitted = [P, Q].map(|p| state.partitions.get(&p).map_or((1, 0), |k| (k.tenure, k.admitted)));
    let count = 1 + random.below(5);
    let new = |attempt| {
        let which = random.below(2) as usize;
        let (tenure, first) = admitted[which];
        admitted[which].1 += 10;
        block([P, Q][which], tenure, first, 1 + random.below(size) as usize, attempt)
    };
    (0..count).map(new).collect()
}

/// The active segment, and where its durable part ends.
fn end_of(life: &mut Life) -> (PathBuf, usize) {
    let writer = life.writer();
    let (number, catalogue) = (writer.segment(), writer.catalogue());
    let (end, _) = catalogue.end_of(number).expect("the active segment is known");
    (catalogue.path(number), end as usize)
}

/// Does more to the bytes that were on their way than any power cut: moves sectors, flips bits, cuts the file. False if
/// there are too few of them.
fn mangle(sim: &Sim, path: &Path, tail: &Range<usize>, random: &mut Random) -> bool {
    let sectors = (tail.len() / SECTOR) as u64;
    if sectors < 2 {
        return false;
    }
    let at = |random: &mut Random| tail.start + random.below(sectors) as usize * SECTOR;
    let damaged = sim.damage(path, |bytes| match random.below(5) {
        0 => {
            let (from, to) = (at(random), at(random));
            bytes.copy_within(from..from + SECTOR, to);
        }
        1 => (0..=random.below(4)).for_each(|_| bytes[at(random) + random.below(512) as usize] ^= 1 << random.below(8)),
        2 => bytes.truncate(tail.start + random.below(tail.len() as u64) as usize),
        3 => {
            let (one, other) = (at(random), at(random));
            (0..SECTOR).for_each(|i| bytes.swap(one + i, other + i));
        }
        _ => {
            let from = at(random);
            bytes[from..from + SECTOR].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
        }
    });
    damaged.unwrap();
    true
}

impl Tails {
    fn new(wanted: u64) -> Self {
        let zero = AtomicU64::default;
        Self {
            wanted,
            seen: Seen::new(),
            made: zero(),
            refused: zero(),
            parted: zero(),
            mangled: zero(),
            lives: zero(),
        }
    }

    fn run(&self, only: Option<u64>) {
        if let Some(seed) = only {
            return self.life(seed, &Arc::new(Metrics::new()));
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let metrics = Arc::new(Metrics::new());
                    while self.made.load(Ordering::Relaxed) < self.wanted {
                        self.life(self.lives.fetch_add(1, Ordering::Relaxed), &metrics);
                    }
                });
            }
        });
    }

    fn life(&self, seed: u64, metrics: &Arc<Metrics>) {
        let mut random = Random(seed);
        let mut life = Life::new(Sim::new(seed), Expected::default(), metrics);
        let begun = start(&mut life).and_then(|()| Step::Two.take(&mut life, &mut random));
        begun.map_err(told).unwrap();
        for _ in 0..random.below(10) {
            let step = BEFORE[random.below(BEFORE.len() as u64) as usize];
            step.take(&mut life, &mut random).map_err(told).unwrap();
        }
        let durable = life.expected.durable.len();
        let entries = last_group(&mut life, &mut random);
        let (path, from) = end_of(&mut life);
        life.sim.watch();
        life.append(&entries).map_err(told).unwrap();
        let (last, to) = end_of(&mut life);
        let tail = if last == path { from..to } else { from..from };
        let unacknowledged = |moment: &Moment| moment.expected.durable.len() == durable;
        for moment in std::mem::take(&mut life.moments).into_iter().filter(unacknowledged) {
            for _ in 0..TAILS {
                self.tail(seed, &moment, (entries.len(), &path, &tail), &mut random, metrics);
            }
        }
    }

    fn tail(
        &self,
        life: u64,
        moment: &Moment,
        (entries, path, tail): (usize, &PathBuf, &Range<usize>),
        random: &mut Random,
        metrics: &Arc<Metrics>,
    ) {
        let (kind, seed) = (random.below(4), random.below(1 << 40));
        let sim = match kind {
            0 => moment.sim.crash_unreadably(seed),
            _ => moment.sim.crash(seed),
        };
        let is_mangled = kind == 1 && mangle(&sim, path, tail, random);
        let (is_new, _) = self.seen.note(sim.hash(), 0);
        if !is_new {
            return;
        }
        self.made.fetch_add(1, Ordering::Relaxed);
        self.mangled.fetch_add(u64::from(is_mangled), Ordering::Relaxed);
        let mut after = Life::new(sim, moment.expected.clone(), metrics);
        let opened = after.inspect().and_then(|()| after.open().map_err(told));
        let kept = after.expected.durable.len() - moment.expected.durable.len();
        self.parted.fetch_add(u64::from(0 < kept && kept < entries), Ordering::Relaxed);
        if let Err(why) = opened {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let operation = moment.operation;
            eprintln!("REFUSED in life {life}, operation {operation}, kind {kind}, seed {seed}, log in {DIR}: {why}");
            eprintln!("  again: FOREBAY_TAIL_LIFE={life}");
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn no_torn_tail_is_refused() {
    let begun = Instant::now();
    let tails = Tails::new(number("FOREBAY_TAILS").unwrap_or(20_000));
    tails.run(number("FOREBAY_TAIL_LIFE"));
    let [count, refused] = [&tails.made, &tails.refused].map(|n| n.load(Ordering::Relaxed));
    let seconds = begun.elapsed().as_secs_f64();
    println!(r#"{{"tails":{count},"refused":{refused},"seconds":{seconds:.1}}}"#);
    assert_eq!(refused, 0);
    let [parted, mangled] = [&tails.parted, &tails.mangled].map(|n| n.load(Ordering::Relaxed));
    assert!(parted > count / 50, "only {parted} tails were cut inside a group");
    assert!(mangled > count / 10, "only {mangled} tails were damaged beyond what a power cut does");
}
