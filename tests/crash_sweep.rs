//! The log on simulated machines: crashed at every operation of short sequences and long lives, recovered, crashed in the
//! recovery, recovered again.
//!
//! The property: what recovery finds is the fold of a prefix of what was appended; everything that was durable is in it
//! and comes back once, in order, byte for byte; a crash is never reported as damage; recovering again changes nothing.
//! The file sink's part: after whatever lives, its output holds each record once.
//!
//! `FOREBAY_SWEEP_STATES` says how many distinct states (`scripts/crash-sweep.sh`), `FOREBAY_SWEEP_JOB` runs one job.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod crash_world;
mod file_sink_world;

use crash_world::sweep::Sweep;
use file_sink_world::{Log, Setup, World, with_dirs};
use forebay::sink::render::Format;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Each operation is stopped at so often, with other power cuts.
const ROUNDS: u64 = 8;
/// Every so many rounds end a life by an error instead.
const ERRORS: u64 = 4;

/// The files of the file sink and what the log said of them, stopped at an operation of the first life; in a second life
/// again, or failed; then delivered to the end. All jobs: each operation, with other power cuts each time around.
fn sink_files(sweep: &Sweep, job: u64) -> Result<(), String> {
    let hour = Duration::from_secs(3600);
    let setups = [(Format::Raw, 6000, hour), (Format::Jsonl, 1 << 20, hour), (Format::Raw, 1 << 20, Duration::ZERO)];
    let (format, roll_bytes, roll_age) = setups[job as usize % setups.len()];
    let setup = Setup { format, roll_bytes, roll_age, missing: None };
    let whole = with_dirs(&setup, 0);
    let before = whole.sim.operations();
    whole.deliver(&Log::open(&whole.sim, Vec::new(), None).unwrap()).unwrap();
    let operations = whole.sim.operations() - before;
    for round in job * ROUNDS..(job + 1) * ROUNDS {
        for stop in 0..operations {
            sink_stopped(sweep, &setup, round, before + stop)?;
        }
    }
    Ok(())
}

fn sink_stopped(sweep: &Sweep, setup: &Setup, round: u64, stop: u64) -> Result<(), String> {
    let mut world = with_dirs(setup, round);
    world.sim.crash_at(stop);
    let cut = |life: u64| (!(round + life).is_multiple_of(5)).then_some(round * 1009 + stop * 31 + life);
    assert!(world.live(cut(0)).is_err());
    for life in 0..round % 3 {
        if !is_due(sweep, &world) {
            return Ok(());
        }
        let at = (round * 13 + stop * 7 + life) % 41;
        if round.is_multiple_of(ERRORS) {
            world.sim.fail_at(at);
        } else {
            world.sim.crash_at(at);
        }
        let _ = world.live(cut(life + 1));
    }
    if is_due(sweep, &world) {
        world.live(None).map_err(|error| format!("sink, round {round}, operation {stop}: {error}"))?;
        world.check();
    }
    Ok(())
}

fn is_due(sweep: &Sweep, world: &World) -> bool {
    let mut hasher = DefaultHasher::new();
    format!("{:?}", world.entries).hash(&mut hasher);
    (world.sim.hash(), world.setup.roll_bytes).hash(&mut hasher);
    sweep.is_due(hasher.finish(), 0)
}

#[test]
fn every_state_that_a_crash_leaves_recovers() {
    let wanted = number("FOREBAY_SWEEP_STATES").unwrap_or(200_000);
    let sweep = Sweep::new(wanted, sink_files);
    let job = number("FOREBAY_SWEEP_JOB");
    let outcome = job.map_or_else(|| sweep.run(), |job| sweep.run_job(job));
    let (states, violations, seconds) = (outcome.states, outcome.violations, outcome.seconds);
    println!(r#"{{"states":{states},"violations":{violations},"seconds":{seconds:.1}}}"#);
    assert_eq!(violations, 0);
    // A failed write or sync of a file's contents is survived in the next segment; other failures end the process.
    assert!(job.is_some() || outcome.survived > 20 && outcome.ended > 20, "{} {}", outcome.survived, outcome.ended);
}
