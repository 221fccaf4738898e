//! kill -9 under live load. `FOREBAY_KILLS` sets how often; `scripts/kill-test.sh` runs 50.

use crate::common::chaos::{Kills, Moment, kill_one};
use crate::common::{Format, env_number, kafka};

fn killed(format: Format, moment: Moment, settings: &[&str]) {
    let Some(kafka) = kafka() else { return };
    let kills = Kills { format, moment, count: env_number("FOREBAY_KILLS", 6), per_second: 8_000, settings };
    kill_one(kafka, kills).verdict.expect_once();
}

#[test]
fn killed_at_random_json_lines() {
    killed(Format::Jsonl, Moment::Random, &[]);
}

#[test]
fn killed_at_random_raw() {
    killed(Format::Raw, Moment::Random, &[]);
}

#[test]
fn killed_at_random_with_compressed_blocks() {
    killed(Format::Jsonl, Moment::Random, &["wal.compression=lz4"]);
}

#[test]
fn killed_between_sync_and_commit() {
    killed(Format::Jsonl, Moment::AfterSync, &[]);
}

#[test]
fn killed_between_write_and_receipt() {
    killed(Format::Jsonl, Moment::AfterWrite, &[]);
}

#[test]
fn direct_mode_killed_at_random() {
    killed(Format::Raw, Moment::Random, &["mode=direct"]);
}

#[test]
fn direct_mode_killed_between_write_and_receipt() {
    killed(Format::Jsonl, Moment::AfterWrite, &["mode=direct"]);
}

/// Two members share the log, and the log and the output roll often.
#[test]
fn killed_while_rolling_with_two_receivers() {
    let settings = ["kafka.receivers=2", "wal.segment_bytes=1MiB", "sink.roll_bytes=256KiB"];
    killed(Format::Jsonl, Moment::Random, &settings);
}
