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
