//! One fault at one site: each system call that changes something fails, or the process is killed as it is made.

use super::driver::{HANGS, LOST, STOPPED};
use super::order::Order;
use super::trace::{Call, Made};
use super::world::{Count, World};
use forebay::io::disk::Disk;
use forebay::wal::inspect::inspect;
use std::collections::{BTreeSet, HashMap};

/// What is done to a call. `strace` cannot make a write short (it would skip the call); short writes are the simulated
/// disk's and the full file systems'.
const FAULTS: [&str; 3] = ["error=EIO", "error=ENOSPC", "signal=SIGKILL"];
/// So many are tried where not all are.
const SOME: usize = 36;

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub sites: usize,
    pub injections: usize,
    pub lost: usize,
    pub doubled: usize,
    pub wrong: Vec<String>,
}

fn touches(made: &Made, dir: &str) -> bool {
    let path = match &made.call {
        Call::Create(path)
        | Call::Sync(path)
        | Call::Unlink(path)
        | Call::Truncate(path)
        | Call::Write { path, .. } => path,
        Call::Rename(from, _) => from,
        Call::Send(_) => return false,
    };
    path.starts_with(dir) && !path.ends_with(super::driver::COMMITS)
}

/// Names and numbers of the calls that change something in the directory. `strace` counts per thread.
fn sites(world: &World) -> BTreeSet<(String, usize)> {
    let (code, trace) = world.trace(&[]);
    assert_eq!(code, Some(0), "{}", world.said());
    let dir = world.dir().to_str().unwrap().to_owned();
    let mut counts: HashMap<(u32, String), usize> = HashMap::new();
    let mut sites = BTreeSet::new();
    for made in &trace.calls {
        // Of `openat` only those that create are kept by the trace, but all are counted by strace.
        if made.name == "openat" {
            continue;
        }
        let count = counts.entry((made.thread, made.name.clone())).or_default();
        *count += 1;
        if touches(made, &dir) {
            sites.insert((made.name.clone(), *count));
        }
    }
    sites
}

/// Tries them.
pub fn run(all: bool) -> Outcome {
    let sites = sites(&World::new("sites"));
    let mut planned: Vec<String> = Vec::new();
    for (name, number) in &sites {
        planned.extend(FAULTS.iter().map(|fault| format!("{name}:{fault}:when={number}")));
    }
    let mut outcome = Outcome { sites: sites.len(), ..Outcome::default() };
    let step = if all { 1 } else { planned.len().div_ceil(SOME) };
    for injection in planned.iter().step_by(step) {
        one(injection, &mut outcome);
    }
    outcome
}

fn one(injection: &str, outcome: &mut Outcome) {
    let world = World::new("inject");
    let mut order = Order::default();
    let code = world.traced(&[injection.to_owned()], &mut order);
    outcome.injections += 1;
    let mut wrong = order.report.violations;
    if !matches!(code, None | Some(0 | STOPPED | 137)) {
        wrong.push(format!("exit code {code:?}"));
    }
    let again = world.run();
    if again != Some(0) {
        let what = match again {
            Some(LOST) => "lost what was committed",
            Some(HANGS) => "hangs",
            _ => "failed",
        };
        wrong.push(format!("the run after it {what} ({again:?})"));
    }
    let Count { lost, doubled } = world.count();
    outcome.lost += lost;
    outcome.doubled += doubled;
    if (lost, doubled) != (0, 0) {
        wrong.push(format!("{lost} lost, {doubled} doubled"));
    }
    match inspect(&Disk, &world.dir().join("wal")) {
        Ok(overview) if !overview.is_damaged() => {}
        other => wrong.push(format!("the log is damaged: {other:?}")),
    }
    if !wrong.is_empty() {
        outcome.wrong.push(format!("{injection}: {}\n{}", wrong.join("; "), world.said()));
    }
}
