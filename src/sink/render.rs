//! How records become bytes: JSON Lines with an envelope, or the bare values.
//!
//! Promises: the same record always gives the same bytes, in one line, without an allocation per record; any bytes
//! can be rendered. Lines: `jsonl` is one JSON object
//! `{"topic","partition","offset","timestamp","key","value","headers"}`, where text is a JSON string, bytes that are not
//! UTF-8 are `{"base64":"…"}`, what is absent is `null` (also a timestamp of -1) and headers are a list of
//! `{"name","value"}`. `raw` is the value and a newline; a record without a value gives an empty line.

use super::{SinkError, Source};
use crate::record::Block;
use crate::record::batch::{self, Record};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::str::FromStr;

/// How many bytes are collected before they are handed on.
pub const FLUSH_BYTES: usize = 1 << 20;

/// The layout of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Jsonl,
    /// The value and a newline.
    Raw,
}

impl Format {
    /// The extension of files in this format.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Raw => "txt",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "jsonl" => Ok(Self::Jsonl),
            "raw" => Ok(Self::Raw),
            other => Err(format!("unknown format {other:?}; known are jsonl and raw")),
        }
    }
}

/// Renders the records of one partition.
#[derive(Clone, Debug)]
pub struct Renderer {
    format: Format,
    /// The constant start of each line.
    head: Vec<u8>,
}

impl Renderer {
    /// For records of `source`.
    pub fn new(format: Format, source: &Source) -> Self {
        let mut head = Vec::new();
        if format == Format::Jsonl {
            head.extend_from_slice(b"{\"topic\":");
            push_text(source.topic.as_bytes(), &mut head);
            head.extend_from_slice(b",\"partition\":");
            push_number(i64::from(source.partition.number), &mut head);
            head.extend_from_slice(b",\"offset\":");
        }
        Self { format, head }
    }

    /// The format it renders.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Appends one record's line to `out`.
    #[inline]
    pub fn record(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        match self.format {
            Format::Jsonl => self.envelope(record, out),
            Format::Raw => {
                let value = record.value.unwrap_or_default();
                out.reserve(value.len() + 1);
                out.extend_from_slice(value);
                out.push(b'\n');
            }
        }
    }

    fn envelope(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        push_number(record.offset, out);
        out.extend_from_slice(b",\"timestamp\":");
        if record.timestamp == -1 {
            out.extend_from_slice(b"null");
        } else {
            push_number(record.timestamp, out);
        }
        out.extend_from_slice(b",\"key\":");
        push_field(record.key, out);
        out.extend_from_slice(b",\"value\":");
        push_field(record.value, out);
        out.extend_from_slice(b",\"headers\":[");
        for (number, (name, value)) in record.headers.iter().enumerate() {
            out.extend_from_slice(if number == 0 { b"{\"name\":" } else { b",{\"name\":" });
            push_text(name, out);
            out.extend_from_slice(b",\"value\":");
            push_field(value, out);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}\n");
    }

    /// Appends the lines of a block's records that lie in its range. Whenever [`FLUSH_BYTES`] have come together in
    /// `out`, `flush` is called and has to empty it.
    pub fn block(
        &self,
        block: &Block,
        out: &mut Vec<u8>,
        mut flush: impl FnMut(&mut Vec<u8>) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        let range = block.header.first..block.header.next;
        let payload = batch::unpacked(&block.payload).map_err(|error| unreadable(block, &error))?;
        for record in batch::records(&payload) {
            let record = record.map_err(|error| unreadable(block, &error))?;
            if !range.contains(&record.offset) {
                continue;
            }
            self.record(&record, out);
            if out.len() >= FLUSH_BYTES {
                flush(out)?;
            }
        }
        Ok(())
    }
}

fn unreadable(block: &Block, error: &batch::BatchError) -> SinkError {
    let header = &block.header;
    SinkError::Fatal(format!(
        "block [{}, {}) of topic number {} partition {} can't be read: {error}",
        header.first, header.next, header.partition.topic, header.partition.number
    ))
}

fn push_number(number: i64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}

fn push_field(field: Option<&[u8]>, out: &mut Vec<u8>) {
    match field {
        Some(bytes) => push_text(bytes, out),
        None => out.extend_from_slice(b"null"),
    }
}

fn push_text(bytes: &[u8], out: &mut Vec<u8>) {
    if std::str::from_utf8(bytes).is_err() {
        return push_base64(bytes, out);
    }
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut rest = bytes;
    loop {
        let clean = clean_run(rest);
        out.extend_from_slice(&rest[..clean]);
        let Some(&byte) = rest.get(clean) else { break };
        push_escaped(byte, out);
        rest = &rest[clean + 1..];
    }
    out.push(b'"');
}

fn push_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"base64\":\"");
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    assert!(written.is_ok_and(|n| start + n == out.len()), "the size of base64 is known");
    out.extend_from_slice(b"\"}");
}

fn push_escaped(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            return out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// How many bytes come before the first that JSON wants escaped; eight at a time.
fn clean_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let quote = zero_bytes(word ^ (ONES * u64::from(b'"')));
        let backslash = zero_bytes(word ^ (ONES * u64::from(b'\\')));
        // Borrows can only set bits above a true one: the lowest is exact.
        let found = control | quote | backslash;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let escaped = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
    at + bytes[at..].iter().position(escaped).unwrap_or(bytes.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::batch::{BatchBuilder, Codec, Encoded, RecordRef, pack, records};
    use crate::record::{BlockHeader, Partition};

    fn line(format: Format, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64) -> String {
        let partition = Partition { topic: 1, number: 3 };
        let source = Source { partition, topic: "t".into(), incarnation: 0 };
        let mut batch = BatchBuilder::new(Vec::new(), 7);
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"n", None)];
        batch.push(&RecordRef { offset: 7, timestamp, key, value, headers });
        let batch = batch.finish(8, -1);
        let record = records(&batch.buffer).next().unwrap().unwrap();
        let mut out = Vec::new();
        Renderer::new(format, &source).record(&record, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_envelope_has_every_field_in_its_order() {
        assert_eq!(
            line(Format::Jsonl, None, Some(b"a\"\n\x01\xc3\xa9"), 12),
            "{\"topic\":\"t\",\"partition\":3,\"offset\":7,\"timestamp\":12,\"key\":null,\
             \"value\":\"a\\\"\\n\\u0001\u{e9}\",\
             \"headers\":[{\"name\":\"h\",\"value\":\"1\"},{\"name\":\"n\",\"value\":null}]}\n"
        );
        let odd = line(Format::Jsonl, Some(b"\xff\x00"), None, -1);
        assert!(odd.contains("\"timestamp\":null,\"key\":{\"base64\":\"/wA=\"},\"value\":null"), "{odd}");
    }

    #[test]
    fn the_lines_of_a_compressed_block_are_those_of_the_block() {
        let partition = Partition { topic: 1, number: 3 };
        let mut batch = BatchBuilder::new(Vec::new(), 7);
        for offset in 7..40 {
            let value = format!("the value of {offset}");
            let record = RecordRef { offset, timestamp: 5, key: None, value: Some(value.as_bytes()), headers: &[] };
            batch.push(&record);
        }
        let Encoded { buffer, count, digest, payload_crc } = batch.finish(40, -1);
        let header =
            BlockHeader { partition, first: 8, next: 39, leader_epoch: -1, tenure: 1, count, digest, payload_crc };
        let block = Block { header, payload: buffer.into() };
        let renderer = Renderer::new(Format::Jsonl, &Source { partition, topic: "t".into(), incarnation: 0 });
        let lines = |block: &Block| {
            let mut out = Vec::new();
            renderer.block(block, &mut out, |_| Ok(())).map(|()| out)
        };
        let expected = lines(&block).unwrap();
        assert_eq!(expected.split(|byte| *byte == b'\n').count(), 31 + 1);
        for codec in [Codec::Lz4, Codec::Zstd] {
            let packed = pack(block.clone(), codec);
            assert!(packed.payload.len() < block.payload.len());
            assert_eq!(lines(&packed).unwrap(), expected);
            let cut = Block { payload: packed.payload.slice(..packed.payload.len() - 1), ..packed };
            let error = lines(&cut).unwrap_err().to_string();
            assert!(error.contains("block [8, 39) of topic number 1 partition 3 can't be read"), "{error}");
        }
    }

    #[test]
    fn raw_is_the_value_and_a_newline_even_without_a_value() {
        assert_eq!(line(Format::Raw, Some(b"k"), Some(b"a\nb"), 1), "a\nb\n");
        assert_eq!(line(Format::Raw, Some(b"k"), None, 1), "\n");
    }

    #[test]
    fn every_byte_is_found_at_every_place() {
        for byte in 0..=255u8 {
            let escaped = byte < 0x20 || byte == b'"' || byte == b'\\';
            for at in 0..20 {
                let mut text = [b'x'; 20];
                text[at] = byte;
                assert_eq!(clean_run(&text), if escaped { at } else { 20 }, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn numbers_are_written_to_their_ends() {
        for number in [0, 7, -1, 10, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            push_number(number, &mut out);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
