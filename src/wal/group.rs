//! One sync group: frames encoded one after the other, block payloads left where they lie. Pure bytes.
//!
//! Promises: no allocation per frame but the arena's growth, which is kept from group to group; the last frame is padded
//! to a 4 KiB boundary.

use super::format::entry::Entry;
use super::format::footer::{self, IndexEntry};
use super::format::frame::{FRAME_HEADER, FrameHeader, Kind, digested};
use super::format::payload::PayloadError;
use super::format::{align_up, page_up};
use super::segment::Active;
use crate::record::Lsn;
use crate::record::batch::payload_crc;
use crc32fast::Hasher;
use std::io::IoSlice;
use std::ops::Range;

/// A piece of a group: encoded here, or the payload of the block with this index.
#[derive(Debug)]
enum Chunk {
    Arena(Range<usize>),
    Payload(usize),
}

/// The group. Reused.
#[derive(Debug, Default)]
pub struct Group {
    arena: Vec<u8>,
    chunks: Vec<Chunk>,
    headers: Vec<FrameHeader>,
    digest: Hasher,
    salt: u64,
    position: u64,
    lsn: Lsn,
    synced_through: Lsn,
}

impl Group {
    /// Forgets the last group.
    pub fn clear(&mut self) {
        self.headers.clear();
        self.chunks.clear();
        self.arena.clear();
    }

    /// Begins a group at the segment's position; everything up to `synced_through` was synced.
    pub fn begin(&mut self, active: &Active, next_lsn: Lsn, synced_through: Lsn) {
        self.clear();
        self.digest.clone_from(&active.digest);
        (self.salt, self.position) = (active.salt, active.position);
        (self.lsn, self.synced_through) = (next_lsn, synced_through);
    }

    /// Adds the frame of entry number `i`.
    pub fn push(&mut self, i: usize, entry: &Entry, ends_group: bool) -> Result<(), PayloadError> {
        let start = self.reserve();
        let mut header = entry.encode(&mut self.arena)?;
        header.lsn = self.lsn;
        self.place(header, start, ends_group, Some(i));
        self.lsn += 1;
        Ok(())
    }

    /// Adds the footer; it ends the group.
    pub fn push_footer(&mut self, index: &[IndexEntry]) -> Result<(), PayloadError> {
        let start = self.reserve();
        footer::encode(index, &mut self.arena)?;
        let payload = &self.arena[start + FRAME_HEADER..];
        let mut header = FrameHeader::new(Kind::Footer);
        header.payload_len = payload.len() as u32;
        header.payload_crc = payload_crc(payload);
        header.lsn = self.lsn - 1;
        self.place(header, start, true, None);
        Ok(())
    }

    /// The frames' headers, the footer's included.
    pub fn headers(&self) -> &[FrameHeader] {
        &self.headers
    }

    /// The LSN after the group's last frame.
    pub fn next_lsn(&self) -> Lsn {
        self.lsn
    }

    /// The position after the group.
    pub fn end(&self) -> u64 {
        self.position
    }

    /// The segment's digest with this group.
    pub fn digest(&self) -> &Hasher {
        &self.digest
    }

    /// The bytes, in order.
    pub fn slices<'a>(&'a self, entries: &'a [Entry]) -> Vec<IoSlice<'a>> {
        let slice = |chunk: &Chunk| match chunk {
            Chunk::Arena(range) => IoSlice::new(&self.arena[range.clone()]),
            Chunk::Payload(i) => match &entries[*i] {
                Entry::Block(block) => IoSlice::new(&block.payload),
                _ => IoSlice::new(&[]),
            },
        };
        self.chunks.iter().map(slice).collect()
    }

    fn reserve(&mut self) -> usize {
        let start = self.arena.len();
        self.arena.resize(start + FRAME_HEADER, 0);
        start
    }

    /// Completes the frame whose header is reserved in the arena at `start`.
    fn place(&mut self, mut header: FrameHeader, start: usize, ends_group: bool, i: Option<usize>) {
        (header.position, header.synced_through) = (self.position, self.synced_through);
        let end = self.position + FRAME_HEADER as u64 + u64::from(header.payload_len);
        // The next group must not share a page, and so no sector, with acknowledged bytes.
        self.position = if ends_group { page_up(end) } else { align_up(end) };
        header.pad_len = (self.position - end) as u32;
        let encoded = header.encode(self.salt);
        self.arena[start..start + FRAME_HEADER].copy_from_slice(&encoded);
        self.digest.update(digested(&encoded));
        self.push_arena(start..self.arena.len());
        if let (Kind::Block, Some(i)) = (header.kind, i) {
            self.chunks.push(Chunk::Payload(i));
        }
        let pad = self.arena.len();
        self.arena.resize(pad + header.pad_len as usize, 0);
        self.push_arena(pad..self.arena.len());
        self.headers.push(header);
    }

    fn push_arena(&mut self, range: Range<usize>) {
        match self.chunks.last_mut() {
            _ if range.is_empty() => {}
            Some(Chunk::Arena(last)) if last.end == range.start => last.end = range.end,
            _ => self.chunks.push(Chunk::Arena(range)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::wal::testing::{P, block};

    #[test]
    fn frames_that_follow_each_other_are_one_piece_and_payloads_stay_where_they_lie() {
        let confirmed = Entry::Confirmed { partition: P, tenure: 1, next: 0 };
        // Each ends on a frame boundary: nothing is padded, and nothing empty is written.
        let entries = [confirmed.clone(), confirmed.clone(), block(0, 16), confirmed, block(0, 16)];
        let mut group = Group::default();
        for (i, entry) in entries.iter().enumerate() {
            group.push(i, entry, false).unwrap();
        }
        let lengths: Vec<usize> = group.slices(&entries).iter().map(|slice| slice.len()).collect();
        assert_eq!(lengths, [3 * FRAME_HEADER, 16, 2 * FRAME_HEADER, 16]);
        assert_eq!(group.end(), lengths.iter().sum::<usize>() as u64);
    }
}
