//! Long runs against a real Apache Kafka, each started by its script in `scripts/` and each printing one JSON line.
//!
//! Without its name in `FOREBAY_SOAK` (`kill`, `kill-direct`, `two-instances`, `stall`, `heal`, `bench`) a test does nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod heal;
mod stall;

use std::io::Write;

use common::chaos::{Kills, Moment, Outcome, kill_one, strike_two};
use common::{Format, Kafka, env_number, kafka};
use serde_json::Value;

/// The broker, if the soak test `name` was asked for. Then a missing broker is a failure.
fn asked(name: &str) -> Option<&'static Kafka> {
    let names = std::env::var("FOREBAY_SOAK").unwrap_or_default();
    let asked = names.split(',').any(|word| word == name);
    asked.then(|| kafka().expect("a soak test needs the broker"))
}

/// Prints one JSON object a line, past the test runner's capture.
fn report(name: &str, mut value: Value) {
    value["test"] = name.into();
    let line = format!("{value}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

fn judge(name: &str, format: Format, outcome: &Outcome) {
    let mut value = outcome.json();
    value["format"] = format!("{format:?}").to_lowercase().into();
    report(name, value);
    outcome.verdict.expect_once();
}

#[test]
fn kill() {
    let Some(kafka) = asked("kill") else { return };
    for format in [Format::Jsonl, Format::Raw] {
        for (name, moment) in [("kill", Moment::Random), ("kill-in-window", Moment::AfterSync)] {
            let kills = Kills {
                format,
                moment,
                count: env_number("FOREBAY_KILLS", 50),
                per_second: env_number("FOREBAY_RATE", 20_000),
                settings: &[],
            };
            judge(name, format, &kill_one(kafka, kills));
        }
    }
}

#[test]
fn kill_direct() {
    let Some(kafka) = asked("kill-direct") else { return };
    for (name, moment) in [("kill-direct", Moment::Random), ("kill-direct-after-write", Moment::AfterWrite)] {
        for format in [Format::Jsonl, Format::Raw] {
            let (count, per_second) = (env_number("FOREBAY_KILLS", 50), env_number("FOREBAY_RATE", 20_000));
            let kills = Kills { format, moment, count, per_second, settings: &["mode=direct"] };
            judge(name, format, &kill_one(kafka, kills));
        }
    }
}

#[test]
fn two_instances() {
    let Some(kafka) = asked("two-instances") else {
        return;
    };
    let rounds = env_number("FOREBAY_ROUNDS", 20);
    let rate = env_number("FOREBAY_RATE", 10_000);
    let outcome = strike_two(kafka, Format::Jsonl, rounds, rate);
    judge("two-instances", Format::Jsonl, &outcome);
}
