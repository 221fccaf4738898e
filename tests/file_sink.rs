//! The file sink on a simulated disk: whatever is cut, killed or refused, at the end every record is in the published
//! files exactly once, and a published file never changes.

#![allow(clippy::unwrap_used, clippy::panic)]

mod file_sink_world;

use file_sink_world::{Log, Missing, Setup, World, source, with_dirs};
use forebay::record::batch::{BatchBuilder, HeaderRef, RecordRef, records};
use forebay::sink::Source;
use forebay::sink::render::{Format, Renderer};
use proptest::prelude::*;
use std::time::Duration;

fn setups() -> Vec<Setup> {
    let hour = Duration::from_secs(3600);
    [(Format::Raw, 6000, hour), (Format::Jsonl, 1 << 20, hour), (Format::Raw, 1 << 20, Duration::ZERO)]
        .map(|(format, roll_bytes, roll_age)| Setup { format, roll_bytes, roll_age, missing: None })
        .into()
}

/// Stops the machine at every operation of the first life; a second life, perhaps stopped too, and a third.
fn sweep(setup: &Setup, seeds: u64) {
    let mut world = World::new(setup, 0);
    world.live(None).unwrap();
    world.check();
    let world = World::new(setup, 0);
    let before = world.sim.operations();
    world.deliver(&Log::open(&world.sim, Vec::new(), setup.missing).unwrap()).unwrap();
    let operations = world.sim.operations();
    for stop in before..operations {
        for seed in 0..seeds {
            let mut world = World::new(setup, seed);
            world.sim.crash_at(stop);
            let power_cut = (seed > 0).then_some(seed * 31 + stop);
            assert!(world.live(power_cut).is_err());
            if seed % 2 == 1 {
                world.sim.crash_at((seed * 13 + stop * 7) % 23);
                let _ = world.live((seed % 4 == 1).then_some(seed));
            }
            let end = world.live(None);
            assert!(end.is_ok(), "stop {stop}, seed {seed}: {end:?}");
            world.check();
        }
    }
}

#[test]
fn each_record_once_whatever_operation_the_machine_stops_at() {
    for setup in setups() {
        sweep(&setup, 8);
    }
}

fn is_noticed(missing: Missing) -> bool {
    let missing = Some(missing);
    let mut setups = setups().into_iter();
    setups.any(|setup| std::panic::catch_unwind(|| sweep(&Setup { missing, ..setup }, 8)).is_err())
}

#[test]
fn the_sweep_notices_each_missing_rule() {
    assert!(is_noticed(Missing::FileSync), "receipt before fdatasync");
    assert!(is_noticed(Missing::DirSync), "no directory sync");
    assert!(is_noticed(Missing::NameSync), "file before its name is durable");
    assert!(is_noticed(Missing::ReceiptSync), "published before the receipt is durable");
    assert!(is_noticed(Missing::KeptTail), "blocks of the last page not kept");
}

#[test]
fn an_error_at_any_operation_stops_the_sink_and_the_next_start_makes_it_whole() {
    for setup in setups() {
        let world = with_dirs(&setup, 0);
        let before = world.sim.operations();
        world.deliver(&Log::open(&world.sim, Vec::new(), None).unwrap()).unwrap();
        for at in before..world.sim.operations() {
            for seed in 0..8 {
                let mut world = with_dirs(&setup, seed);
                world.sim.fail_at(at);
                assert!(world.live((seed % 2 == 1).then_some(at)).is_err());
                if seed >= 4 {
                    world.sim.fail_at((at + seed) % 19);
                    let _ = world.live(None);
                }
                let end = world.live(None);
                assert!(end.is_ok(), "error at {at}, seed {seed}: {end:?}");
                world.check();
            }
        }
    }
}

#[test]
fn a_full_disk_is_waited_out_and_nothing_is_written_twice() {
    for setup in setups() {
        for capacity in (0..40_000).step_by(531) {
            let mut world = World::new(&setup, capacity);
            world.sim.set_capacity(Some(10 + capacity));
            world.live(None).unwrap();
            world.check();
        }
    }
}

#[test]
fn a_stop_while_the_disk_is_full_is_made_whole_later() {
    let setup = &setups()[0];
    for capacity in (0..40_000).step_by(531) {
        for stop in 0..30 {
            let mut world = World::new(setup, capacity + stop);
            world.sim.set_capacity(Some(10 + capacity));
            world.sim.crash_at(world.sim.operations() + 3 * stop + capacity % 3);
            let _ = world.live((stop % 2 == 0).then_some(capacity));
            world.sim.set_capacity(None);
            world.live(None).unwrap();
            world.check();
        }
    }
}

fn field() -> impl Strategy<Value = Option<Vec<u8>>> {
    let text = "\\PC{0,40}".prop_map(String::into_bytes);
    let control = proptest::collection::vec(0u8..0x30, 0..40);
    prop_oneof![
        Just(None),
        text.prop_map(Some),
        control.prop_map(Some),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some),
    ]
}

fn expected(field: Option<&[u8]>) -> serde_json::Value {
    use base64::Engine;
    match field.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => serde_json::Value::Null,
        Some((_, Ok(text))) => text.into(),
        Some((bytes, Err(_))) => {
            serde_json::json!({"base64": base64::engine::general_purpose::STANDARD.encode(bytes)})
        }
    }
}

proptest! {
    #[test]
    fn any_record_is_one_line_that_any_json_reader_understands(
        offset in 0..i64::from(i32::MAX) - 1,
        timestamp in prop_oneof![Just(-1), any::<i64>()],
        key in field(),
        value in field(),
        headers in proptest::collection::vec(("\\PC{0,10}", field()), 0..4),
        topic in "\\PC{1,20}",
    ) {
        let headers: Vec<HeaderRef<'_>> =
            headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
        let (key, value) = (key.as_deref(), value.as_deref());
        let mut batch = BatchBuilder::new(Vec::new(), offset);
        batch.push(&RecordRef { offset, timestamp, key, value, headers: &headers });
        let batch = batch.finish(offset + 1, -1);
        let record = records(&batch.buffer).next().unwrap().unwrap();
        let mut line = Vec::new();
        let source = Source { topic: topic.clone(), ..source(3) };
        Renderer::new(Format::Jsonl, &source).record(&record, &mut line);
        prop_assert_eq!(line.iter().position(|b| *b == b'\n'), Some(line.len() - 1));
        let parsed: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let headers: Vec<serde_json::Value> = headers
            .iter()
            .map(|(name, value)| serde_json::json!({"name": expected(Some(name)), "value": expected(*value)}))
            .collect();
        let timestamp = (timestamp != -1).then_some(timestamp);
        prop_assert_eq!(parsed, serde_json::json!({
            "topic": topic, "partition": 3, "offset": offset, "timestamp": timestamp,
            "key": expected(key), "value": expected(value), "headers": headers,
        }));
    }
}
