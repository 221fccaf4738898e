//! How data is printed: a table for people, one JSON document, or one JSON object a line.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, Write};

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON document
    Json,
    /// One JSON object a line
    Jsonl,
}

/// Says something to people. Not being heard is no error.
pub(super) fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints rows: a table; one object `{"schema": …, "<name>": [rows]}`; or each row on its line.
pub(super) fn rows<T: Serialize>(
    format: Format,
    schema: &str,
    name: &str,
    rows: &[T],
    table: impl FnOnce() -> Table,
) -> io::Result<()> {
    match format {
        Format::Table => print(&screen(&table())),
        Format::Json => print(&format!("{:#}\n", serde_json::json!({ "schema": schema, name: rows }))),
        Format::Jsonl => {
            let mut out = io::stdout().lock();
            for row in rows {
                serde_json::to_writer(&mut out, row)?;
                out.write_all(b"\n")?;
            }
            out.flush()
        }
    }
}

/// Prints text as it is.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// An empty table with these headings.
pub(super) fn table<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = plain();
    table.set_header(headings);
    table
}

/// A table without headings, for names and values.
pub(super) fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// A table as text, without blanks at the ends of lines.
pub(super) fn screen(table: &Table) -> String {
    let text = table.to_string();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    format!("{}\n", lines.join("\n"))
}

/// A count with its thousands apart.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size for people.
pub(super) fn bytes(number: u64) -> String {
    bytesize::ByteSize::b(number).display().iec().to_string()
}

/// A duration in microseconds for people.
pub(super) fn micros(number: u64) -> String {
    match number {
        n if n >= 1_000_000 => format!("{:.2} s", n as f64 / 1e6),
        n if n >= 1_000 => format!("{:.2} ms", n as f64 / 1e3),
        n => format!("{n} µs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([7, 1500, 2_000_000].map(micros), ["7 µs", "1.50 ms", "2.00 s"]);
        assert_eq!(bytes(64 << 20), "64.0 MiB");
    }
}
