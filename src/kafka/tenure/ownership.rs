//! The state machine of one partition and one WAL, whichever receiver holds it.
//!
//! Events come in as method calls, what to do comes out as values. Promises: no time, no I/O, no client types; the
//! same calls give the same answers. Never: it commits nothing it was not told is durable.

mod ending;

use super::fold::{Fold, Frame};
use super::members::{Members, Membership, Past};
use super::metadata::{Acked, Metadata, WalId};
use super::rules::Rule;
use super::{
    Answer, Commit, Committed, Fence, Opened, Opening, Order, Reply, Settings, Settled, Standing, Ticket, Unsettled,
    Wait, settle,
};
use crate::kafka::gap::{self, Action, Finding, Gap, OnGap};
use crate::kafka::start::{self, Hold, LogView, OnForeign, Policy, Question, Range, Start, StartAt, Stop};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// `Owned` is not durable yet: no commit.
    Opening,
    Open,
    /// Revoked: nothing more is admitted.
    Closing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holding {
    receiver: usize,
    /// The member id it was opened under.
    member: Option<u64>,
    tenure: u32,
    phase: Phase,
    /// Where fetching began; durable once `Owned` is.
    next: i64,
    durable: Option<i64>,
    /// The group's commit as far as this tenure knows; `None`: one is due.
    committed: Option<i64>,
    in_flight: Option<i64>,
    /// The last commit sent is not known to be applied, so it may be applied later.
    offered: bool,
    /// No further commit in this tenure: one is unanswered, the member id is another one, or the group went on.
    mute: bool,
    /// Entries of all WALs as read when the tenure opened.
    entries: Acked,
    /// Released, and still here only because a rule was taken away.
    released: bool,
}

/// Who owns a partition as far as this WAL knows, and what is in doubt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ownership {
    settings: Settings,
    log: Option<Fold>,
    /// How far what was admitted is durable.
    durable: i64,
    /// How far the log delivered it; see [`Ownership::delivered`].
    delivered: i64,
    holder: Option<Holding>,
    past: Vec<Past>,
    /// The commit that was in flight when the last tenure was released: receiver, tenure, offset.
    left: Option<(usize, u32, i64)>,
    /// The commit and committer that the last tenure of this process opened on.
    opened_on: Option<(i64, WalId)>,
    /// What was given up since the last tenure opened.
    disowned: Option<(i64, i64)>,
    /// With [`Rule::RefusedIsInDoubt`] taken away: the last tenure's commit was refused.
    refused: bool,
}

impl Ownership {
    /// At the start of the process, from the fold of the log (`None`: the log does not know the partition).
    pub fn new(settings: Settings, receivers: usize, log: Option<Fold>) -> Self {
        let past = if log.is_some_and(|log| log.doubt().is_some()) { Past::EarlierLife } else { Past::Clear };
        let past = vec![past; receivers];
        let durable = log.map_or(0, |log| log.admitted);
        let (delivered, holder, left) = (0, None, None);
        let (opened_on, disowned, refused) = (None, None, false);
        Self { settings, log, durable, delivered, holder, past, left, opened_on, disowned, refused }
    }

    /// What the log knows, frames handed out and not yet synced included.
    pub fn fold(&self) -> Option<&Fold> {
        self.log.as_ref()
    }

    /// The open tenure: receiver and number.
    pub fn tenure(&self) -> Option<(usize, u32)> {
        self.held().map(|holder| (holder.receiver, holder.tenure))
    }

    /// How far blocks may be delivered: `None` is everything durable.
    pub fn fence(&self) -> Option<i64> {
        let fenced = self.settings.fence == Fence::Commit && self.settings.rules.hold(Rule::Fence);
        fenced.then(|| self.log.and_then(|log| log.acked).unwrap_or(0))
    }

    /// This log delivered what lies below `next`: no tenure fetches it again, wherever the group's commit stands. In direct
    /// mode that can be more than was committed.
    pub fn delivered(&mut self, next: i64) {
        self.delivered = self.delivered.max(next);
    }

    /// May `receiver`, which was assigned the partition, open a tenure now? With the ticket read the committed offset
    /// and its metadata, then call [`Ownership::open`]. While it must wait, ask again whenever a receiver of this WAL
    /// joined or released, or more became durable.
    pub fn may_open(&self, receiver: usize, members: &Members) -> Result<Ticket, Wait> {
        let rules = self.settings.rules;
        if let Some(holder) = self.held().filter(|_| rules.hold(Rule::OneHolder)) {
            return Err(Wait::Held { receiver: holder.receiver });
        }
        let late = self.not_over(members).filter(|_| rules.hold(Rule::AllJoined));
        late.map_or(Ok(()), |receiver| Err(Wait::NotJoined { receiver }))?;
        debug_assert!(receiver < self.past.len());
        let waiting = self.log.filter(|log| self.durable < log.admitted && rules.hold(Rule::DurableBeforeOpen));
        waiting.map_or(Ok(()), |log| Err(Wait::NotDurable { first: self.durable, next: log.admitted }))?;
        let member = members.of(receiver).map(|membership| membership.member);
        Ok(Ticket { tenure: self.last_tenure(), safe: true, member })
    }

    /// Opens a tenure on what was read. The frames are to be appended in their order and synced; admitting may begin
    /// at once, at `fetch`.
    pub fn open(
        &mut self,
        receiver: usize,
        ticket: Ticket,
        committed: &Committed,
        former: bool,
        policy: Policy,
        range: Option<Range>,
    ) -> Opening {
        if ticket.tenure != self.last_tenure() {
            return Opening::ReadAgain;
        }
        if let Some(stop) = self.contradiction(committed) {
            return Opening::Stop(stop);
        }
        let start = start::decide(&self.question(committed, former, policy, range));
        match &start {
            Start::AskRange => return Opening::AskRange,
            Start::Hold(hold) => return Opening::Hold(hold.clone()),
            Start::Stop(stop) => return Opening::Stop(*stop),
            _ => {}
        }
        let read = (committed.offset().unwrap_or(0), self.entry(committed));
        let plan = settle::assigned(self.log.as_ref(), &start, read, self.settings.rules, self.settings.fence);
        let Some(plan) = plan else { return Opening::ReadAgain };
        let plan = settle::Plan { next: plan.next.max(self.delivered), ..plan };
        let at = |range| gap::decide(Finding::Start { start: plan.next, range }, policy.on_gap);
        let gap = match range.map_or(Action::Go, at) {
            Action::Go => None,
            Action::Skip(gap) => Some(gap),
            Action::Await(gap) => return Opening::Await(gap),
            Action::Hold(gap) => return Opening::Hold(Hold::Gap(gap)),
            Action::Stop(gap) => return Opening::Stop(Stop::Gap(gap)),
        };
        let entries = match (&start, committed) {
            (Start::Incarnation, _) => Acked::default(),
            (_, Committed::Ours { metadata, .. }) => metadata.acked.clone(),
            _ => Acked::default(),
        };
        if let Err(full) = self.metadata(entries.clone(), plan.next, None).fits() {
            return Opening::Hold(Hold::Metadata(full));
        }
        self.opened_on = committed.committer().zip(committed.offset()).map(|(wal, offset)| (offset, wal));
        Opening::Open(self.begin((receiver, ticket.member), &plan, entries, start, gap))
    }

    fn begin(
        &mut self,
        (receiver, member): (usize, Option<u64>),
        plan: &settle::Plan,
        entries: Acked,
        start: Start,
        gap: Option<Gap>,
    ) -> Opened {
        let older = self.last_tenure();
        let tenure = older + 1;
        let mut frames = Self::decided(older, plan.confirm, plan.disown);
        frames.push(Frame::Owned { tenure, first: plan.first, next: plan.next, acked: entries.clone() });
        frames.extend(gap.map(|gap| Frame::Gap { tenure, gap }));
        let fetch = gap.map_or(plan.next, |gap| gap.next);
        let log = self.log.get_or_insert_default();
        for frame in &frames {
            log.apply(frame);
        }
        self.past.fill(Past::Clear);
        (self.left, self.disowned, self.refused) = (None, None, false);
        let synced = !self.settings.rules.hold(Rule::SyncBeforeCommit);
        self.durable = fetch;
        self.holder = Some(Holding {
            receiver,
            member,
            tenure,
            phase: if synced { Phase::Open } else { Phase::Opening },
            next: fetch,
            durable: synced.then_some(fetch),
            committed: plan.committed,
            in_flight: None,
            offered: false,
            mute: false,
            entries,
            released: false,
        });
        Opened { tenure, frames, first: plan.first, fetch, start }
    }

    /// The `Owned` frame of a tenure is durable.
    pub fn synced(&mut self, tenure: u32) {
        if let Some(holder) = self.holder.as_mut().filter(|holder| holder.tenure == tenure) {
            holder.durable = Some(holder.durable.map_or(holder.next, |durable| durable.max(holder.next)));
            if holder.phase == Phase::Opening {
                holder.phase = Phase::Open;
            }
        }
    }

    /// A block or an empty range up to `next` is about to be appended. False: drop it, the tenure is over.
    pub fn admit(&mut self, tenure: u32, next: i64) -> bool {
        let holder = self.held().filter(|holder| holder.tenure == tenure && holder.phase != Phase::Closing);
        let (true, Some(log)) = (holder.is_some(), self.log.as_mut()) else { return false };
        log.admitted = log.admitted.max(next);
        true
    }

    /// What was admitted in `tenure` is durable up to `next`; news of a tenure that is over are welcome too.
    pub fn durable(&mut self, tenure: u32, next: i64) {
        if tenure == self.last_tenure() {
            self.durable = self.durable.max(next);
        }
        let any = !self.settings.rules.hold(Rule::OwnTenureOnly);
        if let Some(holder) = self.holder.as_mut().filter(|holder| any || holder.tenure == tenure) {
            holder.durable = Some(holder.durable.map_or(next, |durable| durable.max(next)));
        }
    }

    /// All that was admitted is durable.
    pub fn is_durable(&self) -> bool {
        self.log.is_none_or(|log| self.durable >= log.admitted)
    }

    /// The next commit, if one is due and none is in flight; it counts as sent. It must leave under the membership in
    /// `standing`. `delivered` is told to people in the metadata. Fails when one WAL too many has an entry.
    pub fn take_commit(&mut self, receiver: usize, standing: Standing, delivered: Option<i64>) -> Result<Commit, Hold> {
        let rules = self.settings.rules;
        let (Some(next), Some(now)) = (self.due(receiver), standing.membership) else { return Ok(Commit::NotDue) };
        if standing.out_of_turn && rules.hold(Rule::NoCommitOutOfTurn) {
            return Ok(Commit::NotDue);
        }
        let Some(holder) = &mut self.holder else { return Ok(Commit::NotDue) };
        // The broker checks the member, not who owns what: under another member id the commit would be applied although
        // the partition may have been someone else's meanwhile.
        if holder.member != Some(now.member) && rules.hold(Rule::SameMember) {
            holder.mute = true;
            return Ok(Commit::Rejoin);
        }
        let (tenure, entries) = (holder.tenure, holder.entries.clone());
        let metadata = self.metadata(entries, next, delivered);
        metadata.fits()?;
        if let Some(holder) = &mut self.holder {
            (holder.in_flight, holder.offered) = (Some(next), true);
        }
        Ok(Commit::Send(Order { tenure, next, metadata }))
    }

    /// What [`Ownership::take_commit`] would commit now, if the client's standing allows it.
    pub fn due(&self, receiver: usize) -> Option<i64> {
        let rules = self.settings.rules;
        let holder = self.holder.as_ref().filter(|holder| holder.receiver == receiver && !holder.mute)?;
        let next = if rules.hold(Rule::DurableBeforeCommit) { holder.durable? } else { self.log?.admitted };
        let busy = holder.in_flight.is_some_and(|sent| rules.hold(Rule::OneInFlight) || sent >= next);
        let new = holder.committed.is_none_or(|committed| committed < next);
        (holder.phase != Phase::Opening && !busy && new).then_some(next)
    }

    /// What became of a commit; results of tenures that are over are welcome too.
    pub fn answered(&mut self, tenure: u32, next: i64, answer: Answer) -> Reply {
        let rules = self.settings.rules;
        let mut reply = Reply::default();
        if let Some(holder) = self.holder.as_mut().filter(|holder| holder.tenure == tenure) {
            if holder.in_flight == Some(next) {
                holder.in_flight = None;
                holder.offered &= answer != Answer::Applied;
            }
            match answer {
                Answer::Applied => holder.committed = Some(holder.committed.map_or(next, |known| known.max(next))),
                Answer::Refused => holder.mute |= !rules.hold(Rule::CommitAfterRefusal),
                Answer::Unanswered => {
                    holder.mute |= rules.hold(Rule::UnansweredStops);
                    reply.rejoin = holder.mute;
                }
            }
        }
        self.refused |= answer == Answer::Refused && !rules.hold(Rule::RefusedIsInDoubt);
        if let Some((receiver, ..)) = self.left.take_if(|left| (left.1, left.2) == (tenure, next))
            && answer == Answer::Applied
        {
            self.past[receiver] = Past::Clear;
        }
        // A newer tenure opened on a read that had this commit in it.
        if answer == Answer::Applied && tenure == self.last_tenure() {
            match self.disowned.filter(|(first, _)| next > *first) {
                Some((first, _)) => reply.stop = Some(Stop::DisownedApplied { first, next }),
                None => reply.frames = self.confirmed(tenure, next),
            }
        }
        reply
    }

    /// Is there doubt that a read could settle while nobody here owns the partition? With the ticket read, then call
    /// [`Ownership::settle`]. Ask after every assign callback and whenever the last answer was [`Unsettled::NotYet`].
    pub fn may_settle(&self, members: &Members) -> Option<Ticket> {
        let rules = self.settings.rules;
        let never = self.settings.fence == Fence::None || !rules.hold(Rule::SettleUnowned);
        if never || self.held().is_some() {
            return None;
        }
        self.log?.doubt()?;
        let safe = self.not_over(members).is_none() || !rules.hold(Rule::SettleAfterJoin);
        Some(Ticket { tenure: self.last_tenure(), safe, member: None })
    }

    /// Settles all doubt by what was read. The frames ride the next sync.
    pub fn settle(&mut self, ticket: Ticket, committed: &Committed) -> Settled {
        let Some(log) = self.log.filter(|log| self.held().is_none() && log.tenure == ticket.tenure) else {
            return Settled::Not(Unsettled::NotYet);
        };
        if let Some(stop) = self.contradiction(committed) {
            return Settled::Not(Unsettled::Stop(stop));
        }
        let policy = Policy { start: StartAt::Earliest, on_foreign: OnForeign::Hold, sole: false, on_gap: OnGap::Fail };
        match start::decide(&self.question(committed, false, policy, None)) {
            Start::Protocol => {}
            Start::Hold(hold) => return Settled::Not(Unsettled::Hold(hold)),
            Start::Stop(stop) => return Settled::Not(Unsettled::Stop(stop)),
            _ => return Settled::Not(Unsettled::NotYet),
        }
        if !ticket.safe && !self.another_went_on(committed) {
            return Settled::Not(Unsettled::NotYet);
        }
        let (confirm, disown) = settle::divided(&log, self.entry(committed));
        let frames = Self::decided(log.tenure, confirm, disown);
        if let Some(log) = &mut self.log {
            for frame in &frames {
                log.apply(frame);
            }
        }
        self.disowned = disown.or(self.disowned);
        Settled::Frames(frames)
    }

    /// The topic was deleted; no commit will ever tell. What is in doubt is ours if there was no other instance.
    pub fn settle_deleted(&mut self, sole: bool) -> Settled {
        let Some(log) = self.log.filter(|_| self.held().is_none()) else { return Settled::Not(Unsettled::NotYet) };
        match log.doubt() {
            Some((_, next)) if sole => Settled::Frames(self.confirmed(log.tenure, next)),
            Some(_) => Settled::Not(Unsettled::Hold(Hold::NoCommit { log: log.admitted })),
            None => Settled::Frames(Vec::new()),
        }
    }

    /// For model checking: renames memberships and forgets what no longer matters, so that equal situations become
    /// equal states.
    #[doc(hidden)]
    pub fn rename(&mut self, members: &Members, name: impl Fn(Membership) -> Membership) {
        for (receiver, past) in self.past.iter_mut().enumerate() {
            *past = match *past {
                over if over.is_over(members.of(receiver)) => Past::Clear,
                Past::Member(then) => Past::Member(name(then)),
                past => past,
            };
        }
        if let Some(holder) = &mut self.holder {
            holder.member = holder.member.map(|member| name(Membership { member, generation: 0 }).member);
        }
    }

    fn held(&self) -> Option<&Holding> {
        self.holder.as_ref().filter(|holder| !holder.released)
    }

    fn last_tenure(&self) -> u32 {
        self.log.map_or(0, |log| log.tenure)
    }

    /// A receiver whose old commits might still be applied.
    fn not_over(&self, members: &Members) -> Option<usize> {
        (0..self.past.len()).find(|receiver| !self.past[*receiver].is_over(members.of(*receiver)))
    }

    /// Another WAL committed after our last tenure opened: it owned the partition in a newer generation than any commit
    /// of ours.
    fn another_went_on(&self, committed: &Committed) -> bool {
        let now = committed.committer().zip(committed.offset()).map(|(wal, offset)| (offset, wal));
        now.is_some_and(|now| now.1 != self.settings.wal) && self.opened_on.is_some() && self.opened_on != now
    }

    /// `acked[me]` of a read.
    fn entry(&self, committed: &Committed) -> Option<i64> {
        let Committed::Ours { metadata, .. } = committed else { return None };
        if self.refused {
            return self.log.and_then(|log| log.acked);
        }
        metadata.acked.get(self.settings.wal)
    }

    fn contradiction(&self, committed: &Committed) -> Option<Stop> {
        let (first, _) = self.disowned?;
        let next = self.entry(committed).filter(|next| *next > first)?;
        Some(Stop::DisownedApplied { first, next })
    }

    fn question(&self, committed: &Committed, former: bool, policy: Policy, range: Option<Range>) -> Question {
        let log = self.log.map(|log| LogView { next: log.admitted, acked: log.acked, unclaimed: log.unclaimed() });
        let group = settle::group(committed, self.settings.topic, self.settings.wal);
        Question { log, former, group, range, policy }
    }

    fn decided(tenure: u32, confirm: Option<i64>, disown: Option<(i64, i64)>) -> Vec<Frame> {
        let confirm = confirm.map(|next| Frame::Confirmed { tenure, next });
        let disown = disown.map(|(first, next)| Frame::Disowned { tenure, first, next });
        confirm.into_iter().chain(disown).collect()
    }

    fn confirmed(&mut self, tenure: u32, next: i64) -> Vec<Frame> {
        let Some(log) = self.log.as_mut().filter(|log| log.acked.is_none_or(|acked| acked < next)) else {
            return Vec::new();
        };
        log.confirm(next);
        vec![Frame::Confirmed { tenure, next }]
    }

    fn metadata(&self, mut acked: Acked, next: i64, delivered: Option<i64>) -> Metadata {
        let Settings { wal, topic, rules, .. } = self.settings;
        if !rules.hold(Rule::CarryOver) {
            acked = Acked::default();
        }
        acked.set(wal, next);
        Metadata { wal, topic, delivered, acked }
    }
}
