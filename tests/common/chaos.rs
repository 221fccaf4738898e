//! Runs under live load in which instances are stopped, killed and frozen, and the verdict over what came out.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::process::LIMIT;
use super::{Dice, Forebay, Format, Kafka, Load, Run, Scratch, Verdict, delivered, unique, wait_for};

/// Partitions of every topic here.
pub const PARTITIONS: i32 = 4;
/// As long as `Run::short_session` makes it.
const SESSION: Duration = Duration::from_secs(3);

/// When the process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// At any time, starting and rejoining included.
    Random,
    /// Between the sync of the log and the commit to Kafka: the double-processing window.
    AfterSync,
    /// Between the sink's durable write and its receipt in the log.
    AfterWrite,
}

/// What a run of blows showed.
pub struct Outcome {
    /// Blows that hit a living process.
    pub blows: u64,
    /// Produced, delivered, lost, doubled.
    pub verdict: Verdict,
    /// Seconds in all.
    pub seconds: f64,
    /// Log and output, kept when the test fails.
    _scratch: Scratch,
}

impl Outcome {
    /// One JSON object for scripts.
    pub fn json(&self) -> Value {
        let v = &self.verdict;
        json!({
            "produced": v.produced, "delivered": v.delivered, "lost": v.lost, "doubled": v.doubled,
            "disordered": v.disordered, "strange": v.strange, "kills": self.blows,
            "seconds": (self.seconds * 10.0).round() / 10.0,
        })
    }
}

/// One instance under live load, killed again and again.
#[derive(Debug, Clone, Copy)]
pub struct Kills<'a> {
    /// The sink's format.
    pub format: Format,
    /// When to kill.
    pub moment: Moment,
    /// How often.
    pub count: u64,
    /// Records of 100 bytes a second.
    pub per_second: u64,
    /// Further settings of each run.
    pub settings: &'a [&'a str],
}

/// Kills, drains and judges.
pub fn kill_one(kafka: &'static Kafka, kills: Kills<'_>) -> Outcome {
    let start = std::time::Instant::now();
    let scratch = Scratch::new("kills");
    let (topic, group) = (unique("kills"), unique("group"));
    let mut dice = Dice::new("kills");
    kafka.create_topic(&topic, PARTITIONS, &[]);
    let signal = scratch.join("synced");
    let run = Run::new(kafka, &topic, &group, scratch.path()).set(kills.format.setting());
    let run = kills.settings.iter().fold(run, |run, pair| run.set(pair));
    let variable =
        if kills.moment == Moment::AfterWrite { "FOREBAY_HOOK_AFTER_WRITE" } else { "FOREBAY_HOOK_AFTER_SYNC" };
    let hooked = run.clone().env(variable, &signal.display().to_string());
    let load = Load::start(kafka, &topic, PARTITIONS, 0, kills.per_second, 100);
    for _ in 0..kills.count {
        match kills.moment {
            Moment::Random => {
                let process = run.spawn();
                std::thread::sleep(dice.millis(20, 2000));
                process.kill();
            }
            Moment::AfterSync | Moment::AfterWrite => {
                std::fs::write(&signal, "").unwrap();
                let mut process = hooked.spawn();
                let syncs = dice.range(1, if kills.moment == Moment::AfterWrite { 4 } else { 6 }) as usize;
                wait_syncs(&mut process, &signal, syncs);
                process.kill();
            }
        }
    }
    let next = load.stop();
    run.drain();
    let outcome = Outcome {
        blows: kills.count,
        verdict: delivered(&[run.out()], &topic, PARTITIONS, next, kills.format),
        seconds: start.elapsed().as_secs_f64(),
        _scratch: scratch,
    };
    kafka.delete_topic(&topic);
    outcome
}

/// The child adds a line to the file after each sync and then waits a moment before it commits.
fn wait_syncs(process: &mut Forebay, signal: &Path, syncs: usize) {
    wait_for("sync of the log", LIMIT, || {
        assert!(!process.has_ended(), "ended by itself:\n{}", process.stderr());
        let lines = std::fs::read_to_string(signal).unwrap();
        (lines.lines().count() >= syncs).then_some(())
    });
}

/// What is done to one of two instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGTERM, a clean end, started again.
    Stop,
    /// SIGKILL, started again.
    Kill,
    /// SIGSTOP until its session is over and the other one has its partitions; then SIGCONT.
    Freeze,
}

const BLOWS: [Blow; 3] = [Blow::Stop, Blow::Kill, Blow::Freeze];

/// Two instances in one group, each with its own log and output folder.
struct Pair {
    runs: [Run; 2],
    live: [Option<Forebay>; 2],
}

impl Pair {
    fn strike(&mut self, who: usize, blow: Blow, dice: &mut Dice) {
        let mut process = self.live[who].take().unwrap();
        match blow {
            Blow::Stop => {
                process.stop();
            }
            Blow::Kill => process.kill(),
            Blow::Freeze => {
                process.freeze();
                std::thread::sleep(SESSION + dice.millis(500, 2000));
                process.thaw();
                self.live[who] = Some(process);
                return;
            }
        }
        // Sometimes back at once (a static member keeps its partitions), sometimes after its session.
        let away = if dice.range(0, 2) == 0 { dice.millis(0, 300) } else { SESSION + dice.millis(0, 1500) };
        std::thread::sleep(away);
        self.live[who] = Some(self.runs[who].spawn());
    }
}

/// Strikes each of two instances `rounds` times under live load, drains both and judges both outputs together.
pub fn strike_two(kafka: &'static Kafka, format: Format, rounds: u64, per_second: u64) -> Outcome {
    let start = std::time::Instant::now();
    let scratch = Scratch::new("pair");
    let (topic, group) = (unique("pair"), unique("group"));
    let mut dice = Dice::new("two instances");
    kafka.create_topic(&topic, PARTITIONS, &[]);
    let runs = ["a", "b"].map(|name| {
        Run::new(kafka, &topic, &group, &scratch.join(name))
            .set(format.setting())
            .set("kafka.instances=2")
            .short_session()
    });
    let load = Load::start(kafka, &topic, PARTITIONS, 0, per_second, 100);
    let live = [Some(runs[0].spawn()), Some(runs[1].spawn())];
    let mut pair = Pair { runs, live };
    wait_for("group of two", LIMIT, || (kafka.members(&group) == 2).then_some(()));
    for round in 0..rounds * 2 {
        let blow = BLOWS[(round / 2 % 3) as usize];
        let who = (round % 2) as usize;
        eprintln!("round {round}: {blow:?} {who}");
        pair.strike(who, blow, &mut dice);
        std::thread::sleep(dice.millis(200, 2500));
    }
    let next = load.stop();
    for process in &mut pair.live {
        process.take().unwrap().stop();
    }
    drain_both(&pair.runs);
    let outs = [pair.runs[0].out(), pair.runs[1].out()];
    let outcome = Outcome {
        blows: rounds * 2,
        verdict: delivered(&outs, &topic, PARTITIONS, next, format),
        seconds: start.elapsed().as_secs_f64(),
        _scratch: scratch,
    };
    kafka.delete_topic(&topic);
    outcome
}

fn drain_both(runs: &[Run; 2]) {
    let last = runs.each_ref().map(|run| run.clone().exit_at_end().spawn());
    for process in last {
        process.finish(LIMIT).expect(0);
    }
}
