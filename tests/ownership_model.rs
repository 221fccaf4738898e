//! Explores the ownership protocol exhaustively: the machine of `forebay::kafka::tenure` itself, processes with a log
//! and an output each, against a coordinator that behaves as Kafka's does. From every state reachable within a few
//! faults a quiet continuation must deliver every record exactly once over all outputs. Then each rule is taken away in
//! turn, and the exploration must find the loss.
//!
//! What is modelled is in `ownership_world`; this file is the search. It keeps a 64-bit fingerprint of each state.

#![allow(clippy::unwrap_used, clippy::panic)]

mod ownership_world;

use forebay::kafka::tenure::{Rule, Rules};
use ownership_world::{Step, World, WorldSettings};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A quick fingerprint of a state.
#[derive(Default)]
struct Fingerprint(u64);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What went wrong and a way there.
#[derive(Debug)]
struct Violation {
    what: String,
    trace: Vec<Step>,
}

#[derive(Debug)]
struct Explored {
    states: usize,
    violation: Option<Violation>,
}

/// Where a state came from, and the state that a quiet continuation goes to first.
struct Seen {
    parent: u32,
    step: Step,
    quiet: u32,
}

const NOWHERE: u32 = u32::MAX;

#[derive(Default)]
struct Search {
    index: HashMap<u64, u32, BuildHasherDefault<Fingerprint>>,
    seen: Vec<Seen>,
    queue: VecDeque<(u32, World)>,
}

impl Search {
    fn enter(&mut self, world: World, parent: u32, step: Step) -> u32 {
        let mut hasher = Fingerprint::default();
        world.hash(&mut hasher);
        let next = u32::try_from(self.seen.len()).unwrap();
        let at = *self.index.entry(hasher.finish()).or_insert(next);
        if at == next {
            self.seen.push(Seen { parent, step, quiet: NOWHERE });
            self.queue.push_back((next, world));
        }
        at
    }

    /// Takes each of the steps; the first that costs nothing is the quiet continuation.
    fn expand(&mut self, settings: &WorldSettings, at: u32, world: &World, steps: &[Step]) {
        for step in steps {
            let mut after = world.clone();
            after.take(settings, *step);
            let next = self.enter(after, at, *step);
            let seen = &mut self.seen[at as usize];
            if seen.quiet == NOWHERE && !step.costs() {
                seen.quiet = next;
            }
        }
    }

    fn visit(&mut self, settings: &WorldSettings, at: u32, world: &World) -> Option<String> {
        let mut all = Vec::new();
        world.steps(settings, &mut all);
        let wrong = world.wrong();
        if wrong.is_some() || all.iter().all(|step| step.costs()) {
            let found = wrong.or_else(|| world.unfinished());
            self.expand(settings, at, world, &all);
            return found;
        }
        let mut own = all.clone();
        let reduced = !settings.every_order && world.own_steps_first(&mut own);
        let before = self.seen.len();
        self.expand(settings, at, world, &own);
        if reduced && self.seen.len() == before {
            // Nothing new that way: so that no circle hides the others' steps, take them all.
            self.expand(settings, at, world, &all);
        }
        None
    }

    fn trace(&self, mut at: u32) -> Vec<Step> {
        let mut trace = Vec::new();
        while at != 0 {
            trace.push(self.seen[at as usize].step);
            at = self.seen[at as usize].parent;
        }
        trace.reverse();
        trace
    }

    /// A quiet continuation that never ends, if there is one.
    fn livelock(&self) -> Option<u32> {
        let mut checked = vec![0u32; self.seen.len()];
        for start in 0..self.seen.len() as u32 {
            let mut at = start;
            while checked[at as usize] == 0 {
                checked[at as usize] = start + 1;
                let next = self.seen[at as usize].quiet;
                if next == NOWHERE {
                    break;
                }
                if checked[next as usize] == start + 1 {
                    return Some(next);
                }
                at = next;
            }
        }
        None
    }
}

/// Breadth first over all states within the bounds; stops at the first violation, which is then a nearest one.
fn explore(settings: &WorldSettings) -> Explored {
    let mut search = Search::default();
    search.enter(World::new(settings), 0, Step::Start);
    let mut found = None;
    while let Some((at, world)) = search.queue.pop_front() {
        if let Some(what) = search.visit(settings, at, &world) {
            found = Some((what, at));
            break;
        }
    }
    let found = found.or_else(|| search.livelock().map(|at| ("never quiet".to_owned(), at)));
    let violation = found.map(|(what, at)| Violation { what, trace: search.trace(at) });
    Explored { states: search.seen.len(), violation }
}

fn clean(settings: &WorldSettings) {
    let started = std::time::Instant::now();
    let explored = explore(settings);
    println!("{settings:?}: {} states in {:?}", explored.states, started.elapsed());
    if let Some(Violation { what, trace }) = &explored.violation {
        panic!("{what} after {trace:?}");
    }
}

fn bounds(records: usize, faults: u8, revokes: u8) -> WorldSettings {
    WorldSettings { records, faults, revokes, ..WorldSettings::default() }
}

/// The full bounds: two instances, three records, two faults, one revoke.
fn full() -> WorldSettings {
    WorldSettings { coarse: true, claimed: true, ..bounds(3, 2, 1) }
}

#[test]
fn dynamic_members_lose_and_double_nothing() {
    clean(&full());
}

#[test]
fn static_members_lose_and_double_nothing() {
    clean(&WorldSettings { statics: true, coarse: true, claimed: true, ..bounds(3, 1, 1) });
    clean(&WorldSettings { statics: true, coarse: true, claimed: true, ..bounds(1, 2, 1) });
}

#[test]
fn static_members_within_the_full_bounds() {
    clean(&WorldSettings { statics: true, ..full() });
}

#[test]
fn nothing_is_lost_or_doubled_from_the_first_start_on_in_the_finest_steps() {
    for statics in [false, true] {
        clean(&WorldSettings { statics, ..bounds(2, 1, 1) });
        clean(&WorldSettings { statics, ..bounds(1, 2, 0) });
    }
}

#[test]
fn two_receivers_on_one_wal_lose_and_double_nothing() {
    for statics in [false, true] {
        clean(&WorldSettings { statics, receivers: vec![2], claimed: true, ..bounds(2, 1, 1) });
        clean(&WorldSettings { statics, receivers: vec![2, 1], coarse: true, ..bounds(1, 1, 1) });
    }
}

/// A session lost while the member answers for other partitions: it is a new member, and this tenure is still open.
fn renewed(bounds: WorldSettings) -> WorldSettings {
    WorldSettings { renewals: 1, claimed: true, ..bounds }
}

/// A partition given back by itself while a revocation waits to be heard.
fn early(bounds: WorldSettings) -> WorldSettings {
    WorldSettings { early_answers: 1, claimed: true, ..bounds }
}

/// A log that is full for a while.
fn filled(bounds: WorldSettings) -> WorldSettings {
    WorldSettings { fills: 1, claimed: true, ..bounds }
}

#[test]
fn a_new_member_id_behind_an_open_tenure_loses_and_doubles_nothing() {
    for statics in [false, true] {
        clean(&renewed(WorldSettings { statics, ..bounds(1, 1, 1) }));
        clean(&renewed(WorldSettings { statics, coarse: true, ..bounds(2, 1, 1) }));
        clean(&renewed(WorldSettings { statics, coarse: true, ..bounds(1, 2, 0) }));
    }
}

#[test]
fn a_revocation_answered_before_it_is_heard_loses_and_doubles_nothing() {
    for statics in [false, true] {
        clean(&early(WorldSettings { statics, ..bounds(1, 1, 1) }));
        clean(&early(WorldSettings { statics, coarse: true, ..bounds(2, 1, 1) }));
        clean(&early(WorldSettings { statics, ..bounds(2, 0, 2) }));
    }
}

#[test]
fn a_log_that_is_full_for_a_while_loses_and_doubles_nothing() {
    for statics in [false, true] {
        clean(&filled(WorldSettings { statics, ..bounds(1, 1, 1) }));
        clean(&filled(WorldSettings { statics, coarse: true, ..bounds(2, 1, 1) }));
        clean(&filled(WorldSettings { statics, ..bounds(2, 1, 0) }));
    }
    clean(&filled(WorldSettings { receivers: vec![2], ..bounds(2, 0, 1) }));
}

/// The bounds in which the absence of a rule is looked for, smallest first.
fn ladder(rules: &[Rule]) -> Vec<WorldSettings> {
    let rules = Rules::broken_on_purpose(rules);
    let mut ladder = vec![
        WorldSettings { rules, claimed: true, ..bounds(1, 1, 0) },
        WorldSettings { rules, ..bounds(1, 1, 0) },
        WorldSettings { rules, claimed: true, ..bounds(1, 1, 1) },
        WorldSettings { rules, coarse: true, claimed: true, ..bounds(2, 1, 1) },
        WorldSettings { rules, coarse: true, receivers: vec![2, 1], ..bounds(1, 1, 1) },
        filled(WorldSettings { rules, ..bounds(1, 1, 0) }),
        early(WorldSettings { rules, ..bounds(1, 0, 1) }),
        renewed(WorldSettings { rules, ..bounds(1, 1, 0) }),
    ];
    let statics = ladder.clone().into_iter().map(|bounds| WorldSettings { statics: true, ..bounds });
    ladder.extend(statics);
    ladder
}

/// Looks for what goes wrong without the rules; prints the way there.
fn loss_without(rules: &[Rule]) -> bool {
    let mut states = 0;
    for settings in ladder(rules) {
        let explored = explore(&settings);
        states += explored.states;
        if let Some(Violation { what, trace }) = explored.violation {
            println!("without {rules:?}: {what}, {states} states; {settings:?}\n  {trace:?}");
            return true;
        }
    }
    println!("without {rules:?}: nothing in {states} states");
    false
}

/// Adopting spares fetching again what the log holds already. That nothing of an older tenure commits follows from a
/// tenure's opening only when all of it is durable. Everything else is needed.
#[test]
fn without_any_one_rule_the_loss_is_found() {
    let harmless: Vec<Rule> = Rule::ALL.into_iter().filter(|rule| !loss_without(&[*rule])).collect();
    assert_eq!(harmless, [Rule::Adopt, Rule::OwnTenureOnly]);
}

/// A log that is never full drops nothing, so a tenure may open early there; then the other rule is what holds.
#[test]
fn what_became_durable_for_an_older_tenure_must_not_commit() {
    let without = |rules: &[Rule]| {
        let rules = Rules::broken_on_purpose(rules);
        let small = explore(&WorldSettings { rules, claimed: true, ..bounds(1, 1, 1) });
        small
            .violation
            .or_else(|| explore(&WorldSettings { rules, coarse: true, claimed: true, ..bounds(2, 1, 1) }).violation)
    };
    assert!(without(&[Rule::DurableBeforeOpen]).is_none());
    assert!(without(&[Rule::DurableBeforeOpen, Rule::OwnTenureOnly]).is_some());
}

#[test]
fn unprotected_doubles() {
    let rules = Rules::unprotected();
    let explored = explore(&WorldSettings { rules, claimed: true, ..bounds(1, 1, 0) });
    assert!(explored.violation.unwrap().what.contains("delivered twice"));
}

/// The reduction that [`World::own_steps_first`] makes hides nothing: with it and without it the same rules fail.
#[test]
fn the_order_of_a_lone_processs_own_steps_does_not_matter() {
    for rules in [vec![]].into_iter().chain(Rule::ALL.map(|rule| vec![rule])) {
        let settings = WorldSettings { rules: Rules::broken_on_purpose(&rules), claimed: true, ..bounds(1, 1, 1) };
        let few = explore(&settings);
        let all = explore(&WorldSettings { every_order: true, ..settings });
        assert_eq!(few.violation.is_some(), all.violation.is_some(), "{rules:?}: {few:?} {all:?}");
        assert!(few.states <= all.states || few.violation.is_some());
    }
}
