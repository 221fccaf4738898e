use super::*;
use crate::wal::PlanRange;

const P: Partition = Partition { topic: 1, number: 0 };

fn owned(tenure: u32, first: i64, next: i64) -> Entry {
    Entry::Owned { partition: P, tenure, first, next, acked_entries: String::new() }
}

fn empty(tenure: u32, first: i64, next: i64) -> Entry {
    Entry::Empty { partition: P, tenure, first, next }
}

fn fold(entries: &[Entry]) -> Result<State, FoldError> {
    let mut state = State::new(1);
    for (i, entry) in entries.iter().enumerate() {
        state.apply(i as u64 + 1, entry)?;
    }
    Ok(state)
}

fn ranges(state: &State) -> Vec<(u32, i64, i64)> {
    let ranges = &state.partitions[&P].undecided;
    ranges.iter().map(|r| (r.tenure, r.first, r.next)).collect()
}

#[test]
fn a_jump_that_nothing_explains_is_refused() {
    assert!(fold(&[empty(1, 0, 5)]).is_err(), "no tenure");
    assert!(fold(&[owned(1, 0, 0), empty(1, 1, 5)]).is_err());
    assert!(fold(&[owned(1, 0, 0), empty(1, 0, 5), empty(1, 0, 5)]).is_err());
    assert!(fold(&[owned(1, 0, 0), empty(1, 0, 5), owned(2, 9, 9), empty(2, 9, 10)]).is_ok());
    assert!(fold(&[owned(2, 0, 0), owned(2, 0, 0)]).is_err(), "same tenure");
    assert!(fold(&[owned(2, 0, 0), empty(1, 0, 1)]).is_err(), "older tenure");
    let mut admission = Admission::default();
    let state = fold(&[owned(1, 0, 0)]).unwrap();
    assert!(admission.check(&state, &empty(1, 0, 5)).is_ok());
    assert!(admission.check(&state, &empty(1, 5, 6)).is_ok());
    assert!(admission.check(&state, &empty(1, 7, 8)).is_err());
}

#[test]
fn undecided_ranges_are_acknowledged_adopted_or_disowned() {
    let confirmed = Entry::Confirmed { partition: P, tenure: 1, next: 3 };
    let log = [owned(1, 0, 0), empty(1, 0, 5), empty(1, 5, 9), confirmed];
    assert_eq!(ranges(&fold(&log).unwrap()), [(1, 3, 9)]);
    let adopted = [&log[..], &[owned(2, 3, 9), empty(2, 9, 12)]].concat();
    assert_eq!(ranges(&fold(&adopted).unwrap()), [(2, 3, 12)]);
    let disowned = Entry::Disowned { partition: P, tenure: 1, first: 3, next: 9 };
    let given_up = [&log[..], &[disowned, owned(2, 4, 4), empty(2, 4, 5)]].concat();
    let state = fold(&given_up).unwrap();
    assert_eq!(ranges(&state), [(2, 4, 5)]);
    let older = TenureRange { tenure: 1, first: 3, next: 9 };
    assert!(!state.is_live(P, 3, &older));
    assert!(state.is_live(P, 3, &TenureRange { first: 2, ..older }), "[2, 3) is not given up");
    assert!(state.is_live(P, 7, &TenureRange { tenure: 2, first: 4, next: 5 }));
}

#[test]
fn a_segment_is_needed_until_every_route_is_past_it() {
    let delivered = |route, next, keep_from| Entry::Delivered {
        route,
        partition: P,
        first: 0,
        next,
        through_lsn: 2,
        keep_from,
        detail: vec![],
    };
    let route = Entry::Route { route: 1, name: "b".to_owned() };
    let range = TenureRange { tenure: 1, first: 0, next: 5 };
    let log = [owned(1, 0, 0), empty(1, 0, 5), delivered(0, 5, None)];
    assert!(!fold(&log).unwrap().is_live(P, 2, &range));
    let log = [&log[..], &[route]].concat();
    assert!(fold(&log).unwrap().is_live(P, 2, &range));
    let log = [&log[..], &[delivered(1, 5, Some(4))]].concat();
    assert!(fold(&log).unwrap().is_live(P, 2, &range), "kept for a torn page");
    let log = [&log[..], &[delivered(1, 5, None)]].concat();
    assert!(!fold(&log).unwrap().is_live(P, 2, &range));
}

fn gap(first: i64, next: i64, reason: &str) -> Entry {
    Entry::Gap { partition: P, tenure: 1, first, next, reason: reason.to_owned() }
}

fn receipt(first: i64, next: i64) -> Entry {
    let detail = vec![];
    Entry::Delivered { route: 0, partition: P, first, next, through_lsn: 2, keep_from: None, detail }
}

#[test]
fn delivery_passes_a_gap_when_all_before_it_is_delivered() {
    let log = [owned(1, 0, 0), empty(1, 0, 5), gap(5, 50, "retention: x")];
    assert_eq!(fold(&log).unwrap().delivered(P), NO_OFFSET);
    let later = [&log[..], &[receipt(0, 3)]].concat();
    assert_eq!(fold(&later).unwrap().delivered(P), 3);
    let later = [&later[..], &[receipt(3, 5)]].concat();
    let state = fold(&later).unwrap();
    assert_eq!((state.delivered(P), state.partitions[&P].admitted), (5, 50), "its commit may not be applied");
    let confirmed = |next| Entry::Confirmed { partition: P, tenure: 1, next };
    let later = [&later[..], &[confirmed(49)]].concat();
    assert_eq!(fold(&later).unwrap().delivered(P), 5);
    let later = [&later[..], &[confirmed(50)]].concat();
    assert_eq!(fold(&later).unwrap().delivered(P), 50);
    let later = [&log[..], &[confirmed(50), receipt(0, 5)]].concat();
    assert_eq!(fold(&later).unwrap().delivered(P), 50, "the other way round");
    let ended = [owned(1, 0, 0), empty(1, 0, 5), receipt(0, 5), gap(5, 50, "recreation: x")];
    assert_eq!(fold(&ended).unwrap().delivered(P), 50);
}

#[test]
fn a_truncation_below_the_position_moves_nothing() {
    let log = [owned(1, 0, 0), empty(1, 0, 9), receipt(0, 4), gap(4, 9, "truncation: x")];
    let state = fold(&log).unwrap();
    assert_eq!((state.delivered(P), state.partitions[&P].admitted), (4, 9), "[4, 9) is still to be delivered");
    assert_eq!(state.partitions[&P].gaps.len(), 1);
    assert!(fold(&[owned(1, 0, 0), empty(1, 0, 9), gap(4, 9, "retention: x")]).is_err());
}

#[test]
fn disowned_ranges_are_forgotten_with_the_segments_before_them() {
    let disowned = Entry::Disowned { partition: P, tenure: 1, first: 0, next: 9 };
    let log = [owned(1, 0, 0), disowned, Entry::RetiredBelow { segment: 2, lsn: 2 }];
    assert_eq!(fold(&log).unwrap().partitions[&P].disowned.len(), 1);
    let log = [&log[..], &[Entry::RetiredBelow { segment: 3, lsn: 3 }]].concat();
    let state = fold(&log).unwrap();
    assert_eq!(state.partitions[&P].disowned.len(), 0);
    assert_eq!((state.retired_below, state.kept_lsn), (3, 3));
}

#[test]
fn a_range_that_is_backwards_or_below_zero_is_refused() {
    let log = [owned(1, 0, 0), empty(1, 0, 5)];
    for (entry, first, next) in [(empty(1, 5, 3), 5, 3), (owned(2, 5, 3), 5, 3), (owned(2, -1, 0), -1, 0)] {
        let backwards = FoldError::Backwards { partition: P, first, next };
        let mut state = fold(&log).unwrap();
        let before = state.clone();
        assert_eq!(Admission::default().check(&state, &entry), Err(backwards));
        assert_eq!(state.apply(3, &entry), Err(backwards));
        assert_eq!(state, before, "[{first}, {next})");
    }
    assert!(fold(&[empty(1, NO_OFFSET, 5)]).is_err(), "no tenure");
}

fn disowned(tenure: u32, first: i64, next: i64) -> Entry {
    Entry::Disowned { partition: P, tenure, first, next }
}

#[test]
fn undecided_ranges_are_joined_only_within_a_tenure_and_without_a_hole() {
    let after = |log: &[Entry]| ranges(&fold(log).unwrap());
    assert!(after(&[owned(1, 0, 0), empty(1, 0, 0)]).is_empty(), "there is no offset in it");
    let log = [owned(1, 0, 0), empty(1, 0, 5), owned(2, 5, 5), empty(2, 5, 7)];
    assert_eq!(after(&log), [(1, 0, 5), (2, 5, 7)]);
    let log = [owned(1, 0, 0), empty(1, 0, 9), disowned(1, 5, 9), empty(1, 9, 12)];
    assert_eq!(after(&log), [(1, 0, 5), (1, 9, 12)]);
    let more = [&log[..], &[disowned(1, 9, 10)]].concat();
    assert_eq!(after(&more), [(1, 0, 5), (1, 10, 12)]);
    let nothing = [&log[..], &[disowned(1, 2, 2)]].concat();
    assert_eq!(after(&nothing), [(1, 0, 5), (1, 9, 12)]);
}

#[test]
fn an_older_tenure_is_given_up_without_the_newer_one() {
    let log = [owned(1, 0, 0), empty(1, 0, 5), owned(2, 0, 0), empty(2, 0, 5)];
    let range = |tenure| TenureRange { tenure, first: 0, next: 5 };
    let state = fold(&[&log[..], &[disowned(1, 0, 5)]].concat()).unwrap();
    assert!(state.partitions[&P].owned);
    assert_eq!(ranges(&state), [(2, 0, 5)]);
    assert!(!state.is_live(P, 2, &range(1)));
    assert!(state.is_live(P, 4, &range(2)));
    for tenure in [2, 3] {
        let state = fold(&[&log[..], &[disowned(tenure, 0, 5)]].concat()).unwrap();
        assert!(!state.partitions[&P].owned, "tenure {tenure}");
        assert!(ranges(&state).is_empty(), "tenure {tenure}");
        assert!(!state.is_live(P, 4, &range(2)), "tenure {tenure}");
    }
}

#[test]
fn only_what_was_logged_before_it_was_given_up_is_settled_by_that() {
    let state = fold(&[owned(1, 0, 0), empty(1, 0, 9), disowned(1, 5, 9)]).unwrap();
    let settled = |lsn, tenure, first| state.is_range_settled(P, lsn, &TenureRange { tenure, first, next: 9 });
    assert!(settled(2, 1, 5));
    assert!(!settled(2, 1, 4), "it begins before the range");
    assert!(!settled(2, 2, 5), "a newer tenure");
    let live = |lsn| state.is_live(P, lsn, &TenureRange { tenure: 1, first: 5, next: 9 });
    assert!(!live(2));
    for lsn in [3, 4] {
        assert!(!settled(lsn, 1, 5) && live(lsn), "LSN {lsn} is not before it");
    }
}

#[test]
fn what_a_commit_covered_is_undecided_again_when_it_is_given_back() {
    let confirmed = |next| Entry::Confirmed { partition: P, tenure: 1, next };
    let returning = |first, next| Entry::Returning { partition: P, tenure: 1, first, next };
    let log = [owned(1, 0, 0), empty(1, 0, 15), confirmed(9)];
    let after = |entries: &[Entry]| {
        let state = fold(&[&log[..], entries].concat()).unwrap();
        (state.partitions[&P].acked, ranges(&state))
    };
    assert_eq!(after(&[returning(4, 9)]), (4, vec![(1, 4, 9), (1, 9, 15)]));
    assert_eq!(after(&[returning(4, 12)]), (4, vec![(1, 4, 12), (1, 12, 15)]), "no offset stands there twice");
    assert_eq!(after(&[returning(9, 12)]), (9, vec![(1, 9, 15)]), "nothing of it was acknowledged");
    assert_eq!(after(&[returning(4, 9), confirmed(12)]), (12, vec![(1, 12, 15)]));
}

#[test]
fn each_route_keeps_the_last_name_of_its_output() {
    let named = |route, name: &str| Entry::Named { route, partition: P, name: name.to_owned() };
    let state = fold(&[named(0, "a.part"), named(1, "b.part"), named(0, "c.part"), receipt(0, 0)]).unwrap();
    let name = |route| state.partitions[&P].on_route(route).named;
    assert_eq!(name(0).as_deref(), Some("c.part"));
    assert_eq!(name(1).as_deref(), Some("b.part"));
    assert_eq!(name(2), None);
}

#[test]
fn a_delivered_plan_admits_its_range_only_in_a_tenure() {
    let range = PlanRange { topic: P.topic, partition: P.number, from: 0, until: 7 };
    let plan = Entry::Plan { route: 0, id: 1, time_ms: 5, ranges: vec![range], blocks: Vec::new() };
    let state = fold(&[plan.clone(), receipt(0, 7)]).unwrap();
    assert!(state.plans.is_empty() && ranges(&state).is_empty());
    assert_eq!(state.partitions[&P].admitted, NO_OFFSET);
    let state = fold(&[owned(1, 0, 0), plan, receipt(0, 7)]).unwrap();
    assert!(state.plans.is_empty());
    assert_eq!((state.partitions[&P].admitted, ranges(&state)), (7, vec![(1, 0, 7)]));
}
