//! While it runs: watches the stages, and stops them in order.

use super::heal::{Healer, Healing};
use super::open::Parts;
use super::summary::{Measured, Summary};
use super::watch::{self, Phase};
use super::{Control, Error};
use crate::config::Config;
use crate::dedupe::store::{Stamp, Store};
use crate::dedupe::{Row, Table};
use crate::io::hook::{self, Hook};
use crate::metrics::Metrics;
use crate::processor::delivery::{
    Delivery, DeliveryError, Options as DeliveryOptions, Parts as DeliveryParts, Progress,
};
use crate::receiver::{self, ReceiverError, Shared, View};
use crate::wal::Log;
use crate::wal::scrub::Pace;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// How often the snapshot and the dedupe table's copy are renewed.
const PUBLISH: Duration = Duration::from_millis(200);
const SAVE: Duration = Duration::from_secs(1);
/// An `exit_at_end` run with partitions elsewhere (or unknown) waits so long for the set to settle.
const STEADY: Duration = Duration::from_millis(1500);

/// A running pipeline.
pub(super) struct Running {
    pub config: Config,
    pub control: Control,
    pub shared: Arc<Shared>,
    pub log: Log,
    pub progress: Arc<Progress>,
    pub metrics: Arc<Metrics>,
    pub started: Instant,
    healing: Healing,
    store: Store,
    receivers: Vec<Option<JoinHandle<Result<(), ReceiverError>>>>,
    lookout: JoinHandle<()>,
    delivery: Option<JoinHandle<Result<(), DeliveryError>>>,
    published: Instant,
    saved: Instant,
}

/// Starts the threads, watches them, stops them.
pub(super) fn supervise(
    config: Config,
    control: Control,
    parts: Parts,
    metrics: Arc<Metrics>,
) -> Result<Summary, Error> {
    let mut running = start(config, control, parts, metrics)?;
    let ended = running.watch();
    running.stop(ended)
}

fn start(config: Config, control: Control, parts: Parts, metrics: Arc<Metrics>) -> Result<Running, Error> {
    let started = Instant::now();
    crate::clock::monotonic();
    let progress = Arc::new(Progress::default());
    let budget = config.memory.budget as usize;
    let delivery = Delivery::new(DeliveryParts {
        feed: parts.feed,
        log: parts.log.clone(),
        topics: parts.shared.topics.clone(),
        sink: parts.sink,
        processor: parts.custom.processor,
        options: DeliveryOptions {
            batch_bytes: (config.sink.batch_bytes as usize).min(budget / 4),
            batch_age: config.sink.batch_age,
            fence: config.kafka.fence == crate::config::Fence::Commit && !parts.custom.unprotected,
            dedupe: !parts.custom.unprotected,
            waiting_bytes: budget / 8,
        },
        hook: Hook::from_environment(hook::AFTER_WRITE),
        governor: Arc::clone(&parts.shared.governor),
        metrics: Arc::clone(&metrics),
        progress: Arc::clone(&progress),
    });
    let restored = parts.restored;
    let delivery = spawn("delivery", move || delivery.run(&restored))?;
    let mut receivers = Vec::new();
    for number in 0..config.kafka.receivers as usize {
        let (options, shared) = (parts.receiver.clone(), Arc::clone(&parts.shared));
        let name = format!("receiver-{number}");
        receivers.push(Some(spawn(&name, move || receiver::run(number, &options, &shared))?));
    }
    let (options, shared) = (parts.receiver.clone(), Arc::clone(&parts.shared));
    let lookout = spawn("lookout", move || receiver::lookout::run(&options, &shared))?;
    let healer = Healer {
        log: parts.log.clone(),
        topics: parts.shared.topics.clone(),
        kafka: parts.receiver.kafka.clone(),
        metrics: Arc::clone(&metrics),
    };
    let healing = Healing::start(healer, Pace { rate: config.wal.scrub_rate, every: config.wal.scrub_every })?;
    Ok(Running {
        config,
        control,
        shared: parts.shared,
        log: parts.log,
        progress,
        metrics,
        started,
        healing,
        store: parts.store,
        receivers,
        lookout,
        delivery: Some(delivery),
        published: started,
        saved: started,
    })
}

pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    let builder = std::thread::Builder::new().name(name.to_string());
    builder.spawn(work).map_err(|error| Error::Config(format!("cannot start a thread: {error}")))
}

impl Running {
    /// Returns when it is time to stop: asked to, at the end, or with what failed.
    fn watch(&mut self) -> Result<(), Error> {
        loop {
            if self.control.is_stopping() {
                return Ok(());
            }
            self.look_after_threads()?;
            if self.config.exit_at_end && self.has_reached_end() {
                return Ok(());
            }
            self.publish(Phase::Running);
            std::thread::sleep(LOOK);
        }
    }

    /// A stage that ended by itself failed.
    fn look_after_threads(&mut self) -> Result<(), Error> {
        if let Some(thread) = self.delivery.take_if(|thread| thread.is_finished()) {
            thread.join().map_err(|_| Error::Panic("delivery"))??;
        }
        for receiver in &mut self.receivers {
            if let Some(thread) = receiver.take_if(|thread| thread.is_finished()) {
                thread.join().map_err(|_| Error::Panic("a receiver"))??;
            }
        }
        self.healing.look()?;
        if let Some(failure) = self.log.failure() {
            return Err(crate::wal::WalError::Poisoned(failure).into());
        }
        Ok(())
    }

    fn has_reached_end(&self) -> bool {
        !self.log.repairs().has_untried() && self.shared.views.look(|views| self.is_all_taken(views))
    }

    fn is_all_taken(&self, views: &[View]) -> bool {
        let done = |view: &View| view.joined && view.at_end && view.settled && view.waiting.is_empty();
        if !views.iter().all(done) {
            return false;
        }
        let each = |view: &View| view.partitions.len() + view.parked.len() + view.held.len();
        let taken: usize = views.iter().map(each).sum();
        let expected = views.iter().find_map(|view| view.partitions_expected);
        let steady = views.iter().filter_map(|view| view.changed).all(|changed| changed.elapsed() >= STEADY);
        // A member that died keeps its seat for a session; after that its partitions are given to others.
        let late = self.started.elapsed() >= self.config.kafka.session_timeout * 3 / 2 + STEADY;
        expected.is_some_and(|expected| taken >= expected) || (steady && (late || taken > 0 && expected.is_none()))
    }

    fn publish(&mut self, phase: Phase) {
        if self.published.elapsed() >= PUBLISH {
            self.published = Instant::now();
            let snapshot = watch::snapshot(self, phase);
            watch::gauges(self, &snapshot);
            self.control.publish(snapshot);
        }
        if self.saved.elapsed() >= SAVE {
            self.saved = Instant::now();
            self.save();
        }
    }

    /// Renews the copy of the dedupe table, stamped with what was durable before it was read.
    fn save(&self) {
        let stamp = Stamp { wal_id: self.log.wal_id(), lsn: self.log.durable_lsn() };
        let table = self.shared.table.lock().unwrap_or_else(PoisonError::into_inner);
        let rows: Vec<_> = table.rows().collect();
        drop(table);
        let durable = rows.into_iter().map(|(partition, row)| {
            let marks = self.log.marks(partition);
            let admit = marks.durable.load(Ordering::Acquire);
            let deliver = marks.delivered.load(Ordering::Acquire);
            (partition, Row { admit, deliver, ..row })
        });
        if let Err(error) = self.store.save(&Table::new(durable), stamp) {
            tracing::warn!("{error}; it is rebuilt from the log at the next start");
        }
    }

    /// Stops the stages in order, then says what was done or what failed.
    fn stop(mut self, ended: Result<(), Error>) -> Result<Summary, Error> {
        let deadline = Instant::now() + self.config.stop.deadline;
        self.control.publish(watch::snapshot(&self, Phase::Draining));
        let ended = ended.and(self.stop_receivers());
        // What is durable is delivered whatever a receiver died of; only a failed log or sink has nothing more to give.
        let can_deliver = matches!(ended, Ok(()) | Err(Error::Receiver(_))) && self.log.failure().is_none();
        let drained = if can_deliver { self.drain(deadline) } else { Ok(()) };
        self.progress.stop.store(true, Ordering::Release);
        let delivered = self.join_delivery(deadline);
        let measured = self.measured();
        self.control.publish(watch::snapshot(&self, Phase::Stopped));
        let problems = self.problems();
        self.save();
        let Self { shared, log, store, metrics, control, lookout, healing, .. } = self;
        let healed = healing.stop();
        // It has been told with the receivers, and only looks: how it ended changes nothing.
        let _ = lookout.join();
        drop(shared);
        let closed = if delivered.is_ok() { log.close().map_err(Error::from) } else { Ok(()) };
        if let Err(error) = store.close() {
            tracing::warn!("{error}; it is rebuilt from the log at the next start");
        }
        let summary = Summary::new(&metrics, measured);
        control.conclude(&summary);
        ended.and(delivered).and(closed).and(healed).and(drained).and(problems)?;
        Ok(summary)
    }

    fn stop_receivers(&mut self) -> Result<(), Error> {
        self.shared.stop.store(true, Ordering::Release);
        let mut ended = Ok(());
        for receiver in &mut self.receivers {
            if let Some(thread) = receiver.take() {
                let joined = thread.join().map_err(|_| Error::Panic("a receiver"));
                ended = ended.and(joined.and_then(|result| result.map_err(Error::from)));
            }
        }
        ended
    }

    /// Waits until nothing is left to deliver.
    fn drain(&mut self, deadline: Instant) -> Result<(), Error> {
        let mut rounds = self.progress.idle_rounds.load(Ordering::Acquire);
        loop {
            // What is repaired is delivered; what can't be had now waits for the next start.
            if self.log.repairs().has_untried() {
                rounds = self.progress.idle_rounds.load(Ordering::Acquire);
            }
            // Two idle rounds after everything became durable: the feed was empty, and nothing was being held.
            if self.progress.idle_rounds.load(Ordering::Acquire) >= rounds + 2 {
                let in_doubt = self.progress.in_doubt.load(Ordering::Acquire);
                if in_doubt > 0 {
                    tracing::info!(
                        "{in_doubt} blocks are in doubt; the group's commit decides about them at the next start"
                    );
                }
                return Ok(());
            }
            self.look_after_threads()?;
            if Instant::now() >= deadline {
                return Err(Error::Deadline(self.progress.open.load(Ordering::Acquire)));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn join_delivery(&mut self, deadline: Instant) -> Result<(), Error> {
        let Some(thread) = self.delivery.take() else { return Ok(()) };
        // A sink that blocks (a pipe nobody reads) must not keep the process: the log has what it did not take.
        let grace = deadline.max(Instant::now() + Duration::from_secs(1));
        while !thread.is_finished() {
            if Instant::now() >= grace {
                return Err(Error::Deadline(self.progress.open.load(Ordering::Acquire)));
            }
            std::thread::sleep(LOOK);
        }
        Ok(thread.join().map_err(|_| Error::Panic("delivery"))??)
    }

    /// Partitions that could not be finished.
    fn problems(&self) -> Result<(), Error> {
        let corrupt = self.corrupt();
        let held = self.shared.views.all().into_iter().flat_map(|view| view.held);
        let held: Vec<String> = held.map(|idle| idle.to_string()).collect();
        if !corrupt.is_empty() {
            Err(Error::Stopped(corrupt))
        } else if self.config.exit_at_end && !held.is_empty() {
            Err(Error::Held(held))
        } else {
            Ok(())
        }
    }

    /// Damaged blocks that are to be delivered and are not repaired, in words.
    pub(super) fn corrupt(&self) -> Vec<String> {
        let open = self.log.repairs().open();
        open.into_iter().filter(|open| !self.log.is_settled(&open.block)).map(|open| open.to_string()).collect()
    }

    fn measured(&self) -> Measured {
        let views = self.shared.views.all();
        let first = views
            .iter()
            .filter_map(|view| view.first_record.map(|at| (at, view.first_record_cpu)))
            .min_by_key(|(at, _)| *at);
        let lag = views.iter().map(|view| view.lag).sum();
        match (first, self.progress.last_receipt()) {
            (Some((first, first_cpu)), Some((last, last_cpu))) => Measured {
                seconds: last.saturating_sub(first).as_secs_f64(),
                cpu_seconds: (last_cpu - first_cpu).max(0.0),
                lag,
            },
            _ => Measured { lag, ..Measured::default() },
        }
    }
}
