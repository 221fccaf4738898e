//! Who leads a group: the log's thread, or a caller that waits for its entries and finds nobody at work.
//!
//! To hand entries to a thread and to be woken by it costs a caller that waits alone about a tenth of its sync. It logs
//! them itself; as soon as others want something, the thread does it for all in common groups.
//!
//! Promises: nobody's entries pass what was sent before; an error or a panic of a caller at work poisons the log like one of
//! the thread. Never: a caller waits for the lead. When it is taken, or something is queued, the thread does the work.

use super::commit::Worker;
use super::error::WalError;
use super::inbox::{Inbox, Request};
use super::queue::{Reply, Unit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SendError, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Only one does the log's work at a time.
#[derive(Debug)]
struct Lead {
    seat: Mutex<Seat>,
    /// Requests that were sent and are not queued yet.
    under_way: AtomicUsize,
}

#[derive(Debug)]
struct Seat {
    worker: Worker,
    /// The thread sleeps; it wakes up then if nobody asks for anything.
    sleeps_until: Option<Instant>,
    /// The thread has ended.
    is_over: bool,
}

impl Lead {
    fn lock(&self) -> MutexGuard<'_, Seat> {
        // Whoever panicked there has poisoned the log before; it is only ended now.
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// True if the thread sleeps and something is due before it wakes up.
    fn needs_thread(&self) -> bool {
        let worker = &self.worker;
        self.sleeps_until.is_some_and(|until| worker.is_busy() || Instant::now() + worker.patience() < until)
    }
}

/// The callers' side. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Callers {
    requests: Sender<Request>,
    lead: Arc<Lead>,
}

impl Callers {
    /// Leaves a request to the thread. An error: the thread is gone.
    pub fn send(&self, request: Request) -> Result<(), SendError<Request>> {
        self.lead.under_way.fetch_add(1, Ordering::AcqRel);
        self.requests.send(request)
    }

    /// Logs the unit in the caller's thread, if nobody is at work and nothing is to be logged before it; who waits for it is
    /// answered, now or by the thread. Otherwise gives it back. Blocks for one group.
    pub fn log_now(&self, unit: Unit) -> Option<Unit> {
        let Ok(mut seat) = self.lead.seat.try_lock() else { return Some(unit) };
        let is_clear = self.lead.under_way.load(Ordering::Acquire) == 0 && seat.worker.is_free();
        if seat.is_over || !is_clear || seat.worker.failure().is_some() {
            return Some(unit);
        }
        let worker = &mut seat.worker;
        worker.push(unit);
        match catch_unwind(AssertUnwindSafe(|| worker.work(&mut || {}))) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => drop(worker.fail(error)),
            Err(_) => drop(worker.fail(WalError::Internal("a caller panicked at the log's work".to_owned()))),
        }
        if seat.needs_thread() {
            seat.sleeps_until = None;
            drop(seat);
            // A thread that is gone needs no waking.
            let _ = self.send(Request::Look);
        }
        None
    }
}

/// The thread's side.
#[derive(Debug)]
pub struct LogThread {
    inbox: Inbox,
    lead: Arc<Lead>,
}

/// Both sides of a log with this worker.
pub fn lead(worker: Worker) -> (Callers, LogThread) {
    let (requests, receiver) = mpsc::channel();
    let seat = Mutex::new(Seat { worker, sleeps_until: None, is_over: false });
    let lead = Arc::new(Lead { seat, under_way: AtomicUsize::new(0) });
    (Callers { requests, lead: Arc::clone(&lead) }, LogThread { inbox: Inbox::new(receiver), lead })
}

/// Why the thread ended.
#[derive(Debug)]
enum End {
    Closed(SyncSender<Result<(), Arc<WalError>>>),
    Abandoned,
}

impl LogThread {
    /// Works until the log is closed or all its handles are gone.
    pub fn run(mut self) {
        let lead = Arc::clone(&self.lead);
        let mut seat = lead.lock();
        let ended = loop {
            let end;
            (seat, end) = self.gather(&lead, seat);
            match self.turn(&mut seat.worker, end) {
                Ok(None) => {}
                Ok(Some(end)) => break Ok(end),
                Err(error) => break Err(error),
            }
        };
        seat.is_over = true;
        let worker = &mut seat.worker;
        match ended {
            Ok(End::Abandoned) => worker.stop_rack(),
            Ok(End::Closed(reply)) => {
                let closed = worker.close();
                worker.stop_rack();
                let _ = reply.send(closed);
            }
            Err(error) => {
                let error = worker.fail(error);
                worker.stop_rack();
                worker.refuse_all(&error);
                drop(seat);
                self.refuse_all(&error);
            }
        }
    }

    /// Takes all requests there are; with nothing to do leaves the lead and waits for one.
    fn gather<'a>(&mut self, lead: &'a Lead, mut seat: MutexGuard<'a, Seat>) -> (MutexGuard<'a, Seat>, Option<End>) {
        let mut request = self.inbox.at_hand();
        if matches!(request, Err(RecvTimeoutError::Timeout)) && !seat.worker.is_busy() {
            let patience = seat.worker.patience();
            seat.sleeps_until = Some(Instant::now() + patience);
            drop(seat);
            request = self.inbox.within(patience);
            seat = lead.lock();
            seat.sleeps_until = None;
        }
        loop {
            match request {
                Ok(request) => {
                    lead.under_way.fetch_sub(1, Ordering::AcqRel);
                    if let Some(end) = take(&mut seat.worker, request) {
                        return (seat, Some(end));
                    }
                }
                Err(RecvTimeoutError::Timeout) => return (seat, None),
                Err(RecvTimeoutError::Disconnected) => return (seat, Some(End::Abandoned)),
            }
            request = self.inbox.at_hand();
        }
    }

    /// A group, or what is due by time; everything if it is to end.
    fn turn(&mut self, worker: &mut Worker, end: Option<End>) -> Result<Option<End>, WalError> {
        if end.is_some() {
            worker.finish()?;
            return Ok(end);
        }
        if let Some(error) = worker.failure() {
            return Err(WalError::Poisoned(error));
        }
        let has_worked = worker.work(&mut || self.inbox.set_apart())?;
        self.inbox.answered(worker.answered());
        if !has_worked {
            worker.rest()?;
        }
        Ok(None)
    }

    /// The log is poisoned: everyone who waits is told, until all handles are gone.
    fn refuse_all(&mut self, error: &Arc<WalError>) {
        while let Some(request) = self.inbox.recv() {
            match request {
                Request::Append(unit) => {
                    unit.reply.into_iter().for_each(|reply: Reply| drop(reply.send(Err(Arc::clone(error)))));
                }
                Request::Withdraw(..) | Request::Look => {}
                Request::Close(reply) => {
                    let _ = reply.send(Err(Arc::clone(error)));
                    return;
                }
            }
        }
    }
}

fn take(worker: &mut Worker, request: Request) -> Option<End> {
    match request {
        Request::Append(unit) => worker.take(unit),
        Request::Withdraw(partition, tenure, done) => {
            worker.withdraw(partition, tenure);
            let _ = done.send(());
        }
        Request::Look => {}
        Request::Close(reply) => return Some(End::Closed(reply)),
    }
    None
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
