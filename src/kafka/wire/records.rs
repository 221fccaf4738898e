//! What arrived for a partition, and its records, batch by batch.

use super::batches::{Batch, Walked};

use crate::kafka::consumer::Named;
use crate::kafka::fetched::Fetched;
use crate::record::batch::unpack::unpack;
use crate::record::batch::{self, HeaderRef, Record};
use bytes::Bytes;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::VecDeque;
use std::sync::Arc;

/// What of a batch that was unpacked is kept while the rest of it waits.
const UNPACKED_KEPT: usize = 4 << 20;

/// Something that arrived for a partition.
#[derive(Debug)]
pub struct Part {
    /// Whose.
    pub named: Arc<Named>,
    /// What.
    pub what: What,
}

/// See [`Part`].
#[derive(Debug)]
pub enum What {
    /// Records.
    Records(Records),
    /// Everything below this offset was handed out, and Kafka has no more for now.
    End(i64),
    /// Nothing is fetched until the partition is repositioned, if the code is one of a lost position or of damage.
    Error(RDKafkaErrorCode, String),
    /// The leader has another history from this offset on, or from an earlier one, and it lies below the position.
    Truncated {
        /// The offset.
        end: i64,
    },
}

/// Batches with records, some of them perhaps taken already.
#[derive(Debug)]
pub struct Records {
    bytes: Bytes,
    batches: VecDeque<Batch>,
    /// The offsets it covers are `[first, next)`.
    pub(super) first: i64,
    pub(super) next: i64,
    /// The leader epoch of the last batch.
    pub(super) epoch: i32,
    /// Records below are not to be taken.
    from: i64,
    /// The first batch's records, once it was unpacked.
    unpacked: Option<Vec<u8>>,
    /// Memory of the batch before it.
    spare: Vec<u8>,
}

impl Part {
    /// Bytes it counts with.
    pub(super) fn size(&self) -> usize {
        match &self.what {
            What::Records(records) => records.bytes.len(),
            _ => 0,
        }
    }
}

/// A record as it lies in a batch.
#[derive(Clone, Copy, Debug)]
pub struct WireRecord<'a> {
    record: Record<'a>,
    epoch: i32,
}

impl<'a> Fetched<'a> for WireRecord<'a> {
    #[inline]
    fn offset(&self) -> i64 {
        self.record.offset
    }

    #[inline]
    fn timestamp(&self) -> i64 {
        self.record.timestamp
    }

    #[inline]
    fn leader_epoch(&self) -> i32 {
        self.epoch
    }

    #[inline]
    fn key(&self) -> Option<&'a [u8]> {
        self.record.key
    }

    #[inline]
    fn value(&self) -> Option<&'a [u8]> {
        self.record.value
    }

    #[inline]
    fn headers(&self, out: &mut Vec<HeaderRef<'a>>) {
        out.clear();
        out.extend(self.record.headers.iter());
    }

    #[inline]
    fn encoded(&self) -> Option<&'a [u8]> {
        Some(self.record.encoded)
    }
}

/// Why the records of a batch can't be taken: its bytes are not what the format says, or unpack to too much.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("batch at offset {offset}: {why}")]
pub struct Unreadable {
    /// The batch's first offset.
    pub offset: i64,
    /// For people.
    pub why: String,
}

impl Records {
    /// The records of `[first, walked.next)`.
    pub(super) fn new(bytes: Bytes, walked: &Walked, first: i64) -> Self {
        let batches = walked.batches.iter().copied().collect();
        let (next, epoch) = (walked.next, walked.epoch);
        Self { bytes, batches, first, next, epoch, from: first, unpacked: None, spare: Vec::new() }
    }

    /// The rest is taken later: not much is kept of what was unpacked, since it would be for every partition.
    pub(super) fn rest(&mut self) {
        self.unpacked.take_if(|unpacked| unpacked.len() > UNPACKED_KEPT);
        self.spare = Vec::new();
    }

    /// True when no batch is left.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Makes the first batch's records readable.
    pub fn open(&mut self) -> Result<(), Unreadable> {
        let Some(batch) = self.batches.front() else { return Ok(()) };
        if batch.codec == 0 || self.unpacked.is_some() {
            return Ok(());
        }
        let mut out = std::mem::take(&mut self.spare);
        let unpacked = unpack(batch.codec, &self.bytes[batch.from..batch.to], &mut out);
        unpacked.map_err(|error| Unreadable { offset: batch.base, why: error.to_string() })?;
        self.unpacked = Some(out);
        Ok(())
    }

    /// The records of the first batch that were not taken yet, in order. To be called after [`Records::open`].
    pub fn first(&self) -> impl Iterator<Item = Result<WireRecord<'_>, Unreadable>> {
        let from = self.from;
        self.batches.front().into_iter().flat_map(move |batch| {
            let bytes = self.unpacked.as_deref().unwrap_or(&self.bytes[batch.from..batch.to]);
            let mut before = batch.base - 1;
            batch::section(bytes, batch.base, batch.base_timestamp, batch.count)
                .map(move |record| {
                    let damaged = |why| Unreadable { offset: batch.base, why };
                    let record = record.map_err(|error| damaged(error.to_string()))?;
                    if record.offset <= before || record.offset > batch.last {
                        return Err(damaged(format!("record offset {} is out of order", record.offset)));
                    }
                    before = record.offset;
                    let timestamp = batch.appended.unwrap_or(record.timestamp);
                    Ok(WireRecord { record: Record { timestamp, ..record }, epoch: batch.epoch })
                })
                .filter(move |record| record.as_ref().map_or(true, |record| record.record.offset >= from))
        })
    }

    /// Goes on behind this offset.
    pub fn taken_below(&mut self, next: i64) {
        self.from = self.from.max(next);
    }

    /// Goes on behind the first batch.
    pub fn pass(&mut self) {
        if let Some(unpacked) = self.unpacked.take() {
            self.spare = unpacked;
        }
        self.batches.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::super::batches::testing::{batch, marked, sealed};
    use super::super::batches::walk;
    use super::*;
    use proptest::prelude::*;

    /// Offsets of all records from `from` on, up to the first that can't be read.
    fn offsets(bytes: Vec<u8>, from: i64) -> (Vec<i64>, i64, bool) {
        let bytes = Bytes::from(bytes);
        let walked = walk(&bytes, from, -1, Vec::new());
        let mut records = Records::new(bytes, &walked, from);
        let (mut offsets, mut good) = (Vec::new(), walked.broken.is_none());
        while !records.is_empty() && good {
            good = records.open().is_ok();
            for record in records.first().take(if good { usize::MAX } else { 0 }) {
                match record {
                    Ok(record) => offsets.push(record.offset()),
                    Err(_) => good = false,
                }
            }
            records.pass();
        }
        (offsets, walked.next, good)
    }

    /// A batch with its records compressed.
    fn packed(codec: u8) -> Vec<u8> {
        let plain = batch(20, 30, &[20, 22, 29]);
        let (header, records) = plain.split_at(super::super::batches::HEADER);
        let mut whole = header.to_vec();
        match codec {
            2 => whole.extend(snap::raw::Encoder::new().compress_vec(records).unwrap()),
            _ => whole.extend(zstd::stream::encode_all(records, 1).unwrap()),
        }
        let length = whole.len() as u32 - 12;
        whole[8..12].copy_from_slice(&length.to_be_bytes());
        marked(whole, codec, -1)
    }

    #[test]
    fn records_of_plain_and_compressed_batches_in_their_order() {
        let all = [batch(10, 20, &[10, 11, 19]), packed(2), packed(4)].concat();
        let cut = all.len() - packed(4).len();
        assert_eq!(offsets(all[..cut].to_vec(), 11), (vec![11, 19, 20, 22, 29], 30, true));
        assert_eq!(offsets(packed(4), 22), (vec![22, 29], 30, true));
    }

    #[test]
    fn records_that_contradict_their_batch_are_not_taken() {
        let mut one_more = batch(10, 20, &[10, 11]);
        one_more[57..61].copy_from_slice(&3u32.to_be_bytes());
        let mut one_less = batch(10, 20, &[10, 11]);
        one_less[57..61].copy_from_slice(&1u32.to_be_bytes());
        let mut too_far = batch(10, 20, &[10, 19]);
        too_far[23..27].copy_from_slice(&5u32.to_be_bytes());
        for (name, bytes) in [("one more", one_more), ("one less", one_less), ("too far", too_far)] {
            assert!(!offsets(sealed(bytes), 10).2, "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_nothing_is_taken_out_of_its_range_and_nothing_panics(
            changes in prop::collection::vec((0usize..10_000, any::<u8>()), 0..6),
            resealed in any::<bool>(),
            cut in 0usize..10_000,
            from in 0i64..40,
        ) {
            let parts = [batch(0, 20, &[0, 10, 11, 19]), packed(2), batch(30, 40, &[30, 39])];
            let mut bytes = Vec::new();
            for part in parts {
                let mut part = part;
                for (at, value) in &changes {
                    let at = at % (part.len() * 3);
                    if at < part.len() {
                        part[at] = *value;
                    }
                }
                bytes.extend(if resealed { sealed(part) } else { part });
            }
            bytes.truncate(cut.max(1) % (bytes.len() + 1));
            let (offsets, next, good) = offsets(bytes, from);
            prop_assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(offsets.iter().all(|offset| *offset >= from));
            prop_assert!(!good || offsets.iter().all(|offset| *offset < next));
        }
    }
}
