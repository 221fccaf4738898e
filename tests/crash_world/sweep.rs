//! Many machines on all cores: every state that a crash leaves is recovered and checked once.
//!
//! A job is a short sequence of steps of which the last is stopped at every operation, or one long random life. Every
//! moment meets a kill and several power cuts; every recovery from one of these is stopped at every operation again.

use super::life::{End, Expected, Life, Moment};
use super::steps::{Random, Step, start};
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Every so many jobs one is a long life.
const LIVES: u64 = 4;
/// Power cuts per moment of a job, and per moment of a recovery.
const CUTS: u64 = 6;
const CUTS_OF_RECOVERY: u64 = 2;
/// So short, all recoveries of a sequence are stopped at every operation; of others one in so many, and of recoveries
/// from a second crash as many again.
const SHORT: usize = 2;
const SECOND: u64 = 8;
const THIRD: u64 = 64;
/// One in so many states is also looked at from outside, before and after.
const LOOKS: u64 = 4;
/// After so many violations there is nothing more to learn.
const ENOUGH: u64 = 20;
const SHARDS: usize = 256;

#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

type Map = HashMap<u64, u64, BuildHasherDefault<Same>>;

/// The states that were checked, with what was expected of each.
struct Seen(Vec<Mutex<Map>>);

impl Seen {
    fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    /// Whether the state is new, and whether it is to be checked: it is new, or more was expected of it this time.
    fn note(&self, hash: u64, key: u64) -> (bool, bool) {
        let shard = &self.0[(hash >> 56) as usize % SHARDS];
        let mut map = shard.lock().unwrap_or_else(PoisonError::into_inner);
        match map.insert(hash, key) {
            None => (true, true),
            Some(before) => (false, before != key),
        }
    }
}

/// How deep a state is looked into.
#[derive(Clone, Copy)]
enum Depth {
    /// All recoveries from it are stopped at every operation.
    All,
    /// Some are.
    Some,
    /// It comes from a recovery that was stopped.
    Recovery,
}

impl Depth {
    fn goes_on(self, hash: u64) -> bool {
        match self {
            Self::All => true,
            Self::Some => hash % SECOND == 0,
            Self::Recovery => hash % THIRD == 0,
        }
    }
}

/// What a sweep found.
pub struct Outcome {
    pub states: u64,
    pub violations: u64,
    pub seconds: f64,
}

/// See the module.
pub struct Sweep {
    wanted: u64,
    seen: Seen,
    states: AtomicU64,
    checks: AtomicU64,
    violations: AtomicU64,
    next_job: AtomicU64,
}

impl Sweep {
    pub fn new(wanted: u64) -> Self {
        let zero = AtomicU64::default;
        Self { wanted, seen: Seen::new(), states: zero(), checks: zero(), violations: zero(), next_job: zero() }
    }

    /// Runs until so many states were checked.
    pub fn run(&self) -> Outcome {
        let begun = Instant::now();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let metrics = Arc::new(Metrics::new());
                    while !self.is_done() {
                        let job = self.next_job.fetch_add(1, Ordering::Relaxed);
                        self.job(job, &metrics);
                    }
                });
            }
        });
        self.outcome(begun)
    }

    /// Runs one job alone.
    pub fn run_job(&self, job: u64) -> Outcome {
        let begun = Instant::now();
        self.job(job, &Arc::new(Metrics::new()));
        self.outcome(begun)
    }

    fn outcome(&self, begun: Instant) -> Outcome {
        let [states, violations] = [&self.states, &self.violations].map(|n| n.load(Ordering::Relaxed));
        let checks = self.checks.load(Ordering::Relaxed);
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!("{checks} checks, {} jobs", self.next_job.load(Ordering::Relaxed));
        Outcome { states, violations, seconds }
    }

    fn is_done(&self) -> bool {
        self.states.load(Ordering::Relaxed) >= self.wanted || self.violations.load(Ordering::Relaxed) >= ENOUGH
    }

    fn violated(&self, job: u64, scenario: &str, what: &str) {
        self.violations.fetch_add(1, Ordering::Relaxed);
        eprintln!("VIOLATION in job {job} ({scenario})\n  {what}\n  again: FOREBAY_SWEEP_JOB={job}");
    }

    fn job(&self, job: u64, metrics: &Arc<Metrics>) {
        let mut scenario = String::new();
        let run = AssertUnwindSafe(|| {
            if job % LIVES == LIVES - 1 {
                self.long_life(job, metrics, &mut scenario)
            } else {
                self.sequence(job, metrics, &mut scenario)
            }
        });
        let result = catch_unwind(run).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(format!("panic: {}", text.unwrap_or_default()))
        });
        if let Err(what) = result {
            self.violated(job, &scenario, &what);
        }
    }

    /// A short sequence, stopped at every operation of its last step.
    fn sequence(&self, job: u64, metrics: &Arc<Metrics>, scenario: &mut String) -> Result<(), String> {
        let steps = steps_of(job - job / LIVES);
        *scenario = format!("{steps:?}");
        let depth = if steps.len() <= SHORT { Depth::All } else { Depth::Some };
        let mut random = Random(job);
        let mut life = Life::new(Sim::new(job), Expected::default(), metrics);
        let Some((last, before)) = steps.split_last() else {
            life.sim.watch();
            start(&mut life).map_err(told)?;
            return self.moments(&mut life, depth, &mut random);
        };
        start(&mut life).map_err(told)?;
        for step in before {
            step.take(&mut life, &mut random).map_err(told)?;
        }
        life.sim.watch();
        life.watches = true;
        last.take(&mut life, &mut random).map_err(told)?;
        self.moments(&mut life, depth, &mut random)
    }

    /// Many steps, all kinds of ends, errors at any operation.
    fn long_life(&self, job: u64, metrics: &Arc<Metrics>, scenario: &mut String) -> Result<(), String> {
        let mut random = Random(job);
        let mut life = Life::new(Sim::new(job), Expected::default(), metrics);
        start(&mut life).map_err(told)?;
        for number in 0..40 {
            let step = Step::ALL[random.below(Step::ALL.len() as u64) as usize];
            let is_watched = random.below(3) == 0;
            let fails = random.below(6) == 0;
            *scenario = format!("long life, step {number}: {step:?}{}", if fails { " with an error" } else { "" });
            if fails {
                life.sim.fail_at(life.sim.operations() + random.below(12));
            }
            life.watches = is_watched;
            if is_watched {
                life.sim.watch();
            }
            step.take(&mut life, &mut random).map_err(told)?;
            if is_watched {
                self.moments(&mut life, Depth::Some, &mut random)?;
                life.sim.watch_no_more();
            }
            if self.is_done() {
                break;
            }
        }
        Ok(())
    }

    /// Crashes at every moment that was watched, and now.
    fn moments(&self, life: &mut Life, depth: Depth, random: &mut Random) -> Result<(), String> {
        life.collect();
        let now = Moment { operation: u64::MAX, sim: life.sim.snapshot(), expected: life.expected.clone() };
        let mut moments = std::mem::take(&mut life.moments);
        moments.push(now);
        for moment in moments {
            let at = |why: String| match moment.operation {
                u64::MAX => format!("after the last operation, {why}"),
                number => format!("operation {number}, {why}"),
            };
            self.crashes(&moment, depth, random, &life.metrics).map_err(at)?;
        }
        Ok(())
    }

    fn crashes(
        &self,
        moment: &Moment,
        depth: Depth,
        random: &mut Random,
        metrics: &Arc<Metrics>,
    ) -> Result<(), String> {
        let (sim, expected) = (&moment.sim, &moment.expected);
        let visit = |sim: Sim, what: &str, seed: u64| {
            let visited = self.visit(sim, expected, depth, metrics);
            visited.map_err(|why| format!("{what} (seed {seed}): {why}"))
        };
        visit(sim.kill(), "killed", 0)?;
        let seed = random.below(1 << 32);
        visit(sim.kill_and_evict(seed), "killed, and clean pages left the cache", seed)?;
        let is_first = matches!(depth, Depth::All | Depth::Some);
        let cuts = if is_first { CUTS } else { CUTS_OF_RECOVERY };
        for _ in 0..cuts {
            let seed = random.below(1 << 32);
            visit(sim.crash(seed), "power cut", seed)?;
        }
        if is_first {
            let seed = random.below(1 << 32);
            visit(sim.crash_unreadably(seed), "power cut with unreadable pages", seed)?;
        }
        Ok(())
    }

    /// Recovers and checks one state, unless that was done before.
    fn visit(&self, sim: Sim, expected: &Expected, depth: Depth, metrics: &Arc<Metrics>) -> Result<(), String> {
        let hash = sim.hash();
        let (is_new, is_due) = self.seen.note(hash, expected.key);
        self.states.fetch_add(u64::from(is_new), Ordering::Relaxed);
        if !is_due || self.violations.load(Ordering::Relaxed) >= ENOUGH {
            return Ok(());
        }
        self.checks.fetch_add(1, Ordering::Relaxed);
        let deeper = depth.goes_on(hash);
        if deeper {
            sim.watch();
        }
        let mut life = Life::new(sim, expected.clone(), metrics);
        life.watches = deeper;
        let looks = hash / THIRD % LOOKS == 0;
        if looks {
            life.inspect()?;
        }
        match life.open() {
            Err(End::Process(error)) if life.sim.is_limited() && error.to_string().contains("fits") => {
                life.sim.set_capacity(None);
                life.open().map_err(told)?;
            }
            other => other.map_err(told)?,
        }
        if looks {
            life.inspect().map_err(|why| format!("after recovery: {why}"))?;
        }
        if deeper {
            let random = &mut Random(hash);
            self.moments(&mut life, Depth::Recovery, random).map_err(|why| format!("recovery: {why}"))?;
        }
        Ok(())
    }
}

fn told(end: End) -> String {
    match end {
        End::Process(error) => format!("does not open: {error}"),
        End::Violation(why) => why,
    }
}

/// The sequences by length, then in the order of [`Step::ALL`].
fn steps_of(mut number: u64) -> Vec<Step> {
    let kinds = Step::ALL.len() as u64;
    let (mut length, mut count) = (0, 1);
    while number >= count {
        number -= count;
        (length, count) = (length + 1, count * kinds);
    }
    let digit = |_| {
        let step = Step::ALL[(number % kinds) as usize];
        number /= kinds;
        step
    };
    (0..length).map(digit).collect()
}
