use super::super::answer::Answer;
use super::super::batches::testing::{batch, marked};
use super::plan::{HURRY, HURRY_EACH, HURRY_MAX, PIECE};
use super::*;
use crate::kafka::fetched::Fetched;
use crate::kafka::wire::answer::Request;
use bytes::Bytes;

const BUDGET: usize = 1 << 20;
const BROKER: i32 = 1;

fn named(partition: i32) -> Named {
    ("t".to_owned(), partition)
}

fn at(partition: i32, offset: i64) -> Position {
    Position { named: named(partition), offset, epoch: 2 }
}

/// Partitions `0..partitions` from offset 10 on, all led by one broker.
fn state(partitions: i32) -> State {
    let mut state = State::new(BUDGET, 1 << 20);
    for partition in 0..partitions {
        state.position(at(partition, 10));
        state.leads(&named(partition), BROKER, 5);
    }
    state.look_for_leaders();
    state
}

fn answer(records: Vec<u8>, end: i64) -> Answer {
    Answer { ends: Ends { low: 3, end, high: end + 5 }, records: Bytes::from(records), ..Answer::default() }
}

/// Answers a request.
fn apply_all(state: &mut State, request: &Request, answers: Vec<(i32, Answer)>) {
    apply_at(state, request, answers, Instant::now());
}

fn apply_at(state: &mut State, request: &Request, answers: Vec<(i32, Answer)>, now: Instant) {
    let outcome = |(partition, answer)| {
        let mut all = request.topics.iter().flat_map(|(_, asked)| asked);
        let asked = all.find(|asked| asked.named.1 == partition).unwrap();
        (Arc::clone(&asked.named), Outcome::of(asked, answer, None))
    };
    let outcomes = answers.into_iter().map(outcome).collect();
    state.apply(request.number, outcomes, now);
}

/// The same for one partition; the others' parts are left out of the answer.
fn apply(state: &mut State, request: &Request, partition: i32, answer: Answer) {
    apply_all(state, request, vec![(partition, answer)]);
}

fn plan(state: &mut State) -> Option<Request> {
    state.plan(BROKER, Instant::now())
}

fn asked(request: &Request) -> Vec<(i32, i64)> {
    request.topics.iter().flat_map(|(_, asked)| asked).map(|asked| (asked.named.1, asked.next)).collect()
}

/// Takes everything: offsets of records, ends as negative numbers.
fn taken(state: &mut State) -> Vec<i64> {
    let mut taken = Vec::new();
    while let Some(part) = state.take(None) {
        state.done(&part, true);
        match part.what {
            What::Records(mut records) => {
                while !records.is_empty() {
                    records.open().unwrap();
                    taken.extend(records.first().map(|record| record.unwrap().offset()));
                    records.pass();
                }
            }
            What::End(end) => taken.push(-end),
            other => panic!("{other:?}"),
        }
    }
    taken
}

#[test]
fn records_come_in_order_once_and_the_end_is_told_once() {
    let mut state = state(1);
    let first = plan(&mut state).unwrap();
    let one = &first.topics[0].1[0];
    assert_eq!((one.next, one.epoch, one.leader_epoch), (10, 2, 5));
    assert!(plan(&mut state).is_none(), "it is being asked for");
    apply(&mut state, &first, 0, answer(batch(8, 12, &[8, 9, 10, 11]), 14));
    let second = plan(&mut state).unwrap();
    assert_eq!((second.topics[0].1[0].next, second.topics[0].1[0].epoch), (12, 7), "the epoch of what was read last");
    apply(&mut state, &second, 0, answer([batch(12, 13, &[12]), marked(batch(13, 14, &[13]), 0x30, 1)].concat(), 14));
    assert_eq!(taken(&mut state), [10, 11, 12, -14], "nothing below the position, no marker, and the end behind it");
    assert_eq!(state.ends(&named(0)), Some((3, 19)));
    let third = plan(&mut state).unwrap();
    apply(&mut state, &third, 0, answer(Vec::new(), 14));
    assert_eq!(taken(&mut state), [0; 0], "it was told");
    let fourth = plan(&mut state).unwrap();
    apply(&mut state, &fourth, 0, answer(batch(14, 15, &[14]), 15));
    assert_eq!(taken(&mut state), [14, -15]);
    state.position(at(0, 15));
    let again = plan(&mut state).unwrap();
    apply(&mut state, &again, 0, answer(Vec::new(), 15));
    assert_eq!(taken(&mut state), [-15], "whoever asks anew is told anew");
}

#[test]
fn what_was_asked_before_a_change_counts_for_nothing() {
    type Change = fn(&mut State);
    let changes: [(&str, Change, Option<i64>); 4] = [
        ("positioned", |state| state.position(at(0, 20)), Some(20)),
        ("paused", |state| state.pause(&named(0)), None),
        ("let go", |state| state.forget(&named(0)), None),
        ("let go and back", |state| (state.forget(&named(0)), state.position(at(0, 10))).1, Some(10)),
    ];
    for (name, change, next) in changes {
        for answered_before in [false, true] {
            let mut state = state(2);
            let request = plan(&mut state).unwrap();
            let good = || answer(batch(10, 12, &[10, 11]), 99);
            if answered_before {
                apply(&mut state, &request, 0, good());
            }
            change(&mut state);
            if !answered_before {
                apply(&mut state, &request, 0, good());
            }
            assert_eq!(taken(&mut state), [0; 0], "{name}");
            assert_eq!(state.held, 0, "{name}");
            state.leads(&named(0), BROKER, 5);
            let now = plan(&mut state).map(|request| asked(&request)).unwrap_or_default();
            assert_eq!(now.iter().find(|one| one.0 == 0).map(|one| one.1), next, "{name}");
        }
    }
}

#[test]
fn no_more_is_asked_for_than_may_wait_and_everyone_comes_first_in_turn() {
    let mut state = state(3);
    let first = plan(&mut state).unwrap();
    assert_eq!(asked(&first), [(0, 10), (1, 10), (2, 10)]);
    assert_eq!(first.partition_bytes, PIECE, "while there is room");
    let large = |first: i64| batch(first, first + 20_000, &(first..first + 20_000).collect::<Vec<_>>());
    let one = || answer(large(10), 1 << 40);
    assert!(one().records.len() > BUDGET / 3);
    apply_all(&mut state, &first, (0..3).map(|partition| (partition, one())).collect());
    assert!(state.held >= BUDGET);
    assert!(plan(&mut state).is_none(), "the budget is used up, and everyone has something");
    let part = state.take(Some(&named(1))).unwrap();
    let held = state.held;
    state.put_back(part, true);
    assert_eq!(state.held, held, "what is put back still waits");
    let part = state.take(None).unwrap();
    assert_eq!(part.named.1, 1, "and comes first");
    state.done(&part, true);
    let second = plan(&mut state).unwrap();
    assert_eq!(asked(&second), [(1, 20_010)], "only who has room");
    assert_eq!(second.wait_max, Some(HURRY + HURRY_EACH), "the others must not wait for it");
    assert!(second.partition_bytes <= BUDGET / 6, "memory is scarce");
    apply(&mut state, &second, 1, answer(Vec::new(), 1 << 40));
    taken(&mut state);
    let third = state.plan(BROKER, Instant::now() + LATER).unwrap();
    assert_eq!(asked(&third), [(2, 20_010), (0, 20_010), (1, 20_010)], "in turn");
    assert_eq!(third.wait_max, None);
    // Who goes on having enough is waited for longer and longer.
    apply_all(&mut state, &third, vec![(1, answer(large(20_010), 1 << 40))]);
    for wait in [HURRY + HURRY_EACH * 2, HURRY * 2, HURRY * 4, HURRY * 8, HURRY * 16, HURRY_MAX, HURRY_MAX] {
        state.turn.clear();
        let request = plan(&mut state).unwrap();
        assert_eq!((asked(&request), request.wait_max), (vec![(0, 20_010), (2, 20_010)], Some(wait)));
        apply_all(&mut state, &request, vec![(0, answer(Vec::new(), 20_010)), (2, answer(Vec::new(), 20_010))]);
    }
    state.turn.clear();
    let request = plan(&mut state).unwrap();
    apply_all(&mut state, &request, vec![(0, answer(large(20_010), 1 << 40)), (2, answer(Vec::new(), 20_010))]);
    let request = plan(&mut state).unwrap();
    assert_eq!((asked(&request), request.wait_max), (vec![(2, 20_010)], Some(HURRY_MAX)));
    apply(&mut state, &request, 2, answer(Vec::new(), 20_010));
    while let Some(part) = state.take(Some(&named(0))) {
        state.done(&part, true);
    }
    let request = plan(&mut state).unwrap();
    let wait = Some(HURRY + HURRY_EACH * 2);
    assert_eq!((asked(&request).len(), request.wait_max), (2, wait), "one of them is taken from");
    let at_end = asked(&request).into_iter().map(|(partition, next)| (partition, answer(Vec::new(), next)));
    apply_all(&mut state, &request, at_end.collect());
    taken(&mut state);
    let request = plan(&mut state).unwrap();
    assert_eq!((asked(&request).len(), request.wait_max), (3, None), "until there is room");
}

/// A batch that is larger than what is asked for comes only to who is asked for first: each is, as often as the others.
#[test]
fn large_batches_of_many_partitions_come_in_turn() {
    let mut state = state(4);
    let (now, mut first) = (Instant::now(), [0; 4]);
    for _ in 0..8 {
        let request = state.plan(BROKER, now).unwrap();
        let asked = asked(&request);
        let (leads, next) = asked[0];
        first[leads as usize] += 1;
        let of = |partition| if partition == leads { batch(next, next + 1, &[next]) } else { Vec::new() };
        let answers = asked.iter().map(|(partition, _)| (*partition, answer(of(*partition), 1 << 40)));
        apply_at(&mut state, &request, answers.collect(), now);
        taken(&mut state);
    }
    assert_eq!(first, [2; 4]);
}

/// One that is taken from slowly would keep the memory of the whole answer.
#[test]
fn where_partitions_are_taken_from_one_by_one_a_small_part_of_an_answer_is_copied_out_of_it() {
    let mut state = state(2);
    for (of, apart) in [(None, false), (Some(named(1)), true), (None, false)] {
        state.take(of.as_ref());
        let request = plan(&mut state).unwrap();
        assert_eq!(request.apart, apart);
        let records = Bytes::from(batch(10, 12, &[10]));
        for (all, is_shared) in [(None, true), (Some(records.len() * 8), true), (Some(records.len() * 9), false)] {
            let answer = Answer { records: records.clone(), ..answer(Vec::new(), 12) };
            let Outcome::Took { bytes, .. } = Outcome::of(&request.topics[0].1[0], answer, all) else { panic!() };
            assert_eq!(bytes.as_ptr() == records.as_ptr(), is_shared, "{all:?}");
        }
        apply_all(&mut state, &request, vec![(0, answer(Vec::new(), 10)), (1, answer(Vec::new(), 10))]);
        taken(&mut state);
    }
}

/// A broker that waits for one partition answers for no other meanwhile.
#[test]
fn who_has_to_come_again_in_a_moment_is_not_kept_waiting_by_those_at_their_end() {
    let mut state = state(3);
    let (first, now) = (plan(&mut state).unwrap(), Instant::now());
    let at_end = || answer(Vec::new(), 10);
    apply_at(&mut state, &first, vec![(0, at_end()), (1, answer(Vec::new(), 20)), (2, at_end())], now);
    let second = state.plan(BROKER, now).unwrap();
    assert_eq!((asked(&second), second.wait_max), (vec![(2, 10), (0, 10)], Some(HURRY + HURRY_EACH * 2)));
    apply_all(&mut state, &second, vec![(2, at_end()), (0, at_end())]);
    let third = state.plan(BROKER, Instant::now() + SOON).unwrap();
    assert_eq!((asked(&third).len(), third.wait_max), (3, None), "nobody is left out");
    // An end before the position is not known yet: that takes longer, and so may the broker.
    let now = Instant::now();
    apply_at(&mut state, &third, vec![(0, at_end()), (1, answer(Vec::new(), 9)), (2, at_end())], now);
    let fourth = state.plan(BROKER, now).unwrap();
    assert_eq!((asked(&fourth).len(), fourth.wait_max), (2, Some(SOON)));
    apply_all(&mut state, &fourth, vec![(0, at_end()), (2, at_end())]);
    let third = state.plan(BROKER, Instant::now() + SOON).unwrap();
    // Who is stopped or led by another broker is not waited for either.
    state.pause(&named(1));
    state.leads(&named(2), BROKER + 1, 6);
    apply_all(&mut state, &third, vec![(0, at_end())]);
    assert_eq!(plan(&mut state).unwrap().wait_max, None);
}

#[test]
fn every_error_has_its_consequence() {
    use RDKafkaErrorCode as Told;
    let lost = |code: Code, times| {
        let mut state = state(1);
        for _ in 0..times {
            state.leads(&named(0), BROKER, 5);
            let later = Instant::now() + LATER;
            let request = state.plan(BROKER, later).unwrap();
            apply(&mut state, &request, 0, Answer { error: code.code(), ..Answer::default() });
        }
        let told = state.take(None).map(|part| match part.what {
            What::Error(code, _) => code,
            other => panic!("{other:?}"),
        });
        let again = state.plan(BROKER, Instant::now() + LATER).is_some();
        (told, state.is_lost, again, state.gave_up.is_some())
    };
    for (code, times, expected) in [
        (Code::OffsetOutOfRange, 1, (Some(Told::AutoOffsetReset), false, false, false)),
        (Code::CorruptMessage, 1, (Some(Told::BadMessage), false, false, false)),
        (Code::NotLeaderOrFollower, 1, (None, true, false, false)),
        (Code::FencedLeaderEpoch, 9, (None, true, false, false)),
        (Code::UnknownTopicOrPartition, UNKNOWN_MAX, (None, true, false, false)),
        (Code::UnknownTopicOrPartition, UNKNOWN_MAX + 1, (Some(Told::UnknownTopicOrPartition), true, false, false)),
        (Code::UnknownTopicId, 1, (None, true, false, false)),
        (Code::TopicAuthorizationFailed, 1, (Some(Told::TopicAuthorizationFailed), false, true, false)),
        (Code::UnknownServerError, 1, (Some(Told::Unknown), false, true, false)),
        (Code::UnsupportedVersion, 1, (None, false, true, true)),
    ] {
        assert_eq!(lost(code, times), expected, "{code:?} {times} times");
    }
}

#[test]
fn another_history_damage_and_an_unknown_format_stop_the_partition() {
    let mut state = state(2);
    let request = plan(&mut state).unwrap();
    apply(&mut state, &request, 0, Answer { diverging: Some((2, 4)), ..answer(Vec::new(), 9) });
    let part = state.take(None).unwrap();
    assert!(matches!(part.what, What::Truncated { end: 4 }), "{part:?}");
    state.position(at(0, 10));
    let request = plan(&mut state).unwrap();
    apply(&mut state, &request, 0, Answer { diverging: Some((1, 40)), ..answer(Vec::new(), 9) });
    let part = state.take(None).unwrap();
    assert!(
        matches!(part.what, What::Truncated { end: 9 }),
        "its own history goes further, and is another one: {part:?}"
    );
    let mut damaged = [batch(10, 12, &[10]), batch(12, 13, &[12])].concat();
    *damaged.last_mut().unwrap() ^= 1;
    let request = plan(&mut state).unwrap();
    assert_eq!(asked(&request), [(1, 10)], "what was left out of the answer is asked for again");
    apply(&mut state, &request, 1, answer(damaged, 13));
    let good = state.take(None).unwrap();
    assert!(matches!(good.what, What::Records(_)), "what comes before the damage is good");
    state.done(&good, true);
    let bad = state.take(None).unwrap();
    assert!(matches!(bad.what, What::Error(RDKafkaErrorCode::BadMessage, _)), "{bad:?}");
    assert!(plan(&mut state).is_none(), "nothing goes on by itself");
    state.position(at(0, 10));
    let request = plan(&mut state).unwrap();
    let mut unknown = batch(10, 12, &[10]);
    unknown[16] = 3;
    apply(&mut state, &request, 0, answer(unknown, 12));
    assert!(state.gave_up.is_some());
}

#[test]
fn leaders_change_only_forward_and_a_topic_made_again_is_told() {
    let mut state = state(1);
    state.leads(&named(0), 2, 4);
    assert!(plan(&mut state).is_some(), "epoch 4 is older than 5");
    for _ in 0..STALE_MAX {
        state.leads(&named(0), 2, 4);
    }
    assert_eq!(state.leaders(), [2], "nothing else is to be heard");
    let mut state = self::state(1);
    state.leads(&named(0), 2, 6);
    assert!(plan(&mut state).is_none());
    assert_eq!(state.leaders(), [2]);
    state.lost(2);
    assert!(state.is_lost && state.leaders().is_empty());
    state.is_now("t", Uuid::from_u128(1));
    assert!(state.take(None).is_none());
    state.is_now("t", Uuid::from_u128(2));
    let part = state.take(None).unwrap();
    assert!(matches!(part.what, What::Error(RDKafkaErrorCode::UnknownTopicOrPartition, _)), "{part:?}");
    state.look_for_leaders();
    assert!(!state.is_lost, "it is not looked for any more");
}

#[test]
fn a_request_that_failed_is_made_again_later() {
    let mut state = state(1);
    let now = Instant::now();
    let request = state.plan(BROKER, now).unwrap();
    state.failed_request(request.number, SOON, now);
    assert!(state.plan(BROKER, now).is_none());
    assert_eq!(state.next_try(BROKER, now), Some(now + SOON));
    assert_eq!(asked(&state.plan(BROKER, now + SOON).unwrap()), [(0, 10)]);
}

#[test]
#[should_panic(expected = "taken up to Some(10), then Some(12)")]
fn nothing_behind_a_part_that_was_not_taken_is_handed_out() {
    let mut state = state(1);
    for (first, next) in [(10, 12), (12, 13)] {
        let request = plan(&mut state).unwrap();
        apply(&mut state, &request, 0, answer(batch(first, next, &[first]), 99));
    }
    let part = state.take(None).unwrap();
    state.done(&part, false);
    state.take(None);
}

#[test]
fn once_it_gave_up_nothing_more_is_handed_out() {
    let mut state = state(1);
    let request = plan(&mut state).unwrap();
    apply(&mut state, &request, 0, answer(batch(10, 12, &[10]), 99));
    state.gave_up = Some("x".to_owned());
    assert!(state.take(None).is_none());
}

#[test]
fn a_position_behind_a_marker_keeps_the_epoch_of_what_was_read() {
    let mut state = state(1);
    let request = plan(&mut state).unwrap();
    apply(&mut state, &request, 0, answer(marked(batch(10, 12, &[10]), 0x30, 1), 12));
    assert_eq!(taken(&mut state), [-12]);
    for (offset, expected) in [(12, 7), (11, -1)] {
        state.position(Position { epoch: -1, ..at(0, offset) });
        let request = plan(&mut state).unwrap();
        assert_eq!(request.topics[0].1[0].epoch, expected, "{offset}");
        state.failed_request(request.number, Duration::ZERO, Instant::now());
    }
}

#[test]
fn an_epoch_that_the_leader_does_not_know_is_not_asked_about_again() {
    let mut state = state(1);
    let request = plan(&mut state).unwrap();
    assert_eq!(request.topics[0].1[0].epoch, 2);
    apply(&mut state, &request, 0, Answer { error: Code::OffsetOutOfRange.code(), ..Answer::default() });
    let part = state.take(None).unwrap();
    assert!(matches!(part.what, What::Error(RDKafkaErrorCode::AutoOffsetReset, _)), "{part:?}");
    state.position(Position { epoch: -1, ..at(0, 10) });
    assert_eq!(plan(&mut state).unwrap().topics[0].1[0].epoch, -1);
}

#[test]
fn an_end_that_is_not_known_yet_is_no_end_and_is_not_asked_for_at_once() {
    for (end, least) in [(9, SOON), (30, AT_ONCE)] {
        let mut state = state(1);
        let request = plan(&mut state).unwrap();
        let before = Instant::now();
        apply(&mut state, &request, 0, answer(Vec::new(), end));
        assert!(state.take(None).is_none(), "{end}");
        let again = state.next_try(BROKER, before).unwrap();
        assert!(again >= before + least && again <= Instant::now() + least, "{end}");
    }
}

#[test]
fn what_is_taken_slowly_keeps_nobody_else_waiting() {
    let mut state = state(2);
    let request = plan(&mut state).unwrap();
    let large = batch(10, 100_000, &(10..90_000).collect::<Vec<_>>());
    assert!(large.len() > BUDGET);
    apply(&mut state, &request, 0, answer(large, 1 << 40));
    assert_eq!(asked(&plan(&mut state).unwrap()), [(1, 10)]);
}
