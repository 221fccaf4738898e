//! The loop of one receiver: events, commits, records, in turn, for ever.

use super::assign::ASK;
use super::epoch::{Check, Known};
use super::late::For;
use super::pressure::{self, Pressure};
use super::slot::Slot;
use super::trust::Trust;
use super::{Options, ReceiverError, Shared};
use crate::kafka::consumer::{Member, Named, Position, Settings};
use crate::kafka::events::Event;
use crate::kafka::ffi::fetch::Batch;
use crate::wal::PartitionMarks;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Partitions assumed while their number is not known.
pub(super) const PARTITIONS_ASSUMED: usize = 16;
/// What librdkafka may hold for one partition, at least and at most.
const QUEUE_BYTES_MIN: usize = 64 << 10;
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Messages taken at a time.
pub(super) const BATCH: usize = 4096;
/// How long one round waits for records when none are there.
const WAIT: Duration = Duration::from_millis(5);
/// The same while a block is to be closed or a commit to be sent or answered.
const WAIT_SHORT: Duration = Duration::from_millis(1);
/// The same while nothing is taken.
const HELD: Duration = Duration::from_millis(1);
/// How often views, doubts and late partitions are looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// An assigned partition with all that belongs to it.
pub(super) struct Lane {
    pub named: Named,
    pub slot: Slot,
    pub marks: Arc<PartitionMarks>,
    /// The durable offset last told to the ownership protocol.
    pub durable: i64,
    /// What was there at the start, for `exit_at_end`.
    pub end: Option<i64>,
    /// An end of partition was seen at or beyond `slot.next`.
    pub at_end: bool,
    /// Whether librdkafka's position for the partition can be believed.
    pub trust: Trust,
    /// The rest of the current batch is to be dropped: it was fetched before a seek.
    pub skip: bool,
    /// Whether what lies before the first record was looked at.
    pub check: Check,
    /// The highest end of the partition seen in this tenure.
    pub seen_end: i64,
}

impl Lane {
    /// Where to fetch from when something moved librdkafka's position. A record that is to be compared comes first.
    pub fn position(&self) -> Position {
        let (named, Slot { next, leader_epoch, .. }) = (self.named.clone(), &self.slot);
        match &self.check {
            Check::Again(expected) => Position { named, offset: expected.offset, epoch: -1 },
            Check::Asked(Known { offset, epoch }) => Position { named, offset: *offset, epoch: *epoch },
            Check::First(_) | Check::Done => Position { named, offset: *next, epoch: *leader_epoch },
        }
    }
}

/// A receiver and all it owns.
pub(super) struct Receiver<'a> {
    pub number: usize,
    pub options: &'a Options,
    pub shared: &'a Arc<Shared>,
    // Before the member: a live message would keep the client from closing.
    pub batch: Batch,
    pub member: Member,
    pub lanes: Vec<Lane>,
    pub by_name: HashMap<Named, usize>,
    pub commits: super::commits::Commits,
    pub assigning: super::late::Assigning,
    pub last_heard: Instant,
    pub trouble: Option<String>,
    stalled: Option<Instant>,
    paused: bool,
    last_housekeeping: Instant,
    pub received_first: bool,
    /// Direct mode: the next batch.
    pub gathering: super::plan::Gathering,
    pub limited: super::limited::Limited,
    /// This receiver gave partitions back by itself since events were last served. That counts as the answer to a
    /// revocation it has not heard of: the group has gone on already.
    pub out_of_turn: bool,
}

impl<'a> Receiver<'a> {
    pub fn new(number: usize, options: &'a Options, shared: &'a Arc<Shared>) -> Result<Self, ReceiverError> {
        let now = Instant::now();
        let member = member(number, options, PARTITIONS_ASSUMED)?;
        Ok(Self {
            number,
            options,
            shared,
            member,
            batch: Batch::new(BATCH),
            lanes: Vec::new(),
            by_name: HashMap::new(),
            commits: super::commits::Commits::new(now),
            assigning: super::late::Assigning::default(),
            last_heard: now,
            trouble: None,
            stalled: None,
            paused: false,
            last_housekeeping: now,
            received_first: false,
            gathering: super::plan::Gathering::default(),
            limited: super::limited::Limited::default(),
            out_of_turn: false,
        })
    }

    pub fn run(mut self) -> Result<(), ReceiverError> {
        self.find_topics()?;
        if let Some(partitions) = self.assigning.expected {
            // Now that their number is known, each partition gets its share of the budget.
            self.member = member(self.number, self.options, partitions)?;
        }
        self.member.subscribe(&self.options.topics)?;
        let ended = loop {
            if self.shared.stop.load(Ordering::Acquire) {
                break Ok(());
            }
            if let Err(error) = self.round() {
                break Err(error);
            }
        };
        self.finish();
        ended
    }

    fn round(&mut self) -> Result<(), ReceiverError> {
        self.events()?;
        self.commit_round()?;
        if self.commits.rejoin {
            self.rejoin()?;
        }
        let now = Instant::now();
        match self.relieve(now)? {
            Pressure::None if self.shared.log.is_crowded() => std::thread::sleep(HELD),
            Pressure::None if self.shared.governor.is_limited() => self.take_limited()?,
            Pressure::None => {
                let wait = if self.is_awaiting() { WAIT_SHORT } else { WAIT };
                if self.member.wire().is_some() {
                    self.take_parts(wait)?;
                } else {
                    self.member.fetch_together();
                    self.member.fetch(&mut self.batch, wait);
                    self.take_batch(Instant::now())?;
                }
            }
            Pressure::Hold | Pressure::Pause => std::thread::sleep(HELD),
        }
        self.close_old(Instant::now())?;
        if self.last_housekeeping.elapsed() >= HOUSEKEEPING {
            self.last_housekeeping = Instant::now();
            self.housekeeping()?;
        }
        Ok(())
    }

    /// True while something is due in a moment.
    fn is_awaiting(&self) -> bool {
        !self.commits.is_idle()
            || self.commits.is_due()
            || !self.gathering.is_empty()
            || self.lanes.iter().any(|lane| lane.slot.opened.is_some() || lane.durable < lane.slot.next)
    }

    /// Serves what the client has to say.
    pub fn events(&mut self) -> Result<(), ReceiverError> {
        while let Some(event) = self.member.poll() {
            match event {
                Event::Assigned(partitions) => {
                    self.heard();
                    self.assigned(partitions)?;
                }
                Event::Revoked { partitions, lost } => {
                    self.heard();
                    self.revoked(&partitions, lost)?;
                }
                Event::Error { code, fatal, text } => self.error(code, fatal, text)?,
            }
        }
        self.out_of_turn = false;
        Ok(())
    }

    fn error(&mut self, code: Option<RDKafkaErrorCode>, fatal: bool, text: String) -> Result<(), ReceiverError> {
        if code == Some(RDKafkaErrorCode::FencedInstanceId) {
            let Settings { group, instance_id, .. } = &self.options.kafka;
            let instance = format!("{}-{}", instance_id.clone().unwrap_or_default(), self.number);
            return Err(ReceiverError::Fenced { group: group.clone(), instance, text });
        }
        if code == Some(RDKafkaErrorCode::InvalidSessionTimeout) {
            return Err(ReceiverError::SessionTimeout(text));
        }
        if fatal {
            return Err(ReceiverError::Fatal(text));
        }
        if self.trouble.as_ref() != Some(&text) {
            tracing::warn!(receiver = self.number, "kafka: {text}; librdkafka tries again by itself");
            self.trouble = Some(text);
        }
        Ok(())
    }

    /// Notes a sign of life from Kafka.
    pub fn heard(&mut self) {
        self.last_heard = Instant::now();
        self.trouble = None;
    }

    /// Looks at the pressure and pauses or resumes.
    fn relieve(&mut self, now: Instant) -> Result<Pressure, ReceiverError> {
        let log = &self.shared.log;
        let stalled = self.stalled.map(|since| now.duration_since(since));
        // What is planned takes the place of what would wait in the log's feed.
        let planned = (log.planned_bytes() as u64).saturating_sub(self.options.planned_bytes_max);
        let queued = log.queued_bytes() + planned;
        let pressure = pressure::decide(queued, self.options.queue_bytes_max, log.is_full(), stalled);
        if let Some(failure) = log.failure() {
            return Err(crate::wal::WalError::Poisoned(failure).into());
        }
        match pressure {
            Pressure::None => {
                self.stalled = None;
                if self.paused {
                    self.resume()?;
                }
            }
            Pressure::Hold => self.stalled = self.stalled.or(Some(now)),
            Pressure::Pause if !self.paused => {
                tracing::warn!(receiver = self.number, full = log.is_full(), "the log takes no more for now: paused");
                self.member.pause(&self.names())?;
                self.set_paused(true);
            }
            Pressure::Pause => {}
        }
        Ok(pressure)
    }

    fn resume(&mut self) -> Result<(), ReceiverError> {
        let starts = self.positions();
        tracing::info!(receiver = self.number, "the log takes records again: resumed");
        // Nothing was to be heard meanwhile.
        self.heard();
        let resumed = if starts.is_empty() { Ok(()) } else { self.member.resume_at(&starts, ASK) };
        self.resumed(resumed, starts)?;
        self.set_paused(false);
        Ok(())
    }

    /// Where each partition goes on.
    pub(super) fn positions(&self) -> Vec<Position> {
        self.lanes.iter().map(Lane::position).collect()
    }

    /// Only a failed seek needs more: the partitions are assigned anew, which sets the position too.
    pub(super) fn resumed(
        &mut self,
        resumed: Result<(), KafkaError>,
        starts: Vec<Position>,
    ) -> Result<(), ReceiverError> {
        if let Err(error) = resumed {
            tracing::warn!(receiver = self.number, "cannot seek ({error}); assigning the partitions anew");
            self.out_of_turn = true;
            self.member.unassign(&self.names())?;
            for lane in &mut self.lanes {
                lane.check = std::mem::replace(&mut lane.check, Check::Done).anew(&lane.slot);
            }
            let starts: Vec<_> = starts.into_iter().map(|start| (start.named, start.offset)).collect();
            self.start_fetching(&starts)?;
        }
        Ok(())
    }

    fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        self.shared.metrics.partitions_paused.set(if paused { self.lanes.len() as i64 } else { 0 });
        self.shared.views.update(self.number, |view| view.paused = paused);
    }

    pub fn names(&self) -> Vec<Named> {
        self.lanes.iter().map(|lane| lane.named.clone()).collect()
    }

    fn housekeeping(&mut self) -> Result<(), ReceiverError> {
        self.leave_to_client()?;
        self.open_late()?;
        self.settle_doubts()?;
        self.hold_damaged()?;
        self.note_ends();
        self.check_identities()?;
        self.show();
        self.check_reachable()
    }

    fn check_reachable(&self) -> Result<(), ReceiverError> {
        let waited = self.last_heard.elapsed();
        let late = !self.assigning.joined || self.assigning.is_opening();
        let waiting = late || self.lanes.iter().any(|lane| !is_done(lane));
        if !self.options.exit_at_end || !waiting || waited < self.options.unreachable_timeout || self.paused {
            return Ok(());
        }
        let last = self.trouble.clone().unwrap_or_else(|| "nothing heard".to_string());
        Err(ReceiverError::Unreachable { brokers: self.options.kafka.brokers.clone(), waited, last })
    }

    /// Remembers the highest ends: a topic that is created again has smaller ones.
    fn note_ends(&mut self) {
        for lane in &mut self.lanes {
            let end = self.member.known_ends(&lane.named).map_or(lane.slot.next, |(_, high)| high);
            lane.seen_end = lane.seen_end.max(end).max(lane.slot.next);
        }
    }

    /// Writes this receiver's view.
    pub fn show(&self) {
        let at_end = self.lanes.iter().all(is_done);
        let settled = self.is_settled();
        let by_client = self.member.wire().is_none();
        self.shared.views.update(self.number, |view| {
            view.by_client = by_client;
            view.joined = self.assigning.joined;
            view.partitions.clear();
            let each = |lane: &Lane| {
                let end = self.member.known_ends(&lane.named).map(|(_, high)| high);
                (lane.named.0.clone(), lane.named.1, lane.slot.next, end)
            };
            view.partitions.extend(self.lanes.iter().map(each));
            view.at_end = at_end;
            view.settled = settled;
            view.trouble.clone_from(&self.trouble);
            view.waiting = self.assigning.waiting_for(For::Moment);
            view.parked = self.assigning.waiting_for(For::Kafka);
            view.held = self.assigning.waiting_for(For::Person);
            view.lag = self.lanes.iter().map(|lane| self.lag(lane)).sum();
            view.changed = self.assigning.changed;
            view.partitions_expected = self.assigning.expected;
        });
        let by_client = self.shared.views.look(|views| views.iter().filter(|view| view.by_client).count());
        self.shared.metrics.receivers_by_librdkafka.set(by_client as i64);
    }

    /// Records that Kafka has and this receiver has not taken, as far as known.
    pub fn not_taken(&self, lane: &Lane) -> u64 {
        let end = self.member.known_ends(&lane.named).map_or(lane.slot.next, |(_, high)| high);
        u64::try_from(end - lane.slot.next).unwrap_or(0)
    }

    fn lag(&self, lane: &Lane) -> u64 {
        let end = self.member.known_ends(&lane.named).map_or(lane.slot.next, |(_, high)| high);
        let delivered = lane.marks.delivered.load(Ordering::Acquire);
        let done = if lane.durable == lane.slot.next && delivered >= lane.durable { lane.slot.next } else { delivered };
        u64::try_from(end - done.max(0)).unwrap_or(0)
    }
}

/// True when an `exit_at_end` run has what it came for.
fn is_done(lane: &Lane) -> bool {
    lane.at_end || lane.end.is_some_and(|end| lane.slot.next >= end)
}

/// A client for this receiver, when there are so many partitions to share the budget.
pub(super) fn member(number: usize, options: &Options, partitions: usize) -> Result<Member, ReceiverError> {
    let mut settings = options.kafka.clone();
    settings.queue_bytes = (settings.queue_bytes / partitions.max(1)).clamp(QUEUE_BYTES_MIN, QUEUE_BYTES_MAX);
    settings.wire_bytes = settings.wire_bytes.map(|bytes| bytes / options.receivers.max(1) as usize);
    settings.instance_id = settings.instance_id.map(|id| format!("{id}-{number}"));
    Ok(Member::new(&settings)?)
}
