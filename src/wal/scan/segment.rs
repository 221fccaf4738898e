//! Scans one segment from its states to its end: folds, sums up, judges each damaged place by the recovery table.
//! Never writes.

use super::finding::{CorruptBlock, Finding};
use super::lost;
use super::states::{self, States};
use super::{BadPart, Damage, Piece, Scanner, block_range, read_payload};
use crate::io::File;
use crate::record::{BlockHeader, Lsn, Partition};
use crate::wal::format::FRAMES_START;
use crate::wal::format::entry::Entry;
use crate::wal::format::footer::IndexEntry;
use crate::wal::format::frame::{FrameHeader, Kind};
use crate::wal::format::header::{Predecessor, SegmentHeader};
use crate::wal::format::state::State;
use crate::wal::recovery::table::{self, Evidence, Kafka, Part, Verdict};
use crate::wal::retention::Runs;
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;

/// A segment whose header is good.
#[derive(Debug)]
pub struct Segment {
    /// Number, from the file name.
    pub number: u64,
    /// Path.
    pub path: PathBuf,
    /// Open for reading.
    pub file: Arc<dyn File>,
    /// Length of the file.
    pub len: u64,
    /// The header.
    pub header: SegmentHeader,
}

/// The fold over several segments.
#[derive(Debug, Default)]
pub struct Fold {
    /// The state so far; `None` before the first good one.
    pub state: Option<State>,
    /// A frame was lost: nothing is folded until the next good `State`.
    pub broken: bool,
}

/// Where the last segment can be cut: everything from here on is copied into the successor.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Position of the first copied frame, or the end.
    pub position: u64,
    /// Its LSN, or the next one.
    pub lsn: Lsn,
    /// Digest of the frame headers before it.
    pub digest: Option<u32>,
    /// The fold of everything before it.
    pub state: State,
}

/// Frames of the last segment that would be copied.
#[derive(Debug)]
pub struct Tail {
    /// Those below `built_end`, then those from the cut on; all of them while it is whole.
    pub headers: Vec<FrameHeader>,
    /// The segment ends in its first half, and no frame above `built_end` is a block: it can be built anew.
    pub is_whole: bool,
}

/// What is known of a segment after its scan.
#[derive(Debug)]
pub struct SegmentScan {
    /// Number.
    pub number: u64,
    /// Path.
    pub path: PathBuf,
    /// Length of the file.
    pub len: u64,
    /// The header.
    pub header: SegmentHeader,
    /// True when a successor declares the end.
    pub sealed: bool,
    /// Frames with an LSN.
    pub frames: u64,
    /// Position after the last frame that counts.
    pub end: u64,
    /// The first LSN that is not in it.
    pub next_lsn: Lsn,
    /// Its blocks, summed up.
    pub runs: Runs,
    /// Where the first frame with an LSN is.
    pub frames_start: u64,
    /// Last segment: before its first frame.
    pub start_cut: Option<Cut>,
    /// Last segment: before the first frame that may be only in the page cache, or at the end.
    pub cut: Option<Cut>,
    /// Last segment: what would be copied.
    pub tail: Tail,
    /// Last segment: a torn frame begins here.
    pub torn_at: Option<u64>,
    /// Something in it is damaged (a torn tail is not damage).
    pub damaged: bool,
    /// Every byte up to its end was looked at.
    pub verified: bool,
}

impl SegmentScan {
    /// Nothing is known yet but the header.
    pub fn unread(segment: &Segment) -> Self {
        Self {
            number: segment.number,
            path: segment.path.clone(),
            len: segment.len,
            header: segment.header,
            sealed: false,
            frames: 0,
            end: FRAMES_START,
            next_lsn: segment.header.first_lsn,
            runs: Runs::default(),
            frames_start: FRAMES_START,
            start_cut: None,
            cut: None,
            tail: Tail { headers: Vec::new(), is_whole: true },
            torn_at: None,
            damaged: false,
            verified: true,
        }
    }
}

/// What the scan of a segment is told from outside.
pub struct Bounds<'a> {
    /// What the successor's header says of this segment; `None` for the last one.
    pub sealed: Option<Predecessor>,
    /// Last segment: the highest `synced_through` in it.
    pub witness: Lsn,
    /// Asks whether a later segment has a good `State`.
    pub later_state: &'a dyn Fn() -> bool,
}

/// What is said of a `State` that is whole and not what the frames before it add up to.
pub const DIFFERS: &str = "the state differs from the fold of the frames before it";

/// Scans; adds to the fold, the findings and the corrupt blocks.
pub fn scan(
    segment: &Segment,
    bounds: &Bounds<'_>,
    fold: &mut Fold,
    findings: &mut Vec<Finding>,
    corrupt: &mut Vec<CorruptBlock>,
) -> SegmentScan {
    let limit = bounds.sealed.map_or(segment.len, |by| by.end_position);
    let states = states::read(&segment.file, &segment.header, limit.min(segment.len));
    let mut pass = Pass::new(segment, bounds, fold, findings, corrupt);
    pass.begin(&states);
    let (salt, lsn) = (segment.header.salt, segment.header.first_lsn);
    let start = states.end.unwrap_or(FRAMES_START);
    pass.scan.frames_start = start;
    let file = Arc::clone(&segment.file);
    let mut scanner = Scanner::new(file, salt, start, lsn, limit).with_digest(states.digest);
    pass.mark_start(&scanner);
    loop {
        let (position, next_lsn) = (scanner.position(), scanner.lsn());
        let more = match scanner.next_piece() {
            None => break pass.end_at(position, next_lsn, scanner.digest()),
            Some(Piece::Damage(damage)) => pass.damage(&damage),
            Some(Piece::Frame(header, payload)) => pass.frame(&header, payload),
        };
        if !more {
            break pass.end_at(position, next_lsn, scanner.digest_before());
        }
        pass.mark_cut(position, next_lsn, scanner.digest_before());
    }
    pass.scan
}

struct Pass<'a> {
    segment: &'a Segment,
    bounds: &'a Bounds<'a>,
    fold: &'a mut Fold,
    findings: &'a mut Vec<Finding>,
    corrupt: &'a mut Vec<CorruptBlock>,
    /// The fold before the piece at hand.
    before: Option<State>,
    scan: SegmentScan,
}

impl<'a> Pass<'a> {
    fn new(
        segment: &'a Segment,
        bounds: &'a Bounds<'a>,
        fold: &'a mut Fold,
        findings: &'a mut Vec<Finding>,
        corrupt: &'a mut Vec<CorruptBlock>,
    ) -> Self {
        let scan = SegmentScan { sealed: bounds.sealed.is_some(), ..SegmentScan::unread(segment) };
        Self { segment, bounds, fold, findings, corrupt, before: None, scan }
    }

    fn is_last(&self) -> bool {
        self.bounds.sealed.is_none()
    }

    fn begin(&mut self, states: &States) {
        let lsn = self.segment.header.first_lsn.checked_sub(1);
        for bad in &states.bad {
            let part = Part::State { twin: states.state.is_some() };
            let verdict = self.judge(part, bad.position, u64::MAX, bad.unreadable);
            self.report(verdict, bad.position, lsn, None, &bad.reason);
        }
        let Some(state) = &states.state else {
            self.fold.broken |= states.end.is_some();
            return;
        };
        let differs = self.fold.state.as_ref().is_some_and(|folded| folded != state);
        if differs && !self.fold.broken {
            self.report(Verdict::Report, FRAMES_START, lsn, None, DIFFERS);
        }
        self.fold.state = Some(state.clone());
        self.fold.broken = false;
    }

    fn mark_start(&mut self, scanner: &Scanner) {
        if self.is_last()
            && let Some(state) = self.fold.state.clone()
        {
            let (position, lsn) = (scanner.position(), scanner.lsn());
            let digest = scanner.digest();
            self.scan.start_cut = Some(Cut { position, lsn, digest, state });
        }
    }

    /// Called after a piece of the last segment was folded: notes the place before the first unproven frame.
    fn mark_cut(&mut self, position: u64, lsn: Lsn, digest: Option<u32>) {
        if let Some(state) = self.before.take() {
            self.scan.cut = Some(Cut { position, lsn, digest, state });
        }
    }

    fn end_at(&mut self, position: u64, lsn: Lsn, digest: Option<u32>) {
        (self.scan.end, self.scan.next_lsn) = (position, lsn);
        if self.is_last() {
            if position < self.segment.header.built_end && !self.scan.damaged {
                let reason = "the file ends below what was built and synced";
                self.report(Verdict::Refuse, position, Some(lsn), None, reason);
            }
            if self.scan.cut.is_none()
                && let Some(state) = self.fold.state.clone()
            {
                self.scan.cut = Some(Cut { position, lsn, digest, state });
            }
            return;
        }
        let declared = self.bounds.sealed.unwrap_or_default();
        let differs = digest.is_some_and(|d| declared.digest != 0 && d != declared.digest);
        if lsn != declared.end_lsn && !self.scan.damaged || differs {
            let reason = "frames differ from what the next segment's header says of them";
            self.report(Verdict::Refuse, position, Some(lsn), None, reason);
        }
    }

    /// Folds a valid frame; false if the segment ends before it.
    fn frame(&mut self, header: &FrameHeader, payload: &[u8]) -> bool {
        if header.kind == Kind::Footer {
            // Without a successor nothing proves that the footer is durable, and nothing needs it.
            return !self.is_last();
        }
        self.note_tail(header);
        self.fold_frame(header, payload);
        true
    }

    fn fold_frame(&mut self, header: &FrameHeader, payload: &[u8]) {
        self.scan.frames += 1;
        let folded = if let Some(block) = header.block() {
            self.scan.runs.note(header);
            self.fold_block(header.lsn, &block)
        } else {
            let entry = Entry::decode(header, &Bytes::copy_from_slice(payload));
            match (entry, &mut self.fold.state) {
                (Ok(Some(entry)), Some(state)) if !self.fold.broken => {
                    state.apply(header.lsn, &entry).map_err(|error| error.to_string())
                }
                (Ok(None), _) => Err("a state in the middle of a segment".to_owned()),
                (Ok(_), _) => Ok(()),
                (Err(error), _) => Err(error.to_string()),
            }
        };
        if let Err(reason) = folded {
            let (lsn, range) = (Some(header.lsn), block_range(header));
            self.report(Verdict::Refuse, header.position, lsn, range, &reason);
            self.fold.broken = true;
        }
    }

    fn fold_block(&mut self, lsn: Lsn, block: &BlockHeader) -> Result<(), String> {
        match &mut self.fold.state {
            Some(state) if !self.fold.broken => state.apply_block(lsn, block).map_err(|error| error.to_string()),
            _ => Ok(()),
        }
    }

    /// Before the frame is folded: is it one that would be copied?
    fn note_tail(&mut self, header: &FrameHeader) {
        if !self.is_last() {
            return;
        }
        let built = header.position < self.segment.header.built_end;
        let loose = !built && header.lsn > self.bounds.witness;
        if loose && self.scan.cut.is_none() {
            self.before.clone_from(&self.fold.state);
        }
        let tail = &mut self.scan.tail;
        // Behind the states: large ones leave less of it, and are there in each segment.
        let start = self.scan.frames_start;
        let is_early = header.end() - start <= (self.segment.len.saturating_sub(start)) / 2;
        tail.is_whole &= is_early && (built || header.kind != Kind::Block);
        if built || loose || tail.is_whole {
            tail.headers.push(*header);
        }
    }

    /// Judges a damaged place; false if the segment ends before it.
    fn damage(&mut self, damage: &Damage) -> bool {
        if self.is_end(damage) {
            return false;
        }
        if damage.position == FRAMES_START && damage.header.is_none() {
            let part = Part::State { twin: false };
            let verdict = self.judge(part, damage.position, damage.lsn, damage.unreadable);
            let lsn = damage.lsn.checked_sub(1);
            self.report(verdict, damage.position, lsn, None, &damage.reason);
            self.fold.broken = true;
            if !self.loses_frames(damage) {
                return true;
            }
        }
        let lost = self.lost_blocks(damage);
        let part = match (&damage.header, damage.part, &lost) {
            (Some(_), BadPart::Pad, _) => Part::Pad,
            (Some(h), ..) if h.kind == Kind::Footer => Part::Footer,
            (_, _, Some(blocks)) if blocks.is_empty() => Part::Control,
            (_, _, Some(_)) => Part::Block,
            (_, _, None) => Part::Unknown,
        };
        let verdict = self.judge(part, damage.position, damage.lsn, damage.unreadable);
        if verdict == Verdict::Torn {
            self.scan.torn_at = Some(damage.position);
            let range = damage.header.as_ref().and_then(block_range);
            self.report(verdict, damage.position, Some(damage.lsn), range, &damage.reason);
            return false;
        }
        match (part, lost) {
            (Part::Pad, _) => self.padded(damage),
            (Part::Block, Some(blocks)) => self.lose(damage, &blocks, verdict),
            _ => {
                self.report(verdict, damage.position, Some(damage.lsn), None, &damage.reason);
                self.fold.broken |= part != Part::Footer;
            }
        }
        true
    }

    /// In the last segment unwritten bytes are no damage, they are the end.
    fn is_end(&self, damage: &Damage) -> bool {
        self.is_last()
            && damage.is_last
            && damage.position >= self.segment.header.built_end
            && damage.lsn > self.bounds.witness
    }

    /// Damage that begins with the states may go on behind them.
    fn loses_frames(&self, damage: &Damage) -> bool {
        let is_rest_lost = damage.is_last && self.bounds.sealed.is_some_and(|by| by.end_lsn > damage.lsn);
        is_rest_lost || damage.end_lsn > damage.lsn
    }

    /// The blocks in a damaged place, if it can be known which they were.
    fn lost_blocks(&self, damage: &Damage) -> Option<Vec<IndexEntry>> {
        let limit = self.bounds.sealed.map(|by| by.end_position);
        lost::blocks(&self.segment.file, self.segment.header.salt, damage, limit)
    }

    fn padded(&mut self, damage: &Damage) {
        let Some(header) = damage.header else { return };
        let range = block_range(&header);
        self.report(Verdict::Report, damage.position, Some(header.lsn), range, &damage.reason);
        if header.kind == Kind::Footer {
            return;
        }
        self.note_tail(&header);
        if let Ok(payload) = read_payload(self.segment.file.as_ref(), &header) {
            self.fold_frame(&header, &payload);
        }
    }

    fn lose(&mut self, damage: &Damage, blocks: &[IndexEntry], verdict: Verdict) {
        for lost in blocks {
            let (path, header) = (&self.segment.path, &self.segment.header);
            let block = CorruptBlock::new(path, self.segment.number, header.salt, lost, damage.header);
            let partition = block.partition;
            let range = Some((partition, block.first, block.next));
            self.report(verdict, lost.position, Some(lost.lsn), range, &damage.reason);
            self.corrupt.push(block);
            self.scan.frames += 1;
            self.scan.runs.note_range(partition, lost.lsn, lost.range());
            if let Some(block) = damage.header.and_then(|h| h.block())
                && let Err(reason) = self.fold_block(lost.lsn, &block)
            {
                self.report(Verdict::Refuse, lost.position, Some(lost.lsn), range, &reason);
            }
        }
        // A damaged header hides what else was there; the next segment's state knows.
        self.fold.broken |= damage.header.is_none();
    }

    fn judge(&self, part: Part, position: u64, lsn: Lsn, unreadable: bool) -> Verdict {
        table::decide(&Evidence {
            part,
            sealed: !self.is_last(),
            built: position < self.segment.header.built_end,
            witness: self.is_last() && lsn <= self.bounds.witness,
            receipt: false,
            kafka: Kafka::Unknown,
            unreadable,
            later_state: (self.bounds.later_state)(),
        })
    }

    fn report(
        &mut self,
        verdict: Verdict,
        position: u64,
        lsn: Option<Lsn>,
        range: Option<(Partition, i64, i64)>,
        reason: &str,
    ) {
        self.scan.damaged |= verdict != Verdict::Torn;
        let (path, reason) = (self.segment.path.clone(), reason.to_owned());
        self.findings.push(Finding { verdict, path, position, lsn, range, reason });
    }
}
