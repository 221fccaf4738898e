//! What output files are called.
//!
//! Promises: pure; the same partition and offset always give the same name, different ones never do. Names are relative
//! to the sink's directory and always the *published* one; the file being written has [`PART`] behind it.

use super::super::Source;
use super::super::render::Format;
use std::path::{Path, PathBuf};

/// Added to the name while a file is still written to.
const PART: &str = ".part";
/// Added to the name of the copy that replaces a file.
const COPY: &str = ".part.copy";
/// Added to the name of an empty file that is there while a replacement's directory sync has not returned.
const UNSURE: &str = ".part.unsure";

/// `topic=T[~incarnation]/partition=P/<first offset, 20 digits>.<extension>`.
pub(super) fn output(source: &Source, first: i64, format: Format) -> String {
    let topic = escaped(&source.topic);
    let incarnation = match source.incarnation {
        0 => String::new(),
        again => format!("~{again}"),
    };
    let (partition, extension) = (source.partition.number, format.extension());
    format!("topic={topic}{incarnation}/partition={partition}/{first:020}.{extension}")
}

/// The format a name speaks of.
pub(super) fn format_of(name: &str) -> Format {
    match name.rsplit_once('.') {
        Some((_, extension)) if extension == Format::Raw.extension() => Format::Raw,
        _ => Format::Jsonl,
    }
}

/// The first offset a name speaks of.
pub(super) fn first_of(name: &str) -> Option<i64> {
    let file = name.rsplit('/').next()?;
    file.split('.').next()?.parse().ok()
}

/// Percent-escapes everything outside `[A-Za-z0-9._-]`, and the names `.` and `..`.
fn escaped(topic: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if topic == "." || topic == ".." {
        return topic.replace('.', "%2E");
    }
    let mut name = String::with_capacity(topic.len());
    for byte in topic.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            name.push(char::from(byte));
        } else {
            name.push('%');
            name.extend([byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)])));
        }
    }
    name
}

/// The places one output can be in.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// Immutable, for readers.
    pub published: PathBuf,
    /// Being written.
    pub part: PathBuf,
    /// Replaces `part` when complete.
    pub copy: PathBuf,
    /// While it is there, `part` may not be what the disk has under this name.
    pub unsure: PathBuf,
    /// Holds all of them.
    pub dir: PathBuf,
}

impl Paths {
    /// The places of the output `name` below the sink's directory.
    pub fn new(root: &Path, name: &str) -> Self {
        let published = root.join(name);
        let dir = published.parent().unwrap_or(root).to_path_buf();
        let with = |suffix: &str| root.join(format!("{name}{suffix}"));
        Self { part: with(PART), copy: with(COPY), unsure: with(UNSURE), published, dir }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::source;
    use super::*;

    #[test]
    fn topics_can_not_leave_their_directory_or_meet() {
        let named = |topic: &str, incarnation| {
            output(&Source { topic: topic.into(), incarnation, ..source(3) }, 42, Format::Jsonl)
        };
        assert_eq!(named("a.B_c-9", 0), "topic=a.B_c-9/partition=3/00000000000000000042.jsonl");
        assert_eq!(named("t", 2), "topic=t~2/partition=3/00000000000000000042.jsonl");
        assert!(named("t~2", 0).starts_with("topic=t%7E2/"));
        assert!(named("../x", 0).starts_with("topic=..%2Fx/"));
        assert!(named("..", 0).starts_with("topic=%2E%2E/"));
        assert!(named("é%", 0).starts_with("topic=%C3%A9%25/"));
    }

    #[test]
    fn a_name_tells_its_format_and_offset() {
        for format in [Format::Jsonl, Format::Raw] {
            let name = output(&source(0), 7, format);
            assert_eq!((format_of(&name), first_of(&name)), (format, Some(7)));
        }
        assert_eq!(first_of(""), None);
        let paths = Paths::new(Path::new("out"), "topic=t/partition=0/7.txt");
        assert_eq!(paths.part, Path::new("out/topic=t/partition=0/7.txt.part"));
        assert_eq!(paths.dir, Path::new("out/topic=t/partition=0"));
    }
}
