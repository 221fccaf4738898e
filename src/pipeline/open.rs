//! The start: recover the log, make the dedupe table, name the topics, open the sink.

use super::{Custom, Error};
use crate::config::{self, Config, Durability};
use crate::dedupe::store::{Origin, Stamp, Store};
use crate::dedupe::{Row, Table};
use crate::io::disk::Disk;
use crate::io::hook::{self, Hook};
use crate::io::pool::Pool;
use crate::io::{IoError, Storage};
use crate::kafka::consumer::Settings as KafkaSettings;
use crate::kafka::gap::OnGap;
use crate::kafka::start::{OnForeign, Policy, StartAt};
use crate::kafka::tenure::{self, Fold, Rules, WalId};
use crate::kafka::wire::Wire;
use crate::metrics::Metrics;
use crate::processor::delivery::ROUTE;
use crate::rate::governor::Governor;
use crate::receiver::plan::{Batching, Plans};
use crate::receiver::slot::Limits;
use crate::receiver::{self, Gaps, Owners, Shared, Views};
use crate::record::topics::Topics;
use crate::record::{Partition, TopicId};
use crate::sink::file::FileOptions;
use crate::sink::render::Format;
use crate::sink::target::{self, Target};
use crate::sink::{Receipt, Restored, Sink, Source};
use crate::wal::{self, Entry, Feed, Log, State};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// Idle buffers kept for blocks.
const BUFFERS: usize = 16;
/// Output files synced at a time.
const SYNC_THREADS: usize = 8;
/// Output files held open at a time.
const FILES: usize = 256;

/// An opened pipeline, before anything moves.
pub(super) struct Parts {
    pub feed: Feed,
    pub log: Log,
    pub store: Store,
    pub sink: Box<dyn Sink>,
    pub custom: Custom,
    pub restored: Vec<Restored>,
    pub shared: Arc<Shared>,
    pub receiver: receiver::Options,
}

pub(super) fn open(
    config: &Config,
    mut custom: Custom,
    metrics: &Arc<Metrics>,
    governor: &Arc<Governor>,
) -> Result<Parts, Error> {
    let storage: Arc<dyn Storage> = Arc::new(Disk);
    match config.wal.durability {
        Durability::Fsync => {}
        Durability::Os => {
            tracing::warn!("wal.durability is os: a power cut loses what was acknowledged shortly before");
        }
        Durability::Memory => tracing::warn!("wal.durability is memory: a kill loses what was acknowledged"),
    }
    let opened = wal::open(Arc::clone(&storage), wal_options(config, metrics))?;
    let (log, state) = (opened.log, opened.state);
    report(&opened.report);
    if config.mode == config::Mode::Receiver {
        drop_plans(&log, &state)?;
    }
    let known = state.topics.iter().map(|(number, topic)| (*number, topic.name.clone(), topic.id));
    let topics = Topics::new(known);
    let table = table(&state);
    let store = store(config, &state, &table);
    let sink = match custom.sink.take() {
        Some(sink) => sink,
        None => open_sink(config, &storage)?,
    };
    let shared = Shared {
        log: log.clone(),
        wal: WalId(state.wal_id),
        topics: topics.clone(),
        owners: Mutex::new(owners(config, &state, &custom)),
        table: Mutex::new(table),
        governor: Arc::clone(governor),
        // Every plan takes an LSN of its own, so ids that go on behind the last LSN were never used.
        plans: Mutex::new(Plans::new(state.lsn + 1, &state.plans)),
        pool: Pool::new(BUFFERS),
        gaps: Gaps::new(state.partitions.iter().map(|(partition, known)| (*partition, known.gaps.clone()))),
        metrics: Arc::clone(metrics),
        views: Views::new(config.kafka.receivers as usize),
        stop: AtomicBool::new(false),
    };
    let receiver = receiver_options(config, &state);
    let restored = restored(&state, &topics);
    Ok(Parts { feed: opened.feed, log, store, sink, custom, restored, shared: Arc::new(shared), receiver })
}

/// What direct mode planned and did not deliver is taken as any other record now.
fn drop_plans(log: &Log, state: &State) -> Result<(), Error> {
    for plan in &state.plans {
        tracing::info!(
            id = plan.id,
            ranges = plan.ranges.len(),
            "a plan of direct mode is dropped; its records are received"
        );
        log.append(Entry::PlanDropped { route: plan.route, id: plan.id })?;
    }
    Ok(())
}

/// Says what recovery found.
fn report(report: &wal::RecoveryReport) {
    let wal::RecoveryReport { is_new, segments, frames, copied, removed, .. } = report;
    let (removed, unverified) = (removed.len(), report.unverified.len());
    tracing::info!(is_new, segments, frames, copied, removed, unverified, "the log is open");
    if let Some(torn) = &report.torn {
        let (path, position) = (torn.path.display(), torn.position);
        tracing::info!("a torn tail was cut: {path} at byte {position}; nothing of it was acknowledged");
    }
    for block in &report.corrupt {
        tracing::error!("{block}; its partition is not delivered past it until it is fetched again from Kafka");
    }
    for problem in &report.problems {
        let (path, position, reason) = (problem.path.display(), problem.position, &problem.reason);
        tracing::warn!("damage that loses nothing: {path} at byte {position}: {reason}");
    }
}

fn wal_options(config: &Config, metrics: &Arc<Metrics>) -> wal::Options {
    let mut options = wal::Options::new(&config.wal.dir, Arc::clone(metrics));
    options.segment_bytes = config.wal.segment_bytes;
    options.segment_age = config.wal.segment_age;
    options.max_bytes = config.wal.max_bytes;
    options.feed_bytes = (config.memory.budget / if fetches_itself(&config.kafka) { 4 } else { 8 }) as usize;
    options.durability = config.wal.durability;
    options.verify_bytes = config.wal.verify_at_start;
    options
}

/// The dedupe table as the log's frames give it.
fn table(state: &State) -> Table {
    Table::new(state.partitions.iter().map(|(partition, known)| {
        let row = Row { admit: known.admitted, deliver: known.delivered(), tenure: known.tenure };
        (*partition, row)
    }))
}

fn store(config: &Config, state: &State, table: &Table) -> Store {
    let dir = config.wal.dir.join("dedupe");
    let stamp = Stamp { wal_id: state.wal_id, lsn: state.lsn };
    let (store, origin) = Store::open(&dir, table, stamp);
    match origin {
        Origin::Matched => tracing::debug!("the dedupe table equals the log"),
        Origin::Rebuilt(why) => tracing::info!("the dedupe table was rebuilt from the log: {why}"),
        Origin::Absent(why) => tracing::warn!("no copy of the dedupe table is kept, the log has the same facts: {why}"),
    }
    store
}

fn owners(config: &Config, state: &State, custom: &Custom) -> Owners {
    let fence = match config.kafka.fence {
        config::Fence::Commit => tenure::Fence::Commit,
        config::Fence::None => tenure::Fence::None,
    };
    let rules = if custom.unprotected { Rules::unprotected() } else { Rules::all() };
    let settings = tenure::Settings { wal: WalId(state.wal_id), topic: TopicId::default(), fence, rules };
    let known = state.partitions.iter().filter(|(_, known)| known.tenure > 0).map(|(partition, known)| {
        let topic = state.topics.get(&partition.topic).map(|topic| topic.id).unwrap_or_default();
        (*partition, topic, fold(known))
    });
    Owners::new(config.kafka.receivers as usize, settings, known)
}

fn fold(known: &wal::PartitionState) -> Fold {
    let undecided = known.undecided.iter().map(|range| range.first).min();
    let none = if known.owned { known.tenure_start } else { known.admitted };
    Fold {
        tenure: known.tenure,
        admitted: known.admitted,
        acked: (known.acked >= 0).then_some(known.acked),
        undecided: undecided.unwrap_or(none),
        seen: !known.acked_entries.is_empty(),
    }
}

fn restored(state: &State, topics: &Topics) -> Vec<Restored> {
    let each = |(partition, known): (&Partition, &wal::PartitionState)| {
        let topic = topics.get(partition.topic)?;
        let source = Source { partition: *partition, topic: topic.name, incarnation: topic.incarnation };
        let delivery = known.on_route(ROUTE);
        let receipt = delivery.receipt.map(|stored| Receipt {
            partition: *partition,
            first: stored.first,
            next: stored.next,
            detail: stored.detail,
            keep_from: stored.keep_from,
        });
        Some(Restored { source, receipt, named: delivery.named })
    };
    state.partitions.iter().filter_map(each).collect()
}

fn open_sink(config: &Config, storage: &Arc<dyn Storage>) -> Result<Box<dyn Sink>, Error> {
    let target = match &config.sink.target {
        Some(config::Target::File(dir)) => Target::File { dir: dir.clone() },
        Some(config::Target::Stdout) => Target::Stdout,
        Some(config::Target::Null) => Target::Null,
        None => return Err(Error::Config("sink.target is not set".to_string())),
    };
    if let Target::File { dir } = &target {
        make_dir(storage, dir)?;
    }
    let options = FileOptions {
        format: match config.sink.format {
            config::Format::Jsonl => Format::Jsonl,
            config::Format::Raw => Format::Raw,
        },
        roll_bytes: config.sink.roll_bytes,
        roll_age: config.sink.roll_age,
        max_open: FILES,
        sync_threads: SYNC_THREADS,
    };
    Ok(target::open(&target, &options, storage))
}

/// Fails at the start, not at the first record, when the output can't be written.
fn make_dir(storage: &Arc<dyn Storage>, dir: &std::path::Path) -> Result<(), IoError> {
    storage.create_dir_all(dir)?;
    let probe = dir.join(".forebay-probe");
    if storage.exists(&probe)? {
        storage.unlink(&probe)?;
    }
    storage.create_new(&probe)?;
    storage.unlink(&probe)
}

fn receiver_options(config: &Config, state: &State) -> receiver::Options {
    let kafka = &config.kafka;
    let wal = WalId(state.wal_id);
    let budget = config.memory.budget as usize;
    let policy = Policy {
        start: match kafka.start {
            config::Start::Earliest => StartAt::Earliest,
            config::Start::Latest => StartAt::Latest,
        },
        on_foreign: match kafka.on_foreign_commit {
            config::OnForeignCommit::Hold => OnForeign::Hold,
            config::OnForeignCommit::Log => OnForeign::Log,
            config::OnForeignCommit::Kafka => OnForeign::Kafka,
        },
        sole: kafka.instances == 1 && !saw_others(state, wal),
        on_gap: match kafka.on_gap {
            config::OnGap::Fail => OnGap::Fail,
            config::OnGap::Skip => OnGap::Skip,
            config::OnGap::Pause => OnGap::Pause,
        },
    };
    receiver::Options {
        topics: kafka.topics.clone(),
        kafka: KafkaSettings {
            brokers: kafka.brokers.clone(),
            group: kafka.group.clone(),
            instance_id: kafka.static_membership.then(|| instance_id(WalId(state.wal_id), &kafka.topics)),
            session_timeout: kafka.session_timeout,
            queue_bytes: budget / if fetches_itself(kafka) { 8 } else { 4 },
            wire_bytes: (kafka.fetcher == config::Fetcher::Auto).then_some(budget / 8),
            properties: kafka.properties.0.clone(),
        },
        limits: Limits {
            block_bytes: config.block.bytes as usize,
            block_records: config.block.records,
            record_bytes_max: config.block.max_record_bytes as usize,
        },
        direct: (config.mode == config::Mode::Direct).then(|| Batching {
            interval: config.direct.batch_interval,
            bytes: (config.direct.batch_bytes as usize).min(budget / 8),
        }),
        compression: config.wal.compression,
        block_age: config.block.age,
        open_bytes_max: budget / 8,
        queue_bytes_max: (budget / 8) as u64,
        planned_bytes_max: (budget / 4) as u64,
        receivers: kafka.receivers,
        policy,
        warn_time_to_loss: kafka.warn_time_to_loss,
        exit_at_end: config.exit_at_end,
        unreachable_timeout: kafka.unreachable_timeout,
        hook: Hook::from_environment(hook::AFTER_SYNC),
    }
}

/// True if librdkafka fetches nothing, unless a broker turns out to be too old: its queues may then be half as large, and
/// the feed of the log twice.
fn fetches_itself(kafka: &config::Kafka) -> bool {
    kafka.fetcher == config::Fetcher::Auto && Wire::new(&kafka.brokers, &kafka.properties.0, 0).is_ok()
}

/// The identity in the group. A broker gives a static member that comes back what it had, whatever it subscribes to now:
/// with other topics it has to be another member.
fn instance_id(wal: WalId, topics: &[String]) -> String {
    let topics: BTreeSet<&str> = topics.iter().map(String::as_str).collect();
    let mut digest = crc32fast::Hasher::new();
    for topic in topics {
        digest.update(topic.as_bytes());
        digest.update(b"\n");
    }
    format!("{wal}-{:08x}", digest.finalize())
}

/// True if the commit metadata ever named another WAL.
fn saw_others(state: &State, me: WalId) -> bool {
    state
        .partitions
        .values()
        .any(|known| tenure::Acked::parse(&known.acked_entries).is_ok_and(|acked| acked.has_other_than(me)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_subscription_is_another_member() {
        let id = |topics: &[&str]| {
            instance_id(WalId(7), &topics.iter().map(|topic| (*topic).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(id(&["a", "b"]), id(&["b", "a", "b"]));
        for other in [vec!["a"], vec!["a", "c"], vec!["ab"], vec!["a", "b", "c"]] {
            assert_ne!(id(&["a", "b"]), id(&other), "{other:?}");
        }
        assert!(id(&["a"]).starts_with("00000000000000000000000000000007-"));
    }

    #[test]
    fn the_feed_gets_what_librdkafka_does_not_need() {
        let mut config = Config::default();
        config.kafka.brokers = "127.0.0.1".to_owned();
        let parts = |config: &Config| {
            let feed = wal_options(config, &Arc::new(Metrics::new())).feed_bytes as u64;
            (feed, receiver_options(config, &State::default()).kafka.queue_bytes as u64)
        };
        let budget = config.memory.budget;
        assert_eq!(parts(&config), (budget / 4, budget / 8));
        config.kafka.properties.0.insert("security.protocol".to_owned(), "SSL".to_owned());
        assert_eq!(parts(&config), (budget / 8, budget / 4));
        config.kafka.properties.0.clear();
        config.kafka.fetcher = config::Fetcher::Librdkafka;
        assert_eq!(parts(&config), (budget / 8, budget / 4));
    }
}
