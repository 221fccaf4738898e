//! Names the blocks in a damaged place: by the frame header if that is good, else by the footer. Never writes.

use super::{Damage, index};
use crate::io::File;
use crate::wal::format::footer::IndexEntry;
use crate::wal::format::frame::Kind;
use std::sync::Arc;

/// The blocks in a damaged place of the segment, none if it held something else; `None` if it can't be known.
/// `sealed` is the end that a successor declares: without one there is no footer.
pub fn blocks(file: &Arc<dyn File>, salt: u64, damage: &Damage, sealed: Option<u64>) -> Option<Vec<IndexEntry>> {
    if let Some(header) = &damage.header {
        let block = header.kind == Kind::Block;
        return Some(if block { vec![IndexEntry::of(header)] } else { Vec::new() });
    }
    let index = index::find(file, salt, damage.position, sealed?)?.blocks;
    let inside = |e: &IndexEntry| damage.position <= e.position && e.position < damage.end;
    Some(index.into_iter().filter(inside).collect())
}
