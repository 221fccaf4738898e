//! Recovery: scan → decide → apply.
//!
//! Promises: nothing is changed before everything is decided; a crash anywhere in it leaves a log that recovers again to
//! the same contents. A recovered segment is never appended to: a successor ends it, or a fresh one replaces it if it
//! held nothing of its own.

pub mod apply;
pub mod plan;
pub mod table;

use super::catalogue::Location;
use super::error::WalError;
use super::options::{Entropy, Options};
use super::repair::files::{self, Kept};
use super::scan::finding::{CorruptBlock, Finding};
use super::scan::survey::{self, Survey};
use super::segment::{LOCK, wal_name};
use super::writer::Writer;
use crate::io::Storage;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What recovery found and did.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// The log was new.
    pub is_new: bool,
    /// Segments that were scanned.
    pub segments: usize,
    /// Frames in them.
    pub frames: u64,
    /// Frames that were copied because they may have been only in the page cache.
    pub copied: usize,
    /// Where a torn, unacknowledged tail was cut.
    pub torn: Option<TornTail>,
    /// Acknowledged blocks that can't be read and are not delivered yet: their partitions are stopped.
    pub corrupt: Vec<CorruptBlock>,
    /// The same, but for a repair file of each: they are delivered from there.
    pub mended: Vec<CorruptBlock>,
    /// Damage that loses nothing, and damage of delivered blocks.
    pub problems: Vec<Finding>,
    /// Old segments whose frames were not looked at yet: to be verified while the log is open.
    pub unverified: Vec<u64>,
    /// Segments that came back after their retirement, or were not removed before a crash; removed now.
    pub removed: Vec<u64>,
}

/// A torn tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub path: PathBuf,
    /// Where the first torn frame begins.
    pub position: u64,
    /// The copy of what was cut.
    pub kept_as: Option<PathBuf>,
}

/// A log ready to be written to.
pub struct Recovered {
    /// Held as long as the log is open.
    pub lock: Box<dyn Send + Sync>,
    /// The writer; its state is the fold of everything recovered.
    pub writer: Writer,
    /// The oldest place that can hold a block not delivered yet.
    pub feed_from: Location,
    /// Repair files in use.
    pub repairs: Vec<Kept>,
    /// What was found and done.
    pub report: RecoveryReport,
}

/// Takes the lock, recovers, and returns a writer. No threads.
pub fn recover(storage: &Arc<dyn Storage>, options: &Options) -> Result<Recovered, WalError> {
    options.check()?;
    let dir = options.dir.as_path();
    storage.create_dir_all(dir)?;
    let path = dir.join(LOCK);
    let lock = storage.lock(&path)?.ok_or(WalError::Locked { path })?;
    sync_everything(storage.as_ref(), dir)?;
    let survey = survey::survey_newest(storage.as_ref(), dir, options.verify_bytes)?;
    if let Some(refusal) = survey.refusal() {
        return Err(refusal.clone().into_error());
    }
    let mut entropy = Entropy::new(options.seed);
    let plan = plan::plan(&survey, dir, &mut entropy)?;
    let mut report = report(&survey, &plan);
    let (repairs, useless) = (survey.repairs.clone(), survey.useless.clone());
    let (writer, torn) = apply::apply(storage, options, survey, plan, entropy)?;
    files::remove(storage.as_ref(), dir, useless.iter())?;
    writer.rack().grew(repairs.iter().map(Kept::bytes).sum());
    report.torn = torn;
    let feed_from = oldest_live(&writer);
    Ok(Recovered { lock, writer, feed_from, repairs, report })
}

/// What is read below is trusted only after it was synced: it may have been only in the page cache.
fn sync_everything(storage: &dyn Storage, dir: &Path) -> Result<(), WalError> {
    for number in survey::list(storage, dir)?.segments {
        storage.open(&dir.join(wal_name(number)), true)?.sync_data()?;
    }
    storage.sync_dir(dir)?;
    Ok(())
}

fn report(survey: &Survey, plan: &plan::Plan) -> RecoveryReport {
    let is_mended = |block: &CorruptBlock| files::find(&survey.repairs, block).is_some();
    let (mended, corrupt): (Vec<_>, Vec<_>) = survey.live_corrupt().into_iter().partition(is_mended);
    let stops = |f: &&Finding| !corrupt.iter().any(|c| c.path == f.path && Some(c.lsn) == f.lsn);
    let damage = survey.findings.iter().filter(|f| f.verdict != table::Verdict::Torn);
    RecoveryReport {
        is_new: survey.segments.is_empty(),
        segments: survey.segments.len(),
        frames: survey.segments.iter().map(|s| s.frames).sum(),
        copied: plan.tail.len(),
        torn: None,
        problems: damage.filter(stops).cloned().collect(),
        corrupt,
        unverified: survey.segments.iter().filter(|s| !s.verified).map(|s| s.number).collect(),
        mended,
        removed: survey.dropped.clone(),
    }
}

/// The start of the oldest segment that holds a block not delivered yet.
fn oldest_live(writer: &Writer) -> Location {
    let listed = writer.catalogue().get(writer.oldest_live());
    listed.map_or(Location::default(), |s| Location { segment: s.number, position: s.start, lsn: s.first_lsn })
}
