//! How a benchmark is seen and stopped: the bar on a terminal, and SIGINT.

use crate::cli::exit::{Failure, INTERRUPTED};
use crate::cli::signals;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Says whether the benchmark was told to stop.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens to SIGINT and SIGTERM from now on.
    pub fn on_signals() -> Result<Self, Failure> {
        let stop = Self::default();
        signals::set(Arc::clone(&stop.0))?;
        Ok(stop)
    }

    /// The failure that unwinds everything, once told to stop: children end and folders go as their owners are dropped.
    pub fn check(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::Acquire) {
            return Err(Failure::new(INTERRUPTED, anyhow::anyhow!("stopped; nothing is left behind")));
        }
        Ok(())
    }
}

/// A bar of `steps`; indicatif draws it on a terminal only, on standard error.
pub(super) fn bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
