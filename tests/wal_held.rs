//! What others see while one operation of the log stands still: a sync, the making of a spare, a look from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/entries.rs"]
mod entries;

use entries::{block, delivered, owned};
use forebay::io::sim::Sim;
use forebay::io::{File, IoError, Storage};
use forebay::metrics::Metrics;
use forebay::record::Partition;
use forebay::wal::inspect::inspect;
use forebay::wal::{Opened, Options, WalError, open};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const DIR: &str = "/wal";
const P: Partition = Partition { topic: 1, number: 0 };
const LONG: Duration = Duration::from_secs(20);

fn options() -> Options {
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    options.idle = Duration::from_millis(5);
    options.seed = Some(1);
    options
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What of which files stands still while the gate is shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Sync,
    Read,
}

#[derive(Debug, Default)]
struct Held {
    /// Operations of this kind on files that were opened by a name with this ending.
    shut: Option<(What, String)>,
    waiting: usize,
}

#[derive(Clone, Debug, Default)]
struct Gate(Arc<(Mutex<Held>, Condvar)>);

impl Gate {
    fn shut(&self, what: What, ending: &str) {
        self.0.0.lock().unwrap().shut = Some((what, ending.to_owned()));
    }

    fn open(&self) {
        self.0.0.lock().unwrap().shut = None;
        self.0.1.notify_all();
    }

    fn holds_someone(&self) -> bool {
        self.0.0.lock().unwrap().waiting > 0
    }

    fn pass(&self, what: What, path: &Path) {
        let is_shut = |held: &Held| {
            let name = path.to_string_lossy();
            held.shut.as_ref().is_some_and(|(kind, ending)| *kind == what && name.ends_with(ending.as_str()))
        };
        let mut held = self.0.0.lock().unwrap();
        held.waiting += 1;
        held = self.0.1.wait_while(held, |held| is_shut(held)).unwrap();
        held.waiting -= 1;
    }
}

/// A disk with a gate.
#[derive(Debug)]
struct Gated {
    inner: Sim,
    gate: Gate,
}

#[derive(Debug)]
struct GatedFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    gate: Gate,
}

impl Gated {
    fn wrap(&self, inner: Arc<dyn File>, path: &Path) -> Arc<dyn File> {
        Arc::new(GatedFile { inner, path: path.to_owned(), gate: self.gate.clone() })
    }
}

impl Storage for Gated {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, IoError> {
        Ok(self.wrap(self.inner.create_new(path)?, path))
    }
    fn open(&self, path: &Path, write: bool) -> Result<Arc<dyn File>, IoError> {
        Ok(self.wrap(self.inner.open(path, write)?, path))
    }
    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        self.inner.list(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.inner.rename(from, to)
    }
    fn unlink(&self, path: &Path) -> Result<(), IoError> {
        self.inner.unlink(path)
    }
    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.inner.sync_dir(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError> {
        self.inner.create_dir_all(dir)
    }
    fn exists(&self, path: &Path) -> Result<bool, IoError> {
        self.inner.exists(path)
    }
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, IoError> {
        self.inner.lock(path)
    }
    fn free_bytes(&self, dir: &Path) -> Result<u64, IoError> {
        self.inner.free_bytes(dir)
    }
}

impl File for GatedFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.inner.write_at(position, slices)
    }
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        self.gate.pass(What::Read, &self.path);
        self.inner.read_at(position, buffer)
    }
    fn len(&self) -> Result<u64, IoError> {
        self.inner.len()
    }
    fn set_len(&self, len: u64) -> Result<(), IoError> {
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> Result<(), IoError> {
        self.gate.pass(What::Sync, &self.path);
        self.inner.sync_data()
    }
}

/// A simulated machine, and its disk behind a gate.
fn machine() -> (Sim, Gate, Arc<dyn Storage>) {
    let (sim, gate) = (Sim::new(1), Gate::default());
    let disk = Arc::new(Gated { inner: sim.clone(), gate: gate.clone() });
    (sim, gate, disk)
}

#[test]
fn nothing_is_handed_on_or_called_durable_while_its_sync_is_under_way() {
    let (sim, gate, disk) = machine();
    let Opened { log, mut feed, .. } = open(disk, options()).unwrap();
    let lsn = log.append_synced(vec![owned(P)]).unwrap();
    gate.shut(What::Sync, "");
    let before = sim.operations();
    log.append(block(P, 0, 100)).unwrap();
    wait_until("the write", || sim.operations() > before);
    assert!(feed.next(Duration::from_millis(50)).unwrap().is_none(), "handed on before it is durable");
    // An `Idle` frame may have been first.
    assert!(log.durable_lsn() <= lsn + 1 && log.marks(P).durable() == 0, "durable before its sync");
    gate.open();
    assert!(feed.next(LONG).unwrap().is_some());
    assert_eq!(log.marks(P).durable(), 1);
    log.close().unwrap();
}

#[test]
fn a_dropped_log_stays_locked_while_a_spare_is_still_being_made() {
    let (_, gate, disk) = machine();
    let first = open(Arc::clone(&disk), options()).unwrap();
    wait_until("its spares", || first.log.status().spares >= 3);
    first.log.close().unwrap();
    // The next life takes one of them, and makes another.
    gate.shut(What::Sync, ".spare.tmp");
    let second = open(Arc::clone(&disk), options()).unwrap();
    wait_until("a spare under way", || gate.holds_someone());
    drop(second);
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        match open(Arc::clone(&disk), options()) {
            Err(WalError::Locked { .. }) => std::thread::sleep(Duration::from_millis(1)),
            other => panic!("given free while its files still change: {:?}", other.map(|_| ())),
        }
    }
    gate.open();
    wait_until("the directory is given free", || open(Arc::clone(&disk), options()).is_ok());
}

#[test]
fn a_look_at_a_live_log_survives_that_a_file_becomes_a_later_segment_under_its_eyes() {
    let (sim, gate, disk) = machine();
    let Opened { log, mut feed, .. } = open(Arc::new(sim.clone()), options()).unwrap();
    log.append_synced(vec![owned(P)]).unwrap();
    let mut next = 0;
    let mut goes_on_until = |what: &str, done: &dyn Fn() -> bool| {
        wait_until(what, || {
            log.append_synced(vec![block(P, next, 20_000)]).unwrap();
            feed.next(LONG).unwrap().unwrap();
            next += 1;
            log.append_synced(vec![delivered(P, next)]).unwrap();
            done()
        });
    };
    let oldest = || log.status().oldest_live_segment;
    goes_on_until("several segments", &|| oldest() > 3);
    let newest = sim.list(Path::new(DIR)).unwrap().into_iter().rfind(|name| name.ends_with(".wal")).unwrap();
    let newest = Path::new(DIR).join(newest);
    gate.shut(What::Read, &newest.to_string_lossy());
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| inspect(disk.as_ref(), Path::new(DIR)));
        wait_until("it has opened the newest segment", || gate.holds_someone());
        let held = oldest();
        // Eight spares are kept: after so many rolls each file has another name.
        goes_on_until("the file is used again", &|| oldest() > held + 12);
        assert!(!sim.exists(&newest).unwrap());
        gate.open();
        let seen = looking.join().unwrap().expect("a live log can always be looked at");
        assert!(!seen.is_damaged(), "{:?}", seen.findings);
        assert!(seen.segments.iter().all(|segment| segment.path != newest));
    });
    log.close().unwrap();
}
