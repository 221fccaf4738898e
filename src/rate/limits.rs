//! The limits of a pipeline: records and bytes per second, for all of it, for each topic, for each partition.
//!
//! Promises: a plain value; to change a limit at run time is to replace the value ([`super::limiter::Limiter::set`]).
//! What is not limited is none. A limit of zero lets nothing through. Never: it keeps no state.

use std::collections::BTreeMap;
use std::time::Duration;

/// One pair of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limit {
    /// Records per second.
    pub records: Option<f64>,
    /// Bytes per second, as the caller counts them.
    pub bytes: Option<f64>,
}

impl Limit {
    /// True if nothing is limited.
    pub fn is_none(&self) -> bool {
        self.records.is_none() && self.bytes.is_none()
    }

    /// Where this says nothing, the other counts.
    fn or(self, other: Self) -> Self {
        Self { records: self.records.or(other.records), bytes: self.bytes.or(other.bytes) }
    }
}

/// All limits of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// For everything together.
    pub pipeline: Limit,
    /// For each topic that has none of its own.
    pub each_topic: Limit,
    /// For single topics, by name.
    pub topics: BTreeMap<String, Limit>,
    /// For each partition that has none of its own (`spark.streaming.kafka.maxRatePerPartition`).
    pub each_partition: Limit,
    /// For single partitions, by topic and number.
    pub partitions: BTreeMap<(String, i32), Limit>,
    /// How much may come at once after a pause, as time at the limit's rate; one record (byte) at least. With batches at
    /// an interval it must be that interval or longer, or the rate is never reached. A short burst is smooth, a long one
    /// catches up after a stall; 100 ms to 1 s is usual.
    pub burst: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pipeline: Limit::default(),
            each_topic: Limit::default(),
            topics: BTreeMap::new(),
            each_partition: Limit::default(),
            partitions: BTreeMap::new(),
            burst: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// The limit of a topic.
    pub fn topic(&self, name: &str) -> Limit {
        self.topics.get(name).copied().unwrap_or_default().or(self.each_topic)
    }

    /// The limit of a partition.
    pub fn partition(&self, topic: &str, number: i32) -> Limit {
        if self.partitions.is_empty() {
            return self.each_partition;
        }
        let own = self.partitions.get(&(topic.to_string(), number));
        own.copied().unwrap_or_default().or(self.each_partition)
    }

    /// True if nothing is limited.
    pub fn is_none(&self) -> bool {
        let mut all = [self.pipeline, self.each_topic, self.each_partition].into_iter();
        let mut single = self.topics.values().chain(self.partitions.values());
        all.all(|limit| limit.is_none()) && single.all(Limit::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_limit_counts_for_each_unit() {
        let records = |records| Limit { records: Some(records), bytes: None };
        let bytes = |bytes| Limit { records: None, bytes: Some(bytes) };
        let mut limits = Limits { each_partition: records(10.0), ..Limits::default() };
        assert!(Limits::default().is_none() && !limits.is_none());
        assert_eq!(limits.partition("t", 0), records(10.0));
        limits.partitions.insert(("t".to_string(), 0), bytes(5.0));
        assert_eq!(limits.partition("t", 0), Limit { records: Some(10.0), bytes: Some(5.0) });
        assert_eq!(limits.partition("t", 1), records(10.0));
        limits.topics.insert("t".to_string(), records(3.0));
        limits.each_topic = records(4.0);
        assert_eq!((limits.topic("t"), limits.topic("u")), (records(3.0), records(4.0)));
    }
}
