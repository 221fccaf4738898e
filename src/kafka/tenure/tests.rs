//! The bad cases by name, each as the calls that the receiver makes.

use super::*;
use crate::kafka::gap::OnGap;
use crate::kafka::start::{OnForeign, Policy, Range, StartAt};

const ME: WalId = WalId(1);
const OTHER: WalId = WalId(2);
const TOPIC: TopicId = TopicId([3; 16]);
const POLICY: Policy =
    Policy { start: StartAt::Offset(0), on_foreign: OnForeign::Hold, sole: false, on_gap: OnGap::Fail };
const SOLE: Policy = Policy { sole: true, ..POLICY };

/// A WAL with one receiver and what it was told to log.
struct Wal {
    ownership: Ownership,
    members: Members,
    generation: i32,
}

impl Wal {
    fn new(log: Option<Fold>) -> Self {
        let settings = Settings { wal: ME, topic: TOPIC, fence: Fence::Commit, rules: Rules::all() };
        Self { ownership: Ownership::new(settings, 1, log), members: Members::new(1), generation: 0 }
    }

    /// The assign callback of a newer generation.
    fn joins(&mut self) {
        self.generation += 1;
        self.members.seen(0, Membership::new("a", self.generation));
    }

    fn reads(&mut self, committed: &Committed) -> Opening {
        let ticket = self.ownership.may_open(0, &self.members).unwrap();
        self.ownership.open(0, ticket, committed, false, POLICY, None)
    }

    /// Joins and opens a tenure on what it reads.
    fn opens(&mut self, committed: &Committed) -> Opened {
        self.joins();
        let Opening::Open(opened) = self.reads(committed) else { panic!("not opened on {committed:?}") };
        self.ownership.synced(opened.tenure);
        opened
    }

    /// Admits and syncs up to `next`.
    fn stores(&mut self, tenure: u32, next: i64) {
        assert!(self.ownership.admit(tenure, next));
        self.ownership.durable(tenure, next);
    }

    /// How the client stands right after [`Wal::joins`].
    fn standing(&self) -> Standing {
        Standing { membership: self.members.of(0), out_of_turn: false }
    }

    fn order(&mut self, delivered: Option<i64>) -> Option<Order> {
        let standing = self.standing();
        match self.ownership.take_commit(0, standing, delivered).unwrap() {
            Commit::Send(order) => Some(order),
            Commit::NotDue => None,
            Commit::Rejoin => panic!("the same member"),
        }
    }

    fn commits(&mut self) -> Option<i64> {
        self.order(None).map(|order| order.next)
    }

    fn loses(&mut self) {
        self.members.seen(0, None);
        self.ownership.revoke(0, Revocation::TooLate);
        self.ownership.release(0, &self.members);
    }

    /// The read of a WAL that owns nothing.
    fn settles(&mut self, committed: &Committed) -> Settled {
        let ticket = self.ownership.may_settle(&self.members).unwrap();
        self.ownership.settle(ticket, committed)
    }
}

fn committed(wal: WalId, offset: i64, entries: &[(WalId, i64)]) -> Committed {
    let mut acked = Acked::default();
    for (wal, to) in entries {
        acked.set(*wal, *to);
    }
    let metadata = Metadata { wal, topic: TOPIC, delivered: None, acked };
    Committed::Ours { offset, metadata }
}

fn confirmed(tenure: u32, next: i64) -> Vec<Frame> {
    vec![Frame::Confirmed { tenure, next }]
}

/// Owned from 10 on, `[10, 20)` confirmed and `[20, 30)` sent in a commit.
fn in_flight() -> Wal {
    let mut wal = Wal::new(None);
    assert_eq!(wal.opens(&committed(OTHER, 10, &[(OTHER, 10)])).fetch, 10);
    wal.stores(1, 20);
    assert_eq!(wal.commits(), Some(20));
    assert_eq!(wal.ownership.answered(1, 20, Answer::Applied).frames, confirmed(1, 20));
    wal.stores(1, 30);
    assert_eq!(wal.commits(), Some(30));
    assert_eq!(wal.ownership.fence(), Some(20));
    wal
}

#[test]
fn a_commit_that_was_applied_and_its_answer_lost_is_found_at_the_next_assignment() {
    let mut wal = in_flight();
    let reply = wal.ownership.answered(1, 30, Answer::Unanswered);
    assert!(reply.rejoin && reply.frames.is_empty());
    wal.stores(1, 40);
    assert_eq!(wal.commits(), None, "nothing more in that generation");
    wal.loses();
    assert_eq!(wal.ownership.fence(), Some(20));
    let opened = wal.opens(&committed(ME, 30, &[(ME, 30), (OTHER, 10)]));
    assert_eq!(opened.frames[..1], confirmed(1, 30));
    assert_eq!((opened.first, opened.fetch), (30, 40), "what lies beyond is adopted");
    assert_eq!(wal.commits(), Some(40));
}

#[test]
fn it_is_also_found_by_a_wal_that_is_not_the_owner_any_more() {
    let mut wal = in_flight();
    wal.stores(1, 40);
    wal.ownership.answered(1, 30, Answer::Unanswered);
    wal.loses();
    let read = committed(OTHER, 55, &[(ME, 30), (OTHER, 55)]);
    wal.joins();
    let disowned = Frame::Disowned { tenure: 1, first: 30, next: 40 };
    let expected = confirmed(1, 30).into_iter().chain([disowned]).collect();
    assert_eq!(wal.settles(&read), Settled::Frames(expected));
    assert_eq!(wal.ownership.may_settle(&wal.members), None, "no doubt is left");
    assert_eq!(wal.opens(&committed(OTHER, 60, &[(ME, 30), (OTHER, 60)])).fetch, 60);
}

#[test]
fn a_read_settles_nothing_while_an_old_commit_can_still_be_applied() {
    let mut wal = in_flight();
    wal.ownership.revoke(0, Revocation::InTurn);
    wal.ownership.release(0, &wal.members);
    let unchanged = committed(ME, 20, &[(ME, 20), (OTHER, 10)]);
    assert_eq!(wal.settles(&unchanged), Settled::Not(Unsettled::NotYet));
    // The second callback of the same rebalance is no newer join.
    wal.members.seen(0, Membership::new("a", wal.generation));
    assert_eq!(wal.settles(&unchanged), Settled::Not(Unsettled::NotYet));
    assert_eq!(wal.ownership.may_open(0, &wal.members), Err(Wait::NotJoined { receiver: 0 }));
    wal.joins();
    let disowned = Frame::Disowned { tenure: 1, first: 20, next: 30 };
    assert_eq!(wal.settles(&unchanged), Settled::Frames(vec![disowned]));
}

#[test]
fn a_partition_given_up_and_taken_again_needs_no_join_once_every_commit_is_answered() {
    let mut wal = in_flight();
    wal.ownership.revoke(0, Revocation::InTurn);
    wal.ownership.release(0, &wal.members);
    assert_eq!(wal.ownership.may_open(0, &wal.members), Err(Wait::NotJoined { receiver: 0 }));
    wal.ownership.answered(1, 30, Answer::Applied);
    assert!(wal.ownership.may_open(0, &wal.members).is_ok());
    let mut wal = in_flight();
    wal.ownership.revoke(0, Revocation::InTurn);
    wal.ownership.release(0, &wal.members);
    wal.ownership.answered(1, 30, Answer::Refused);
    assert!(wal.ownership.may_open(0, &wal.members).is_err(), "a refusal is no proof");
}

#[test]
fn another_wals_commit_settles_without_a_join() {
    let mut wal = in_flight();
    wal.loses();
    let before = committed(OTHER, 10, &[(OTHER, 10)]);
    let hold = Hold::Forgotten { log: 20, commit: 10, known: None };
    assert_eq!(wal.settles(&before), Settled::Not(Unsettled::Hold(hold)), "ours was there already");
    let after = committed(OTHER, 25, &[(ME, 20), (OTHER, 25)]);
    let disowned = Frame::Disowned { tenure: 1, first: 20, next: 30 };
    assert_eq!(wal.settles(&after), Settled::Frames(vec![disowned]));
}

#[test]
fn a_zombie_that_returns_gives_up_what_another_took_over() {
    let mut wal = in_flight();
    // Paused past the session; another owner went on from 20. The commit is refused, and so is the next one.
    assert_eq!(wal.ownership.answered(1, 30, Answer::Refused), Reply::default());
    assert_eq!(wal.commits(), Some(30), "still owned as far as it knows");
    wal.ownership.answered(1, 30, Answer::Refused);
    wal.loses();
    assert_eq!(wal.commits(), None);
    wal.ownership.durable(1, 30);
    assert_eq!(wal.commits(), None, "not in the owned set");
    let opened = wal.opens(&committed(OTHER, 50, &[(ME, 20), (OTHER, 50)]));
    assert_eq!(opened.frames[0], Frame::Disowned { tenure: 1, first: 20, next: 30 });
    assert_eq!((opened.tenure, opened.fetch), (2, 50));
    assert!(!wal.ownership.admit(1, 40), "the old tenure admits nothing");
    wal.ownership.durable(1, 60);
    assert_eq!(wal.commits(), None, "and commits nothing");
}

#[test]
fn refused_though_owned_is_committed_again() {
    let mut wal = in_flight();
    wal.stores(1, 35);
    wal.ownership.answered(1, 30, Answer::Refused);
    assert_eq!(wal.ownership.fence(), Some(20), "a refusal opens no fence");
    assert_eq!(wal.commits(), Some(35), "the next one covers what became durable meanwhile");
    assert_eq!(wal.ownership.answered(1, 35, Answer::Applied).frames, confirmed(1, 35));
}

#[test]
fn a_late_answer_still_opens_the_fence_if_no_read_came_before_it() {
    let mut wal = in_flight();
    wal.loses();
    assert_eq!(wal.ownership.answered(1, 30, Answer::Applied).frames, confirmed(1, 30));
    assert_eq!(wal.ownership.fence(), Some(30));
    let mut wal = in_flight();
    wal.loses();
    wal.opens(&committed(ME, 30, &[(ME, 30)]));
    assert_eq!(wal.ownership.answered(1, 30, Answer::Applied), Reply::default(), "the read said so already");
}

#[test]
fn a_commit_applied_after_it_was_disowned_stops_the_partition() {
    let mut wal = in_flight();
    wal.loses();
    wal.joins();
    let disowned = Frame::Disowned { tenure: 1, first: 20, next: 30 };
    assert_eq!(wal.settles(&committed(ME, 20, &[(ME, 20)])), Settled::Frames(vec![disowned]));
    let stop = Stop::DisownedApplied { first: 20, next: 30 };
    assert_eq!(wal.reads(&committed(ME, 30, &[(ME, 30)])), Opening::Stop(stop));
    assert_eq!(wal.ownership.answered(1, 30, Answer::Applied).stop, Some(stop));
}

#[test]
fn a_deleted_group_goes_on_at_the_logs_next_only_when_alone() {
    let log = Fold { tenure: 4, admitted: 30, acked: Some(20), undecided: 10, seen: true };
    let mut wal = Wal::new(Some(log));
    wal.joins();
    assert_eq!(wal.reads(&Committed::None), Opening::Hold(Hold::NoCommit { log: 30 }));
    let ticket = wal.ownership.may_open(0, &wal.members).unwrap();
    let Opening::Open(opened) = wal.ownership.open(0, ticket, &Committed::None, false, SOLE, None) else { panic!() };
    assert_eq!((opened.tenure, opened.first, opened.fetch), (5, 20, 30));
    assert_eq!(wal.commits(), None, "not before it is synced");
    wal.ownership.synced(5);
    assert_eq!(wal.commits(), Some(30), "claimed at once");
    assert_eq!(wal.ownership.answered(5, 30, Answer::Applied).frames, confirmed(5, 30));
}

#[test]
fn a_kill_between_the_start_and_the_first_commit_holds_nothing() {
    let mut wal = Wal::new(None);
    assert_eq!(wal.opens(&Committed::None).fetch, 0);
    wal.stores(1, 10);
    let log = *wal.ownership.fold().unwrap();
    let mut again = Wal::new(Some(log));
    let opened = again.opens(&Committed::None);
    assert_eq!((opened.first, opened.fetch), (0, 10));
    assert_eq!(again.commits(), Some(10));
}

#[test]
fn data_the_log_lost_is_fetched_again_without_moving_the_commit() {
    let log = Fold { tenure: 1, admitted: 15, acked: Some(10), undecided: 0, seen: true };
    let mut wal = Wal::new(Some(log));
    wal.joins();
    let read = committed(ME, 20, &[(ME, 20)]);
    assert_eq!(wal.reads(&read), Opening::AskRange);
    let ticket = wal.ownership.may_open(0, &wal.members).unwrap();
    let range = Some(Range { first: 0, next: 50 });
    let Opening::Open(opened) = wal.ownership.open(0, ticket, &read, false, POLICY, range) else { panic!() };
    assert_eq!((opened.fetch, opened.start), (15, Start::FetchAgain { first: 15, next: 20 }));
    assert_eq!(wal.ownership.fence(), Some(20), "it is acknowledged");
    wal.ownership.synced(2);
    wal.stores(2, 18);
    assert_eq!(wal.commits(), None, "never below the commit");
    wal.stores(2, 25);
    assert_eq!(wal.commits(), Some(25));
}

#[test]
fn a_revoke_waits_for_disk_answer_and_one_more_commit() {
    let mut wal = in_flight();
    assert!(wal.ownership.admit(1, 40));
    wal.ownership.revoke(0, Revocation::InTurn);
    assert!(!wal.ownership.admit(1, 50), "nothing more is admitted");
    assert!(!wal.ownership.closed(0));
    wal.ownership.durable(1, 40);
    assert!(!wal.ownership.closed(0), "a commit is in flight");
    assert_eq!(wal.commits(), None);
    wal.ownership.answered(1, 30, Answer::Applied);
    assert!(!wal.ownership.closed(0), "one more is due");
    assert_eq!(wal.commits(), Some(40));
    wal.ownership.answered(1, 40, Answer::Applied);
    assert!(wal.ownership.closed(0));
    wal.ownership.release(0, &wal.members);
    assert_eq!(wal.ownership.may_settle(&wal.members), None);
}

#[test]
fn a_tenure_commits_only_under_the_member_id_it_was_opened_with() {
    let mut wal = in_flight();
    wal.ownership.answered(1, 30, Answer::Applied);
    wal.stores(1, 40);
    let mut takes = |id: &str, generation| {
        let standing = Standing { membership: Membership::new(id, generation), out_of_turn: false };
        wal.ownership.take_commit(0, standing, None).unwrap()
    };
    assert_eq!(takes("a", -1), Commit::NotDue, "no member at the moment");
    assert_eq!(takes("b", 7), Commit::Rejoin, "a new member since; the broker would apply it");
    assert_eq!(takes("a", 1), Commit::NotDue, "and never again");
    assert!(wal.ownership.closed(0), "a revoke waits for nothing then");
    let mut wal = in_flight();
    wal.ownership.answered(1, 30, Answer::Applied);
    wal.stores(1, 40);
    wal.joins();
    assert_eq!(wal.commits(), Some(40), "a newer generation is the same member");
}

#[test]
fn what_was_delivered_is_not_fetched_again_wherever_the_commit_stands() {
    // Direct mode: [20, 30) was delivered, and its commit never left.
    let direct = || {
        let mut wal = in_flight();
        wal.ownership.answered(1, 30, Answer::Refused);
        wal.ownership.delivered(30);
        wal.ownership.delivered(10);
        wal.loses();
        wal
    };
    let mut wal = direct();
    let opened = wal.opens(&committed(ME, 20, &[(ME, 20)]));
    assert_eq!((opened.first, opened.fetch), (20, 30), "adopted as ever");
    // Another WAL went on from 20 to 25.
    let mut wal = direct();
    let opened = wal.opens(&committed(OTHER, 25, &[(ME, 20), (OTHER, 25)]));
    assert_eq!((opened.first, opened.fetch), (25, 30));
    let owned = |frame: &&Frame| matches!(frame, Frame::Owned { first: 25, next: 30, .. });
    assert_eq!(opened.frames.iter().filter(owned).count(), 1, "{:?}", opened.frames);
    assert_eq!(wal.commits(), Some(30), "and committed, without another record");
    // Beyond what was delivered nothing changes.
    let mut wal = direct();
    assert_eq!(wal.opens(&committed(OTHER, 40, &[(ME, 20), (OTHER, 40)])).fetch, 40);
    // Kafka need not have what was delivered.
    let mut wal = direct();
    wal.joins();
    let ticket = wal.ownership.may_open(0, &wal.members).unwrap();
    let read = committed(OTHER, 25, &[(ME, 20), (OTHER, 25)]);
    let range = Some(Range { first: 30, next: 40 });
    let Opening::Open(opened) = wal.ownership.open(0, ticket, &read, false, POLICY, range) else { panic!("a gap") };
    assert_eq!(opened.fetch, 30);
}

#[test]
fn a_read_made_before_the_client_became_another_member_opens_nothing_that_commits() {
    let mut wal = Wal::new(None);
    wal.joins();
    let ticket = wal.ownership.may_open(0, &wal.members).unwrap();
    let read = committed(OTHER, 10, &[(OTHER, 10)]);
    wal.members.seen(0, Membership::new("b", 2));
    let Opening::Open(opened) = wal.ownership.open(0, ticket, &read, false, POLICY, None) else { panic!() };
    wal.ownership.synced(opened.tenure);
    wal.stores(1, 20);
    let taken = wal.ownership.take_commit(0, wal.standing(), None);
    assert_eq!(taken, Ok(Commit::Rejoin));
}

#[test]
fn a_tenure_opens_only_when_all_that_was_admitted_before_is_durable() {
    let mut wal = in_flight();
    wal.ownership.answered(1, 30, Answer::Applied);
    assert!(wal.ownership.admit(1, 40));
    wal.ownership.durable(1, 35);
    wal.loses();
    wal.joins();
    assert_eq!(wal.ownership.may_open(0, &wal.members), Err(Wait::NotDurable { first: 35, next: 40 }));
    wal.ownership.durable(1, 40);
    let read = committed(ME, 30, &[(ME, 30), (OTHER, 10)]);
    let Opening::Open(opened) = wal.reads(&read) else { panic!() };
    assert_eq!((opened.first, opened.fetch), (30, 40), "adopted: it is in the log");
    wal.ownership.durable(1, 90);
    wal.loses();
    wal.joins();
    assert!(wal.ownership.may_open(0, &wal.members).is_ok(), "nothing was admitted since");
}

#[test]
fn nothing_is_committed_for_a_revocation_that_was_answered_before_it_was_heard_of() {
    let mut wal = in_flight();
    wal.ownership.answered(1, 30, Answer::Applied);
    wal.stores(1, 40);
    // The client gave another partition back; the group may have gone on, and the client with it.
    let standing = Standing { out_of_turn: true, ..wal.standing() };
    assert_eq!(wal.ownership.take_commit(0, standing, None), Ok(Commit::NotDue));
    wal.ownership.revoke(0, Revocation::judge(false, true));
    assert!(wal.ownership.closed(0), "nothing is waited for");
    assert_eq!(wal.commits(), None);
    // There was none: everything goes on.
    let mut wal = in_flight();
    wal.ownership.answered(1, 30, Answer::Applied);
    wal.stores(1, 40);
    let standing = Standing { out_of_turn: true, ..wal.standing() };
    assert_eq!(wal.ownership.take_commit(0, standing, None), Ok(Commit::NotDue));
    assert_eq!(wal.commits(), Some(40));
    for (lost, out_of_turn, expected) in [
        (false, false, Revocation::InTurn),
        (true, false, Revocation::TooLate),
        (false, true, Revocation::TooLate),
        (true, true, Revocation::TooLate),
    ] {
        assert_eq!(Revocation::judge(lost, out_of_turn), expected);
    }
}

#[test]
fn a_tenure_waits_for_the_other_receivers_of_the_wal() {
    let settings = Settings { wal: ME, topic: TOPIC, fence: Fence::Commit, rules: Rules::all() };
    let mut ownership = Ownership::new(settings, 2, None);
    let mut members = Members::new(2);
    members.seen(0, Membership::new("a", 1));
    members.seen(1, Membership::new("b", 1));
    let ticket = ownership.may_open(0, &members).unwrap();
    let stale = ownership.may_open(1, &members).unwrap();
    let read = committed(OTHER, 10, &[(OTHER, 10)]);
    assert!(matches!(ownership.open(0, ticket, &read, false, POLICY, None), Opening::Open(_)));
    assert_eq!(ownership.open(1, stale, &read, false, POLICY, None), Opening::ReadAgain);
    assert_eq!(ownership.may_open(1, &members), Err(Wait::Held { receiver: 0 }));
    ownership.synced(1);
    assert!(ownership.admit(1, 20));
    ownership.durable(1, 20);
    let mut takes = |receiver| {
        let standing = Standing { membership: members.of(receiver), out_of_turn: false };
        ownership.take_commit(receiver, standing, None).unwrap()
    };
    assert_eq!(takes(1), Commit::NotDue, "only the holder commits");
    assert!(matches!(takes(0), Commit::Send(_)));
    ownership.revoke(0, Revocation::InTurn);
    ownership.release(0, &members);
    members.seen(1, Membership::new("b", 2));
    assert_eq!(ownership.may_open(1, &members), Err(Wait::NotJoined { receiver: 0 }));
    members.seen(0, Membership::new("a", 2));
    assert!(ownership.may_open(1, &members).is_ok());
}

#[test]
fn a_commit_carries_over_every_entry_and_replaces_its_own() {
    let mut wal = Wal::new(None);
    wal.opens(&committed(OTHER, 10, &[(OTHER, 10), (WalId(9), 4)]));
    wal.stores(1, 20);
    let order = wal.order(Some(7)).unwrap();
    let Committed::Ours { metadata, .. } = committed(ME, 20, &[(ME, 20), (OTHER, 10), (WalId(9), 4)]) else { panic!() };
    assert_eq!(order.metadata, Metadata { delivered: Some(7), ..metadata });
}

#[test]
fn one_wal_too_many_holds_the_partition() {
    let entries: Vec<_> = (100..200).map(|wal| (WalId(wal), 1_000_000_000)).collect();
    let mut wal = Wal::new(None);
    wal.joins();
    let read = committed(WalId(100), 1_000_000_000, &entries);
    assert!(matches!(wal.reads(&read), Opening::Hold(Hold::Metadata(MetadataError::Full { wals: 101, .. }))));
}

#[test]
fn a_topic_created_again_starts_at_0_and_carries_nothing_over() {
    let mut read = committed(OTHER, 500, &[(OTHER, 500), (ME, 400)]);
    if let Committed::Ours { metadata, .. } = &mut read {
        metadata.topic = TopicId([4; 16]);
    }
    let mut wal = Wal::new(None);
    let opened = wal.opens(&read);
    assert_eq!((opened.fetch, &opened.start), (0, &Start::Incarnation));
    let order = wal.order(None).unwrap();
    let Committed::Ours { metadata, .. } = committed(ME, 0, &[(ME, 0)]) else { panic!() };
    assert_eq!(order.metadata, metadata);
}

#[test]
fn a_kill_before_the_first_commit_of_a_new_incarnation_loses_and_doubles_nothing() {
    // The group's commit is still the one of the topic that was deleted.
    let mut read = committed(OTHER, 500, &[(OTHER, 500), (ME, 400)]);
    if let Committed::Ours { metadata, .. } = &mut read {
        metadata.topic = TopicId([4; 16]);
    }
    let mut wal = Wal::new(None);
    wal.opens(&read);
    wal.stores(1, 10);
    let log = *wal.ownership.fold().unwrap();
    let mut again = Wal::new(Some(log));
    let opened = again.opens(&read);
    assert_eq!((opened.first, opened.fetch), (0, 10), "what is in the log is adopted and not fetched again");
    assert_eq!(again.ownership.fold().unwrap().doubt(), Some((0, 10)));
    assert_eq!(again.commits(), Some(10), "claimed at once");
}

#[test]
fn doubt_about_a_deleted_topic_is_ours_only_when_alone() {
    let log = Fold { tenure: 4, admitted: 30, acked: Some(20), undecided: 10, seen: true };
    let held = Settled::Not(Unsettled::Hold(Hold::NoCommit { log: 30 }));
    assert_eq!(Wal::new(Some(log)).ownership.settle_deleted(false), held);
    assert_eq!(Wal::new(Some(log)).ownership.settle_deleted(true), Settled::Frames(confirmed(4, 30)));
}

#[test]
fn reads_are_told_apart() {
    assert_eq!(Committed::read(None, b"forebay1"), Committed::None);
    assert_eq!(Committed::read(Some(5), b""), Committed::Foreign { offset: 5 });
    let ours = committed(ME, 5, &[(ME, 5)]);
    let Committed::Ours { metadata, .. } = &ours else { panic!() };
    assert_eq!(Committed::read(Some(5), metadata.encode().unwrap().as_bytes()), ours);
    assert!(matches!(Committed::read(Some(5), b"forebay1 wal=x"), Committed::Unreadable { offset: 5, .. }));
}

#[test]
fn unprotected_starts_at_the_commit_whatever_the_log_says() {
    let log = Fold { tenure: 1, admitted: 30, acked: Some(10), undecided: 0, seen: true };
    let settings = Settings { wal: ME, topic: TOPIC, fence: Fence::Commit, rules: Rules::unprotected() };
    let mut wal = Wal::new(None);
    wal.ownership = Ownership::new(settings, 1, Some(log));
    let opened = wal.opens(&committed(ME, 10, &[(ME, 10)]));
    assert_eq!((opened.fetch, opened.frames.len()), (10, 1));
    assert_eq!(wal.ownership.fence(), None);
}

fn opens_with(on_gap: OnGap, range: Range) -> (Wal, Opening) {
    // Committed up to 20, [20, 30) is in doubt.
    let log = Fold { tenure: 1, admitted: 30, acked: Some(20), undecided: 0, seen: true };
    let mut wal = Wal::new(Some(log));
    wal.joins();
    let ticket = wal.ownership.may_open(0, &wal.members).unwrap();
    let read = committed(ME, 20, &[(ME, 20)]);
    let policy = Policy { on_gap, ..POLICY };
    let opening = wal.ownership.open(0, ticket, &read, false, policy, Some(range));
    (wal, opening)
}

#[test]
fn a_gap_behind_what_is_adopted_is_logged_with_the_tenure_and_committed() {
    let (mut wal, opening) = opens_with(OnGap::Skip, Range { first: 50, next: 90 });
    let Opening::Open(opened) = opening else { panic!("{opening:?}") };
    let gap = Gap { cause: crate::kafka::gap::Cause::Retention, first: 30, next: 50 };
    let [Frame::Owned { first: 20, next: 30, .. }, Frame::Gap { tenure: 2, gap: logged }] = &opened.frames[..] else {
        panic!("{:?}", opened.frames)
    };
    assert_eq!((*logged, opened.fetch), (gap, 50));
    assert_eq!(wal.commits(), None, "not before it is synced");
    wal.ownership.synced(2);
    assert_eq!(wal.commits(), Some(50));
    assert_eq!(wal.ownership.answered(2, 50, Answer::Applied).frames, confirmed(2, 50));
    assert_eq!(wal.ownership.fence(), Some(50), "what was adopted is acknowledged too");
    assert_eq!(wal.ownership.fold().unwrap().doubt(), None);
}

#[test]
fn a_gap_opens_nothing_unless_it_is_to_be_skipped() {
    let gap = |cause, first, next| Gap { cause, first, next };
    let early = gap(crate::kafka::gap::Cause::Retention, 30, 50);
    let late = gap(crate::kafka::gap::Cause::Truncation, 25, 30);
    let (dropped, truncated) = (Range { first: 50, next: 90 }, Range { first: 0, next: 25 });
    for (on_gap, range, expected) in [
        (OnGap::Fail, dropped, Opening::Stop(Stop::Gap(early))),
        (OnGap::Pause, dropped, Opening::Hold(Hold::Gap(early))),
        (OnGap::Fail, truncated, Opening::Stop(Stop::Gap(late))),
        (OnGap::Pause, truncated, Opening::Hold(Hold::Gap(late))),
        (OnGap::Skip, truncated, Opening::Await(late)),
    ] {
        let (wal, opening) = opens_with(on_gap, range);
        assert_eq!(opening, expected);
        assert_eq!(wal.ownership.tenure(), None, "nothing is held");
        assert_eq!(wal.ownership.fold().map(|fold| fold.admitted), Some(30));
    }
    let (_, opening) = opens_with(OnGap::Fail, Range { first: 30, next: 30 });
    assert!(matches!(opening, Opening::Open(_)), "{opening:?}");
}
