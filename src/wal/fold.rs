//! The fold: [`State`] from frames, one after the other. Pure.
//!
//! Promises: the same frames give the same state; an entry that the rules do not allow is an error and changes
//! nothing. A `Block`'s `first` equals its partition's admitted offset, or an `Owned`, `Gap` or `Empty` frame before it
//! explains the jump.

use super::format::entry::Entry;
use super::format::state::{
    DEFAULT_ROUTE, Delivery, Disowned, GapRange, NO_OFFSET, OpenPlan, PartitionState, State, StoredReceipt,
    TenureRange, Topic, looks_back,
};
use crate::record::{BlockHeader, Lsn, Partition};
use std::collections::HashMap;

/// An entry that the rules do not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// Offsets would be missing or come twice.
    #[error("partition {partition:?}: range begins at {first}, but the admitted offset is {admitted}")]
    Jump {
        /// The partition.
        partition: Partition,
        /// First offset of the entry.
        first: i64,
        /// What the log has admitted; -1 when no tenure was opened.
        admitted: i64,
    },
    /// A range that ends before it begins.
    #[error("partition {partition:?}: range [{first}, {next}) is backwards")]
    Backwards {
        /// The partition.
        partition: Partition,
        /// First offset.
        first: i64,
        /// One past the last.
        next: i64,
    },
    /// A tenure that is not newer than the last.
    #[error("partition {partition:?}: tenure {tenure} after tenure {last}")]
    Tenure {
        /// The partition.
        partition: Partition,
        /// The tenure of the entry.
        tenure: u32,
        /// The partition's tenure.
        last: u32,
    },
}

/// How an entry moves a partition's admitted offset.
#[derive(Clone, Copy)]
struct Move {
    partition: Partition,
    tenure: u32,
    first: i64,
    next: i64,
    opens: bool,
}

fn movement(entry: &Entry) -> Option<Move> {
    let (partition, tenure, first, next, opens) = match entry {
        Entry::Block(block) => {
            let h = &block.header;
            (h.partition, h.tenure, h.first, h.next, false)
        }
        Entry::Gap { reason, .. } if looks_back(reason) => return None,
        Entry::Empty { partition, tenure, first, next } | Entry::Gap { partition, tenure, first, next, .. } => {
            (*partition, *tenure, *first, *next, false)
        }
        Entry::Owned { partition, tenure, first, next, .. } => (*partition, *tenure, *first, *next, true),
        _ => return None,
    };
    Some(Move { partition, tenure, first, next, opens })
}

/// Decides whether a move is allowed for a partition at `(admitted, tenure)`.
fn allowed(mv: &Move, admitted: i64, tenure: u32) -> Result<(), FoldError> {
    let Move { partition, first, next, .. } = *mv;
    if next < first || first < 0 {
        return Err(FoldError::Backwards { partition, first, next });
    }
    if !mv.opens && first != admitted {
        return Err(FoldError::Jump { partition, first, admitted });
    }
    if mv.tenure < tenure || mv.opens && mv.tenure == tenure {
        return Err(FoldError::Tenure { partition, tenure: mv.tenure, last: tenure });
    }
    Ok(())
}

/// Checks entries that are about to be logged against the state they will meet. Reused from group to group.
#[derive(Debug, Default)]
pub struct Admission {
    ahead: HashMap<Partition, (i64, u32)>,
}

impl Admission {
    /// Forgets the entries checked so far.
    pub fn clear(&mut self) {
        self.ahead.clear();
    }

    /// Checks one entry that follows `state` and the entries checked before.
    pub fn check(&mut self, state: &State, entry: &Entry) -> Result<(), FoldError> {
        let Some(mv) = movement(entry) else {
            return Ok(());
        };
        let logged = || {
            let known = state.partitions.get(&mv.partition);
            known.map_or((NO_OFFSET, 0), |p| (p.admitted, p.tenure))
        };
        let place = self.ahead.entry(mv.partition).or_insert_with(logged);
        allowed(&mv, place.0, place.1)?;
        *place = (mv.next, mv.tenure);
        Ok(())
    }
}

impl State {
    /// Folds in the entry with this LSN.
    pub fn apply(&mut self, lsn: Lsn, entry: &Entry) -> Result<(), FoldError> {
        match entry {
            Entry::Block(block) => self.admit(&block_move(&block.header))?,
            Entry::Empty { .. } | Entry::Gap { .. } => {
                if let Some(mv) = movement(entry) {
                    self.admit(&mv)?;
                }
                self.note_gap(entry);
            }
            Entry::Owned { acked_entries, .. } => {
                if let Some(mv) = movement(entry) {
                    self.open_tenure(&mv, acked_entries)?;
                }
            }
            _ => self.apply_plain(lsn, entry),
        }
        self.lsn = lsn;
        Ok(())
    }

    /// Folds in a block of which only the header is known.
    pub fn apply_block(&mut self, lsn: Lsn, header: &BlockHeader) -> Result<(), FoldError> {
        self.admit(&block_move(header))?;
        self.lsn = lsn;
        Ok(())
    }

    fn apply_plain(&mut self, lsn: Lsn, entry: &Entry) {
        match entry {
            Entry::Topic { number, name, id } => {
                let (name, id) = (name.clone(), *id);
                self.topics.insert(*number, Topic { name, id });
            }
            Entry::Route { route, name } => {
                self.routes.insert(*route, name.clone());
            }
            Entry::Disowned { partition, tenure, first, next } => {
                let (tenure, first, next) = (*tenure, *first, *next);
                let range = Disowned { tenure, first, next, lsn };
                disown(self.partitions.entry(*partition).or_default(), range);
            }
            Entry::Confirmed { partition, next, .. } => {
                let state = self.partitions.entry(*partition).or_default();
                confirm(state, *next);
                pass_gaps(state);
            }
            Entry::Returning { partition, tenure, first, next } => {
                let (tenure, first, next) = (*tenure, *first, *next);
                let range = TenureRange { tenure, first, next };
                give_back(self.partitions.entry(*partition).or_default(), range);
            }
            Entry::Named { route, partition, name } => {
                self.delivery(*partition, *route).named = Some(name.clone());
            }
            Entry::Delivered { route, partition, first, next, through_lsn, keep_from, detail } => {
                let (first, next, keep_from) = (*first, *next, *keep_from);
                let delivery = self.delivery(*partition, *route);
                delivery.delivered = delivery.delivered.max(next);
                delivery.delivered_lsn = delivery.delivered_lsn.max(*through_lsn);
                let detail = detail.clone();
                delivery.receipt = Some(StoredReceipt { first, next, keep_from, detail });
                self.finish_plans(*partition, *route, next);
                pass_gaps(self.partitions.entry(*partition).or_default());
            }
            Entry::Plan { route, id, time_ms, ranges, .. } => {
                let (route, id, time_ms) = (*route, *id, *time_ms);
                let ranges = ranges.clone();
                self.plans.push(OpenPlan { route, id, time_ms, ranges });
            }
            Entry::PlanDropped { route, id } => {
                self.plans.retain(|plan| (plan.route, plan.id) != (*route, *id));
            }
            Entry::RetiredBelow { segment, lsn } => self.retire(*segment, *lsn),
            _ => {}
        }
    }

    fn delivery(&mut self, partition: Partition, route: u16) -> &mut Delivery {
        let state = self.partitions.entry(partition).or_default();
        state.delivery.entry(route).or_default()
    }

    /// Direct mode: what was planned and is delivered leaves its plan, and counts as admitted although it was never
    /// logged.
    fn finish_plans(&mut self, partition: Partition, route: u16, next: i64) {
        let mut done = NO_OFFSET;
        for plan in self.plans.iter_mut().filter(|plan| plan.route == route) {
            plan.ranges.retain(|range| {
                let is_done = range.partition() == partition && range.until <= next;
                done = if is_done { done.max(range.until) } else { done };
                !is_done
            });
        }
        self.plans.retain(|plan| !plan.ranges.is_empty());
        if let Some(state) = self.partitions.get_mut(&partition).filter(|p| p.tenure > 0 && p.admitted < done) {
            let range = TenureRange { tenure: state.tenure, first: state.admitted, next: done };
            state.admitted = done;
            push_undecided(state, range);
        }
    }

    fn admit(&mut self, mv: &Move) -> Result<(), FoldError> {
        let known = self.partitions.get(&mv.partition);
        let (admitted, tenure) = known.map_or((NO_OFFSET, 0), |p| (p.admitted, p.tenure));
        allowed(mv, admitted, tenure)?;
        let state = self.partitions.entry(mv.partition).or_default();
        state.admitted = mv.next;
        push_undecided(state, TenureRange { tenure: mv.tenure, first: mv.first, next: mv.next });
        Ok(())
    }

    fn open_tenure(&mut self, mv: &Move, acked_entries: &str) -> Result<(), FoldError> {
        let last = self.partitions.get(&mv.partition).map_or(0, |p| p.tenure);
        allowed(mv, mv.first, last)?;
        let state = self.partitions.entry(mv.partition).or_default();
        (state.tenure, state.tenure_start) = (mv.tenure, mv.first);
        (state.owned, state.admitted) = (true, mv.next);
        acked_entries.clone_into(&mut state.acked_entries);
        if mv.first < mv.next {
            // Adopted: the older undecided ranges of [first, next) go on under the new tenure.
            cut(&mut state.undecided, u32::MAX, mv.first, mv.next);
            let adopted = TenureRange { tenure: mv.tenure, first: mv.first, next: mv.next };
            state.undecided.push(adopted);
            confirm(state, state.acked);
        }
        Ok(())
    }

    fn note_gap(&mut self, entry: &Entry) {
        if let Entry::Gap { partition, first, next, reason, .. } = entry {
            let state = self.partitions.entry(*partition).or_default();
            let (first, next, reason) = (*first, *next, reason.clone());
            state.gaps.push(GapRange { first, next, reason });
            pass_gaps(state);
        }
    }

    /// Forgets what was only needed for retired segments.
    fn retire(&mut self, segment: u64, lsn: Lsn) {
        self.retired_below = self.retired_below.max(segment);
        self.kept_lsn = self.kept_lsn.max(lsn);
        for partition in self.partitions.values_mut() {
            partition.disowned.retain(|d| d.lsn >= lsn);
        }
    }

    /// True if some route still needs the records of `[first, next)` logged in `tenure` at an LSN below or at `lsn`.
    pub fn is_live(&self, partition: Partition, lsn: Lsn, range: &TenureRange) -> bool {
        let Some(state) = self.partitions.get(&partition) else {
            return true;
        };
        self.route_numbers().any(|route| {
            let done = state.delivery.get(&route).map_or(NO_OFFSET, Delivery::done_below);
            range.next > done && !is_disowned(state, lsn, range, done)
        })
    }

    /// What the default route has of a partition; [`NO_OFFSET`] if nothing.
    pub fn delivered(&self, partition: Partition) -> i64 {
        let known = self.partitions.get(&partition);
        let delivery = known.and_then(|p| p.delivery.get(&DEFAULT_ROUTE));
        delivery.map_or(NO_OFFSET, |d| d.delivered)
    }

    /// True if the block will never be delivered, or is delivered on the default route.
    pub fn is_settled(&self, lsn: Lsn, block: &BlockHeader) -> bool {
        let (tenure, first, next) = (block.tenure, block.first, block.next);
        self.is_range_settled(block.partition, lsn, &TenureRange { tenure, first, next })
    }

    /// [`State::is_settled`] of a block by its range.
    pub fn is_range_settled(&self, partition: Partition, lsn: Lsn, range: &TenureRange) -> bool {
        let Some(state) = self.partitions.get(&partition) else {
            return false;
        };
        let given_up = |d: &Disowned| lsn < d.lsn && d.covers(range.tenure, range.first);
        range.next <= state.delivered() || state.disowned.iter().any(given_up)
    }
}

/// Where all before a gap is delivered, so is the gap. Not before a commit beyond it is known to be applied: the next
/// owner could find the range again, and it could come back to this log.
fn pass_gaps(state: &mut PartitionState) {
    for gap in state.gaps.iter().filter(|gap| gap.is_final(state.acked)) {
        for delivery in state.delivery.values_mut().filter(|delivery| delivery.delivered == gap.first) {
            delivery.delivered = gap.next;
        }
    }
}

fn block_move(header: &BlockHeader) -> Move {
    Move { partition: header.partition, tenure: header.tenure, first: header.first, next: header.next, opens: false }
}

/// True if what is left of the range above `done` lies in ranges disowned after `lsn`.
fn is_disowned(state: &PartitionState, lsn: Lsn, range: &TenureRange, done: i64) -> bool {
    let first = range.first.max(done);
    let mut left = vec![TenureRange { first, ..*range }];
    for d in state.disowned.iter().filter(|d| lsn < d.lsn) {
        cut(&mut left, d.tenure, d.first, d.next);
    }
    left.is_empty()
}

/// Adds a range that was just admitted; what is acknowledged of it is decided already.
fn push_undecided(state: &mut PartitionState, range: TenureRange) {
    match state.undecided.last_mut() {
        Some(last) if last.tenure == range.tenure && last.next == range.first => last.next = range.next,
        _ if range.first < range.next => state.undecided.push(range),
        _ => {}
    }
    confirm(state, state.acked);
}

fn confirm(state: &mut PartitionState, next: i64) {
    state.acked = state.acked.max(next);
    let acked = state.acked;
    cut(&mut state.undecided, u32::MAX, NO_OFFSET, acked);
}

fn disown(state: &mut PartitionState, range: Disowned) {
    cut(&mut state.undecided, range.tenure, range.first, range.next);
    state.owned &= range.tenure < state.tenure;
    state.disowned.push(range);
}

fn give_back(state: &mut PartitionState, range: TenureRange) {
    if range.first < state.acked {
        state.acked = range.first;
        cut(&mut state.undecided, u32::MAX, range.first, range.next);
        state.undecided.insert(0, range);
    }
}

/// Takes `[first, next)` out of the ranges of `tenure` or older.
fn cut(ranges: &mut Vec<TenureRange>, tenure: u32, first: i64, next: i64) {
    if first >= next || !ranges.iter().any(|r| r.first < next && first < r.next) {
        return;
    }
    let mut left = Vec::with_capacity(ranges.len() + 1);
    for range in ranges.drain(..) {
        if range.tenure > tenure || range.next <= first || next <= range.first {
            left.push(range);
            continue;
        }
        if range.first < first {
            left.push(TenureRange { next: first, ..range });
        }
        if next < range.next {
            left.push(TenureRange { first: next, ..range });
        }
    }
    *ranges = left;
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
