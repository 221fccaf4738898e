//! A process: its log, its output, its receivers.

use super::{WorldSettings, settings_of};
use forebay::kafka::tenure::{Committed, Fold, Frame, Members, Membership, Ownership, Rule, Rules, Ticket};

/// A receiver: its client and what it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts about the client")]
pub(super) struct Receiver {
    /// What the client stamps commits with; `None` while it is no member.
    pub(super) membership: Option<Membership>,
    /// The client joined a generation, and the callback for it has not run.
    pub(super) to_call: bool,
    /// The partition is in the client's assignment.
    pub(super) assigned: bool,
    pub(super) closing: bool,
    /// It let go and has not joined again.
    pub(super) to_rejoin: bool,
    pub(super) leaving: bool,
    /// The client answered a revocation that the receiver has not heard of.
    pub(super) out_of_turn: bool,
    pub(super) read: Option<(Ticket, Committed)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    Frame(Frame),
    Block { tenure: u32, offset: i64 },
}

/// What is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Disk {
    pub(super) fold: Option<Fold>,
    /// Blocks neither delivered nor disowned.
    pub(super) blocks: Vec<(u32, i64)>,
    pub(super) delivered: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) first_slot: usize,
    pub(super) disk: Disk,
    /// Appended, not synced.
    pub(super) tail: Vec<Entry>,
    pub(super) ownership: Ownership,
    pub(super) members: Members,
    pub(super) receivers: Vec<Receiver>,
    pub(super) doubt_read: Option<(Ticket, Committed)>,
    /// The log is full.
    pub(super) full: bool,
}

impl Process {
    pub(super) fn start(&mut self, settings: &WorldSettings, wal: usize) {
        let receivers = settings.receivers[wal];
        self.ownership = Ownership::new(settings_of(wal, settings.rules), receivers, self.disk.fold);
        self.members = Members::new(receivers);
        self.receivers = vec![Receiver::default(); receivers];
        self.doubt_read = None;
        self.tail.clear();
    }

    /// What the log can make durable now, in its order. While it is full blocks wait, and so does what changes who owns
    /// the partition, except that a new tenure drops what waits of older ones (as `wal::queue` does).
    pub(super) fn take_tail(&mut self) -> Vec<Entry> {
        if !self.full {
            return std::mem::take(&mut self.tail);
        }
        let opened = |entry: &Entry| match entry {
            Entry::Frame(Frame::Owned { tenure, .. }) => Some(*tenure),
            _ => None,
        };
        let newest = self.tail.iter().filter_map(opened).max().unwrap_or(0);
        self.tail.retain(|entry| !matches!(entry, Entry::Block { tenure, .. } if *tenure < newest));
        let mut blocks_wait = false;
        let passes = |entry: &mut Entry| {
            blocks_wait |= matches!(entry, Entry::Block { .. });
            !blocks_wait || matches!(entry, Entry::Frame(Frame::Confirmed { .. }))
        };
        self.tail.extract_if(.., passes).collect()
    }

    /// Drops the blocks that wait for space.
    pub(super) fn withdraw(&mut self) {
        self.tail.retain(|entry| !matches!(entry, Entry::Block { .. }));
        self.ownership.withdrawn();
    }

    pub(super) fn append(&mut self, frames: Vec<Frame>) {
        self.tail.extend(frames.into_iter().map(Entry::Frame));
    }
}

impl Disk {
    /// Makes an entry durable and delivers what may be delivered then; an output is exactly what its receipts say.
    pub(super) fn store(&mut self, entry: &Entry, out: &mut [u8], rules: Rules) {
        match entry {
            Entry::Frame(frame) => {
                self.fold.get_or_insert_default().apply(frame);
                if let Frame::Disowned { tenure, first, next } = frame {
                    self.blocks.retain(|(of, offset)| of > tenure || offset < first || offset >= next);
                }
            }
            Entry::Block { tenure, offset } => {
                self.fold.get_or_insert_default().admitted = offset + 1;
                self.blocks.push((*tenure, *offset));
            }
        }
        let acked = self.fold.and_then(|fold| fold.acked);
        let open = |offset: i64| !rules.hold(Rule::Fence) || acked.is_some_and(|acked| offset < acked);
        while let Some(at) = self.blocks.iter().position(|(_, offset)| open(*offset)) {
            let (_, offset) = self.blocks.remove(at);
            if offset >= self.delivered {
                out[offset as usize] += 1;
                self.delivered = offset + 1;
            }
        }
    }
}
