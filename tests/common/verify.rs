//! Reads what the file sink wrote and says what is lost, doubled or out of order.
//!
//! Rules checked for every file, whatever the test: it lies in `topic=T/partition=P/`, its name is the offset of its
//! first record (20 digits), every line is whole, offsets rise strictly, the envelope agrees with the path. Records
//! are told apart by their value `p<partition>-<number>` (see `produce`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The form of the sink's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object with an envelope a line: `.jsonl`.
    Jsonl,
    /// The value a line: `.txt`.
    Raw,
}

impl Format {
    /// The setting that chooses it.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Jsonl => "sink.format=jsonl",
            Self::Raw => "sink.format=raw",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => ".jsonl",
            Self::Raw => ".txt",
        }
    }
}

/// One delivered record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The envelope's offset; in raw files, which have none, the line's number in its file.
    pub offset: i64,
    /// The envelope's key; `None` in raw files.
    pub key: Option<String>,
    /// The value.
    pub value: Option<String>,
}

/// The sink's files of one topic folder (`T`, or `T~1` when the topic was made again) in `out`.
pub fn files(out: &Path, topic: &str, partition: i32) -> Vec<PathBuf> {
    let dir = out.join(format!("topic={topic}/partition={partition}"));
    let Ok(entries) = std::fs::read_dir(&dir) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Reads one partition's records in the order of its files.
pub fn lines(out: &Path, topic: &str, partition: i32, format: Format) -> Vec<Line> {
    let mut lines = Vec::new();
    for path in files(out, topic, partition) {
        let first = first_offset(&path, format);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "half a line at the end of {}", path.display());
        let start = lines.len();
        for (number, text) in text.lines().enumerate() {
            lines.push(match format {
                Format::Raw => Line { offset: first + number as i64, key: None, value: Some(text.to_owned()) },
                Format::Jsonl => envelope(text, topic, partition, &path),
            });
        }
        if let Some(line) = lines.get(start) {
            // A file is named after the first offset of its range; compaction may have taken the record there.
            assert!(line.offset >= first, "first offset of {}", path.display());
        }
    }
    if format == Format::Jsonl {
        let wrong = lines.windows(2).find(|two| two[0].offset >= two[1].offset);
        assert_eq!(wrong, None, "offsets of {topic}/{partition} do not rise");
    }
    lines
}

fn first_offset(path: &Path, format: Format) -> i64 {
    let name = path.file_name().unwrap().to_str().unwrap();
    let name = name.strip_suffix(".part").unwrap_or(name);
    let digits = name.strip_suffix(format.extension());
    let digits = digits.filter(|text| text.len() == 20);
    let number = digits.and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("a stranger in the sink's folder: {}", path.display()))
}

fn envelope(text: &str, topic: &str, partition: i32, path: &Path) -> Line {
    let value: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {}: {text}", path.display()));
    let plain = topic.split('~').next();
    assert_eq!(value["topic"].as_str(), plain, "{}", path.display());
    assert_eq!(value["partition"].as_i64(), Some(i64::from(partition)));
    assert!(value["timestamp"].as_i64().is_some_and(|t| t > 0), "{text}");
    assert!(value.get("headers").is_some(), "{text}");
    Line {
        offset: value["offset"].as_i64().unwrap(),
        key: value["key"].as_str().map(str::to_owned),
        value: value["value"].as_str().map(str::to_owned),
    }
}

/// What came of the numbered records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Records produced.
    pub produced: u64,
    /// Different records found.
    pub delivered: u64,
    /// Records not found.
    pub lost: u64,
    /// Surplus copies.
    pub doubled: u64,
    /// Records that came after a later one of their partition, in one output folder.
    pub disordered: u64,
    /// Records that nobody produced.
    pub strange: u64,
    /// The first few findings, for people.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Fails unless every record came once and in order.
    pub fn expect_once(&self) {
        let Self { lost, doubled, disordered, strange, .. } = self;
        let wrong = (*lost, *doubled, *disordered, *strange);
        assert_eq!(wrong, (0, 0, 0, 0), "lost, doubled, disordered, strange: {self:#?}");
        assert_eq!(self.delivered, self.produced);
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.notes.len() < 20 {
            self.notes.push(text());
        }
    }
}

/// Splits `p<partition>-<number>[-…]`.
fn parse(value: &str) -> Option<(i32, u64)> {
    let mut words = value.strip_prefix('p')?.split('-');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Judges the outputs `outs` together: records `[0, next)` of each of `partitions` partitions were produced.
pub fn delivered(outs: &[&Path], topic: &str, partitions: i32, next: u64, format: Format) -> Verdict {
    let mut verdict = Verdict { produced: next * partitions as u64, ..Verdict::default() };
    for partition in 0..partitions {
        let mut copies = vec![0_u32; next as usize];
        for out in outs {
            let mut after = 0;
            for line in lines(out, topic, partition, format) {
                count(&mut verdict, &mut copies, &mut after, partition, &line);
            }
        }
        for (number, copies) in copies.iter().enumerate() {
            verdict.delivered += u64::from(*copies > 0);
            verdict.doubled += u64::from(copies.saturating_sub(1));
            verdict.lost += u64::from(*copies == 0);
            if *copies != 1 {
                verdict.note(|| format!("p{partition}-{number}: {copies} copies"));
            }
        }
    }
    verdict
}

fn count(verdict: &mut Verdict, copies: &mut [u32], after: &mut u64, partition: i32, line: &Line) {
    let found = line.value.as_deref().and_then(parse);
    let known = found.filter(|(p, number)| *p == partition && (*number as usize) < copies.len());
    let Some((_, number)) = known else {
        verdict.strange += 1;
        verdict.note(|| format!("in partition {partition}: {line:?}"));
        return;
    };
    copies[number as usize] += 1;
    if number < *after {
        verdict.disordered += 1;
        verdict.note(|| format!("p{partition}-{number} after p{partition}-{}", *after - 1));
    }
    *after = number + 1;
}

/// Everything in the sink's folder as one map of relative path to content, to compare two moments.
pub fn snapshot(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![out.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(out).unwrap().to_path_buf();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}
