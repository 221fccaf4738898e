//! Every metric name, once, and the numbers behind them.
//!
//! Promises: counting is a few atomic operations and never blocks; [`Metrics::encode`] gives the `OpenMetrics` text.
//! Never: nothing decides by a metric. Names start with `forebay_`, units are seconds, bytes and records.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What Forebay counts. Shared as `Arc<Metrics>`; all fields may be used from any thread.
#[derive(Debug)]
pub struct Metrics {
    /// Records taken from Kafka, suppressed ones included.
    pub records_received: Counter,
    /// Bytes of payload taken from Kafka.
    pub bytes_received: Counter,
    /// Blocks that dedupe let into the log.
    pub blocks_admitted: Counter,
    /// Records per second that may be taken; -1 while there is no limit.
    pub rate_records_per_second: Gauge,
    /// Direct mode: batches whose plan was logged.
    pub plans: Counter,
    /// Records not logged because they were here already.
    pub records_suppressed: Counter,
    /// Records whose output is durable.
    pub records_delivered: Counter,
    /// Bytes of payload whose output is durable, as they were logged.
    pub bytes_delivered: Counter,
    /// Blocks whose output is durable.
    pub blocks_delivered: Counter,
    /// Bytes appended to the log, frame headers and padding included.
    pub wal_bytes_appended: Counter,
    /// Bytes that compression kept out of the log.
    pub wal_bytes_saved: Counter,
    /// Groups of frames made durable together.
    pub wal_groups: Counter,
    /// Syncs of segment files.
    pub wal_fsyncs: Counter,
    /// Writes and syncs of the log that failed and were survived.
    pub wal_failed_syncs: Counter,
    /// How long a write to a segment took with its sync.
    pub wal_fsync_seconds: Latencies,
    /// Segments that exist, spares not counted.
    pub wal_segments: Gauge,
    /// Bytes the log occupies.
    pub wal_bytes: Gauge,
    /// 1 while the log takes no new blocks because disk or quota is full.
    pub wal_full: Gauge,
    /// Bytes of sealed segments read again by the scrubber.
    pub wal_scrubbed_bytes: Counter,
    /// Damaged places the scrubber found, delivered ones included.
    pub wal_scrub_damaged: Counter,
    /// Damaged blocks that are to be delivered and not repaired.
    pub wal_damaged_blocks: Gauge,
    /// Damaged blocks fetched again and kept in repair files.
    pub wal_repaired_blocks: Counter,
    /// Commits Kafka confirmed.
    pub commits_ok: Counter,
    /// Commits Kafka refused.
    pub commits_refused: Counter,
    /// Commits without an answer: not known to be applied or not.
    pub commits_unanswered: Counter,
    /// Assignments and revocations.
    pub rebalances: Counter,
    /// Times the sink made output durable.
    pub sink_syncs: Counter,
    /// How long the sink took to deliver a batch and make it durable.
    pub sink_sync_seconds: Latencies,
    /// Deliveries tried again.
    pub sink_retries: Counter,
    /// Bytes of blocks held in memory.
    pub queue_bytes: Gauge,
    /// Blocks dropped from memory, to be read back from the log.
    pub feed_spilled_blocks: Counter,
    /// Ranges Kafka no longer had.
    pub gaps: Counter,
    /// Records Kafka no longer had.
    pub gaps_records: Counter,
    /// Partitions not fetched for now.
    pub partitions_paused: Gauge,
    /// Receivers that librdkafka fetches for.
    pub receivers_by_librdkafka: Gauge,
    /// Partitions that need a person: corrupt, or held.
    pub partitions_stopped: Gauge,
    /// Memory resident; set just before [`Metrics::encode`].
    pub rss_bytes: Gauge,
    partitions: PartitionFamilies,
    losses: LossFamilies,
    registry: Registry,
}

/// The series of one topic-partition; cloning shares them.
#[derive(Clone, Debug)]
pub struct PartitionMetrics {
    /// Records between the delivered offset and the end of the partition.
    pub lag: Gauge,
    /// Next offset to admit.
    pub admitted: Gauge,
    /// Next offset to become durable.
    pub durable: Gauge,
    /// Next offset to deliver.
    pub delivered: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PartitionLabels {
    topic: String,
    partition: i32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Default)]
struct PartitionFamilies {
    lag: Family<PartitionLabels, Gauge>,
    admitted: Family<PartitionLabels, Gauge>,
    durable: Family<PartitionLabels, Gauge>,
    delivered: Family<PartitionLabels, Gauge>,
}

/// What is kept of a partition although it goes away: what was lost of it.
#[derive(Debug, Default)]
struct LossFamilies {
    ranges: Family<PartitionLabels, Counter>,
    records: Family<PartitionLabels, Counter>,
    time_to: Family<PartitionLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All zero.
    pub fn new() -> Self {
        let mut names = Names(Registry::with_prefix("forebay"));
        let [commits_ok, commits_refused, commits_unanswered] = names.commits();
        Self {
            records_received: names.counter("records_received", "Records taken from Kafka"),
            bytes_received: names.counter("bytes_received", "Bytes of records taken from Kafka"),
            blocks_admitted: names.counter("blocks_admitted", "Blocks let into the log"),
            rate_records_per_second: names.gauge("rate_records_per_second", "Rate in force; -1: no limit"),
            plans: names.counter("plans", "Direct mode: batches planned"),
            records_suppressed: names.counter("records_suppressed", "Records that were here already"),
            records_delivered: names.counter("records_delivered", "Records with durable output"),
            bytes_delivered: names.counter("bytes_delivered", "Bytes of records with durable output"),
            blocks_delivered: names.counter("blocks_delivered", "Blocks with durable output"),
            wal_bytes_appended: names.counter("wal_bytes_appended", "Bytes appended to the log"),
            wal_bytes_saved: names.counter("wal_bytes_saved", "Bytes that compression kept out of the log"),
            wal_groups: names.counter("wal_groups", "Groups of frames made durable together"),
            wal_fsyncs: names.counter("wal_fsyncs", "Syncs of the log"),
            wal_failed_syncs: names
                .counter("wal_failed_syncs", "Writes and syncs of the log that failed: it went on in another segment"),
            wal_fsync_seconds: names.latencies("wal_fsync", "Duration of a write to the log with its sync"),
            wal_segments: names.gauge("wal_segments", "Segments of the log"),
            wal_bytes: names.gauge("wal_bytes", "Bytes the log occupies"),
            wal_full: names.gauge("wal_full", "1 while disk or quota is full"),
            wal_scrubbed_bytes: names.counter("wal_scrubbed_bytes", "Bytes of the log read again by the scrubber"),
            wal_scrub_damaged: names.counter("wal_scrub_damaged", "Damaged places found by the scrubber"),
            wal_damaged_blocks: names.gauge("wal_damaged_blocks", "Damaged blocks to be delivered, not repaired"),
            wal_repaired_blocks: names.counter("wal_repaired_blocks", "Damaged blocks fetched again from Kafka"),
            commits_ok,
            commits_refused,
            commits_unanswered,
            rebalances: names.counter("rebalances", "Assignments and revocations of partitions"),
            sink_syncs: names.counter("sink_syncs", "Deliveries made durable by the sink"),
            sink_sync_seconds: names.latencies("sink_sync", "Duration of a durable delivery"),
            sink_retries: names.counter("sink_retries", "Deliveries tried again"),
            queue_bytes: names.gauge("queue_bytes", "Bytes of blocks held in memory"),
            feed_spilled_blocks: names.counter("feed_spilled_blocks", "Blocks to be read back from the log"),
            gaps: names.counter("gaps", "Ranges Kafka no longer had"),
            gaps_records: names.counter("gaps_records", "Records Kafka no longer had"),
            partitions_paused: names.gauge("partitions_paused", "Partitions not fetched for now"),
            receivers_by_librdkafka: names
                .gauge("receivers_by_librdkafka", "Receivers that librdkafka fetches for, see kafka.fetcher"),
            partitions_stopped: names.gauge("partitions_stopped", "Partitions that need a person"),
            rss_bytes: names.gauge("rss_bytes", "Memory resident"),
            partitions: names.partitions(),
            losses: names.losses(),
            registry: names.0,
        }
    }

    /// The series of a topic-partition; made if there are none.
    pub fn partition(&self, topic: &str, partition: i32) -> PartitionMetrics {
        let labels = PartitionLabels { topic: topic.to_string(), partition };
        PartitionMetrics {
            lag: self.partitions.lag.get_or_create_owned(&labels),
            admitted: self.partitions.admitted.get_or_create_owned(&labels),
            durable: self.partitions.durable.get_or_create_owned(&labels),
            delivered: self.partitions.delivered.get_or_create_owned(&labels),
        }
    }

    /// Counts a range that Kafka no longer had.
    pub fn lost(&self, topic: &str, partition: i32, records: u64) {
        let labels = PartitionLabels { topic: topic.to_string(), partition };
        self.gaps.inc();
        self.gaps_records.inc_by(records);
        self.losses.ranges.get_or_create_owned(&labels).inc();
        self.losses.records.get_or_create_owned(&labels).inc_by(records);
    }

    /// Says when Kafka will drop unread records of a partition; `None`: not in sight.
    pub fn time_to_loss(&self, topic: &str, partition: i32, time: Option<Duration>) {
        let labels = PartitionLabels { topic: topic.to_string(), partition };
        if let Some(time) = time {
            let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            self.losses.time_to.get_or_create_owned(&labels).set(seconds);
        } else {
            self.losses.time_to.remove(&labels);
        }
    }

    /// Removes the series of a partition that is not ours any more; handles given out count on, unseen.
    pub fn forget_partition(&self, topic: &str, partition: i32) {
        let labels = PartitionLabels { topic: topic.to_string(), partition };
        self.partitions.lag.remove(&labels);
        self.partitions.admitted.remove(&labels);
        self.partitions.durable.remove(&labels);
        self.partitions.delivered.remove(&labels);
        self.losses.time_to.remove(&labels);
    }

    /// All metrics as `OpenMetrics` text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail; a metric that can't be written would leave the text short, no more.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

/// Makes metrics and registers them under their name.
struct Names(Registry);

impl Names {
    fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.0.register(name, help, counter.clone());
        counter
    }

    fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.0.register(name, help, gauge.clone());
        gauge
    }

    fn latencies(&mut self, name: &'static str, help: &'static str) -> Latencies {
        let latencies = Latencies::default();
        let exported = Exported { name, help, latencies: latencies.clone() };
        self.0.register_collector(Box::new(exported));
        latencies
    }

    fn commits(&mut self) -> [Counter; 3] {
        let family = Family::<ResultLabel, Counter>::default();
        self.0.register("commits", "Commits of offsets to Kafka", family.clone());
        ["ok", "refused", "unanswered"].map(|result| family.get_or_create_owned(&ResultLabel { result }))
    }

    fn losses(&mut self) -> LossFamilies {
        let families = LossFamilies::default();
        let registry = &mut self.0;
        registry.register("lost_ranges", "Ranges Kafka no longer had, by partition", families.ranges.clone());
        registry.register("lost_records", "Records Kafka no longer had, by partition", families.records.clone());
        let help = "Until Kafka drops unread records, where that is in sight";
        registry.register_with_unit("time_to_loss", help, Unit::Seconds, families.time_to.clone());
        families
    }

    fn partitions(&mut self) -> PartitionFamilies {
        let families = PartitionFamilies::default();
        let registry = &mut self.0;
        registry.register("lag_records", "Records not delivered yet", families.lag.clone());
        registry.register("admitted_offset", "Next offset to admit", families.admitted.clone());
        registry.register("durable_offset", "Next offset to become durable", families.durable.clone());
        registry.register("delivered_offset", "Next offset to deliver", families.delivered.clone());
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The running program", Info::new(version));
        families
    }
}

/// Upper bounds in seconds under which latencies are exported; fine buckets are summed into them.
const BOUNDS: [f64; 16] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Steps per doubling.
const STEPS: usize = 16;
/// Buckets for every number of nanoseconds a `u64` can hold.
const BUCKETS: usize = (64 - 3) * STEPS;

/// A histogram of durations, lock-free, exact to about 3 %. Cloning shares the numbers.
#[derive(Clone, Debug)]
pub struct Latencies(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    counts: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self(Arc::new(Buckets { counts, nanos: AtomicU64::new(0) }))
    }
}

impl Latencies {
    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.counts[bucket_of(nanos)].fetch_add(1, Relaxed);
        self.0.nanos.fetch_add(nanos, Relaxed);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// The duration that a share `p` (0 to 1) of all durations does not exceed; `None` when nothing was counted.
    pub fn quantile(&self, p: f64) -> Option<Duration> {
        let counts: Vec<u64> = self.0.counts.iter().map(|count| count.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let wanted = ((total as f64 * p.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        let (low, high) = (lower_bound(reached), lower_bound(reached + 1));
        Some(Duration::from_nanos(low + (high - low) / 2))
    }
}

impl EncodeMetric for Latencies {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut buckets: Vec<(f64, u64)> = BOUNDS.iter().map(|bound| (*bound, 0)).collect();
        // The encoder writes this bound as +Inf.
        buckets.push((f64::MAX, 0));
        let mut total = 0;
        for (index, count) in self.0.counts.iter().enumerate() {
            let count = count.load(Relaxed);
            total += count;
            let upper = lower_bound(index + 1) as f64 / 1e9;
            let place = BOUNDS.partition_point(|bound| *bound < upper);
            buckets[place].1 += count;
        }
        let sum = self.0.nanos.load(Relaxed) as f64 / 1e9;
        encoder.encode_histogram::<NoLabelSet>(sum, total, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Latencies under their name.
#[derive(Debug)]
struct Exported {
    name: &'static str,
    help: &'static str,
    latencies: Latencies,
}

impl Collector for Exported {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let kind = MetricType::Histogram;
        let metric = encoder.encode_descriptor(self.name, self.help, Some(&Unit::Seconds), kind)?;
        EncodeMetric::encode(&self.latencies, metric)
    }
}

/// Below 16 each number has its bucket; from there on each doubling has 16 of equal width.
fn bucket_of(nanos: u64) -> usize {
    if nanos < STEPS as u64 {
        return nanos as usize;
    }
    let exponent = nanos.ilog2() as usize;
    let step = (nanos >> (exponent - 4)) as usize & (STEPS - 1);
    (exponent - 3) * STEPS + step
}

/// The smallest number in a bucket.
fn lower_bound(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (doubling, step) = (bucket / STEPS - 1, bucket % STEPS);
    let bound = ((STEPS + step) as u128) << doubling;
    u64::try_from(bound).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
