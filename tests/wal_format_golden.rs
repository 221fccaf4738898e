//! `wal_format.md` and the code say the same: every number in its tables, every byte of its worked example.
//!
//! A failure of `the_worked_example_is_what_is_written` prints the dump that the encoders give.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod wal_format_golden_doc;

use bytes::Bytes;
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::batch::{self, BatchBuilder, RecordRef, payload_crc, records};
use forebay::record::{Block, BlockHeader, Partition, TopicId};
use forebay::wal::format::footer::{self, IndexEntry};
use forebay::wal::format::frame::{FRAME_HEADER, FRAME_MAGIC, FrameHeader, Kind};
use forebay::wal::format::header::{HEADER_BYTES, Predecessor, SegmentHeader, VERSION};
use forebay::wal::format::{ALIGN, FRAMES_START, MAX_PAYLOAD, PAGE};
use forebay::wal::inspect::inspect;
use forebay::wal::recovery::recover;
use forebay::wal::segment::wal_name;
use forebay::wal::{
    Delivery, Disowned, Entry, Options, PartitionState, PlanRange, State, StoredReceipt, TenureRange, Topic,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use wal_format_golden_doc::fields::{self, Type};
use wal_format_golden_doc::{dump, render, table, text};

const DIR: &str = "/wal";
const SEGMENT: u64 = 64 << 10;
const P: Partition = Partition { topic: 1, number: 3 };
const TIME: i64 = 1_700_000_000_000;

/// The offset, key, value and headers of the example.
fn example_block() -> Entry {
    let mut builder = BatchBuilder::new(Vec::new(), 100);
    let headers: [batch::HeaderRef<'_>; 1] = [(b"source", Some(b"shop-7"))];
    let first = RecordRef {
        offset: 100,
        timestamp: TIME,
        key: Some(b"order-1"),
        value: Some(b"{\"total\":12}"),
        headers: &headers,
    };
    builder.push(&first);
    let (timestamp, value) = (TIME + 5, Some(&b"{\"total\":30}"[..]));
    builder.push(&RecordRef { offset: 101, timestamp, key: None, value, headers: &[] });
    let encoded = builder.finish(102, 4);
    let header = BlockHeader {
        partition: P,
        first: 100,
        next: 102,
        leader_epoch: 4,
        tenure: 1,
        count: encoded.count,
        digest: encoded.digest,
        payload_crc: encoded.payload_crc,
    };
    Entry::Block(Block { header, payload: Bytes::from(encoded.buffer) })
}

/// The detail of a file sink's receipt: an open file of 62 bytes whose last page begins with the block at 100.
fn example_detail() -> Vec<u8> {
    let mut detail = vec![1, 0];
    detail.extend_from_slice(&62_u64.to_le_bytes());
    detail.extend_from_slice(&0x1234_5678_u32.to_le_bytes());
    detail.extend_from_slice(&100_i64.to_le_bytes());
    detail.extend_from_slice(&0_u64.to_le_bytes());
    detail.extend_from_slice(&0_u32.to_le_bytes());
    detail.extend_from_slice(&1_u16.to_le_bytes());
    detail.push(b'o');
    detail
}

/// The first two segments of a log written by the real writer: four groups, sealed by a roll.
fn example() -> (Sim, Vec<u8>, Vec<u8>) {
    let sim = Sim::new(1);
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    (options.segment_bytes, options.seed) = (SEGMENT, Some(2026));
    let mut writer = recover(&storage, &options).unwrap().writer;
    while writer.rack().work(&mut || {}).unwrap() {}
    let id = TopicId(*b"0123456789abcdef");
    let topic = Entry::Topic { number: 1, name: "orders".into(), id };
    let owned = Entry::Owned { partition: P, tenure: 1, first: 100, next: 100, acked_entries: String::new() };
    let confirmed = Entry::Confirmed { partition: P, tenure: 1, next: 102 };
    let delivered = Entry::Delivered {
        route: 0,
        partition: P,
        first: 100,
        next: 102,
        through_lsn: 3,
        keep_from: Some(100),
        detail: example_detail(),
    };
    assert_eq!(writer.append(&[topic, owned]).unwrap(), 2);
    assert_eq!(writer.append(&[example_block()]).unwrap(), 1);
    assert_eq!(writer.append(&[confirmed, delivered]).unwrap(), 2);
    writer.idle().unwrap();
    assert!(writer.roll().unwrap());
    drop(writer);
    let files = sim.files();
    let read = |number| files[&Path::new(DIR).join(wal_name(number))].clone();
    (sim.kill(), read(1), read(2))
}

fn assert_dump(name: &str, bytes: &[u8], end: usize) {
    let document = text();
    let written = render::segment(&document, bytes, end);
    assert!(wal_format_golden_doc::bytes(&written) == bytes, "the renderer itself is wrong");
    let found = dump(&document, name);
    assert!(wal_format_golden_doc::bytes(&found) == bytes, "bytes of dump {name} differ; written is:\n{written}");
    assert!(found == written, "words of dump {name} differ; written is:\n{written}");
}

#[test]
fn the_worked_example_is_what_is_written() {
    let (_, first, second) = example();
    let successor = SegmentHeader::decode(&second[..HEADER_BYTES]).unwrap();
    assert_dump("segment", &first, successor.predecessor.end_position as usize);
    assert_dump("successor", &second[..HEADER_BYTES], HEADER_BYTES);
}

#[test]
fn the_documents_bytes_are_a_log_without_damage() {
    let document = text();
    let (sim, _, _) = example();
    let bytes = wal_format_golden_doc::bytes(&dump(&document, "segment"));
    let path = Path::new(DIR).join(wal_name(1));
    sim.damage(&path, |old| *old = bytes).unwrap();
    let overview = inspect(&sim, Path::new(DIR)).unwrap();
    assert!(!overview.is_damaged());
}

/// Every frame of a segment: its header, the header's bytes, its payload.
fn frames(bytes: &[u8], header: &SegmentHeader, end: u64) -> Vec<(FrameHeader, Vec<u8>, Vec<u8>)> {
    let (mut at, mut frames) = (FRAMES_START, Vec::new());
    while at < end {
        let place = at as usize;
        let raw = bytes[place..place + FRAME_HEADER].to_vec();
        let frame = FrameHeader::decode(&raw, header.salt, at).unwrap();
        let payload = &bytes[place + FRAME_HEADER..][..frame.payload_len as usize];
        frames.push((frame, raw, payload.to_vec()));
        at = frame.end();
    }
    frames
}

/// The formulas in the document's words, computed here once more.
#[test]
fn checksums_are_computed_as_described() {
    let (_, first, second) = example();
    let header = SegmentHeader::decode(&first[..HEADER_BYTES]).unwrap();
    let successor = SegmentHeader::decode(&second[..HEADER_BYTES]).unwrap();
    let frames = frames(&first, &header, successor.predecessor.end_position);
    let mut all_headers = Vec::new();
    for (frame, raw, payload) in &frames {
        let salted = [&header.salt.to_le_bytes()[..], &raw[..92]].concat();
        assert_eq!(crc32fast::hash(&salted).to_le_bytes(), raw[92..]);
        assert_eq!(crc32fast::hash(payload), frame.payload_crc);
        all_headers.extend_from_slice(&raw[..92]);
    }
    assert_eq!(crc32fast::hash(&all_headers), successor.predecessor.digest);
    assert_eq!(crc32fast::hash(&first[..4092]).to_le_bytes(), first[4092..4096]);

    let (block, _, payload) = frames.iter().find(|(frame, ..)| frame.kind == Kind::Block).unwrap();
    assert_eq!(crc32c::crc32c(&payload[21..]).to_be_bytes(), payload[17..21]);
    let digested = [&100_i64.to_le_bytes()[..], &TIME.to_le_bytes(), &payload[61..]].concat();
    assert_eq!(crc32fast::hash(&digested), block.digest);
    assert_eq!(records(payload).count(), 2);

    let long: Vec<u8> = (0..(2 << 20) + 5_usize).map(|i| (i % 251) as u8).collect();
    let pieces = [&long[..1 << 20], &long[1 << 20..2 << 20], &long[2 << 20..]];
    let list: Vec<u8> = pieces.iter().flat_map(|piece| crc32fast::hash(piece).to_le_bytes()).collect();
    assert_eq!(payload_crc(&long), crc32fast::hash(&list));
}

/// Where the last frame of each group ends and no other.
#[test]
fn each_group_ends_on_a_page_and_carries_what_was_synced_before() {
    let (_, first, second) = example();
    let header = SegmentHeader::decode(&first[..HEADER_BYTES]).unwrap();
    let successor = SegmentHeader::decode(&second[..HEADER_BYTES]).unwrap();
    let found = frames(&first, &header, successor.predecessor.end_position);
    let shape: Vec<_> = found.iter().map(|(f, ..)| (f.kind, f.lsn, f.synced_through, f.end() % PAGE == 0)).collect();
    let expected = [
        (Kind::State, 0, 0, true),
        (Kind::State, 0, 0, true),
        (Kind::Topic, 1, 0, false),
        (Kind::Owned, 2, 0, true),
        (Kind::Block, 3, 2, true),
        (Kind::Confirmed, 4, 3, false),
        (Kind::Delivered, 5, 3, true),
        (Kind::Idle, 6, 5, true),
        (Kind::Footer, 6, 6, true),
    ];
    assert_eq!(shape, expected);
    // The States of the successor repeat the last LSN before them, and say that it is synced.
    let states = frames(&second, &successor, successor.built_end);
    let shape: Vec<_> = states.iter().map(|(f, ..)| (f.kind, f.lsn, f.synced_through)).collect();
    assert_eq!(shape, [(Kind::State, 6, 6); 2]);
}

#[test]
fn limits_are_the_constants() {
    let limit = |name: &str, value: u64| (name.to_owned(), value.to_string());
    let entry = IndexEntry::of(&FrameHeader::new(Kind::Block));
    let mut index = Vec::new();
    footer::encode(&[entry], &mut index).unwrap();
    let expected: BTreeMap<_, _> = [
        limit("page", PAGE),
        limit("segment header", HEADER_BYTES as u64),
        limit("first frame", FRAMES_START),
        limit("frame header", FRAME_HEADER as u64),
        limit("alignment", ALIGN),
        limit("largest payload", u64::from(MAX_PAYLOAD)),
        limit("checksum piece", batch::PIECE as u64),
        limit("footer entry", index.len() as u64 - 8),
        limit("record batch header", batch::HEADER_LEN as u64),
        limit("version", u64::from(VERSION)),
    ]
    .into();
    let documented: BTreeMap<_, _> =
        table(&text(), "limits").into_iter().map(|row| (row[0].clone(), row[1].replace(' ', ""))).collect();
    assert_eq!(documented, expected);
    assert_eq!(FRAME_MAGIC.to_le_bytes(), *b"FBF1");
}

/// Fields of the two headers that have one value, and their own checksums.
const CONSTANT: [&str; 9] =
    ["magic", "version", "features", "key_id", "codec", "flags", "reserved", "crc", "header_crc"];

/// What a byte table says about `field` must be exactly the bytes that change with it; checksums apart.
fn assert_places(rows: &[Vec<String>], changes: &[(&str, Vec<u8>)], base: &[u8], checksum: usize) {
    let mut at = 0;
    for row in rows {
        let (place, size): (usize, usize) = (row[0].parse().unwrap(), row[1].parse().unwrap());
        assert_eq!(place, at, "{} leaves a hole", row[3]);
        at += size;
        let named: Vec<_> = changes.iter().filter(|(name, _)| *name == row[3]).collect();
        let constant = CONSTANT.contains(&row[3].as_str());
        assert_eq!(named.len(), usize::from(!constant), "field {}", row[3]);
        for (name, changed) in named {
            let differs: Vec<_> = (0..checksum).filter(|i| base[*i] != changed[*i]).collect();
            assert_eq!(differs, (place..place + size).collect::<Vec<_>>(), "place of {name}");
        }
    }
    assert_eq!(at, base.len());
}

#[test]
fn the_frame_header_is_as_tabulated() {
    let base = FrameHeader::new(Kind::Block);
    let change = |set: &dyn Fn(&mut FrameHeader)| {
        let mut header = base;
        set(&mut header);
        header.encode(1).to_vec()
    };
    let changes = [
        ("kind", change(&|h| h.kind = Kind::State)),
        ("payload_len", change(&|h| h.payload_len = u32::MAX)),
        ("pad_len", change(&|h| h.pad_len = u32::MAX)),
        ("lsn", change(&|h| h.lsn = u64::MAX)),
        ("position", change(&|h| h.position = u64::MAX)),
        ("synced_through", change(&|h| h.synced_through = u64::MAX)),
        ("first", change(&|h| h.first = -1)),
        ("next", change(&|h| h.next = -1)),
        ("topic", change(&|h| h.partition.topic = u32::MAX)),
        ("partition", change(&|h| h.partition.number = -1)),
        ("leader_epoch", change(&|h| h.leader_epoch = -1)),
        ("count", change(&|h| h.count = u32::MAX)),
        ("digest", change(&|h| h.digest = u32::MAX)),
        ("tenure", change(&|h| h.tenure = u32::MAX)),
        ("route", change(&|h| h.route = u16::MAX)),
        ("payload_crc", change(&|h| h.payload_crc = u32::MAX)),
    ];
    assert_places(&table(&text(), "frame header"), &changes, &base.encode(1), 92);
}

#[test]
fn the_segment_header_is_as_tabulated() {
    let base = SegmentHeader::default();
    let change = |set: &dyn Fn(&mut SegmentHeader, &mut Predecessor)| {
        let (mut header, mut predecessor) = (base, base.predecessor);
        set(&mut header, &mut predecessor);
        header.predecessor = predecessor;
        header.encode().to_vec()
    };
    let changes = [
        ("wal_id", change(&|h, _| h.wal_id = u128::MAX)),
        ("number", change(&|h, _| h.number = u64::MAX)),
        ("salt", change(&|h, _| h.salt = u64::MAX)),
        ("first_lsn", change(&|h, _| h.first_lsn = u64::MAX)),
        ("retired_below", change(&|h, _| h.retired_below = u64::MAX)),
        ("built_end", change(&|h, _| h.built_end = u64::MAX)),
        ("predecessor number", change(&|_, p| p.number = u64::MAX)),
        ("predecessor salt", change(&|_, p| p.salt = u64::MAX)),
        ("predecessor end_lsn", change(&|_, p| p.end_lsn = u64::MAX)),
        ("predecessor end_position", change(&|_, p| p.end_position = u64::MAX)),
        ("predecessor digest", change(&|_, p| p.digest = u32::MAX)),
    ];
    assert_places(&table(&text(), "segment header"), &changes, &base.encode(), 4092);
}

/// One entry of each kind, every field set, and the values of its payload in the document's words.
fn one_of_each() -> Vec<(Entry, &'static str)> {
    let (tenure, first, next, route) = (7, 8, 9, 10);
    let (partition, text) = (P, || "abc".to_owned());
    let ranges = vec![PlanRange { topic: 11, partition: 12, from: 13, until: 14 }];
    let (keep_from, detail) = (Some(16), vec![17, 18]);
    let block = match example_block() {
        Entry::Block(mut block) => {
            block.header.tenure = tenure;
            Entry::Block(block)
        }
        other => other,
    };
    vec![
        (block, ""),
        (Entry::Empty { partition, tenure, first, next }, ""),
        (Entry::Gap { partition, tenure, first, next, reason: text() }, "reason=\"abc\""),
        (
            Entry::Topic { number: 19, name: text(), id: TopicId([1; 16]) },
            "name=\"abc\" id=01010101010101010101010101010101",
        ),
        (Entry::Owned { partition, tenure, first, next, acked_entries: text() }, "acked_entries=\"abc\""),
        (Entry::Disowned { partition, tenure, first, next }, ""),
        (Entry::Confirmed { partition, tenure, next }, ""),
        (Entry::Returning { partition, tenure, first, next }, ""),
        (Entry::Named { route, partition, name: text() }, "name=\"abc\""),
        (
            Entry::Delivered { route, partition, first, next, through_lsn: 15, keep_from, detail },
            "through_lsn=15 keep_from=16 detail=1112",
        ),
        (Entry::Route { route, name: text() }, "name=\"abc\""),
        (
            Entry::Plan { route, id: 20, time_ms: 21, ranges, blocks: Vec::new() },
            "id=20 time_ms=21 ranges[0].topic=11 ranges[0].partition=12 ranges[0].from=13 ranges[0].until=14",
        ),
        (Entry::PlanDropped { route, id: 22 }, "id=22"),
        (Entry::RetiredBelow { segment: 23, lsn: 24 }, "segment=23 lsn=24"),
        (Entry::Idle, ""),
    ]
}

fn values(described: &[(String, Type)], payload: &[u8]) -> String {
    let leaves = fields::walk(described, payload);
    let told = |leaf: &&fields::Leaf| !leaf.name.contains(' ');
    let shown: Vec<_> = leaves.iter().filter(told).map(|leaf| format!("{}={}", leaf.name, leaf.value)).collect();
    shown.join(" ")
}

fn used_fields(h: &FrameHeader) -> Vec<&'static str> {
    let used = [
        ("first", h.first != 0),
        ("next", h.next != 0),
        ("topic", h.partition.topic != 0),
        ("partition", h.partition.number != 0),
        ("leader_epoch", h.leader_epoch != 0),
        ("count", h.count != 0),
        ("digest", h.digest != 0),
        ("tenure", h.tenure != 0),
        ("route", h.route != 0),
    ];
    used.into_iter().filter(|(_, used)| *used).map(|(name, _)| name).collect()
}

#[test]
fn kinds_their_fields_and_payloads_are_as_tabulated() {
    let document = text();
    let rows = table(&document, "kinds");
    let documented: Vec<_> = rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let coded: Vec<_> = Kind::ALL.iter().map(|kind| ((*kind as u8).to_string(), format!("{kind:?}"))).collect();
    assert_eq!(documented, coded);
    for (entry, expected) in one_of_each() {
        let mut payload = Vec::new();
        let header = entry.encode(&mut payload).unwrap();
        let row = &rows[header.kind as usize - 1];
        let used = used_fields(&header);
        let used = if used.is_empty() { "none".to_owned() } else { used.join(", ") };
        assert_eq!(row[2], used, "header fields of {}", row[1]);
        if header.kind == Kind::Block {
            assert_eq!(row[3], "record batches");
            continue;
        }
        assert_eq!(values(&fields::parse(&row[3]), &payload), expected, "payload of {}", row[1]);
    }
    for kind in [Kind::State, Kind::Footer] {
        assert_eq!(rows[kind as usize - 1][2], "none");
    }
}

#[test]
fn the_state_and_the_footer_are_as_tabulated() {
    let document = text();
    let mut state = State::new(0x1f);
    (state.lsn, state.retired_below, state.kept_lsn) = (2, 3, 4);
    state.topics.insert(5, Topic { name: "t".into(), id: TopicId([6; 16]) });
    state.routes.insert(7, "r".into());
    let ranges = vec![PlanRange { topic: 8, partition: 9, from: 10, until: 11 }];
    state.plans.push(forebay::wal::format::state::OpenPlan { route: 12, id: 13, time_ms: 14, ranges });
    let receipt = Some(StoredReceipt { first: 15, next: 16, keep_from: Some(17), detail: vec![18] });
    let delivery = Delivery { delivered: 19, delivered_lsn: 20, receipt, named: Some("n".into()) };
    let partition = PartitionState {
        tenure: 21,
        tenure_start: 22,
        owned: true,
        admitted: 23,
        acked: 24,
        acked_entries: "e".into(),
        undecided: vec![TenureRange { tenure: 25, first: 26, next: 27 }],
        disowned: vec![Disowned { tenure: 28, first: 29, next: 30, lsn: 31 }],
        gaps: vec![forebay::wal::format::state::GapRange { first: 32, next: 33, reason: "g".into() }],
        delivery: [(34, delivery)].into(),
    };
    state.partitions.insert(Partition { topic: 35, number: 36 }, partition);
    let mut payload = Vec::new();
    state.encode(&mut payload).unwrap();
    let found = values(&fields::parse(&render::described_fields(&document, "see state")), &payload);
    let expected = "wal_id=0000000000000000000000000000001f lsn=2 retired_below=3 kept_lsn=4 topics[0].number=5 \
        topics[0].name=\"t\" topics[0].id=06060606060606060606060606060606 routes[0].route=7 routes[0].name=\"r\" \
        plans[0].route=12 plans[0].id=13 plans[0].time_ms=14 plans[0].ranges[0].topic=8 \
        plans[0].ranges[0].partition=9 plans[0].ranges[0].from=10 plans[0].ranges[0].until=11 \
        partitions[0].topic=35 partitions[0].partition=36 partitions[0].tenure=21 partitions[0].tenure_start=22 \
        partitions[0].owned=1 partitions[0].admitted=23 partitions[0].acked=24 partitions[0].acked_entries=\"e\" \
        partitions[0].undecided[0].tenure=25 partitions[0].undecided[0].first=26 partitions[0].undecided[0].next=27 \
        partitions[0].disowned[0].tenure=28 partitions[0].disowned[0].first=29 partitions[0].disowned[0].next=30 \
        partitions[0].disowned[0].lsn=31 partitions[0].gaps[0].first=32 partitions[0].gaps[0].next=33 \
        partitions[0].gaps[0].reason=\"g\" partitions[0].delivery[0].route=34 \
        partitions[0].delivery[0].delivered=19 partitions[0].delivery[0].delivered_lsn=20 \
        partitions[0].delivery[0].receipt.first=15 partitions[0].delivery[0].receipt.next=16 \
        partitions[0].delivery[0].receipt.keep_from=17 partitions[0].delivery[0].receipt.detail=12 \
        partitions[0].delivery[0].named=\"n\"";
    assert_eq!(found, expected);

    let entry = IndexEntry {
        lsn: 1,
        position: 2,
        length: 3,
        digest: 4,
        topic: 5,
        partition: 6,
        first: 7,
        next: 8,
        tenure: 9,
        count: 10,
    };
    let mut payload = Vec::new();
    footer::encode(&[entry], &mut payload).unwrap();
    let found = values(&fields::parse(&render::described_fields(&document, "see footer")), &payload);
    let fields = "lsn position length digest topic partition first next tenure count".split(' ');
    let expected: Vec<_> = fields.enumerate().map(|(i, name)| format!("blocks[0].{name}={}", i + 1)).collect();
    assert_eq!(found, expected.join(" "));
}

/// Rows of a table in a module's words.
fn source_rows(source: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(source);
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("//! |")).skip(2);
    let cells = |line: &str| line.trim_end_matches('|').split('|').map(|c| c.trim().replace('`', "")).collect();
    lines.map(cells).collect()
}

/// What the modules' tables mean is held by `recovery_table` and by the file sink's own tests.
#[test]
fn the_recovery_table_and_the_detail_of_receipts_are_the_modules() {
    let document = text();
    assert_eq!(table(&document, "recovery"), source_rows("wal/recovery/table.rs"));
    assert_eq!(table(&document, "file detail"), source_rows("sink/file/detail.rs"));
    assert_eq!(table(&document, "repair file"), source_rows("wal/repair/format.rs"));
}

/// A file of the log's directory that the document does not name would be refused, and the other way round.
#[test]
fn file_names_are_the_ones_listed() {
    use forebay::wal::segment::{FileName, classify};
    let known = [FileName::Spare, FileName::Unfinished, FileName::Torn, FileName::Repair, FileName::Lock];
    for row in table(&text(), "files") {
        let name = row[0].replace("<n>", "00000000000000000007").replace('*', "x");
        match row[1].as_str() {
            "segment" => assert_eq!(classify(&name), FileName::Segment(7)),
            "directory" => assert!(name.ends_with('/')),
            kind => {
                let found = classify(&name);
                assert!(known.contains(&found) && format!("{found:?}").to_lowercase() == kind, "{name}: {found:?}");
            }
        }
    }
}
