//! Writes that are cut short: by a limit on the length of files (`RLIMIT_FSIZE`) and by a disk that fills up.
//!
//! The write that crosses the limit or the end of the disk is cut there and says how far it got; only the next one fails.
//! Under a limit it also brings a signal (`SIGXFSZ`), which ends a process that neither catches nor ignores it. Both are
//! tried: it ends without a word as by a kill, and it is told that the file is too large.
//!
//! Writes past the page cache are cut by the limit only: the blocks of a segment are there before it is used, so no disk
//! is ever full for them.

use super::driver::{FILES, LARGE, SMALL, STOPPED, UNTIL};
use super::inject::judge;
use super::order::Order;
use super::trace::{Call, Made};
use super::world::{Count, World};
use std::process::Command;

/// Of a run under a limit.
#[derive(Debug, Default)]
pub struct Outcome {
    pub runs: usize,
    /// Writes that were cut, by what they were to write to.
    pub log: usize,
    pub direct: usize,
    pub spares: usize,
    pub files: usize,
    /// Ended by the signal.
    pub signalled: usize,
    pub lost: usize,
    pub doubled: usize,
    pub wrong: Vec<String>,
}

impl Outcome {
    /// Counts the write if it was cut.
    fn note(&mut self, made: &Made) {
        let Call::Write { path, .. } = &made.call else { return };
        if !made.is_short() {
            return;
        }
        let kind = match path {
            _ if made.direct => &mut self.direct,
            path if path.ends_with(".wal") => &mut self.log,
            path if path.ends_with(".part") => &mut self.files,
            _ => &mut self.spares,
        };
        *kind += 1;
    }
}

/// Whether limits can be set here, and what they do is not decided already.
pub fn allowed() -> Result<(), String> {
    match Command::new("prlimit").args(["--fsize=1048576", "true"]).output() {
        Err(error) => return Err(format!("no prlimit: {error}")),
        Ok(run) if !run.status.success() => return Err(String::from_utf8_lossy(&run.stderr).trim().to_owned()),
        Ok(_) => {}
    }
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    let ignored = u64::from_str_radix(ignored.trim(), 16).map_err(|error| error.to_string())?;
    if ignored >> 24 & 1 == 1 { Err("SIGXFSZ is ignored by who started the tests".to_owned()) } else { Ok(()) }
}

/// What starts a process under the limit, with the signal as it is or ignored.
pub fn starter(limit: u64, is_ignored: bool) -> Vec<String> {
    let trap = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
    let around = if is_ignored { &trap[..] } else { &[] };
    let limited = ["prlimit".to_owned(), format!("--fsize={limit}"), "--".to_owned()];
    around.iter().map(ToString::to_string).chain(limited).collect()
}

/// Limits of a shape: odd ones that no write begins at, and for writes past the page cache whole pages too, as others
/// are not taken there. What half a life writes reaches beyond each of them, whatever groups it comes in: one segment at
/// least is filled in it from its first block to its last, and one file.
fn limits(shape: usize, is_all: bool) -> Vec<u64> {
    let (from, to, count) = match shape {
        SMALL => (9_001, 56_000, if is_all { 40 } else { 6 }),
        LARGE => (200 << 12, 1_800_000, if is_all { 20 } else { 6 }),
        _ => (70_001, 130_000, if is_all { 20 } else { 3 }),
    };
    let each = (0..count).map(|number| from + (to - from) * number / count);
    each.enumerate()
        .map(|(number, at)| if shape == LARGE && number % 2 == 0 { at >> 12 << 12 } else { at | 1 })
        .collect()
}

/// Lives of each shape whose second half is under a limit: the segments for it are there, so groups are cut.
pub fn run(is_all: bool) -> Outcome {
    let mut outcome = Outcome::default();
    for shape in [SMALL, LARGE, FILES] {
        for limit in limits(shape, is_all) {
            for is_ignored in [false, true] {
                one(shape, limit, is_ignored, &mut outcome);
            }
        }
    }
    outcome
}

fn one(shape: usize, limit: u64, is_ignored: bool, outcome: &mut Outcome) {
    let world = World::shaped("limit", shape);
    let mut order = Order::default();
    let half = world.under_strace(&[], &[]).env(UNTIL, (world.shape().records / 2).to_string()).status().unwrap();
    assert!(half.success(), "{}", world.said());
    order.check(&world.calls());
    let (code, trace) = world.trace_started_by(&[], &starter(limit, is_ignored));
    outcome.runs += 1;
    outcome.signalled += usize::from(code.is_none());
    trace.calls.iter().for_each(|made| outcome.note(made));
    order.check(&trace);
    let mut wrong = order.report.violations;
    if !trace.calls.iter().any(Made::is_short) {
        wrong.push("no write was cut".to_owned());
    }
    // A log that finds another segment may get to its end.
    if !matches!((code, is_ignored), (None, false) | (Some(0 | STOPPED), true)) {
        wrong.push(format!("exit code {code:?}"));
    }
    let Count { lost, doubled } = judge(&world, &mut wrong);
    outcome.lost += lost;
    outcome.doubled += doubled;
    if !wrong.is_empty() {
        let what = format!("limit {limit} of {:?}, ignored {is_ignored}", world.shape());
        outcome.wrong.push(format!("{what}: {}\n{}", wrong.join("; "), world.said()));
    }
}
