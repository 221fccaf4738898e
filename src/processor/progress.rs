//! What others may see of a running delivery, and why it ended.

use crate::sink::SinkError;
use crate::wal::WalError;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why delivery ended.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The log failed.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The sink can't go on.
    #[error("sink: {0}")]
    Sink(#[from] SinkError),
    /// The user's processor refused a block.
    #[error("processor refused {0}: {1}")]
    Processor(String, String),
    /// The pipeline was stopped while the sink was not ready; what it did not take is in the log.
    #[error("stopped while the sink was not ready: {0}; what it did not take is in the log")]
    Stopped(String),
    /// The log contradicts itself.
    #[error("{0}")]
    Invariant(String),
}

/// What others may see and ask of a running delivery.
#[derive(Debug, Default)]
pub struct Progress {
    /// Blocks that wait for their fence or in the current batch.
    pub open: AtomicU64,
    /// Blocks that wait for their fence.
    pub in_doubt: AtomicU64,
    /// Counts the rounds in which nothing was left to take or to deliver but what is in doubt.
    pub idle_rounds: AtomicU64,
    /// Set to end the loop: finish outputs and return.
    pub stop: AtomicBool,
    /// When the last receipt was durable, and the CPU seconds used until then.
    pub(super) last_receipt: Mutex<Option<(Duration, f64)>>,
    /// Why the sink is being asked again and again, if it is.
    pub retrying: Mutex<Option<String>>,
}

impl Progress {
    /// The monotone time ([`clock::monotonic`]) of the last durable receipt and the CPU seconds of the process then.
    pub fn last_receipt(&self) -> Option<(Duration, f64)> {
        *lock(&self.last_receipt)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
