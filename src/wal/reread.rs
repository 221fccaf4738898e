//! Reads blocks of one partition again from the segments that are still there.

use super::catalogue::{Catalogue, Listed};
use super::error::WalError;
use super::format::frame::Kind;
use super::scan::{Damage, Piece, Scanner, block_range};
use crate::io::Storage;
use crate::record::{Block, Partition};
use bytes::Bytes;

/// The blocks of `[first, next)` in offset order. Where offsets were logged twice (an earlier tenure's were disowned)
/// the later ones count. An error if part of the range is not in the log any more, or corrupt.
pub fn read_blocks(
    storage: &dyn Storage,
    catalogue: &Catalogue,
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
                let scanned = scan(storage, catalogue, &listed, &mut wanted);
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

fn scan(storage: &dyn Storage, catalogue: &Catalogue, listed: &Listed, wanted: &mut Wanted) -> Result<(), WalError> {
    let path = catalogue.path(listed.number);
    let file = storage.open(&path, false)?;
    let mut scanner = Scanner::new(file, listed.salt, listed.start, listed.first_lsn, listed.end);
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
            Piece::Damage(damage) if wanted.misses(&damage) => {
                let range = damage.header.as_ref().and_then(block_range);
                let (position, lsn, reason) = (damage.position, Some(damage.lsn), damage.reason);
                return Err(WalError::Corrupt { path, position, lsn, range, reason });
            }
            Piece::Frame(..) | Piece::Damage(_) => {}
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

    fn misses(&self, damage: &Damage) -> bool {
        damage.header.is_none_or(|h| {
            let wanted = h.partition == self.partition && h.first < self.next && self.first < h.next;
            h.kind == Kind::Block && wanted
        })
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
