//! One file of the simulated machine: what programs see, what the medium has, and what is on its way between them.
//!
//! Promises: pure state; every choice comes from the [`Random`] passed in. A write dirties whole 4 KiB pages, as page
//! caches do, and each of their 512-byte sectors meets its own fate: the old bytes, any version written since the last
//! sync, or garbage. Lengths meet theirs apart from the bytes.

use super::pages::{Contents, PAGE, SECTOR, Shared, bytes_of, hash_of, mix, shared};
use super::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, OnceLock};

/// Garbage comes in so many kinds, zeros and ones among them: more would count as other states, but find nothing else.
const GARBAGE: usize = 8;

static GARBLED: LazyLock<Vec<[u8; SECTOR]>> = LazyLock::new(|| {
    let kind = |seed: usize| {
        let mut random = Random(seed as u64);
        match seed {
            0 => [0; SECTOR],
            1 => [0xff; SECTOR],
            _ => std::array::from_fn(|_| random.next() as u8),
        }
    };
    (0..GARBAGE).map(kind).collect()
});

/// How likely one crash keeps a pending change; drawn per file and directory, so that "all", "none" and "all but one"
/// come up as often as any mixture.
#[derive(Clone, Copy)]
pub(super) struct Luck {
    keep: usize,
    garbage: bool,
}

impl Luck {
    pub fn draw(random: &mut Random) -> Self {
        Self { keep: [0, 1, 8, 15, 16][random.below(5)], garbage: random.below(3) == 0 }
    }

    pub fn keeps(self, random: &mut Random) -> bool {
        random.below(16) < self.keep
    }
}

/// What a power cut may do to a sector on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// Old or new, nothing else: a failed sync.
    None,
    /// Old, new or garbage.
    Garbage,
    /// Old, new, garbage, or not readable any more until it is written again.
    Unreadable,
}

/// One file.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    /// What a reader sees.
    pub cache: Contents,
    durable: Contents,
    /// Per page written since its last sync: every version it had, oldest first.
    pending: BTreeMap<usize, Vec<Shared>>,
    /// Every length it had since the last sync, oldest first.
    lengths: Vec<usize>,
    /// Pages that can't be read until they are written.
    unreadable: BTreeSet<usize>,
    hash: OnceLock<u64>,
}

/// What becomes of one sector.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sector {
    Old,
    Version(usize),
    Garbage(usize),
}

impl Inode {
    fn dirty(&mut self, from: usize, to: usize) {
        self.hash = OnceLock::new();
        for page in from / PAGE..to.div_ceil(PAGE) {
            self.pending.entry(page).or_default().push(self.cache.page(page));
            self.unreadable.remove(&page);
        }
    }

    pub fn write(&mut self, position: usize, bytes: &[u8]) {
        let end = position + bytes.len();
        if self.cache.len() < end {
            self.lengths.push(end);
        }
        self.cache.write(position, bytes);
        self.dirty(position, end);
    }

    pub fn set_len(&mut self, len: usize) {
        let old = self.cache.len();
        self.cache.set_len(len);
        self.lengths.push(len);
        self.hash = OnceLock::new();
        if len < old {
            self.dirty(len, old);
        }
    }

    /// Fails if one of the pages can't be read.
    pub fn can_read(&self, from: usize, to: usize) -> bool {
        self.unreadable.is_empty() || self.unreadable.range(from / PAGE..to.div_ceil(PAGE)).next().is_none()
    }

    /// Makes everything durable.
    pub fn sync(&mut self) {
        if self.pending.is_empty() && self.lengths.is_empty() {
            return;
        }
        self.hash = OnceLock::new();
        let mut len = self.durable.len();
        for page in std::mem::take(&mut self.pending).into_keys() {
            self.durable.put(page, self.cache.page(page));
            len = len.max((page + 1) * PAGE);
        }
        if self.lengths.drain(..).next().is_some() {
            len = self.cache.len();
        }
        self.durable.set_len(len.min(self.cache.len()));
    }

    /// A failed sync: each sector was written or is lost, and all of them count as clean from now on.
    pub fn sync_and_fail(&mut self, random: &mut Random) {
        self.durable = self.power_cut(random, Harm::None).0;
        self.hash = OnceLock::new();
        self.pending.clear();
        self.lengths.clear();
    }

    /// True if a power cut changes nothing.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.lengths.is_empty() && self.cache.is_same(&self.durable)
    }

    /// The file as a power cut leaves it.
    pub fn after_power_cut(&self, random: &mut Random, harm: Harm) -> Self {
        let (contents, unreadable) = self.power_cut(random, harm);
        Self { cache: contents.clone(), durable: contents, unreadable, ..Self::default() }
    }

    /// What the medium holds after a power cut, and which pages of it can't be read.
    fn power_cut(&self, random: &mut Random, harm: Harm) -> (Contents, BTreeSet<usize>) {
        let (mut left, mut unreadable) = (self.durable.clone(), self.unreadable.clone());
        let mut length = left.len();
        let luck = Luck::draw(random);
        for (&page, versions) in &self.pending {
            let fates: [Sector; PAGE / SECTOR] =
                std::array::from_fn(|_| fate(luck, versions.len(), harm != Harm::None, random));
            if harm == Harm::Unreadable && luck.garbage && random.below(16) == 0 {
                unreadable.insert(page);
            }
            let old = left.page(page);
            left.put(page, composed(&old, versions, fates));
        }
        if !self.lengths.is_empty() && luck.keeps(random) {
            let latest = random.below(4) > 0;
            let kept = if latest { self.lengths.len() - 1 } else { random.below(self.lengths.len()) };
            length = self.lengths[kept];
        }
        left.set_len(length);
        unreadable.retain(|page| page * PAGE < length);
        (left, unreadable)
    }

    /// Clean pages may leave the cache at any time: after a failed sync, readers then see what the medium has.
    pub fn evict(&mut self, random: &mut Random) {
        let luck = Luck::draw(random);
        let clean = self.cache.differing(&self.durable);
        for page in clean.into_iter().filter(|page| !self.pending.contains_key(page)) {
            if !luck.keeps(random) && page * PAGE < self.cache.len() {
                self.hash = OnceLock::new();
                self.cache.put(page, self.durable.page(page));
            }
        }
    }

    /// A hash of what is visible, durable and pending.
    pub fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| {
            let mut hash = mix(self.cache.hash(), self.durable.hash());
            for (page, versions) in &self.pending {
                hash = mix(hash, *page as u64);
                hash = versions.iter().fold(hash, |hash, version| mix(hash, hash_of(version)));
            }
            let numbers = self.lengths.iter().chain(&self.unreadable);
            numbers.fold(hash, |hash, number| mix(hash, *number as u64))
        })
    }
}

fn fate(luck: Luck, versions: usize, may_garble: bool, random: &mut Random) -> Sector {
    if may_garble && luck.garbage && random.below(8) == 0 {
        Sector::Garbage(random.below(GARBAGE))
    } else if luck.keeps(random) {
        let latest = random.below(4) > 0;
        Sector::Version(if latest { versions - 1 } else { random.below(versions) })
    } else {
        Sector::Old
    }
}

fn composed(old: &Shared, versions: &[Shared], fates: [Sector; PAGE / SECTOR]) -> Shared {
    match fates[0] {
        Sector::Old if fates == [Sector::Old; PAGE / SECTOR] => return old.clone(),
        Sector::Version(n) if fates == [Sector::Version(n); PAGE / SECTOR] => return versions[n].clone(),
        _ => {}
    }
    let mut bytes = *bytes_of(old);
    for (sector, fate) in fates.into_iter().enumerate() {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        match fate {
            Sector::Old => {}
            Sector::Version(n) => bytes[range.clone()].copy_from_slice(&bytes_of(&versions[n])[range]),
            Sector::Garbage(n) => bytes[range].copy_from_slice(&GARBLED[n]),
        }
    }
    shared(&bytes)
}
