//! The handle of an open log, and how one is opened.

use super::catalogue::Catalogue;
use super::commit::{Shared, Worker};
use super::error::WalError;
use super::feed::Feed;
use super::format::MAX_PAYLOAD;
use super::format::entry::Entry;
use super::format::state::{Disowned, State};
use super::handover::Handover;
use super::inbox::{Inbox, Request};
use super::marks::{Marks, PartitionMarks};
use super::options::Options;
use super::queue::Unit;
use super::rack::Rack;
use super::recovery::{self, Recovered, RecoveryReport};
use super::repair::{KeepError, Repairs};
use super::reread;
use super::scan::finding::CorruptBlock;
use crate::io::{SYNC_DIR, Storage};
use crate::record::{Block, Lsn, Partition};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
    requests: Sender<Request>,
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
    let next_lsn = writer.durable_lsn() + 1;
    let metrics = Arc::clone(&options.metrics);
    let handover = Arc::new(Handover::new(options.feed_bytes, feed_from, next_lsn, metrics));
    let shared = Arc::new(Shared {
        durable: AtomicU64::new(writer.durable_lsn()),
        full: AtomicBool::new(false),
        sent: AtomicUsize::new(0),
        queued: AtomicUsize::new(0),
        oldest_live: AtomicU64::new(feed_from.segment),
        failure: OnceLock::new(),
        marks: Marks::new(&state),
        handover: Arc::clone(&handover),
    });
    let (requests, receiver) = mpsc::channel();
    let worker = Worker::new(writer, options, Inbox::new(receiver), Arc::clone(&shared));
    // Whichever thread ends last gives the directory free.
    let lock = Arc::new(lock);
    let preparers = Arc::clone(&lock);
    let threads = Mutex::new(vec![
        spawn("wal", &shared, &rack, move || {
            worker.run();
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
    Ok(Opened { log: Log { requests, shared, inner }, feed, state, report })
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
        self.request(vec![entry], None)
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
    /// until everything queued before is durable.
    pub fn append_synced(&self, entries: Vec<Entry>) -> Result<Lsn, WalError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.request(entries, Some(reply))?;
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
        self.requests.send(Request::Withdraw(partition, tenure, done)).map_err(|_| self.gone())?;
        answer.recv().map_err(|_| self.gone())?;
        Ok(self.marks(partition).durable())
    }

    fn request(&self, entries: Vec<Entry>, reply: Option<super::queue::Reply>) -> Result<(), WalError> {
        if let Some(error) = self.failure() {
            return Err(WalError::Poisoned(error));
        }
        for entry in &entries {
            check(entry)?;
        }
        let bytes: u64 = entries.iter().map(Entry::bytes).sum();
        self.shared.sent.fetch_add(bytes as usize, Ordering::Relaxed);
        self.requests.send(Request::Append(Unit { entries, reply })).map_err(|_| self.gone())
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
        self.requests.send(Request::Close(reply)).map_err(|_| self.gone())?;
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
mod tests {
    use super::*;
    use crate::io::IoError;
    use crate::io::sim::Sim;
    use crate::metrics::Metrics;

    use crate::wal::options::SPARES;
    use crate::wal::testing::{P, block, delivered, owned, plain};
    use crate::wal::{ErrorClass, FeedItem};
    use bytes::Bytes;
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    const SEGMENT: u64 = 64 << 10;
    const LONG: Duration = Duration::from_secs(20);

    fn settings(seed: u64) -> Options {
        let mut options = Options::new("/wal", Arc::new(Metrics::new()));
        options.segment_bytes = SEGMENT;
        // No `Idle` frame comes between: LSNs are counted.
        options.idle = Duration::from_secs(3600);
        options.seed = Some(seed);
        options
    }

    fn started(sim: &Sim, seed: u64) -> Opened {
        open(Arc::new(sim.clone()), settings(seed)).unwrap()
    }

    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + LONG;
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_thread_that_panics_poisons_the_log_and_gives_its_directory_free() {
        let sim = Sim::new(1);
        let Opened { log, mut feed, .. } = started(&sim, 1);
        log.append_synced(vec![owned(), block(0, 100)]).unwrap();
        assert!(log.append_synced(vec![block(5, 100)]).is_err(), "offsets are missing before it");
        wait_until("the log is poisoned", || log.failure().is_some());
        assert_eq!(log.failure().map(|error| error.class()), Some(ErrorClass::Internal));
        assert!(matches!(feed.next(LONG), Err(WalError::Poisoned(_))));
        assert!(matches!(log.append(block(1, 100)), Err(WalError::Poisoned(_))));
        assert!(matches!(log.close(), Err(WalError::Poisoned(_))));
        let mut again = None;
        wait_until("its directory is free", || {
            again = open(Arc::new(sim.clone()), settings(2)).ok();
            again.is_some()
        });
        assert_eq!(again.unwrap().state.partitions[&P].admitted, 1);
    }

    #[test]
    fn what_waits_for_space_counts_as_queued_until_it_is_withdrawn_and_is_never_logged_then() {
        let sim = Sim::new(1);
        sim.set_capacity(Some((1 + SPARES as u64) * SEGMENT));
        let Opened { log, mut feed, .. } = started(&sim, 1);
        log.append_synced(vec![owned(), block(0, 100), block(1, 100)]).unwrap();
        let large = block(2, 200_000);
        let bytes = large.bytes();
        log.append(large).unwrap();
        // The log's thread has taken both when this is durable.
        log.append_synced(vec![delivered(1)]).unwrap();
        assert_eq!((log.queued_bytes(), log.status().queued_bytes as u64), (bytes, bytes));
        assert_eq!(log.withdraw(P, 1).unwrap(), 2, "so far it is durable");
        assert_eq!((log.queued_bytes(), log.status().queued_bytes), (0, 0));
        sim.set_capacity(None);
        log.append_synced(vec![block(2, 50)]).unwrap();
        for (first, bytes) in [(0, 100), (1, 100), (2, 50)] {
            match feed.next(LONG).unwrap() {
                Some(FeedItem::Block { block, .. }) => {
                    assert_eq!((block.header.first, block.payload.len()), (first, bytes));
                }
                other => panic!("{other:?}"),
            }
        }
        log.close().unwrap();
    }

    #[test]
    fn blocks_of_a_plan_that_is_run_again_are_handed_out_and_not_logged() {
        let Opened { log, mut feed, .. } = started(&Sim::new(1), 1);
        let lsn = log.append_synced(vec![owned()]).unwrap();
        log.hand_on_planned(vec![plain(0, 300), plain(1, 40)]);
        assert_eq!((log.planned_bytes(), log.marks(P).in_flight.load(Ordering::Acquire)), (340, 2));
        for (first, left) in [(0, 40), (1, 0)] {
            match feed.next(LONG).unwrap() {
                Some(FeedItem::Planned(block)) => assert_eq!(block.header.first, first),
                other => panic!("{other:?}"),
            }
            assert_eq!(log.planned_bytes(), left);
        }
        assert_eq!((log.durable_lsn(), log.marks(P).durable()), (lsn, 0));
        log.close().unwrap();
    }

    #[test]
    fn a_log_has_its_name_for_life() {
        let sim = Sim::new(1);
        let Opened { log, state, .. } = started(&sim, 1);
        let id = log.wal_id();
        assert_eq!(id, state.wal_id);
        log.close().unwrap();
        assert_eq!(started(&sim, 2).log.wal_id(), id);
        assert_ne!(started(&Sim::new(1), 3).log.wal_id(), id);
    }

    #[test]
    fn what_the_log_alone_writes_and_what_is_too_long_is_refused_with_all_that_came_with_it() {
        let log = started(&Sim::new(1), 1).log;
        log.append_synced(vec![owned()]).unwrap();
        let around = block(0, 0).bytes();
        let with_bytes = |bytes: u64| {
            let payload = Bytes::from(vec![0; (bytes - around) as usize]);
            Entry::Block(Block { payload, ..plain(0, 0) })
        };
        let limit = u64::from(MAX_PAYLOAD);
        assert!(check(&with_bytes(limit)).is_ok());
        for entry in [Entry::Idle, Entry::RetiredBelow { segment: 1, lsn: 1 }, with_bytes(limit + 1)] {
            let refused = log.append_synced(vec![block(0, 100), entry]);
            assert!(matches!(refused, Err(WalError::Entry { .. })), "{refused:?}");
        }
        assert_eq!((log.marks(P).durable(), log.queued_bytes()), (0, 0));
        log.close().unwrap();
    }

    #[test]
    fn of_what_fails_around_repairs_only_a_sync_of_the_directory_poisons_the_log() {
        let log = started(&Sim::new(1), 1).log;
        let fails = |operation: &'static str| {
            let source = std::io::Error::from_raw_os_error(5);
            log.note_failure(WalError::Io(IoError::new(operation, Path::new("/wal"), source)))
        };
        assert!(matches!(fails("write"), WalError::Io(_)));
        log.append_synced(vec![owned()]).unwrap();
        assert!(matches!(fails(SYNC_DIR), WalError::Poisoned(_)));
        assert!(matches!(log.append(block(0, 100)), Err(WalError::Poisoned(_))));
    }

    #[test]
    fn a_damaged_block_is_settled_when_it_is_delivered_or_was_given_up_after_it_or_its_segment_is_gone() {
        let log = started(&Sim::new(1), 1).log;
        let begun = log.append_synced(vec![owned()]).unwrap();
        log.append_synced((0..5).map(|first| block(first, 100)).collect()).unwrap();
        let disowned = Entry::Disowned { partition: P, tenure: 1, first: 3, next: 5 };
        let given_up = log.append_synced(vec![disowned]).unwrap();
        log.append_synced(vec![delivered(1)]).unwrap();
        let salt = log.catalogue().get(1).unwrap().salt;
        let damaged = |first: i64| CorruptBlock {
            path: PathBuf::from("1.wal"),
            segment: 1,
            salt,
            position: 0,
            end: 0,
            lsn: begun + 1 + first as u64,
            partition: P,
            tenure: 1,
            first,
            next: first + 1,
            count: 1,
            digest: 0,
            header: None,
        };
        let settled = (0..5).map(|first| log.is_settled(&damaged(first))).collect::<Vec<_>>();
        assert_eq!(settled, [true, false, false, true, true]);
        let needed = [
            CorruptBlock { lsn: given_up, ..damaged(3) },
            CorruptBlock { lsn: given_up + 9, ..damaged(3) },
            CorruptBlock { tenure: 2, ..damaged(3) },
        ];
        for block in &needed {
            assert!(!log.is_settled(block), "logged later: {block:?}");
        }
        assert!(log.is_settled(&CorruptBlock { segment: 2, ..damaged(1) }), "there is no such segment");
        assert!(log.is_settled(&CorruptBlock { salt: salt ^ 1, ..damaged(1) }), "it is another segment now");
        log.close().unwrap();
    }
}
