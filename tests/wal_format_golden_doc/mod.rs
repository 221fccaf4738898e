//! Reads `wal_format.md`: its tables, its little language of fields, its dumps; and writes a dump by its tables.

#![allow(dead_code)]

pub mod fields;
pub mod render;

use std::path::Path;

/// The text of the document.
pub fn text() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("wal_format.md")).unwrap()
}

/// The rows of the table that follows `<!-- table: NAME -->`, without its head; back-quotes are removed.
pub fn table(document: &str, name: &str) -> Vec<Vec<String>> {
    let mark = format!("<!-- table: {name} -->\n");
    let after = document.split_once(&mark).unwrap_or_else(|| panic!("no table {name}")).1;
    let rows = after.lines().take_while(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| {
        let inner = line.trim().trim_matches('|');
        inner.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>()
    };
    let rows: Vec<_> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "table {name} is empty");
    rows
}

/// The text of the fenced block that follows `<!-- dump: NAME -->`.
pub fn dump(document: &str, name: &str) -> String {
    let mark = format!("<!-- dump: {name} -->\n```text\n");
    let after = document.split_once(&mark).unwrap_or_else(|| panic!("no dump {name}")).1;
    after.split_once("```").unwrap().0.to_owned()
}

/// The bytes of a dump. A line is `POSITION  BYTES`, or `POSITION  zero until POSITION`, then perhaps `; words`.
/// A position must be the one at which the line before it ended.
pub fn bytes(dump: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in dump.lines() {
        let content = line.split(';').next().unwrap().trim();
        let Some((position, content)) = content.split_once("  ") else {
            assert!(content.is_empty(), "not a line of a dump: {line}");
            continue;
        };
        let number = |text: &str| usize::from_str_radix(text, 16).unwrap_or_else(|_| panic!("no number: {line}"));
        assert_eq!(number(position), bytes.len(), "position of: {line}");
        if let Some(end) = content.trim().strip_prefix("zero until ") {
            let end = number(end);
            assert!(end > bytes.len(), "backwards: {line}");
            bytes.resize(end, 0);
        } else {
            bytes.extend(content.split_whitespace().map(|byte| number(byte) as u8));
        }
    }
    bytes
}

/// The segment of the document.
pub fn golden_segment() -> Vec<u8> {
    bytes(&dump(&text(), "segment"))
}
