//! Reads the two `State` frames at the beginning of a segment. Never writes.

use super::check_body;
use super::window::Window;
use crate::io::File;
use crate::wal::format::frame::{FRAME_HEADER, FrameHeader, Kind, digested};
use crate::wal::format::header::SegmentHeader;
use crate::wal::format::state::State;
use crate::wal::format::{FRAMES_START, PAGE};
use crc32fast::Hasher;
use std::sync::Arc;

/// A damaged copy.
#[derive(Clone, Debug)]
pub struct BadState {
    /// Where the copy begins.
    pub position: u64,
    /// It could not be read.
    pub unreadable: bool,
    /// What is wrong.
    pub reason: String,
}

/// What was found.
#[derive(Debug)]
pub struct States {
    /// The first good copy.
    pub state: Option<State>,
    /// The bad copies.
    pub bad: Vec<BadState>,
    /// Where the frames after the copies begin; `None` when neither header is good.
    pub end: Option<u64>,
    /// Digest over the two frame headers; `None` when neither is good.
    pub digest: Option<Hasher>,
}

/// Reads both copies.
pub fn read(file: &Arc<dyn File>, header: &SegmentHeader, len: u64) -> States {
    let limit = header.built_end.min(len);
    let mut window = Window::new(Arc::clone(file), limit);
    let salt = header.salt;
    let first = header_at(&mut window, salt, FRAMES_START);
    let second_at = match &first {
        Some(found) => Some(found.end()),
        None => find_second(&mut window, salt, limit),
    };
    let Some(second_at) = second_at else {
        return States { state: None, bad: Vec::new(), end: None, digest: None };
    };
    let second = header_at(&mut window, salt, second_at);
    let mut states = States { state: None, bad: Vec::new(), end: None, digest: None };
    states.end = Some(second_at + (second_at - FRAMES_START));
    for (position, found) in [(FRAMES_START, &first), (second_at, &second)] {
        match whole(&mut window, found.as_ref()) {
            Ok(state) => {
                states.state.get_or_insert(state);
            }
            Err(reason) => {
                let range = position..position + (second_at - FRAMES_START);
                let unreadable = window.is_unreadable(&range);
                states.bad.push(BadState { position, unreadable, reason });
            }
        }
    }
    states.digest = first.or(second).map(|good| {
        let mut digest = Hasher::new();
        for position in [FRAMES_START, second_at] {
            digest.update(digested(&FrameHeader { position, ..good }.encode(salt)));
        }
        digest
    });
    states
}

fn header_at(window: &mut Window, salt: u64, position: u64) -> Option<FrameHeader> {
    let limit = window.limit();
    let header = FrameHeader::decode(window.bytes(position, FRAME_HEADER), salt, position).ok()?;
    let fits = header.end() <= limit && header.end().is_multiple_of(PAGE);
    (header.kind == Kind::State && fits).then_some(header)
}

/// The first copy's header is bad: the second begins on some page and ends where twice its length says.
fn find_second(window: &mut Window, salt: u64, limit: u64) -> Option<u64> {
    let mut at = FRAMES_START + PAGE;
    while at < limit {
        if let Some(header) = header_at(window, salt, at)
            && header.frame_len() == at - FRAMES_START
        {
            return Some(at);
        }
        at += PAGE;
    }
    None
}

fn whole(window: &mut Window, header: Option<&FrameHeader>) -> Result<State, String> {
    let header = header.ok_or("frame header of the state is damaged")?;
    let bytes = window.bytes(header.position, header.frame_len() as usize);
    let payload_end = FRAME_HEADER + header.payload_len as usize;
    check_body(header, bytes, payload_end).map_err(|(_, reason)| reason)?;
    State::decode(&bytes[FRAME_HEADER..payload_end]).map_err(|error| error.to_string())
}
