//! Names the block behind a damaged frame header where no footer does: offsets of a partition continue from frame to frame,
//! so the one that is missing leaves a hole. Never writes.
//!
//! Promises: an answer only where there is one: a single LSN is missing, and the frames before and after it leave a hole in
//! at most one partition. Its count and digest are taken from the payload behind the bad header, if that is whole by its
//! own checksum.

use super::lost::{Lost, Place};
use super::window::Window;
use super::{Damage, Piece, Scanner, states};
use crate::record::batch;
use crate::record::{Lsn, Partition};
use crate::wal::format::PAGE;
use crate::wal::format::entry::Entry;
use crate::wal::format::footer::IndexEntry;
use crate::wal::format::frame::{FRAME_HEADER, FrameHeader, Kind};
use crate::wal::format::header::{HEADER_BYTES, SegmentHeader};
use crate::wal::format::state::{State, looks_back};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The range that is missing of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hole {
    partition: Partition,
    tenure: u32,
    first: i64,
    next: i64,
}

/// What the frames of a segment say of where each partition is.
#[derive(Default)]
struct Course {
    /// Next offset and tenure, by the frames so far.
    at: BTreeMap<Partition, (i64, u32)>,
    /// Partitions that were seen after the damage.
    seen: BTreeSet<Partition>,
    holes: Vec<Hole>,
    /// Tenures that go on without the frame that opens them.
    openings: usize,
    /// A new tenure hides whether there is a hole before it.
    hidden: bool,
    /// What the frames say does not fit together.
    strange: bool,
}

/// See the module.
pub fn blocks(place: &Place<'_>, damage: &Damage) -> Option<Vec<Lost>> {
    // What comes behind the last frame is for the successor to say.
    let end_lsn = if damage.is_last { place.sealed?.1 } else { damage.end_lsn };
    if end_lsn != damage.lsn + 1 {
        return None;
    }
    let header = segment_header(place)?;
    let limit = match place.sealed {
        Some((end, _)) => end,
        None => place.file.len().ok()?,
    };
    let states = states::read(place.file, &header, limit);
    let mut course = Course::default();
    let known = states.state?.partitions.into_iter();
    course.at = known.map(|(partition, known)| (partition, (known.admitted, known.tenure))).collect();
    let file = Arc::clone(place.file);
    let mut scanner = Scanner::new(file, header.salt, states.end?, header.first_lsn, limit);
    while let Some(piece) = scanner.next_piece() {
        match piece {
            Piece::Frame(frame, payload) => course.frame(&frame, payload, damage.lsn),
            Piece::Damage(other) if other.position == damage.position || other.is_last => {}
            // A frame whose header is good says enough, but for what only its payload tells.
            Piece::Damage(Damage { header: Some(frame), .. }) => course.frame(&frame, &[], damage.lsn),
            Piece::Damage(_) => return None,
        }
    }
    let hole = course.only_hole((place.after)().as_ref())?;
    Some(hole.map(|hole| found(place, damage, &hole)).into_iter().collect())
}

impl Course {
    fn frame(&mut self, frame: &FrameHeader, payload: &[u8], damaged: Lsn) {
        let (partition, after) = (frame.partition, frame.lsn > damaged);
        let place = (frame.next, frame.tenure);
        let continues = match frame.kind {
            Kind::Block | Kind::Empty => true,
            Kind::Gap => match Entry::decode(frame, &Bytes::copy_from_slice(payload)) {
                Ok(Some(Entry::Gap { reason, .. })) if looks_back(&reason) => return,
                Ok(Some(_)) => true,
                _ => false,
            },
            Kind::Owned => false,
            _ => return,
        };
        let before = self.at.insert(partition, place);
        if !after || !self.seen.insert(partition) {
            return;
        }
        match before {
            Some((next, tenure)) if continues && tenure == frame.tenure && frame.first >= next => {
                let hole = Hole { partition, tenure, first: next, next: frame.first };
                self.holes.extend((frame.first > next).then_some(hole));
            }
            // Only the frame that opened it can be what is missing.
            before if continues && before.is_none_or(|(_, tenure)| tenure < frame.tenure) => self.openings += 1,
            // A new tenure begins anywhere: whether it follows what was before it can't be told.
            Some(_) if frame.kind == Kind::Owned => self.hidden = true,
            None if frame.kind == Kind::Owned => {}
            _ => self.strange = true,
        }
    }

    /// The hole, if there is one; `None` if it can't be known. `after`: the fold of all frames, the missing one included.
    fn only_hole(mut self, after: Option<&State>) -> Option<Option<Hole>> {
        for (partition, known) in after.iter().flat_map(|state| &state.partitions) {
            let place = (known.admitted, known.tenure);
            let Some((next, tenure)) = self.at.get(partition).copied() else {
                self.openings += usize::from(known.admitted >= 0);
                continue;
            };
            if self.seen.contains(partition) || known.tenure == tenure && known.admitted < next {
                self.strange |= place != (next, tenure);
            } else if known.tenure != tenure {
                self.openings += 1;
            } else if known.admitted > next {
                self.holes.push(Hole { partition: *partition, tenure, first: next, next: known.admitted });
            }
        }
        match (&self.holes[..], self.openings) {
            _ if self.strange => None,
            // It was no block, if all partitions are where they are without one.
            ([], 0) => after.filter(|_| !self.hidden).map(|_| None),
            // The one LSN that is missing opened a tenure…
            ([], 1) => Some(None),
            // …or is the hole.
            ([hole], 0) => Some(Some(*hole)),
            _ => None,
        }
    }
}

fn segment_header(place: &Place<'_>) -> Option<SegmentHeader> {
    let mut window = Window::new(Arc::clone(place.file), 2 * PAGE);
    let copies = [0, PAGE].map(|position| SegmentHeader::decode(window.bytes(position, HEADER_BYTES)).ok());
    copies.into_iter().flatten().find(|header| header.salt == place.salt)
}

/// What is known of the block in the hole.
fn found(place: &Place<'_>, damage: &Damage, hole: &Hole) -> Lost {
    let contents = contents(place, damage, hole);
    let (count, digest) = contents.unwrap_or_default();
    let entry = IndexEntry {
        lsn: damage.lsn,
        position: damage.position,
        length: (damage.end - damage.position) as u32,
        digest,
        topic: hole.partition.topic,
        partition: hole.partition.number,
        first: hole.first,
        next: hole.next,
        tenure: hole.tenure,
        count,
    };
    Lost { entry, has_digest: contents.is_some() }
}

/// Record count and digest of the payload behind the bad header, if it is whole and fills the hole.
fn contents(place: &Place<'_>, damage: &Damage, hole: &Hole) -> Option<(u32, u32)> {
    let mut window = Window::new(Arc::clone(place.file), damage.end);
    let from = damage.position + FRAME_HEADER as u64;
    let bytes = window.bytes(from, damage.end.checked_sub(from)? as usize);
    let payload = batch::whole(bytes);
    let count = batch::check(payload).ok().filter(|count| *count > 0)?;
    let inside = |record: Result<batch::Record<'_>, _>| {
        record.is_ok_and(|record| hole.first <= record.offset && record.offset < hole.next)
    };
    let fits = batch::records(payload).all(inside);
    let digest = batch::digest(payload, hole.first).ok()?;
    fits.then_some((count, digest))
}
