//! One machine through all its lives: the log, the file sink and what its readers see on one simulated disk; Kafka beside
//! it, which forgets nothing; the copy of the dedupe table, of which a crash shows whatever it likes.

pub mod copies;
pub mod desk;
pub mod real_copy;
pub mod run;
pub mod workload;

use crate::crash_world::life::{End, Expected, Life};
use crate::crash_world::steps::Random;
use crate::file_sink_world::source;
use copies::Copies;
use desk::Desk;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::wal::{NO_OFFSET, PartitionState};
use run::Run;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use workload::{Act, PARTITIONS, Setup};

pub const OUT: &str = "/out";

/// A rule that a test leaves out on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The receipt is logged before the sink's file is synced.
    FileSync,
    /// The sink's directories are not synced.
    DirSync,
    /// A file is made before its name is durable.
    NameSync,
    /// A file is published before its receipt is durable.
    ReceiptSync,
    /// Kafka hears of offsets that are not durable yet.
    CommitSync,
    /// Segments are retired although a torn page may have to be written again from them.
    KeptTail,
    /// What the dedupe table's copy says of admitted offsets is believed, whatever its stamp says.
    AdmitStamp,
    /// The same of delivered offsets.
    DeliverStamp,
}

/// What ends a life before its time.
#[derive(Debug)]
pub enum Stop {
    /// An error, or the machine stopped.
    Ended(String),
    /// A promise is broken.
    Violation(String),
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        match end {
            End::Process(error) => Self::Ended(format!("log: {error}")),
            End::Violation(why) => Self::Violation(why),
        }
    }
}

/// What happens to a life.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    None,
    /// The machine stops in the middle of this operation.
    Stop(u64),
    /// This operation fails.
    Fail(u64),
    /// This operation is refused for want of space.
    Refuse(u64),
    /// The disk has room for so many bytes more.
    Full(u64),
}

/// What is left when the life is over.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    Kill,
    /// A kill, after which clean pages left the cache.
    Evict(u64),
    PowerCut(u64),
    /// A power cut, after which pages on their way can't be read until they are written again.
    Unreadable(u64),
}

/// See the module.
pub struct World {
    pub setup: Setup,
    pub desk: Desk,
    pub random: Random,
    /// The group's commit of each partition.
    pub kafka: Vec<Option<i64>>,
    pub copies: Copies,
    /// Every published file any reader ever saw.
    seen: BTreeMap<PathBuf, Vec<u8>>,
    /// Every other recovery is made a second time.
    recoveries: u64,
}

impl World {
    pub fn new(setup: &Setup, seed: u64, missing: Option<Missing>) -> Self {
        let sim = Sim::new(seed);
        let life = Life::new(sim, Expected::default(), &Arc::new(Metrics::new()));
        Self {
            setup: setup.clone(),
            desk: Desk::new(life, missing),
            random: Random(seed),
            kafka: vec![None; PARTITIONS as usize],
            copies: Copies::default(),
            seen: BTreeMap::new(),
            recoveries: seed,
        }
    }

    pub fn sim(&self) -> &Sim {
        &self.desk.life.sim
    }

    /// One life with these acts and, if nothing stops it, a clean stop; then what is left of the machine. True if it came
    /// to its end. The error says which promise is broken.
    pub fn live(&mut self, acts: &[Act], trouble: Trouble, ending: Ending) -> Result<bool, String> {
        let lived = self.run(acts, trouble, false);
        self.end(ending)?;
        match lived {
            Ok(()) => Ok(true),
            Err(Stop::Ended(why)) if matches!(trouble, Trouble::None | Trouble::Full(_)) => {
                Err(format!("ended without a reason: {why}"))
            }
            Err(Stop::Ended(_)) => Ok(false),
            Err(Stop::Violation(why)) => Err(why),
        }
    }

    /// Changing operations of a life with these acts.
    pub fn count(&mut self, acts: &[Act]) -> Result<u64, String> {
        self.run(acts, Trouble::None, false).map_err(|stop| format!("{stop:?}"))?;
        Ok(self.sim().operations())
    }

    /// The last life: undisturbed, all there is. Afterwards everything is as it should be.
    pub fn last(&mut self) -> Result<(), String> {
        self.sim().set_capacity(None);
        match self.run(&[], Trouble::None, true) {
            Ok(()) => self.check(),
            Err(Stop::Ended(why)) => Err(format!("ended without a reason: {why}")),
            Err(Stop::Violation(why)) => Err(why),
        }
    }

    fn run(&mut self, acts: &[Act], trouble: Trouble, is_last: bool) -> Result<(), Stop> {
        let sim = self.sim();
        let base = sim.operations();
        match trouble {
            Trouble::None => {}
            Trouble::Stop(at) => sim.crash_at(base + at),
            Trouble::Fail(at) => sim.fail_at(base + at),
            Trouble::Refuse(at) => sim.refuse_at(base + at),
            Trouble::Full(bytes) => sim.set_capacity(Some(sim.used() + bytes)),
        }
        let mut run = Run::start(self)?;
        for act in acts {
            run.act(*act)?;
        }
        if is_last {
            run.finish()?;
        }
        run.stop()
    }

    fn end(&mut self, ending: Ending) -> Result<(), String> {
        self.copies.close()?;
        self.observe()?;
        let sim = self.sim();
        let next = match ending {
            Ending::Kill => sim.kill(),
            Ending::Evict(seed) => sim.kill_and_evict(seed),
            Ending::PowerCut(seed) => sim.crash(seed),
            Ending::Unreadable(seed) => sim.crash_unreadably(seed),
        };
        self.desk.life.goes_on(next);
        self.observe()
    }

    /// Opens the log; a full disk may keep it from opening, with room it opens. What Kafka was told is in it.
    pub fn open_log(&mut self) -> Result<(), Stop> {
        match self.desk.life.open() {
            Err(end) if end.is_full() && self.sim().is_limited() => {
                self.sim().set_capacity(None);
                self.desk.life.open()?;
            }
            other => other?,
        }
        self.desk.life.inspect().map_err(Stop::Violation)?;
        let state = self.desk.life.writer().state().clone();
        for (number, committed) in self.kafka.iter().enumerate() {
            let partition = source(number as i32).partition;
            let admitted = state.partitions.get(&partition).map_or(NO_OFFSET, |known| known.admitted);
            if committed.is_some_and(|committed| committed > admitted) {
                let why = format!("partition {number}: Kafka was told {committed:?}, the log has {admitted}");
                return Err(Stop::Violation(why));
            }
        }
        Ok(())
    }

    /// After the sink was restored its files hold what the receipts say, no more and no less; and if the machine stops now,
    /// the next start comes to the same.
    pub fn check_restored(&mut self) -> Result<(), Stop> {
        let state = self.desk.life.writer().state().clone();
        let files = self.sim().files();
        for number in 0..PARTITIONS {
            let partition = source(number).partition;
            let delivered = state.partitions.get(&partition).map_or(NO_OFFSET, PartitionState::delivered);
            self.check_output(&files, number, delivered).map_err(Stop::Violation)?;
        }
        self.recoveries += 1;
        if self.recoveries.is_multiple_of(2) {
            return Ok(());
        }
        let left =
            if self.recoveries.is_multiple_of(3) { self.sim().kill() } else { self.sim().crash(self.recoveries) };
        left.set_capacity(None);
        let metrics = Arc::clone(&self.desk.life.metrics);
        let mut again = Self::new(&self.setup, self.recoveries, self.desk.missing);
        again.desk.life = Life::new(left, self.desk.life.expected.clone(), &metrics);
        let broken = |stop: Stop| Stop::Violation(format!("recovered again: {stop:?}"));
        again.desk.life.open().map_err(Stop::from).map_err(broken)?;
        run::restored_sink(&mut again).map_err(broken)?;
        let outputs = |files: BTreeMap<PathBuf, Vec<u8>>| {
            files.into_iter().filter(|(path, _)| path.starts_with(OUT)).collect::<BTreeMap<_, _>>()
        };
        if outputs(again.sim().files()) != outputs(files) {
            return Err(Stop::Violation("recovered again: the output is another one".into()));
        }
        Ok(())
    }

    /// Each file of the partition is where it belongs, and together they hold everything below `next` once.
    fn check_output(&self, files: &BTreeMap<PathBuf, Vec<u8>>, number: i32, next: i64) -> Result<bool, String> {
        let dir = PathBuf::from(format!("{OUT}/topic=orders/partition={number}"));
        let below: Vec<_> = files.iter().filter(|(path, _)| path.starts_with(&dir)).collect();
        let all: Vec<u8> = below.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let expected = self.setup.output(number, next);
        if all != expected {
            let names: Vec<_> = below.iter().map(|(path, bytes)| (path, bytes.len())).collect();
            let (found, wanted) = (all.len(), expected.len());
            return Err(format!("partition {number} below {next} has {found} of {wanted} bytes in {names:?}"));
        }
        Ok(below.iter().all(|(path, _)| self.is_published(path)))
    }

    fn is_published(&self, path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == self.setup.format.extension())
    }

    /// What readers see: a published file never changes, and stays.
    fn observe(&mut self) -> Result<(), String> {
        let files = self.sim().files();
        for (path, bytes) in files {
            if !self.is_published(&path) {
                continue;
            }
            let before = self.seen.entry(path.clone()).or_insert_with(|| bytes.clone());
            if *before != bytes {
                return Err(format!("{} changed after it was published", path.display()));
            }
        }
        Ok(())
    }

    /// After the last life everything is published, no power cut takes any of it back, and the log says the same.
    fn check(&mut self) -> Result<(), String> {
        self.copies.close()?;
        self.observe()?;
        self.desk.life.inspect()?;
        for seed in 0..3 {
            let files = self.sim().crash(seed).files();
            for number in 0..PARTITIONS {
                if !self.check_output(&files, number, self.setup.end())? {
                    return Err(format!("partition {number} has a file that is not published"));
                }
            }
            if let Some((path, _)) = self.seen.iter().find(|(path, bytes)| files.get(*path) != Some(bytes)) {
                return Err(format!("{} was seen by readers", path.display()));
            }
        }
        self.desk.life.goes_on(self.sim().crash(self.recoveries));
        self.open_log().map_err(|stop| format!("{stop:?}"))?;
        let state = self.desk.life.writer().state();
        let is_whole = |known: &PartitionState| known.delivered() == self.setup.end();
        if state.partitions.values().filter(|known| is_whole(known)).count() == PARTITIONS as usize {
            return Ok(());
        }
        Err("the log does not know that everything is delivered".into())
    }
}
