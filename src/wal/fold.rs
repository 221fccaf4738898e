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
mod tests {
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
}
