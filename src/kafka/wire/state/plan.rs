//! Whom to ask for next, for how much, and how long the broker may wait with its answer.

use super::{Lane, State};
use crate::kafka::consumer::Named;
use crate::kafka::wire::answer::{Asked, Request};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What one partition is asked for at least while there is room.
pub(super) const PIECE: usize = 1 << 20;
/// What one partition may have waiting at least.
const SHARE_MIN: usize = 64 << 10;
/// How long a broker may wait for those that have nothing while others, left out, are to be asked for soon; and so much
/// longer for each, since a request costs what it names.
pub(super) const HURRY: Duration = Duration::from_millis(1);
pub(super) const HURRY_EACH: Duration = Duration::from_micros(20);
/// At most so long, where the same ones are left out in one request after the other.
pub(super) const HURRY_MAX: Duration = Duration::from_millis(20);

/// What becomes of a partition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is another broker's, stopped, or being asked for.
    Elsewhere,
    /// It is to come again then.
    Waits(Instant),
    /// Much of it waits to be taken.
    HasEnough,
    Asked,
}

impl State {
    /// What to ask this broker for now.
    pub fn plan(&mut self, broker: i32, now: Instant) -> Option<Request> {
        // Who holds nothing is asked for in any case: the others may be taken slowly for a long time.
        let is_full = self.held >= self.budget;
        let share = (self.budget / self.lanes.len().max(1)).max(SHARE_MIN);
        // A batch that is larger comes only if it comes first: small pieces are for when memory is scarce.
        let least = if self.held < self.budget / 2 { PIECE } else { SHARE_MIN };
        let partition_bytes = (share / 2).max(least).min(self.partition_bytes);
        self.requests += 1;
        let number = self.requests;
        let mut request = Request { number, partition_bytes, apart: self.apart, ..Request::default() };
        let fate = |lane: &Lane| match lane.again {
            _ if lane.leader != Some(broker) || lane.stopped || lane.asked.is_some() => Fate::Elsewhere,
            Some(again) if again > now => Fate::Waits(again),
            _ if lane.held > share / 2 || is_full && lane.held > 0 => Fate::HasEnough,
            _ => Fate::Asked,
        };
        let mut left_out = LeftOut::default();
        let mut take = |named: &Named, lane: &mut Lane| {
            let fate = fate(lane);
            left_out.note(fate, lane);
            if fate == Fate::Asked {
                (lane.asked, lane.again) = (Some(number), None);
                push(&mut request, named, lane);
            }
        };
        // Who is asked for first gets most, and a whole batch in any case: everybody in turn.
        match self.turn.get(&broker) {
            None => self.lanes.iter_mut().for_each(|(named, lane)| take(named, lane)),
            Some(turn) => {
                self.lanes.range_mut((Excluded(turn.clone()), Unbounded)).for_each(|(named, lane)| take(named, lane));
                self.lanes.range_mut(..=turn.clone()).for_each(|(named, lane)| take(named, lane));
            }
        }
        self.turn.insert(broker, (*request.topics.first()?.1.first()?.named).clone());
        request.wait_max = left_out.wait(self.left_out.entry(broker).or_default(), now);
        Some(request)
    }
}

fn push(request: &mut Request, named: &Named, lane: &Lane) {
    let Lane { named: name, next, epoch, leader_epoch, .. } = lane;
    let asked = Asked { named: Arc::clone(name), next: *next, epoch: *epoch, leader_epoch: *leader_epoch };
    match request.topics.last_mut() {
        Some((id, topic)) if topic[0].named.0 == named.0 && *id == lane.id => topic.push(asked),
        _ => request.topics.push((lane.id, vec![asked])),
    }
}

/// Who is not in a request and is to be asked for soon.
#[derive(Default)]
struct LeftOut {
    asked: u32,
    /// When the first of those that wait is to come again.
    first: Option<Instant>,
    has_enough: bool,
    /// Somebody is asked for again who had enough.
    goes_on: bool,
}

impl LeftOut {
    fn note(&mut self, fate: Fate, lane: &mut Lane) {
        match fate {
            Fate::Elsewhere => return,
            Fate::Waits(again) => self.first = Some(self.first.map_or(again, |first| first.min(again))),
            Fate::HasEnough => self.has_enough = true,
            Fate::Asked => {
                self.asked += 1;
                self.goes_on |= lane.had_enough;
            }
        }
        lane.had_enough = fate == Fate::HasEnough;
    }

    /// How long the broker may wait at most. Those that have enough for long are taken slowly: they are waited for longer
    /// from request to request.
    fn wait(&self, in_a_row: &mut u32, now: Instant) -> Option<Duration> {
        let least = HURRY + HURRY_EACH * self.asked;
        let is_taken_slowly = self.has_enough && !self.goes_on;
        if !is_taken_slowly {
            *in_a_row = 0;
        }
        let for_room = self.has_enough.then(|| (HURRY * (1 << *in_a_row)).min(HURRY_MAX).max(least));
        *in_a_row = (*in_a_row + u32::from(is_taken_slowly)).min(8);
        let for_time = self.first.map(|first| first.saturating_duration_since(now).max(least));
        for_room.into_iter().chain(for_time).min()
    }
}
