//! Looks at segments: frame by frame ([`Scanner`]), one whole segment ([`segment`]), the whole directory ([`survey`]).
//!
//! Promises: never writes. Shared by recovery, `wal check`, `wal dump` and the feed. Every byte up to the end of a
//! segment is verified; a length is believed only after the header that carries it was.

pub mod finding;
pub mod index;
pub mod lost;
pub mod quick;
pub mod segment;
mod spread;
pub mod states;
pub mod survey;
pub mod window;
pub mod witness;

use super::format::frame::{FRAME_HEADER, FRAME_MAGIC, FrameHeader, Kind, digested};
use super::format::{ALIGN, align_up, is_zero};
use crate::io::{File, IoError};
use crate::record::Lsn;
use crate::record::batch::payload_crc;
use crc32fast::Hasher;
use std::sync::Arc;
use window::Window;

/// Which part of a frame does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPart {
    /// The header: what the frame was is not known.
    Header,
    /// The payload, under a good header.
    Payload,
    /// The zero bytes after a good payload.
    Pad,
}

/// Bytes that are not a valid frame.
#[derive(Clone, Debug)]
pub struct Damage {
    /// Where it begins: where a frame should.
    pub position: u64,
    /// Where the next valid frame begins, or the limit.
    pub end: u64,
    /// The LSN expected here.
    pub lsn: Lsn,
    /// The LSN expected at its end.
    pub end_lsn: Lsn,
    /// The bad part.
    pub part: BadPart,
    /// The frame's header if that is good.
    pub header: Option<FrameHeader>,
    /// Part of it could not be read.
    pub unreadable: bool,
    /// No valid frame follows: in the last segment this is simply the end.
    pub is_last: bool,
    /// What is wrong, for people.
    pub reason: String,
}

/// What comes next in a segment.
#[derive(Debug)]
pub enum Piece<'a> {
    /// A valid frame.
    Frame(FrameHeader, &'a [u8]),
    /// Something else.
    Damage(Damage),
}

/// Reads frame after frame. Never writes, never fails: what can't be read is damage.
#[derive(Debug)]
pub struct Scanner {
    window: Window,
    salt: u64,
    position: u64,
    lsn: Lsn,
    digest: Option<Hasher>,
    before: Option<Hasher>,
}

impl Scanner {
    /// Starts at `position`, where the frame with `lsn` is expected, and stops at `limit`.
    pub fn new(file: Arc<dyn File>, salt: u64, position: u64, lsn: Lsn, limit: u64) -> Self {
        let window = Window::new(file, limit);
        Self { window, salt, position, lsn, digest: None, before: None }
    }

    /// Goes on with a digest over the frame headers before the start.
    #[must_use]
    pub fn with_digest(mut self, digest: Option<Hasher>) -> Self {
        self.digest.clone_from(&digest);
        self.before = digest;
        self
    }

    /// CRC-32 over all frame headers so far; `None` when one was damaged.
    pub fn digest(&self) -> Option<u32> {
        self.digest.clone().map(Hasher::finalize)
    }

    /// The same without the last piece.
    pub fn digest_before(&self) -> Option<u32> {
        self.before.clone().map(Hasher::finalize)
    }

    /// Where the next piece begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next LSN expected.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The next piece; `None` at the limit.
    pub fn next_piece(&mut self) -> Option<Piece<'_>> {
        if self.position >= self.window.limit() {
            return None;
        }
        match self.header_at(self.position) {
            Ok(header) if self.in_order(&header) && header.end() <= self.window.limit() => Some(self.frame(header)),
            Ok(header) => {
                let (found, lsn) = (header.lsn, self.lsn);
                let reason = format!("frame with LSN {found} where LSN {lsn} was expected");
                Some(Piece::Damage(self.skip_unknown(reason)))
            }
            Err(reason) => Some(Piece::Damage(self.skip_unknown(reason))),
        }
    }

    fn header_at(&mut self, position: u64) -> Result<FrameHeader, String> {
        let salt = self.salt;
        let bytes = self.window.bytes(position, FRAME_HEADER);
        FrameHeader::decode(bytes, salt, position).map_err(|error| error.to_string())
    }

    fn in_order(&self, header: &FrameHeader) -> bool {
        let has_lsn = header.kind.has_lsn();
        has_lsn && header.lsn == self.lsn || !has_lsn && header.lsn.wrapping_add(1) == self.lsn
    }

    fn frame(&mut self, header: FrameHeader) -> Piece<'_> {
        let (position, lsn) = (self.position, self.lsn);
        self.position = header.end();
        self.lsn += u64::from(header.kind.has_lsn());
        let unreadable = {
            let _ = self.window.bytes(position, header.frame_len() as usize);
            self.window.is_unreadable(&(position..header.end()))
        };
        let bytes = self.window.bytes(position, header.frame_len() as usize);
        self.before.clone_from(&self.digest);
        if let Some(digest) = &mut self.digest {
            digest.update(digested(&bytes[..FRAME_HEADER]));
        }
        let payload_end = FRAME_HEADER + header.payload_len as usize;
        let (part, reason) = match check_body(&header, bytes, payload_end) {
            Ok(()) if !unreadable => {
                return Piece::Frame(header, &bytes[FRAME_HEADER..payload_end]);
            }
            Ok(()) => (BadPart::Payload, "can't be read".to_owned()),
            Err(bad) => bad,
        };
        Piece::Damage(Damage {
            position,
            end: header.end(),
            lsn,
            end_lsn: lsn + u64::from(header.kind.has_lsn()),
            part,
            header: Some(header),
            unreadable,
            is_last: false,
            reason,
        })
    }

    /// Goes on at the next valid header of this salt, or at the limit.
    fn skip_unknown(&mut self, reason: String) -> Damage {
        let (position, lsn) = (self.position, self.lsn);
        self.before = self.digest.take();
        let mut at = align_up(position + 1);
        let found = loop {
            match self.next_magic(at) {
                None => break None,
                Some(candidate) => match self.header_at(candidate) {
                    Ok(header) if header.lsn >= lsn.saturating_sub(1) => break Some(header),
                    _ => at = candidate + ALIGN,
                },
            }
        };
        let limit = self.window.limit();
        self.position = found.map_or(limit, |header| header.position);
        if let Some(header) = found {
            self.lsn = header.lsn + u64::from(!header.kind.has_lsn());
        }
        let first = position..(position + FRAME_HEADER as u64).min(limit);
        Damage {
            position,
            end: self.position,
            lsn,
            end_lsn: self.lsn,
            part: BadPart::Header,
            header: None,
            unreadable: self.window.is_unreadable(&first),
            is_last: found.is_none(),
            reason,
        }
    }

    fn next_magic(&mut self, mut at: u64) -> Option<u64> {
        const STEP: usize = 64 << 10;
        let magic = FRAME_MAGIC.to_le_bytes();
        while at < self.window.limit() {
            let bytes = self.window.bytes(at, STEP);
            if bytes.len() < FRAME_HEADER {
                return None;
            }
            let words = bytes.chunks_exact(ALIGN as usize);
            if let Some(word) = words.clone().position(|word| word[..4] == magic) {
                return Some(at + word as u64 * ALIGN);
            }
            at += words.len() as u64 * ALIGN;
        }
        None
    }
}

/// The payload of a frame whose header is good; what the file no longer has is zero.
pub(crate) fn read_payload(file: &dyn File, header: &FrameHeader) -> Result<Vec<u8>, IoError> {
    let mut payload = vec![0; header.payload_len as usize];
    file.read_at(header.position + FRAME_HEADER as u64, &mut payload)?;
    Ok(payload)
}

fn check_body(header: &FrameHeader, bytes: &[u8], end: usize) -> Result<(), (BadPart, String)> {
    if bytes.len() < header.frame_len() as usize {
        return Err((BadPart::Payload, "the file ends inside the frame".to_owned()));
    }
    let (found, expected) = (payload_crc(&bytes[FRAME_HEADER..end]), header.payload_crc);
    if found != expected {
        let reason = format!("payload crc {found:08x}, expected {expected:08x}");
        return Err((BadPart::Payload, reason));
    }
    if !is_zero(&bytes[end..]) {
        return Err((BadPart::Pad, "padding is not zero".to_owned()));
    }
    Ok(())
}

/// The range of a block, for messages.
pub(crate) fn block_range(header: &FrameHeader) -> Option<(crate::record::Partition, i64, i64)> {
    (header.kind == Kind::Block).then_some((header.partition, header.first, header.next))
}
