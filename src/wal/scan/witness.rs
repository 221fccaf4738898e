//! What the frames of the last segment witness about each other. Never writes.

use super::segment::Segment;
use super::{BadPart, Piece, Scanner, read_payload, states};
use crate::record::Lsn;
use crate::wal::format::FRAMES_START;
use crate::wal::format::entry::Entry;
use crate::wal::format::frame::{FrameHeader, Kind};
use bytes::Bytes;
use std::sync::Arc;

/// The highest `synced_through` in the last segment, and what its frames say of retired segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// The highest `synced_through` of all frames with a good header.
    pub synced: Lsn,
    /// The highest `RetiredBelow` among the frames that count.
    pub retired_below: u64,
}

/// Looks over the whole last segment for what its frames witness.
pub fn witness(segment: &Segment) -> Witness {
    let header = &segment.header;
    let start = states::read(&segment.file, header, segment.len).end.unwrap_or(FRAMES_START);
    let file = Arc::clone(&segment.file);
    let mut scanner = Scanner::new(file, header.salt, start, header.first_lsn, segment.len);
    let mut synced = header.first_lsn.saturating_sub(1);
    let (mut retired, mut damaged) = (Vec::new(), Vec::new());
    let mut note = |frame: &FrameHeader, payload: &[u8]| {
        let entry = || Entry::decode(frame, &Bytes::copy_from_slice(payload));
        if frame.kind == Kind::RetiredBelow
            && let Ok(Some(Entry::RetiredBelow { segment, .. })) = entry()
        {
            retired.push((frame.lsn, segment));
        }
    };
    while let Some(piece) = scanner.next_piece() {
        match piece {
            Piece::Damage(damage) => {
                // A good header alone says what was synced before it was encoded.
                synced = synced.max(damage.header.map_or(0, |header| header.synced_through));
                if damage.position >= header.built_end {
                    damaged.push(damage.lsn);
                }
                // Damage behind a frame leaves the frame as it is.
                if let (Some(frame), BadPart::Pad) = (&damage.header, damage.part)
                    && let Ok(payload) = read_payload(segment.file.as_ref(), frame)
                {
                    note(frame, &payload);
                }
            }
            Piece::Frame(frame, payload) => {
                synced = synced.max(frame.synced_through);
                note(&frame, payload);
            }
        }
    }
    let torn = damaged.into_iter().find(|lsn| *lsn > synced).unwrap_or(Lsn::MAX);
    let counts = retired.iter().filter(|(lsn, _)| *lsn < torn).map(|(_, segment)| *segment);
    let retired_below = counts.max().unwrap_or(0).max(header.retired_below);
    Witness { synced, retired_below }
}
