//! Faults that are real: system calls that fail or kill, full and read-only file systems, and the order of system calls
//! as `strace` saw them.
//!
//! What a machine does not allow (no `strace`, no `ptrace`, no `mount`) is skipped, and why is printed.
//! `FOREBAY_REAL_FAULTS=all` injects at every site (`scripts/real-faults.sh`), otherwise at some.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod driver;
mod inject;
mod kafka;
mod limits;
mod mounts;
mod order;
mod trace;
mod world;

use order::{Order, Report};
use std::io::Write as _;
use std::process::{Command, Stdio};
use trace::{Call, Trace};
use world::{Scratch, World};

/// Not a test: the process that the others run. See [`driver`].
#[test]
fn drives_when_asked() {
    if let Some(dir) = std::env::var_os(driver::DIR) {
        std::process::exit(driver::drive(dir.as_ref()));
    }
}

fn is_all() -> bool {
    std::env::var("FOREBAY_REAL_FAULTS").is_ok_and(|value| value == "all")
}

/// Says that something was not tested, and why: here, and at the end of `scripts/test.sh`.
fn skip(what: &str, why: &str) {
    println!("{}", serde_json::json!({ "skipped": what, "why": why }));
    eprintln!("SKIPPED {what}: {why}");
    let list = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("skipped");
    let mut list = std::fs::File::options().create(true).append(true).open(list).unwrap();
    // In one piece: tests run side by side.
    list.write_all(format!("{what}: {why}\n").as_bytes()).unwrap();
}

#[test]
fn the_order_of_system_calls_of_log_and_files() {
    if let Err(why) = world::strace() {
        return skip("order of system calls", &why);
    }
    let world = World::new("order");
    let (code, trace) = world.trace(&[]);
    assert_eq!(code, Some(0), "{}", world.said());
    let report = checked(&trace);
    println!("{report:?}");
    assert_eq!(report.violations, Vec::<String>::new());
    assert!(report.commits > 10 && report.receipts > 5 && report.removed > 0 && report.created > 2, "{report:?}");
    assert_eq!(report.unseen, 0);
    assert_eq!(driver::committed(world.dir()), world.shape().records);
    world.check_output();
    // The same run without some of its syncs breaks the rules.
    let without = |left_out: &dyn Fn(&str) -> bool| {
        let is_left_out = |i: usize| matches!(&trace.calls[i].call, Call::Sync(path) if left_out(path));
        let kept = trace.moments.iter().filter(|m| !is_left_out(m.of()));
        checked(&Trace { calls: trace.calls.clone(), moments: kept.copied().collect(), ..Trace::default() })
            .violations
            .join("\n")
    };
    let of_segments = without(&|path| path.ends_with(".wal"));
    assert!(of_segments.contains("is committed") && of_segments.contains("goes"), "{of_segments}");
    assert!(without(&|path| path.ends_with(".part")).contains("a receipt says"));
    assert!(without(&|path| path.ends_with("/wal")).contains("is committed"));
    assert!(without(&|path| path.contains("partition=") && !path.ends_with(".part")).contains("a receipt says"));
}

fn checked(trace: &Trace) -> Report {
    let mut order = Order::default();
    order.check(trace);
    order.report
}

/// The binary, where this test is built together with it.
fn forebay() -> Option<String> {
    option_env!("CARGO_BIN_EXE_forebay").map(str::to_owned).or_else(|| std::env::var("FOREBAY_BINARY").ok())
}

#[test]
fn the_order_of_system_calls_of_a_run_with_kafka() {
    let Some(binary) = forebay() else { return skip("order of system calls with Kafka", "built without the binary") };
    if let Err(why) = world::strace() {
        return skip("order of system calls with Kafka", &why);
    }
    let scratch = Scratch::new("demo");
    // Traced and on a busy machine, a killed member can take very long to be let into the embedded group again.
    let (records, kills) = if is_all() { ("150000", "6") } else { ("20000", "0") };
    let log = scratch.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-x", "-qq", "-s", &trace::SHOWN.to_string(), "-e", &format!("trace={}", trace::CALLS)]);
    strace.arg("-o").arg(&log).arg(binary).args(["demo", "--records", records, "--kills", kills, "--output", "json"]);
    let run = strace.arg("--dir").arg(scratch.path().join("demo")).stderr(Stdio::null()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    let report = checked(&Trace::parse(&String::from_utf8_lossy(&std::fs::read(&log).unwrap())));
    println!("{} commits, {} receipts, {} segments gone", report.commits, report.receipts, report.removed);
    assert_eq!(report.violations, Vec::<String>::new());
    assert!(report.commits > 5 && report.receipts > 5 && report.created > 5, "{report:?}");
    assert_eq!(report.unseen, 0);
}

/// Tells what was injected; the last lines of `scripts/real-faults.sh` are made of it.
fn tell(outcome: &inject::Outcome) {
    let inject::Outcome { sites, injections, lost, doubled, .. } = outcome;
    println!("{}", serde_json::json!({ "sites": sites, "injections": injections, "lost": lost, "doubled": doubled }));
}

#[test]
fn every_site_may_fail_or_be_the_last() {
    if let Err(why) = world::strace() {
        return skip("injection", &why);
    }
    let outcome = inject::run(driver::SMALL, (!is_all()).then_some(48));
    tell(&outcome);
    assert_eq!(outcome.wrong, Vec::<String>::new());
    assert!(outcome.sites > 100 && outcome.injections >= 40 && outcome.into_commits > 0, "{outcome:?}");
}

#[test]
fn every_site_may_fail_or_be_the_last_where_groups_go_past_the_page_cache() {
    if let Err(why) = world::strace().and_then(|()| world::direct()) {
        return skip("injection into writes past the page cache", &why);
    }
    let outcome = inject::run(driver::LARGE, (!is_all()).then_some(40));
    tell(&outcome);
    assert_eq!(outcome.wrong, Vec::<String>::new());
    println!("{} into writes past the page cache", outcome.into_direct);
    // However blocks come together: three fit into a segment, and each of the five has a write and a sync of its own.
    assert!(outcome.direct >= 10 && outcome.injections >= 13 && outcome.into_direct >= 3, "{outcome:?}");
}

#[test]
fn writes_may_be_cut_short_by_a_limit_on_files() {
    if let Err(why) = world::strace().and_then(|()| limits::allowed()) {
        return skip("writes cut short by a limit", &why);
    }
    let outcome = limits::run(is_all());
    println!("{outcome:?}");
    tell(&inject::Outcome {
        injections: outcome.runs,
        lost: outcome.lost,
        doubled: outcome.doubled,
        ..Default::default()
    });
    assert_eq!(outcome.wrong, Vec::<String>::new());
    assert!(outcome.log > 0 && outcome.spares > 0 && outcome.files > 0 && outcome.signalled > 0, "{outcome:?}");
    match world::direct() {
        Ok(()) => assert!(outcome.direct > 0, "{outcome:?}"),
        Err(why) => skip("writes past the page cache cut short", &why),
    }
}

#[test]
fn a_full_disk_and_one_that_becomes_read_only() {
    if let Err(why) = mounts::allowed() {
        return skip("full tmpfs, loop-mounted ext4, read-only remount", &why);
    }
    mounts::a_small_tmpfs_holds_a_long_life();
    mounts::a_full_tmpfs_stops_it_and_space_lets_it_go_on();
    match mounts::ext4() {
        Ok(disk) => mounts::read_only_in_the_middle(&disk),
        Err(why) => skip("loop-mounted ext4", &why),
    }
}

#[test]
fn a_limit_on_files_is_an_error_and_not_a_silent_end() {
    let Some(binary) = forebay() else { return skip("the binary under a limit", "built without the binary") };
    if let Err(why) = limits::allowed() {
        return skip("the binary under a limit", &why);
    }
    let scratch = Scratch::new("long");
    let starter = limits::starter(200_000, false);
    let mut command = Command::new(&starter[0]);
    command.args(&starter[1..]).arg(binary).args(["bench", "disk", "--dir"]).arg(scratch.path());
    let run = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.code().is_some_and(|code| code != 0), "{:?}: {said}", run.status);
    assert!(said.contains("File too large"), "{said}");
}

/// No multiple of a page, of a batch or of a record.
const FREE: u64 = 101_111;

#[test]
fn writes_may_be_cut_short_by_a_full_disk() {
    if let Err(why) = world::strace().and_then(|()| mounts::allowed()) {
        return skip("writes cut short by a full disk", &why);
    }
    let cut = mounts::cut_by_a_full_disk(mounts::tmpfs().unwrap().path(), FREE);
    assert!(cut > 0, "the writes to a full tmpfs were whole or refused");
    // Another file system may refuse the whole write; what comes of it is checked all the same.
    match mounts::ext4().map(|disk| mounts::cut_by_a_full_disk(disk.path(), FREE)) {
        Ok(0) => skip("writes cut short by a full ext4", "it refused whole writes this time"),
        Ok(_) => {}
        Err(why) => skip("writes cut short by a full ext4", &why),
    }
}
