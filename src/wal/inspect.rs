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
#[path = "inspect_tests.rs"]
mod tests;
