//! What the log's thread is asked, in order, and when it is worth waiting for more of it.
//!
//! Promises: requests of one caller keep their order; nobody is waited for longer than [`TOGETHER`] if there is something to
//! do. Never: it does not sleep while callers are about to come back, since to be woken takes as long as they do.

use super::error::WalError;
use super::queue::Unit;
use crate::record::Partition;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

/// Callers that wait for each append come back at once: so long after their answer the next group waits for them. Otherwise
/// they split into two halves, of which one waits while the other is synced.
const TOGETHER: Duration = Duration::from_micros(60);

/// What the thread is asked.
#[derive(Debug)]
pub enum Request {
    /// Log this.
    Append(Unit),
    /// Drop what is queued of this partition and this and older tenures, and say when that is done.
    Withdraw(Partition, u32, SyncSender<()>),
    /// Look at what is due.
    Look,
    /// Log everything queued, end the log cleanly, and answer.
    Close(SyncSender<Result<(), Arc<WalError>>>),
}

/// See the module.
#[derive(Debug)]
pub struct Inbox {
    requests: Receiver<Request>,
    /// Came before the last answers: not from those who were answered.
    early: VecDeque<Request>,
    /// Callers that were answered and have not come back.
    returning: usize,
    /// They are waited for until then.
    until: Instant,
}

impl Inbox {
    /// An inbox of what is sent there.
    pub fn new(requests: Receiver<Request>) -> Self {
        Self { requests, early: VecDeque::new(), returning: 0, until: Instant::now() }
    }

    /// To be called before callers are answered: what is there by now is not theirs.
    pub fn set_apart(&mut self) {
        self.early.extend(self.requests.try_iter());
    }

    /// So many callers were answered just now. One that is alone is not waited for: it will do the work itself.
    pub fn answered(&mut self, callers: usize) {
        let is_alone = callers == 1 && self.early.is_empty();
        self.returning = if is_alone { 0 } else { callers };
        self.until = Instant::now() + TOGETHER;
    }

    /// The next request that is there, or that an answered caller comes back with.
    pub fn at_hand(&mut self) -> Result<Request, RecvTimeoutError> {
        if let Some(request) = self.early.pop_front() {
            return Ok(request);
        }
        loop {
            match self.requests.try_recv() {
                Ok(request) => {
                    let waits = matches!(&request, Request::Append(unit) if unit.reply.is_some());
                    self.returning = self.returning.saturating_sub(usize::from(waits));
                    return Ok(request);
                }
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if self.returning == 0 || Instant::now() >= self.until => {
                    self.returning = 0;
                    return Err(RecvTimeoutError::Timeout);
                }
                Err(TryRecvError::Empty) => std::hint::spin_loop(),
            }
        }
    }

    /// [`Inbox::at_hand`]; sleeps until there is one, at most so long.
    pub fn within(&mut self, patience: Duration) -> Result<Request, RecvTimeoutError> {
        match self.at_hand() {
            Err(RecvTimeoutError::Timeout) => self.requests.recv_timeout(patience),
            other => other,
        }
    }

    /// [`Inbox::at_hand`]; sleeps until there is one. None: nobody is left who could ask.
    pub fn recv(&mut self) -> Option<Request> {
        self.early.pop_front().or_else(|| self.requests.recv().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn inbox() -> (mpsc::Sender<Request>, Inbox) {
        let (sender, requests) = mpsc::channel();
        (sender, Inbox::new(requests))
    }

    /// A request to withdraw this partition, to tell requests apart.
    fn marked(number: i32) -> Request {
        Request::Withdraw(Partition { topic: 1, number }, 1, mpsc::sync_channel(1).0)
    }

    fn append(waits: bool) -> Request {
        let reply = waits.then(|| mpsc::sync_channel(1).0);
        Request::Append(Unit { entries: Vec::new(), reply })
    }

    fn mark(request: Option<Request>) -> Option<i32> {
        match request? {
            Request::Withdraw(partition, ..) => Some(partition.number),
            _ => None,
        }
    }

    #[test]
    fn what_was_set_apart_comes_first_and_is_nobodys_return() {
        let (sender, mut inbox) = inbox();
        sender.send(append(true)).unwrap();
        sender.send(marked(1)).unwrap();
        inbox.set_apart();
        sender.send(marked(2)).unwrap();
        inbox.answered(1);
        assert!(matches!(inbox.at_hand(), Ok(Request::Append(_))));
        assert_eq!(inbox.returning, 1, "it was there before the answer");
        assert_eq!([mark(inbox.at_hand().ok()), mark(inbox.at_hand().ok())], [Some(1), Some(2)]);
        sender.send(marked(3)).unwrap();
        inbox.set_apart();
        drop(sender);
        assert_eq!([mark(inbox.recv()), mark(inbox.recv())], [Some(3), None]);
    }

    #[test]
    fn only_who_waits_for_an_answer_counts_as_returned_and_is_waited_for_not_long() {
        let (sender, mut inbox) = inbox();
        inbox.answered(2);
        for (waits, left) in [(false, 2), (true, 1)] {
            sender.send(append(waits)).unwrap();
            assert!(inbox.at_hand().is_ok());
            assert_eq!(inbox.returning, left);
        }
        let until = inbox.until;
        assert_eq!(inbox.at_hand().err(), Some(RecvTimeoutError::Timeout));
        assert!(Instant::now() >= until && inbox.returning == 0);
        let from = Instant::now();
        assert_eq!(inbox.within(Duration::from_millis(5)).err(), Some(RecvTimeoutError::Timeout));
        assert!(from.elapsed() >= Duration::from_millis(5));
        drop(sender);
        assert_eq!(inbox.at_hand().err(), Some(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn who_was_answered_is_waited_for_a_moment() {
        let (_sender, mut inbox) = inbox();
        let before = Instant::now();
        inbox.answered(1);
        assert!(inbox.until >= before + TOGETHER);
    }
}
