//! Reads blocks of one partition again from the segments that are still there.

use super::catalogue::{Catalogue, Listed};
use super::error::WalError;
use super::format::footer::IndexEntry;
use super::format::frame::Kind;
use super::repair::Repairs;
use super::scan::finding::CorruptBlock;
use super::scan::{BadPart, Damage, Piece, Scanner, lost, read_payload};
use crate::io::Storage;
use crate::record::{Block, Partition};
use bytes::Bytes;
use std::sync::Arc;

/// The blocks of `[first, next)` in offset order. Where offsets were logged twice (an earlier tenure's were disowned)
/// the later ones count. An error if part of the range is not in the log any more, or corrupt and not repaired: then the
/// repair is asked for.
pub fn read_blocks(
    storage: &dyn Storage,
    catalogue: &Catalogue,
    repairs: &Repairs,
    partition: Partition,
    first: i64,
    next: i64,
) -> Result<Vec<Block>, WalError> {
    // Ranges without records leave no trace in the sums of sealed segments: if something is missing, look everywhere.
    for look_everywhere in [false, true] {
        let mut wanted = Wanted { partition, first, next, blocks: Vec::new(), covered: Vec::new() };
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
    wanted: &mut Wanted,
) -> Result<(), WalError> {
    let path = catalogue.path(listed.number);
    let file = storage.open(&path, false)?;
    let mut scanner = Scanner::new(Arc::clone(&file), listed.salt, listed.start, listed.first_lsn, listed.end);
    while let Some(piece) = scanner.next_piece() {
        match piece {
            Piece::Frame(header, payload) if header.partition == wanted.partition => {
                if let Some(block) = header.block() {
                    if wanted.note(block.first, block.next) {
                        let payload = Bytes::copy_from_slice(payload);
                        wanted.blocks.push(Block { header: block, payload });
                    }
                } else if matches!(header.kind, Kind::Empty | Kind::Gap) {
                    wanted.note(header.first, header.next);
                }
            }
            Piece::Damage(Damage { header: Some(header), part: BadPart::Pad, .. })
                if header.partition == wanted.partition =>
            {
                if let Some(block) = header.block().filter(|block| wanted.note(block.first, block.next)) {
                    let payload = read_payload(file.as_ref(), &header)?.into();
                    wanted.blocks.push(Block { header: block, payload });
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

struct Wanted {
    partition: Partition,
    first: i64,
    next: i64,
    blocks: Vec<Block>,
    covered: Vec<(i64, i64)>,
}

impl Wanted {
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
