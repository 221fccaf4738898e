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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A0: Partition = Partition { topic: 1, number: 0 };
    const A1: Partition = Partition { topic: 1, number: 1 };
    const B0: Partition = Partition { topic: 2, number: 0 };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn records(records: f64) -> Limit {
        Limit { records: Some(records), bytes: None }
    }

    fn limits(pipeline: Option<f64>) -> Limits {
        Limits { pipeline: Limit { records: pipeline, bytes: None }, burst: at(100), ..Limits::default() }
    }

    fn demand(partition: Partition, lag: u64) -> Demand {
        Demand { partition, lag, most: u64::MAX }
    }

    fn opened(limits: Limits) -> Limiter {
        let mut limiter = Limiter::new(limits, at(0));
        for (partition, topic) in [(A0, "a"), (A1, "a"), (B0, "b")] {
            limiter.open(partition, topic, at(0));
        }
        limiter
    }

    fn granted(limiter: &mut Limiter, demands: &[Demand], now: Duration) -> Vec<u64> {
        let mut grants = Vec::new();
        limiter.round(demands, now, &mut grants);
        grants.iter().map(|grant| grant.records).collect()
    }

    #[test]
    fn every_level_holds() {
        let mut limits = limits(Some(1_000.0));
        limits.topics.insert("a".to_string(), records(500.0));
        limits.partitions.insert(("a".to_string(), 1), records(100.0));
        let mut limiter = opened(limits);
        let all = [demand(A0, 10), demand(A1, 10), demand(B0, 10)];
        // A burst is a tenth of a second: 100 for all, 50 for topic a, 10 for its second partition.
        let grants = granted(&mut limiter, &all, at(0));
        assert_eq!(grants.iter().sum::<u64>(), 100);
        assert!(grants[0] + grants[1] <= 50 && grants[1] <= 10, "{grants:?}");
        limiter.charge(B0, 100, 0);
        limiter.charge(A0, 40, 0);
        limiter.charge(A1, 10, 0);
        assert_eq!(granted(&mut limiter, &all, at(10)), [0, 0, 0], "the pipeline owes");
        let grants = granted(&mut limiter, &all, at(60));
        assert_eq!(grants.iter().sum::<u64>(), 10, "50 were owed, 60 came");
    }

    #[test]
    fn bytes_are_limited_as_records_are_and_a_debt_is_waited_for() {
        let bytes = Limit { records: None, bytes: Some(1_000_000.0) };
        let mut limiter = opened(Limits { pipeline: bytes, burst: at(100), ..Limits::default() });
        let mut grants = Vec::new();
        assert_eq!(limiter.round(&[A0, A1, B0].map(|partition| demand(partition, 1)), at(0), &mut grants), None);
        assert_eq!(grants.iter().map(|grant| grant.bytes).sum::<u64>(), 100_000);
        assert!(grants.iter().all(|grant| grant.records == u64::MAX));
        limiter.charge(A0, 1, 600_000);
        let wait = limiter.round(&[demand(A0, 1)], at(0), &mut grants);
        assert!(grants[0].is_none());
        assert_eq!(wait, Some(Duration::from_micros(500_001)));
        limiter.round(&[demand(A0, 1)], at(510), &mut grants);
        assert!(!grants[0].is_none());
    }

    #[test]
    fn the_lower_of_limit_and_controller_counts_and_both_change_while_running() {
        let mut limiter = opened(limits(Some(1_000.0)));
        assert_eq!(limiter.rate(), Some(1_000.0));
        limiter.set_rate(Some(400.0), at(0));
        let all = [A0, A1, B0].map(|partition| demand(partition, 1));
        assert_eq!(granted(&mut limiter, &all, at(0)).iter().sum::<u64>(), 40);
        limiter.charge(A0, 40, 0);
        limiter.set(limits(Some(200.0)), at(0));
        assert_eq!(limiter.rate(), Some(200.0));
        assert_eq!(granted(&mut limiter, &all, at(50)).iter().sum::<u64>(), 10);
        limiter.set(limits(None), at(50));
        assert_eq!(limiter.rate(), Some(400.0));
        assert!(!limiter.is_unlimited());
        limiter.set_rate(None, at(50));
        assert_eq!(granted(&mut limiter, &[demand(A0, 1)], at(50)), [u64::MAX]);
        assert!(limiter.is_unlimited());
    }

    #[test]
    fn what_is_not_open_gets_nothing_and_what_was_closed_leaves_nothing_behind() {
        let mut limiter = opened(limits(Some(1_000.0)));
        let stranger = Partition { topic: 9, number: 0 };
        assert_eq!(granted(&mut limiter, &[demand(stranger, 5)], at(0)), [0]);
        limiter.open(A0, "a", at(0));
        for partition in [A0, A1, B0, B0, stranger] {
            limiter.close(partition);
        }
        assert!(limiter.places.is_empty() && limiter.topics.is_empty());
    }

    #[test]
    fn a_rate_of_zero_never_opens() {
        let mut limiter = opened(limits(Some(0.0)));
        let mut grants = Vec::new();
        assert_eq!(limiter.round(&[demand(A0, 5)], at(900_000), &mut grants), None);
        assert!(grants[0].is_none());
    }

    #[test]
    fn a_controllers_new_rate_counts_at_once() {
        let mut limiter = opened(limits(Some(1_000.0)));
        let all = [A0, A1, B0].map(|partition| demand(partition, 1));
        assert_eq!(granted(&mut limiter, &all, at(0)).iter().sum::<u64>(), 100);
        limiter.set_rate(Some(500.0), at(1));
        assert_eq!(granted(&mut limiter, &all, at(1)).iter().sum::<u64>(), 50);
    }

    #[test]
    fn a_limit_below_the_number_of_partitions_reaches_all_of_them() {
        for by_topic in [false, true] {
            let mut set = limits((!by_topic).then_some(100.0));
            set.topics.extend(by_topic.then(|| ("a".to_string(), records(100.0))));
            let mut limiter = Limiter::new(set, at(0));
            let demands: Vec<_> = (0..40).map(|number| demand(Partition { topic: 1, number }, 5)).collect();
            for demand in &demands {
                limiter.open(demand.partition, "a", at(0));
            }
            let mut taken = [0; 40];
            for round in 1..=500 {
                for (at, records) in granted(&mut limiter, &demands, at(20 * round)).into_iter().enumerate() {
                    limiter.charge(demands[at].partition, records, 0);
                    taken[at] += records;
                }
            }
            assert!(taken.iter().all(|taken| (22..=28).contains(taken)), "{taken:?}");
        }
    }

    #[test]
    fn a_planner_gets_an_interval_of_the_controllers_rate_exactly() {
        let mut limiter = opened(Limits { burst: at(500), ..Limits::default() });
        let plan = |limiter: &mut Limiter, lags: [u64; 3], ms| {
            let demands = [(A0, 0), (A1, 1), (B0, 2)].map(|(partition, place)| {
                let lag = lags[place];
                Demand { partition, lag, most: lag }
            });
            let grants = granted(limiter, &demands, at(ms));
            demands.iter().zip(&grants).for_each(|(demand, records)| limiter.charge(demand.partition, *records, 0));
            grants
        };
        limiter.set_rate(Some(10_000.0), at(0));
        assert_eq!(plan(&mut limiter, [900_000, 90_000, 10_000], 500).iter().sum::<u64>(), 5_000);
        limiter.set_rate(Some(40_000.0), at(1_000));
        assert_eq!(plan(&mut limiter, [900_000, 90_000, 10_000], 1_000).iter().sum::<u64>(), 20_000);
        limiter.set_rate(Some(1_001.0), at(1_500));
        let last = plan(&mut limiter, [30, 1_000_000, 7], 1_500);
        assert!(last.iter().sum::<u64>() == 500 && last[2] == 7 && (16..=17).contains(&last[0]), "{last:?}");
    }

    #[test]
    fn two_receivers_share_the_pipeline_by_lag() {
        let mut limiter = opened(limits(Some(10_000.0)));
        let mut taken = [0; 2];
        for ms in 0..10_000 {
            for (at_receiver, partition, lag) in [(0, A0, 3_000), (1, B0, 1_000)] {
                let records = granted(&mut limiter, &[demand(partition, lag)], at(ms))[0];
                limiter.charge(partition, records, 0);
                taken[at_receiver] += records;
            }
        }
        let sum = (taken[0] + taken[1]) as f64;
        assert!((99_000.0..=101_100.0).contains(&sum), "{taken:?}");
        let part = taken[0] as f64 / sum;
        assert!((0.7..0.75).contains(&part), "{taken:?}");
    }

    proptest! {
        /// Random rounds, overdrafts and idle times: no level passes more than its rate, its burst and one overdraft.
        #[test]
        fn no_level_passes_more_than_its_rate(
            steps in prop::collection::vec((1..200u64, 0..3usize, 0..40u64), 1..400),
            pipeline in 50..5_000u64,
            topic in 50..5_000u64,
            partition in 50..5_000u64,
        ) {
            let mut set = limits(Some(pipeline as f64));
            set.each_topic = records(topic as f64);
            set.each_partition = records(partition as f64);
            let mut limiter = opened(set);
            let all = [A0, A1, B0];
            let (mut now, mut taken) = (0, [0u64; 3]);
            for (pause, place, beyond) in steps {
                now += pause;
                let grant = granted(&mut limiter, &[demand(all[place], 100)], at(now))[0];
                if grant > 0 {
                    limiter.charge(all[place], grant + beyond, 0);
                    taken[place] += grant + beyond;
                }
                // Each of a level's partitions may go beyond its grant once before the level is looked at again.
                let bound = |rate: u64, parts: u64| rate as f64 * (now as f64 / 1e3 + 0.1) + 1.0 + (40 * parts) as f64;
                for one in taken {
                    prop_assert!(one as f64 <= bound(partition, 1));
                }
                prop_assert!((taken[0] + taken[1]) as f64 <= bound(topic, 2));
                prop_assert!(taken.iter().sum::<u64>() as f64 <= bound(pipeline, 3));
            }
        }

        /// Who always has something to take reaches the limit.
        #[test]
        fn the_limit_is_reached(rate in 20..100_000u64, round_ms in 1..90u64, lags in prop::array::uniform3(0..1_000u64)) {
            let mut limiter = opened(limits(Some(rate as f64)));
            let demands = [demand(A0, lags[0]), demand(A1, lags[1]), demand(B0, lags[2])];
            let (mut now, mut taken) = (0, 0);
            while now < 20_000 {
                now += round_ms;
                for (demand, records) in demands.iter().zip(granted(&mut limiter, &demands, at(now))) {
                    limiter.charge(demand.partition, records, 0);
                    taken += records;
                }
            }
            let due = rate as f64 * now as f64 / 1e3;
            prop_assert!(taken as f64 >= 0.98 * due - 2.0 && taken as f64 <= due + 0.1 * rate as f64 + 2.0, "{} of {}", taken, due);
        }

        /// The same for one partition, where a burst holds only a few records and a round takes up most of it.
        #[test]
        fn a_low_limit_is_reached(rate in 20..120u64, round_ms in 1..90u64) {
            let mut limiter = Limiter::new(limits(Some(rate as f64)), at(0));
            limiter.open(A0, "a", at(0));
            let (mut now, mut taken) = (0, 0);
            while now < 20_000 {
                now += round_ms;
                let records = granted(&mut limiter, &[demand(A0, 0)], at(now))[0];
                limiter.charge(A0, records, 0);
                taken += records;
            }
            let due = rate as f64 * now as f64 / 1e3;
            prop_assert!(taken as f64 >= 0.98 * due - 2.0 && taken as f64 <= due + 0.1 * rate as f64 + 2.0, "{} of {}", taken, due);
        }
    }
}
