//! Wires the stages and stops them in order; the only room that knows them all.
//!
//! Promises: [`run`] returns after everything it started has ended. A stop is: receivers stop fetching, seal and make
//! durable what they hold, commit it; what is durable is delivered within the deadline; outputs are finished; the log is
//! closed. Being killed at any point of it is also correct. Never: it decides nothing that a stage could decide.

mod error;
pub mod guarantee;
pub mod heal;
mod open;
pub mod rate;
pub mod snapshot;
pub mod summary;
mod supervise;
mod watch;

pub use error::Error;
pub use snapshot::Snapshot;
pub use summary::Summary;

use crate::clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::processor::{Identity, Processor};
use crate::rate::governor::Governor;
use crate::sink::Sink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How others steer a running pipeline. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct Control {
    stop: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    published: Arc<Mutex<Snapshot>>,
    governor: Arc<OnceLock<Arc<Governor>>>,
    summary: Arc<Mutex<Option<Summary>>>,
}

impl Control {
    /// Nothing asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for an ordered stop. Returns at once.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// True once a stop was asked for.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// What the pipeline counts, from before its start to after its end.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// The limits, once a pipeline runs; they may be changed while it does.
    pub fn governor(&self) -> Option<Arc<Governor>> {
        self.governor.get().cloned()
    }

    fn govern(&self, config: &Config) -> Arc<Governor> {
        let make = || Arc::new(Governor::new(rate::limits(&config.rate), rate::settings(config), clock::monotonic()));
        Arc::clone(self.governor.get_or_init(make))
    }

    /// What the pipeline looked like when it last said so.
    pub fn snapshot(&self) -> Snapshot {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a run that has ended did, also when it failed; `None` before its end and when it never took or delivered a
    /// record.
    pub fn summary(&self) -> Option<Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says what the run did; called once, at its end.
    fn conclude(&self, summary: &Summary) {
        if summary.records > 0 || self.metrics.records_received.get() > 0 {
            *self.summary.lock().unwrap_or_else(PoisonError::into_inner) = Some(summary.clone());
        }
    }

    /// Says what the pipeline looks like; called a few times a second by the pipeline.
    fn publish(&self, snapshot: Snapshot) {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

/// What a program that embeds Forebay may put in the place of its parts.
pub struct Custom {
    /// The step between log and sink.
    pub processor: Box<dyn Processor>,
    /// Where blocks go; `None`: as configured.
    pub sink: Option<Box<dyn Sink>>,
    /// For the demo: dedupe, fence and start position by the log are switched off.
    #[doc(hidden)]
    pub unprotected: bool,
}

impl Default for Custom {
    fn default() -> Self {
        Self { processor: Box::new(Identity), sink: None, unprotected: false }
    }
}

/// Runs a pipeline until it is told to stop, has reached the end (`exit_at_end`) or fails. Blocks.
pub fn run(config: Config, control: Control) -> Result<Summary, Error> {
    run_with(config, control, Custom::default())
}

/// The same with parts of one's own.
pub fn run_with(config: Config, control: Control, custom: Custom) -> Result<Summary, Error> {
    let metrics = control.metrics();
    let governor = control.govern(&config);
    let parts = open::open(&config, custom, &metrics, &governor)?;
    supervise::supervise(config, control, parts, metrics)
}
