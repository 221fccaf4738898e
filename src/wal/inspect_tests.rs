use super::*;
use crate::io::fault::{Faults, Operation};
use crate::io::sim::Sim;
use crate::io::{File, IoError};
use crate::metrics::Metrics;
use crate::wal::format::frame::FRAME_HEADER;
use crate::wal::options::Options;
use crate::wal::recovery::recover;
use crate::wal::segment::{recycled_name, repair_name, torn_name, unfinished_name};
use crate::wal::testing::{DIR, block, owned, path};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const ENOENT: i32 = 2;
const EIO: i32 = 5;

/// A directory that changes while it is looked at.
#[derive(Debug)]
struct Live {
    sim: Sim,
    /// How often the name of segment 1 still leads to segment 3.
    misleads: AtomicUsize,
    lists: AtomicUsize,
    /// Goes before the directory is listed for the second time.
    goes: Option<PathBuf>,
}

impl Storage for Live {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, IoError> {
        self.sim.create_new(path)
    }

    fn open(&self, path: &Path, write: bool) -> Result<Arc<dyn File>, IoError> {
        let left = self.misleads.load(Ordering::Acquire);
        if left > 0 && path == self::path(1) {
            self.misleads.store(left - 1, Ordering::Release);
            return self.sim.open(&self::path(3), write);
        }
        self.sim.open(path, write)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        let before = self.lists.fetch_add(1, Ordering::AcqRel);
        if let (1, Some(path)) = (before, &self.goes) {
            self.sim.unlink(path)?;
        }
        self.sim.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.sim.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> Result<(), IoError> {
        self.sim.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.sim.sync_dir(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError> {
        self.sim.create_dir_all(dir)
    }

    fn exists(&self, path: &Path) -> Result<bool, IoError> {
        self.sim.exists(path)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, IoError> {
        self.sim.lock(path)
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64, IoError> {
        self.sim.free_bytes(dir)
    }
}

fn live(sim: &Sim, misleads: usize, goes: Option<PathBuf>) -> Live {
    Live { sim: sim.snapshot(), misleads: AtomicUsize::new(misleads), lists: AtomicUsize::new(0), goes }
}

/// Segments 1, 2 and 3, with three blocks each.
fn written() -> Sim {
    let sim = Sim::new(1);
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    (options.segment_bytes, options.seed) = (64 << 10, Some(1));
    let mut writer = recover(&storage, &options).unwrap().writer;
    while writer.rack().work(&mut || {}).unwrap() {}
    assert_eq!(writer.append(&[owned()]).unwrap(), 1);
    for first in 0..9 {
        if first == 3 || first == 6 {
            assert!(writer.roll().unwrap());
        }
        assert_eq!(writer.append(&[block(first, 3000)]).unwrap(), 1);
    }
    sim
}

/// What a dump shows behind the states: the kind of a frame, or `None` for damage, each with its position.
fn pieces(sim: &Sim, number: u64) -> Vec<(u64, Option<Kind>)> {
    let mut found = Vec::new();
    let mut note = |piece: Dumped<'_>| {
        match piece {
            Dumped::Frame(header, _) => found.push((header.position, Some(header.kind))),
            Dumped::Damage(damage) => found.push((damage.position, None)),
            Dumped::Segment(_) | Dumped::State(_) => {}
        }
        true
    };
    dump(sim, Path::new(DIR), number, &mut note).unwrap();
    found
}

fn kinds(sim: &Sim, number: u64) -> Vec<Option<Kind>> {
    pieces(sim, number).into_iter().map(|(_, kind)| kind).collect()
}

fn flip(sim: &Sim, number: u64, at: u64) {
    sim.damage(&path(number), |bytes| bytes[at as usize] ^= 1).unwrap();
}

fn look(storage: &dyn Storage) -> Result<Overview, WalError> {
    inspect(storage, Path::new(DIR))
}

fn found_in(seen: &Overview) -> Vec<PathBuf> {
    seen.findings.iter().map(|finding| finding.path.clone()).collect()
}

#[test]
fn a_look_is_repeated_while_segments_go_but_not_for_ever() {
    let sim = written();
    for (misses, is_seen) in [(1, true), (ATTEMPTS - 1, true), (ATTEMPTS, false)] {
        let faults = Faults::new(Arc::new(sim.snapshot()));
        for later in 0..misses as u64 {
            faults.fail(Operation::Open, later, ENOENT);
        }
        assert_eq!(look(&faults).is_ok_and(|seen| seen.segments.len() == 3), is_seen, "{misses} misses");
    }
    let faults = Faults::new(Arc::new(sim));
    faults.fail(Operation::Open, 0, EIO);
    assert!(matches!(look(&faults), Err(WalError::Io(_))), "a disk that fails is told at once");
}

#[test]
fn a_look_is_repeated_while_a_name_leads_to_a_later_segment_but_not_for_ever() {
    let sim = written();
    for misleads in [1, ATTEMPTS - 1] {
        assert_eq!(look(&live(&sim, misleads, None)).unwrap().segments.len(), 3, "misled {misleads} times");
    }
    assert!(matches!(look(&live(&sim, ATTEMPTS, None)), Err(WalError::Foreign { .. })));
}

#[test]
fn what_is_retired_during_a_look_is_left_out_and_the_rest_is_judged() {
    let sim = written();
    for number in [1, 2] {
        let (position, kind) = pieces(&sim, number)[1];
        assert_eq!(kind, Some(Kind::Block));
        flip(&sim, number, position + FRAME_HEADER as u64);
    }
    assert_eq!(found_in(&look(&sim).unwrap()), [path(1), path(2)]);
    let seen = look(&live(&sim, 0, Some(path(1)))).unwrap();
    let numbers: Vec<u64> = seen.segments.iter().map(|segment| segment.number).collect();
    assert_eq!(numbers, [2, 3]);
    assert_eq!((found_in(&seen), seen.damaged_blocks), (vec![path(2)], 1));
}

#[test]
fn a_useless_repair_file_of_the_lowest_segment_is_told() {
    let sim = written();
    let repair = Path::new(DIR).join(repair_name(1, 2));
    sim.create_new(&repair).unwrap();
    let seen = look(&sim).unwrap();
    assert_eq!(found_in(&seen), [repair]);
    assert!(seen.is_damaged());
}

#[test]
fn a_useless_repair_file_is_told_unless_its_segment_goes() {
    let sim = written();
    let files = [1, 2].map(|number| Path::new(DIR).join(repair_name(number, 2)));
    for file in &files {
        sim.create_new(file).unwrap();
    }
    let seen = look(&live(&sim, 0, Some(path(1)))).unwrap();
    assert_eq!(found_in(&seen), files[1..], "the first belongs to what is retired");
    sim.unlink(&path(1)).unwrap();
    let seen = look(&live(&sim, 0, Some(files[0].clone()))).unwrap();
    assert!(!found_in(&seen).contains(&files[0]), "it went after its segment");
    assert!(found_in(&seen).contains(&files[1]));
}

#[test]
fn spares_count_finished_or_not() {
    let sim = Sim::new(1);
    sim.create_dir_all(Path::new(DIR)).unwrap();
    let unfinished = unfinished_name(&recycled_name(3));
    for name in [recycled_name(1), recycled_name(2), unfinished, torn_name(4)] {
        sim.create_new(&Path::new(DIR).join(name)).unwrap();
    }
    let seen = look(&sim).unwrap();
    assert_eq!((seen.spares, seen.torn_copies, seen.segments.len()), (3, 1, 0));
}

#[test]
fn a_dump_of_a_whole_log_shows_its_frames_and_nothing_else() {
    let sim = written();
    let [owned, block, footer] = [Kind::Owned, Kind::Block, Kind::Footer].map(Some);
    assert_eq!(kinds(&sim, 1), [owned, block, block, block, footer]);
    assert_eq!(kinds(&sim, 2), [block, block, block, footer]);
    assert_eq!(kinds(&sim, 3), [block, block, block]);
}

#[test]
fn a_dump_shows_damage_and_what_follows_it_and_a_damaged_footer() {
    let sim = written();
    let (second, _) = pieces(&sim, 3)[1];
    flip(&sim, 3, second + FRAME_HEADER as u64);
    let block = Some(Kind::Block);
    assert_eq!(kinds(&sim, 3), [block, None, block]);
    let (footer, _) = pieces(&sim, 2)[3];
    flip(&sim, 2, footer + 20);
    assert_eq!(kinds(&sim, 2), [block, block, block, None]);
}

#[test]
fn a_lowest_segment_that_is_missing_is_told() {
    let sim = written();
    sim.unlink(&path(1)).unwrap();
    let seen = look(&sim).unwrap();
    assert!(found_in(&seen).contains(&path(1)), "nothing says that it is retired");
    assert!(seen.is_damaged());
}

#[test]
fn damaged_blocks_count_unless_their_segment_is_retired_during_the_look() {
    let sim = written();
    let blocks = [(1, pieces(&sim, 1)[1]), (2, pieces(&sim, 2)[0]), (2, pieces(&sim, 2)[1])];
    for (number, (position, kind)) in blocks {
        assert_eq!(kind, Some(Kind::Block));
        flip(&sim, number, position + FRAME_HEADER as u64);
    }
    assert_eq!(look(&sim).unwrap().damaged_blocks, 3);
    let seen = look(&live(&sim, 0, Some(path(1)))).unwrap();
    assert_eq!((found_in(&seen), seen.damaged_blocks), (vec![path(2); 2], 2));
}
