//! One fault at one site: each system call that changes something fails, or the process is killed as it is made, or when
//! it has been made.
//!
//! Killed after a call is not killed before the next one: the next may be of a kind that is not traced, or of another
//! thread, or there is none. So `strace` holds the thread at the end of the call, and the process is killed there.
//!
//! `strace` cannot make a write short (it would skip the call and lie about it): see `limits`.

use super::driver::{HANGS, LOST, STOPPED};
use super::order::Order;
use super::trace::{Call, Made, Trace};
use super::world::{Count, LIMIT, SAID, World};
use forebay::io::disk::Disk;
use forebay::wal::inspect::inspect;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Error(&'static str),
    KillBefore,
    KillAfter,
}

const FAULTS: [Fault; 4] = [Fault::Error("EIO"), Fault::Error("ENOSPC"), Fault::KillBefore, Fault::KillAfter];
/// A run may have fewer calls than the one that was counted. Then the call before is taken, so many times.
const STEPS: usize = 12;

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub sites: usize,
    /// Of these, writes past the page cache and their syncs.
    pub direct: usize,
    /// Faults that happened, as the trace of the run says.
    pub injections: usize,
    /// Of these, into writes past the page cache.
    pub into_direct: usize,
    /// Of these, into commits.
    pub into_commits: usize,
    pub lost: usize,
    pub doubled: usize,
    pub wrong: Vec<String>,
}

/// The directory around the life counts too: the first names are made durable there.
fn touches(made: &Made, world: &World) -> bool {
    let path = match &made.call {
        Call::Create(path)
        | Call::Sync(path)
        | Call::Unlink(path)
        | Call::Truncate(path)
        | Call::Write { path, .. } => path,
        Call::Rename(from, _) => from,
        Call::Send(_) => return false,
    };
    path.starts_with(world.around()) && !path.ends_with(SAID)
}

fn is_commit(made: &Made) -> bool {
    matches!(&made.call, Call::Write { path, .. } if path.ends_with(super::driver::COMMITS))
}

/// A call, as `strace` counts: per thread, name and, if it is one of a segment, file. What threads do side by side has
/// one number otherwise, and the fault is the first one's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Site {
    /// Relative to the life's directory.
    file: Option<String>,
    name: String,
    number: usize,
}

/// The calls that change something in the directory, and those that make or follow a write past the page cache.
fn sites(shape: usize) -> (BTreeSet<Site>, BTreeSet<Site>) {
    let world = World::shaped("sites", shape);
    let (code, trace) = world.trace(&[]);
    assert_eq!(code, Some(0), "{}", world.said());
    let mut counts: HashMap<(u32, Option<String>, String), usize> = HashMap::new();
    let (mut sites, mut direct) = (BTreeSet::new(), BTreeSet::new());
    let mut was_direct = HashSet::new();
    for made in &trace.calls {
        // Of `openat` only those that create are kept by the trace, but all are counted by strace.
        if made.name == "openat" {
            continue;
        }
        let mut counted = |file: Option<String>| {
            let count = counts.entry((made.thread, file.clone(), made.name.clone())).or_default();
            *count += 1;
            Site { file, name: made.name.clone(), number: *count }
        };
        let site = counted(None);
        if touches(made, &world) {
            sites.insert(site);
        }
        if let Call::Write { path, .. } | Call::Sync(path) = &made.call
            && let Ok(file) = Path::new(path).strip_prefix(world.dir())
            && path.ends_with(".wal")
        {
            let site = counted(Some(file.to_str().unwrap().to_owned()));
            let is_sync = matches!(made.call, Call::Sync(_));
            if made.direct {
                was_direct.insert(path);
            }
            if made.direct || is_sync && was_direct.remove(path) {
                direct.insert(site);
            }
        }
    }
    (sites, direct)
}

/// Tries every site, or so many faults spread over them; where groups go past the page cache, over those.
pub fn run(shape: usize, some: Option<usize>) -> Outcome {
    let (every, direct) = sites(shape);
    let mut outcome = Outcome { sites: every.len() + direct.len(), direct: direct.len(), ..Outcome::default() };
    let is_spread = some.is_some() && !direct.is_empty();
    let chosen = direct.iter().chain(every.iter().filter(|_| !is_spread));
    let planned: Vec<(Fault, &Site)> = chosen.flat_map(|site| FAULTS.map(|fault| (fault, site))).collect();
    // A step that shares no factor with the number of faults meets all of them.
    let step = some.map_or(1, |some| planned.len().div_ceil(some) | 1);
    for (fault, site) in planned.into_iter().step_by(step) {
        let happened = (0..STEPS.min(site.number))
            .any(|less| one(shape, fault, &Site { number: site.number - less, ..site.clone() }, &mut outcome));
        if !happened {
            outcome.wrong.push(format!("{fault:?} did not happen at {site:?} or before it"));
        }
    }
    outcome
}

/// What makes strace do it.
fn options(fault: Fault, site: &Site, world: &World) -> Vec<String> {
    let Site { file, name, number } = site;
    let what = match fault {
        Fault::Error(error) => format!("error={error}"),
        Fault::KillBefore => "signal=SIGKILL".to_owned(),
        Fault::KillAfter => format!("delay_exit={}", 2 * LIMIT.as_micros()),
    };
    let mut options = vec!["-e".to_owned(), format!("inject={name}:{what}:when={number}")];
    if let Some(file) = file {
        // What goes past the page cache is opened by its descriptor.
        let descriptors = (0..64).map(|number| format!("/proc/self/fd/{number}"));
        let files = descriptors.chain([world.dir().join(file).to_str().unwrap().to_owned()]);
        options.extend(files.flat_map(|file| ["-P".to_owned(), file]));
    }
    options
}

/// The call that the fault hit, if one did.
fn hit<'a>(fault: Fault, name: &str, trace: &'a Trace, code: Option<i32>, world: &World) -> Option<&'a Made> {
    let is_killed = matches!(code, None | Some(137));
    trace.calls.iter().find(|made| {
        let is_hit = match fault {
            Fault::Error(_) => made.injected,
            Fault::KillBefore => is_killed && made.returned.is_none(),
            Fault::KillAfter => is_killed && made.held,
        };
        is_hit && made.name == name && touches(made, world)
    })
}

/// True if the fault happened.
fn one(shape: usize, fault: Fault, site: &Site, outcome: &mut Outcome) -> bool {
    let world = World::shaped("inject", shape);
    let options = options(fault, site, &world);
    let (code, trace) = match fault {
        Fault::KillAfter => world.trace_killed_where_held(&options),
        _ => world.trace(&options),
    };
    let hit = hit(fault, &site.name, &trace, code, &world);
    outcome.injections += usize::from(hit.is_some());
    outcome.into_direct += usize::from(hit.is_some_and(|made| made.direct));
    outcome.into_commits += usize::from(hit.is_some_and(is_commit));
    let mut order = Order::default();
    // The calls of one file say nothing of their order among all.
    if site.file.is_none() {
        order.check(&trace);
    }
    let mut wrong = order.report.violations;
    if !matches!(code, None | Some(0 | STOPPED | 137)) {
        wrong.push(format!("exit code {code:?}"));
    }
    let Count { lost, doubled } = judge(&world, &mut wrong);
    outcome.lost += lost;
    outcome.doubled += doubled;
    if !wrong.is_empty() {
        outcome.wrong.push(format!("{fault:?} at {site:?}: {}\n{}", wrong.join("; "), world.said()));
    }
    hit.is_some()
}

/// Runs it once more, without faults: it gets to its end, everything is there once, the log undamaged.
pub fn judge(world: &World, wrong: &mut Vec<String>) -> Count {
    let again = world.run();
    if again != Some(0) {
        let what = match again {
            Some(LOST) => "lost what was committed",
            Some(HANGS) => "hangs",
            _ => "failed",
        };
        wrong.push(format!("the run after it {what} ({again:?})"));
    }
    let count = world.count();
    if count != (Count { lost: 0, doubled: 0 }) {
        wrong.push(format!("{} lost, {} doubled", count.lost, count.doubled));
    }
    match inspect(&Disk, &world.dir().join("wal")) {
        Ok(overview) if !overview.is_damaged() => {}
        other => wrong.push(format!("the log is damaged: {other:?}")),
    }
    count
}
