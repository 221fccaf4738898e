//! Blocks with compressed records, as Kafka has them: the codec stands in the batch's attributes, everything behind the
//! batch's header is one frame of that codec.
//!
//! Promises: what [`pack`] makes is a valid Kafka record batch of the same records, range, count and digest, never longer
//! than it was; [`unpacked`] gives back the bytes that [`records`](super::records) walks, and bytes that are no such frame
//! are an error. Each frame has a checksum of what it unpacks to. Never: more is unpacked than a bound allows, whatever the
//! bytes say ([`unpack`](super::unpack)); what is not compressed is not copied.

use super::read::{BatchError, batches};
use super::unpack::unpack;
use super::{ATTRIBUTES, HEADER_LEN, payload_crc};
use crate::record::{Block, BlockHeader};
use bytes::Bytes;
use std::borrow::Cow;
use std::io::{self, Write};

/// Zstandard's own scale; higher is smaller and slower.
const ZSTD_LEVEL: i32 = 1;
/// Where the codec is, in the lower byte of the attributes, and its bits.
const CODEC: usize = ATTRIBUTES + 1;
pub(super) const CODEC_BITS: u8 = 7;

/// How records are compressed; the numbers are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// LZ4, its frame format.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

/// The block with its records compressed; as it is, if that would not make it smaller, or if it is no single batch that is
/// not compressed. Only the payload and its checksum change. One allocation for a block.
pub fn pack(block: Block, codec: Codec) -> Block {
    let plain = &block.payload;
    let is_one = matches!(batches(plain).next(), Some(Ok(batch)) if batch.codec == 0 && batch.end == plain.len());
    if !is_one {
        return block;
    }
    let mut packed = Vec::with_capacity(plain.len());
    packed.extend_from_slice(&plain[..HEADER_LEN]);
    // A codec that refuses leaves the block as it is.
    if compress(codec, &plain[HEADER_LEN..], &mut packed).is_err() || packed.len() >= plain.len() {
        return block;
    }
    seal(&mut packed, 0, codec as u8);
    // What it does not need would be held as long as the block is, and counted by nobody.
    packed.shrink_to_fit();
    let header = BlockHeader { payload_crc: payload_crc(&packed), ..block.header };
    Block { header, payload: Bytes::from(packed) }
}

fn compress(codec: Codec, records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    match codec {
        Codec::Lz4 => {
            let frame = lz4_flex::frame::FrameInfo::new().content_checksum(true);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, out);
            encoder.write_all(records)?;
            encoder.finish()?;
        }
        Codec::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
            encoder.include_checksum(true)?;
            encoder.set_pledged_src_size(Some(records.len() as u64))?;
            encoder.write_all(records)?;
            encoder.finish()?;
        }
    }
    Ok(())
}

/// Makes length, codec and checksum of the batch from `at` to the end right.
fn seal(bytes: &mut [u8], at: usize, codec: u8) {
    let batch = &mut bytes[at..];
    let length = (batch.len() - 12) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[CODEC] = batch[CODEC] & !CODEC_BITS | codec;
    let crc = crc32c::crc32c(&batch[ATTRIBUTES..]);
    batch[17..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
}

/// The payload with nothing in it compressed: itself, or a copy whose batches are unpacked.
///
/// # Errors
/// If the bytes are not record batches, a codec refuses them, or they hold more than may be unpacked.
pub fn unpacked(payload: &[u8]) -> Result<Cow<'_, [u8]>, BatchError> {
    let mut is_plain = true;
    for batch in batches(payload) {
        is_plain &= batch?.codec == 0;
    }
    if is_plain {
        return Ok(Cow::Borrowed(payload));
    }
    let (mut out, mut records) = (Vec::new(), Vec::new());
    for batch in batches(payload) {
        let batch = batch?;
        let (at, bytes) = (out.len(), &payload[batch.at..batch.end]);
        if batch.codec == 0 {
            out.extend_from_slice(bytes);
            continue;
        }
        let refused = |error| BatchError::Unpack { at: batch.at, codec: batch.codec, why: format!("{error}") };
        unpack(batch.codec, &bytes[HEADER_LEN..], &mut records).map_err(refused)?;
        out.reserve_exact(HEADER_LEN + records.len());
        out.extend_from_slice(&bytes[..HEADER_LEN]);
        out.extend_from_slice(&records);
        seal(&mut out, at, 0);
    }
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Partition;
    use crate::record::batch::{BatchBuilder, Encoded, Record, RecordRef, check, digest, records};

    const CODECS: [Codec; 2] = [Codec::Lz4, Codec::Zstd];

    fn block(first: i64, count: i64, value: impl Fn(i64) -> Vec<u8>) -> Block {
        let mut builder = BatchBuilder::new(Vec::new(), first);
        for offset in first..first + count {
            let value = value(offset);
            let headers: [(&[u8], Option<&[u8]>); 1] = [(b"trace", None)];
            let key = (offset % 2 == 0).then_some(&b"key"[..]);
            builder.push(&RecordRef { offset, timestamp: 7 * offset, key, value: Some(&value), headers: &headers });
        }
        let Encoded { buffer, count, digest, payload_crc } = builder.finish(first + count, 3);
        let partition = Partition { topic: 1, number: 0 };
        let next = first + i64::from(count);
        let header = BlockHeader { partition, first, next, leader_epoch: 3, tenure: 1, count, digest, payload_crc };
        Block { header, payload: buffer.into() }
    }

    fn repetitive(first: i64, count: i64) -> Block {
        block(first, count, |offset| format!("{{\"number\":{offset},\"text\":\"what is said twice\"}}").into_bytes())
    }

    /// Bytes that no codec makes smaller.
    fn noise(offset: i64) -> Vec<u8> {
        let mut state = offset as u64 + 1;
        let mut next = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 56) as u8
        };
        (0..500).map(|_| next()).collect()
    }

    /// Offset, timestamp, and everything else as it is encoded.
    fn seen(payload: &[u8]) -> Vec<(i64, i64, Vec<u8>)> {
        let seen = |record: Record<'_>| (record.offset, record.timestamp, record.encoded.to_vec());
        records(payload).map(|record| seen(record.unwrap())).collect()
    }

    #[test]
    fn a_packed_block_is_smaller_and_unpacks_to_the_bytes_it_was() {
        for (codec, number) in CODECS.into_iter().zip([3, 4]) {
            for count in [3, 5000] {
                let plain = repetitive(100, count);
                let packed = pack(plain.clone(), codec);
                assert!(packed.payload.len() < plain.payload.len() * 9 / 10, "{codec:?}");
                assert_eq!(packed.header.payload_crc, payload_crc(&packed.payload));
                let header = BlockHeader { payload_crc: plain.header.payload_crc, ..packed.header };
                assert_eq!(header, plain.header, "nothing else of it changes");
                let error = records(&packed.payload).next().unwrap().unwrap_err();
                assert_eq!(error, BatchError::Codec { at: 0, codec: number });
                let again = unpacked(&packed.payload).unwrap();
                assert!(again[..] == plain.payload[..], "{codec:?}");
                assert_eq!(digest(&again, 100), Ok(plain.header.digest));
            }
        }
    }

    #[test]
    fn what_would_not_get_smaller_or_is_packed_already_stays() {
        for codec in CODECS {
            let empty = Block { payload: Bytes::new(), ..repetitive(0, 1) };
            for block in [block(0, 20, noise), block(0, 1, |_| Vec::new()), pack(repetitive(0, 50), codec), empty] {
                let same = pack(block.clone(), codec);
                assert_eq!((same.header, &same.payload), (block.header, &block.payload));
            }
            let two = [&repetitive(0, 50).payload[..], &repetitive(50, 50).payload].concat();
            let two = Block { payload: two.into(), ..repetitive(0, 100) };
            assert_eq!(pack(two.clone(), codec).payload, two.payload);
        }
    }

    #[test]
    fn what_is_not_compressed_is_not_copied() {
        let payload = repetitive(0, 5).payload;
        assert!(matches!(unpacked(&payload), Ok(Cow::Borrowed(same)) if same.as_ptr() == payload.as_ptr()));
        assert!(matches!(unpacked(&[]), Ok(Cow::Borrowed([]))));
    }

    #[test]
    fn batches_of_any_codec_may_follow_each_other() {
        let parts = [repetitive(0, 30), pack(repetitive(30, 30), Codec::Lz4), pack(repetitive(60, 30), Codec::Zstd)];
        let payload = parts.map(|block| block.payload.to_vec()).concat();
        let plain = unpacked(&payload).unwrap();
        assert_eq!(check(&plain), Ok(90));
        assert_eq!(seen(&plain), seen(&[0, 30, 60].map(|first| repetitive(first, 30).payload.to_vec()).concat()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_packed_batch_is_an_error_or_changes_nothing() {
        for codec in CODECS {
            let block = repetitive(0, 12);
            let packed = pack(block.clone(), codec).payload;
            let expected = seen(&block.payload);
            for bit in HEADER_LEN * 8..packed.len() * 8 {
                let mut bytes = packed.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                // Some bits of a frame's header mean nothing to a decoder.
                assert!(unpacked(&bytes).is_err() || seen(&unpacked(&bytes).unwrap()) == expected, "{codec:?} {bit}");
                assert_ne!(payload_crc(&bytes), payload_crc(&packed), "the log's own checksum sees it first");
            }
            for cut in 1..packed.len() {
                assert!(unpacked(&packed[..cut]).is_err(), "{codec:?} cut at {cut}");
            }
            let mut unknown = packed.to_vec();
            unknown[CODEC] |= CODEC_BITS;
            let error = unpacked(&unknown).unwrap_err();
            assert!(matches!(error, BatchError::Unpack { at: 0, codec: 7, .. }), "{error}");
            assert!(error.to_string().contains("codec 7"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_records_come_back(
            values in proptest::collection::vec((0u8.., 0usize..3000), 1..60),
            first in 0i64..1 << 40,
        ) {
            let value = |offset: i64| {
                let (byte, len) = values[(offset - first) as usize];
                vec![byte; len]
            };
            let plain = block(first, values.len() as i64, value);
            for codec in CODECS {
                let packed = pack(plain.clone(), codec);
                proptest::prop_assert!(packed.payload.len() <= plain.payload.len());
                proptest::prop_assert!(unpacked(&packed.payload).unwrap()[..] == plain.payload[..]);
            }
        }
    }
}
