//! The log's work: takes what is queued, makes it durable group by group, tells everyone. Who does it: [`super::leader`].
//!
//! Promises: one write, in pieces if it is large, and one sync per group; entries of a partition keep their order; while disk
//! or quota is full, blocks wait here and receipts still go through. After a failed write or sync nothing more is written,
//! and nothing that was not durable is handed on. All decisions about bytes are the [`Writer`]'s.

use super::catalogue::Location;
use super::error::WalError;
use super::format::entry::Entry;
use super::handover::Handover;
use super::marks::Marks;
use super::options::Options;
use super::queue::{Full, Queue, Reply, Unit};
use super::writer::Writer;
use crate::record::{Lsn, Partition};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long a full disk is left alone before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long the thread sleeps at most when nothing is due.
const SLEEP: Duration = Duration::from_secs(1);
/// How long a spare that is being made is waited for before requests are looked at again.
const BRIEFLY: Duration = Duration::from_millis(2);

/// What the thread tells everyone.
#[derive(Debug)]
pub struct Shared {
    /// The last durable LSN.
    pub durable: AtomicU64,
    /// Disk or quota is full: no blocks are admitted.
    pub full: AtomicBool,
    /// Bytes on the way to the thread.
    pub sent: AtomicUsize,
    /// Bytes the thread has taken and not made durable yet.
    pub queued: AtomicUsize,
    /// The lowest segment with a block that some route still needs.
    pub oldest_live: AtomicU64,
    /// Why nothing more is written.
    pub failure: OnceLock<Arc<WalError>>,
    /// Watermarks.
    pub marks: Marks,
    /// The way to the feed.
    pub handover: Arc<Handover>,
}

impl Shared {
    /// What is known when a log was recovered.
    pub fn new(writer: &Writer, feed_from: Location, options: &Options) -> Self {
        let durable = writer.durable_lsn();
        let handover = Handover::new(options.feed_bytes, feed_from, durable + 1, Arc::clone(&options.metrics));
        Self {
            durable: AtomicU64::new(durable),
            full: AtomicBool::new(false),
            sent: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            oldest_live: AtomicU64::new(feed_from.segment),
            failure: OnceLock::new(),
            marks: Marks::new(writer.state()),
            handover: Arc::new(handover),
        }
    }

    /// Latches the failure; the first one stays.
    pub fn fail(&self, error: WalError) -> Arc<WalError> {
        let error = Arc::clone(self.failure.get_or_init(|| Arc::new(error)));
        self.handover.fail(Arc::clone(&error));
        error
    }
}

/// See the module.
#[derive(Debug)]
pub struct Worker {
    writer: Writer,
    options: Options,
    shared: Arc<Shared>,
    queue: Queue,
    batch: Vec<Entry>,
    /// Where each unit of the batch ends, and who waits for it.
    ends: Vec<(usize, Option<Reply>)>,
    /// Callers that the last work answered.
    answered: usize,
    last_group: Instant,
    /// When the active segment was begun, and its number.
    begun: (u64, Instant),
    /// A block found no space: blocks are not tried before.
    stuck_until: Option<Instant>,
    /// Not even what may pass found space.
    is_jammed: bool,
}

impl Worker {
    /// A worker around this writer.
    pub fn new(writer: Writer, options: Options, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        let begun = (writer.segment(), now);
        Self {
            writer,
            options,
            shared,
            queue: Queue::default(),
            batch: Vec::new(),
            ends: Vec::new(),
            answered: 0,
            last_group: now,
            begun,
            stuck_until: None,
            is_jammed: false,
        }
    }

    /// Why nothing more is written.
    pub fn failure(&self) -> Option<Arc<WalError>> {
        self.shared.failure.get().cloned()
    }

    /// Nothing more is written. See [`Shared::fail`].
    pub fn fail(&self, error: WalError) -> Arc<WalError> {
        self.shared.fail(error)
    }

    /// Queues entries that were sent.
    pub fn take(&mut self, unit: Unit) {
        let bytes = unit.bytes() as usize;
        self.push(unit);
        self.shared.sent.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Queues entries.
    pub fn push(&mut self, unit: Unit) {
        self.queue.push(unit);
        self.shared.queued.store(self.queue.bytes() as usize, Ordering::Relaxed);
    }

    /// Drops what is queued of this partition and this and older tenures.
    pub fn withdraw(&mut self, partition: Partition, tenure: u32) {
        self.queue.withdraw(partition, tenure);
        self.shared.queued.store(self.queue.bytes() as usize, Ordering::Relaxed);
    }

    /// Logs what is queued; waits for a spare if one is being made, not for space.
    pub fn finish(&mut self) -> Result<(), WalError> {
        loop {
            if let Some(error) = self.failure() {
                return Err(WalError::Poisoned(error));
            }
            let rack = Arc::clone(self.writer.rack());
            // Looked at before: a spare that comes meanwhile must lead to another try.
            let had_none = rack.ready() == 0;
            if !self.work(&mut || {})? && (self.is_jammed || !self.queue.is_ready()) {
                let needs_spare = had_none || self.queue.is_waiting();
                if !needs_spare || rack.is_short() || self.is_stuck() {
                    return Ok(());
                }
                rack.wait(BRIEFLY);
            }
        }
    }

    /// Ends the log cleanly.
    pub fn close(&mut self) -> Result<(), Arc<WalError>> {
        let closed = self.writer.close().map_err(|error| self.shared.fail(error));
        self.shared.handover.close();
        closed
    }

    /// No more spares are made.
    pub fn stop_rack(&self) {
        self.writer.rack().stop();
    }

    /// True if something is there that can be logged now, or the log has failed and someone is to be told.
    pub fn is_busy(&self) -> bool {
        self.failure().is_some() || !self.is_jammed && (self.queue.is_ready() || self.retirement().is_some())
    }

    /// True if nothing is queued, and nothing was without space a moment ago.
    pub fn is_free(&self) -> bool {
        !self.is_jammed && !self.is_stuck() && !self.queue.is_ready() && !self.queue.is_waiting()
    }

    /// Callers that the last work answered.
    pub fn answered(&self) -> usize {
        self.answered
    }

    fn is_stuck(&self) -> bool {
        self.stuck_until.is_some_and(|until| Instant::now() < until)
    }

    /// How long to wait for requests before something else is due.
    pub fn patience(&self) -> Duration {
        if self.is_jammed || self.is_stuck() || self.queue.is_waiting() && self.writer.rack().is_short() {
            return LOOK_AGAIN;
        }
        if self.queue.is_waiting() {
            return BRIEFLY;
        }
        if self.writer.needs_idle() {
            return self.options.idle.saturating_sub(self.last_group.elapsed());
        }
        SLEEP.min(self.options.segment_age)
    }

    fn retirement(&self) -> Option<Entry> {
        self.writer.retirement(self.shared.handover.pinned())
    }

    /// One group; `answering` is called when it is durable, before anyone is answered. False if there was nothing to do.
    pub fn work(&mut self, answering: &mut dyn FnMut()) -> Result<bool, WalError> {
        self.answered = 0;
        self.fill_batch();
        if self.batch.is_empty() {
            self.is_jammed = false;
            answering();
            self.answer(0);
            return Ok(self.answered > 0);
        }
        let Self { writer, batch, queue, shared, .. } = self;
        writer.will_be_read_back(shared.handover.is_behind());
        let count =
            writer.append_telling(batch, &mut |writer, count| publish(writer, &batch[..count], queue, shared))?;
        self.last_group = Instant::now();
        self.is_jammed = count == 0 && self.shared.full.load(Ordering::Relaxed);
        if count == 0 {
            // The next try leaves blocks out, so that one without space does not hold up receipts.
            self.stuck_until = Some(Instant::now() + LOOK_AGAIN);
        }
        answering();
        self.answer(count);
        self.put_back(count);
        self.retire();
        Ok(count > 0)
    }

    fn fill_batch(&mut self) {
        self.batch.clear();
        self.ends.clear();
        let is_full = self.writer.rack().is_short() || self.is_stuck();
        self.shared.full.store(is_full, Ordering::Release);
        self.options.metrics.wal_full.set(i64::from(is_full));
        // First, because it makes room.
        if let Some(retirement) = self.retirement() {
            self.batch.push(retirement);
        }
        let limit = self.options.group_bytes as u64;
        let limit = limit.min(self.options.segment_bytes / 2);
        let writer = &self.writer;
        let full = Full { is_full, has_room: &|entry, ahead| writer.has_room(entry, ahead) };
        self.queue.take(limit, &full, &mut self.batch, &mut self.ends);
    }

    /// Answers those whose entries are durable.
    fn answer(&mut self, count: usize) {
        let durable: Lsn = self.writer.durable_lsn();
        for (end, reply) in &mut self.ends {
            if *end <= count
                && let Some(reply) = reply.take()
            {
                let _ = reply.send(Ok(durable));
                self.answered += 1;
            }
        }
        if count > 0
            && let Some(wake) = &self.options.on_durable
        {
            wake();
        }
    }

    /// What of the batch is not durable goes back to the front of the queue.
    fn put_back(&mut self, count: usize) {
        let mut ends = std::mem::take(&mut self.ends);
        while let Some((end, reply)) = ends.pop() {
            if end <= count {
                break;
            }
            // The log's own retirement, first in the batch, belongs to nobody's unit.
            let own = usize::from(matches!(self.batch.first(), Some(Entry::RetiredBelow { .. })));
            let start = ends.last().map_or(0, |(end, _)| *end).max(count).max(own);
            let entries = self.batch.split_off(start);
            self.queue.put_back(Unit { entries, reply });
        }
        self.ends = ends;
    }

    fn retire(&mut self) {
        let retired = self.writer.retired();
        if !retired.is_empty() {
            self.writer.rack().hand_over(retired.iter().map(|s| (s.number, s.len)));
            self.options.metrics.wal_segments.dec_by(retired.len() as i64);
        }
        self.shared.oldest_live.store(self.writer.oldest_live(), Ordering::Relaxed);
    }

    /// Nothing is queued: what is due by time.
    pub fn rest(&mut self) -> Result<(), WalError> {
        self.writer.will_be_read_back(self.shared.handover.is_behind());
        self.options.metrics.wal_bytes.set(self.writer.rack().used() as i64);
        if self.writer.needs_idle() && self.last_group.elapsed() >= self.options.idle {
            self.writer.idle()?;
            self.note_idle();
        }
        let segment = self.writer.segment();
        if self.begun.0 != segment {
            self.begun = (segment, Instant::now());
        }
        let is_old = self.begun.1.elapsed() >= self.options.segment_age;
        if is_old && self.writer.has_blocks() && !self.writer.rack().is_short() {
            self.writer.roll()?;
        }
        Ok(())
    }

    fn note_idle(&mut self) {
        let durable = self.writer.durable_lsn();
        self.last_group = Instant::now();
        self.shared.durable.store(durable, Ordering::Release);
        self.shared.handover.put(std::iter::empty(), durable + 1);
    }

    /// The log is poisoned: everyone whose entries are here is told.
    pub fn refuse_all(&mut self, error: &Arc<WalError>) {
        let refuse = |reply: Reply| drop(reply.send(Err(Arc::clone(error))));
        self.ends.drain(..).filter_map(|(_, reply)| reply).for_each(refuse);
        self.queue.drain_replies().for_each(refuse);
    }
}

/// These entries are durable: tell everyone.
fn publish(writer: &Writer, entries: &[Entry], queue: &mut Queue, shared: &Shared) {
    let durable = writer.durable_lsn();
    // Who sees the LSN finds the marks of what it made durable.
    shared.marks.update(writer.state(), entries.iter().filter_map(Entry::partition));
    shared.durable.store(durable, Ordering::Release);
    let blocks = entries.iter().zip(writer.locations()).filter_map(|(entry, at)| match entry {
        Entry::Block(block) => Some((at, block)),
        _ => None,
    });
    shared.handover.put(blocks, durable + 1);
    for entry in entries {
        if let Entry::Plan { blocks, .. } = entry {
            shared.handover.put_planned(blocks.iter().cloned());
        }
    }
    let callers = entries.iter().filter(|e| !matches!(e, Entry::RetiredBelow { .. }));
    queue.settled(callers.map(Entry::bytes).sum());
    shared.queued.store(queue.bytes() as usize, Ordering::Relaxed);
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
