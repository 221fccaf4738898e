//! Who does the log's work: its thread, or a caller that waits for its entries and finds nobody at it.
//!
//! To hand entries to a thread and to be woken by it costs a caller that waits alone about a tenth of a long sync and a third
//! of a short one. It logs them itself; as soon as others want something, the thread does it for all in common groups.
//!
//! Promises: nobody's entries pass what was sent before; an error or a panic of a caller at work poisons the log like one of
//! the thread. Never: a caller waits for the desk. When it is taken, or something waits there, the thread does the work.

use super::commit::Worker;
use super::error::WalError;
use super::inbox::{Inbox, Request};
use super::queue::{Reply, Unit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SendError, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Where the work is done, by one at a time.
#[derive(Debug)]
struct Desk {
    place: Mutex<Place>,
    /// Requests on their way: sent, and not taken by whoever is at the desk.
    under_way: AtomicUsize,
}

#[derive(Debug)]
struct Place {
    worker: Worker,
    /// The thread sleeps; it wakes up then if nobody asks for anything.
    sleeps_until: Option<Instant>,
    /// The thread has ended.
    is_over: bool,
}

impl Desk {
    fn sit_down(&self) -> MutexGuard<'_, Place> {
        // Whoever panicked there has poisoned the log before; it is only ended now.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// True if the thread sleeps and something is due before it wakes up.
    fn needs_thread(&self) -> bool {
        let worker = &self.worker;
        self.sleeps_until.is_some_and(|until| worker.is_busy() || Instant::now() + worker.patience() < until)
    }
}

/// The callers' side. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Post {
    requests: Sender<Request>,
    desk: Arc<Desk>,
}

impl Post {
    /// Leaves a request to the thread. An error: the thread is gone.
    pub fn send(&self, request: Request) -> Result<(), SendError<Request>> {
        self.desk.under_way.fetch_add(1, Ordering::AcqRel);
        self.requests.send(request)
    }

    /// Logs the unit in the caller's thread, if nobody is at the desk and nothing is to be logged before it; who waits for it
    /// is answered, now or by the thread. Otherwise gives it back. Blocks for one group.
    pub fn log_now(&self, unit: Unit) -> Option<Unit> {
        let Ok(mut place) = self.desk.place.try_lock() else { return Some(unit) };
        let is_clear = self.desk.under_way.load(Ordering::Acquire) == 0 && place.worker.is_free();
        if place.is_over || !is_clear || place.worker.failure().is_some() {
            return Some(unit);
        }
        let worker = &mut place.worker;
        worker.push(unit);
        match catch_unwind(AssertUnwindSafe(|| worker.work(&mut || {}))) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => drop(worker.fail(error)),
            Err(_) => drop(worker.fail(WalError::Internal("a caller panicked at the log's work".to_owned()))),
        }
        if place.needs_thread() {
            place.sleeps_until = None;
            drop(place);
            // A thread that is gone needs no waking.
            let _ = self.send(Request::Look);
        }
        None
    }
}

/// The thread's side.
#[derive(Debug)]
pub struct Clerk {
    inbox: Inbox,
    desk: Arc<Desk>,
}

/// A desk with this worker.
pub fn desk(worker: Worker) -> (Post, Clerk) {
    let (requests, receiver) = mpsc::channel();
    let place = Mutex::new(Place { worker, sleeps_until: None, is_over: false });
    let desk = Arc::new(Desk { place, under_way: AtomicUsize::new(0) });
    (Post { requests, desk: Arc::clone(&desk) }, Clerk { inbox: Inbox::new(receiver), desk })
}

/// Why the thread ended.
#[derive(Debug)]
enum End {
    Closed(SyncSender<Result<(), Arc<WalError>>>),
    Abandoned,
}

impl Clerk {
    /// Works until the log is closed or all its handles are gone.
    pub fn run(mut self) {
        let desk = Arc::clone(&self.desk);
        let mut place = desk.sit_down();
        let ended = loop {
            let end;
            (place, end) = self.gather(&desk, place);
            match self.turn(&mut place.worker, end) {
                Ok(None) => {}
                Ok(Some(end)) => break Ok(end),
                Err(error) => break Err(error),
            }
        };
        place.is_over = true;
        let worker = &mut place.worker;
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
                drop(place);
                self.refuse_all(&error);
            }
        }
    }

    /// Takes all requests there are; with nothing to do leaves the desk and waits for one.
    fn gather<'a>(&mut self, desk: &'a Desk, mut place: MutexGuard<'a, Place>) -> (MutexGuard<'a, Place>, Option<End>) {
        let mut request = self.inbox.at_hand();
        if matches!(request, Err(RecvTimeoutError::Timeout)) && !place.worker.is_busy() {
            let patience = place.worker.patience();
            place.sleeps_until = Some(Instant::now() + patience);
            drop(place);
            request = self.inbox.within(patience);
            place = desk.sit_down();
            place.sleeps_until = None;
        }
        loop {
            match request {
                Ok(request) => {
                    desk.under_way.fetch_sub(1, Ordering::AcqRel);
                    if let Some(end) = take(&mut place.worker, request) {
                        return (place, Some(end));
                    }
                }
                Err(RecvTimeoutError::Timeout) => return (place, None),
                Err(RecvTimeoutError::Disconnected) => return (place, Some(End::Abandoned)),
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
#[path = "desk_tests.rs"]
mod tests;
