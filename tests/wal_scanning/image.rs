//! A segment, written frame by frame, and what may be done to it.

use crate::asked::Asked;
use crate::entries;
use crc32fast::Hasher;
use forebay::io::sim::Sim;
use forebay::io::{File, Storage};
use forebay::record::Partition;
use forebay::record::batch::payload_crc;
use forebay::wal::format::footer::{self, IndexEntry};
use forebay::wal::format::frame::{FRAME_HEADER, FrameHeader, Kind, digested};
use forebay::wal::format::header::{HEADER_BYTES, Predecessor, SegmentHeader};
use forebay::wal::format::{FRAMES_START, PAGE};
use forebay::wal::recovery::table::Verdict;
use forebay::wal::repair::files;
use forebay::wal::repair::format::Target;
use forebay::wal::scan::Scanner;
use forebay::wal::scan::segment::Segment;
use forebay::wal::scan::survey::{self, Survey};
use forebay::wal::segment::{segment_of, wal_name};
use forebay::wal::{Entry, State};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub const DIR: &str = "/wal";
pub const WAL_ID: u128 = 7;
pub const P: Partition = Partition { topic: 1, number: 0 };
pub const LONG: Duration = Duration::from_secs(60);

pub fn path(number: u64) -> PathBuf {
    Path::new(DIR).join(wal_name(number))
}

pub fn owned() -> Entry {
    Entry::Owned { partition: P, tenure: 1, first: 0, next: 0, acked_entries: "a:1".to_owned() }
}

pub fn empty(first: i64, next: i64) -> Entry {
    Entry::Empty { partition: P, tenure: 1, first, next }
}

/// A block of one offset.
pub fn block(first: i64) -> Entry {
    entries::block(P, first, 100)
}

/// A frame header without anything behind it.
pub fn numbered(lsn: u64) -> FrameHeader {
    FrameHeader { lsn, ..FrameHeader::new(Kind::Empty) }
}

/// A segment as it is being written.
pub struct Image {
    pub header: SegmentHeader,
    /// The fold of everything so far.
    pub state: State,
    pub bytes: Vec<u8>,
    /// Where the frames behind the states begin.
    pub start: u64,
    /// The LSN of the next entry.
    pub lsn: u64,
    /// What the next frames say is synced.
    pub synced: u64,
    pub digest: Hasher,
    pub index: Vec<IndexEntry>,
}

impl Image {
    /// Two header pages.
    pub fn blank(number: u64, lsn: u64, state: State) -> Self {
        let salt = 0x5a17 + number;
        let header = SegmentHeader { wal_id: WAL_ID, number, salt, first_lsn: lsn, ..SegmentHeader::default() };
        let (bytes, start) = (vec![0; FRAMES_START as usize], FRAMES_START);
        Self { header, state, bytes, start, lsn, synced: 0, digest: Hasher::new(), index: Vec::new() }
    }

    /// Header pages and states.
    pub fn new(number: u64, lsn: u64, state: State) -> Self {
        let mut image = Self::blank(number, lsn, state);
        let mut payload = Vec::new();
        image.state.encode(&mut payload).unwrap();
        for _ in 0..2 {
            image.push(FrameHeader { lsn: lsn - 1, ..FrameHeader::new(Kind::State) }, &payload, PAGE);
        }
        image.start = image.end();
        image.header.built_end = image.start;
        image
    }

    pub fn first() -> Self {
        Self::new(1, 1, State::new(WAL_ID))
    }

    /// The segment after this one, with this state and first LSN.
    pub fn follow(&self, lsn: u64, state: State) -> Self {
        let mut next = Self::new(self.header.number + 1, lsn, state);
        next.header.predecessor = self.ended();
        next.synced = self.lsn - 1;
        next
    }

    pub fn successor(&self) -> Self {
        self.follow(self.lsn, self.state.clone())
    }

    /// A successor whose state is not what the frames before it add up to.
    pub fn altered_successor(&self) -> Self {
        let mut state = self.state.clone();
        state.routes.insert(9, "elsewhere".to_owned());
        self.follow(self.lsn, state)
    }

    /// What a successor's header says of this segment.
    pub fn ended(&self) -> Predecessor {
        let (number, salt) = (self.header.number, self.header.salt);
        let digest = self.digest.clone().finalize();
        Predecessor { number, salt, end_lsn: self.lsn, end_position: self.end(), digest }
    }

    pub fn end(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Where the second copy of the state begins.
    pub fn twin(&self) -> u64 {
        u64::midpoint(FRAMES_START, self.start)
    }

    pub fn header_at(&self, position: u64) -> FrameHeader {
        FrameHeader::decode(&self.bytes[position as usize..], self.header.salt, position).unwrap()
    }

    /// Appends a frame that is padded to a multiple of `align`; its position.
    pub fn push(&mut self, header: FrameHeader, payload: &[u8], align: u64) -> u64 {
        let (position, payload_len) = (self.end(), payload.len() as u32);
        let unpadded = FRAME_HEADER as u64 + u64::from(payload_len);
        let pad_len = ((position + unpadded).next_multiple_of(align) - position - unpadded) as u32;
        let (synced_through, payload_crc) = (self.synced, payload_crc(payload));
        let header = FrameHeader { position, payload_len, pad_len, synced_through, payload_crc, ..header };
        let encoded = header.encode(self.header.salt);
        self.digest.update(digested(&encoded));
        self.bytes.extend_from_slice(&encoded);
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(self.bytes.len() + pad_len as usize, 0);
        position
    }

    /// Appends an entry as a sync group of its own; its position.
    pub fn entry(&mut self, entry: &Entry) -> u64 {
        self.state.apply(self.lsn, entry).unwrap();
        self.unfolded(entry)
    }

    /// The same of one that the rules do not allow here.
    pub fn unfolded(&mut self, entry: &Entry) -> u64 {
        let mut payload = Vec::new();
        let header = entry.encode(&mut payload).unwrap();
        if let Entry::Block(block) = entry {
            payload.extend_from_slice(&block.payload);
        }
        let position = self.push(FrameHeader { lsn: self.lsn, ..header }, &payload, PAGE);
        self.lsn += 1;
        if header.kind == Kind::Block {
            self.index.push(IndexEntry::of(&self.header_at(position)));
        }
        position
    }

    pub fn footer(&mut self, align: u64) -> u64 {
        let mut payload = Vec::new();
        footer::encode(&self.index, &mut payload).unwrap();
        self.push(FrameHeader { lsn: self.lsn - 1, ..FrameHeader::new(Kind::Footer) }, &payload, align)
    }

    /// The file's bytes, both copies of the header among them.
    pub fn written(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for copy in [0, HEADER_BYTES] {
            bytes[copy..copy + HEADER_BYTES].copy_from_slice(&self.header.encode());
        }
        bytes
    }

    /// Scans the frames behind the states.
    pub fn scanner(&self, file: Arc<dyn File>) -> Scanner {
        Scanner::new(file, self.header.salt, self.start, self.header.first_lsn, self.end())
    }

    /// The same of the frames as they are here.
    pub fn scan(&self) -> Scanner {
        self.scanner(Arc::new(Asked::new(self.bytes.clone())))
    }

    /// Writes a repair file for the block at this position, of a segment with this salt; its name.
    pub fn mend(&self, sim: &Sim, position: u64, salt: u64) -> String {
        let header = self.header_at(position);
        let payload = &self.bytes[position as usize + FRAME_HEADER..][..header.payload_len as usize];
        let target = Target { wal_id: WAL_ID, segment: self.header.number, salt };
        files::write(sim, Path::new(DIR), &target, &header, payload).unwrap().name()
    }
}

/// Where the frames of [`sealed`] are.
#[derive(Clone, Copy)]
pub struct Places {
    pub owned: u64,
    pub blocks: [u64; 2],
    pub footer: u64,
}

/// A first segment of a tenure, two blocks and a footer.
pub fn sealed() -> (Image, Places) {
    let mut image = Image::first();
    let owned = image.entry(&owned());
    let blocks = [image.entry(&block(0)), image.entry(&block(1))];
    let footer = image.footer(PAGE);
    (image, Places { owned, blocks, footer })
}

/// The segment after [`sealed`], with one block.
pub fn last_after(image: &Image) -> Image {
    let mut last = image.successor();
    last.entry(&block(2));
    last
}

pub fn log_of(images: &[&Image]) -> Sim {
    let sim = Sim::new(1);
    sim.create_dir_all(Path::new(DIR)).unwrap();
    for image in images {
        let file = sim.create_new(&path(image.header.number)).unwrap();
        file.write_at(0, &[IoSlice::new(&image.written())]).unwrap();
    }
    sim
}

pub fn flip(sim: &Sim, number: u64, at: u64) {
    sim.damage(&path(number), |bytes| bytes[at as usize] ^= 1).unwrap();
}

/// Damages the payload of the frame at this position.
pub fn flip_payload(sim: &Sim, number: u64, frame: u64) {
    flip(sim, number, frame + FRAME_HEADER as u64 + 1);
}

/// Damages the header of the frame at this position, but not its magic.
pub fn flip_header(sim: &Sim, number: u64, frame: u64) {
    flip(sim, number, frame + 20);
}

pub fn opened(sim: &Sim, number: u64) -> Segment {
    survey::open(sim, Path::new(DIR), number, &mut Vec::new()).unwrap().expect("a good header")
}

pub fn look(sim: &Sim) -> Survey {
    survey::survey(sim, Path::new(DIR)).unwrap()
}

/// Looks at every byte of the last segment only.
pub fn look_quickly(sim: &Sim) -> Survey {
    survey::survey_newest(sim, Path::new(DIR), 0).unwrap()
}

/// What was found: the verdict, the segment and the position in it.
pub fn told(survey: &Survey) -> Vec<(Verdict, u64, u64)> {
    let number = |path: &Path| path.file_name().and_then(|name| segment_of(name.to_str()?)).unwrap();
    survey.findings.iter().map(|f| (f.verdict, number(&f.path), f.position)).collect()
}

pub fn assert_sound(survey: &Survey) {
    assert!(survey.findings.is_empty(), "{:?}", survey.findings);
}
