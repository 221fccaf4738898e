//! Writes a dump of a segment by the tables of the document.

use super::fields::{self, Leaf};
use super::table;
use forebay::record::varint;
use std::fmt::Write as _;

const PAGE: usize = 4096;
const WIDTH: usize = 16;

struct Column {
    at: usize,
    size: usize,
    kind: String,
    name: String,
}

fn columns(document: &str, name: &str) -> Vec<Column> {
    let column = |row: Vec<String>| {
        let (at, size) = (row[0].parse().unwrap(), row[1].parse().unwrap());
        Column { at, size, kind: row[2].clone(), name: row[3].clone() }
    };
    table(document, name).into_iter().map(column).collect()
}

/// A dump in the making.
struct Dump<'a> {
    bytes: &'a [u8],
    at: usize,
    out: String,
}

impl Dump<'_> {
    fn note(&mut self, words: &str) {
        writeln!(self.out, "; {words}").unwrap();
    }

    fn piece(&mut self, size: usize, words: &str) {
        let piece = &self.bytes[self.at..self.at + size];
        if size > WIDTH && piece.iter().all(|byte| *byte == 0) {
            let end = self.at + size;
            self.line(&format!("zero until {end:08x}"), words);
            self.at = end;
            return;
        }
        let mut words = words;
        for line in piece.chunks(WIDTH) {
            let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            self.line(&hex.join(" "), words);
            self.at += line.len();
            words = "";
        }
    }

    fn line(&mut self, content: &str, words: &str) {
        let at = self.at;
        let line = if words.is_empty() {
            format!("{at:08x}  {content}")
        } else {
            format!("{at:08x}  {content:<47}  ; {words}")
        };
        writeln!(self.out, "{line}").unwrap();
    }

    fn columns(&mut self, columns: &[Column]) {
        let start = self.at;
        for column in columns {
            assert_eq!(self.at, start + column.at, "a hole before {}", column.name);
            let bytes = &self.bytes[self.at..self.at + column.size];
            let value = match column.kind.as_str() {
                "text" => format!(" {:?}", String::from_utf8_lossy(bytes)),
                "zero" => String::new(),
                "crc" => format!(" {}", hex_number(bytes)),
                big if big.ends_with("be") => {
                    let little: Vec<_> = bytes.iter().rev().copied().collect();
                    format!(" {}", fields::number(&big[..big.len() - 2], &little))
                }
                kind => format!(" {}", fields::number(kind, bytes)),
            };
            self.piece(column.size, &format!("{}{value}", column.name));
        }
    }

    fn leaves(&mut self, leaves: &[Leaf]) {
        for leaf in leaves {
            let words =
                if leaf.range.len() > WIDTH { leaf.name.clone() } else { format!("{} {}", leaf.name, leaf.value) };
            self.piece(leaf.range.len(), &words);
        }
    }

    fn batch(&mut self, header: &[Column], end: usize) {
        self.columns(header);
        let mut number = 0;
        while self.at < end {
            let length = self.varint(&format!("record {number}: length")) as usize;
            let record_end = self.at + length;
            self.piece(1, "  attributes");
            self.varint("  timestamp delta");
            self.varint("  offset delta");
            self.field("key");
            self.field("value");
            for _ in 0..self.varint("  headers") {
                self.field("header name");
                self.field("header value");
            }
            assert_eq!(self.at, record_end, "record {number}");
            number += 1;
        }
    }

    fn varint(&mut self, words: &str) -> i64 {
        let (value, size) = varint::get(&self.bytes[self.at..]).unwrap();
        self.piece(size, &format!("{words} {value}"));
        value
    }

    fn field(&mut self, words: &str) {
        let length = self.varint(&format!("  {words} length"));
        if length > 0 {
            let length = length as usize;
            let text = String::from_utf8_lossy(&self.bytes[self.at..self.at + length]).into_owned();
            self.piece(length, &format!("  {words} {text:?}"));
        }
    }
}

fn hex_number(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// The first header page, or both and the frames up to `end`, then what is behind them.
pub fn segment(document: &str, bytes: &[u8], end: usize) -> String {
    let mut dump = Dump { bytes, at: 0, out: String::new() };
    let page = columns(document, "segment header");
    dump.note("segment header");
    dump.columns(&page);
    if end <= PAGE {
        return dump.out;
    }
    dump.note("segment header, second copy");
    dump.columns(&page);
    let frame = columns(document, "frame header");
    let batch = columns(document, "record batch");
    let kinds = table(document, "kinds");
    while dump.at < end {
        let start = dump.at;
        let kind = &kinds[usize::from(bytes[start + 4]) - 1];
        let (payload_len, pad_len) = (number(bytes, start + 8), number(bytes, start + 12));
        dump.note(&format!("{} frame", kind[1]));
        dump.columns(&frame);
        let payload_end = dump.at + payload_len;
        match kind[3].as_str() {
            "record batches" => dump.batch(&batch, payload_end),
            described => {
                let described = described_fields(document, described);
                dump.leaves(&fields::walk(&fields::parse(&described), &bytes[dump.at..payload_end]));
            }
        }
        if pad_len > 0 {
            dump.piece(pad_len, "pad");
        }
    }
    if end < bytes.len() {
        dump.note("beyond the end that the next segment's header declares");
        dump.piece(bytes.len() - end, "never judged");
    }
    dump.out
}

/// The fields of a payload: in the cell, or in a table of their own for `see NAME`.
pub fn described_fields(document: &str, cell: &str) -> String {
    let Some(name) = cell.strip_prefix("see ") else {
        return cell.to_owned();
    };
    let rows = table(document, name);
    let fields: Vec<_> = rows.iter().map(|row| format!("{}: {}", row[0], row[1])).collect();
    fields.join(", ")
}
