//! Warns before Kafka's retention reaches records that were not read.
//!
//! A thread with a client of its own, so that a slow answer holds up nobody. Promises: it asks only for partitions that
//! lag, every so often, each question bounded in time. Never: it decides anything.

use super::{Options, Shared};
use crate::clock;
use crate::kafka::consumer::Named;
use crate::kafka::loss::{Look, Track};
use crate::kafka::low::Asker;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Between two looks, at least and at most.
const APART_MIN: Duration = Duration::from_millis(500);
const APART_MAX: Duration = Duration::from_secs(30);
/// Looks within the time that is warned of.
const LOOKS: u32 = 20;
/// One question may take so long.
const ASK: Duration = Duration::from_secs(1);
/// Between two looks at whether it is over.
const NAP: Duration = Duration::from_millis(50);

/// Looks out until told to stop. Blocks; to be called on a thread of its own.
pub fn run(options: &Options, shared: &Arc<Shared>) {
    let apart = (options.warn_time_to_loss / LOOKS).clamp(APART_MIN, APART_MAX);
    let mut lookout = Lookout { options, shared, asker: None, tracks: BTreeMap::new(), warned: BTreeMap::new() };
    let mut last = Instant::now();
    while !shared.stop.load(Ordering::Acquire) {
        std::thread::sleep(NAP);
        if last.elapsed() >= apart {
            last = Instant::now();
            lookout.round();
        }
    }
}

struct Lookout<'a> {
    options: &'a Options,
    shared: &'a Arc<Shared>,
    /// Made when something lags for the first time.
    asker: Option<Asker>,
    tracks: BTreeMap<Named, Track>,
    /// The estimate that was last warned of.
    warned: BTreeMap<Named, Duration>,
}

impl Lookout<'_> {
    fn round(&mut self) {
        let lagging = self.lagging();
        self.tracks.retain(|named, _| lagging.contains_key(named));
        let mut times = BTreeMap::new();
        for (named, next) in lagging {
            if self.shared.stop.load(Ordering::Acquire) {
                return;
            }
            let Some(low) = self.ask(&named) else { continue };
            let track = self.tracks.entry(named.clone()).or_default();
            track.look(Look { at: clock::monotonic(), low, next });
            if let Some(time) = track.time_to_loss() {
                self.warn(&named, time, low, next);
                times.insert(named, time);
            }
        }
        let before = self.shared.gaps.times_to_loss();
        for (topic, partition) in before.keys().chain(times.keys()) {
            let time = times.get(&(topic.clone(), *partition)).copied();
            self.shared.metrics.time_to_loss(topic, *partition, time);
        }
        self.warned.retain(|named, _| times.contains_key(named));
        self.shared.gaps.set_times_to_loss(times);
    }

    /// Open partitions with records that were not read, and the next offset to read.
    fn lagging(&self) -> BTreeMap<Named, i64> {
        self.shared.views.look(|views| {
            let open = views.iter().flat_map(|view| &view.partitions);
            let lagging = open.filter(|(_, _, next, end)| end.is_none_or(|end| *next < end));
            lagging.map(|(topic, partition, next, _)| ((topic.clone(), *partition), *next)).collect()
        })
    }

    fn ask(&mut self, named: &Named) -> Option<i64> {
        if self.asker.is_none() {
            self.asker = Asker::new(&self.options.kafka).ok();
        }
        self.asker.as_ref()?.ends(named, ASK).ok().map(|(low, _)| low)
    }

    /// Says so when it gets close, and again each time it has halved.
    fn warn(&mut self, named: &Named, time: Duration, low: i64, next: i64) {
        if time >= self.options.warn_time_to_loss {
            self.warned.remove(named);
            return;
        }
        if self.warned.get(named).is_none_or(|said| time < *said / 2) {
            self.warned.insert(named.clone(), time);
            let ((topic, partition), seconds) = (named, time.as_secs());
            tracing::warn!(
                topic,
                partition,
                seconds,
                "Kafka will drop unread records in about {seconds} s: it begins at offset {low}, offset {next} is next to \
                 be read"
            );
        }
    }
}
