//! Is each record there exactly once?
//!
//! Promises: the answer comes from the output alone, record by record: each partition has a bit for each of its records,
//! and what the output says of partition and sequence sets them. A record in another partition's file, an unknown one and
//! an unreadable line are counted too.

use super::value::Value;
use anyhow::Context;
use serde::Serialize;
use std::io::{BufRead, BufReader};
use std::path::Path;

const BUFFER_BYTES: usize = 1 << 20;

/// First sequence and the one after the last, partition by partition.
pub(super) type Extents = Vec<(u64, u64)>;

/// How records are written in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// The value alone.
    Raw,
    /// An envelope with partition, offset and value.
    Jsonl,
}

impl Lines {
    fn extension(self) -> &'static str {
        match self {
            Self::Raw => crate::sink::render::Format::Raw.extension(),
            Self::Jsonl => crate::sink::render::Format::Jsonl.extension(),
        }
    }
}

/// How a run's output was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Checked {
    /// Every record was looked for.
    EachRecord,
    /// Records were counted only: the output keeps nothing, or the values are not the benchmark's own.
    Count,
}

/// What the check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Delivery {
    /// How much the other numbers say.
    pub checked: Checked,
    /// Expected and not there.
    pub lost: u64,
    /// Extra copies.
    pub doubled: u64,
    /// Lines that belong elsewhere or nowhere.
    pub misplaced: u64,
}

impl Delivery {
    /// By two counts alone.
    pub fn counted(expected: u64, delivered: u64) -> Self {
        let (lost, doubled) = (expected.saturating_sub(delivered), delivered.saturating_sub(expected));
        Self { checked: Checked::Count, lost, doubled, misplaced: 0 }
    }

    /// Nothing lost, nothing twice, nothing foreign.
    pub fn is_exact(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.misplaced == 0
    }
}

/// One bit for each record of a partition.
#[derive(Debug)]
struct Seen {
    first: u64,
    next: u64,
    bits: Vec<u64>,
}

/// The records seen so far.
#[derive(Debug)]
pub(super) struct Tally {
    partitions: Vec<Seen>,
    seen: u64,
    doubled: u64,
    misplaced: u64,
}

impl Tally {
    /// Nothing seen yet of these.
    pub fn new(extents: &[(u64, u64)]) -> Self {
        let seen = |&(first, next): &(u64, u64)| {
            let words = next.saturating_sub(first).div_ceil(64) as usize;
            Seen { first, next, bits: vec![0; words] }
        };
        Self { partitions: extents.iter().map(seen).collect(), seen: 0, doubled: 0, misplaced: 0 }
    }

    /// One record of the output.
    pub fn add(&mut self, partition: u64, sequence: u64) {
        let seen = usize::try_from(partition).ok().and_then(|partition| self.partitions.get_mut(partition));
        let Some(seen) = seen.filter(|seen| (seen.first..seen.next).contains(&sequence)) else {
            self.misplaced += 1;
            return;
        };
        let place = sequence - seen.first;
        let (word, bit) = (&mut seen.bits[(place / 64) as usize], 1 << (place % 64));
        if *word & bit == 0 {
            *word |= bit;
            self.seen += 1;
        } else {
            self.doubled += 1;
        }
    }

    /// One line of a file of `partition`.
    pub fn add_line(&mut self, lines: Lines, partition: u64, line: &[u8]) {
        let sequence = match lines {
            Lines::Raw => Value::read(line).filter(|value| value.partition == partition).map(|value| value.sequence),
            Lines::Jsonl => envelope(line).filter(|(in_line, _)| *in_line == partition).map(|(_, offset)| offset),
        };
        match sequence {
            Some(sequence) => self.add(partition, sequence),
            None => self.misplaced += 1,
        }
    }

    /// The verdict.
    pub fn finish(&self) -> Delivery {
        let expected: u64 = self.partitions.iter().map(|seen| seen.next.saturating_sub(seen.first)).sum();
        let lost = expected - self.seen;
        Delivery { checked: Checked::EachRecord, lost, doubled: self.doubled, misplaced: self.misplaced }
    }
}

/// Partition and offset of an envelope. The topic before them can't hold a quote. A value of the benchmark's own must say
/// the same as the envelope.
fn envelope(line: &[u8]) -> Option<(u64, u64)> {
    let rest = after(line, b"\",\"partition\":")?;
    let (partition, rest) = number(rest)?;
    let (offset, rest) = number(rest.strip_prefix(b",\"offset\":")?)?;
    let own = after(rest, b"\"value\":\"").and_then(Value::read);
    let agrees = own.is_none_or(|value| (value.partition, value.sequence) == (partition, offset));
    (agrees && line.ends_with(b"}")).then_some((partition, offset))
}

fn after<'a>(text: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(mark.len()).position(|window| window == mark)?;
    Some(&text[at + mark.len()..])
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    Some((number, &text[digits..]))
}

/// Reads the file sink's finished files of `topic` below `dir`.
pub(super) fn read(dir: &Path, topic: &str, lines: Lines, extents: &[(u64, u64)]) -> anyhow::Result<Delivery> {
    let mut tally = Tally::new(extents);
    let topic = dir.join(format!("topic={topic}"));
    let failed = || format!("cannot read the output {}", topic.display());
    for entry in topic.read_dir().with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let partition = name.strip_prefix("partition=").and_then(|number| number.parse().ok());
        let partition = partition.with_context(|| format!("{} is no partition's folder", path.display()))?;
        for file in path.read_dir().with_context(failed)? {
            let file = file.with_context(failed)?.path();
            if file.extension().is_some_and(|extension| extension == lines.extension()) {
                read_file(&file, partition, lines, &mut tally).with_context(|| format!("{}", file.display()))?;
            }
        }
    }
    Ok(tally.finish())
}

fn read_file(path: &Path, partition: u64, lines: Lines, tally: &mut Tally) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, std::fs::File::open(path)?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        tally.add_line(lines, partition, line.strip_suffix(b"\n").unwrap_or_default());
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(partition: u64, sequence: u64) -> Vec<u8> {
        let mut buffer = vec![b'x'; 40];
        Value { partition, sequence, micros: 0 }.write(&mut buffer);
        buffer.push(b'\n');
        buffer
    }

    fn jsonl(partition: u64, offset: u64, value: &str) -> Vec<u8> {
        format!(
            "{{\"topic\":\"t\",\"partition\":{partition},\"offset\":{offset},\"timestamp\":1,\"key\":null,\
             \"value\":\"{value}\",\"headers\":[]}}\n"
        )
        .into_bytes()
    }

    /// Two partitions of 100 and 30 records in an output folder, changed by `change`.
    fn check(lines: Lines, change: impl Fn(u64, &mut Vec<Vec<u8>>)) -> Delivery {
        let dir = tempfile::tempdir().unwrap();
        let extents = vec![(0, 100), (5, 35)];
        for (partition, &(first, next)) in (0..).zip(&extents) {
            let text = |sequence| match lines {
                Lines::Raw => raw(partition, sequence),
                Lines::Jsonl => {
                    let value = String::from_utf8(raw(partition, sequence)).unwrap();
                    jsonl(partition, sequence, value.trim_end())
                }
            };
            let mut written: Vec<_> = (first..next).map(text).collect();
            change(partition, &mut written);
            let folder = dir.path().join(format!("topic=t/partition={partition}"));
            std::fs::create_dir_all(&folder).unwrap();
            let (one, two) = written.split_at(20);
            std::fs::write(folder.join(format!("0.{}", lines.extension())), one.concat()).unwrap();
            std::fs::write(folder.join(format!("1.{}", lines.extension())), two.concat()).unwrap();
        }
        read(dir.path(), "t", lines, &extents).unwrap()
    }

    #[test]
    fn a_loss_a_double_and_a_stray_are_found_in_the_files() {
        for lines in [Lines::Raw, Lines::Jsonl] {
            let (lost, doubled, misplaced) = (0, 0, 0);
            let exact = Delivery { checked: Checked::EachRecord, lost, doubled, misplaced };
            assert_eq!(check(lines, |_, _| {}), exact, "{lines:?}");
            assert!(exact.is_exact());
            let found = check(lines, |partition, written| {
                if partition == 1 {
                    written.remove(29);
                }
            });
            assert_eq!(found, Delivery { lost: 1, ..exact }, "{lines:?}");
            let found = check(lines, |_, written| written.push(written[7].clone()));
            assert_eq!(found, Delivery { doubled: 2, ..exact }, "{lines:?}");
            // One record of partition 0 in the file of partition 1, instead of one of its own.
            let found = check(lines, |partition, written| {
                if partition == 1 {
                    written[3] = if lines == Lines::Raw { raw(0, 8) } else { jsonl(0, 8, "") };
                }
            });
            assert_eq!(found, Delivery { lost: 1, misplaced: 1, ..exact }, "{lines:?}");
            assert!(!found.is_exact());
        }
    }

    #[test]
    fn cut_lines_and_unknown_records_are_misplaced() {
        let found = check(Lines::Raw, |_, written| {
            let last = written.len() - 1;
            written[last].truncate(20);
            written[0] = raw(0, 1000);
        });
        assert_eq!((found.lost, found.misplaced), (4, 4));
        let found = check(Lines::Jsonl, |_, written| written[4].truncate(50));
        assert!(found.lost > 0 && found.misplaced > 0, "{found:?}");
    }

    #[test]
    fn an_envelope_and_its_value_must_agree() {
        let value = |sequence| String::from_utf8(raw(3, sequence)).unwrap();
        let line = |offset, value: &str| jsonl(3, offset, value.trim_end()).trim_ascii_end().to_vec();
        assert_eq!(envelope(&line(9, &value(9))), Some((3, 9)));
        assert_eq!(envelope(&line(9, &value(8))), None);
        assert_eq!(envelope(&line(9, "something else")), Some((3, 9)));
    }

    #[test]
    fn counts_are_compared_where_nothing_is_kept() {
        assert_eq!(Delivery::counted(10, 8).lost, 2);
        assert_eq!(Delivery::counted(10, 11).doubled, 1);
        assert!(Delivery::counted(10, 10).is_exact());
    }
}
