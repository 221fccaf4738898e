//! Names the blocks in a damaged place: by the frame header if that is good, else by the footer, else by what is missing
//! between the frames around it ([`super::infer`]). Never writes.

use super::{Damage, index, infer, states, survey};
use crate::io::{File, Storage};
use crate::record::Lsn;
use crate::wal::catalogue::Catalogue;
use crate::wal::format::footer::IndexEntry;
use crate::wal::format::frame::Kind;
use crate::wal::format::state::State;
use std::path::Path;
use std::sync::Arc;

/// A block that can't be read where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What it was.
    pub entry: IndexEntry,
    /// False if record count and digest are not known: then nothing can prove that another copy is the same.
    pub has_digest: bool,
}

/// A segment, and what its successor says.
pub struct Place<'a> {
    /// The segment.
    pub file: &'a Arc<dyn File>,
    /// Its salt.
    pub salt: u64,
    /// Position and LSN that end it, if a successor declares them: without one there is no footer.
    pub sealed: Option<(u64, Lsn)>,
    /// Reads the state at the beginning of the successor, if there is one.
    pub after: &'a dyn Fn() -> Option<State>,
}

/// The blocks in a damaged place of the segment, none if it held something else; `None` if it can't be known.
pub fn blocks(place: &Place<'_>, damage: &Damage) -> Option<Vec<Lost>> {
    let known = |entry: IndexEntry| Lost { entry, has_digest: true };
    if let Some(header) = &damage.header {
        let block = header.kind == Kind::Block;
        return Some(if block { vec![known(IndexEntry::of(header))] } else { Vec::new() });
    }
    let find = |(end, _)| index::find(place.file, place.salt, damage.position, end);
    let Some(index) = place.sealed.and_then(find) else {
        return infer::blocks(place, damage);
    };
    let inside = |e: &IndexEntry| damage.position <= e.position && e.position < damage.end;
    Some(index.blocks.into_iter().filter(inside).map(known).collect())
}

/// The state at the beginning of the segment after this one.
pub fn state_after(storage: &dyn Storage, catalogue: &Catalogue, number: u64) -> Option<State> {
    let next = catalogue.get(number + 1)?;
    state_of(storage, catalogue.dir(), next.number)
}

/// The state at the beginning of a segment.
pub fn state_of(storage: &dyn Storage, dir: &Path, number: u64) -> Option<State> {
    let segment = survey::open(storage, dir, number, &mut Vec::new()).ok()??;
    states::read(&segment.file, &segment.header, segment.len).state
}
