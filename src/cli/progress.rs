//! The line that shows how a run is getting on; on a terminal only.

use super::output::thousands;
use crate::metrics::Metrics;
use crate::pipeline::Control;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the line changes.
const EVERY: Duration = Duration::from_millis(200);

/// A line on standard error; a hidden one when that is not a terminal.
pub(super) fn line() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// Keeps a line up to date until it is dropped, which clears it.
pub(super) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts watching; does nothing when the line is hidden.
    pub fn start(bar: &ProgressBar, control: &Control) -> Self {
        if bar.is_hidden() {
            return Self { stop: None, thread: None };
        }
        let (stop, stopped) = channel();
        let (bar, control) = (bar.clone(), control.clone());
        let thread = std::thread::spawn(move || {
            let metrics = control.metrics();
            let (mut before, mut at) = (0, Instant::now());
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let (records, seconds) = (metrics.records_delivered.get(), at.elapsed().as_secs_f64());
                bar.set_message(message(&metrics, &control, (records - before) as f64 / seconds));
                bar.tick();
                (before, at) = (records, Instant::now());
            }
            bar.finish_and_clear();
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

fn message(metrics: &Metrics, control: &Control, rate: f64) -> String {
    let snapshot = control.snapshot();
    let lag: u64 = snapshot.partitions.iter().filter_map(|partition| partition.lag).sum();
    let records = thousands(metrics.records_delivered.get());
    let text = format!("{records} delivered · {}/s · lag {}", thousands(rate as u64), thousands(lag));
    match snapshot.reasons_not_ready.first() {
        Some(reason) => format!("{text} · {reason}"),
        None => text,
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The thread only draws; if it panicked there is nothing to clean up.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
