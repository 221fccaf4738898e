//! The handle of an open log, and how one is opened.

use super::catalogue::Catalogue;
use super::commit::{Shared, Worker};
use super::error::WalError;
use super::feed::Feed;
use super::format::MAX_PAYLOAD;
use super::format::entry::Entry;
use super::format::state::{Disowned, State};
use super::inbox::Request;
use super::leader::{self, Callers};
use super::marks::PartitionMarks;
use super::options::Options;
use super::queue::{Reply, Unit};
use super::rack::Rack;
use super::recovery::{self, Recovered, RecoveryReport};
use super::repair::{KeepError, Repairs};
use super::reread;
use super::scan::finding::CorruptBlock;
use crate::io::{SYNC_DIR, Storage};
use crate::record::{Block, Lsn, Partition};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// An open log.
#[derive(Debug)]
pub struct Opened {
    /// To append to it.
    pub log: Log,
    /// To read what is durable.
    pub feed: Feed,
    /// The fold at the end of recovery.
    pub state: State,
    /// What recovery found and did.
    pub report: RecoveryReport,
}

/// The handle of an open log. Cloning shares it. When all handles are gone without [`Log::close`], the log ends as
/// after a kill.
#[derive(Clone, Debug)]
pub struct Log {
    callers: Callers,
    shared: Arc<Shared>,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    wal_id: u128,
    storage: Arc<dyn Storage>,
    catalogue: Arc<Catalogue>,
    rack: Arc<Rack>,
    repairs: Arc<Repairs>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    is_closed: AtomicBool,
}

/// How the log is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Segments that exist, spares not counted.
    pub segments: usize,
    /// Bytes of segments and spares.
    pub bytes: u64,
    /// Spares that are ready.
    pub spares: usize,
    /// The last durable LSN.
    pub durable_lsn: Lsn,
    /// The lowest segment with a block that some route still needs.
    pub oldest_live_segment: u64,
    /// Bytes queued and not durable yet.
    pub queued_bytes: usize,
    /// Bytes of durable blocks in memory.
    pub feed_bytes: usize,
    /// Disk or quota is full: the source must pause.
    pub is_full: bool,
}

/// Recovers the log in `options.dir` (an empty or missing directory becomes a new log) and starts its threads.
pub fn open(storage: Arc<dyn Storage>, options: Options) -> Result<Opened, WalError> {
    let Recovered { lock, writer, feed_from, repairs, report } = recovery::recover(&storage, &options)?;
    let state = writer.state().clone();
    let (catalogue, rack) = (Arc::clone(writer.catalogue()), Arc::clone(writer.rack()));
    let shared = Arc::new(Shared::new(&writer, feed_from, &options));
    let handover = Arc::clone(&shared.handover);
    let (callers, thread) = leader::lead(Worker::new(writer, options, Arc::clone(&shared)));
    // Whichever thread ends last gives the directory free.
    let lock = Arc::new(lock);
    let preparers = Arc::clone(&lock);
    let threads = Mutex::new(vec![
        spawn("wal", &shared, &rack, move || {
            thread.run();
            drop(lock);
        })?,
        spawn_preparer(&rack, &shared, preparers)?,
    ]);
    let repairs = Arc::new(Repairs::new(Arc::clone(&storage), catalogue.dir(), state.wal_id, repairs));
    for block in &report.corrupt {
        repairs.want(block);
    }
    let corrupt = report.corrupt.iter().chain(&report.mended).cloned().collect();
    let feed = Feed::new(Arc::clone(&storage), Arc::clone(&catalogue), handover, state.clone(), corrupt);
    let feed = feed.with_repairs(Arc::clone(&repairs));
    let (wal_id, is_closed) = (state.wal_id, AtomicBool::new(false));
    let inner = Arc::new(Inner { wal_id, storage, catalogue, rack, repairs, threads, is_closed });
    Ok(Opened { log: Log { callers, shared, inner }, feed, state, report })
}

fn spawn_preparer(
    rack: &Arc<Rack>,
    shared: &Arc<Shared>,
    lock: Arc<Box<dyn Send + Sync>>,
) -> Result<JoinHandle<()>, WalError> {
    const PAUSE: Duration = Duration::from_millis(1);
    let (racked, failed) = (Arc::clone(rack), Arc::clone(shared));
    spawn("wal-spares", shared, rack, move || {
        if let Err(error) = racked.run(&mut || std::thread::sleep(PAUSE)) {
            failed.fail(error);
        }
        drop(lock);
    })
}

/// Starts a thread; if it panics the log is poisoned.
fn spawn(
    name: &str,
    shared: &Arc<Shared>,
    rack: &Arc<Rack>,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, WalError> {
    struct Guard(Arc<Shared>, Arc<Rack>);
    impl Drop for Guard {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.fail(WalError::Internal("a thread of the log panicked".to_owned()));
                self.1.stop();
            }
        }
    }
    let guard = Guard(Arc::clone(shared), Arc::clone(rack));
    let guarded = move || {
        let guard = guard;
        body();
        drop(guard);
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(guarded)
        .map_err(|error| WalError::Internal(format!("no thread for the log: {error}")))
}

impl Log {
    /// Queues the entry; does not block. Entries of one caller are logged in order. The caller bounds its bytes.
    pub fn append(&self, entry: Entry) -> Result<(), WalError> {
        self.send(self.unit(vec![entry], None)?)
    }

    /// Queues a plan of direct mode; the feed hands its blocks out once the plan is durable, after all that was logged.
    /// Does not block. The caller bounds the bytes by [`Log::planned_bytes`].
    pub fn append_plan(&self, plan: Entry) -> Result<(), WalError> {
        if let Entry::Plan { blocks, .. } = &plan {
            self.announce(blocks);
        }
        self.append(plan)
    }

    /// Hands on blocks of a plan that is durable already and is run again.
    pub fn hand_on_planned(&self, blocks: Vec<Block>) {
        self.announce(&blocks);
        self.shared.handover.put_planned(blocks);
    }

    fn announce(&self, blocks: &[Block]) {
        for block in blocks {
            self.marks(block.header.partition).in_flight.fetch_add(1, Ordering::AcqRel);
        }
        self.shared.handover.announce(blocks);
    }

    /// Payload bytes of planned blocks that the feed has not handed out yet; for backpressure.
    pub fn planned_bytes(&self) -> usize {
        self.shared.handover.planned_bytes()
    }

    /// Queues the entries and waits until they are durable; returns the last durable LSN then. Without entries: waits
    /// until everything queued before is durable. If nothing else is to be logged, the caller's thread writes and syncs.
    pub fn append_synced(&self, entries: Vec<Entry>) -> Result<Lsn, WalError> {
        let (reply, answer) = mpsc::sync_channel(1);
        if let Some(unit) = self.callers.log_now(self.unit(entries, Some(reply))?) {
            self.send(unit)?;
        }
        match answer.recv() {
            Ok(Ok(lsn)) => Ok(lsn),
            Ok(Err(error)) => Err(WalError::Poisoned(error)),
            Err(_) => Err(self.gone()),
        }
    }

    /// Drops what was appended for a partition in `tenure` and older ones and is not durable; returns how far it is
    /// durable then. Waits for the log's thread, never for space.
    pub fn withdraw(&self, partition: Partition, tenure: u32) -> Result<i64, WalError> {
        let (done, answer) = mpsc::sync_channel(1);
        self.callers.send(Request::Withdraw(partition, tenure, done)).map_err(|_| self.gone())?;
        answer.recv().map_err(|_| self.gone())?;
        Ok(self.marks(partition).durable())
    }

    fn unit(&self, entries: Vec<Entry>, reply: Option<Reply>) -> Result<Unit, WalError> {
        if let Some(error) = self.failure() {
            return Err(WalError::Poisoned(error));
        }
        entries.iter().try_for_each(check)?;
        Ok(Unit { entries, reply })
    }

    fn send(&self, unit: Unit) -> Result<(), WalError> {
        self.shared.sent.fetch_add(unit.bytes() as usize, Ordering::Relaxed);
        self.callers.send(Request::Append(unit)).map_err(|_| self.gone())
    }

    fn gone(&self) -> WalError {
        self.failure().map_or(WalError::Closed, WalError::Poisoned)
    }

    /// The watermarks of a partition, kept up to date after each sync; made if there are none.
    pub fn marks(&self, partition: Partition) -> Arc<PartitionMarks> {
        self.shared.marks.of(partition)
    }

    /// True while disk or quota is full: the source must pause. Blocks already queued wait; receipts go through.
    pub fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Acquire)
    }

    /// Bytes handed to the log and not yet durable; for backpressure.
    pub fn queued_bytes(&self) -> u64 {
        (self.shared.sent.load(Ordering::Relaxed) + self.shared.queued.load(Ordering::Relaxed)) as u64
    }

    /// True while what is durable waits for a sink that is at work: to wait a moment costs less than to read it back.
    pub fn is_crowded(&self) -> bool {
        self.shared.handover.is_crowded()
    }

    /// Why nothing more is written. After this nothing unacknowledged may be delivered.
    pub fn failure(&self) -> Option<Arc<WalError>> {
        self.shared.failure.get().cloned()
    }

    /// The name of the log.
    pub fn wal_id(&self) -> u128 {
        self.inner.wal_id
    }

    /// The last durable LSN.
    pub fn durable_lsn(&self) -> Lsn {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// How the log is doing. Does not block on the disk.
    pub fn status(&self) -> Status {
        Status {
            segments: self.inner.catalogue.numbers().len(),
            bytes: self.inner.rack.used(),
            spares: self.inner.rack.ready(),
            durable_lsn: self.durable_lsn(),
            oldest_live_segment: self.shared.oldest_live.load(Ordering::Relaxed),
            queued_bytes: self.shared.sent.load(Ordering::Relaxed) + self.shared.queued.load(Ordering::Relaxed),
            feed_bytes: self.shared.handover.bytes(),
            is_full: self.is_full(),
        }
    }

    /// Blocks of `[first, next)` from segments that are still there, in order, without what was disowned. Reads files;
    /// blocks.
    pub fn read_blocks(&self, partition: Partition, first: i64, next: i64) -> Result<Vec<Block>, WalError> {
        let (storage, catalogue) = (self.inner.storage.as_ref(), &self.inner.catalogue);
        let disowned = self.marks(partition).disowned();
        reread::read_blocks(storage, catalogue, &self.inner.repairs, &disowned, (partition, first, next))
    }

    pub(super) fn storage(&self) -> &dyn Storage {
        self.inner.storage.as_ref()
    }

    pub(super) fn catalogue(&self) -> &Catalogue {
        &self.inner.catalogue
    }

    /// Damaged blocks and what mends them.
    pub fn repairs(&self) -> &Repairs {
        &self.inner.repairs
    }

    /// Keeps a block that was fetched again, if it is the one that was logged; durable when this returns. Blocks. The
    /// feed then goes on with its partition.
    pub fn keep_repair(&self, block: &CorruptBlock, fetched: &Block) -> Result<(), KeepError> {
        match self.inner.repairs.keep(block, fetched) {
            Ok(bytes) => self.inner.rack.grew(bytes),
            Err(KeepError::Wal(error)) => return Err(self.note_failure(error).into()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Removes repair files of segments that are retired. Blocks.
    pub fn retire_repairs(&self) -> Result<(), WalError> {
        let lowest = self.inner.catalogue.numbers().first().copied().unwrap_or(0);
        let bytes = self.inner.repairs.retire(lowest).map_err(|error| self.note_failure(error))?;
        self.inner.rack.shrank(bytes);
        Ok(())
    }

    /// What a failed sync of the directory leaves of any name is not known, and the next one may say that all is well: the
    /// log takes nothing more.
    fn note_failure(&self, error: WalError) -> WalError {
        match &error {
            WalError::Io(io) if io.operation == SYNC_DIR => WalError::Poisoned(self.shared.fail(error)),
            _ => error,
        }
    }

    /// True if the block's segment is retired, or its partition has got past it.
    pub fn is_settled(&self, block: &CorruptBlock) -> bool {
        let marks = self.marks(block.partition);
        let given_up = |d: &Disowned| block.lsn < d.lsn && d.covers(block.tenure, block.first);
        let listed = self.inner.catalogue.get(block.segment);
        listed.is_none_or(|listed| listed.salt != block.salt)
            || block.next <= marks.delivered()
            || marks.disowned().iter().any(given_up)
    }

    /// Clean stop: everything queued is durable, the last segment is sealed, the lock is free when this returns. Other
    /// handles get [`WalError::Closed`] from then on. What waits for space is dropped; it was never durable.
    pub fn close(self) -> Result<(), WalError> {
        let (reply, answer) = mpsc::sync_channel(1);
        if self.inner.is_closed.swap(true, Ordering::AcqRel) {
            return Err(WalError::Closed);
        }
        self.callers.send(Request::Close(reply)).map_err(|_| self.gone())?;
        let closed = answer.recv().map_err(|_| self.gone())?;
        let mut threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A panic of a thread is in `failure` already.
            let _ = thread.join();
        }
        closed.map_err(WalError::Poisoned)
    }
}

fn check(entry: &Entry) -> Result<(), WalError> {
    let refuse = |kind, reason: &str| Err(WalError::Entry { kind, reason: reason.to_owned() });
    match entry {
        Entry::RetiredBelow { .. } | Entry::Idle => refuse("log's own", "the log writes it by itself"),
        _ if entry.bytes() > u64::from(MAX_PAYLOAD) => refuse("large", "its payload is over the limit of 64 MiB"),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
