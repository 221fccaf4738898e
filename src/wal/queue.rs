//! What waits to be logged, in order; while there is no space, which of it may pass. Pure but for the callers' answers.
//!
//! Promises: blocks keep their order; entries of one partition never overtake its waiting blocks; receipts,
//! confirmations and names do.

use super::error::WalError;
use super::format::entry::Entry;
use crate::record::{Lsn, Partition};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

/// Where the answer to a caller that waits goes.
pub type Reply = SyncSender<Result<Lsn, Arc<WalError>>>;

/// Entries that are answered together.
#[derive(Debug)]
pub struct Unit {
    /// The entries; none: the caller waits for everything before.
    pub entries: Vec<Entry>,
    /// Who waits.
    pub reply: Option<Reply>,
}

impl Unit {
    /// Bytes of its frames, at most.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(Entry::bytes).sum()
    }
}

/// Whether blocks may be logged now.
pub struct Full<'a> {
    /// Disk or quota is full.
    pub is_full: bool,
    /// Whether an entry, after so many bytes of others, can be logged without waiting for a spare.
    pub has_room: &'a dyn Fn(&Entry, u64) -> bool,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    units: VecDeque<Unit>,
    /// Held back for want of space; older than all of `units`.
    waiting: VecDeque<Unit>,
    /// Taken once and not logged; per partition older than what waits.
    returned: VecDeque<Unit>,
    bytes: u64,
}

impl Queue {
    /// Adds at the end.
    pub fn push(&mut self, unit: Unit) {
        self.bytes += unit.bytes();
        self.units.push_back(unit);
    }

    /// Back to the front, after it was taken.
    pub fn put_back(&mut self, unit: Unit) {
        self.returned.push_front(unit);
    }

    /// So many bytes were logged.
    pub fn settled(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Bytes queued and waiting.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True if there is something that was not held back.
    pub fn is_ready(&self) -> bool {
        !self.units.is_empty() || !self.returned.is_empty()
    }

    /// True if something is held back.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes from the front up to `limit` bytes (or one unit) into the batch; notes where each unit ends.
    pub fn take(
        &mut self,
        limit: u64,
        full: &Full<'_>,
        batch: &mut Vec<Entry>,
        ends: &mut Vec<(usize, Option<Reply>)>,
    ) {
        // The oldest first.
        let mut held = std::mem::take(&mut self.returned);
        held.append(&mut self.waiting);
        let mut blocked: HashSet<Partition> = HashSet::new();
        let mut ahead = batch.iter().map(Entry::bytes).sum::<u64>();
        while ahead < limit {
            let Some(unit) = held.pop_front().or_else(|| self.units.pop_front()) else {
                break;
            };
            self.supersede(&unit, &mut blocked);
            if must_wait(&unit, full, ahead, &blocked, self.is_waiting()) {
                blocked.extend(unit.entries.iter().filter(|e| is_admission(e)).filter_map(Entry::partition));
                self.waiting.push_back(unit);
                continue;
            }
            ahead += unit.bytes();
            batch.extend(unit.entries);
            ends.push((batch.len(), unit.reply));
        }
        self.waiting.append(&mut held);
    }

    /// A tenure that opens was decided by what is durable: what still waits of the partition's older ones is dropped.
    fn supersede(&mut self, unit: &Unit, blocked: &mut HashSet<Partition>) {
        for entry in &unit.entries {
            let Entry::Owned { partition, tenure, .. } = entry else {
                continue;
            };
            let older = |u: &Unit| {
                let old = |e: &Entry| e.partition() == Some(*partition) && is_older(e, *tenure);
                u.reply.is_none() && !u.entries.is_empty() && u.entries.iter().all(old)
            };
            let dropped = self.waiting.iter().filter(|u| older(u)).map(Unit::bytes).sum::<u64>();
            self.bytes = self.bytes.saturating_sub(dropped);
            self.waiting.retain(|u| !older(u));
            let still = |u: &Unit| u.entries.iter().any(|e| e.partition() == Some(*partition));
            if !self.waiting.iter().any(still) {
                blocked.remove(partition);
            }
        }
    }

    /// Drops what was admitted for a partition in `tenure` and older ones and is not logged.
    pub fn withdraw(&mut self, partition: Partition, tenure: u32) {
        let moot = |u: &Unit| {
            let old = |e: &Entry| e.partition() == Some(partition) && is_older(e, tenure + 1);
            u.reply.is_none() && !u.entries.is_empty() && u.entries.iter().all(old)
        };
        for units in [&mut self.returned, &mut self.waiting, &mut self.units] {
            let dropped = units.iter().filter(|u| moot(u)).map(Unit::bytes).sum::<u64>();
            self.bytes = self.bytes.saturating_sub(dropped);
            units.retain(|u| !moot(u));
        }
    }

    /// Takes out everyone who waits for an answer.
    pub fn drain_replies(&mut self) -> impl Iterator<Item = Reply> + '_ {
        self.returned.drain(..).chain(self.waiting.drain(..)).chain(self.units.drain(..)).filter_map(|unit| unit.reply)
    }
}

fn must_wait(unit: &Unit, full: &Full<'_>, ahead: u64, blocked: &HashSet<Partition>, others_wait: bool) -> bool {
    if unit.entries.is_empty() {
        return others_wait;
    }
    unit.entries.iter().any(|entry| {
        let is_behind = || entry.partition().is_some_and(|p| blocked.contains(&p));
        match entry {
            // Blocks keep their order among each other.
            Entry::Block(_) => full.is_full || others_wait || !(full.has_room)(entry, ahead),
            _ => is_admission(entry) && is_behind(),
        }
    })
}

/// True for entries that move a partition's admitted offset or change what is owned.
fn is_admission(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::Block(_)
            | Entry::Empty { .. }
            | Entry::Gap { .. }
            | Entry::Owned { .. }
            | Entry::Disowned { .. }
            | Entry::Returning { .. }
    )
}

fn is_older(entry: &Entry, than: u32) -> bool {
    match entry {
        Entry::Block(block) => block.header.tenure < than,
        Entry::Empty { tenure, .. } | Entry::Gap { tenure, .. } => *tenure < than,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Block, BlockHeader};

    const P: Partition = Partition { topic: 1, number: 0 };
    const Q: Partition = Partition { topic: 1, number: 1 };

    fn block(partition: Partition, tenure: u32, first: i64) -> Entry {
        let header = BlockHeader {
            partition,
            first,
            next: first + 1,
            leader_epoch: 0,
            tenure,
            count: 1,
            digest: 0,
            payload_crc: 0,
        };
        Entry::Block(Block { header, payload: bytes::Bytes::new() })
    }

    fn owned(partition: Partition, tenure: u32) -> Entry {
        let acked_entries = String::new();
        Entry::Owned { partition, tenure, first: 0, next: 0, acked_entries }
    }

    fn confirmed(partition: Partition) -> Entry {
        Entry::Confirmed { partition, tenure: 1, next: 0 }
    }

    fn take(queue: &mut Queue, is_full: bool) -> Vec<(super::super::format::frame::Kind, Option<Partition>)> {
        let full = Full { is_full, has_room: &|_, _| true };
        let (mut batch, mut ends) = (Vec::new(), Vec::new());
        queue.take(1 << 20, &full, &mut batch, &mut ends);
        let bytes = batch.iter().map(Entry::bytes).sum();
        queue.settled(bytes);
        batch.iter().map(|e| (e.kind(), e.partition())).collect()
    }

    fn queue(entries: Vec<Entry>) -> Queue {
        let mut queue = Queue::default();
        for entry in entries {
            queue.push(Unit { entries: vec![entry], reply: None });
        }
        queue
    }

    #[test]
    fn while_full_blocks_wait_in_order_and_receipts_pass() {
        use super::super::format::frame::Kind::{Block, Confirmed, Empty};
        let empty = |partition| Entry::Empty { partition, tenure: 1, first: 1, next: 2 };
        let mut queue = queue(vec![block(P, 1, 0), empty(P), empty(Q), confirmed(P)]);
        assert_eq!(take(&mut queue, true), [(Empty, Some(Q)), (Confirmed, Some(P))]);
        assert!(queue.is_waiting() && !queue.is_ready());
        queue.push(Unit { entries: vec![block(P, 1, 2)], reply: None });
        let all = [(Block, Some(P)), (Empty, Some(P)), (Block, Some(P))];
        assert_eq!(take(&mut queue, false), all);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn what_comes_back_goes_before_what_waits() {
        let mut queue = queue(vec![block(P, 1, 1)]);
        assert_eq!(take(&mut queue, true), []);
        queue.put_back(Unit { entries: vec![block(P, 1, 0)], reply: None });
        let full = Full { is_full: false, has_room: &|_, _| true };
        let (mut batch, mut ends) = (Vec::new(), Vec::new());
        queue.take(1 << 20, &full, &mut batch, &mut ends);
        let firsts = batch.iter().map(|e| if let Entry::Block(b) = e { b.header.first } else { -1 });
        assert_eq!(firsts.collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_new_tenure_drops_what_waits_of_the_old_one() {
        use super::super::format::frame::Kind::{Block, Owned};
        let mut queue = queue(vec![block(P, 1, 0), block(Q, 1, 0), owned(P, 2), block(P, 2, 0)]);
        assert_eq!(take(&mut queue, true), [(Owned, Some(P))]);
        assert_eq!(take(&mut queue, false), [(Block, Some(Q)), (Block, Some(P))]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn what_is_withdrawn_is_gone_and_nothing_else() {
        use super::super::format::frame::Kind::{Block, Confirmed};
        let mut queue = queue(vec![block(P, 1, 0), block(Q, 1, 0)]);
        assert_eq!(take(&mut queue, true), []);
        for entry in [block(P, 1, 1), block(P, 2, 2), confirmed(P)] {
            queue.push(Unit { entries: vec![entry], reply: None });
        }
        queue.withdraw(P, 1);
        assert_eq!(take(&mut queue, false), [(Block, Some(Q)), (Block, Some(P)), (Confirmed, Some(P))]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn bytes_count_until_they_are_logged_or_dropped() {
        use super::super::format::frame::Kind::Confirmed;
        let mut queue = queue(vec![block(P, 1, 0), confirmed(P), block(Q, 1, 0)]);
        let (of_block, of_confirmed) = (block(P, 1, 0).bytes(), confirmed(P).bytes());
        assert_eq!(queue.bytes(), 2 * of_block + of_confirmed);
        assert_eq!(take(&mut queue, true), [(Confirmed, Some(P))]);
        assert_eq!(queue.bytes(), 2 * of_block, "what waits counts");
        queue.withdraw(P, 1);
        assert_eq!(queue.bytes(), of_block);
    }

    #[test]
    fn what_is_not_held_back_is_ready_whether_it_is_new_or_came_back() {
        let mut queue = queue(vec![block(P, 1, 0)]);
        assert!(queue.is_ready() && !queue.is_waiting());
        assert_eq!(take(&mut queue, true), []);
        assert!(!queue.is_ready() && queue.is_waiting());
        queue.put_back(Unit { entries: vec![confirmed(P)], reply: None });
        assert!(queue.is_ready());
    }

    #[test]
    fn a_batch_that_has_reached_its_limit_takes_nothing_more() {
        let mut queue = queue(vec![block(P, 1, 0), block(P, 1, 1)]);
        let full = Full { is_full: false, has_room: &|_, _| true };
        let (mut batch, mut ends) = (Vec::new(), Vec::new());
        queue.take(block(P, 1, 0).bytes(), &full, &mut batch, &mut ends);
        assert_eq!((batch.len(), ends.len()), (1, 1));
        assert!(queue.is_ready());
    }

    #[test]
    fn who_waits_for_an_answer_is_not_dropped() {
        use super::super::format::frame::Kind::{Block, Owned};
        let (reply, _answer) = std::sync::mpsc::sync_channel(1);
        let mut queue = Queue::default();
        queue.push(Unit { entries: vec![block(P, 1, 0)], reply: Some(reply) });
        queue.withdraw(P, 1);
        assert!(queue.is_ready());
        queue.push(Unit { entries: vec![owned(P, 2)], reply: None });
        assert_eq!(take(&mut queue, true), [], "the new tenure comes after it");
        assert_eq!(take(&mut queue, false), [(Block, Some(P)), (Owned, Some(P))]);
    }

    #[test]
    fn ranges_without_records_are_withdrawn_like_blocks() {
        use super::super::format::frame::Kind::{Empty, Gap};
        let empty = |tenure| Entry::Empty { partition: P, tenure, first: 0, next: 1 };
        let gap = |tenure| Entry::Gap { partition: P, tenure, first: 0, next: 1, reason: String::new() };
        let mut queue = queue(vec![empty(1), gap(1), empty(2), gap(2), empty(3), gap(3)]);
        queue.withdraw(P, 2);
        assert_eq!(take(&mut queue, false), [(Empty, Some(P)), (Gap, Some(P))]);
        assert_eq!(queue.bytes(), 0);
    }
}
