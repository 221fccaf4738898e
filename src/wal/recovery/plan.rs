//! Decides what the next segment is made of. Pure, but for the new salt and id.

use crate::record::Lsn;
use crate::wal::error::WalError;
use crate::wal::format::frame::FrameHeader;
use crate::wal::format::header::Predecessor;
use crate::wal::format::state::State;
use crate::wal::options::Entropy;
use crate::wal::scan::segment::{Cut, SegmentScan};
use crate::wal::scan::survey::Survey;
use crate::wal::segment::wal_name;
use std::path::Path;

/// What recovery will do.
#[derive(Debug)]
pub struct Plan {
    /// Number of the segment to build; it replaces a file of that name if there is one.
    pub number: u64,
    /// Its salt.
    pub salt: u64,
    /// LSN of its first frame.
    pub first_lsn: Lsn,
    /// What its header says of the segment before it.
    pub predecessor: Predecessor,
    /// The fold of everything before its first frame.
    pub state: State,
    /// The fold of everything recovered.
    pub final_state: State,
    /// The next LSN.
    pub next_lsn: Lsn,
    /// Frames to copy into it, from this segment.
    pub tail: Vec<FrameHeader>,
    /// The segment that holds them.
    pub tail_from: u64,
    /// Where a torn tail begins, in `tail_from`.
    pub torn_at: Option<u64>,
}

/// Decides.
pub fn plan(survey: &Survey, dir: &Path, entropy: &mut Entropy) -> Result<Plan, WalError> {
    let salt = entropy.number()?;
    let Some(last) = survey.segments.last() else {
        return Ok(first_segment(salt, State::new(entropy.id()?)));
    };
    let lost = |what: &str| {
        let lsn = Some(last.next_lsn);
        WalError::corrupt(&dir.join(wal_name(last.number)), last.end, lsn, what.to_owned())
    };
    let final_state = survey.state.clone().ok_or_else(|| lost("no state is left"))?;
    if survey.broken {
        return Err(lost("frames are missing that the state depends on"));
    }
    // An undamaged last segment without a block of its own is replaced: crash loops must leak no segments, and on a full
    // disk each would take a spare.
    let replaces = last.tail.is_whole && !last.damaged;
    let cut = if replaces { &last.start_cut } else { &last.cut };
    let cut = cut.clone().ok_or_else(|| lost("no state is left"))?;
    let predecessor = if replaces { last.header.predecessor } else { ends_at(last, &cut) };
    let copied = |h: &&FrameHeader| h.position >= cut.position && h.kind.has_lsn();
    Ok(Plan {
        number: last.number + u64::from(!replaces),
        salt,
        first_lsn: cut.lsn,
        predecessor,
        final_state,
        next_lsn: last.next_lsn,
        tail: last.tail.headers.iter().filter(copied).copied().collect(),
        tail_from: last.number,
        torn_at: last.torn_at,
        state: cut.state,
    })
}

fn first_segment(salt: u64, state: State) -> Plan {
    Plan {
        number: 1,
        salt,
        first_lsn: 1,
        predecessor: Predecessor::default(),
        final_state: state.clone(),
        state,
        next_lsn: 1,
        tail: Vec::new(),
        tail_from: 0,
        torn_at: None,
    }
}

fn ends_at(last: &SegmentScan, cut: &Cut) -> Predecessor {
    Predecessor {
        number: last.number,
        salt: last.header.salt,
        end_lsn: cut.lsn,
        end_position: cut.position,
        digest: cut.digest.unwrap_or(0),
    }
}

impl Plan {
    /// About how many bytes the new segment is built with.
    pub fn state_bytes(&self) -> u64 {
        let mut payload = Vec::new();
        // A state that can't be encoded is found and told when the segment is built.
        let _ = self.state.encode(&mut payload);
        let tail: u64 = self.tail.iter().map(FrameHeader::frame_len).sum();
        2 * payload.len() as u64 + tail
    }
}
