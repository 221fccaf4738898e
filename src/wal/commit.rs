//! The log's thread: takes what is queued, makes it durable group by group, tells everyone.
//!
//! Promises: one write, in pieces if it is large, and one sync per group; entries of a partition keep their order; while disk or quota is full,
//! blocks wait here and receipts still go through. After a failed write or sync nothing more is written, and nothing
//! that was not durable is handed on. All decisions about bytes are the [`Writer`]'s.

use super::error::WalError;
use super::format::entry::Entry;
use super::handover::Handover;
use super::inbox::{Inbox, Request};
use super::marks::Marks;
use super::options::Options;
use super::queue::{Full, Queue, Reply, Unit};
use super::writer::Writer;
use crate::record::Lsn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
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
    /// Latches the failure; the first one stays.
    pub fn fail(&self, error: WalError) -> Arc<WalError> {
        let error = Arc::clone(self.failure.get_or_init(|| Arc::new(error)));
        self.handover.fail(Arc::clone(&error));
        error
    }
}

/// The thread's state.
pub struct Worker {
    writer: Writer,
    options: Options,
    inbox: Inbox,
    shared: Arc<Shared>,
    queue: Queue,
    batch: Vec<Entry>,
    /// Where each unit of the batch ends, and who waits for it.
    ends: Vec<(usize, Option<Reply>)>,
    last_group: Instant,
    /// When the active segment was begun, and its number.
    begun: (u64, Instant),
    /// A block found no space: blocks are not tried before.
    stuck_until: Option<Instant>,
    /// Not even what may pass found space.
    is_jammed: bool,
}

/// Why the loop ended.
enum End {
    Closed(SyncSender<Result<(), Arc<WalError>>>),
    Abandoned,
}

impl Worker {
    /// A worker around this writer.
    pub fn new(writer: Writer, options: Options, inbox: Inbox, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        let begun = (writer.segment(), now);
        Self {
            writer,
            options,
            inbox,
            shared,
            queue: Queue::default(),
            batch: Vec::new(),
            ends: Vec::new(),
            last_group: now,
            begun,
            stuck_until: None,
            is_jammed: false,
        }
    }

    /// Runs until the log is closed or all its handles are gone.
    pub fn run(mut self) {
        let ended = self.serve();
        match ended {
            Ok(End::Abandoned) => {}
            Ok(End::Closed(reply)) => {
                let closed = self.writer.close().map_err(|error| self.shared.fail(error));
                self.shared.handover.close();
                self.writer.rack().stop();
                let _ = reply.send(closed);
            }
            Err(error) => {
                let error = self.shared.fail(error);
                self.writer.rack().stop();
                self.refuse_all(&error);
            }
        }
        self.writer.rack().stop();
    }

    fn serve(&mut self) -> Result<End, WalError> {
        loop {
            if let Some(end) = self.gather() {
                self.finish()?;
                return Ok(end);
            }
            if let Some(error) = self.shared.failure.get() {
                return Err(WalError::Poisoned(Arc::clone(error)));
            }
            if !self.work()? {
                self.rest()?;
            }
        }
    }

    /// Logs what is queued; waits for a spare if one is being made, not for space.
    fn finish(&mut self) -> Result<(), WalError> {
        loop {
            if let Some(error) = self.shared.failure.get() {
                return Err(WalError::Poisoned(Arc::clone(error)));
            }
            let rack = Arc::clone(self.writer.rack());
            // Looked at before: a spare that comes meanwhile must lead to another try.
            let had_none = rack.ready() == 0;
            if !self.work()? && (self.is_jammed || !self.queue.is_ready()) {
                let needs_spare = had_none || self.queue.is_waiting();
                if !needs_spare || rack.is_short() || self.is_stuck() {
                    return Ok(());
                }
                rack.wait(BRIEFLY);
            }
        }
    }

    /// Waits for requests and takes all there are.
    fn gather(&mut self) -> Option<End> {
        let busy = !self.is_jammed && (self.queue.is_ready() || self.retirement().is_some());
        let mut request = if busy { self.inbox.at_hand() } else { self.inbox.within(self.patience()) };
        loop {
            match request {
                Ok(Request::Append(unit)) => {
                    let bytes = unit.bytes() as usize;
                    self.queue.push(unit);
                    self.shared.queued.store(self.queue.bytes() as usize, Ordering::Relaxed);
                    self.shared.sent.fetch_sub(bytes, Ordering::Relaxed);
                }
                Ok(Request::Withdraw(partition, tenure, done)) => {
                    self.queue.withdraw(partition, tenure);
                    self.shared.queued.store(self.queue.bytes() as usize, Ordering::Relaxed);
                    let _ = done.send(());
                }
                Ok(Request::Close(reply)) => return Some(End::Closed(reply)),
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => return Some(End::Abandoned),
            }
            request = self.inbox.at_hand();
        }
    }

    fn is_stuck(&self) -> bool {
        self.stuck_until.is_some_and(|until| Instant::now() < until)
    }

    /// How long to wait for requests before something else is due.
    fn patience(&self) -> Duration {
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

    /// One group. False if there was nothing to do.
    fn work(&mut self) -> Result<bool, WalError> {
        self.fill_batch();
        if self.batch.is_empty() {
            self.is_jammed = false;
            return Ok(self.answer(0));
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

    /// Answers those whose entries are durable; true if someone was.
    fn answer(&mut self, count: usize) -> bool {
        let durable: Lsn = self.writer.durable_lsn();
        let mut answered = 0;
        self.inbox.set_apart();
        for (end, reply) in &mut self.ends {
            if *end <= count
                && let Some(reply) = reply.take()
            {
                let _ = reply.send(Ok(durable));
                answered += 1;
            }
        }
        self.inbox.answered(answered);
        if count > 0
            && let Some(wake) = &self.options.on_durable
        {
            wake();
        }
        answered > 0
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
    fn rest(&mut self) -> Result<(), WalError> {
        self.writer.will_be_read_back(self.shared.handover.is_behind());
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

    /// The log is poisoned: everyone who waits is told, until all handles are gone.
    fn refuse_all(&mut self, error: &Arc<WalError>) {
        let refuse = |reply: Reply| drop(reply.send(Err(Arc::clone(error))));
        self.ends.drain(..).filter_map(|(_, reply)| reply).for_each(refuse);
        self.queue.drain_replies().for_each(refuse);
        while let Some(request) = self.inbox.recv() {
            match request {
                Request::Append(unit) => {
                    unit.reply.into_iter().for_each(refuse);
                }
                Request::Withdraw(..) => {}
                Request::Close(reply) => {
                    let _ = reply.send(Err(Arc::clone(error)));
                    return;
                }
            }
        }
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
mod tests {
    use super::*;
    use crate::io::Storage;
    use crate::io::fault::{Faults, Operation};
    use crate::io::sim::Sim;
    use crate::metrics::Metrics;

    use crate::wal::options::SPARES;
    use crate::wal::recovery::{Recovered, recover};
    use crate::wal::testing::{P, block, delivered, owned};
    use std::sync::mpsc::{self, Sender};

    const SEGMENT: u64 = 64 << 10;
    const LONG: Duration = Duration::from_secs(20);
    const HOUR: Duration = Duration::from_secs(3600);
    const ENOSPC: i32 = 28;

    /// The log's thread, not started: the test takes its steps.
    struct World {
        sim: Sim,
        faults: Arc<Faults>,
        requests: Sender<Request>,
        worker: Worker,
    }

    fn options() -> Options {
        let mut options = Options::new("/wal", Arc::new(Metrics::new()));
        options.segment_bytes = SEGMENT;
        options.idle = HOUR;
        options.seed = Some(1);
        options
    }

    /// A new log with so many spares, in which the partition is owned. Nobody makes more of them.
    fn world(spares: usize, options: Options) -> World {
        let sim = Sim::new(1);
        let faults = Arc::new(Faults::new(Arc::new(sim.clone())));
        let storage = Arc::clone(&faults) as Arc<dyn Storage>;
        let Recovered { writer, feed_from, .. } = recover(&storage, &options).unwrap();
        for _ in 0..spares {
            assert!(writer.rack().work(&mut || {}).unwrap());
        }
        assert_eq!(writer.rack().ready(), spares);
        let metrics = Arc::clone(&options.metrics);
        let handover = Handover::new(options.feed_bytes, feed_from, writer.durable_lsn() + 1, metrics);
        let shared = Arc::new(Shared {
            durable: AtomicU64::new(writer.durable_lsn()),
            full: AtomicBool::new(false),
            sent: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            oldest_live: AtomicU64::new(feed_from.segment),
            failure: OnceLock::new(),
            marks: Marks::new(writer.state()),
            handover: Arc::new(handover),
        });
        let (requests, receiver) = mpsc::channel();
        let mut worker = Worker::new(writer, options, Inbox::new(receiver), shared);
        log(&mut worker, owned());
        World { sim, faults, requests, worker }
    }

    fn push(worker: &mut Worker, entry: Entry) {
        worker.queue.push(Unit { entries: vec![entry], reply: None });
    }

    fn log(worker: &mut Worker, entry: Entry) {
        push(worker, entry);
        assert!(worker.work().unwrap(), "it is logged");
    }

    /// Next offset to become durable.
    fn durable(worker: &Worker) -> i64 {
        worker.shared.marks.of(P).durable()
    }

    /// From now on nothing grows; the rack knows it.
    fn fill_up(sim: &Sim, worker: &Worker) {
        sim.set_capacity(Some(sim.used()));
        worker.writer.rack().look_for_space().unwrap();
    }

    /// What comes before the end of a clean stop.
    fn finish(mut worker: Worker) -> Worker {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let finished = worker.finish();
            let _ = tell.send((finished, worker));
        });
        let (finished, worker) = told.recv_timeout(LONG).expect("the stop comes to an end");
        finished.unwrap();
        worker
    }

    /// Makes a spare when the stop has looked at what it waits for: it then says again whether the disk is full.
    fn make_a_spare_once_it_stops(worker: &Worker) -> std::thread::JoinHandle<bool> {
        let (shared, rack) = (Arc::clone(&worker.shared), Arc::clone(worker.writer.rack()));
        std::thread::spawn(move || {
            wait_until("the stop", || !shared.full.load(Ordering::Acquire));
            rack.work(&mut || {}).unwrap()
        })
    }

    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + LONG;
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_stop_logs_all_that_was_queued_before_it() {
        let World { sim, requests, worker, .. } = world(SPARES, options());
        for first in 0..3 {
            requests.send(Request::Append(Unit { entries: vec![block(first, 100)], reply: None })).unwrap();
        }
        let (reply, answer) = mpsc::sync_channel(1);
        requests.send(Request::Close(reply)).unwrap();
        let thread = std::thread::spawn(move || worker.run());
        assert!(matches!(answer.recv_timeout(LONG), Ok(Ok(()))));
        thread.join().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(sim);
        let again = recover(&storage, &Options { seed: Some(2), ..options() }).unwrap();
        assert_eq!(again.writer.state().partitions[&P].admitted, 3);
    }

    #[test]
    fn a_stop_waits_for_a_spare_that_a_waiting_block_needs() {
        stop_with_a_block_that_needs_a_spare(true);
    }

    #[test]
    fn a_stop_waits_for_a_spare_that_the_last_block_turns_out_to_need() {
        stop_with_a_block_that_needs_a_spare(false);
    }

    #[test]
    fn a_stop_waits_for_the_spare_that_its_end_needs() {
        let World { worker, .. } = world(0, options());
        worker.shared.full.store(true, Ordering::Release);
        let preparer = make_a_spare_once_it_stops(&worker);
        let worker = finish(worker);
        assert!(preparer.join().unwrap());
        assert_eq!(worker.writer.rack().ready(), 1);
    }

    fn stop_with_a_block_that_needs_a_spare(was_tried: bool) {
        let World { mut worker, .. } = world(2, options());
        log(&mut worker, block(0, 30_000));
        push(&mut worker, block(1, 10_000));
        if was_tried {
            assert!(!worker.work().unwrap());
            assert!(worker.queue.is_waiting(), "two spares are not for blocks, and the segment has no room");
        }
        worker.shared.full.store(true, Ordering::Release);
        let preparer = make_a_spare_once_it_stops(&worker);
        let worker = finish(worker);
        assert!(preparer.join().unwrap());
        assert_eq!((durable(&worker), worker.queue.is_waiting()), (2, false));
    }

    #[test]
    fn a_stop_tries_again_in_the_next_segment_what_found_no_space_in_this_one() {
        let World { faults, mut worker, .. } = world(SPARES, options());
        log(&mut worker, block(0, 100));
        faults.fail(Operation::Write, 0, ENOSPC);
        push(&mut worker, delivered(1));
        let worker = finish(worker);
        assert_eq!(worker.shared.marks.of(P).delivered(), 1);
    }

    #[test]
    fn a_stop_waits_for_no_space() {
        let World { sim, mut worker, .. } = world(2, options());
        fill_up(&sim, &worker);
        push(&mut worker, block(0, 100));
        assert!(!worker.work().unwrap());
        let worker = finish(worker);
        assert_eq!((durable(&worker), worker.queue.is_waiting()), (0, true));
    }

    #[test]
    fn a_stop_does_not_wait_for_space_for_receipts_either() {
        let World { sim, mut worker, .. } = world(0, options());
        fill_up(&sim, &worker);
        let logged = (0..20).take_while(|_| {
            push(&mut worker, delivered(0));
            worker.work().unwrap()
        });
        assert!((1..20).contains(&logged.count()), "the segment has room for some");
        assert!(worker.is_jammed && worker.queue.is_ready());
        finish(worker);
    }

    #[test]
    fn a_block_that_finds_no_space_does_not_hold_up_receipts() {
        let World { sim, mut worker, .. } = world(SPARES, options());
        sim.set_capacity(Some(sim.used()));
        push(&mut worker, block(0, 100_000));
        push(&mut worker, delivered(0));
        assert!(!worker.work().unwrap(), "it is larger than a segment");
        wait_until("the receipt passes", || worker.work().unwrap());
        assert_eq!((durable(&worker), worker.queue.is_waiting()), (0, true));
        sim.set_capacity(None);
        wait_until("there is space again", || worker.work().unwrap());
        assert_eq!((durable(&worker), worker.queue.is_waiting()), (1, false));
    }

    #[test]
    fn what_is_queued_is_not_slept_on() {
        let World { requests, mut worker, .. } = world(SPARES, options());
        push(&mut worker, delivered(0));
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let _ = tell.send(worker.gather().is_none());
        });
        assert_eq!(told.recv_timeout(LONG), Ok(true), "the idle frame is due in an hour");
        drop(requests);
    }

    #[test]
    fn with_nothing_to_do_the_thread_sleeps_until_something_is_due() {
        let due = Duration::from_millis(30);
        let settings = Options { idle: Duration::ZERO, segment_age: due, ..options() };
        let World { requests, mut worker, .. } = world(SPARES, settings);
        worker.rest().unwrap();
        let from = Instant::now();
        assert!(worker.gather().is_none());
        assert!(from.elapsed() >= due);
        drop(requests);
    }

    #[test]
    fn a_full_disk_is_looked_at_again_long_before_an_idle_frame_is_due() {
        let World { sim, mut worker, .. } = world(2, options());
        assert!(worker.patience() > LOOK_AGAIN, "nothing waits");
        worker.is_jammed = true;
        assert_eq!(worker.patience(), LOOK_AGAIN, "not even receipts have room");
        worker.is_jammed = false;
        worker.stuck_until = Some(Instant::now() + HOUR);
        assert_eq!(worker.patience(), LOOK_AGAIN, "a block found no space");
        worker.stuck_until = None;
        log(&mut worker, block(0, 30_000));
        push(&mut worker, block(1, 10_000));
        assert!(!worker.work().unwrap());
        assert_eq!(worker.patience(), BRIEFLY, "a spare is being made");
        fill_up(&sim, &worker);
        assert_eq!(worker.patience(), LOOK_AGAIN, "none can be made");
    }

    #[test]
    fn a_group_ends_with_the_unit_that_fills_half_a_segment() {
        let World { mut worker, .. } = world(SPARES, options());
        for first in 0..10 {
            push(&mut worker, block(first, 10_000));
        }
        worker.fill_batch();
        let (last, others) = worker.batch.split_last().unwrap();
        let before = others.iter().map(Entry::bytes).sum::<u64>();
        assert!(before < SEGMENT / 2 && before + last.bytes() >= SEGMENT / 2, "{before}");
    }

    #[test]
    fn who_waits_for_everything_before_is_answered_and_nobody_is_told_of_a_group() {
        let woken = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&woken);
        let mut settings = options();
        settings.on_durable = Some(Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        let World { mut worker, .. } = world(SPARES, settings);
        assert_eq!(woken.load(Ordering::Relaxed), 1, "one group was logged");
        let (reply, answer) = mpsc::sync_channel(1);
        worker.queue.push(Unit { entries: Vec::new(), reply: Some(reply) });
        assert!(worker.work().unwrap(), "someone was answered");
        let lsn = worker.writer.durable_lsn();
        assert!(matches!(answer.try_recv(), Ok(Ok(answered)) if answered == lsn));
        assert!(!worker.work().unwrap(), "nothing is left to do");
        assert_eq!(woken.load(Ordering::Relaxed), 1, "nothing more was logged");
    }

    #[test]
    fn a_segment_is_left_by_age_only_with_a_block_in_it_and_not_on_a_full_disk() {
        let cases = [
            (HOUR, true, SPARES, false),
            (Duration::ZERO, false, SPARES, false),
            (Duration::ZERO, true, 2, false),
            (Duration::ZERO, true, SPARES, true),
        ];
        for (segment_age, has_block, spares, is_left) in cases {
            let World { sim, mut worker, .. } = world(spares, Options { segment_age, ..options() });
            if has_block {
                log(&mut worker, block(0, 100));
            }
            fill_up(&sim, &worker);
            let before = worker.writer.segment();
            worker.rest().unwrap();
            let case = format!("after {segment_age:?}, {has_block}, {spares} spares");
            assert_eq!(worker.writer.segment() > before, is_left, "{case}");
        }
    }

    #[test]
    fn an_idle_frame_is_logged_once_and_everyone_knows_that_it_is_durable() {
        let World { mut worker, .. } = world(SPARES, Options { idle: Duration::ZERO, ..options() });
        let before = worker.writer.durable_lsn();
        for _ in 0..2 {
            worker.rest().unwrap();
            let next = worker.shared.handover.shelf().next_lsn;
            assert_eq!((worker.shared.durable.load(Ordering::Acquire), next), (before + 1, before + 2));
        }
    }

    #[test]
    fn everyone_who_waits_is_told_why_nothing_more_is_logged() {
        let World { requests, mut worker, .. } = world(SPARES, options());
        let (reply, answers) = mpsc::sync_channel(3);
        worker.ends.push((1, Some(reply.clone())));
        worker.queue.push(Unit { entries: vec![delivered(0)], reply: Some(reply.clone()) });
        requests.send(Request::Append(Unit { entries: Vec::new(), reply: Some(reply) })).unwrap();
        let (done, withdrawn) = mpsc::sync_channel(1);
        requests.send(Request::Withdraw(P, 1, done)).unwrap();
        let (reply, closed) = mpsc::sync_channel(1);
        requests.send(Request::Close(reply)).unwrap();
        drop(requests);
        let error = worker.shared.fail(WalError::Closed);
        worker.refuse_all(&error);
        assert_eq!(answers.try_iter().filter(Result::is_err).count(), 3);
        assert!(withdrawn.try_recv().is_err(), "it was not withdrawn");
        assert!(matches!(closed.try_recv(), Ok(Err(_))));
    }
}
