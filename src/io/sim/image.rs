//! What the simulated machine holds: for every file and directory what programs see (the cache), what the medium has
//! (durable) and what is on its way between them.
//!
//! Promises: pure state; every choice comes from the [`Random`] passed in. A write dirties whole 4 KiB pages, as page
//! caches do, and each of their 512-byte sectors meets its own fate.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// A small deterministic generator (`SplitMix64`).
#[derive(Clone, Debug, Hash)]
pub(super) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// How likely one crash keeps a pending change; drawn per file and directory, so that "all", "none" and "all but one"
/// come up as often as any mixture.
#[derive(Clone, Copy)]
struct Luck {
    keep: usize,
    garbage: bool,
}

impl Luck {
    fn draw(random: &mut Random) -> Self {
        Self { keep: [0, 1, 8, 15, 16][random.below(5)], garbage: random.below(3) == 0 }
    }

    fn keeps(self, random: &mut Random) -> bool {
        random.below(16) < self.keep
    }
}

/// One file's contents.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Inode {
    /// What a reader sees.
    pub cache: Vec<u8>,
    durable: Vec<u8>,
    /// Per sector written since its last sync: every version it had, oldest first.
    pending: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Every length it had since the last sync, oldest first.
    lengths: Vec<usize>,
}

fn sector_of(bytes: &[u8], sector: usize) -> Vec<u8> {
    let start = (sector * SECTOR).min(bytes.len());
    let end = (start + SECTOR).min(bytes.len());
    let mut content = bytes[start..end].to_vec();
    content.resize(SECTOR, 0);
    content
}

fn put_sector(bytes: &mut Vec<u8>, sector: usize, content: &[u8]) {
    let end = (sector + 1) * SECTOR;
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[end - SECTOR..end].copy_from_slice(content);
}

impl Inode {
    fn dirty(&mut self, from: usize, to: usize) {
        let first = from / PAGE * PAGE / SECTOR;
        let last = to.div_ceil(PAGE) * PAGE / SECTOR;
        for sector in first..last.min(self.cache.len().max(to).div_ceil(SECTOR)) {
            self.pending.entry(sector).or_default().push(sector_of(&self.cache, sector));
        }
    }

    pub fn write(&mut self, position: usize, bytes: &[u8]) {
        let end = position + bytes.len();
        if self.cache.len() < end {
            self.cache.resize(end, 0);
            self.lengths.push(end);
        }
        self.cache[position..end].copy_from_slice(bytes);
        self.dirty(position, end);
    }

    pub fn set_len(&mut self, len: usize) {
        let old = self.cache.len();
        self.cache.resize(len, 0);
        self.lengths.push(len);
        if len < old {
            self.dirty(len, old);
        }
    }

    /// Makes everything durable.
    pub fn sync(&mut self) {
        for sector in std::mem::take(&mut self.pending).into_keys() {
            put_sector(&mut self.durable, sector, &sector_of(&self.cache, sector));
        }
        if self.lengths.drain(..).next().is_some() {
            self.durable.resize(self.cache.len(), 0);
        }
        self.durable.truncate(self.cache.len());
    }

    /// A failed sync: each sector was written or is lost, and all of them count as clean from now on.
    pub fn sync_and_fail(&mut self, random: &mut Random) {
        self.durable = self.after_power_cut(random, false);
        self.pending.clear();
        self.lengths.clear();
    }

    /// What the medium holds after a power cut.
    fn after_power_cut(&self, random: &mut Random, may_garble: bool) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let mut length = bytes.len();
        let luck = Luck::draw(random);
        for (&sector, versions) in &self.pending {
            if may_garble && luck.garbage && random.below(8) == 0 {
                let garbage: Vec<u8> = (0..SECTOR).map(|_| random.next() as u8).collect();
                put_sector(&mut bytes, sector, &garbage);
            } else if luck.keeps(random) {
                let latest = random.below(4) > 0;
                let version = if latest { versions.len() - 1 } else { random.below(versions.len()) };
                put_sector(&mut bytes, sector, &versions[version]);
            }
        }
        if !self.lengths.is_empty() && luck.keeps(random) {
            let latest = random.below(4) > 0;
            let kept = if latest { self.lengths.len() - 1 } else { random.below(self.lengths.len()) };
            length = self.lengths[kept];
        }
        bytes.resize(length, 0);
        bytes
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    /// A file: its number among the inodes.
    File(usize),
    Directory,
}

#[derive(Clone, Debug, Hash)]
enum NameChange {
    Link(String, Entry),
    Unlink(String),
    Rename(String, String, Entry),
}

/// One directory's names.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Directory {
    /// What programs see.
    pub names: BTreeMap<String, Entry>,
    durable: BTreeMap<String, Entry>,
    pending: Vec<NameChange>,
}

fn apply(names: &mut BTreeMap<String, Entry>, change: &NameChange) {
    match change {
        NameChange::Link(name, entry) => drop(names.insert(name.clone(), *entry)),
        NameChange::Unlink(name) => drop(names.remove(name)),
        NameChange::Rename(from, to, entry) => {
            names.remove(from);
            names.insert(to.clone(), *entry);
        }
    }
}

impl Directory {
    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.pending.push(change);
    }

    pub fn link(&mut self, name: String, entry: Entry) {
        self.change(NameChange::Link(name, entry));
    }

    pub fn unlink(&mut self, name: String) {
        self.change(NameChange::Unlink(name));
    }

    pub fn rename(&mut self, from: String, to: String, entry: Entry) {
        self.change(NameChange::Rename(from, to, entry));
    }

    pub fn sync(&mut self) {
        // Only what is pending: names a failed sync lost stay lost.
        for change in std::mem::take(&mut self.pending) {
            apply(&mut self.durable, &change);
        }
    }

    pub fn sync_and_fail(&mut self, random: &mut Random) {
        self.durable = self.after_power_cut(random);
        self.pending.clear();
    }

    /// Half the time as an ordered journal would (a prefix of the changes), otherwise any subset.
    fn after_power_cut(&self, random: &mut Random) -> BTreeMap<String, Entry> {
        let mut names = self.durable.clone();
        if random.below(2) == 0 {
            let kept = random.below(self.pending.len() + 1);
            self.pending[..kept].iter().for_each(|change| apply(&mut names, change));
        } else {
            let luck = Luck::draw(random);
            let kept = self.pending.iter().filter(|_| luck.keeps(random));
            kept.for_each(|change| apply(&mut names, change));
        }
        names
    }
}

/// Everything on the simulated volume.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub inodes: Vec<Inode>,
    pub directories: BTreeMap<PathBuf, Directory>,
}

impl Image {
    pub fn new() -> Self {
        let directories = [PathBuf::from("/"), PathBuf::new()].map(|root| (root, Directory::default()));
        Self { inodes: Vec::new(), directories: directories.into() }
    }

    /// What a power cut leaves.
    pub fn after_power_cut(&self, random: &mut Random) -> Self {
        let mut left = Self::new();
        for inode in &self.inodes {
            let bytes = inode.after_power_cut(random, true);
            left.inodes.push(Inode { cache: bytes.clone(), durable: bytes, ..Inode::default() });
        }
        // Parents sort before their children: a directory whose name is lost takes all below it along.
        for (path, directory) in &self.directories {
            let names = directory.after_power_cut(random);
            let reachable = path.parent().is_none_or(|parent| left.has_directory(parent, path));
            if reachable {
                let kept = Directory { names: names.clone(), durable: names, pending: Vec::new() };
                left.directories.insert(path.clone(), kept);
            }
        }
        left
    }

    fn has_directory(&self, parent: &Path, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let entry = self.directories.get(parent).and_then(|d| d.names.get(name.as_ref()));
        entry == Some(&Entry::Directory)
    }

    /// Bytes in all files that still have a name.
    pub fn used(&self) -> u64 {
        let names = self.directories.values().flat_map(|d| d.names.values());
        names.map(|entry| if let Entry::File(n) = entry { self.inodes[*n].cache.len() as u64 } else { 0 }).sum()
    }

    /// Files and directories with their visible, durable and pending contents, by path.
    pub fn hash_into(&self, hasher: &mut impl Hasher) {
        for (path, directory) in &self.directories {
            (path, directory.names.keys().collect::<Vec<_>>(), directory.pending.len()).hash(hasher);
            for entry in directory.names.values().chain(directory.durable.values()) {
                if let Entry::File(number) = entry {
                    self.inodes[*number].hash(hasher);
                }
            }
        }
    }
}
