//! Many machines on all cores: every state that a crash leaves is recovered and checked once.
//!
//! A job is a short sequence of steps of which the last is stopped at every operation, one long random life, or something
//! else that the caller counts here. Every moment meets a kill and several power cuts; every recovery from one of these is stopped at every operation again.

use super::life::{End, Expected, Life, Moment};
use super::seen::Seen;
use super::steps::{Random, Step, start};
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Every so many jobs one is a long life.
const LIVES: u64 = 4;
/// Every so many of those are the caller's.
const OTHERS: u64 = 8;
/// Power cuts per moment of a recovery.
const CUTS_OF_RECOVERY: u64 = 2;
/// One in so many recoveries from a second crash, or a later one, is stopped at every operation too.
const THIRD: u64 = 64;
/// So many crashes in a row hit a recovery: each leaves about one of the next, which would otherwise go on without an end.
const DEPTH_MAX: u32 = 8;
/// One in so many states is also looked at from outside, before and after.
const LOOKS: u64 = 4;
/// Steps of a long life.
const STEPS: usize = 40;
/// After so many violations there is nothing more to learn.
const ENOUGH: u64 = 20;

/// How much is tried at each moment.
#[derive(Clone, Copy)]
struct Effort {
    /// So many power cuts.
    cuts: u64,
    /// One in so many recoveries is stopped at every operation.
    deeper: u64,
    /// So many recoveries were stopped to come here.
    depth: u32,
}

impl Effort {
    /// All of it for the shortest sequences, less for the longer ones, of which there are many more.
    fn of(steps: usize) -> Self {
        let (cuts, deeper) = match steps {
            0..=2 => (8, 1),
            3 => (5, 16),
            4 => (2, 64),
            _ => (3, 32),
        };
        Self { cuts, deeper, depth: 0 }
    }

    /// For the moments of a recovery from here.
    fn of_recovery(self) -> Self {
        Self { cuts: CUTS_OF_RECOVERY, deeper: THIRD, depth: self.depth + 1 }
    }
}

/// What a sweep found.
pub struct Outcome {
    pub states: u64,
    pub violations: u64,
    pub seconds: f64,
    /// Failed writes and syncs that the log survived, and those that ended the process.
    pub survived: u64,
    pub ended: u64,
}

/// A job of the caller: its number, counted from 0.
pub type Other = fn(&Sweep, u64) -> Result<(), String>;

/// See the module.
pub struct Sweep {
    wanted: u64,
    other: Other,
    seen: Seen,
    states: AtomicU64,
    checks: AtomicU64,
    violations: AtomicU64,
    survived: AtomicU64,
    ended: AtomicU64,
    next_job: AtomicU64,
}

impl Sweep {
    pub fn new(wanted: u64, other: Other) -> Self {
        let zero = AtomicU64::default;
        Self {
            wanted,
            other,
            seen: Seen::new(),
            states: zero(),
            checks: zero(),
            violations: zero(),
            survived: zero(),
            ended: zero(),
            next_job: zero(),
        }
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
        let all = [&self.states, &self.violations, &self.survived, &self.ended, &self.checks, &self.next_job];
        let [states, violations, survived, ended, checks, jobs] = all.map(|n| n.load(Ordering::Relaxed));
        eprintln!("{jobs} jobs, {checks} checks, {survived} failures survived, {ended} were the process's end");
        Outcome { states, violations, seconds: begun.elapsed().as_secs_f64(), survived, ended }
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
            if job % LIVES < LIVES - 1 {
                self.sequence(job, metrics, &mut scenario)
            } else if job / LIVES % OTHERS == OTHERS - 1 {
                (self.other)(self, job / LIVES / OTHERS)
            } else {
                self.long_life(job, metrics, &mut scenario)
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
        let effort = Effort::of(steps.len());
        let mut random = Random(job);
        let mut life = Life::new(Sim::new(job), Expected::default(), metrics);
        let Some((last, before)) = steps.split_last() else {
            life.sim.watch();
            start(&mut life).map_err(told)?;
            return self.moments(&mut life, effort, &mut random);
        };
        start(&mut life).map_err(told)?;
        for step in before {
            step.take(&mut life, &mut random).map_err(told)?;
        }
        life.sim.watch();
        life.watches = true;
        last.take(&mut life, &mut random).map_err(told)?;
        self.count(&life);
        self.moments(&mut life, effort, &mut random)
    }

    /// Many steps, all kinds of ends, errors at any operation.
    fn long_life(&self, job: u64, metrics: &Arc<Metrics>, scenario: &mut String) -> Result<(), String> {
        let mut random = Random(job);
        let mut life = Life::new(Sim::new(job), Expected::default(), metrics);
        start(&mut life).map_err(told)?;
        for number in 0..STEPS {
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
                self.moments(&mut life, Effort::of(STEPS), &mut random)?;
                life.sim.watch_no_more();
            }
            if self.is_done() {
                break;
            }
        }
        self.count(&life);
        Ok(())
    }

    fn count(&self, life: &Life) {
        self.survived.fetch_add(life.survived, Ordering::Relaxed);
        self.ended.fetch_add(life.ended, Ordering::Relaxed);
    }

    /// Crashes at every moment that was watched, and now.
    fn moments(&self, life: &mut Life, effort: Effort, random: &mut Random) -> Result<(), String> {
        life.collect();
        let now = Moment { operation: u64::MAX, sim: life.sim.snapshot(), expected: life.expected.clone() };
        let mut moments = std::mem::take(&mut life.moments);
        moments.push(now);
        for moment in moments {
            let at = |why: String| match moment.operation {
                u64::MAX => format!("after the last operation, {why}"),
                number => format!("operation {number}, {why}"),
            };
            self.crashes(&moment, effort, random, &life.metrics).map_err(at)?;
        }
        Ok(())
    }

    fn crashes(
        &self,
        moment: &Moment,
        effort: Effort,
        random: &mut Random,
        metrics: &Arc<Metrics>,
    ) -> Result<(), String> {
        let (sim, expected) = (&moment.sim, &moment.expected);
        let visit = |sim: Sim, what: &str, seed: u64| {
            let visited = self.visit(sim, expected, effort, metrics);
            visited.map_err(|why| format!("{what} (seed {seed}): {why}"))
        };
        visit(sim.kill(), "killed", 0)?;
        let seed = random.below(1 << 32);
        visit(sim.kill_and_evict(seed), "killed, and clean pages left the cache", seed)?;
        for _ in 0..effort.cuts {
            let seed = random.below(1 << 32);
            visit(sim.crash(seed), "power cut", seed)?;
        }
        if effort.depth == 0 {
            let seed = random.below(1 << 32);
            visit(sim.crash_unreadably(seed), "power cut with unreadable pages", seed)?;
        }
        Ok(())
    }

    /// Counts a state; true if it is to be checked.
    pub fn is_due(&self, hash: u64, key: u64) -> bool {
        let (is_new, is_due) = self.seen.note(hash, key);
        self.states.fetch_add(u64::from(is_new), Ordering::Relaxed);
        self.checks.fetch_add(u64::from(is_due), Ordering::Relaxed);
        is_due
    }

    /// Recovers and checks one state, unless that was done before.
    fn visit(&self, sim: Sim, expected: &Expected, effort: Effort, metrics: &Arc<Metrics>) -> Result<(), String> {
        let hash = sim.hash();
        if !self.is_due(hash, expected.key) || self.violations.load(Ordering::Relaxed) >= ENOUGH {
            return Ok(());
        }
        let deeper = effort.depth < DEPTH_MAX && hash.is_multiple_of(effort.deeper);
        if deeper {
            sim.watch();
        }
        let mut life = Life::new(sim, expected.clone(), metrics);
        life.watches = deeper;
        let looks = (hash / THIRD).is_multiple_of(LOOKS);
        if looks {
            life.inspect()?;
        }
        match life.open() {
            // A full disk may keep the log from opening; with room it opens.
            Err(end) if life.sim.is_limited() && end.is_full() => {
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
            self.moments(&mut life, effort.of_recovery(), random).map_err(|why| format!("recovery: {why}"))?;
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
