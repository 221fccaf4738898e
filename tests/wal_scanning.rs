//! The scan, on segments written frame by frame: what counts as a frame, what damage is and how far it goes, what a
//! segment, its states, its footer and its successor say of each other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use crc32fast::Hasher;
use forebay::io::sim::Sim;
use forebay::io::{File, IoError, Storage};
use forebay::record::batch::payload_crc;
use forebay::record::{Block, BlockHeader, Partition, TopicId};
use forebay::wal::format::footer::{self, IndexEntry};
use forebay::wal::format::frame::{FRAME_HEADER, FrameHeader, Kind, digested};
use forebay::wal::format::header::{HEADER_BYTES, Predecessor, SegmentHeader};
use forebay::wal::format::{ALIGN, FRAMES_START, PAGE};
use forebay::wal::recovery::table::Verdict;
use forebay::wal::repair::files;
use forebay::wal::repair::format::Target;
use forebay::wal::scan::index::{self, Index};
use forebay::wal::scan::segment::{self, Bounds, DIFFERS, Fold, Segment};
use forebay::wal::scan::survey::{self, Survey};
use forebay::wal::scan::window::Window;
use forebay::wal::scan::witness::witness;
use forebay::wal::scan::{BadPart, Damage, Piece, Scanner, quick, states};
use forebay::wal::segment::{segment_of, wal_name};
use forebay::wal::{CorruptBlock, Entry, State};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

const DIR: &str = "/wal";
const WAL_ID: u128 = 7;
const P: Partition = Partition { topic: 1, number: 0 };
const LONG: Duration = Duration::from_secs(60);

fn path(number: u64) -> PathBuf {
    Path::new(DIR).join(wal_name(number))
}

fn owned() -> Entry {
    Entry::Owned { partition: P, tenure: 1, first: 0, next: 0, acked_entries: "a:1".to_owned() }
}

fn empty(first: i64, next: i64) -> Entry {
    Entry::Empty { partition: P, tenure: 1, first, next }
}

/// A block of one offset.
fn block(first: i64) -> Entry {
    let payload = vec![first as u8 + 1; 100];
    let header = BlockHeader {
        partition: P,
        first,
        next: first + 1,
        leader_epoch: 0,
        tenure: 1,
        count: 1,
        digest: 0,
        payload_crc: payload_crc(&payload),
    };
    Entry::Block(Block { header, payload: Bytes::from(payload) })
}

/// A frame header without anything behind it.
fn numbered(lsn: u64) -> FrameHeader {
    FrameHeader { lsn, ..FrameHeader::new(Kind::Empty) }
}

/// A segment as it is being written.
struct Image {
    header: SegmentHeader,
    /// The fold of everything so far.
    state: State,
    bytes: Vec<u8>,
    /// Where the frames behind the states begin.
    start: u64,
    /// The LSN of the next entry.
    lsn: u64,
    /// What the next frames say is synced.
    synced: u64,
    digest: Hasher,
    index: Vec<IndexEntry>,
}

impl Image {
    /// Two header pages.
    fn blank(number: u64, lsn: u64, state: State) -> Self {
        let salt = 0x5a17 + number;
        let header = SegmentHeader { wal_id: WAL_ID, number, salt, first_lsn: lsn, ..SegmentHeader::default() };
        let (bytes, start) = (vec![0; FRAMES_START as usize], FRAMES_START);
        Self { header, state, bytes, start, lsn, synced: 0, digest: Hasher::new(), index: Vec::new() }
    }

    /// Header pages and states.
    fn new(number: u64, lsn: u64, state: State) -> Self {
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

    fn first() -> Self {
        Self::new(1, 1, State::new(WAL_ID))
    }

    /// The segment after this one, with this state and first LSN.
    fn follow(&self, lsn: u64, state: State) -> Self {
        let mut next = Self::new(self.header.number + 1, lsn, state);
        next.header.predecessor = self.ended();
        next.synced = self.lsn - 1;
        next
    }

    fn successor(&self) -> Self {
        self.follow(self.lsn, self.state.clone())
    }

    /// A successor whose state is not what the frames before it add up to.
    fn altered_successor(&self) -> Self {
        let mut state = self.state.clone();
        state.routes.insert(9, "elsewhere".to_owned());
        self.follow(self.lsn, state)
    }

    /// What a successor's header says of this segment.
    fn ended(&self) -> Predecessor {
        let (number, salt) = (self.header.number, self.header.salt);
        let digest = self.digest.clone().finalize();
        Predecessor { number, salt, end_lsn: self.lsn, end_position: self.end(), digest }
    }

    fn end(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Where the second copy of the state begins.
    fn twin(&self) -> u64 {
        u64::midpoint(FRAMES_START, self.start)
    }

    fn header_at(&self, position: u64) -> FrameHeader {
        FrameHeader::decode(&self.bytes[position as usize..], self.header.salt, position).unwrap()
    }

    /// Appends a frame that is padded to a multiple of `align`; its position.
    fn push(&mut self, header: FrameHeader, payload: &[u8], align: u64) -> u64 {
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
    fn entry(&mut self, entry: &Entry) -> u64 {
        self.state.apply(self.lsn, entry).unwrap();
        self.unfolded(entry)
    }

    /// The same of one that the rules do not allow here.
    fn unfolded(&mut self, entry: &Entry) -> u64 {
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

    fn footer(&mut self, align: u64) -> u64 {
        let mut payload = Vec::new();
        footer::encode(&self.index, &mut payload).unwrap();
        self.push(FrameHeader { lsn: self.lsn - 1, ..FrameHeader::new(Kind::Footer) }, &payload, align)
    }

    /// The file's bytes, both copies of the header among them.
    fn written(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for copy in [0, HEADER_BYTES] {
            bytes[copy..copy + HEADER_BYTES].copy_from_slice(&self.header.encode());
        }
        bytes
    }

    /// Scans the frames behind the states.
    fn scanner(&self, file: Arc<dyn File>) -> Scanner {
        Scanner::new(file, self.header.salt, self.start, self.header.first_lsn, self.end())
    }

    /// The same of the frames as they are here.
    fn scan(&self) -> Scanner {
        self.scanner(Arc::new(Asked::new(self.bytes.clone())))
    }

    /// Writes a repair file for the block at this position, of a segment with this salt; its name.
    fn mend(&self, sim: &Sim, position: u64, salt: u64) -> String {
        let header = self.header_at(position);
        let payload = &self.bytes[position as usize + FRAME_HEADER..][..header.payload_len as usize];
        let target = Target { wal_id: WAL_ID, segment: self.header.number, salt };
        files::write(sim, Path::new(DIR), &target, &header, payload).unwrap().name()
    }
}

/// Where the frames of [`sealed`] are.
#[derive(Clone, Copy)]
struct Places {
    owned: u64,
    blocks: [u64; 2],
    footer: u64,
}

/// A first segment of a tenure, two blocks and a footer.
fn sealed() -> (Image, Places) {
    let mut image = Image::first();
    let owned = image.entry(&owned());
    let blocks = [image.entry(&block(0)), image.entry(&block(1))];
    let footer = image.footer(PAGE);
    (image, Places { owned, blocks, footer })
}

/// The segment after [`sealed`], with one block.
fn last_after(image: &Image) -> Image {
    let mut last = image.successor();
    last.entry(&block(2));
    last
}

fn log_of(images: &[&Image]) -> Sim {
    let sim = Sim::new(1);
    sim.create_dir_all(Path::new(DIR)).unwrap();
    for image in images {
        let file = sim.create_new(&path(image.header.number)).unwrap();
        file.write_at(0, &[IoSlice::new(&image.written())]).unwrap();
    }
    sim
}

fn flip(sim: &Sim, number: u64, at: u64) {
    sim.damage(&path(number), |bytes| bytes[at as usize] ^= 1).unwrap();
}

/// Damages the payload of the frame at this position.
fn flip_payload(sim: &Sim, number: u64, frame: u64) {
    flip(sim, number, frame + FRAME_HEADER as u64 + 1);
}

/// Damages the header of the frame at this position, but not its magic.
fn flip_header(sim: &Sim, number: u64, frame: u64) {
    flip(sim, number, frame + 20);
}

fn opened(sim: &Sim, number: u64) -> Segment {
    survey::open(sim, Path::new(DIR), number, &mut Vec::new()).unwrap().expect("a good header")
}

fn look(sim: &Sim) -> Survey {
    survey::survey(sim, Path::new(DIR)).unwrap()
}

/// Looks at every byte of the last segment only.
fn look_quickly(sim: &Sim) -> Survey {
    survey::survey_newest(sim, Path::new(DIR), 0).unwrap()
}

/// What was found: the verdict, the segment and the position in it.
fn told(survey: &Survey) -> Vec<(Verdict, u64, u64)> {
    let number = |path: &Path| path.file_name().and_then(|name| segment_of(name.to_str()?)).unwrap();
    survey.findings.iter().map(|f| (f.verdict, number(&f.path), f.position)).collect()
}

fn assert_sound(survey: &Survey) {
    assert!(survey.findings.is_empty(), "{:?}", survey.findings);
}

/// A file of these bytes, handed out so many at once; it notes what it is asked for.
#[derive(Debug)]
struct Asked {
    bytes: Vec<u8>,
    most: usize,
    reads: Mutex<Vec<(u64, usize)>>,
}

impl Asked {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, most: usize::MAX, reads: Mutex::default() }
    }

    /// Position and length of each read.
    fn reads(&self) -> Vec<(u64, usize)> {
        self.reads.lock().unwrap().clone()
    }
}

impl File for Asked {
    fn write_at(&self, _position: u64, _slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        panic!("a scan never writes")
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        self.reads.lock().unwrap().push((position, buffer.len()));
        let rest = &self.bytes[self.bytes.len().min(position as usize)..];
        let len = rest.len().min(buffer.len()).min(self.most);
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.bytes.len() as u64)
    }

    fn set_len(&self, _len: u64) -> Result<(), IoError> {
        panic!("a scan never writes")
    }

    fn sync_data(&self) -> Result<(), IoError> {
        panic!("a scan never writes")
    }
}

fn next_damage(scanner: &mut Scanner) -> Damage {
    match scanner.next_piece() {
        Some(Piece::Damage(damage)) => damage,
        other => panic!("no damage: {other:?}"),
    }
}

fn next_frame(scanner: &mut Scanner) -> FrameHeader {
    match scanner.next_piece() {
        Some(Piece::Frame(header, _)) => header,
        other => panic!("no frame: {other:?}"),
    }
}

#[test]
fn a_frame_counts_only_in_its_order() {
    // States and footers repeat the LSN before them.
    for (kind, lsn, counts) in [
        (Kind::Empty, 5, true),
        (Kind::Empty, 4, false),
        (Kind::Empty, 6, false),
        (Kind::Footer, 4, true),
        (Kind::Footer, 3, false),
        (Kind::Footer, 5, false),
    ] {
        let mut image = Image::new(1, 5, State::new(WAL_ID));
        image.push(FrameHeader { lsn, ..FrameHeader::new(kind) }, b"payload", ALIGN);
        let is_frame = matches!(image.scan().next_piece(), Some(Piece::Frame(..)));
        assert_eq!(is_frame, counts, "{kind:?} with LSN {lsn}");
    }
}

#[test]
fn a_frame_that_goes_beyond_the_end_does_not_count() {
    let mut image = Image::first();
    image.push(numbered(1), &[1; 100], PAGE);
    let limit = image.end() - ALIGN;
    let file = Arc::new(Asked::new(image.bytes.clone()));
    let mut scanner = Scanner::new(file, image.header.salt, image.start, 1, limit);
    let damage = next_damage(&mut scanner);
    assert_eq!((damage.position, damage.end, damage.part), (image.start, limit, BadPart::Header));
    assert!(damage.header.is_none() && damage.is_last, "{damage:?}");
    assert!(scanner.next_piece().is_none());
}

#[test]
fn a_frame_whose_pad_the_file_cuts_off_is_damaged() {
    let mut image = Image::first();
    image.push(numbered(1), &[1; 100], PAGE);
    let cut = image.bytes[..image.bytes.len() - ALIGN as usize].to_vec();
    let damage = next_damage(&mut image.scanner(Arc::new(Asked::new(cut))));
    assert_eq!((damage.part, damage.reason.as_str()), (BadPart::Payload, "the file ends inside the frame"));
}

#[test]
fn a_damaged_payload_takes_nothing_but_its_own_frame() {
    let mut image = Image::new(1, 5, State::new(WAL_ID));
    let first = image.push(numbered(5), &[1; 100], ALIGN);
    let footer = image.push(FrameHeader { kind: Kind::Footer, ..numbered(5) }, &[1; 100], ALIGN);
    let second = image.push(numbered(6), &[1; 100], ALIGN);
    for frame in [first, footer] {
        image.bytes[frame as usize + FRAME_HEADER] ^= 1;
    }
    let mut scanner = image.scan();
    let damage = next_damage(&mut scanner);
    assert_eq!((damage.position, damage.end, damage.lsn, damage.end_lsn), (first, footer, 5, 6));
    let damage = next_damage(&mut scanner);
    assert_eq!((damage.position, damage.end, damage.lsn, damage.end_lsn), (footer, second, 6, 6));
    assert_eq!(next_frame(&mut scanner).lsn, 6);
}

#[test]
fn behind_a_damaged_header_the_scan_goes_on_at_a_frame_that_is_not_older() {
    let mut image = Image::new(1, 5, State::new(WAL_ID));
    let damaged = image.push(numbered(5), b"", ALIGN);
    image.push(numbered(2), b"", ALIGN);
    let next = image.push(numbered(6), b"", ALIGN);
    image.bytes[damaged as usize + 20] ^= 1;
    let mut scanner = image.scan();
    let damage = next_damage(&mut scanner);
    assert_eq!((damage.position, damage.end, damage.lsn, damage.end_lsn), (damaged, next, 5, 6));
    assert!(!damage.is_last);
    assert_eq!(next_frame(&mut scanner).lsn, 6);
}

#[test]
fn the_next_frame_is_found_however_far_away_it_is() {
    for distance in [8, 65_536, 65_544, 200_000] {
        let mut image = Image::new(1, 5, State::new(WAL_ID));
        image.bytes.resize(image.bytes.len() + distance, 0);
        // Of a header alone, at the very end.
        let position = image.push(numbered(6), b"", ALIGN);
        let mut scanner = image.scan();
        assert_eq!(next_damage(&mut scanner).end, position, "{distance}");
        assert_eq!(next_frame(&mut scanner).lsn, 6, "{distance}");
        assert!(scanner.next_piece().is_none());
    }
}

#[test]
fn a_frame_begins_on_a_multiple_of_eight_or_is_none() {
    let mut image = Image::new(1, 5, State::new(WAL_ID));
    let limit = image.bytes.len() + 8 + 73 * 8;
    image.bytes.resize(image.bytes.len() + 8 + 161, 0);
    image.push(numbered(6), b"", 1);
    image.bytes.resize(limit, 0);
    let damage = next_damage(&mut image.scan());
    assert!(damage.is_last && damage.end == limit as u64, "{damage:?}");
}

#[test]
fn zeros_that_cannot_be_read_are_damage() {
    let mut image = Image::first();
    let frame = image.push(FrameHeader { kind: Kind::Block, ..numbered(1) }, &[0; 8192], PAGE);
    let sim = log_of(&[&image]);
    sim.fail_reads(&path(1), frame + PAGE..frame + 2 * PAGE).unwrap();
    let damage = next_damage(&mut image.scanner(sim.open(&path(1), false).unwrap()));
    assert_eq!((damage.part, damage.reason.as_str()), (BadPart::Payload, "can't be read"));
    assert!(damage.unreadable && damage.header.is_some_and(|header| header.kind == Kind::Block));
}

#[test]
fn a_damaged_header_is_unreadable_only_if_it_is_itself() {
    let mut image = Image::first();
    let frames = [1, 2, 3].map(|lsn| image.push(numbered(lsn), &[1; 100], PAGE));
    let sim = log_of(&[&image]);
    sim.fail_reads(&path(1), frames[0]..frames[1]).unwrap();
    let damage = next_damage(&mut image.scanner(sim.open(&path(1), false).unwrap()));
    assert_eq!((damage.position, damage.end, damage.unreadable), (frames[0], frames[1], true));

    let sim = log_of(&[&image]);
    flip_header(&sim, 1, frames[0]);
    sim.fail_reads(&path(1), frames[1]..frames[2]).unwrap();
    let damage = next_damage(&mut image.scanner(sim.open(&path(1), false).unwrap()));
    assert_eq!((damage.position, damage.end, damage.unreadable), (frames[0], frames[2], false));
}

#[test]
fn the_digest_of_the_headers_is_known_before_and_behind_each_frame() {
    let mut image = Image::new(1, 1, State::new(WAL_ID));
    image.digest = Hasher::new();
    let mut expected = vec![0];
    for lsn in [1, 2, 3] {
        image.push(numbered(lsn), b"payload", ALIGN);
        expected.push(image.digest.clone().finalize());
    }
    let last = image.bytes.len() - 104;
    image.bytes[last + 20] ^= 1;
    let mut scanner = image.scan().with_digest(Some(Hasher::new()));
    for pair in expected.windows(2).take(2) {
        next_frame(&mut scanner);
        assert_eq!((scanner.digest_before(), scanner.digest()), (Some(pair[0]), Some(pair[1])));
    }
    next_damage(&mut scanner);
    assert_eq!((scanner.digest_before(), scanner.digest()), (Some(expected[2]), None));
}

#[test]
fn where_the_log_can_be_cut_the_digest_of_what_is_before_is_known() {
    let mut image = Image::first();
    image.entry(&owned());
    let (cut, digest) = (image.end(), image.digest.clone().finalize());
    image.synced = 1;
    image.entry(&block(0));
    image.entry(&block(1));
    let survey = look(&log_of(&[&image]));
    let found = survey.segments[0].cut.as_ref().unwrap();
    assert_eq!((found.position, found.lsn, found.digest), (cut, 2, Some(digest)));
}

/// Searched for within a time that no machine needs.
fn find(file: Arc<dyn File>, image: &Image, start: u64, end: u64) -> Option<Index> {
    let (salt, (tell, told)) = (image.header.salt, mpsc::channel());
    std::thread::spawn(move || drop(tell.send(index::find(&file, salt, start, end))));
    told.recv_timeout(LONG).expect("the search ends")
}

#[test]
fn a_footer_is_found_however_long_it_is_and_with_few_reads() {
    const START: u64 = 8200;
    const ENTRY: IndexEntry = IndexEntry {
        lsn: 1,
        position: 8192,
        length: 104,
        digest: 0,
        topic: 1,
        partition: 0,
        first: 0,
        next: 1,
        tenure: 1,
        count: 1,
    };
    // With 1169 of them the frame is a little longer than what is looked at first: that begins inside of its header.
    for entries in [0, 1, 1169, 3000] {
        let mut image = Image::blank(1, 1, State::new(WAL_ID));
        image.bytes.resize(START as usize + 40, 0);
        image.index = vec![ENTRY; entries];
        let position = image.footer(ALIGN);
        let (end, asked) = (image.end(), Arc::new(Asked::new(image.bytes.clone())));
        let found = find(asked.clone(), &image, START, end).expect("a footer");
        assert_eq!((found.position, found.blocks.len()), (position, entries));
        let reads = asked.reads();
        assert!(reads.len() < 10, "{entries}: {} reads", reads.len());
        assert!(find(asked.clone(), &image, position + ALIGN, end).is_none(), "looks no further back than it is told");
        assert!(find(asked.clone(), &image, START, end - ALIGN).is_none(), "it ends elsewhere");
        assert!(find(asked, &image, START, end + ALIGN).is_none(), "the file ends before");
    }
}

#[test]
fn only_a_footer_that_ends_the_segment_is_one() {
    let mut payload = Vec::new();
    footer::encode(&[], &mut payload).unwrap();
    let mut image = Image::blank(1, 1, State::new(WAL_ID));
    image.push(FrameHeader { kind: Kind::Block, ..numbered(1) }, &payload, PAGE);
    let search = |image: &Image| find(Arc::new(Asked::new(image.bytes.clone())), image, FRAMES_START, image.end());
    assert!(search(&image).is_none(), "a block whose payload reads as a footer's");
    image.footer(PAGE);
    assert!(search(&image).is_some());
    image.push(numbered(2), b"", PAGE);
    assert!(search(&image).is_none(), "a footer in the middle");
}

#[test]
fn a_segment_is_taken_by_its_footer_if_all_of_it_fits() {
    let (image, _) = sealed();
    let sim = log_of(&[&image]);
    let scan = quick::scan(&opened(&sim, 1), &image.ended()).expect("it fits, up to the last byte of the file");
    assert_eq!((scan.frames, scan.end, scan.next_lsn, scan.runs.blocks()), (3, image.end(), 4, 2));
    assert!(scan.sealed && !scan.verified);
    let beyond = Predecessor { end_position: image.end() + PAGE, ..image.ended() };
    assert!(quick::scan(&opened(&sim, 1), &beyond).is_none());
    for state in [FRAMES_START, image.twin()] {
        let sim = log_of(&[&image]);
        flip_payload(&sim, 1, state);
        assert!(quick::scan(&opened(&sim, 1), &image.ended()).is_none(), "the copy of the state at {state}");
    }

    let mut image = Image::new(1, 5, State::new(WAL_ID));
    image.footer(PAGE);
    let segment = opened(&log_of(&[&image]), 1);
    let scan = quick::scan(&segment, &image.ended()).expect("a segment of nothing but its state");
    assert_eq!((scan.frames, scan.next_lsn), (0, 5));
    let backwards = Predecessor { end_lsn: 4, ..image.ended() };
    assert!(quick::scan(&segment, &backwards).is_none(), "it ends before it begins");
}

#[test]
fn damage_of_a_pad_names_the_block_before_it_and_loses_nothing() {
    let mut image = Image::first();
    let frames = [image.entry(&owned()), image.entry(&block(0))];
    image.synced = 2;
    image.entry(&Entry::Idle);
    let sim = log_of(&[&image]);
    for frame in &frames {
        flip(&sim, 1, frame + PAGE - 1);
    }
    let survey = look(&sim);
    assert_eq!(told(&survey), frames.map(|frame| (Verdict::Report, 1, frame)));
    let ranges: Vec<_> = survey.findings.iter().map(|finding| finding.range).collect();
    assert_eq!(ranges, [None, Some((P, 0, 1))]);
    assert_eq!(survey.state, Some(image.state));
}

#[test]
fn without_a_state_of_the_last_segment_nothing_is_folded() {
    let (image, _) = sealed();
    let last = last_after(&image);
    let sim = log_of(&[&image, &last]);
    let copies = [FRAMES_START, last.twin()];
    for copy in copies {
        flip_payload(&sim, 2, copy);
    }
    let survey = look(&sim);
    assert_eq!(told(&survey), copies.map(|copy| (Verdict::Refuse, 2, copy)));
    assert!(survey.broken);
    assert_eq!(survey.state, Some(image.state));
}

/// The segments of which it is said that their state differs from the frames before it.
fn differing(survey: &Survey) -> Vec<(Verdict, u64, u64)> {
    let of = told(survey).into_iter().zip(&survey.findings);
    of.filter(|(_, finding)| finding.reason == DIFFERS).map(|(told, _)| told).collect()
}

#[test]
fn a_state_is_compared_with_the_frames_before_it() {
    let (image, places) = sealed();
    let (right, wrong) = (image.successor(), image.altered_successor());
    assert_sound(&look(&log_of(&[&image, &right])));
    let differs = (Verdict::Report, 2, FRAMES_START);
    assert_eq!(told(&look(&log_of(&[&image, &wrong]))), [differs]);
    // A lost footer loses nothing that is folded.
    let sim = log_of(&[&image, &wrong]);
    flip_payload(&sim, 1, places.footer);
    assert_eq!(told(&look(&sim)), [(Verdict::Report, 1, places.footer), differs]);

    // With a segment whose state is lost, they are scanned in another way.
    let second = last_after(&image);
    for (third, expected) in
        [(second.successor(), vec![]), (second.altered_successor(), vec![(Verdict::Report, 3, FRAMES_START)])]
    {
        let sim = log_of(&[&image, &second, &third]);
        for copy in [FRAMES_START, image.twin()] {
            flip_payload(&sim, 1, copy);
        }
        assert_eq!(differing(&look(&sim)), expected);
    }
}

#[test]
fn a_file_that_ends_below_what_was_built_is_refused() {
    let mut image = Image::first();
    image.entry(&owned());
    image.header.built_end = image.end() + PAGE;
    let survey = look(&log_of(&[&image]));
    assert_eq!(told(&survey), [(Verdict::Refuse, 1, image.end())]);
}

#[test]
fn a_sealed_segment_that_lacks_its_last_frame_is_refused() {
    let (image, _) = sealed();
    let mut last = image.follow(image.lsn + 1, image.state.clone());
    // As after damage, when no digest is known.
    last.header.predecessor.digest = 0;
    assert_sound(&look(&log_of(&[&image, &last])));
    last.header.predecessor.end_lsn += 1;
    assert_eq!(told(&look(&log_of(&[&image, &last]))), [(Verdict::Refuse, 1, image.end())]);
}

#[test]
fn what_follows_a_lost_control_frame_is_left_to_the_next_state() {
    let mut image = Image::first();
    let lost = image.entry(&owned());
    image.entry(&empty(0, 5));
    image.footer(PAGE);
    let last = image.successor();
    let sim = log_of(&[&image, &last]);
    flip_payload(&sim, 1, lost);
    let survey = look(&sim);
    assert_eq!(told(&survey), [(Verdict::Report, 1, lost)]);
    assert!(!survey.broken);
    assert_eq!(survey.state, Some(image.state));
}

#[test]
fn a_lost_control_frame_of_the_last_segment_is_refused() {
    let mut image = Image::first();
    let lost = image.entry(&owned());
    image.synced = 1;
    image.entry(&Entry::Idle);
    let sim = log_of(&[&image]);
    flip_payload(&sim, 1, lost);
    assert_eq!(told(&look(&sim)), [(Verdict::Refuse, 1, lost)]);
}

#[test]
fn unwritten_bytes_are_the_end_only_above_what_is_known_to_be_synced() {
    let mut image = Image::first();
    image.entry(&owned());
    image.entry(&block(0));
    let end = image.end();
    image.bytes.resize(image.bytes.len() + PAGE as usize, 0);
    let sim = log_of(&[&image]);
    let segment = opened(&sim, 1);
    for (witness, expected) in [(2, vec![]), (3, vec![(Verdict::Refuse, end)])] {
        let never = || false;
        let bounds = Bounds { sealed: None, witness, later_state: &never };
        let (mut fold, mut findings, mut corrupt) = (Fold::default(), Vec::new(), Vec::new());
        segment::scan(&segment, &bounds, &mut fold, &mut findings, &mut corrupt);
        let found: Vec<_> = findings.iter().map(|finding| (finding.verdict, finding.position)).collect();
        assert_eq!(found, expected, "synced through {witness}");
    }
}

#[test]
fn both_states_of_a_segment_may_be_lost_if_no_frame_is() {
    // Without a footer nothing says which frames there were.
    let mut full = Image::first();
    full.entry(&owned());
    full.entry(&block(0));
    for image in [full, Image::first()] {
        let last = image.successor();
        let sim = log_of(&[&image, &last]);
        for copy in [FRAMES_START, image.twin()] {
            flip_header(&sim, 1, copy);
        }
        let survey = look(&sim);
        assert_eq!(told(&survey), [(Verdict::Report, 1, FRAMES_START)]);
        assert!(!survey.broken);
        assert_eq!(survey.state, Some(last.state));
    }
}

#[test]
fn blocks_lost_together_with_both_states_are_named_by_the_footer() {
    let (image, places) = sealed();
    let last = last_after(&image);
    let sim = log_of(&[&image, &last]);
    for frame in [FRAMES_START, image.twin(), places.owned, places.blocks[0]] {
        flip_header(&sim, 1, frame);
    }
    let survey = look(&sim);
    let stops = (Verdict::StopPartition, 1, places.blocks[0]);
    assert_eq!(told(&survey), [(Verdict::Report, 1, FRAMES_START), stops]);
    let corrupt: Vec<_> = survey.corrupt.iter().map(|block| (block.first, block.next, block.lsn)).collect();
    assert_eq!(corrupt, [(0, 1, 2)]);
}

#[test]
fn a_damaged_block_is_named_and_still_counts() {
    let (image, places) = sealed();
    let sim = log_of(&[&image, &last_after(&image)]);
    flip_payload(&sim, 1, places.blocks[0]);
    let survey = look(&sim);
    assert_eq!(told(&survey), [(Verdict::StopPartition, 1, places.blocks[0])]);
    assert_eq!(survey.corrupt.len(), 1);
    let scan = &survey.segments[0];
    assert_eq!((scan.frames, scan.runs.blocks(), scan.next_lsn), (3, 2, 4));
}

#[test]
fn a_damaged_frame_is_torn_only_from_where_the_segment_was_built_on() {
    for is_built in [true, false] {
        let mut image = Image::first();
        image.entry(&owned());
        image.header.built_end = image.end();
        let damaged = image.entry(&block(0));
        if is_built {
            image.header.built_end = image.end();
        }
        let sim = log_of(&[&image]);
        flip_payload(&sim, 1, damaged);
        let survey = look(&sim);
        let verdict = if is_built { Verdict::StopPartition } else { Verdict::Torn };
        assert_eq!(told(&survey), [(verdict, 1, damaged)]);
        assert_eq!(survey.corrupt.len(), usize::from(is_built));
        assert_eq!(survey.segments[0].torn_at, (!is_built).then_some(damaged));
    }
}

#[test]
fn a_large_log_is_looked_at_as_a_small_one_is() {
    let (first, _) = sealed();
    let mut second = last_after(&first);
    second.footer(PAGE);
    let last = second.successor();
    let sim = log_of(&[&first, &second, &last]);
    let (small, small_quick) = (look(&sim), look_quickly(&sim));
    // Space that was prepared and never written: now the log is worth several threads.
    sim.open(&path(1), true).unwrap().set_len(17 << 20).unwrap();
    let (large, large_quick) = (look(&sim), look_quickly(&sim));
    let seen = |survey: &Survey| -> Vec<_> {
        survey.segments.iter().map(|s| (s.number, s.frames, s.end, s.next_lsn, s.verified)).collect()
    };
    for (small, large) in [(&small, &large), (&small_quick, &large_quick)] {
        assert_sound(large);
        assert_eq!(seen(small), seen(large));
        assert_eq!(small.state, large.state);
    }
    let verified: Vec<_> = large_quick.segments.iter().map(|s| s.verified).collect();
    assert_eq!(verified, [false, false, true]);
}

/// A state of several pages.
fn long_state() -> State {
    let mut state = State::new(WAL_ID);
    for number in 1..=3 {
        let topic = Entry::Topic { number, name: "t".repeat(3000), id: TopicId([1; 16]) };
        state.apply(u64::from(number), &topic).unwrap();
    }
    state
}

#[test]
fn a_copy_of_the_state_that_cannot_be_read_is_told_from_one_that_is_wrong() {
    let image = Image::new(1, 4, long_state());
    let twin = image.twin();
    assert!(twin - FRAMES_START > 2 * PAGE);
    let sim = log_of(&[&image]);
    flip_payload(&sim, 1, FRAMES_START);
    sim.fail_reads(&path(1), twin + PAGE..twin + 2 * PAGE).unwrap();
    let file = sim.open(&path(1), false).unwrap();
    let states = states::read(&file, &image.header, image.end());
    assert!(states.state.is_none());
    let bad: Vec<_> = states.bad.iter().map(|bad| (bad.position, bad.unreadable)).collect();
    assert_eq!(bad, [(FRAMES_START, false), (twin, true)]);
}

#[test]
fn a_long_state_is_found_by_its_second_copy() {
    let image = Image::new(1, 4, long_state());
    let sim = log_of(&[&image]);
    flip_header(&sim, 1, FRAMES_START);
    let states = states::read(&sim.open(&path(1), false).unwrap(), &image.header, image.end());
    assert_eq!((states.end, states.bad.len()), (Some(image.start), 1));
    assert_eq!(states.digest.map(Hasher::finalize), Some(image.digest.finalize()));
    assert_eq!(states.state, Some(image.state));
}

#[test]
fn what_is_no_whole_state_is_not_taken_for_one() {
    let mut payload = Vec::new();
    long_state().encode(&mut payload).unwrap();
    for (what, kind, align, missing) in [
        ("another frame", Kind::Empty, PAGE, 0),
        ("it does not end where a page does", Kind::State, ALIGN, 0),
        ("it ends beyond the file", Kind::State, PAGE, PAGE),
    ] {
        let mut image = Image::blank(1, 4, State::new(WAL_ID));
        image.push(FrameHeader { kind, ..numbered(3) }, &payload, align);
        image.header.built_end = image.end().next_multiple_of(PAGE);
        let file: Arc<dyn File> = Arc::new(Asked::new(image.bytes.clone()));
        let states = states::read(&file, &image.header, image.end() - missing);
        assert!(states.state.is_none() && states.end.is_none(), "{what}");
    }
}

#[test]
fn a_corrupt_block_is_live_until_it_is_delivered_or_given_up() {
    let mut state = State::new(WAL_ID);
    let (route, through_lsn, keep_from, detail) = (0, 1, Some(2), vec![1]);
    let delivered = Entry::Delivered { route, partition: P, first: 0, next: 5, through_lsn, keep_from, detail };
    let disowned = Entry::Disowned { partition: P, tenure: 1, first: 7, next: 10 };
    for (lsn, entry) in (100..).zip([owned(), empty(0, 10), delivered, disowned]) {
        state.apply(lsn, &entry).unwrap();
    }
    let corrupt = |(first, next): (i64, i64)| {
        let header = FrameHeader { partition: P, tenure: 1, first, next, ..numbered(50) };
        CorruptBlock::new(&path(1), 1, 1, &IndexEntry::of(&header), None)
    };
    // The first of them is delivered, although it has to be kept.
    let corrupt = [(3, 5), (5, 7), (7, 10)].map(corrupt).to_vec();
    let survey = Survey { state: Some(state), corrupt, ..Survey::default() };
    let live: Vec<_> = survey.live_corrupt().iter().map(|block| (block.first, block.next)).collect();
    assert_eq!(live, [(5, 7)]);
}

#[test]
fn anything_out_of_order_has_every_segment_verified() {
    let (first, places) = sealed();
    let mut second = last_after(&first);
    second.footer(PAGE);
    let sim = log_of(&[&first, &second, &second.successor()]);
    flip_payload(&sim, 1, places.blocks[1]);
    assert!(look_quickly(&sim).corrupt.is_empty(), "not looked at");
    flip(&sim, 2, PAGE + 20);
    let survey = look_quickly(&sim);
    assert!(survey.segments.iter().all(|segment| segment.verified));
    assert_eq!(told(&survey), [(Verdict::Report, 2, PAGE), (Verdict::StopPartition, 1, places.blocks[1])]);
    assert_eq!(survey.corrupt.len(), 1);
}

#[test]
fn the_repair_file_of_a_block_that_was_not_looked_at_is_kept() {
    let (first, places) = sealed();
    let mut second = last_after(&first);
    second.footer(PAGE);
    let mut last = second.successor();
    let undamaged = last.entry(&block(3));
    let sim = log_of(&[&first, &second, &last]);
    flip_payload(&sim, 1, places.blocks[0]);
    let kept = first.mend(&sim, places.blocks[0], first.header.salt);
    let useless =
        [first.mend(&sim, places.blocks[1], first.header.salt + 9), last.mend(&sim, undamaged, last.header.salt)];
    for survey in [look_quickly(&sim), look(&sim)] {
        let names: Vec<_> = survey.repairs.iter().map(files::Kept::name).collect();
        assert_eq!((names.as_slice(), survey.useless.as_slice()), ([kept.clone()].as_slice(), useless.as_slice()));
    }
}

#[test]
fn a_repair_file_mends_its_own_block_and_nothing_else() {
    let (image, places) = sealed();
    let sim = log_of(&[&image, &last_after(&image)]);
    places.blocks.iter().for_each(|block| flip_payload(&sim, 1, *block));
    let name = image.mend(&sim, places.blocks[0], image.header.salt);
    let survey = look(&sim);
    let [mended, damaged] = places.blocks;
    assert_eq!(told(&survey), [(Verdict::Report, 1, mended), (Verdict::StopPartition, 1, damaged)]);
    assert!(survey.findings[0].reason.ends_with(&format!("mended by {name}")));

    // Nor does it mend that the block has no place among the others.
    let mut image = Image::first();
    image.entry(&owned());
    let jump = image.unfolded(&block(7));
    let sim = log_of(&[&image, &image.successor()]);
    flip_payload(&sim, 1, jump);
    image.mend(&sim, jump, image.header.salt);
    let survey = look(&sim);
    assert_eq!(told(&survey)[..2], [(Verdict::Report, 1, jump), (Verdict::Refuse, 1, jump)]);
    assert!(survey.refusal().is_some());
}

#[test]
fn a_segment_that_does_not_continue_the_one_before_it_is_refused() {
    let (image, _) = sealed();
    let refused = |last: &Image| {
        let survey = look(&log_of(&[&image, last]));
        let refused = survey.findings.iter().filter(|f| f.verdict == Verdict::Refuse && f.path == path(2));
        refused.map(|f| f.reason.clone()).collect::<Vec<_>>()
    };
    let (mut of_another, mut in_another) = (image.successor(), image.successor());
    of_another.header.predecessor.salt ^= 1;
    in_another.header.wal_id ^= 1;
    for last in [of_another, in_another] {
        assert_eq!(refused(&last), ["does not continue segment 1"]);
    }
    let [early, next, later] = [3, 4, 14].map(|lsn| refused(&image.follow(lsn, image.state.clone())));
    assert_eq!(early, ["begins at LSN 3, before the end of its predecessor"]);
    assert!(next.is_empty() && later.is_empty(), "a header may declare a jump: {later:?}");
}

#[test]
fn what_is_wrong_with_the_copies_of_a_header_is_told() {
    let image = Image::first();
    let found = |harm: &dyn Fn(&Sim)| {
        let (sim, mut findings) = (log_of(&[&image]), Vec::new());
        harm(&sim);
        let is_open = survey::open(&sim, Path::new(DIR), 1, &mut findings).unwrap().is_some();
        let verdicts: Vec<_> = findings.iter().map(|f| (f.verdict, f.position)).collect();
        (is_open, verdicts, findings.last().map(|f| f.reason.clone()).unwrap_or_default())
    };
    let fail = |sim: &Sim, from: u64| sim.fail_reads(&path(1), from..2 * PAGE).unwrap();
    let unreadable = [0, PAGE].map(|copy| (Verdict::Unreadable, copy)).to_vec();
    let (is_open, verdicts, _) = found(&|sim: &Sim| fail(sim, 0));
    assert_eq!((is_open, verdicts), (false, unreadable));
    let wrong = [0, PAGE].map(|copy| (Verdict::Refuse, copy)).to_vec();
    let (is_open, verdicts, _) = found(&|sim: &Sim| [0, PAGE].iter().for_each(|copy| flip(sim, 1, copy + 20)));
    assert_eq!((is_open, verdicts), (false, wrong));
    let (is_open, verdicts, _) = found(&|sim: &Sim| {
        flip(sim, 1, 20);
        fail(sim, PAGE);
    });
    assert_eq!((is_open, verdicts), (false, vec![(Verdict::Refuse, 0), (Verdict::Unreadable, PAGE)]));

    let other = SegmentHeader { retired_below: 1, ..image.header }.encode();
    let copy = |bytes: &mut Vec<u8>| bytes[HEADER_BYTES..2 * HEADER_BYTES].copy_from_slice(&other);
    let (is_open, verdicts, reason) = found(&|sim: &Sim| sim.damage(&path(1), copy).unwrap());
    assert_eq!((is_open, verdicts), (true, vec![(Verdict::Report, PAGE)]));
    assert_eq!(reason, "the two header copies differ");
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32 / 4).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn what_was_read_is_not_read_again() {
    const LEN: usize = 8192;
    let bytes = pattern(LEN);
    // The file may be shorter than what may be looked at.
    for (limit, expected) in [(8192, vec![(0, LEN)]), (10_000, vec![(0, 10_000), (8192, 10_000 - LEN)])] {
        let asked = Arc::new(Asked::new(bytes.clone()));
        let mut window = Window::new(asked.clone(), limit);
        for (position, len) in
            [(0, 96), (0, 96), (8, 96), (4000, 200), (8096, 96), (limit, 8), (limit + 8, 96), (0, 8), (8000, 8)]
        {
            let from = LEN.min(position as usize);
            assert_eq!(window.bytes(position, len), &bytes[from..LEN.min(from + len)], "{position}");
        }
        assert_eq!(asked.reads(), expected, "limit {limit}");
    }
}

#[test]
fn a_window_shows_what_the_file_has_wherever_it_is_moved() {
    const MIB: usize = 1 << 20;
    let bytes = pattern(3 * MIB);
    let limit = 3 * MIB - 4096;
    // A read may give less than it was asked for.
    for most in [usize::MAX, 1000] {
        let asked = Arc::new(Asked { most, ..Asked::new(bytes.clone()) });
        let mut window = Window::new(asked.clone(), limit as u64);
        for position in [8, MIB - 50, MIB + 2000, 5 * MIB / 2, limit - 100, 100, 0] {
            assert!(window.bytes(position as u64, 100) == &bytes[position..position + 100], "{most}, {position}");
        }
        let furthest = asked.reads().into_iter().map(|(position, len)| position as usize + len).max();
        assert_eq!(furthest, Some(limit), "looks no further than it is told");
    }
}

#[test]
fn what_cannot_be_read_is_shown_as_zeros_and_nothing_else_is() {
    let mut bytes = pattern(4 * PAGE as usize);
    let sim = Sim::new(1);
    sim.create_dir_all(Path::new(DIR)).unwrap();
    let file = sim.create_new(&path(1)).unwrap();
    file.write_at(0, &[IoSlice::new(&bytes)]).unwrap();
    sim.fail_reads(&path(1), PAGE..2 * PAGE).unwrap();
    bytes[PAGE as usize..2 * PAGE as usize].fill(0);
    let mut window = Window::new(file, 4 * PAGE);
    assert!(window.bytes(100, 4 * PAGE as usize) == &bytes[100..]);
    for (range, expected) in [
        (100..PAGE, false),
        (100..PAGE + 1, true),
        (PAGE + 8..PAGE + 16, true),
        (2 * PAGE - 1..4 * PAGE, true),
        (2 * PAGE..4 * PAGE, false),
    ] {
        assert_eq!(window.is_unreadable(&range), expected, "{range:?}");
    }
}

/// What the last segment says of retired segments, where `RetiredBelow` follows a damaged frame, or is damaged itself;
/// what is damaged may be known to be synced, or lie where all was synced.
fn retired_below(is_built: bool, is_synced: bool, in_pad: bool) -> u64 {
    let mut image = Image::first();
    image.entry(&owned());
    let mut damaged = image.entry(&block(0));
    if is_built {
        image.header.built_end = image.end();
    }
    if is_synced && !in_pad {
        image.synced = 2;
    }
    let retired = image.entry(&Entry::RetiredBelow { segment: 9, lsn: 2 });
    if in_pad {
        damaged = retired;
    }
    if is_synced {
        image.synced = 3;
        image.entry(&Entry::Idle);
    }
    let sim = log_of(&[&image]);
    flip(&sim, 1, damaged + if in_pad { PAGE - 1 } else { FRAME_HEADER as u64 });
    witness(&opened(&sim, 1)).retired_below
}

#[test]
fn what_lies_behind_a_torn_frame_retires_nothing() {
    assert_eq!(retired_below(false, false, false), 0, "torn");
    assert_eq!(retired_below(false, true, false), 9, "damaged, but no tear");
    assert_eq!(retired_below(true, false, false), 9, "damaged where all was synced");
    assert_eq!(retired_below(false, false, true), 0, "torn itself");
    assert_eq!(retired_below(false, true, true), 9, "its pad alone is damaged");
}
