//! The fuzz targets' decoders on a fixed number of inputs: the worked example of `wal_format.md` and the seeds, damaged,
//! and plain noise. Nothing panics. The same inputs every time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../fuzz/decoders.rs"]
mod decoders;
mod wal_format_golden_doc;

use forebay::wal::format::FRAMES_START;
use forebay::wal::format::frame::{FRAME_HEADER, FrameHeader, Kind};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

const ROUNDS: usize = 4000;
const SEGMENT_ROUNDS: usize = 150;
const LIFE_ROUNDS: usize = 150;

/// A small generator (`SplitMix64`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// A few changes: bits, bytes at their limits, numbers at their limits, a cut, a repeated piece.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = bytes.len().min(at + 8);
            match self.below(6) {
                _ if bytes.is_empty() => bytes.push(self.next() as u8),
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][self.below(6)],
                2 => bytes[at..end].fill([0, 0xff][self.below(2)]),
                3 => bytes[at] = self.next() as u8,
                4 => bytes.truncate(at),
                _ => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
    }
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The frames of the example: kind, header, payload.
fn example_frames(segment: &[u8]) -> Vec<(Kind, Vec<u8>, Vec<u8>)> {
    let number = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut frames) = (FRAMES_START as usize, Vec::new());
    while let Some(kind) = Kind::from_number(segment[at + 4]) {
        let (payload, pad) = (number(at + 8), number(at + 12));
        let (header, rest) = segment[at..].split_at(FRAME_HEADER);
        frames.push((kind, header.to_vec(), rest[..payload].to_vec()));
        at += FRAME_HEADER + payload + pad;
    }
    frames
}

/// What the example of the format's description gives a target; what is behind it in the segment is zeros.
fn examples(target: &str) -> Vec<Vec<u8>> {
    let mut segment = wal_format_golden_doc::golden_segment();
    let frames = example_frames(&segment);
    let used = segment.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    segment.truncate(used.next_multiple_of(4096));
    let payloads = |wanted: Kind| frames.iter().filter(move |(kind, ..)| *kind == wanted).map(|(.., p)| p.clone());
    let entry = |(kind, _, payload): &(Kind, Vec<u8>, Vec<u8>)| [&[*kind as u8 - 1], &payload[..]].concat();
    let salt = u64::from_le_bytes(segment[40..48].try_into().unwrap());
    let repair = |(_, header, payload): &(Kind, Vec<u8>, Vec<u8>)| {
        use forebay::wal::repair::format::{Target, encode, pad_of};
        let position = u64::from_le_bytes(header[24..32].try_into().unwrap());
        let header = FrameHeader::decode(header, salt, position).unwrap();
        let head = encode(&Target { wal_id: 1, segment: 1, salt }, &header, payload.len() as u32);
        let pad = vec![0; pad_of(payload.len() as u32) as usize];
        [&head[..], payload, &pad].concat()
    };
    match target {
        "frame_decode" => frames.iter().map(|(_, header, _)| header.clone()).collect(),
        "header_decode" => vec![segment[..4096].to_vec()],
        "state_decode" => payloads(Kind::State).collect(),
        "entry_decode" => frames.iter().map(entry).collect(),
        "footer_decode" => payloads(Kind::Footer).collect(),
        "repair_decode" => frames.iter().filter(|(kind, ..)| *kind == Kind::Block).map(repair).collect(),
        "batch_records" => payloads(Kind::Block).flat_map(|plain| [compressed(&plain), plain]).collect(),
        // A block's payload is a batch as Kafka has it.
        "wire_batches" => vec![payloads(Kind::Block).collect::<Vec<_>>().concat()],
        "wire_unpack" => (1..=4).map(|codec| packed(codec, b"what is said twice is said twice")).collect(),
        "segment_scan" => vec![segment],
        "log_life" => (0..4_u8).map(|life| (0..48).map(|i: u8| i.wrapping_mul(37 + 2 * life)).collect()).collect(),
        "sink_receipt" => (0..3_u8).map(sink_receipt).collect(),
        _ => Vec::new(),
    }
}

fn packed(codec: u8, bytes: &[u8]) -> Vec<u8> {
    let mut packed = vec![codec];
    match codec {
        1 => flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast()).write_all(bytes).unwrap(),
        2 => packed.extend(snap::raw::Encoder::new().compress_vec(bytes).unwrap()),
        3 => lz4_flex::frame::FrameEncoder::new(&mut packed).auto_finish().write_all(bytes).unwrap(),
        _ => packed.extend(zstd::stream::encode_all(bytes, 1).unwrap()),
    }
    packed
}

/// The batch with its records compressed; its checksum is that of before.
fn compressed(batch: &[u8]) -> Vec<u8> {
    let (header, records) = batch.split_at(forebay::record::batch::HEADER_LEN);
    let mut bytes = [header, &packed(4, records)[1..]].concat();
    let length = bytes.len() as u32 - 12;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] |= 4;
    bytes
}

/// Inputs that a target understands, from `fuzz/seeds/TARGET`.
fn good_inputs(target: &str) -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    if let Ok(files) = std::fs::read_dir(root("fuzz/seeds").join(target)) {
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        inputs.extend(paths.iter().map(|path| std::fs::read(path).unwrap()));
    }
    assert!(!inputs.is_empty(), "no input for {target}");
    inputs
}

/// What the file sink says of the file that the target makes, in each of its states.
fn sink_receipt(state: u8) -> Vec<u8> {
    let files = [2, 2, 1][usize::from(state)];
    let (len, name) = (usize::from(files) * 16, "topic=t/partition=0/00000000000000000000.txt");
    let crc = crc32fast::hash(&vec![b'x'; len]);
    let tail = [&0_i64.to_le_bytes()[..], &0_u64.to_le_bytes(), &0_u32.to_le_bytes()].concat();
    let fixed = [&[files, 1, state][..], &(len as u64).to_le_bytes(), &crc.to_le_bytes(), &tail].concat();
    [&fixed[..], &(name.len() as u16).to_le_bytes(), name.as_bytes()].concat()
}

/// The fuzzer begins with them, and gets nowhere without: none of its bytes would be a frame. With `FOREBAY_WRITE_SEEDS`
/// they are written.
#[test]
fn the_example_is_among_the_seeds() {
    let writes = std::env::var_os("FOREBAY_WRITE_SEEDS").is_some();
    for (target, _) in decoders::ALL {
        let dir = root("fuzz/seeds").join(target);
        for (at, example) in examples(target).iter().enumerate() {
            let path = dir.join(format!("example-{at}"));
            if writes {
                std::fs::create_dir_all(&dir).unwrap();
                std::fs::write(&path, example).unwrap();
            }
            let seed = std::fs::read(&path).unwrap_or_default();
            assert!(seed == *example, "{} is out of date: write it with FOREBAY_WRITE_SEEDS=1", path.display());
        }
        assert!(!good_inputs(target).is_empty());
    }
}

fn smoke(target: &str, rounds: usize) {
    let decode = decoders::ALL.iter().find(|(name, _)| *name == target).unwrap().1;
    let good = good_inputs(target);
    let mut random = Random(target.bytes().map(u64::from).sum());
    for input in &good {
        decode(input);
    }
    for round in 0..rounds {
        let mut input = good[random.below(good.len())].clone();
        if round % 4 == 0 {
            let len = random.below(300);
            input = random.noise(len);
        } else {
            random.mutate(&mut input);
        }
        decode(&input);
    }
}

/// Damage near the frames' headers: most of a segment is zeros.
#[test]
fn segments() {
    smoke("segment_scan", SEGMENT_ROUNDS);
    let segment = wal_format_golden_doc::golden_segment();
    let used: Vec<_> = (0..segment.len()).filter(|at| segment[*at] != 0).collect();
    let mut random = Random(7);
    for _ in 0..SEGMENT_ROUNDS {
        let mut input = segment.clone();
        for _ in 0..=random.below(3) {
            let at = used[random.below(used.len())];
            let end = (at + [1, 1, 2, 4, 8][random.below(5)]).min(input.len());
            let byte = [0, 1, 0x7f, 0xff, random.next() as u8][random.below(5)];
            input[at..end].fill(byte);
        }
        decoders::segment_scan(&input);
    }
}

#[test]
fn payloads_and_headers() {
    for target in [
        "frame_decode",
        "header_decode",
        "state_decode",
        "entry_decode",
        "footer_decode",
        "batch_records",
        "repair_decode",
        "wire_batches",
        "wire_unpack",
    ] {
        smoke(target, ROUNDS);
    }
}

/// The example's repair file is one: damaged nonsense would test little.
#[test]
fn the_repair_file_is_good() {
    for input in good_inputs("repair_decode") {
        forebay::wal::repair::format::decode(&input).unwrap();
    }
}

#[test]
fn lives_of_a_log() {
    smoke("log_life", LIFE_ROUNDS);
}

#[test]
fn receipts_of_the_file_sink() {
    smoke("sink_receipt", ROUNDS);
}

#[test]
fn commit_metadata() {
    smoke("commit_metadata", ROUNDS);
}

#[test]
fn configuration_files() {
    smoke("config_load", ROUNDS / 4);
}

/// Damaged nonsense would test little: the seeds are what the program reads.
#[test]
fn the_seeds_are_good() {
    use forebay::config::load::{Sources, load};
    use forebay::kafka::tenure::Metadata;
    let read = |path: &str| std::fs::read_to_string(root("fuzz/seeds").join(path)).unwrap();
    assert!(Metadata::parse(read("commit_metadata/ours").as_bytes()).unwrap().is_some());
    let file = Some((PathBuf::from("file.toml"), read("config_load/file.toml")));
    let loaded = load(&Sources { file, ..Sources::default() });
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
}

#[test]
fn the_targets_are_the_decoders() {
    let manifest = std::fs::read_to_string(root("fuzz/Cargo.toml")).unwrap();
    let named: BTreeSet<_> = manifest.split("[[bin]]").skip(1).map(|bin| bin.split('"').nth(1).unwrap()).collect();
    let known: BTreeSet<_> = decoders::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, known);
    for name in known {
        let source = std::fs::read_to_string(root("fuzz/fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(source.contains(&format!("decoders::{name}(data)")), "{name}");
    }
}
