//! Segment files: their names, and how one is built before it gets its name.
//!
//! Promises: a segment has its final name only after its headers, its states and its copied tail are synced, and is
//! written to only after that name is durable ([`build`]). The caller has synced everything below the predecessor's
//! end.

use super::error::WalError;
use super::format::footer::IndexEntry;
use super::format::frame::{FRAME_HEADER, FrameHeader, Kind, digested};
use super::format::header::{Predecessor, SegmentHeader};
use super::format::state::State;
use super::format::{FRAMES_START, align_up, page_up};
use super::retention::Runs;
use crate::io::{File, Storage};
use crate::record::Lsn;
use crate::record::batch::payload_crc;
use bytes::Bytes;
use crc32fast::Hasher;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

/// The lock file's name.
pub const LOCK: &str = "LOCK";
const DIGITS: usize = 20;
const ZEROS: usize = 1 << 20;

/// What a file in the log's directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileName {
    /// `<20 digits>.wal`
    Segment(u64),
    /// `*.spare`: prepared or recycled, never scanned.
    Spare,
    /// `*.spare.tmp`, `*.repair.tmp`: a spare or a repair that was not finished.
    Unfinished,
    /// `*.torn`: a kept copy of a torn tail.
    Torn,
    /// `<20 digits>-<20 digits>.repair`: a block again, of this segment and LSN.
    Repair,
    /// The lock.
    Lock,
    /// None of ours.
    Foreign,
}

/// The name of a segment.
pub fn wal_name(number: u64) -> String {
    format!("{number:020}.wal")
}

/// The name of a segment that became a spare.
pub fn recycled_name(number: u64) -> String {
    format!("{number:020}.spare")
}

/// The name of the kept copy of a segment's torn tail.
pub fn torn_name(number: u64) -> String {
    format!("{number:020}.torn")
}

/// The name of the file that mends the block with this LSN in a segment.
pub fn repair_name(segment: u64, lsn: Lsn) -> String {
    format!("{segment:020}-{lsn:020}.repair")
}

/// The name of a file while it is written.
pub fn unfinished_name(name: &str) -> String {
    format!("{name}.tmp")
}

/// The segment that a file of the log directory belongs to, if its name says so.
pub fn segment_of(name: &str) -> Option<u64> {
    name.get(..DIGITS)?.parse().ok()
}

/// Says what a file name means.
pub fn classify(name: &str) -> FileName {
    let digits = |stem: &str| stem.len() == DIGITS && stem.bytes().all(|b| b.is_ascii_digit());
    let two = |stem: &str| stem.split_once('-').is_some_and(|(segment, lsn)| digits(segment) && digits(lsn));
    match name.split_once('.') {
        _ if name == LOCK => FileName::Lock,
        Some((stem, "wal")) if digits(stem) => stem.parse().map_or(FileName::Foreign, FileName::Segment),
        Some((_, "spare")) => FileName::Spare,
        Some((_, "spare.tmp")) => FileName::Unfinished,
        Some((stem, "repair")) if two(stem) => FileName::Repair,
        Some((stem, "repair.tmp")) if two(stem) => FileName::Unfinished,
        Some((stem, "torn")) if digits(stem) => FileName::Torn,
        _ => FileName::Foreign,
    }
}

/// Writes zeros over `[from, to)`, so that the space is allocated and written once. Does not sync.
pub fn write_zeros(file: &dyn File, mut from: u64, to: u64) -> Result<(), crate::io::IoError> {
    let zeros = vec![0; ZEROS.min(to.saturating_sub(from) as usize)];
    while from < to {
        let len = zeros.len().min((to - from) as usize);
        file.write_at(from, &[IoSlice::new(&zeros[..len])])?;
        from += len as u64;
    }
    Ok(())
}

/// A frame that is copied from a recovered predecessor.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Its header there.
    pub header: FrameHeader,
    /// Its payload.
    pub payload: Bytes,
}

/// Everything a new segment begins with.
#[derive(Debug)]
pub struct Birth<'a> {
    /// Its number.
    pub number: u64,
    /// Its salt.
    pub salt: u64,
    /// LSN of its first frame.
    pub first_lsn: Lsn,
    /// Segments with lower numbers are retired.
    pub retired_below: u64,
    /// The segment before it.
    pub predecessor: Predecessor,
    /// The fold of everything before `first_lsn`.
    pub state: &'a State,
    /// Frames from `first_lsn` on that come from the predecessor.
    pub tail: &'a [Copied],
}

/// The segment that is written to.
#[derive(Debug)]
pub struct Active {
    /// The open file.
    pub file: Arc<dyn File>,
    /// Number.
    pub number: u64,
    /// Salt.
    pub salt: u64,
    /// LSN of its first frame.
    pub first_lsn: Lsn,
    /// Where that frame is: after the states.
    pub frames_start: u64,
    /// Where the next group begins; everything below is synced.
    pub position: u64,
    /// Bytes that are prepared.
    pub capacity: u64,
    /// Everything below was there before it got its name.
    pub built_end: u64,
    /// Over the frame headers so far.
    pub digest: Hasher,
    /// Its blocks, for the footer.
    pub index: Vec<IndexEntry>,
    /// Its blocks, summed up.
    pub runs: Runs,
    /// The footer is written, or a write failed: nothing more goes in here.
    pub is_closed: bool,
}

/// Builds the segment in the file called `spare`, syncs it, gives it its name, syncs the directory.
pub fn build(
    storage: &dyn Storage,
    dir: &Path,
    spare: &str,
    file: Arc<dyn File>,
    birth: &Birth<'_>,
) -> Result<Active, WalError> {
    let mut image = Image::new(birth.salt);
    image.states(birth.state, birth.first_lsn)?;
    let frames_start = image.end();
    for copied in birth.tail {
        image.copy(copied);
    }
    image.pad_to_page();
    let built_end = image.end();
    let header = SegmentHeader {
        wal_id: birth.state.wal_id,
        number: birth.number,
        salt: birth.salt,
        first_lsn: birth.first_lsn,
        retired_below: birth.retired_below,
        built_end,
        predecessor: birth.predecessor,
    };
    let capacity = file.len()?;
    let page = header.encode();
    let slices = [IoSlice::new(&page), IoSlice::new(&page), IoSlice::new(&image.bytes)];
    let grown = if capacity < built_end { write_zeros(file.as_ref(), capacity, built_end) } else { Ok(()) };
    let written = grown.and_then(|()| file.write_at(0, &slices)).and_then(|()| file.sync_data());
    if let Err(error) = written {
        if capacity < built_end {
            // What it got would not be counted.
            let _ = file.set_len(capacity);
        }
        return Err(error.into());
    }
    // Named only now that it is whole and durable; written to only once the name is durable too.
    let (path, spare) = (dir.join(wal_name(birth.number)), dir.join(spare));
    let is_new = !storage.exists(&path)?;
    storage.rename(&spare, &path)?;
    if let Err(error) = storage.sync_dir(dir) {
        // What a failed sync leaves of names is not known, and the next one may say that all is well. The next start must
        // not find a name to build upon that a power cut then takes away.
        if is_new {
            let _ = storage.rename(&path, &spare);
        }
        return Err(error.into());
    }
    Ok(Active {
        file,
        number: birth.number,
        salt: birth.salt,
        first_lsn: birth.first_lsn,
        frames_start,
        position: built_end,
        capacity: capacity.max(built_end),
        built_end,
        digest: image.digest,
        index: image.index,
        runs: image.runs,
        is_closed: false,
    })
}

/// The bytes of a new segment after its header pages.
struct Image {
    salt: u64,
    bytes: Vec<u8>,
    digest: Hasher,
    index: Vec<IndexEntry>,
    runs: Runs,
    /// The last frame: it takes the padding.
    last: Option<(usize, FrameHeader)>,
}

impl Image {
    fn new(salt: u64) -> Self {
        Self { salt, bytes: Vec::new(), digest: Hasher::new(), index: Vec::new(), runs: Runs::default(), last: None }
    }

    fn end(&self) -> u64 {
        FRAMES_START + self.bytes.len() as u64
    }

    fn states(&mut self, state: &State, first_lsn: Lsn) -> Result<(), WalError> {
        let mut payload = Vec::new();
        let encoded = state.encode(&mut payload);
        encoded.map_err(|e| WalError::Entry { kind: e.kind, reason: e.reason })?;
        let lsn = first_lsn.saturating_sub(1);
        let crc = payload_crc(&payload);
        for _ in 0..2 {
            let header = FrameHeader { lsn, synced_through: lsn, ..FrameHeader::new(Kind::State) };
            self.push(FrameHeader { payload_crc: crc, ..header }, &payload);
            self.pad_to_page();
        }
        Ok(())
    }

    fn copy(&mut self, copied: &Copied) {
        self.push(copied.header, &copied.payload);
    }

    fn push(&mut self, mut header: FrameHeader, payload: &[u8]) {
        let start = self.bytes.len();
        header.position = self.end();
        header.payload_len = payload.len() as u32;
        let end = start + FRAME_HEADER + payload.len();
        header.pad_len = (align_up(end as u64) - end as u64) as u32;
        self.settle();
        self.bytes.resize(start + FRAME_HEADER, 0);
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(end + header.pad_len as usize, 0);
        self.last = Some((start, header));
    }

    fn pad_to_page(&mut self) {
        let len = self.bytes.len() as u64;
        let pad = (page_up(len) - len) as u32;
        if let Some((_, header)) = &mut self.last {
            header.pad_len += pad;
            self.bytes.resize((len + u64::from(pad)) as usize, 0);
        }
        self.settle();
    }

    /// Encodes the header of the last frame, now that its padding is known.
    fn settle(&mut self) {
        let Some((start, header)) = self.last.take() else {
            return;
        };
        let encoded = header.encode(self.salt);
        self.bytes[start..start + FRAME_HEADER].copy_from_slice(&encoded);
        self.digest.update(digested(&encoded));
        if header.kind == Kind::Block {
            self.index.push(IndexEntry::of(&header));
            self.runs.note(&header);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::Sim;
    use crate::wal::format::PAGE;

    #[test]
    fn names_mean_what_they_say() {
        assert_eq!(classify(&wal_name(7)), FileName::Segment(7));
        assert_eq!(classify(&recycled_name(7)), FileName::Spare);
        assert_eq!(classify("new-1.spare"), FileName::Spare);
        assert_eq!(classify("new-1.spare.tmp"), FileName::Unfinished);
        assert_eq!(classify(&torn_name(7)), FileName::Torn);
        assert_eq!(classify(&repair_name(7, 12)), FileName::Repair);
        assert_eq!(classify(&unfinished_name(&repair_name(7, 12))), FileName::Unfinished);
        assert_eq!(classify(LOCK), FileName::Lock);
        for foreign in ["7.wal", "notes.txt", "00000000000000000007.wal.bak", "x.torn", "7-12.repair", ""] {
            assert_eq!(classify(foreign), FileName::Foreign, "{foreign}");
        }
    }

    #[test]
    fn a_repair_file_names_its_segment_and_lsn_in_full() {
        let full = "7".repeat(DIGITS);
        for stem in [format!("{full}-12"), format!("12-{full}"), full, "notes".to_owned()] {
            for name in [format!("{stem}.repair"), format!("{stem}.repair.tmp")] {
                assert_eq!(classify(&name), FileName::Foreign, "{name}");
            }
        }
    }

    #[test]
    fn zeros_are_written_where_they_are_asked_for_and_nowhere_else() {
        let (sim, path) = (Sim::new(1), Path::new("/f"));
        let file = sim.create_new(path).unwrap();
        let (from, to) = (PAGE, PAGE + ZEROS as u64 + PAGE);
        let mut expected = vec![7_u8; to as usize + 9];
        file.write_at(0, &[IoSlice::new(&expected)]).unwrap();
        write_zeros(file.as_ref(), from, to).unwrap();
        expected[from as usize..to as usize].fill(0);
        assert!(sim.files()[path] == expected);
    }

    #[test]
    fn a_spare_without_room_for_a_long_state_stays_as_long_as_it_was() {
        const SEGMENT: u64 = 64 << 10;
        const SPARE: &str = "new-1.spare";
        let (sim, dir) = (Sim::new(1), Path::new("/wal"));
        sim.create_dir_all(dir).unwrap();
        let file = sim.create_new(&dir.join(SPARE)).unwrap();
        file.set_len(SEGMENT).unwrap();
        let mut state = State::new(7);
        state.routes.insert(0, "a".repeat(40_000));
        let birth = Birth {
            number: 1,
            salt: 5,
            first_lsn: 1,
            retired_below: 0,
            predecessor: Predecessor::default(),
            state: &state,
            tail: &[],
        };
        for room in [0, 1, PAGE, 2 * PAGE + 1] {
            sim.set_capacity(Some(SEGMENT + room));
            let refused = build(&sim, dir, SPARE, Arc::clone(&file), &birth);
            assert!(matches!(&refused, Err(WalError::Io(error)) if error.is_full()), "{room} bytes: {refused:?}");
            assert_eq!(file.len().unwrap(), SEGMENT, "{room} bytes");
            assert_eq!(sim.list(dir).unwrap(), [SPARE], "{room} bytes");
        }
        sim.set_capacity(None);
        let active = build(&sim, dir, SPARE, Arc::clone(&file), &birth).unwrap();
        assert!(active.built_end > SEGMENT);
        assert_eq!((active.capacity, file.len().unwrap()), (active.built_end, active.built_end));
    }
}
