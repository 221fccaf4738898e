//! Looks at a whole log directory: which files there are, how the segments hang together, what each holds.
//!
//! Promises: never writes. Recovery decides by it, `wal check` prints it.

use super::finding::{CorruptBlock, Finding};
use super::segment::{Segment, SegmentScan};
use super::spread;
use crate::io::Storage;
use crate::wal::error::WalError;
use crate::wal::format::PAGE;
use crate::wal::format::header::{HEADER_BYTES, HeaderError, SegmentHeader};
use crate::wal::format::state::State;
use crate::wal::recovery::table::Verdict;
use crate::wal::repair::files::{self, Kept, Loaded};
use crate::wal::segment::{FileName, classify, wal_name};
use std::path::{Path, PathBuf};

/// The files of a log directory, by what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Segment numbers, ascending.
    pub segments: Vec<u64>,
    /// Names of spares.
    pub spares: Vec<String>,
    /// Names of spares that were not finished.
    pub unfinished: Vec<String>,
    /// Names of kept copies of torn tails.
    pub torn: Vec<String>,
    /// Names of repair files.
    pub repairs: Vec<String>,
}

/// Lists the directory; a file that does not belong there is an error.
pub fn list(storage: &dyn Storage, dir: &Path) -> Result<Listing, WalError> {
    let mut listing = Listing::default();
    for name in storage.list(dir)? {
        match classify(&name) {
            FileName::Segment(number) => listing.segments.push(number),
            FileName::Spare => listing.spares.push(name),
            FileName::Unfinished => listing.unfinished.push(name),
            FileName::Torn => listing.torn.push(name),
            FileName::Repair => listing.repairs.push(name),
            FileName::Lock => {}
            FileName::Foreign => {
                let reason = "no file of that name is ever made there".to_owned();
                return Err(WalError::Foreign { path: dir.join(name), reason });
            }
        }
    }
    listing.segments.sort_unstable();
    Ok(listing)
}

/// What a log directory holds.
#[derive(Debug, Default)]
pub struct Survey {
    /// The files.
    pub listing: Listing,
    /// Numbers below `retired_below`: not looked at, to be removed.
    pub dropped: Vec<u64>,
    /// The segments, ascending; those with a bad header are missing.
    pub segments: Vec<SegmentScan>,
    /// Damaged places.
    pub findings: Vec<Finding>,
    /// Blocks that can't be read, delivered or not.
    pub corrupt: Vec<CorruptBlock>,
    /// The fold at the end of the log; `None` if the log is new or its states are lost.
    pub state: Option<State>,
    /// A frame was lost and the fold could not go on.
    pub broken: bool,
    /// The highest `synced_through` in the last segment.
    pub witness: u64,
    /// Repair files that mend a block of these segments.
    pub repairs: Vec<Kept>,
    /// Names of repair files that are of no use.
    pub useless: Vec<String>,
}

impl Survey {
    /// The first finding that forbids to open the log.
    pub fn refusal(&self) -> Option<&Finding> {
        let fatal = |f: &&Finding| matches!(f.verdict, Verdict::Refuse | Verdict::Unreadable);
        self.findings.iter().find(fatal)
    }

    /// Corrupt blocks that are still to be delivered.
    pub fn live_corrupt(&self) -> Vec<CorruptBlock> {
        let Some(state) = &self.state else {
            return self.corrupt.clone();
        };
        let live = |c: &&CorruptBlock| {
            let (tenure, first, next) = (c.tenure, c.first, c.next);
            let range = crate::wal::format::state::TenureRange { tenure, first, next };
            next > state.delivered(c.partition) && state.is_live(c.partition, c.lsn, &range)
        };
        self.corrupt.iter().filter(live).cloned().collect()
    }
}

/// Looks at everything and verifies every byte.
pub fn survey(storage: &dyn Storage, dir: &Path) -> Result<Survey, WalError> {
    look(storage, dir, u64::MAX)
}

/// Verifies the newest segments, so many bytes of them, and the last one in any case; the older ones are taken by their
/// headers, states and footers ([`SegmentScan::verified`]). If anything is out of order, all is verified after all.
pub fn survey_newest(storage: &dyn Storage, dir: &Path, bytes: u64) -> Result<Survey, WalError> {
    let survey = look(storage, dir, bytes)?;
    let is_fine = |f: &Finding| f.verdict == Verdict::Torn;
    let fine = survey.state.is_some() && !survey.broken && survey.findings.iter().all(is_fine);
    if fine || survey.segments.iter().all(|s| s.verified) { Ok(survey) } else { look(storage, dir, u64::MAX) }
}

fn look(storage: &dyn Storage, dir: &Path, bytes: u64) -> Result<Survey, WalError> {
    let mut survey = Survey { listing: list(storage, dir)?, ..Survey::default() };
    let mut numbers = survey.listing.segments.clone();
    let Some(last) = numbers.pop() else {
        return Ok(survey);
    };
    let mut segments = Vec::new();
    let retired_below = match open(storage, dir, last, &mut survey.findings)? {
        Some(segment) => {
            let witness = super::witness::witness(&segment);
            survey.witness = witness.synced;
            segments.push(segment);
            witness.retired_below
        }
        None => 0,
    };
    let kept = |number: &u64| *number >= retired_below;
    (numbers, survey.dropped) = numbers.into_iter().partition(kept);
    for number in numbers.into_iter().rev() {
        segments.extend(open(storage, dir, number, &mut survey.findings)?);
    }
    segments.reverse();
    check_chain(dir, &segments, retired_below, &mut survey.findings);
    spread::scan_all(&segments, bytes, &mut survey);
    take_repairs(storage, dir, &mut survey);
    Ok(survey)
}

/// What is said of a damaged or unreadable block.
fn is_block(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::StopPartition | Verdict::Unreadable)
}

/// Says of damaged blocks that a repair file mends that nothing is lost.
fn take_repairs(storage: &dyn Storage, dir: &Path, survey: &mut Survey) {
    let names = std::mem::take(&mut survey.listing.repairs);
    let wal_id = survey.segments.last().map_or(0, |last| last.header.wal_id);
    let Loaded { kept, bad } = files::load(storage, dir, &names, wal_id);
    survey.listing.repairs = names;
    for (name, reason) in bad {
        let (path, reason) = (dir.join(&name), format!("{reason}: ignored"));
        survey.findings.push(Finding { verdict: Verdict::Report, path, position: 0, lsn: None, range: None, reason });
        survey.useless.push(name);
    }
    for file in kept {
        let Some(block) = survey.corrupt.iter().find(|block| file.mends(block)) else {
            // What was not looked at may be damaged where the file says.
            let target = (file.target.segment, file.target.salt);
            let unread = |s: &SegmentScan| !s.verified && (s.number, s.header.salt) == target;
            if survey.segments.iter().any(unread) {
                survey.repairs.push(file);
            } else {
                survey.useless.push(file.name());
            }
            continue;
        };
        let same = |f: &&mut Finding| f.path == block.path && f.lsn == Some(block.lsn);
        for finding in survey.findings.iter_mut().filter(same).filter(|f| is_block(f.verdict)) {
            finding.verdict = Verdict::Report;
            finding.reason = format!("{}; mended by {}", finding.reason, file.name());
        }
        survey.repairs.push(file);
    }
}

/// Numbers without holes, each header naming the segment before it, all of one log.
fn check_chain(dir: &Path, segments: &[Segment], retired_below: u64, findings: &mut Vec<Finding>) {
    let mut refuse = |path: PathBuf, lsn: u64, reason: String| {
        let (verdict, lsn) = (Verdict::Refuse, Some(lsn));
        findings.push(Finding { verdict, path, position: 0, lsn, range: None, reason });
    };
    let Some(first) = segments.first() else { return };
    let lowest = retired_below.max(1);
    if first.number != lowest {
        let reason = format!("missing; the log begins with segment {lowest}");
        refuse(dir.join(wal_name(lowest)), first.header.first_lsn, reason);
    }
    for pair in segments.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let names = after.header.predecessor;
        let lsn = after.header.first_lsn;
        if after.number != before.number + 1 {
            let reason = format!("missing between {} and {}", before.number, after.number);
            refuse(dir.join(wal_name(before.number + 1)), lsn, reason);
        } else if (names.number, names.salt) != (before.number, before.header.salt)
            || after.header.wal_id != before.header.wal_id
        {
            let reason = format!("does not continue segment {}", before.number);
            refuse(after.path.clone(), lsn, reason);
        } else if lsn < names.end_lsn {
            let reason = format!("begins at LSN {lsn}, before the end of its predecessor");
            refuse(after.path.clone(), lsn, reason);
        }
    }
}

/// Opens a segment and reads its header pages. `None`, and a finding, if neither copy is good.
pub fn open(
    storage: &dyn Storage,
    dir: &Path,
    number: u64,
    findings: &mut Vec<Finding>,
) -> Result<Option<Segment>, WalError> {
    let path = dir.join(wal_name(number));
    let file = storage.open(&path, false)?;
    let len = file.len()?;
    let mut window = super::window::Window::new(std::sync::Arc::clone(&file), 2 * PAGE);
    let copies = [0, PAGE].map(|position| {
        let page = window.bytes(position, HEADER_BYTES);
        (position, SegmentHeader::decode(page))
    });
    let version = |e: &HeaderError| e.is_version();
    if let Some(error) = copies.iter().find_map(|(_, c)| c.err().filter(version)) {
        return Err(WalError::Version { path, reason: error.to_string() });
    }
    let good = copies.iter().find_map(|(_, copy)| copy.ok());
    for (position, copy) in copies {
        let reason = match (copy, good) {
            (Err(error), _) => error.to_string(),
            (Ok(copy), Some(good)) if copy != good => "the two header copies differ".to_owned(),
            _ => continue,
        };
        let unreadable = window.is_unreadable(&(position..position + PAGE));
        let verdict = match good {
            Some(_) => Verdict::Report,
            None if unreadable => Verdict::Unreadable,
            None => Verdict::Refuse,
        };
        let (path, lsn) = (path.clone(), good.map(|header| header.first_lsn));
        findings.push(Finding { verdict, path, position, lsn, range: None, reason });
    }
    let Some(header) = good else { return Ok(None) };
    if header.number != number {
        let reason = format!("its header says segment {}", header.number);
        return Err(WalError::Foreign { path, reason });
    }
    Ok(Some(Segment { number, path, file, len, header }))
}
