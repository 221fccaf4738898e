//! The ownership state machines of all partitions, shared by the receivers of one log.

use crate::kafka::gap::Gap;
use crate::kafka::tenure::{Fold, Frame, Members, Ownership, Settings};
use crate::record::{Partition, TopicId};
use crate::wal::Entry;
use std::collections::HashMap;

/// Who owns what, as far as this log knows.
#[derive(Debug)]
pub struct Owners {
    /// The receivers as group members.
    pub members: Members,
    settings: Settings,
    receivers: usize,
    known: HashMap<Partition, Ownership>,
}

impl Owners {
    /// From the recovered log: `known` has each partition's topic id and fold.
    pub fn new(
        receivers: usize,
        settings: Settings,
        known: impl IntoIterator<Item = (Partition, TopicId, Fold)>,
    ) -> Self {
        let own = |(partition, topic, fold)| {
            (partition, Ownership::new(Settings { topic, ..settings }, receivers, Some(fold)))
        };
        Self { members: Members::new(receivers), settings, receivers, known: known.into_iter().map(own).collect() }
    }

    /// The machine of a partition; a new one if the log does not know it.
    pub fn of(&mut self, partition: Partition, topic: TopicId) -> &mut Ownership {
        let (settings, receivers) = (Settings { topic, ..self.settings }, self.receivers);
        self.known.entry(partition).or_insert_with(|| Ownership::new(settings, receivers, None))
    }

    /// The machine of a partition that is known.
    pub fn get(&mut self, partition: Partition) -> Option<&mut Ownership> {
        self.known.get_mut(&partition)
    }

    /// True if the log knows the partition.
    pub fn knows(&self, partition: Partition) -> bool {
        self.known.get(&partition).is_some_and(|ownership| ownership.fold().is_some())
    }

    /// Partitions with blocks in doubt that nobody here owns.
    pub fn in_doubt(&self) -> Vec<Partition> {
        let unsettled = self.known.iter().filter(|(_, ownership)| ownership.may_settle(&self.members).is_some());
        unsettled.map(|(partition, _)| *partition).collect()
    }
}

/// The log's entry of a gap: its reason begins with a word that the log knows.
pub fn gap_entry(partition: Partition, tenure: u32, gap: &Gap) -> Entry {
    let reason = format!("{}: {gap}", gap.word());
    Entry::Gap { partition, tenure, first: gap.first, next: gap.next, reason }
}

/// The log's entry of an ownership frame.
pub fn entry(partition: Partition, frame: &Frame) -> Entry {
    match frame {
        Frame::Owned { tenure, first, next, acked } => {
            Entry::Owned { partition, tenure: *tenure, first: *first, next: *next, acked_entries: acked.to_string() }
        }
        Frame::Disowned { tenure, first, next } => {
            Entry::Disowned { partition, tenure: *tenure, first: *first, next: *next }
        }
        Frame::Confirmed { tenure, next } => Entry::Confirmed { partition, tenure: *tenure, next: *next },
        Frame::Gap { tenure, gap } => gap_entry(partition, *tenure, gap),
    }
}
