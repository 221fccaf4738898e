//! What can happen to a log, as single steps that the rules allow in any state.

use super::entries::{P, Q, block, blocks, delivered, owned};
use super::life::{End, Life};
use forebay::record::Partition;
use forebay::wal::Entry;
use std::sync::Arc;

/// A deterministic generator (`SplitMix64`).
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 8) % bound
    }
}

/// A payload that makes a frame exactly one page.
const PAGE_LONG: usize = 4000;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One small block.
    Small,
    /// A block whose frame is exactly a page.
    Page,
    /// Blocks of two partitions and a confirmed commit in one group.
    Two,
    /// A block that crosses a page, and another.
    Cross,
    /// Two blocks of half a segment: the segment ends in the middle of the group.
    Fill,
    /// A block larger than a segment: the segment grows.
    Huge,
    /// The next segment.
    Roll,
    /// A receipt for a part of what is logged.
    Receipt,
    /// Receipts for everything; what they retire is recycled.
    Retire,
    /// The frame after the last group.
    Idle,
    /// Everything not delivered is given up, the partition is owned again.
    Tenure,
    /// A clean stop and start.
    Restart,
    /// The process is killed and started again.
    Kill,
    /// A power cut.
    PowerCut,
    /// The disk is full to a few bytes, or no longer.
    Full,
    /// A write fails half done.
    FailWrite,
    /// A write is refused half done for want of space; then something shorter is appended.
    Refused,
    /// A sync fails: some of it is lost, the rest counts as clean.
    FailSync,
    /// One of the operations of a roll fails.
    FailRoll,
}

impl Step {
    pub const ALL: [Self; 18] = [
        Self::Small,
        Self::Cross,
        Self::Roll,
        Self::Retire,
        Self::Kill,
        Self::PowerCut,
        Self::FailSync,
        Self::Idle,
        Self::Two,
        Self::Fill,
        Self::Receipt,
        Self::Restart,
        Self::Full,
        Self::FailWrite,
        Self::FailRoll,
        Self::Tenure,
        Self::Huge,
        Self::Refused,
    ];

    /// Takes the step; a process that ends because of it is started again. `random` decides what is left open.
    pub fn take(self, life: &mut Life, random: &mut Random) -> Result<(), End> {
        match self.attempt(life, random) {
            Err(End::Process(_)) => {
                life.ended += 1;
                restart(life, random)
            }
            other => {
                life.survived += u64::from(matches!(self, Self::FailWrite | Self::FailSync));
                other
            }
        }
    }

    fn attempt(self, life: &mut Life, random: &mut Random) -> Result<(), End> {
        match self {
            Self::Small => append(life, &[(P, 40)]),
            Self::Two => {
                let known = |life: &mut Life| life.writer().state().partitions.get(&P).map_or(0, |p| p.admitted);
                open_partitions(life)?;
                let mut entries = new_blocks(life, &[(P, 700), (Q, 10)]);
                entries.push(Entry::Confirmed { partition: P, tenure: tenure(life, P), next: known(life) });
                life.append(&entries).map(|_| ())
            }
            Self::Cross => append(life, &[(P, 5000), (Q, 300)]),
            Self::Fill => append(life, &[(Q, 25_000), (P, 25_000)]),
            Self::Page => append(life, &[(P, PAGE_LONG)]),
            Self::Huge => append(life, &[(P, 66_000)]),
            Self::Roll => life.roll(),
            Self::Receipt => {
                let entries = receipts(life, random.below(3));
                life.append(&entries).map(|_| ())
            }
            Self::Retire => {
                let entries = receipts(life, 0);
                life.append(&entries)?;
                life.retire()
            }
            Self::Idle if life.writer().needs_idle() => life.append(&[Entry::Idle]).map(|_| ()),
            Self::Idle => Ok(()),
            Self::Tenure => next_tenure(life),
            Self::Restart => {
                life.close()?;
                start(life)
            }
            Self::Kill => {
                life.goes_on(life.sim.kill());
                start(life)
            }
            Self::PowerCut => {
                life.goes_on(life.sim.crash(random.below(1 << 32)));
                start(life)
            }
            Self::Full => fill_disk(life, random),
            Self::FailWrite => fails(life, 0, &[(P, 5000), (Q, 6000)]),
            Self::Refused => refused(life),
            Self::FailSync => fails(life, 1, &[(P, 40), (Q, 4000)]),
            Self::FailRoll => {
                life.sim.fail_at(life.sim.operations() + random.below(6));
                life.roll()
            }
        }
    }
}

/// Starts the log and prepares its spares.
pub fn start(life: &mut Life) -> Result<(), End> {
    life.open()?;
    life.spares()
}

/// The process has ended by itself: a kill, what a failed sync left, or a power cut.
fn restart(life: &mut Life, random: &mut Random) -> Result<(), End> {
    let seed = random.below(1 << 32);
    let next = match random.below(3) {
        0 => life.sim.kill(),
        1 => life.sim.kill_and_evict(seed),
        _ => life.sim.crash(seed),
    };
    life.goes_on(next);
    match start(life) {
        Err(End::Process(_)) if life.sim.is_limited() => {
            // A full disk may keep the log from opening; with room it opens.
            life.sim.set_capacity(None);
            start(life)
        }
        other => other,
    }
}

fn tenure(life: &mut Life, partition: Partition) -> u32 {
    life.writer().state().partitions.get(&partition).map_or(0, |known| known.tenure)
}

/// Both partitions are owned from their first block on.
fn open_partitions(life: &mut Life) -> Result<(), End> {
    if tenure(life, P) == 0 {
        life.append(&[owned(P, 1, 0), owned(Q, 1, 50)])?;
    }
    Ok(())
}

fn new_blocks(life: &mut Life, sizes: &[(Partition, usize)]) -> Vec<Entry> {
    life.attempts += 1;
    let attempt = life.attempts;
    let state = life.writer().state();
    let of = |(partition, bytes): &(Partition, usize)| {
        let known = state.partitions.get(partition)?;
        Some(block(*partition, known.tenure, known.admitted, *bytes, attempt))
    };
    sizes.iter().filter_map(of).collect()
}

fn append(life: &mut Life, sizes: &[(Partition, usize)]) -> Result<(), End> {
    open_partitions(life)?;
    let entries = new_blocks(life, sizes);
    life.append(&entries).map(|_| ())
}

/// The operation that comes `later` in an append fails. The log may say so, or go on in another segment.
fn fails(life: &mut Life, later: u64, sizes: &[(Partition, usize)]) -> Result<(), End> {
    open_partitions(life)?;
    let entries = new_blocks(life, sizes);
    life.sim.fail_at(life.sim.operations() + later);
    life.append(&entries).map(|_| ())
}

/// The frames of the group that is refused end on pages, as those of the next group do.
fn refused(life: &mut Life) -> Result<(), End> {
    open_partitions(life)?;
    let entries = new_blocks(life, &[(Q, PAGE_LONG)]);
    let entries: Vec<Entry> = entries.into_iter().chain(new_blocks(life, &[(P, PAGE_LONG)])).collect();
    life.sim.refuse_at(life.sim.operations());
    life.append(&entries)?;
    append(life, &[(P, 40)])
}

/// A receipt for each partition, up to the last block but `skip`.
fn receipts(life: &mut Life, skip: u64) -> Vec<Entry> {
    let durable = Arc::clone(&life.expected.durable);
    let state = life.writer().state();
    let mut entries = Vec::new();
    for partition in [P, Q] {
        let Some(known) = state.partitions.get(&partition) else { continue };
        let headers = blocks(&durable).map(|(_, b)| b.header).rev();
        let mut ends = headers.filter(|h| h.partition == partition && h.tenure == known.tenure).map(|h| h.next);
        let next = ends.nth(skip as usize);
        if let Some(next) = next.filter(|next| *next <= known.admitted && *next > known.delivered()) {
            entries.push(delivered(partition, next, state.lsn));
        }
    }
    entries
}

fn next_tenure(life: &mut Life) -> Result<(), End> {
    open_partitions(life)?;
    let known = life.writer().state().partitions.get(&P).cloned().unwrap_or_default();
    let (from, next, tenure) = (known.acked.max(known.delivered()).max(0), known.admitted, known.tenure);
    let given_up = Entry::Disowned { partition: P, tenure, first: from, next };
    life.append(&[given_up, owned(P, tenure + 1, from)]).map(|_| ())
}

fn fill_disk(life: &mut Life, random: &mut Random) -> Result<(), End> {
    if life.sim.is_limited() {
        life.sim.set_capacity(None);
        return life.spares();
    }
    let used = life.sim.used();
    life.sim.set_capacity(Some(used + random.below(3) * 2500));
    append(life, &[(Q, 30_000), (P, 3000)])
}
