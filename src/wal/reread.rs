//! Reads blocks of one partition again from the segments that are still there.

use super::catalogue::{Catalogue, Listed};
use super::error::WalError;
use super::format::entry::Entry;
use super::format::footer::IndexEntry;
use super::format::frame::FrameHeader;
use super::format::state::{Disowned, looks_back};
use super::repair::Repairs;
use super::scan::finding::CorruptBlock;
use super::scan::{BadPart, Damage, Piece, Scanner, lost, read_payload};
use crate::io::Storage;
use crate::record::{Block, BlockHeader, Lsn, Partition};
use bytes::Bytes;
use std::sync::Arc;

/// The blocks of `[first, next)` in offset order, without those that were disowned. Where offsets were logged twice the
/// later ones count; what lay elsewhere between two tenures, and what was passed over, has no blocks. An error if part of
/// the range is not in the log any more, or corrupt and not repaired: then the repair is asked for.
pub fn read_blocks(
    storage: &dyn Storage,
    catalogue: &Catalogue,
    repairs: &Repairs,
    disowned: &[Disowned],
    (partition, first, next): (Partition, i64, i64),
) -> Result<Vec<Block>, WalError> {
    // Ranges without records and new tenures leave no trace in the sums of sealed segments: if something is missing, look
    // everywhere.
    for look_everywhere in [false, true] {
        let mut wanted = Wanted { partition, first, next, disowned, blocks: Vec::new(), covered: Vec::new() };
        for number in catalogue.numbers() {
            let Some(listed) = catalogue.get(number) else { continue };
            if look_everywhere || may_hold(&listed, partition, first, next) {
                let scanned = scan(storage, catalogue, repairs, &listed, &mut wanted);
                // A segment that was retired meanwhile holds nothing that is still wanted.
                scanned.or_else(|error| catalogue.get(number).map_or(Ok(()), |_| Err(error)))?;
            }
        }
        if wanted.is_covered() {
            return Ok(wanted.blocks);
        }
    }
    Err(WalError::NotKept { partition, first, next })
}

fn may_hold(listed: &Listed, partition: Partition, first: i64, next: i64) -> bool {
    let touches = |(p, f, n): (Partition, i64, i64)| p == partition && f < next && first < n;
    !listed.sealed || listed.runs.ranges().any(touches)
}

fn scan(
    storage: &dyn Storage,
    catalogue: &Catalogue,
    repairs: &Repairs,
    listed: &Listed,
    wanted: &mut Wanted<'_>,
) -> Result<(), WalError> {
    let path = catalogue.path(listed.number);
    let file = storage.open(&path, false)?;
    let mut scanner = Scanner::new(Arc::clone(&file), listed.salt, listed.start, listed.first_lsn, listed.end);
    while let Some(piece) = scanner.next_piece() {
        match piece {
            Piece::Frame(header, payload) if header.partition == wanted.partition => match header.block() {
                Some(block) => {
                    if wanted.note_block(header.lsn, &block) {
                        let payload = Bytes::copy_from_slice(payload);
                        wanted.blocks.push(Block { header: block, payload });
                    }
                }
                None => wanted.note_other(&header, payload),
            },
            Piece::Damage(Damage { header: Some(header), part: BadPart::Pad, .. })
                if header.partition == wanted.partition =>
            {
                let payload = || read_payload(file.as_ref(), &header);
                match header.block() {
                    Some(block) if wanted.note_block(header.lsn, &block) => {
                        wanted.blocks.push(Block { header: block, payload: payload()?.into() });
                    }
                    Some(_) => {}
                    None => wanted.note_other(&header, &payload()?),
                }
            }
            Piece::Damage(damage) => {
                let sealed = listed.sealed.then_some(listed.end);
                let Some(lost) = lost::blocks(&file, listed.salt, &damage, sealed) else {
                    return Err(WalError::corrupt(&path, damage.position, Some(damage.lsn), damage.reason));
                };
                let ours = |named: &&IndexEntry| wanted.is_of(named);
                for named in lost.iter().filter(ours).copied().collect::<Vec<_>>() {
                    let block = CorruptBlock::new(&path, listed.number, listed.salt, &named, damage.header);
                    wanted.mend(repairs, &block, &damage)?;
                }
            }
            Piece::Frame(..) => {}
        }
    }
    Ok(())
}

struct Wanted<'a> {
    partition: Partition,
    first: i64,
    next: i64,
    disowned: &'a [Disowned],
    blocks: Vec<Block>,
    covered: Vec<(i64, i64)>,
}

impl Wanted<'_> {
    /// Notes a block; true if it is wanted.
    fn note_block(&mut self, lsn: Lsn, block: &BlockHeader) -> bool {
        self.note(block.first, block.next) && !self.is_disowned(lsn, block.tenure, block.first)
    }

    /// Notes what is no block: it says why offsets have none.
    fn note_other(&mut self, header: &FrameHeader, payload: &[u8]) {
        let entry = Entry::decode(header, &Bytes::copy_from_slice(payload));
        match entry {
            Ok(Some(Entry::Empty { first, next, .. })) => {
                self.note(first, next);
            }
            // A gap that looks back says what became of Kafka's records, not of the log's.
            Ok(Some(Entry::Gap { first, next, reason, .. })) if !looks_back(&reason) => {
                self.note(first, next);
            }
            Ok(Some(Entry::Owned { first, .. })) => self.jump(first),
            _ => {}
        }
    }

    /// A tenure begins: what lies between the last one and it was owned elsewhere.
    fn jump(&mut self, first: i64) {
        let end = self.covered.iter().map(|range| range.1).max();
        if let Some(end) = end.filter(|end| *end < first) {
            self.covered.push((end, first));
        }
    }

    fn is_disowned(&self, lsn: Lsn, tenure: u32, first: i64) -> bool {
        self.disowned.iter().any(|range| lsn < range.lsn && range.covers(tenure, first))
    }

    /// Notes a range; true if it is wanted. What was noted from its start on is superseded.
    fn note(&mut self, first: i64, next: i64) -> bool {
        if next <= self.first || self.next <= first {
            return false;
        }
        self.blocks.retain(|block| block.header.first < first);
        self.covered.retain(|range| range.0 < first);
        self.covered.push((first, next));
        true
    }

    fn is_of(&self, named: &IndexEntry) -> bool {
        named.partition() == self.partition && named.first < self.next && self.first < named.next
    }

    /// Takes a damaged block from its repair file.
    fn mend(&mut self, repairs: &Repairs, damaged: &CorruptBlock, damage: &Damage) -> Result<(), WalError> {
        if self.is_disowned(damaged.lsn, damaged.tenure, damaged.first) {
            self.note(damaged.first, damaged.next);
            return Ok(());
        }
        let Some(block) = repairs.find(damaged) else {
            repairs.want(damaged);
            let (path, position, reason) = (damaged.path.clone(), damaged.position, damage.reason.clone());
            let range = Some((damaged.partition, damaged.first, damaged.next));
            return Err(WalError::Corrupt { path, position, lsn: Some(damaged.lsn), range, reason });
        };
        if self.note(block.header.first, block.header.next) {
            self.blocks.push(block);
        }
        Ok(())
    }

    fn is_covered(&self) -> bool {
        let mut at = self.first;
        for (first, next) in &self.covered {
            if *first > at {
                return false;
            }
            at = at.max(*next);
        }
        at >= self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::format::state::TenureRange;
    use crate::wal::retention::Runs;

    const P: Partition = Partition { topic: 1, number: 0 };
    const Q: Partition = Partition { topic: 1, number: 1 };

    /// Damage in a segment that has nothing of a range must not keep the range from being read.
    #[test]
    fn a_sealed_segment_is_looked_at_first_only_if_a_block_of_it_touches_the_range() {
        let mut runs = Runs::default();
        runs.note_range(P, 1, TenureRange { tenure: 1, first: 5, next: 10 });
        let runs = Arc::new(runs);
        let (salt, first_lsn, start, end, len) = (1, 1, 8192, 1 << 16, 1 << 16);
        let sealed = Listed { number: 1, salt, first_lsn, start, end, len, runs, sealed: true, verified: true };
        let ranges = [(P, 5, 10), (P, 3, 6), (P, 9, 12), (P, 6, 7), (P, 3, 5), (P, 10, 12), (Q, 5, 10)];
        let found = ranges.map(|(partition, first, next)| may_hold(&sealed, partition, first, next));
        assert_eq!(found, [true, true, true, true, false, false, false]);
        // The blocks of the segment that is written to are not summed up yet.
        let active = Listed { sealed: false, runs: Arc::default(), ..sealed };
        assert!(may_hold(&active, P, 5, 10));
    }
}
