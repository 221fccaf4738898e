//! Fetching without librdkafka: record batches as the brokers have them, straight into blocks.
//!
//! librdkafka stays for the membership, commits and all questions; it fetches nothing of what is fetched here. Batches
//! are checked by their CRC-32C and walked, not made into messages one by one, which is most of what librdkafka's fetching
//! costs.
//!
//! Promises: the records of a partition come in order from the position on, each once, none left out that Kafka has
//! committed (with `isolation.level=read_committed`); a leader with another history is noticed whenever it is asked, since
//! each request names the epoch of what was read last. What this can't do (encryption, authentication, brokers older than
//! 2.8, record formats older than 0.11, a setting it does not know) is left to librdkafka, at the start or whenever it is
//! met: [`Wire::gave_up`]. Never: it decides where a partition begins, or moves a position because of an error.

mod answer;
pub mod batches;
mod connection;
mod eligible;
mod fetcher;
mod records;
mod state;

pub use records::{Part, Records, Unreadable, What, WireRecord};

use super::consumer::{Named, Position};
use fetcher::Shared;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// See the module. Its threads end with it.
pub struct Wire {
    shared: Arc<Shared>,
    is_started: bool,
}

impl Wire {
    /// Fetches from these brokers, with `budget` bytes waiting at most. No connection is made before something is to be
    /// fetched. The error is the setting that only librdkafka understands.
    pub fn new(brokers: &str, properties: &BTreeMap<String, String>, budget: usize) -> Result<Self, String> {
        let fetching = eligible::judge(brokers, properties)?;
        Ok(Self { shared: Arc::new(Shared::new(fetching, budget)), is_started: false })
    }

    /// Fetches each partition from its position on; what arrived before and was not taken is dropped.
    pub fn position(&mut self, starts: impl IntoIterator<Item = Position>) {
        let mut state = self.shared.state();
        for start in starts {
            state.position(start);
        }
        drop(state);
        if !self.is_started {
            self.is_started = true;
            fetcher::start(&self.shared);
        }
        self.shared.wanted.notify_all();
    }

    /// Fetches nothing of these until they are positioned again; what arrived and was not taken is dropped.
    pub fn pause(&self, partitions: &[Named]) {
        let mut state = self.shared.state();
        for named in partitions {
            state.pause(named);
        }
    }

    /// Fetches nothing of these any more.
    pub fn forget(&self, partitions: &[Named]) {
        let mut state = self.shared.state();
        for named in partitions {
            state.forget(named);
        }
    }

    /// First offset still held and high watermark, as last heard.
    pub fn ends(&self, partition: &Named) -> Option<(i64, i64)> {
        self.shared.state().ends(partition)
    }

    /// What arrived, of one partition or of any; waits up to `wait` for it. What it holds counts as waiting until it is
    /// given to [`Wire::done`] or [`Wire::put_back`].
    ///
    /// # Panics
    /// If the part before it in its partition was not taken whole and the partition was left as it was.
    pub fn take(&self, of: Option<&Named>, wait: Duration) -> Option<Part> {
        let mut state = self.shared.state();
        let until = Instant::now() + wait;
        loop {
            let part = state.take(of);
            let left = until.saturating_duration_since(Instant::now());
            if part.is_some() || left.is_zero() || state.gave_up.is_some() {
                return part;
            }
            state = self.shared.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A part was taken whole, or what is left of it is not wanted.
    pub fn done(&self, part: &Part, whole: bool) {
        self.shared.state().done(part, whole);
        self.shared.wanted.notify_all();
    }

    /// A part was taken only up to a point; it comes first again. `slowly`: perhaps not for a while, and so with others.
    pub fn put_back(&self, part: Part, slowly: bool) {
        self.shared.state().put_back(part, slowly);
    }

    /// Why librdkafka has to do it from now on.
    pub fn gave_up(&self) -> Option<String> {
        self.shared.state().gave_up.clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop();
    }
}
