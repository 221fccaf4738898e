//! What the fuzz targets and `tests/fuzz_smoke.rs` do with their bytes: every decoder of bytes that come from a disk, a
//! broker or a user.
//!
//! Nothing may panic. What is decoded and encoded again must be the same; checksums are made right first where they
//! would keep the bytes from getting anywhere.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/crash_world/mod.rs"]
mod crash_world;
#[path = "lives.rs"]
mod lives;

use bytes::Bytes;
use forebay::config::load::{Sources, load};
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::kafka::tenure::{Acked, Committed, Metadata};
use forebay::kafka::wire::batches::{HEADER, walk};
use forebay::record::Partition;
use forebay::record::batch;
use forebay::record::batch::unpack::unpack;
use forebay::wal::Entry;
use forebay::wal::format::footer;
use forebay::wal::format::frame::{FRAME_HEADER, FrameHeader, Kind};
use forebay::wal::format::header::{HEADER_BYTES, SegmentHeader};
use forebay::wal::format::state::State;
use forebay::wal::inspect::{dump, inspect};
use forebay::wal::segment::wal_name;
pub use lives::{log_life, sink_receipt};
use std::io::IoSlice;
use std::path::{Path, PathBuf};

/// Salt of the frames that [`frame_decode`] makes right.
pub const SALT: u64 = 0;

/// A frame header.
pub fn frame_decode(data: &[u8]) {
    let _ = FrameHeader::decode(data, SALT, 0);
    let Some(mut bytes) = data.first_chunk::<FRAME_HEADER>().copied() else {
        return;
    };
    bytes[..4].copy_from_slice(b"FBF1");
    let crc = crc32fast::hash(&[&SALT.to_le_bytes()[..], &bytes[..FRAME_HEADER - 4]].concat());
    bytes[FRAME_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    let position = u64::from_le_bytes(*bytes[24..].first_chunk().unwrap());
    if let Ok(header) = FrameHeader::decode(&bytes, SALT, position) {
        assert_eq!(header.encode(SALT), bytes);
        assert!(header.end() >= header.position);
    }
}

/// A segment header.
pub fn header_decode(data: &[u8]) {
    let _ = SegmentHeader::decode(data);
    let mut page = [0; HEADER_BYTES];
    let len = data.len().min(HEADER_BYTES - 4);
    page[..len].copy_from_slice(&data[..len]);
    page[..8].copy_from_slice(b"FOREBAYW");
    let crc = crc32fast::hash(&page[..HEADER_BYTES - 4]);
    page[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    if let Ok(header) = SegmentHeader::decode(&page) {
        assert_eq!(header.encode(), page);
    }
}

/// The payload of a `State`.
pub fn state_decode(data: &[u8]) {
    if let Ok(state) = State::decode(data) {
        let mut bytes = Vec::new();
        state.encode(&mut bytes).unwrap();
        assert_eq!(State::decode(&bytes).unwrap(), state);
    }
}

/// The payload of any other frame; the first byte chooses the kind.
pub fn entry_decode(data: &[u8]) {
    let Some((kind, payload)) = data.split_first() else {
        return;
    };
    let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
    let partition = Partition { topic: 1, number: 2 };
    let header = FrameHeader { partition, first: 3, next: 4, ..FrameHeader::new(kind) };
    let Ok(Some(entry)) = Entry::decode(&header, &Bytes::copy_from_slice(payload)) else {
        return;
    };
    assert_eq!(entry.kind(), kind);
    let mut again = Vec::new();
    let header = entry.encode(&mut again).unwrap();
    if kind != Kind::Block && header.payload_len > 0 {
        assert_eq!(again, payload);
    }
}

/// The payload of a `Footer`.
pub fn footer_decode(data: &[u8]) {
    if let Ok(index) = footer::decode(data) {
        let mut again = Vec::new();
        footer::encode(&index, &mut again).unwrap();
        assert_eq!(again, data);
    }
}

/// A repair file: as it is, and with its checksums made right.
pub fn repair_decode(data: &[u8]) {
    use forebay::wal::repair::format::{REPAIR_HEADER, decode, encode};
    let _ = decode(data);
    if data.len() < REPAIR_HEADER + FRAME_HEADER {
        return;
    }
    let mut sealed = data.to_vec();
    let (head, frame) = sealed.split_at_mut(REPAIR_HEADER);
    let crc = crc32fast::hash(&head[..REPAIR_HEADER - 4]);
    head[REPAIR_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    let (header, payload) = frame.split_at_mut(FRAME_HEADER);
    let length = u32::from_le_bytes(*header[8..].first_chunk().unwrap()) as usize;
    if let Some(payload) = payload.get(..length) {
        header[84..88].copy_from_slice(&batch::payload_crc(payload).to_le_bytes());
    }
    let crc = crc32fast::hash(&[&head[32..40], &header[..FRAME_HEADER - 4]].concat());
    header[FRAME_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    if let Ok((target, header, payload)) = decode(&sealed) {
        assert_eq!(encode(&target, &header, payload.len() as u32), sealed[..REPAIR_HEADER + FRAME_HEADER]);
    }
}

/// The payload of a `Block`.
pub fn batch_records(data: &[u8]) {
    let walk = |payload: &[u8]| {
        for record in batch::records(payload).map_while(Result::ok) {
            assert_eq!(record.headers.iter().count(), record.headers.len());
        }
    };
    walk(data);
    if let Ok(plain) = batch::unpacked(data) {
        walk(&plain);
    }
    let _ = batch::check(data);
    let _ = batch::payload_crc(data);
}

/// What a broker answers, as it is, and again with the checksums of all batches made right.
pub fn wire_batches(data: &[u8]) {
    let take = |data: &[u8]| {
        let walked = walk(&Bytes::copy_from_slice(data), 0, -1, Vec::new());
        let mut before = 0;
        for batch in &walked.batches {
            assert!(before + HEADER <= batch.from && batch.from <= batch.to && batch.to <= data.len());
            assert!(batch.base <= batch.last && batch.last < walked.next);
            before = batch.to;
        }
    };
    take(data);
    let (mut bytes, mut at) = (data.to_vec(), 0);
    while let Some(whole) = bytes.get_mut(at..).filter(|rest| rest.len() > HEADER) {
        let end = 12 + u32::from_be_bytes(*whole[8..].first_chunk().unwrap()) as usize;
        let Some(batch) = whole.get_mut(..end).filter(|batch| batch.len() >= HEADER) else { break };
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        at += end;
    }
    take(&bytes);
}

/// The packed records of a batch; the first byte is the codec.
pub fn wire_unpack(data: &[u8]) {
    if let Some((codec, packed)) = data.split_first() {
        let _ = unpack(*codec, packed, &mut Vec::new());
    }
}

/// The words stored with a commit.
pub fn commit_metadata(data: &[u8]) {
    let _ = Committed::read(Some(0), data);
    if let Ok(Some(metadata)) = Metadata::parse(data)
        && let Ok(text) = metadata.encode()
    {
        assert_eq!(Metadata::parse(text.as_bytes()), Ok(Some(metadata)));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(acked) = Acked::parse(text)
    {
        assert_eq!(Acked::parse(&acked.to_string()), Ok(acked));
    }
}

/// A whole segment, the only one of its log: what recovery, `wal check` and `wal dump` read. As it is, and again with
/// all checksums made right.
pub fn segment_scan(data: &[u8]) {
    scan(data);
    let mut sealed = data.to_vec();
    reseal(&mut sealed);
    scan(&sealed);
}

fn scan(data: &[u8]) {
    let (disk, dir) = (Sim::new(0), Path::new("/wal"));
    disk.create_dir_all(dir).unwrap();
    let file = disk.create_new(&dir.join(wal_name(1))).unwrap();
    file.write_at(0, &[IoSlice::new(data)]).unwrap();
    let _ = inspect(&disk, dir);
    let _ = dump(&disk, dir, 1, &mut |_| true);
}

/// Makes the checksums of both header pages and of everything that looks like a frame right.
fn reseal(bytes: &mut [u8]) {
    if bytes.len() < 2 * HEADER_BYTES {
        return;
    }
    let salt = bytes[40..48].to_vec();
    for page in bytes[..2 * HEADER_BYTES].chunks_exact_mut(HEADER_BYTES) {
        let crc = crc32fast::hash(&page[..HEADER_BYTES - 4]);
        page[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    }
    for at in (2 * HEADER_BYTES..bytes.len().saturating_sub(FRAME_HEADER)).step_by(8) {
        let (header, rest) = bytes[at..].split_at_mut(FRAME_HEADER);
        if header[..4] != *b"FBF1" {
            continue;
        }
        let payload_len = u32::from_le_bytes(*header[8..].first_chunk().unwrap()) as usize;
        if let Some(payload) = rest.get(..payload_len) {
            header[84..88].copy_from_slice(&batch::payload_crc(payload).to_le_bytes());
        }
        let crc = crc32fast::hash(&[&salt[..], &header[..FRAME_HEADER - 4]].concat());
        header[FRAME_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The configuration file.
pub fn config_load(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let environment = vec![("FOREBAY_SINK__DIR".to_owned(), text.clone())];
    let file = Some((PathBuf::from("forebay.toml"), text.clone()));
    if let Ok(loaded) = load(&Sources { file, ..Sources::default() }) {
        let _ = loaded.rows();
    }
    let _ = load(&Sources { environment, set: vec![text], ..Sources::default() });
}

/// Takes any bytes, never panics.
pub type Decoder = fn(&[u8]);

/// All of them, by the name of their target.
pub const ALL: [(&str, Decoder); 14] = [
    ("frame_decode", frame_decode),
    ("header_decode", header_decode),
    ("state_decode", state_decode),
    ("entry_decode", entry_decode),
    ("footer_decode", footer_decode),
    ("repair_decode", repair_decode),
    ("batch_records", batch_records),
    ("wire_batches", wire_batches),
    ("wire_unpack", wire_unpack),
    ("commit_metadata", commit_metadata),
    ("segment_scan", segment_scan),
    ("config_load", config_load),
    ("log_life", log_life),
    ("sink_receipt", sink_receipt),
];
