//! Holds the limits: how many records and bytes may be taken now, for each partition.
//!
//! Asked once a round (a poll, a plan), not once a record: [`Limiter::round`] says what each partition may take,
//! [`Limiter::charge`] tells what it took. Every level of the hierarchy has a token bucket for records and one for bytes;
//! a topic's and the pipeline's are shared among the open partitions by lag ([`super::share`]), every [`PERIOD`] anew, so
//! that it does not matter which receiver asks first and the cost does not grow with the number of polls.
//!
//! Promises: over any time no level passes more than `rate · time + burst` (and one, where a burst is less than ten), plus
//! what the last round took beyond its grant (whole records, whole fetches), and that is paid back before more is granted; no partition starves; limits change at
//! run time without losing what is owed. Never: no clock, no waiting, no lock of its own; a partition that leaves and
//! comes back starts with a full bucket.

use super::bucket::Bucket;
use super::limits::{Limit, Limits};
use super::share::{Claim, share};
use crate::record::{Partition, TopicNumber};
use std::collections::BTreeMap;
use std::time::Duration;

/// Records and bytes, in this order, wherever there are two of something.
const UNITS: [usize; 2] = [0, 1];

/// What is there is divided at most this often.
pub const PERIOD: Duration = Duration::from_millis(10);

/// What a partition has to take in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Which.
    pub partition: Partition,
    /// Records it is behind; zero if not known.
    pub lag: u64,
    /// Records it could take at most: the lag where the end is known (a plan), `u64::MAX` where it is not, 0 while it is
    /// paused for another reason (what is kept for it is lost to the others until the next division).
    pub most: u64,
}

/// What a partition may take in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Records.
    pub records: u64,
    /// Bytes; a record that begins within may be taken whole.
    pub bytes: u64,
}

impl Grant {
    /// No limit.
    pub const ALL: Self = Self { records: u64::MAX, bytes: u64::MAX };

    /// True if nothing may be taken.
    pub fn is_none(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

/// The limits of one pipeline at work.
#[derive(Clone, Debug)]
pub struct Limiter {
    limits: Limits,
    /// The controller's, records per second.
    controlled: Option<f64>,
    pipeline: Buckets,
    topics: BTreeMap<TopicNumber, Topic>,
    places: BTreeMap<Partition, Place>,
    /// When what is there was divided; none: it must be divided before anything is granted.
    divided: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Topic {
    name: String,
    buckets: Buckets,
    /// Its open partitions.
    open: usize,
}

#[derive(Clone, Debug)]
struct Place {
    buckets: Buckets,
    lag: u64,
    most: u64,
    /// What rounding owes it, for each unit: of its topic's share, of the pipeline's.
    carry: [[f64; 2]; 2],
    /// What is left of the last division.
    grant: [u64; 2],
}

/// A bucket for each unit.
#[derive(Clone, Debug)]
struct Buckets([Bucket; 2]);

impl Buckets {
    fn new(limit: Limit, burst: Duration, now: Duration) -> Self {
        Self([limit.records, limit.bytes].map(|rate| Bucket::new(rate, burst, now)))
    }

    fn set(&mut self, limit: Limit, burst: Duration, now: Duration) {
        self.0[0].set(limit.records, burst, now);
        self.0[1].set(limit.bytes, burst, now);
    }

    fn charge(&mut self, taken: [u64; 2]) {
        for unit in UNITS {
            self.0[unit].charge(taken[unit]);
        }
    }

    /// How long until there is something of both; none: never.
    fn wait(&self) -> Option<Duration> {
        Some(self.0[0].wait()?.max(self.0[1].wait()?))
    }
}

impl Limiter {
    /// Full buckets, no open partition.
    pub fn new(limits: Limits, now: Duration) -> Self {
        let pipeline = Buckets::new(limits.pipeline, limits.burst, now);
        let (topics, places) = (BTreeMap::new(), BTreeMap::new());
        Self { limits, controlled: None, pipeline, topics, places, divided: None }
    }

    /// Goes on with other limits.
    pub fn set(&mut self, limits: Limits, now: Duration) {
        self.limits = limits;
        self.apply(now);
    }

    /// Sets a controller's rate, records per second. The lower of it and the pipeline's limit counts.
    pub fn set_rate(&mut self, rate: Option<f64>, now: Duration) {
        self.controlled = rate;
        let limit = self.pipeline_limit();
        self.pipeline.set(limit, self.limits.burst, now);
        self.divided = None;
    }

    /// Records per second in force for the pipeline.
    pub fn rate(&self) -> Option<f64> {
        self.pipeline_limit().records
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn pipeline_limit(&self) -> Limit {
        let Limit { records, bytes } = self.limits.pipeline;
        let lower = match (records, self.controlled) {
            (Some(fixed), Some(controlled)) => Some(fixed.min(controlled)),
            (fixed, controlled) => fixed.or(controlled),
        };
        Limit { records: lower, bytes }
    }

    fn apply(&mut self, now: Duration) {
        self.divided = None;
        let burst = self.limits.burst;
        let limit = self.pipeline_limit();
        self.pipeline.set(limit, burst, now);
        for topic in self.topics.values_mut() {
            topic.buckets.set(self.limits.topic(&topic.name), burst, now);
        }
        for (partition, place) in &mut self.places {
            if let Some(topic) = self.topics.get(&partition.topic) {
                place.buckets.set(self.limits.partition(&topic.name, partition.number), burst, now);
            }
        }
    }

    /// A partition was assigned. It counts from now on; opening it again changes nothing.
    pub fn open(&mut self, partition: Partition, topic: &str, now: Duration) {
        if self.places.contains_key(&partition) {
            return;
        }
        self.divided = None;
        let burst = self.limits.burst;
        let buckets = Buckets::new(self.limits.partition(topic, partition.number), burst, now);
        let place = Place { buckets, lag: 0, most: u64::MAX, carry: [[0.0; 2]; 2], grant: [0; 2] };
        self.places.insert(partition, place);
        let limit = self.limits.topic(topic);
        let fresh = || Topic { name: topic.to_string(), buckets: Buckets::new(limit, burst, now), open: 0 };
        self.topics.entry(partition.topic).or_insert_with(fresh).open += 1;
    }

    /// A partition was revoked.
    pub fn close(&mut self, partition: Partition) {
        if self.places.remove(&partition).is_none() {
            return;
        }
        if let Some(topic) = self.topics.get_mut(&partition.topic) {
            topic.open -= 1;
            if topic.open == 0 {
                self.topics.remove(&partition.topic);
            }
        }
    }

    /// What each of these partitions may take now, in their order; one that is not open gets nothing. Returns after how
    /// long the first of those that get nothing may get something; none if all get something, or if none of the others
    /// ever will at these limits.
    ///
    /// Partitions of other receivers keep their part. A grant is no reservation: what is not charged when the next period
    /// begins is divided again.
    pub fn round(&mut self, demands: &[Demand], now: Duration, grants: &mut Vec<Grant>) -> Option<Duration> {
        grants.clear();
        for demand in demands {
            if let Some(place) = self.places.get_mut(&demand.partition) {
                (place.lag, place.most) = (demand.lag, demand.most);
            }
        }
        let age = self.divided.map(|divided| now.saturating_sub(divided));
        if age.is_none_or(|age| age >= PERIOD) {
            self.divided = Some(now);
            for unit in UNITS {
                self.divide(unit, now);
            }
        }
        let next = PERIOD.saturating_sub(age.unwrap_or_default());
        let mut first: Option<Duration> = None;
        for demand in demands {
            let Some(place) = self.places.get(&demand.partition) else {
                grants.push(Grant { records: 0, bytes: 0 });
                continue;
            };
            let grant = Grant { records: place.grant[0].min(demand.most), bytes: place.grant[1] };
            if grant.is_none() && demand.most > 0 {
                let wait = self.wait(demand.partition.topic, place).map(|wait| wait.max(next));
                first = first.into_iter().chain(wait).min();
            }
            grants.push(grant);
        }
        first
    }

    /// Tells what was taken from a partition. May be more than was granted, and may come in parts.
    pub fn charge(&mut self, partition: Partition, records: u64, bytes: u64) {
        let taken = [records, bytes];
        self.pipeline.charge(taken);
        if let Some(topic) = self.topics.get_mut(&partition.topic) {
            topic.buckets.charge(taken);
        }
        if let Some(place) = self.places.get_mut(&partition) {
            place.buckets.charge(taken);
            for unit in UNITS {
                // What is not limited stays so.
                if place.grant[unit] < u64::MAX {
                    place.grant[unit] = place.grant[unit].saturating_sub(taken[unit]);
                }
            }
        }
    }

    /// True if nothing is limited: rounds and charges can be left out.
    pub fn is_unlimited(&self) -> bool {
        self.controlled.is_none() && self.limits.is_none()
    }

    /// Sets every open partition's grant of one unit.
    fn divide(&mut self, unit: usize, now: Duration) {
        let mut claims: Vec<Claim> = Vec::with_capacity(self.places.len());
        for place in self.places.values_mut() {
            let able = if unit == 0 || place.most == 0 { place.most } else { u64::MAX };
            let most = able.min(place.buckets.0[unit].available(now));
            claims.push(Claim::new(place.lag, most, place.carry[unit][0]));
        }
        // The partitions of a topic stand together.
        let mut rest = claims.as_mut_slice();
        for topic in self.topics.values_mut() {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(topic.open);
            rest = others;
            limit(&mut topic.buckets.0[unit], own, now);
        }
        let of_topic: Vec<f64> = claims.iter().map(|claim| claim.carry).collect();
        for (claim, place) in claims.iter_mut().zip(self.places.values()) {
            *claim = Claim::new(claim.lag, claim.given, place.carry[unit][1]);
        }
        limit(&mut self.pipeline.0[unit], &mut claims, now);
        for ((place, claim), of_topic) in self.places.values_mut().zip(&claims).zip(of_topic) {
            place.grant[unit] = claim.given;
            place.carry[unit] = [of_topic, claim.carry];
        }
    }

    /// How long until a partition's three levels all have something.
    fn wait(&self, topic: TopicNumber, place: &Place) -> Option<Duration> {
        let topic = self.topics.get(&topic).map_or(Some(Duration::ZERO), |topic| topic.buckets.wait());
        Some(self.pipeline.wait()?.max(topic?).max(place.buckets.wait()?))
    }
}

/// Shares what a bucket has among the claims; without a limit they get all they can take.
fn limit(bucket: &mut Bucket, claims: &mut [Claim], now: Duration) {
    if bucket.is_limited() {
        share(bucket.available(now), claims);
    } else {
        for claim in claims {
            claim.given = claim.most;
        }
    }
}

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
