//! The log on simulated machines: crashed at every operation of short sequences and long lives, recovered, crashed in the
//! recovery, recovered again.
//!
//! The property: what recovery finds is the fold of a prefix of what was appended; everything that was durable is in it
//! and comes back once, in order, byte for byte; a crash is never reported as damage; recovering again changes nothing.
//!
//! `FOREBAY_SWEEP_STATES` says how many distinct states (`scripts/crash-sweep.sh`), `FOREBAY_SWEEP_JOB` runs one job.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod crash_world;

use crash_world::sweep::Sweep;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn every_state_that_a_crash_leaves_recovers() {
    let wanted = number("FOREBAY_SWEEP_STATES").unwrap_or(200_000);
    let sweep = Sweep::new(wanted);
    let job = number("FOREBAY_SWEEP_JOB");
    let outcome = job.map_or_else(|| sweep.run(), |job| sweep.run_job(job));
    let (states, violations, seconds) = (outcome.states, outcome.violations, outcome.seconds);
    println!(r#"{{"states":{states},"violations":{violations},"seconds":{seconds:.1}}}"#);
    assert_eq!(violations, 0);
    // A failed write or sync of a file's contents is survived in the next segment; other failures end the process.
    assert!(job.is_some() || outcome.survived > 20 && outcome.ended > 20, "{} {}", outcome.survived, outcome.ended);
}
