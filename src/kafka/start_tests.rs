use super::*;

const POLICY: Policy =
    Policy { start: StartAt::Earliest, on_foreign: OnForeign::Hold, sole: false, on_gap: OnGap::Fail };
const SOLE: Policy = Policy { sole: true, ..POLICY };
const LOG: Policy = Policy { on_foreign: OnForeign::Log, ..POLICY };
const KAFKA: Policy = Policy { on_foreign: OnForeign::Kafka, ..POLICY };
const FROM_7: Policy = Policy { start: StartAt::Offset(7), ..POLICY };
const LATEST: Policy = Policy { start: StartAt::Latest, ..POLICY };
const RANGE: Option<Range> = Some(Range { first: 3, next: 40 });
const FOREIGN: Group = Group::Foreign { offset: 15 };

fn ask(log: Option<(i64, Option<i64>)>, group: Group, range: Option<Range>, policy: Policy) -> Start {
    let log = log.map(|(next, acked)| LogView { next, acked, unclaimed: None });
    decide(&Question { log, former: false, group, range, policy })
}

fn ours(offset: i64, acked: Option<i64>, highest: Option<i64>) -> Group {
    Group::Ours { offset, acked, highest }
}

#[test]
fn forebays_metadata_leads_to_the_protocol() {
    for policy in [POLICY, SOLE, LOG, KAFKA] {
        assert_eq!(ask(None, ours(15, None, Some(15)), None, policy), Start::Protocol);
        for (next, log_acked, acked) in [(20, None, None), (20, Some(10), Some(10)), (20, Some(10), Some(15))] {
            let group = ours(15, acked, Some(15));
            assert_eq!(ask(Some((next, log_acked)), group, None, policy), Start::Protocol);
        }
    }
}

#[test]
fn acknowledged_data_that_the_log_lost_is_fetched_again_or_stops() {
    let lost = Start::Stop(Stop::LostAcknowledged { first: 10, next: 15 });
    let group = || ours(15, Some(15), Some(15));
    let log = Some((10, Some(10)));
    assert_eq!(ask(log, group(), None, POLICY), Start::AskRange);
    assert_eq!(ask(log, group(), RANGE, POLICY), Start::FetchAgain { first: 10, next: 15 });
    assert_eq!(ask(log, group(), Some(Range { first: 11, next: 40 }), POLICY), lost);
    assert_eq!(ask(log, group(), Some(Range { first: 3, next: 14 }), POLICY), lost);
    assert_eq!(ask(log, ours(20, Some(15), Some(20)), RANGE, POLICY), lost, "another WAL went on");
    let gone = Start::Stop(Stop::LostPartition { next: 15 });
    assert_eq!(ask(None, group(), RANGE, POLICY), gone);
}

#[test]
fn a_commit_that_was_set_back_is_held() {
    let log = Some((20, Some(12)));
    let forgotten = |known| Hold::Forgotten { log: 12, commit: 15, known };
    assert_eq!(ask(log, ours(15, None, None), None, POLICY), Start::Hold(forgotten(None)));
    assert_eq!(ask(log, ours(15, Some(11), Some(15)), None, LOG), Start::Hold(forgotten(Some(11))));
    assert_eq!(ask(log, ours(15, Some(11), Some(15)), None, KAFKA), Start::Kafka(15));
    let below = Hold::Below { commit: 15, acked: 16 };
    assert_eq!(ask(log, ours(15, Some(12), Some(16)), None, POLICY), Start::Hold(below));
    assert_eq!(ask(log, ours(15, Some(12), Some(16)), None, KAFKA), Start::Kafka(15));
}

#[test]
fn a_foreign_commit_is_the_operators_choice() {
    let log = Some((20, Some(12)));
    assert_eq!(ask(log, FOREIGN, None, POLICY), Start::Hold(Hold::Foreign { log: 20, commit: 15 }));
    assert_eq!(ask(log, FOREIGN, None, LOG), Start::Log);
    assert_eq!(ask(log, FOREIGN, None, KAFKA), Start::Kafka(15));
    assert_eq!(ask(None, FOREIGN, None, POLICY), Start::Commit(15));
}

#[test]
fn a_crash_before_the_first_commit_is_not_a_deleted_group() {
    let log = LogView { next: 20, acked: None, unclaimed: Some(15) };
    for policy in [POLICY, SOLE, LOG, KAFKA] {
        let ask = |group| decide(&Question { log: Some(log), former: false, group, range: None, policy });
        assert_eq!(ask(Group::None), Start::Log);
        assert_eq!(ask(FOREIGN), Start::Log, "the commit it began at");
    }
    let group = Group::Foreign { offset: 16 };
    let question = Question { log: Some(log), former: false, group, range: None, policy: POLICY };
    assert_eq!(decide(&question), Start::Hold(Hold::Foreign { log: 20, commit: 16 }));
}

#[test]
fn a_deleted_group_is_held_unless_this_is_the_only_instance() {
    let log = Some((20, Some(12)));
    assert_eq!(ask(log, Group::None, None, POLICY), Start::Hold(Hold::NoCommit { log: 20 }));
    assert_eq!(ask(log, Group::None, None, SOLE), Start::Log);
}

#[test]
fn a_partition_nobody_knows_starts_as_configured() {
    assert_eq!(ask(None, Group::None, None, POLICY), Start::AskRange);
    assert_eq!(ask(None, Group::None, RANGE, POLICY), Start::Configured(3));
    assert_eq!(ask(None, Group::None, RANGE, LATEST), Start::Configured(40));
    assert_eq!(ask(None, Group::None, None, FROM_7), Start::Configured(7));
}

#[test]
fn another_incarnation_starts_at_0() {
    let question = |group| Question { log: None, former: true, group, range: RANGE, policy: LATEST };
    for group in [Group::None, FOREIGN, Group::OtherTopic] {
        assert_eq!(decide(&question(group)), Start::Incarnation);
    }
    assert_eq!(decide(&question(ours(15, None, Some(15)))), Start::Protocol, "another instance began it");
}

#[test]
fn unreadable_metadata_is_held() {
    let error = MetadataError::Version { found: "2".to_owned() };
    let held = Start::Hold(Hold::Metadata(error.clone()));
    assert_eq!(ask(None, Group::Unreadable(error.clone()), RANGE, KAFKA), held);
    assert_eq!(ask(Some((20, None)), Group::Unreadable(error), RANGE, SOLE), held);
}

/// A row of the table as conditions on the question; every other row's conditions exclude it.
type Row = (&'static str, fn(&Question) -> bool, fn(&Start, &Question) -> bool);

fn entry(question: &Question) -> Option<(i64, Option<i64>, Option<i64>)> {
    match question.group {
        Group::Ours { offset, acked, highest } => Some((offset, acked, highest)),
        _ => None,
    }
}

fn beyond(question: &Question) -> bool {
    let (Some(log), Some((_, Some(acked), _))) = (question.log, entry(question)) else { return false };
    acked > log.next
}

fn set_back(question: &Question) -> bool {
    let (Some(log), Some((offset, acked, highest))) = (question.log, entry(question)) else { return false };
    !beyond(question) && (log.acked > acked || highest > Some(offset))
}

fn unclaimed(question: &Question) -> bool {
    let Some(first) = question.log.and_then(|log| log.unclaimed) else { return false };
    question.group == Group::None || question.group == Group::Foreign { offset: first }
}

fn rows() -> Vec<Row> {
    let unknown: Vec<Row> = vec![
        ("unreadable", |q| matches!(q.group, Group::Unreadable(_)), |s, _| matches!(s, Start::Hold(Hold::Metadata(_)))),
        ("other topic", |q| q.group == Group::OtherTopic, |s, _| *s == Start::Incarnation),
        (
            "unknown, ours, no entry",
            |q| q.log.is_none() && entry(q).is_some_and(|(_, acked, _)| acked.is_none()),
            |s, _| *s == Start::Protocol,
        ),
        (
            "unknown, ours, entry",
            |q| q.log.is_none() && entry(q).is_some_and(|(_, acked, _)| acked.is_some()),
            |s, _| matches!(s, Start::Stop(Stop::LostPartition { .. })),
        ),
    ];
    [unknown, rows_of_metadata_of_ours(), rows_without_metadata_of_ours()].concat()
}

fn rows_of_metadata_of_ours() -> Vec<Row> {
    vec![
        ("beyond", beyond, |s, q| {
            let (log, (offset, acked, _)) = (q.log.unwrap(), entry(q).unwrap());
            let has = |r: Range| r.first <= log.next && Some(r.next) >= acked;
            match s {
                Start::AskRange => q.range.is_none() && acked == Some(offset),
                Start::FetchAgain { first, next } => {
                    q.range.is_some_and(has) && (*first, *next) == (log.next, offset) && acked == Some(offset)
                }
                Start::Stop(Stop::LostAcknowledged { first, next }) => {
                    (*first, Some(*next)) == (log.next, acked) && (acked != Some(offset) || !q.range.is_some_and(has))
                }
                _ => false,
            }
        }),
        ("set back", set_back, |s, q| match q.policy.on_foreign {
            OnForeign::Kafka => Some(s.clone()) == entry(q).map(|(offset, _, _)| Start::Kafka(offset)),
            _ => matches!(s, Start::Hold(Hold::Forgotten { .. } | Hold::Below { .. })),
        }),
        ("ours", |q| q.log.is_some() && entry(q).is_some() && !beyond(q) && !set_back(q), |s, _| *s == Start::Protocol),
    ]
}

fn rows_without_metadata_of_ours() -> Vec<Row> {
    vec![
        ("unclaimed", unclaimed, |s, _| *s == Start::Log),
        (
            "foreign",
            |q| q.log.is_some() && q.group == FOREIGN && !unclaimed(q),
            |s, q| match q.policy.on_foreign {
                OnForeign::Hold => matches!(s, Start::Hold(Hold::Foreign { commit: 15, .. })),
                OnForeign::Log => *s == Start::Log,
                OnForeign::Kafka => *s == Start::Kafka(15),
            },
        ),
        (
            "deleted",
            |q| q.log.is_some() && q.group == Group::None && !unclaimed(q),
            |s, q| {
                if q.policy.sole { *s == Start::Log } else { matches!(s, Start::Hold(Hold::NoCommit { .. })) }
            },
        ),
        (
            "incarnation",
            |q| q.log.is_none() && q.former && (q.group == FOREIGN || q.group == Group::None),
            |s, _| *s == Start::Incarnation,
        ),
        ("commit", |q| q.log.is_none() && !q.former && q.group == FOREIGN, |s, _| *s == Start::Commit(15)),
        (
            "configured",
            |q| q.log.is_none() && !q.former && q.group == Group::None,
            |s, q| match q.policy.start {
                StartAt::Offset(at) => *s == Start::Configured(at),
                StartAt::Earliest => *s == q.range.map_or(Start::AskRange, |range| Start::Configured(range.first)),
                StartAt::Latest => *s == q.range.map_or(Start::AskRange, |range| Start::Configured(range.next)),
            },
        ),
    ]
}

fn questions() -> Vec<Question> {
    let offsets = [None, Some(5), Some(15), Some(25)];
    let mut groups = vec![Group::None, FOREIGN, Group::OtherTopic];
    groups.push(Group::Unreadable(MetadataError::Version { found: "2".to_owned() }));
    for acked in offsets {
        for highest in offsets.into_iter().filter(|highest| *highest >= acked) {
            groups.extend([5, 15, 25].map(|offset| ours(offset, acked, highest)));
        }
    }
    let mut logs = vec![None];
    for next in [5, 15, 25] {
        logs.extend(offsets.map(|acked| Some(LogView { next, acked, unclaimed: None })));
        logs.extend([5, 15].map(|at| Some(LogView { next, acked: None, unclaimed: Some(at) })));
    }
    let ranges = [None, RANGE, Some(Range { first: 10, next: 20 }), Some(Range { first: 0, next: 0 })];
    let mut questions = Vec::new();
    for start in [StartAt::Earliest, StartAt::Latest, StartAt::Offset(7)] {
        for on_foreign in [OnForeign::Hold, OnForeign::Log, OnForeign::Kafka] {
            for bits in 0..4 {
                let (sole, former) = (bits & 1 != 0, bits & 2 != 0);
                let policy = Policy { start, on_foreign, sole, ..POLICY };
                for (log, group) in logs.iter().flat_map(|log| groups.iter().map(move |group| (*log, group.clone()))) {
                    questions.extend(ranges.map(|range| Question { log, former, group: group.clone(), range, policy }));
                }
            }
        }
    }
    questions
}

#[test]
fn every_combination_falls_under_exactly_one_row_and_gets_its_answer() {
    let rows = rows();
    let mut used = vec![0; rows.len()];
    for question in questions() {
        let matching: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].1(&question)).collect();
        let names: Vec<_> = matching.iter().map(|at| rows[*at].0).collect();
        assert_eq!(matching.len(), 1, "{names:?} {question:?}");
        let (name, _, answers) = rows[matching[0]];
        let start = decide(&question);
        assert!(answers(&start, &question), "{name}: {question:?} -> {start:?}");
        used[matching[0]] += 1;
    }
    assert!(used.iter().all(|count| *count > 0), "{used:?}");
}
