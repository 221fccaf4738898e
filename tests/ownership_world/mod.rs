//! The world of the ownership model: a coordinator, processes with receivers, their logs and outputs.

mod act;
mod coordinator;
mod process;
mod reduce;
mod steps;

use coordinator::Coordinator;
use forebay::kafka::gap::OnGap;
use forebay::kafka::start::{OnForeign, Policy, StartAt};
use forebay::kafka::tenure::{Fence, Members, Ownership, Rules, Settings, WalId};
use forebay::record::TopicId;
use process::{Disk, Process, Receiver};
pub use steps::Step;

const TOPIC: TopicId = TopicId([9; 16]);
const POLICY: Policy =
    Policy { start: StartAt::Offset(0), on_foreign: OnForeign::Hold, sole: false, on_gap: OnGap::Fail };

/// Bounds and variants of an exploration.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct WorldSettings {
    /// Receivers of each process; a process has one WAL and one output.
    pub receivers: Vec<usize>,
    pub records: usize,
    pub faults: u8,
    /// How often the coordinator takes the partition from a healthy member.
    pub revokes: u8,
    /// How often a client whose session was lost, while it was answering for other partitions, joins as a new member
    /// with the tenure of this one still open.
    pub renewals: u8,
    /// How often a client gives another partition back by itself, which answers a revocation it has not heard of.
    pub early_answers: u8,
    /// How often a log is full for a while: blocks wait, and a new tenure drops those of older ones.
    pub fills: u8,
    /// Static membership.
    pub statics: bool,
    /// Fewer interleavings: at most one unsynced block, `Confirmed` frames alone are synced at once, no position is
    /// lost, and a kill leaves all or nothing of what was not synced.
    pub coarse: bool,
    /// Begin with the first tenure open and its first commit, which claims the partition, confirmed.
    pub claimed: bool,
    /// Take the steps in every order, also where the order can't matter.
    pub every_order: bool,
    pub rules: Rules,
}

impl Default for WorldSettings {
    fn default() -> Self {
        Self {
            receivers: vec![1, 1],
            records: 3,
            faults: 2,
            revokes: 1,
            renewals: 0,
            early_answers: 0,
            fills: 0,
            statics: false,
            coarse: false,
            claimed: false,
            every_order: false,
            rules: Rules::all(),
        }
    }
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    kafka: Coordinator,
    processes: Vec<Process>,
    /// How often each record came out, over all outputs.
    out: Vec<u8>,
    faults: u8,
    revokes: u8,
    renewals: u8,
    early_answers: u8,
    fills: u8,
    /// A partition was held or stopped, which nothing here is a reason for.
    halted: Option<String>,
}

fn settings_of(wal: usize, rules: Rules) -> Settings {
    Settings { wal: WalId(wal as u128), topic: TOPIC, fence: Fence::Commit, rules }
}

impl World {
    pub fn new(settings: &WorldSettings) -> Self {
        let mut processes = Vec::new();
        let mut slots = 0;
        for (wal, receivers) in settings.receivers.iter().enumerate() {
            let mut process = Process {
                first_slot: slots,
                disk: Disk::default(),
                tail: Vec::new(),
                ownership: Ownership::new(settings_of(wal, settings.rules), 0, None),
                members: Members::new(0),
                receivers: Vec::new(),
                doubt_read: None,
                full: false,
            };
            process.start(settings, wal);
            processes.push(process);
            slots += receivers;
        }
        let kafka = Coordinator {
            generation: 0,
            last_member: 0,
            members: vec![None; slots],
            owner: None,
            moving: false,
            committed: None,
            network: Vec::new(),
        };
        let WorldSettings { faults, revokes, renewals, early_answers, fills, .. } = *settings;
        let out = vec![0; settings.records];
        let mut world = Self { kafka, processes, out, faults, revokes, renewals, early_answers, fills, halted: None };
        // A quiet group, its partition with the first slot; the processes are alike.
        for slot in 0..slots {
            world.take(settings, Step::Join { slot });
        }
        let mut steps = Vec::new();
        while settings.claimed && world.processes[0].disk.fold.is_none_or(|fold| fold.acked.is_none()) {
            steps.clear();
            world.steps(settings, &mut steps);
            steps.retain(|step| !step.costs() && !matches!(step, Step::Admit { .. }));
            world.take(settings, steps[0]);
        }
        world
    }

    /// Something that must never be.
    pub fn wrong(&self) -> Option<String> {
        let doubled = self.out.iter().position(|count| *count > 1);
        let doubled = doubled.map(|record| format!("record {record} delivered twice"));
        let differs =
            |process: &Process| process.tail.is_empty() && process.ownership.fold() != process.disk.fold.as_ref();
        let forgetful = self.processes.iter().any(differs);
        let forgetful = forgetful.then(|| "the log's fold is not what the machine believes".to_owned());
        doubled.or_else(|| self.halted.clone()).or(forgetful)
    }

    /// What is missing although nothing is left to happen.
    pub fn unfinished(&self) -> Option<String> {
        let missing = self.out.iter().position(|count| *count == 0);
        let committed = self.kafka.committed.as_ref().map(|(offset, _)| *offset);
        let behind = (committed != Some(self.out.len() as i64)).then(|| format!("committed {committed:?}"));
        missing.map(|record| format!("record {record} never delivered")).or(behind)
    }

    fn place(&self, slot: usize) -> (usize, usize) {
        let process = self.processes.iter().rposition(|process| process.first_slot <= slot).unwrap();
        (process, slot - self.processes[process].first_slot)
    }

    /// The slot's receiver has the open tenure of its WAL.
    fn holds(&self, slot: usize) -> bool {
        let (process, number) = self.place(slot);
        self.processes[process].ownership.tenure().is_some_and(|(holder, _)| holder == number)
    }

    fn receiver(&self, slot: usize) -> &Receiver {
        let (process, receiver) = self.place(slot);
        &self.processes[process].receivers[receiver]
    }

    /// Whether each slot's member answers the coordinator: killed ones do not.
    fn present(&self) -> Vec<bool> {
        (0..self.kafka.members.len()).map(|slot| self.kafka.is_member(slot, self.receiver(slot).membership)).collect()
    }
}
