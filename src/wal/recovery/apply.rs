//! Does what the plan says.
//!
//! Order: keep a copy of the torn tail, build the new segment (synced, named, directory synced), only then remove what
//! is retired. A crash between any two steps leaves what recovery started from, or its result.

use super::TornTail;
use super::plan::Plan;
use crate::io::{File, Storage};
use crate::record::batch::payload_crc;
use crate::wal::catalogue::{Catalogue, Listed};
use crate::wal::error::WalError;
use crate::wal::format::frame::FRAME_HEADER;
use crate::wal::format::{PAGE, page_up};
use crate::wal::options::{Entropy, Options, SPARES};
use crate::wal::rack::Rack;
use crate::wal::retention::{Runs, Sealed};
use crate::wal::scan::segment::SegmentScan;
use crate::wal::scan::survey::Survey;
use crate::wal::segment::{self, Active, Birth, Copied, torn_name, wal_name};
use crate::wal::writer::{Parts, Writer};
use bytes::Bytes;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

/// At most so much of a torn tail is kept.
const TORN_BYTES: u64 = 1 << 20;
/// At most so many copies of torn tails are kept.
const TORN_COPIES: usize = 4;

/// Builds the new segment and everything around it.
pub fn apply(
    storage: &Arc<dyn Storage>,
    options: &Options,
    survey: Survey,
    plan: Plan,
    entropy: Entropy,
) -> Result<(Writer, Option<TornTail>), WalError> {
    let dir = options.dir.as_path();
    let disk = storage.as_ref();
    let torn = keep_torn(disk, dir, &survey, &plan)?;
    let tail = read_tail(disk, dir, &plan)?;
    let (rack, spare) = open_rack(storage, options, &survey, plan.state_bytes())?;
    let file = disk.open(&dir.join(&spare), true)?;
    let birth = Birth {
        number: plan.number,
        salt: plan.salt,
        first_lsn: plan.first_lsn,
        retired_below: plan.final_state.retired_below,
        predecessor: plan.predecessor,
        state: &plan.state,
        tail: &tail,
    };
    let len = file.len()?;
    let active = segment::build(disk, dir, &spare, file, &birth)?;
    rack.grew(active.capacity.saturating_sub(len));
    let replaced = survey.segments.last().filter(|last| last.number == plan.number);
    rack.shrank(replaced.map_or(0, |last| last.len));
    // The new segment says durably what is retired: now the rest of it can go.
    remove(disk, dir, &survey.dropped)?;
    rack.look_for_space()?;
    let writer = Writer::new(parts(storage, options, survey.segments, plan, entropy, (rack, active)));
    Ok((writer, torn))
}

fn parts(
    storage: &Arc<dyn Storage>,
    options: &Options,
    mut segments: Vec<SegmentScan>,
    plan: Plan,
    entropy: Entropy,
    made: (Rack, Active),
) -> Parts {
    let (rack, active) = made;
    segments.retain(|s| s.number < plan.number);
    let runs: Vec<Arc<Runs>> = segments.iter_mut().map(|s| Arc::new(std::mem::take(&mut s.runs))).collect();
    let mut listing: Vec<Listed> = segments.iter().zip(&runs).map(|(s, runs)| sealed_entry(s, &plan, runs)).collect();
    listing.push(Listed::of(&active));
    let sealed = segments.into_iter().zip(runs).map(|(s, runs)| Sealed {
        number: s.number,
        len: s.len,
        first_lsn: s.header.first_lsn,
        runs,
    });
    let sealed: std::collections::VecDeque<Sealed> = sealed.collect();
    options.metrics.wal_segments.set(sealed.len() as i64 + 1);
    options.metrics.wal_bytes.set(rack.used() as i64);
    Parts {
        storage: Arc::clone(storage),
        dir: options.dir.clone(),
        rack: Arc::new(rack),
        catalogue: Arc::new(Catalogue::new(&options.dir, listing)),
        metrics: Arc::clone(&options.metrics),
        entropy,
        active,
        sealed,
        state: plan.final_state,
        next_lsn: plan.next_lsn,
        durability: options.durability,
    }
}

fn sealed_entry(scan: &SegmentScan, plan: &Plan, runs: &Arc<Runs>) -> Listed {
    let is_before = scan.number == plan.predecessor.number;
    Listed {
        number: scan.number,
        salt: scan.header.salt,
        first_lsn: scan.header.first_lsn,
        start: scan.frames_start,
        end: if is_before { plan.predecessor.end_position } else { scan.end },
        len: scan.len,
        runs: Arc::clone(runs),
        sealed: true,
        verified: scan.verified,
    }
}

/// The rack with the spares that are there, and one spare for the new segment, made if none is there.
fn open_rack(
    storage: &Arc<dyn Storage>,
    options: &Options,
    survey: &Survey,
    state_bytes: u64,
) -> Result<(Rack, String), WalError> {
    let (disk, dir) = (storage.as_ref(), options.dir.as_path());
    let mut ready = Vec::new();
    let mut used: u64 = survey.segments.iter().map(|s| s.len).sum();
    let mut removed = false;
    for name in &survey.listing.unfinished {
        disk.unlink(&dir.join(name))?;
        removed = true;
    }
    for name in &survey.listing.spares {
        let len = disk.open(&dir.join(name), false)?.len()?;
        if len == options.segment_bytes && ready.len() < SPARES {
            ready.push(name.clone());
            used += len;
        } else {
            disk.unlink(&dir.join(name))?;
            removed = true;
        }
    }
    if removed {
        disk.sync_dir(dir)?;
    }
    if survey.segments.is_empty() {
        check_volume(disk, options, used)?;
    }
    let sizes = (options.segment_bytes, options.max_bytes);
    let rack = Rack::new(Arc::clone(storage), options.dir.clone(), sizes, ready, used);
    if let Some(spare) = rack.take() {
        return Ok((rack, spare));
    }
    // A full disk still has room for a small segment, more often than not.
    for bytes in [options.segment_bytes, page_up(state_bytes) + 32 * PAGE] {
        if let Some(spare) = rack.make("recovery", bytes, &mut || {})? {
            rack.grew(bytes);
            return Ok((rack, spare));
        }
    }
    let reason = "not even recovery's own segment fits".to_owned();
    Err(WalError::Full { path: options.dir.clone(), reason })
}

/// A new log is not begun on a volume that has no room for its quota. One that is there opens: what else grew on the volume
/// meanwhile is a full disk like any other, and must not keep back what the log holds.
fn check_volume(disk: &dyn Storage, options: &Options, used: u64) -> Result<(), WalError> {
    let Some(max) = options.max_bytes else {
        return Ok(());
    };
    let volume = disk.free_bytes(&options.dir)?.saturating_add(used);
    if max > volume {
        let text = format!("wal.max_bytes is {max}, but the volume has only {volume} for the log");
        return Err(WalError::Options(text));
    }
    Ok(())
}

fn read_tail(disk: &dyn Storage, dir: &Path, plan: &Plan) -> Result<Vec<Copied>, WalError> {
    if plan.tail.is_empty() {
        return Ok(Vec::new());
    }
    let path = dir.join(wal_name(plan.tail_from));
    let file = disk.open(&path, false)?;
    let mut tail = Vec::with_capacity(plan.tail.len());
    for header in &plan.tail {
        let mut payload = vec![0; header.payload_len as usize];
        read_exactly(file.as_ref(), header.position + FRAME_HEADER as u64, &mut payload)?;
        if payload_crc(&payload) != header.payload_crc {
            let reason = "the frame changed between two reads".to_owned();
            return Err(WalError::corrupt(&path, header.position, Some(header.lsn), reason));
        }
        tail.push(Copied { header: *header, payload: Bytes::from(payload) });
    }
    Ok(tail)
}

fn read_exactly(file: &dyn File, mut position: u64, mut buffer: &mut [u8]) -> Result<(), WalError> {
    while !buffer.is_empty() {
        match file.read_at(position, buffer)? {
            0 => break,
            read => {
                position += read as u64;
                buffer = &mut buffer[read..];
            }
        }
    }
    Ok(())
}

/// Keeps a bounded copy of what is cut, for people.
fn keep_torn(disk: &dyn Storage, dir: &Path, survey: &Survey, plan: &Plan) -> Result<Option<TornTail>, WalError> {
    let Some(position) = plan.torn_at else {
        return Ok(None);
    };
    let path = dir.join(wal_name(plan.tail_from));
    let copy = dir.join(torn_name(plan.tail_from));
    let mut tail = TornTail { path: path.clone(), position, kept_as: None };
    let mut bytes = vec![0; TORN_BYTES as usize];
    let Ok(read) = disk.open(&path, false)?.read_at(position, &mut bytes) else {
        return Ok(Some(tail));
    };
    let kept = survey.listing.torn.len() + 1;
    for old in survey.listing.torn.iter().take(kept.saturating_sub(TORN_COPIES)) {
        disk.unlink(&dir.join(old))?;
    }
    if disk.exists(&copy)? {
        disk.unlink(&copy)?;
    }
    // Only a convenience: a full disk must not keep the log from opening.
    let file = match disk.create_new(&copy) {
        Err(error) if error.is_full() => return Ok(Some(tail)),
        other => other?,
    };
    let written = file.write_at(0, &[IoSlice::new(&bytes[..read])]);
    match written.and_then(|()| file.sync_data()) {
        Ok(()) => tail.kept_as = Some(copy),
        Err(error) if error.is_full() => disk.unlink(&copy)?,
        Err(error) => return Err(error.into()),
    }
    disk.sync_dir(dir)?;
    Ok(Some(tail))
}

fn remove(disk: &dyn Storage, dir: &Path, numbers: &[u64]) -> Result<(), WalError> {
    for number in numbers {
        disk.unlink(&dir.join(wal_name(*number)))?;
    }
    if !numbers.is_empty() {
        disk.sync_dir(dir)?;
    }
    Ok(())
}
