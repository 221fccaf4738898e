//! What a run did, in numbers.
//!
//! Promises: the names of the fields are stable; they are the keys of the JSON object.

use crate::clock;
use crate::metrics::{Latencies, Metrics};

/// The summary of a run. Times and CPU count from the first record fetched to the last durable receipt.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Records whose output is durable.
    pub records: u64,
    /// Bytes of payload of those records.
    pub bytes: u64,
    /// From the first record fetched to the last durable receipt; 0 when nothing was delivered.
    pub seconds: f64,
    /// `records / seconds`; 0 when nothing was delivered.
    pub records_per_s: f64,
    /// CPU time of all threads over `seconds`.
    pub cpu_seconds: f64,
    /// The most memory that was resident at once.
    pub rss_peak_bytes: u64,
    /// Syncs of the log.
    pub fsyncs: u64,
    /// Half of these syncs took no longer, in microseconds.
    pub fsync_p50_us: u64,
    /// 99 of 100 of these syncs took no longer, in microseconds.
    pub fsync_p99_us: u64,
    /// Records that were here already and were not logged again.
    pub suppressed: u64,
    /// Records in Kafka that are not delivered.
    pub lag: u64,
    /// Blocks whose output is durable.
    pub blocks: u64,
    /// Bytes appended to the log.
    pub wal_bytes_appended: u64,
    /// Times the sink made output durable.
    pub sink_syncs: u64,
    /// Half of the sink's durable deliveries took no longer, in microseconds.
    pub sink_sync_p50_us: u64,
    /// 99 of 100 of the sink's durable deliveries took no longer, in microseconds.
    pub sink_sync_p99_us: u64,
    /// Commits Kafka confirmed.
    pub commits: u64,
    /// Commits Kafka refused or did not answer.
    pub commits_failed: u64,
    /// Assignments and revocations.
    pub rebalances: u64,
    /// Ranges Kafka no longer had when they were asked for.
    pub gaps: u64,
    /// Records Kafka no longer had when they were asked for.
    pub gaps_records: u64,
    /// Damaged blocks of the log fetched again.
    pub repaired: u64,
}

/// What the metrics do not know.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// From the first record fetched to the last durable receipt.
    pub seconds: f64,
    /// CPU time of all threads over the same time.
    pub cpu_seconds: f64,
    /// Records in Kafka that are not delivered.
    pub lag: u64,
}

impl Summary {
    /// Gathers what was counted. Reads the peak of memory now.
    pub fn new(metrics: &Metrics, measured: Measured) -> Self {
        let records = metrics.records_delivered.get();
        let Measured { seconds, cpu_seconds, lag } = measured;
        Self {
            records,
            bytes: metrics.bytes_delivered.get(),
            seconds,
            records_per_s: if seconds > 0.0 { records as f64 / seconds } else { 0.0 },
            cpu_seconds,
            rss_peak_bytes: clock::rss_peak_bytes(),
            fsyncs: metrics.wal_fsyncs.get(),
            fsync_p50_us: micros(&metrics.wal_fsync_seconds, 0.5),
            fsync_p99_us: micros(&metrics.wal_fsync_seconds, 0.99),
            suppressed: metrics.records_suppressed.get(),
            lag,
            blocks: metrics.blocks_delivered.get(),
            wal_bytes_appended: metrics.wal_bytes_appended.get(),
            sink_syncs: metrics.sink_syncs.get(),
            sink_sync_p50_us: micros(&metrics.sink_sync_seconds, 0.5),
            sink_sync_p99_us: micros(&metrics.sink_sync_seconds, 0.99),
            commits: metrics.commits_ok.get(),
            commits_failed: metrics.commits_refused.get() + metrics.commits_unanswered.get(),
            rebalances: metrics.rebalances.get(),
            gaps: metrics.gaps.get(),
            gaps_records: metrics.gaps_records.get(),
            repaired: metrics.wal_repaired_blocks.get(),
        }
    }
}

fn micros(latencies: &Latencies, p: f64) -> u64 {
    let took = latencies.quantile(p).unwrap_or_default();
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_json_has_the_promised_keys() {
        let metrics = Metrics::new();
        metrics.records_delivered.inc_by(10);
        metrics.records_suppressed.inc_by(2);
        metrics.wal_fsync_seconds.observe(Duration::from_millis(2));
        let measured = Measured { seconds: 2.0, cpu_seconds: 1.0, lag: 3 };
        let json = serde_json::to_value(Summary::new(&metrics, measured)).unwrap();
        let keys = [
            "records",
            "bytes",
            "seconds",
            "records_per_s",
            "cpu_seconds",
            "rss_peak_bytes",
            "fsyncs",
            "fsync_p50_us",
            "fsync_p99_us",
            "suppressed",
            "lag",
        ];
        for key in keys {
            assert!(json[key].is_number(), "{key} in {json}");
        }
        assert_eq!(json["records_per_s"], 5.0);
        assert_eq!(json["suppressed"], 2);
        assert!((1900..=2100).contains(&json["fsync_p50_us"].as_u64().unwrap()), "{json}");
        let nothing = Summary::new(&metrics, Measured::default());
        assert_eq!(nothing.records_per_s.to_bits(), 0.0_f64.to_bits());
    }
}
