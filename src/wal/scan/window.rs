//! A window that moves forward over a file: few large reads, slices out of them.
//!
//! Promises: memory is bounded by the largest slice asked for. A region that can't be read is shown as zeros and
//! remembered, so that the caller judges it like any other damage.

use crate::io::File;
use std::ops::Range;
use std::sync::Arc;

const CHUNK: usize = 1 << 20;
const PAGE: usize = 4096;

/// The window.
#[derive(Debug)]
pub struct Window {
    file: Arc<dyn File>,
    limit: u64,
    start: u64,
    buffer: Vec<u8>,
    unreadable: Vec<Range<u64>>,
}

impl Window {
    /// Looks at the first `limit` bytes of the file.
    pub fn new(file: Arc<dyn File>, limit: u64) -> Self {
        Self { file, limit, start: 0, buffer: Vec::new(), unreadable: Vec::new() }
    }

    /// Bytes that may be looked at.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// `len` bytes from `position` on; fewer only at the limit or the end of the file.
    pub fn bytes(&mut self, position: u64, len: usize) -> &[u8] {
        let len = len.min(self.limit.saturating_sub(position) as usize);
        let have = self.start..self.start + self.buffer.len() as u64;
        if len > 0 && (position < have.start || position + len as u64 > have.end) {
            self.fill(position, len);
        }
        let from = position.saturating_sub(self.start) as usize;
        let from = from.min(self.buffer.len());
        &self.buffer[from..self.buffer.len().min(from + len)]
    }

    /// True if part of the range could not be read.
    pub fn is_unreadable(&self, range: &Range<u64>) -> bool {
        let touches = |bad: &Range<u64>| bad.start < range.end && range.start < bad.end;
        self.unreadable.iter().any(touches)
    }

    fn fill(&mut self, position: u64, len: usize) {
        let end = self.start + self.buffer.len() as u64;
        let keep = if (self.start..end).contains(&position) {
            let from = (position - self.start) as usize;
            self.buffer.copy_within(from.., 0);
            self.buffer.len() - from
        } else {
            0
        };
        let want = len.max(CHUNK).min((self.limit - position) as usize);
        self.buffer.resize(want, 0);
        if self.buffer.capacity() > 4 * CHUNK && want <= CHUNK {
            self.buffer.shrink_to(CHUNK);
        }
        self.start = position;
        let filled = self.read(keep.min(want));
        self.buffer.truncate(filled);
    }

    /// Reads into the buffer from `at` on and returns how far it is filled.
    fn read(&mut self, mut at: usize) -> usize {
        while at < self.buffer.len() {
            let position = self.start + at as u64;
            match self.file.read_at(position, &mut self.buffer[at..]) {
                Ok(0) => break,
                Ok(read) => at += read,
                Err(_) => return self.read_pages(at),
            }
        }
        at
    }

    /// The slow way around what can't be read: page by page, zeros for the bad ones.
    fn read_pages(&mut self, mut at: usize) -> usize {
        while at < self.buffer.len() {
            let position = self.start + at as u64;
            let to_boundary = PAGE - (position % PAGE as u64) as usize;
            let to = self.buffer.len().min(at + to_boundary);
            match self.file.read_at(position, &mut self.buffer[at..to]) {
                Ok(0) => break,
                Ok(read) => at += read,
                Err(_) => {
                    self.buffer[at..to].fill(0);
                    self.unreadable.push(position..self.start + to as u64);
                    at = to;
                }
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Storage;
    use crate::io::sim::Sim;
    use std::path::Path;

    #[test]
    fn the_memory_of_a_large_slice_is_given_back() {
        const LARGE: usize = 5 * CHUNK;
        let sim = Sim::new(1);
        sim.create_dir_all(Path::new("/d")).unwrap();
        let file = sim.create_new(Path::new("/d/f")).unwrap();
        let len = (LARGE + CHUNK) as u64;
        file.set_len(len).unwrap();
        let mut window = Window::new(file, len);
        assert_eq!(window.bytes(0, LARGE).len(), LARGE);
        assert_eq!(window.bytes(LARGE as u64, 96).len(), 96);
        assert!(window.buffer.capacity() <= 4 * CHUNK, "{}", window.buffer.capacity());
    }
}
