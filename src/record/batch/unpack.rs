//! Unpacks the records of compressed batches. Pure.
//!
//! Promises: no more than a bound is ever unpacked, whatever the bytes say. Never: it looks into the records.

use std::io::{self, Read};

/// What one batch may unpack to. librdkafka's bound is 100 MB.
const UNPACKED_MAX: usize = 256 << 20;
const LARGE: u64 = 16 << 20;

/// How snappy's framing of Java clients begins, and the bytes before its first block.
const XERIAL: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: usize = 16;
/// No snappy block holds more than so many times its bytes: three of them copy at most 64.
const SNAPPY_MOST: usize = 22;

/// Why a batch could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The codec refuses the bytes.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Snappy refuses the bytes.
    #[error("{0}")]
    Snappy(#[from] snap::Error),
    /// No block of so many bytes holds so many.
    #[error("a block of {0} bytes says it holds {1}")]
    Untrue(usize, usize),
    /// The bytes end inside a framed block.
    #[error("the last block is cut")]
    Cut,
    /// Kafka has no such codec.
    #[error("codec {0} is unknown")]
    Codec(u8),
    /// More than the bound.
    #[error("it unpacks to more than {UNPACKED_MAX} bytes")]
    TooLarge,
}

/// Fills `out` (cleared first) with what `packed` holds. `codec` is Kafka's number: 1 gzip, 2 snappy, 3 lz4, 4 zstd.
pub fn unpack(codec: u8, packed: &[u8], out: &mut Vec<u8>) -> Result<(), UnpackError> {
    out.clear();
    match codec {
        1 => read(|| Ok(flate2::read::MultiGzDecoder::new(packed)), out),
        2 => snappy(packed, out),
        3 => read(|| Ok(lz4_flex::frame::FrameDecoder::new(packed)), out),
        4 => read(|| zstd::stream::read::Decoder::with_buffer(packed), out),
        codec => Err(UnpackError::Codec(codec)),
    }
}

/// What is large is unpacked twice, the first time to know its size: a vector that grows is there twice.
fn read<R: Read>(open: impl Fn() -> io::Result<R>, out: &mut Vec<u8>) -> Result<(), UnpackError> {
    let mut from = open()?;
    (&mut from).take(LARGE).read_to_end(out)?;
    if (out.len() as u64) < LARGE {
        return Ok(());
    }
    let size = LARGE + io::copy(&mut from.take(UNPACKED_MAX as u64 + 1 - LARGE), &mut io::sink())?;
    if size > UNPACKED_MAX as u64 {
        return Err(UnpackError::TooLarge);
    }
    *out = Vec::with_capacity(size as usize);
    open()?.take(size).read_to_end(out)?;
    Ok(())
}

/// Either one block, or blocks framed by the Java library.
fn snappy(packed: &[u8], out: &mut Vec<u8>) -> Result<(), UnpackError> {
    if !packed.starts_with(XERIAL) {
        return block(packed, out);
    }
    let mut rest = packed.get(XERIAL_HEADER..).ok_or(UnpackError::Cut)?;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (one, after) = after.split_at_checked(length).ok_or(UnpackError::Cut)?;
        block(one, out)?;
        rest = after;
    }
    if rest.is_empty() { Ok(()) } else { Err(UnpackError::Cut) }
}

fn block(packed: &[u8], out: &mut Vec<u8>) -> Result<(), UnpackError> {
    let (from, more) = (out.len(), snap::raw::decompress_len(packed)?);
    if from.saturating_add(more) > UNPACKED_MAX {
        return Err(UnpackError::TooLarge);
    }
    if more > packed.len() * SNAPPY_MOST {
        return Err(UnpackError::Untrue(packed.len(), more));
    }
    out.resize(from + more, 0);
    snap::raw::Decoder::new().decompress(packed, &mut out[from..])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn xerial(data: &[u8]) -> Vec<u8> {
        let mut packed = [XERIAL, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for piece in data.chunks(1000) {
            let block = snap::raw::Encoder::new().compress_vec(piece).unwrap();
            packed.extend((block.len() as u32).to_be_bytes());
            packed.extend(block);
        }
        packed
    }

    fn packed(codec: u8, data: &[u8]) -> Vec<u8> {
        match codec {
            1 => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            2 => snap::raw::Encoder::new().compress_vec(data).unwrap(),
            3 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            _ => zstd::stream::encode_all(data, 1).unwrap(),
        }
    }

    #[test]
    fn every_codec_comes_back() {
        let data: Vec<u8> = (0..10_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let mut out = vec![1, 2, 3];
        for codec in 1..=4 {
            unpack(codec, &packed(codec, &data), &mut out).unwrap();
            assert!(out == data, "codec {codec}");
        }
        unpack(2, &xerial(&data), &mut out).unwrap();
        assert!(out == data, "snappy of Java");
        let large: Vec<u8> = (0..LARGE as u32 / 3).flat_map(u32::to_le_bytes).collect();
        for codec in [1, 3, 4] {
            unpack(codec, &packed(codec, &large), &mut out).unwrap();
            assert!(out == large && out.capacity() == large.len(), "codec {codec}");
        }
    }

    #[test]
    fn cut_bytes_are_an_error_and_never_a_panic() {
        let data: Vec<u8> = (0..10_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let mut out = Vec::new();
        let cases = (1..=4).map(|codec| (codec, packed(codec, &data))).chain([(2, xerial(&data))]);
        for (codec, whole) in cases {
            for cut in (0..whole.len()).step_by(1 + whole.len() / 97) {
                let unpacked = unpack(codec, &whole[..cut], &mut out);
                // A cut between two framed blocks is only seen by the records that are missing.
                assert!(unpacked.is_err() || out.len() < data.len(), "codec {codec}, {cut} bytes");
            }
        }
    }

    #[test]
    fn what_unpacks_to_too_much_is_refused() {
        let bomb = packed(4, &vec![0; UNPACKED_MAX + 1]);
        assert!(matches!(unpack(4, &bomb, &mut Vec::new()), Err(UnpackError::TooLarge)));
        let claim = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 20]].concat();
        assert!(matches!(unpack(2, &claim, &mut Vec::new()), Err(UnpackError::TooLarge)));
        let untrue = [&[0xff, 0xff, 0x3f][..], &[0; 20]].concat();
        assert!(matches!(unpack(2, &untrue, &mut Vec::new()), Err(UnpackError::Untrue(23, 1_048_575))));
        let tight = packed(2, &vec![0; 1 << 20]);
        unpack(2, &tight, &mut Vec::new()).unwrap();
    }
}
