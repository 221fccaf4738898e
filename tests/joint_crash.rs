//! Log and file sink crash together, on one simulated disk, with the copy of the dedupe table beside them: kills and power
//! cuts take turns over several lives, errors and full disks between them. At the end every record that Kafka has is in
//! the published files once, in order, and nothing that Kafka or a reader was told was ever taken back.
//!
//! The log and the sink are the real ones, and so are the feed, the fence and what reads blocks again; what stands between
//! them in the product (its threads) is modelled in the same order of steps. sled can't live on the simulated disk: in the
//! sweeps the copy of the dedupe table is a model that shows whatever was ever saved, none, or what nobody saved. The real
//! one meets fewer lives, in a test of its own.
//!
//! What fails is named by workload, operation and seed, and fails again. `FOREBAY_JOINT_LIVES` says how many machines live
//! long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/entries.rs"]
mod entries;

mod crash_world;
#[allow(dead_code, reason = "its own log is a model")]
mod file_sink_world;
mod joint_world;

use crash_world::steps::Random;
use joint_world::real_copy::RealCopy;
use joint_world::workload::{Setup, long, random_acts, small};
use joint_world::{Ending, Missing, Trouble, World};

/// Each operation of a small workload is stopped at so often.
const SEEDS: u64 = 10;
/// Each operation fails so often.
const ERRORS: u64 = 6;
/// Machines that live long, and those of them with a real copy of the dedupe table.
const MACHINES: u64 = 1000;
const MACHINES_REAL: u64 = 40;
/// Long lives of one machine.
const LIVES: u64 = 6;

fn machines() -> u64 {
    const NAME: &str = "FOREBAY_JOINT_LIVES";
    std::env::var(NAME).map_or(MACHINES, |text| text.parse().unwrap_or_else(|_| panic!("{NAME} is no number: {text}")))
}

/// Operations of a whole first life.
fn operations(setup: &Setup) -> u64 {
    let mut world = World::new(setup, 0, None);
    let acts = setup.acts.clone();
    let count = world.count(&acts);
    count.unwrap_or_else(|why| panic!("{} undisturbed: {why}", setup.name))
}

/// A kill or a power cut: they take turns, and the seed says which comes first.
fn ending(seed: u64, life: u64, operation: u64) -> Ending {
    let choice = seed * 1009 + operation * 31 + life;
    match (seed + life) % 4 {
        0 => Ending::Kill,
        1 => Ending::Unreadable(choice),
        2 => Ending::Evict(choice),
        _ => Ending::PowerCut(choice),
    }
}

/// A first life stopped at the operation, a second one at another, a third to the end.
fn stopped(setup: &Setup, operations: u64, stop: u64, seed: u64, missing: Option<Missing>) -> Result<(), String> {
    let mut world = World::new(setup, seed, missing);
    world.live(&setup.acts, Trouble::Stop(stop), ending(seed, 0, stop))?;
    let again = (stop * 7 + seed * 131) % operations;
    world.live(&setup.acts, Trouble::Stop(again), ending(seed, 1, stop))?;
    world.last()
}

/// The same with an error, and one more in the second life.
fn failed(setup: &Setup, operations: u64, at: u64, seed: u64) -> Result<(), String> {
    let mut world = World::new(setup, seed, None);
    let trouble = if seed % 3 == 2 { Trouble::Refuse(at) } else { Trouble::Fail(at) };
    world.live(&setup.acts, trouble, ending(seed, 0, at))?;
    let again = (at * 7 + seed * 131) % operations;
    let trouble = if seed.is_multiple_of(2) { Trouble::Fail(again) } else { Trouble::Stop(again) };
    world.live(&setup.acts, trouble, ending(seed, 1, at))?;
    world.last()
}

fn every_operation(setup: &Setup, seeds: u64, run: impl Fn(u64, u64, u64) -> Result<(), String>) -> u64 {
    let operations = operations(setup);
    for at in 0..operations {
        for seed in 0..seeds {
            if let Err(why) = run(operations, at, seed) {
                panic!("workload {}, operation {at}, seed {seed}: {why}", setup.name);
            }
        }
    }
    operations * seeds
}

#[test]
fn each_record_once_whatever_operation_the_machine_stops_at() {
    for setup in small() {
        let count = every_operation(&setup, SEEDS, |all, at, seed| stopped(&setup, all, at, seed, None));
        println!("{}: {count} machines", setup.name);
    }
}

#[test]
fn each_record_once_whatever_operation_fails() {
    for setup in small() {
        let count = every_operation(&setup, ERRORS, |all, at, seed| failed(&setup, all, at, seed));
        println!("{}: {count} machines", setup.name);
    }
}

fn long_world(seed: u64, missing: Option<Missing>) -> World {
    World::new(&long(seed), seed, missing)
}

/// Many lives of one machine, each ended in another way. How many came to their end.
fn long_lives(world: &mut World, seed: u64) -> Result<u64, String> {
    let mut random = Random(seed);
    let mut whole = 0;
    for life in 0..LIVES {
        let acts = random_acts(&mut random);
        let at = random.below(130);
        let trouble = match random.below(10) {
            0..6 => Trouble::Stop(at),
            6 => Trouble::Fail(at),
            7 => Trouble::Refuse(at),
            8 => Trouble::Full(random.below(400_000)),
            _ => Trouble::None,
        };
        let ending = ending(seed, life, random.below(1 << 20));
        let named = |why: String| format!("life {life}, {trouble:?}, then {ending:?}: {why}");
        whole += u64::from(world.live(&acts, trouble, ending).map_err(named)?);
    }
    world.last().map_err(|why| format!("the last life: {why}"))?;
    Ok(whole)
}

/// The same, or the test fails and says what fails again.
fn lived(mut world: World, seed: u64) -> (World, u64) {
    match long_lives(&mut world, seed) {
        Ok(whole) => (world, whole),
        Err(why) => panic!("workload {}, seed {seed}: {why}", world.setup.name),
    }
}

#[test]
fn each_record_once_after_many_lives() {
    let machines = machines();
    let (mut whole, mut retired, mut read_back) = (0, 0, 0);
    for seed in 0..machines {
        let (mut world, lives) = lived(long_world(seed, None), seed);
        whole += lives;
        retired += world.desk.life.writer().state().retired_below;
        read_back += world.desk.life.metrics.feed_spilled_blocks.get();
    }
    let lives = machines * LIVES;
    println!("{machines} machines, {lives} lives of which {whole} came to their end");
    println!("{retired} segments retired, {read_back} blocks read back");
    assert!(lives > whole && retired > machines && read_back > machines);
}

#[test]
fn a_real_copy_of_the_dedupe_table_is_believed_only_where_it_equals_the_log() {
    let (mut matched, mut rebuilt) = (0, 0);
    for seed in 0..MACHINES_REAL {
        let mut world = long_world(seed, None);
        world.copies.real = Some(RealCopy::new());
        let real = lived(world, seed).0.copies.real.unwrap();
        (matched, rebuilt) = (matched + real.matched, rebuilt + real.rebuilt);
    }
    println!("{matched} copies equal the log, {rebuilt} were made anew");
    assert!(matched > 10 && rebuilt > 100, "{matched} {rebuilt}");
}

/// The first case in which a rule that is left out shows: the sweeps, cut short.
fn noticed(missing: Missing) -> Option<String> {
    let missing = Some(missing);
    let quietly = |run: &dyn Fn() -> Result<(), String>| {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        caught.unwrap_or_else(|panic| Err(text_of(panic.as_ref()))).err()
    };
    for setup in small() {
        let operations = operations(&setup);
        for stop in 0..operations {
            for seed in 0..SEEDS {
                if let Some(why) = quietly(&|| stopped(&setup, operations, stop, seed, missing)) {
                    return Some(format!("workload {}, operation {stop}, seed {seed}: {why}", setup.name));
                }
            }
        }
    }
    let machines = 0..machines();
    machines.into_iter().find_map(|seed| {
        let why = quietly(&|| long_lives(&mut long_world(seed, missing), seed).map(|_| ()))?;
        Some(format!("workload {}, seed {seed}: {why}", long(seed).name))
    })
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

#[test]
fn the_sweep_notices_each_missing_rule() {
    for (missing, what) in [
        (Missing::FileSync, "receipt before fdatasync"),
        (Missing::DirSync, "no directory sync"),
        (Missing::NameSync, "file before its name is durable"),
        (Missing::ReceiptSync, "published before the receipt is durable"),
        (Missing::CommitSync, "committed to Kafka before it is durable"),
        (Missing::KeptTail, "segments retired that a torn page needs"),
        (Missing::AdmitStamp, "admitted offsets of any copy believed"),
        (Missing::DeliverStamp, "delivered offsets of any copy believed"),
    ] {
        let how = noticed(missing);
        println!("{what}: {how:?}");
        assert!(how.is_some(), "not noticed: {what}");
    }
}
