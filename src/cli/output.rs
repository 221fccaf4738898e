//! How data is printed: a table for people, one JSON document, or one JSON object a line.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Set when what is said to people is to be one JSON object a line.
static TALK_IS_JSON: AtomicBool = AtomicBool::new(false);

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

/// From now on [`talk`] and [`complain`] write JSON, as the log of messages does.
pub(super) fn talk_json() {
    TALK_IS_JSON.store(true, Ordering::Relaxed);
}

/// Says something to people. Not being heard is no error.
pub(super) fn talk(text: &str) {
    say("INFO", text);
}

/// The same for what went wrong.
pub(super) fn complain(text: &str) {
    say("ERROR", text);
}

fn say(level: &str, text: &str) {
    let line = if TALK_IS_JSON.load(Ordering::Relaxed) { object(level, text) } else { text.to_string() };
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The names are those of the lines of the log of messages.
fn object(level: &str, text: &str) -> String {
    let timestamp = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let message = text.strip_prefix("forebay: ").unwrap_or(text);
    serde_json::json!({ "timestamp": timestamp, "level": level, "message": message, "target": "forebay" }).to_string()
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
    fn what_is_said_is_an_object_on_a_line() {
        let line = object("ERROR", "forebay: \"a\" is\nno topic");
        assert_eq!(line.lines().count(), 1);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((object["level"].as_str(), object["message"].as_str()), (Some("ERROR"), Some("\"a\" is\nno topic")));
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([7, 1500, 2_000_000].map(micros), ["7 µs", "1.50 ms", "2.00 s"]);
        assert_eq!(bytes(64 << 20), "64.0 MiB");
    }
}
