//! Looks at a log from outside: for `wal ls`, `status`, `dump` and `check`.
//!
//! Promises: read-only, without the lock, on a live or broken directory. Nothing is repaired and nothing is hidden.

use super::error::WalError;
use super::format::entry::Entry;
use super::format::frame::{FrameHeader, Kind};
use super::format::header::{Predecessor, SegmentHeader};
use super::format::state::State;
use super::recovery::table::Verdict;
use super::repair::files::{self, Kept};
use super::scan::finding::{CorruptBlock, Finding};
use super::scan::segment::{Segment, SegmentScan};
use super::scan::survey::{self, Survey};
use super::scan::{Damage, Piece, Scanner, lost, states};
use super::segment::{FileName, classify, segment_of};
use crate::io::Storage;
use crate::record::{Lsn, Partition};
use bytes::Bytes;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// How often a look at a live log is repeated when segments go while it is looked at.
const ATTEMPTS: usize = 20;

/// One segment in a list.
#[derive(Clone, Debug)]
pub struct SegmentSummary {
    /// Number.
    pub number: u64,
    /// Path.
    pub path: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
    /// The position at which it ends.
    pub end: u64,
    /// LSN of its first frame.
    pub first_lsn: Lsn,
    /// The first LSN that is not in it.
    pub next_lsn: Lsn,
    /// Frames with an LSN.
    pub frames: u64,
    /// Blocks.
    pub blocks: u64,
    /// A successor declares its end.
    pub sealed: bool,
    /// A block in it is still needed.
    pub live: bool,
    /// Partitions and offset ranges of its blocks.
    pub ranges: Vec<(Partition, i64, i64)>,
    /// The header.
    pub header: SegmentHeader,
}

/// Everything about a log at one moment.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Segments, ascending.
    pub segments: Vec<SegmentSummary>,
    /// Spares, finished or not.
    pub spares: usize,
    /// Copies of torn tails.
    pub torn_copies: usize,
    /// The fold at the end; `None` for an empty directory, or if no state is left.
    pub state: Option<State>,
    /// Everything that does not verify, a torn tail included.
    pub findings: Vec<Finding>,
    /// Damaged blocks that are to be delivered and that no repair file mends.
    pub damaged_blocks: usize,
    /// Repair files in use, and their bytes.
    pub repairs: (usize, u64),
}

impl Overview {
    /// True if something is damaged: `wal check` exits 3. A torn, unacknowledged tail is not damage.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|f| f.verdict != Verdict::Torn)
    }
}

/// Verifies every byte of the log up to its end and folds it. Version and foreign files are errors; damage is reported.
pub fn inspect(storage: &dyn Storage, dir: &Path) -> Result<Overview, WalError> {
    let mut attempt = 1;
    let mut survey = loop {
        match survey::survey(storage, dir) {
            // A live log retires segments while they are looked at.
            Err(WalError::Io(error)) if attempt < ATTEMPTS && error.source.kind() == std::io::ErrorKind::NotFound => {}
            // Opened by its old name, it has become a later segment.
            Err(WalError::Foreign { .. }) if attempt < ATTEMPTS => {}
            other => break other?,
        }
        attempt += 1;
    };
    let kept = survey::list(storage, dir)?.segments.first().copied().unwrap_or(0);
    leave_out(&mut survey, kept);
    Ok(overview(survey))
}

/// What was retired meanwhile, below this segment, may have been overwritten under our eyes. Repair files go some time
/// after their segment.
fn leave_out(survey: &mut Survey, kept: u64) {
    let is_retired = survey.segments.first().is_some_and(|first| first.number < kept);
    survey.findings.retain(|finding| {
        let name = finding.path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let is_repair = matches!(classify(name), FileName::Repair);
        !(is_retired || is_repair) || segment_of(name).is_none_or(|number| number >= kept)
    });
    if is_retired {
        survey.segments.retain(|segment| segment.number >= kept);
        survey.corrupt.retain(|block| block.segment >= kept);
    }
}

fn overview(survey: Survey) -> Overview {
    let mends = |block: &CorruptBlock| files::find(&survey.repairs, block).is_some();
    let damaged_blocks = survey.live_corrupt().iter().filter(|block| !mends(block)).count();
    let repairs = (survey.repairs.len(), survey.repairs.iter().map(Kept::bytes).sum());
    let state = survey.state;
    let summary = |scan: SegmentScan| SegmentSummary {
        number: scan.number,
        bytes: scan.len,
        end: scan.end,
        first_lsn: scan.header.first_lsn,
        next_lsn: scan.next_lsn,
        frames: scan.frames,
        blocks: scan.runs.blocks(),
        sealed: scan.sealed,
        live: state.as_ref().is_none_or(|s| scan.runs.is_live(s)),
        ranges: scan.runs.ranges().collect(),
        header: scan.header,
        path: scan.path,
    };
    let segments = survey.segments.into_iter().map(summary).collect();
    Overview {
        segments,
        spares: survey.listing.spares.len() + survey.listing.unfinished.len(),
        torn_copies: survey.listing.torn.len(),
        state,
        findings: survey.findings,
        damaged_blocks,
        repairs,
    }
}

/// What a dump shows.
#[derive(Debug)]
pub enum Dumped<'a> {
    /// A segment begins.
    Segment(&'a SegmentHeader),
    /// A `State` frame, decoded.
    State(&'a State),
    /// A valid frame with its entry; `None` for a footer.
    Frame(&'a FrameHeader, Option<&'a Entry>),
    /// Bytes that are not a valid frame.
    Damage(&'a Damage),
}

/// Shows one segment frame by frame, damaged blocks again as their repair files have them; `show` returns false to stop. Stops at the end that the successor declares, or at
/// the first bytes after which no valid frame follows.
pub fn dump(
    storage: &dyn Storage,
    dir: &Path,
    number: u64,
    show: &mut dyn FnMut(Dumped<'_>) -> bool,
) -> Result<(), WalError> {
    let mut findings = Vec::new();
    let Some(segment) = survey::open(storage, dir, number, &mut findings)? else {
        let error = findings.into_iter().next().map(Finding::into_error);
        return Err(error.unwrap_or(WalError::Closed));
    };
    let declared = declared_end(storage, dir, number)?;
    let limit = declared.map_or(segment.len, |by| by.end_position);
    if !show(Dumped::Segment(&segment.header)) {
        return Ok(());
    }
    let states = states::read(&segment.file, &segment.header, segment.len);
    if let Some(state) = &states.state
        && !show(Dumped::State(state))
    {
        return Ok(());
    }
    let start = states.end.unwrap_or(super::format::FRAMES_START);
    let (salt, lsn) = (segment.header.salt, segment.header.first_lsn);
    let file = std::sync::Arc::clone(&segment.file);
    let mended = Mended::load(storage, dir, segment)?;
    let mut scanner = Scanner::new(file, salt, start, lsn, limit);
    while let Some(piece) = scanner.next_piece() {
        let more = match piece {
            Piece::Frame(header, _) if header.kind == Kind::Footer => show(Dumped::Frame(&header, None)),
            Piece::Frame(header, payload) => {
                let entry = Entry::decode(&header, &Bytes::copy_from_slice(payload));
                show(Dumped::Frame(&header, entry.ok().flatten().as_ref()))
            }
            Piece::Damage(damage) if damage.is_last && declared.is_none() => false,
            Piece::Damage(damage) => {
                let sealed = declared.map(|by| by.end_position);
                show(Dumped::Damage(&damage)) && mended.show(storage, dir, (&damage, sealed), show)
            }
        };
        if !more {
            break;
        }
    }
    Ok(())
}

/// The repair files of one segment.
struct Mended {
    segment: Segment,
    kept: Vec<Kept>,
}

impl Mended {
    fn load(storage: &dyn Storage, dir: &Path, segment: Segment) -> Result<Self, WalError> {
        let names = survey::list(storage, dir)?.repairs;
        let mut kept = files::load(storage, dir, &names, segment.header.wal_id).kept;
        kept.retain(|file| file.target.segment == segment.number);
        Ok(Self { segment, kept })
    }

    /// Shows the blocks of a damaged place that are repaired, as their frames would be.
    fn show(
        &self,
        storage: &dyn Storage,
        dir: &Path,
        (damage, sealed): (&Damage, Option<u64>),
        show: &mut dyn FnMut(Dumped<'_>) -> bool,
    ) -> bool {
        let Segment { number, path, file, header, .. } = &self.segment;
        if self.kept.is_empty() {
            return true;
        }
        let lost = lost::blocks(file, header.salt, damage, sealed).unwrap_or_default();
        lost.iter().all(|named| {
            let block = CorruptBlock::new(path, *number, header.salt, named, damage.header);
            let found = files::find(&self.kept, &block).map(|kept| files::read(storage, dir, &kept.name()));
            let Some(Ok((kept, block))) = found else { return true };
            show(Dumped::Frame(&kept.header, Some(&Entry::Block(block))))
        })
    }
}

fn declared_end(storage: &dyn Storage, dir: &Path, number: u64) -> Result<Option<Predecessor>, WalError> {
    if !survey::list(storage, dir)?.segments.contains(&(number + 1)) {
        return Ok(None);
    }
    let successor = survey::open(storage, dir, number + 1, &mut Vec::new())?;
    let declared = successor.map(|s| s.header.predecessor);
    Ok(declared.filter(|by| by.number == number))
}

#[cfg(test)]
mod tests {
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
}
