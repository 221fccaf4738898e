//! Two instances in one group, each with its own log and output folder.

use crate::common::chaos::strike_two;
use crate::common::{Format, env_number, kafka};

/// Each is stopped, killed and frozen past its session in turn, and comes back.
#[test]
fn two_instances_restarted_in_turn() {
    let Some(kafka) = kafka() else { return };
    let rounds = env_number("FOREBAY_ROUNDS", 3);
    strike_two(kafka, Format::Jsonl, rounds, 4_000).verdict.expect_once();
}
