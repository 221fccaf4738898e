//! The record batches of an answer: which of them hold records to take, and where the next fetch begins. Pure.
//!
//! Promises: every batch that is handed on is whole and fits its CRC-32C; markers and the records of aborted transactions
//! are left out, exactly as far as the broker's list of them says. Never: it does not decompress.

use bytes::Bytes;
use std::collections::HashSet;

/// Bytes before the first record of a batch.
pub const HEADER: usize = 61;
/// What the length field of a batch does not count.
const BEFORE_LENGTH: usize = 12;
/// Where the bytes begin that the checksum covers.
const CHECKED: usize = 21;
const MAGIC: u8 = 2;
const MAGIC_AT: usize = 16;

/// One batch with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where its records begin in the answer.
    pub from: usize,
    /// Where they end.
    pub to: usize,
    /// Its first offset.
    pub base: i64,
    /// The last offset of the batch, whether it has a record or not.
    pub last: i64,
    /// The leader epoch it was written in.
    pub epoch: i32,
    /// Kafka's number of the codec, 0 for none.
    pub codec: u8,
    /// What the timestamps of its records are counted from, in milliseconds.
    pub base_timestamp: i64,
    /// The broker's time of appending, which then holds for all records.
    pub appended: Option<i64>,
    /// Records.
    pub count: u32,
}

/// What an answer holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Walked {
    /// The batches with records to take, in order.
    pub batches: Vec<Batch>,
    /// One past the last offset of the last whole batch.
    pub next: i64,
    /// The leader epoch of that batch.
    pub epoch: i32,
    /// Why it ended early.
    pub broken: Option<Broken>,
}

/// Why a walk ended before the end of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A batch that can't be trusted; it is the one that [`Walked::next`] lies in.
    Damaged(String),
    /// A format this does not read.
    Unknown(String),
}

/// A transaction that was aborted, and the first offset of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// Whose.
    pub producer: i64,
    /// Its first offset.
    pub first: i64,
}

/// Walks what was fetched from `(next, epoch)` on. `aborted` is the broker's list; it need not be sorted.
pub fn walk(bytes: &Bytes, next: i64, epoch: i32, mut aborted: Vec<Aborted>) -> Walked {
    aborted.sort_by_key(|transaction| std::cmp::Reverse(transaction.first));
    let mut walked = Walked { batches: Vec::new(), next, epoch, broken: None };
    let mut aborting: HashSet<i64> = HashSet::new();
    let (mut at, mut before) = (0, -1);
    // Every format has its number at the same place; older ones are shorter.
    while let Some(beginning) = bytes.get(at..=at + MAGIC_AT) {
        if beginning[MAGIC_AT] != MAGIC {
            walked.broken = Some(Broken::Unknown(format!("a batch of format {}", beginning[MAGIC_AT])));
            return walked;
        }
        let Some(header) = bytes.get(at..at + HEADER) else { break };
        let length = i32_at(header, 8);
        let end = usize::try_from(length).ok().and_then(|length| (at + BEFORE_LENGTH).checked_add(length));
        let Some(end) = end.filter(|end| *end >= at + HEADER) else {
            walked.broken = Some(Broken::Damaged(format!("batch at offset {}: length {length}", i64_at(header, 0))));
            return walked;
        };
        // The last batch may be cut.
        let Some(whole) = bytes.get(at..end) else { break };
        if let Err(broken) = check(whole, before) {
            walked.broken = Some(broken);
            return walked;
        }
        let (base, last) = (i64_at(whole, 0), i64_at(whole, 0) + i64::from(i32_at(whole, 23)));
        let epoch = i32_at(whole, 12);
        let takes = takes(whole, last, &mut aborted, &mut aborting);
        if last >= walked.next {
            if takes {
                walked.batches.push(batch(whole, at, (base, last), epoch));
            }
            (walked.next, walked.epoch) = (last + 1, epoch);
        }
        (at, before) = (end, last);
    }
    walked
}

/// `before` is the last offset of the batch before it.
fn check(whole: &[u8], before: i64) -> Result<(), Broken> {
    let (base, delta, count) = (i64_at(whole, 0), i32_at(whole, 23), i32_at(whole, 57));
    let (expected, found) = (i32_at(whole, 17) as u32, crc32c::crc32c(&whole[CHECKED..]));
    if expected != found {
        let text = format!("batch at offset {base}: crc-32c {found:08x}, expected {expected:08x}");
        return Err(Broken::Damaged(text));
    }
    // The checksum does not cover what the broker writes: the first offset and the epoch.
    let is_beyond = base.checked_add(i64::from(delta)).is_none_or(|last| last == i64::MAX);
    if base <= before || delta < 0 || count < 0 || is_beyond {
        let text = format!("batch at offset {base}, after {before}: {count} records over {delta} offsets");
        return Err(Broken::Damaged(text));
    }
    match whole[22] & 7 {
        0..=4 => Ok(()),
        codec => Err(Broken::Unknown(format!("a batch compressed with codec {codec}"))),
    }
}

/// True if the batch holds records that were committed, or never were part of a transaction.
fn takes(whole: &[u8], last: i64, aborted: &mut Vec<Aborted>, aborting: &mut HashSet<i64>) -> bool {
    let (transactional, control) = (whole[22] & 0x10 != 0, whole[22] & 0x20 != 0);
    let producer = i64_at(whole, 43);
    while let Some(begun) = aborted.pop_if(|transaction| transaction.first <= last) {
        aborting.insert(begun.producer);
    }
    if control {
        // Any marker ends what this producer had open.
        aborting.remove(&producer);
        return false;
    }
    !(transactional && aborting.contains(&producer))
}

fn batch(whole: &[u8], at: usize, (base, last): (i64, i64), epoch: i32) -> Batch {
    Batch {
        from: at + HEADER,
        to: at + whole.len(),
        base,
        last,
        epoch,
        codec: whole[22] & 7,
        base_timestamp: i64_at(whole, 27),
        appended: (whole[22] & 8 != 0).then(|| i64_at(whole, 35)),
        count: i32_at(whole, 57) as u32,
    }
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    i64::from_be_bytes(field)
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    i32::from_be_bytes(field)
}

#[cfg(test)]
#[allow(missing_docs)]
pub mod testing {
    use crate::record::batch::{BatchBuilder, RecordRef};

    /// A batch of records at these offsets, as a broker has it; the range is `[first, next)`.
    pub fn batch(first: i64, next: i64, offsets: &[i64]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Vec::new(), first);
        for &offset in offsets {
            let value = format!("value {offset}");
            let value = Some(value.as_bytes());
            builder.push(&RecordRef { offset, timestamp: 1000 + offset, key: None, value, headers: &[] });
        }
        builder.finish(next, 7).buffer
    }

    /// The same with attributes and a producer.
    pub fn marked(mut batch: Vec<u8>, attributes: u8, producer: i64) -> Vec<u8> {
        batch[22] = attributes;
        batch[43..51].copy_from_slice(&producer.to_be_bytes());
        sealed(batch)
    }

    /// The same with a checksum that fits.
    pub fn sealed(mut batch: Vec<u8>) -> Vec<u8> {
        let crc = crc32c::crc32c(&batch[super::CHECKED..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{batch, marked, sealed};
    use super::*;

    const TRANSACTIONAL: u8 = 0x10;
    const MARKER: u8 = 0x30;

    fn walked(bytes: Vec<u8>, next: i64, aborted: &[(i64, i64)]) -> Walked {
        let aborted = aborted.iter().map(|&(producer, first)| Aborted { producer, first }).collect();
        walk(&Bytes::from(bytes), next, 3, aborted)
    }

    fn firsts(walked: &Walked) -> Vec<i64> {
        walked.batches.iter().map(|batch| batch.base).collect()
    }

    #[test]
    fn what_is_aborted_and_markers_are_passed_over_and_nothing_else() {
        let bytes = [
            marked(batch(10, 12, &[10, 11]), TRANSACTIONAL, 1), // committed at 16
            marked(batch(12, 14, &[12, 13]), TRANSACTIONAL, 2), // aborted at 15
            batch(14, 15, &[14]),                               // no transaction
            marked(batch(15, 16, &[15]), MARKER, 2),
            marked(batch(16, 17, &[16]), MARKER, 1),
            marked(batch(17, 18, &[17]), TRANSACTIONAL, 2), // the next one of the same producer, committed
            marked(batch(18, 19, &[18]), MARKER, 2),
        ]
        .concat();
        let all = walked(bytes.clone(), 10, &[(2, 12)]);
        assert_eq!((firsts(&all), all.next, all.epoch), (vec![10, 14, 17], 19, 7));
        let twice = walked(bytes.clone(), 10, &[(2, 17), (2, 12)]);
        assert_eq!(firsts(&twice), [10, 14], "both were aborted, and the list need not be in order");
        assert_eq!(firsts(&walked(bytes.clone(), 10, &[])), [10, 12, 14, 17]);
        assert_eq!(firsts(&walked(bytes, 16, &[(2, 12)])), [17], "its marker lies before the position");
    }

    #[test]
    fn a_fetch_begins_inside_a_batch_and_ends_inside_another() {
        let (one, two) = (batch(5, 10, &[5, 6, 9]), batch(10, 12, &[10, 11]));
        let whole = [one.clone(), two.clone()].concat();
        for cut in one.len()..whole.len() {
            let walked = walked(whole[..cut].to_vec(), 7, &[]);
            assert_eq!((firsts(&walked), walked.next), (vec![5], 10), "{cut} bytes");
            assert_eq!(walked.broken, None);
        }
        let behind = walked(whole.clone(), 10, &[]);
        assert_eq!(
            (firsts(&behind), behind.next),
            (vec![10], 12),
            "what lies before the position is no record of ours"
        );
        let nothing = walked(one[..one.len() - 1].to_vec(), 7, &[]);
        assert_eq!((nothing.next, nothing.epoch, nothing.batches.len()), (7, 3, 0), "no step without a whole batch");
    }

    #[test]
    fn no_flipped_bit_that_the_checksum_covers_gets_through() {
        let bytes = [batch(5, 10, &[5, 6, 9]), batch(10, 12, &[10, 11])].concat();
        let second = batch(5, 10, &[5, 6, 9]).len();
        for at in (12 + 4..second).chain(second + 12 + 4..bytes.len()) {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let walked = walked(flipped, 5, &[]);
                assert!(walked.broken.is_some(), "byte {at}, bit {bit}");
                assert_eq!(walked.next, if at < second { 5 } else { 10 });
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_damage_and_what_is_new_is_not_read() {
        let broken = |bytes: Vec<u8>| walked(bytes, 0, &[]).broken;
        let mut short = batch(5, 10, &[5]);
        short[8..12].copy_from_slice(&10i32.to_be_bytes());
        let mut backwards = batch(5, 10, &[5]);
        backwards[23..27].copy_from_slice(&(-1i32).to_be_bytes());
        let back = [batch(5, 10, &[5]), batch(9, 12, &[10])].concat();
        let mut far = batch(5, 10, &[5]);
        far[..8].copy_from_slice(&i64::MAX.to_be_bytes());
        let mut last = batch(5, 10, &[5]);
        last[..8].copy_from_slice(&(i64::MAX - 4).to_be_bytes());
        for (name, bytes) in
            [("length", short), ("delta", sealed(backwards)), ("order", back), ("end", far), ("last", last)]
        {
            assert!(matches!(broken(bytes), Some(Broken::Damaged(_))), "{name}");
        }
        let mut old = batch(5, 10, &[5]);
        old[16] = 1;
        let tail = old[..30].to_vec();
        for (name, bytes) in [("format", old), ("tail", tail), ("codec", marked(batch(5, 10, &[5]), 5, -1))] {
            assert!(matches!(broken(bytes), Some(Broken::Unknown(_))), "{name}");
        }
    }
}
