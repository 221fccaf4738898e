//! Finds the footer of a sealed segment, from its end backwards. Never writes.
//!
//! What it says is only as good as its checksums: whoever relies on it reads the frames too, sooner or later.

use super::check_body;
use super::window::Window;
use crate::io::File;
use crate::wal::format::ALIGN;
use crate::wal::format::footer::{self, IndexEntry};
use crate::wal::format::frame::{FRAME_HEADER, FRAME_MAGIC, FrameHeader, Kind};
use std::sync::Arc;

/// The first look takes in so much; each further one four times as much.
const FIRST_LOOK: u64 = 64 << 10;

/// A footer that verifies.
#[derive(Debug)]
pub struct Index {
    /// Where its frame begins.
    pub position: u64,
    /// The segment's blocks, in LSN order.
    pub blocks: Vec<IndexEntry>,
}

/// The footer that ends at `end`; `None` if there is none, or it is damaged. Looks no further back than `start`.
pub fn find(file: &Arc<dyn File>, salt: u64, start: u64, end: u64) -> Option<Index> {
    // A successor may say anything.
    if end > file.len().ok()? {
        return None;
    }
    let mut window = Window::new(Arc::clone(file), end);
    let (mut look, mut to) = (FIRST_LOOK, end);
    while to > start {
        let from = (end.saturating_sub(look)).max(start) / ALIGN * ALIGN;
        if let Some(header) = last_in(&mut window, salt, from, to, end) {
            return whole(&mut window, &header);
        }
        // A header can lie across the border.
        to = if from > start { from + FRAME_HEADER as u64 } else { start };
        look *= 4;
    }
    None
}

/// The last footer header in `[from, to)` whose frame ends at `end`.
fn last_in(window: &mut Window, salt: u64, from: u64, to: u64, end: u64) -> Option<FrameHeader> {
    let magic = FRAME_MAGIC.to_le_bytes();
    let bytes = window.bytes(from, (to - from) as usize);
    let places = bytes.chunks_exact(ALIGN as usize).enumerate().rev();
    let mut headers = places.filter(|(_, word)| word[..4] == magic).filter_map(|(i, _)| {
        let at = i * ALIGN as usize;
        let header = FrameHeader::decode(bytes.get(at..at + FRAME_HEADER)?, salt, from + at as u64).ok()?;
        (header.kind == Kind::Footer && header.end() == end).then_some(header)
    });
    headers.next()
}

fn whole(window: &mut Window, header: &FrameHeader) -> Option<Index> {
    let bytes = window.bytes(header.position, header.frame_len() as usize);
    let payload_end = FRAME_HEADER + header.payload_len as usize;
    check_body(header, bytes, payload_end).ok()?;
    let blocks = footer::decode(&bytes[FRAME_HEADER..payload_end]).ok()?;
    Some(Index { position: header.position, blocks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Storage;
    use crate::io::sim::Sim;
    use std::path::Path;

    #[test]
    fn an_end_beyond_the_file_is_not_looked_for() {
        let sim = Sim::new(1);
        sim.create_dir_all(Path::new("/d")).unwrap();
        let file = sim.create_new(Path::new("/d/f")).unwrap();
        file.set_len(64 << 10).unwrap();
        assert!(find(&file, 1, 8192, u64::MAX / 2).is_none());
    }
}
