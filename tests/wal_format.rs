//! The format as a property: what is encoded is decoded, any flipped bit is seen, hostile lengths cost nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use forebay::record::batch::payload_crc;
use forebay::record::{Block, BlockHeader, Partition, TopicId};
use forebay::wal::format::MAX_PAYLOAD;
use forebay::wal::format::footer::{self, IndexEntry};
use forebay::wal::format::frame::{FRAME_HEADER, FrameError, FrameHeader, Kind};
use forebay::wal::format::header::{HeaderError, Predecessor, SegmentHeader};
use forebay::wal::format::state::State;
use forebay::wal::{Entry, PlanRange};
use proptest::prelude::*;

fn partition() -> impl Strategy<Value = Partition> {
    (any::<u32>(), any::<i32>()).prop_map(|(topic, number)| Partition { topic, number })
}

fn range() -> impl Strategy<Value = (Partition, u32, i64, i64)> {
    (partition(), any::<u32>(), any::<i64>(), any::<i64>())
}

fn block() -> impl Strategy<Value = Entry> {
    let numbers = (any::<i32>(), any::<u32>(), any::<u32>());
    (range(), numbers, proptest::collection::vec(any::<u8>(), 0..300)).prop_map(|(range, numbers, payload)| {
        let (partition, tenure, first, next) = range;
        let (leader_epoch, count, digest) = numbers;
        let payload_crc = payload_crc(&payload);
        let header = BlockHeader { partition, first, next, leader_epoch, tenure, count, digest, payload_crc };
        Entry::Block(Block { header, payload: Bytes::from(payload) })
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let text = ".{0,40}";
    let route = any::<u16>();
    let plan_range = (any::<u32>(), any::<i32>(), any::<i64>(), any::<i64>())
        .prop_map(|(topic, partition, from, until)| PlanRange { topic, partition, from, until });
    prop_oneof![
        block(),
        range().prop_map(|(partition, tenure, first, next)| Entry::Empty { partition, tenure, first, next }),
        (range(), text).prop_map(|((partition, tenure, first, next), reason)| Entry::Gap {
            partition,
            tenure,
            first,
            next,
            reason
        }),
        (any::<u32>(), text, any::<[u8; 16]>()).prop_map(|(number, name, id)| Entry::Topic {
            number,
            name,
            id: TopicId(id)
        }),
        (range(), text).prop_map(|((partition, tenure, first, next), acked_entries)| Entry::Owned {
            partition,
            tenure,
            first,
            next,
            acked_entries
        }),
        range().prop_map(|(partition, tenure, first, next)| Entry::Disowned { partition, tenure, first, next }),
        range().prop_map(|(partition, tenure, _, next)| Entry::Confirmed { partition, tenure, next }),
        range().prop_map(|(partition, tenure, first, next)| Entry::Returning { partition, tenure, first, next }),
        (route, partition(), text).prop_map(|(route, partition, name)| Entry::Named { route, partition, name }),
        (route, range(), any::<u64>(), any::<Option<i64>>(), proptest::collection::vec(any::<u8>(), 0..50)).prop_map(
            |(route, (partition, _, first, next), through_lsn, keep_from, detail)| Entry::Delivered {
                route,
                partition,
                first,
                next,
                through_lsn,
                keep_from,
                detail
            }
        ),
        (route, text).prop_map(|(route, name)| Entry::Route { route, name }),
        (route, any::<u64>(), any::<i64>(), proptest::collection::vec(plan_range, 0..4))
            .prop_map(|(route, id, time_ms, ranges)| Entry::Plan { route, id, time_ms, ranges, blocks: Vec::new() }),
        (route, any::<u64>()).prop_map(|(route, id)| Entry::PlanDropped { route, id }),
        (any::<u64>(), any::<u64>()).prop_map(|(segment, lsn)| Entry::RetiredBelow { segment, lsn }),
        Just(Entry::Idle),
    ]
}

/// The frame of an entry: header bytes and payload.
fn frame(entry: &Entry, salt: u64, position: u64) -> (FrameHeader, Vec<u8>, Vec<u8>) {
    let mut payload = Vec::new();
    let mut header = entry.encode(&mut payload).unwrap();
    if let Entry::Block(block) = entry {
        payload.extend_from_slice(&block.payload);
    }
    header.position = position;
    header.pad_len = (payload.len().next_multiple_of(8) - payload.len()) as u32;
    (header, header.encode(salt).to_vec(), payload)
}

proptest! {
    #[test]
    fn entries_come_back(entry in entry(), salt: u64, slot in 0_u64..1000) {
        let position = slot * 8;
        let (header, bytes, payload) = frame(&entry, salt, position);
        prop_assert_eq!(header.payload_len as usize, payload.len());
        prop_assert!(FRAME_HEADER as u64 + u64::from(header.payload_len) + u64::from(header.pad_len) <= entry.bytes());
        let decoded = FrameHeader::decode(&bytes, salt, position).unwrap();
        prop_assert_eq!(decoded, header);
        prop_assert_eq!(payload_crc(&payload), decoded.payload_crc);
        let back = Entry::decode(&decoded, &Bytes::from(payload)).unwrap().unwrap();
        prop_assert_eq!(format!("{back:?}"), format!("{entry:?}"));
    }

    #[test]
    fn any_flipped_bit_of_a_frame_is_seen(entry in entry(), salt: u64) {
        let (_, bytes, payload) = frame(&entry, salt, 4096);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(FrameHeader::decode(&bad, salt, 4096).is_err(), "header bit {bit}");
        }
        let crc = payload_crc(&payload);
        for bit in 0..payload.len() * 8 {
            let mut bad = payload.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(payload_crc(&bad) != crc, "payload bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_life_of_the_file_is_never_believed(entry in entry(), salt: u64, other: u64) {
        prop_assume!(salt != other);
        let (_, bytes, _) = frame(&entry, salt, 0);
        prop_assert!(FrameHeader::decode(&bytes, other, 0).is_err());
    }

    #[test]
    fn decoders_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 1_u8..18, salt: u64) {
        let _ = FrameHeader::decode(&bytes, salt, 0);
        let _ = SegmentHeader::decode(&bytes);
        let _ = State::decode(&bytes);
        let _ = footer::decode(&bytes);
        let header = FrameHeader::new(Kind::from_number(kind).unwrap());
        let _ = Entry::decode(&header, &Bytes::from(bytes));
    }

    #[test]
    fn segment_headers_come_back(numbers in any::<[u64; 6]>(), wal_id: u128, digest: u32) {
        let number = numbers[0] % 1000 + 1;
        let header = SegmentHeader {
            wal_id,
            number,
            salt: numbers[1],
            first_lsn: numbers[2] >> 1 | 1,
            retired_below: numbers[3],
            built_end: numbers[4] / 8192 * 4096,
            predecessor: Predecessor { number: number - 1, salt: numbers[5], end_lsn: 5, end_position: 9, digest },
        };
        prop_assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn states_come_back(entries in proptest::collection::vec(entry(), 0..60)) {
        let mut state = State::new(1);
        for (i, entry) in entries.iter().enumerate() {
            // Entries that break a rule change nothing.
            let before = state.clone();
            if state.apply(i as u64 + 1, entry).is_err() {
                prop_assert_eq!(&state, &before);
            }
        }
        let mut bytes = Vec::new();
        state.encode(&mut bytes).unwrap();
        prop_assert_eq!(State::decode(&bytes).unwrap(), state);
    }
}

#[test]
fn hostile_lengths_are_refused_before_memory_is_asked_for() {
    for len in [u64::MAX, u64::MAX / 2, 1 << 40, u64::from(MAX_PAYLOAD) + 1] {
        let mut bytes = vec![0; 64];
        for at in [0, 16, 32, 40] {
            bytes[at..at + 8].copy_from_slice(&len.to_le_bytes());
        }
        assert!(footer::decode(&bytes).is_err());
        assert!(State::decode(&bytes).is_err());
        for kind in [Kind::Topic, Kind::Owned, Kind::Gap, Kind::Named, Kind::Route, Kind::Plan] {
            let header = FrameHeader::new(kind);
            assert!(Entry::decode(&header, &Bytes::from(bytes.clone())).is_err(), "{kind:?}");
        }
    }
    let mut header = FrameHeader::new(Kind::Block);
    header.payload_len = MAX_PAYLOAD + 8;
    assert!(FrameHeader::decode(&header.encode(1), 1, 0).is_err());
}

#[test]
fn an_index_of_blocks_comes_back() {
    let header = FrameHeader { lsn: 3, position: 4096, first: 7, next: 9, ..FrameHeader::new(Kind::Block) };
    let entries = vec![IndexEntry::of(&header); 100];
    let mut bytes = Vec::new();
    footer::encode(&entries, &mut bytes).unwrap();
    assert_eq!(footer::decode(&bytes).unwrap(), entries);
    assert!(FRAME_HEADER + bytes.len() <= footer::reserve(100) as usize);
}

/// Whoever counts on from a number that was read must not overflow.
#[test]
fn numbers_without_an_end_are_refused() {
    let frame = FrameHeader { lsn: 1 << 63, ..FrameHeader::new(Kind::Idle) };
    assert_eq!(FrameHeader::decode(&frame.encode(7), 7, 0), Err(FrameError::Field("lsn")));
    let number = 5;
    let predecessor = Predecessor { number: number - 1, ..Predecessor::default() };
    let (wal_id, salt, retired_below, built_end) = (1, 2, 0, 16384);
    let good = SegmentHeader { wal_id, number, salt, first_lsn: 9, retired_below, built_end, predecessor };
    assert_eq!(SegmentHeader::decode(&good.encode()), Ok(good));
    let late = SegmentHeader { first_lsn: 1 << 63, ..good };
    let before = Predecessor { number: (1 << 63) - 1, ..Predecessor::default() };
    let high = SegmentHeader { number: 1 << 63, predecessor: before, ..good };
    for header in [late, high] {
        assert_eq!(SegmentHeader::decode(&header.encode()), Err(HeaderError::Reserved));
    }
}
