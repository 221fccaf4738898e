//! Shares a number of records (or bytes) among partitions by their lag.
//!
//! Promises: the shares sum exactly to the limit, or to all that can be taken when that is less; nobody gets more than it
//! can take; a tenth of the limit ([`FLOOR`]) is shared evenly and the rest by lag, so no partition starves; what
//! rounding takes away is carried to the next round, so each gets its part over time even when the limit is smaller than
//! the number of partitions. Never: no clock, no state of its own.

/// The part of a limit that is shared evenly, whatever the lags.
pub const FLOOR: f64 = 0.1;

/// No limit is larger: up to here a float counts exactly.
pub const MOST: u64 = 1 << 52;

/// What a partition may be owed, or owe, from earlier rounds.
const CARRY_MAX: f64 = 16.0;

/// One partition's part in a round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Claim {
    /// How far it is behind; only the proportions count.
    pub lag: u64,
    /// What it can take at most.
    pub most: u64,
    /// What rounding still owes it; zero at first, updated by [`share`], to be handed in again in the next round.
    pub carry: f64,
    /// What it gets; set by [`share`].
    pub given: u64,
    /// Its exact part, before rounding.
    quota: f64,
}

impl Claim {
    /// A claim of a partition `lag` behind that can take `most`.
    pub fn new(lag: u64, most: u64, carry: f64) -> Self {
        Self { lag, most, carry, given: 0, quota: 0.0 }
    }
}

/// Shares `limit` among the claims; returns the sum of what was given, `min(limit, MOST, sum of most)`. Takes
/// O(n log n), and one more pass for each group of claims that can't take their part.
pub fn share(limit: u64, claims: &mut [Claim]) -> u64 {
    let most = claims.iter().fold(0u64, |sum, claim| sum.saturating_add(claim.most));
    let total = limit.min(most).min(MOST);
    if total == most {
        for claim in claims {
            claim.given = claim.most;
            claim.carry = 0.0;
        }
        return total;
    }
    divide(total, claims);
    round(total, claims);
    total
}

/// Exact parts by weight; what a claim can't take goes to the others.
fn divide(total: u64, claims: &mut [Claim]) {
    let able = claims.iter().filter(|claim| claim.most > 0);
    let (count, lags) = able.fold((0.0, 0.0), |(count, lags), claim| (count + 1.0, lags + claim.lag as f64));
    let even = if lags > 0.0 { FLOOR } else { 1.0 };
    let by_lag = if lags > 0.0 { (1.0 - FLOOR) / lags } else { 0.0 };
    let weight = |claim: &Claim| if claim.most == 0 { 0.0 } else { even / count + by_lag * claim.lag as f64 };

    let mut left = total as f64;
    for claim in claims.iter_mut() {
        claim.quota = -1.0;
    }
    loop {
        let weights: f64 = claims.iter().filter(|claim| claim.quota < 0.0).map(weight).sum();
        let each = if weights > 0.0 { (left / weights).max(0.0) } else { 0.0 };
        let mut full = false;
        for claim in claims.iter_mut().filter(|claim| claim.quota < 0.0) {
            if claim.most as f64 <= each * weight(claim) {
                claim.quota = claim.most as f64;
                left -= claim.quota;
                full = true;
            }
        }
        if !full {
            for claim in claims.iter_mut().filter(|claim| claim.quota < 0.0) {
                claim.quota = each * weight(claim);
            }
            return;
        }
    }
}

/// Whole numbers by largest remainder, what was carried included.
fn round(total: u64, claims: &mut [Claim]) {
    let mut left = total as i64;
    let mut order: Vec<(f64, usize)> = Vec::with_capacity(claims.len());
    for (at, claim) in claims.iter_mut().enumerate() {
        let wanted = (claim.quota + claim.carry).max(0.0);
        claim.given = (wanted as u64).min(claim.most);
        left -= claim.given as i64;
        order.push((wanted - claim.given as f64, at));
    }
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    while left > 0 {
        let step = (left as u64 / claims.len() as u64).max(1);
        for &(_, at) in &order {
            let claim = &mut claims[at];
            let more = step.min(claim.most - claim.given).min(left as u64);
            claim.given += more;
            left -= more as i64;
        }
    }
    while left < 0 {
        let step = (left.unsigned_abs() / claims.len() as u64).max(1);
        for &(_, at) in order.iter().rev() {
            let claim = &mut claims[at];
            let less = step.min(claim.given).min(left.unsigned_abs());
            claim.given -= less;
            left += less as i64;
        }
    }
    for claim in claims {
        claim.carry = (claim.quota + claim.carry - claim.given as f64).clamp(-CARRY_MAX, CARRY_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shared(limit: u64, lags: &[u64], most: u64) -> Vec<u64> {
        let mut claims: Vec<_> = lags.iter().map(|&lag| Claim::new(lag, most, 0.0)).collect();
        share(limit, &mut claims);
        claims.iter().map(|claim| claim.given).collect()
    }

    #[test]
    fn by_lag_above_a_floor() {
        assert_eq!(shared(1_000, &[900, 100], u64::MAX), [860, 140]);
        assert_eq!(shared(1_000, &[1_000_000, 0], u64::MAX), [950, 50], "no lag known is no reason to starve");
        assert_eq!(shared(1_000, &[0, 0, 0], u64::MAX).iter().sum::<u64>(), 1_000);
        assert_eq!(shared(0, &[5, 5], u64::MAX), [0, 0]);
        assert_eq!(shared(10, &[], u64::MAX), [0; 0]);
        assert_eq!(shared(u64::MAX, &[1, 1], u64::MAX).iter().sum::<u64>(), MOST);
        assert_eq!(shared(100, &[7, 7], 10), [10, 10], "all that can be taken");
    }

    #[test]
    fn what_one_cannot_take_goes_to_the_others() {
        let mut claims = [Claim::new(900, 10, 0.0), Claim::new(100, u64::MAX, 0.0), Claim::new(100, u64::MAX, 0.0)];
        assert_eq!(share(1_000, &mut claims), 1_000);
        assert_eq!(claims.map(|claim| claim.given), [10, 495, 495]);
        let mut claims = [Claim::new(u64::MAX, 0, 0.0), Claim::new(1, 5, 0.0), Claim::new(0, 500, 0.0)];
        assert_eq!(share(100, &mut claims), 100);
        assert_eq!(claims.map(|claim| claim.given), [0, 5, 95]);
    }

    #[test]
    fn a_limit_below_the_number_of_partitions_reaches_all_of_them() {
        let lags: Vec<u64> = (0..40).map(|at| if at == 0 { 1_000_000 } else { at }).collect();
        let mut claims: Vec<_> = lags.iter().map(|&lag| Claim::new(lag, u64::MAX, 0.0)).collect();
        let mut got = vec![0; claims.len()];
        let rounds = 2_000;
        for _ in 0..rounds {
            assert_eq!(share(3, &mut claims), 3);
            got.iter_mut().zip(&claims).for_each(|(got, claim)| *got += claim.given);
        }
        let floor = 0.1 * 3.0 * f64::from(rounds) / 40.0;
        for (at, got) in got.iter().enumerate() {
            assert!(*got as f64 >= floor - CARRY_MAX, "partition {at} got {got}, its floor is {floor}");
        }
        assert!(got[0] > 5_000, "{got:?}");
    }

    fn claim() -> impl Strategy<Value = Claim> {
        let size = || prop_oneof![Just(0), 0..10u64, 0..100_000u64, any::<u64>()];
        (size(), size(), -3.0..3.0).prop_map(|(lag, most, carry)| Claim::new(lag, most, carry))
    }

    proptest! {
        #[test]
        fn sums_exactly_and_nobody_gets_more_than_it_can_take(
            limit in prop_oneof![0..50u64, 0..1_000_000u64, any::<u64>()],
            mut claims in prop::collection::vec(claim(), 0..60),
        ) {
            let most = claims.iter().fold(0u64, |sum, claim| sum.saturating_add(claim.most));
            let total = share(limit, &mut claims);
            prop_assert_eq!(total, limit.min(most).min(MOST));
            prop_assert_eq!(claims.iter().map(|claim| u128::from(claim.given)).sum::<u128>(), u128::from(total));
            prop_assert!(claims.iter().all(|claim| claim.given <= claim.most && claim.carry.abs() <= CARRY_MAX));
        }

        #[test]
        fn nobody_starves_and_more_lag_is_never_less(
            limit in 1_000..1_000_000u64,
            lags in prop::collection::vec(prop_oneof![Just(0), 0..1_000_000_000u64], 1..60),
        ) {
            let given = shared(limit, &lags, u64::MAX);
            let floor = (FLOOR * limit as f64 / lags.len() as f64) as u64;
            for (at, got) in given.iter().enumerate() {
                prop_assert!(*got + 1 >= floor, "{at}: {got} < {floor}");
                for (other, lag) in lags.iter().enumerate() {
                    prop_assert!(lags[at] < *lag || *got + 1 >= given[other]);
                }
            }
        }

        #[test]
        fn over_many_rounds_everybody_gets_its_part(
            limit in 1..20u64,
            lags in prop::collection::vec(0..1_000u64, 1..30),
        ) {
            let sum: u64 = lags.iter().sum();
            let mut claims: Vec<_> = lags.iter().map(|&lag| Claim::new(lag, u64::MAX, 0.0)).collect();
            let mut got = vec![0u64; lags.len()];
            for _ in 0..300 {
                share(limit, &mut claims);
                got.iter_mut().zip(&claims).for_each(|(got, claim)| *got += claim.given);
            }
            for (at, got) in got.iter().enumerate() {
                let even = 1.0 / lags.len() as f64;
                let part = if sum == 0 { even } else { FLOOR * even + (1.0 - FLOOR) * lags[at] as f64 / sum as f64 };
                let due = part * 300.0 * limit as f64;
                prop_assert!((*got as f64 - due).abs() <= 5.0, "partition {}: {} of {}", at, got, due);
            }
        }
    }
}
