//! What the simulated volume holds: files, and per directory the names that programs see and those on the medium.
//!
//! Promises: pure state, cheap to copy; every choice comes from the [`Random`] passed in.

use super::inode::{Harm, Inode, Luck};
use super::pages::mix;
use super::random::Random;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A file: its number among the inodes.
    File(usize),
    Directory,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, Entry),
    Unlink(String),
    Rename(String, String, Entry),
}

/// One directory's names.
#[derive(Clone, Debug, Default)]
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
    inodes: Vec<Arc<Inode>>,
    directories: BTreeMap<PathBuf, Arc<Directory>>,
}

impl Image {
    pub fn new() -> Self {
        let directories = [PathBuf::from("/"), PathBuf::new()].map(|root| (root, Arc::default()));
        Self { inodes: Vec::new(), directories: directories.into() }
    }

    pub fn inode(&self, number: usize) -> &Inode {
        &self.inodes[number]
    }

    pub fn inode_mut(&mut self, number: usize) -> &mut Inode {
        Arc::make_mut(&mut self.inodes[number])
    }

    /// A new file without a name; its number.
    pub fn add_inode(&mut self) -> usize {
        self.inodes.push(Arc::default());
        self.inodes.len() - 1
    }

    pub fn directories(&self) -> impl Iterator<Item = (&PathBuf, &Directory)> {
        self.directories.iter().map(|(path, directory)| (path, directory.as_ref()))
    }

    pub fn directory(&self, path: &Path) -> Option<&Directory> {
        self.directories.get(path).map(Arc::as_ref)
    }

    pub fn directory_mut(&mut self, path: &Path) -> Option<&mut Directory> {
        self.directories.get_mut(path).map(Arc::make_mut)
    }

    pub fn add_directory(&mut self, path: &Path) {
        self.directories.insert(path.to_path_buf(), Arc::default());
    }

    pub fn remove_directory(&mut self, path: &Path) {
        self.directories.remove(path);
    }

    /// What a power cut leaves.
    pub fn after_power_cut(&self, random: &mut Random, harm: Harm) -> Self {
        let mut left = Self::new();
        // Parents sort before their children: a directory whose name is lost takes all below it along.
        for (path, directory) in &self.directories {
            let names = directory.after_power_cut(random);
            let reachable = path.parent().is_none_or(|parent| left.has_directory(parent, path));
            if reachable {
                let kept = Directory { names: names.clone(), durable: names, pending: Vec::new() };
                left.directories.insert(path.clone(), Arc::new(kept));
            }
        }
        left.inodes = vec![Arc::default(); self.inodes.len()];
        let names = left.directories.values().flat_map(|d| d.names.values());
        for entry in names {
            if let Entry::File(number) = entry {
                let inode = &self.inodes[*number];
                left.inodes[*number] =
                    if inode.is_settled() { Arc::clone(inode) } else { Arc::new(inode.after_power_cut(random, harm)) };
            }
        }
        left
    }

    /// Clean pages may leave the cache.
    pub fn evict(&mut self, random: &mut Random) {
        for inode in &mut self.inodes {
            if !inode.is_settled() {
                Arc::make_mut(inode).evict(random);
            }
        }
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

    /// A hash of all files and directories by path: their visible, durable and pending contents.
    pub fn hash(&self) -> u64 {
        let mut hash = 0;
        for (path, directory) in &self.directories {
            hash = mix_bytes(hash, path.as_os_str().as_encoded_bytes());
            for names in [&directory.names, &directory.durable] {
                hash = mix(hash, names.len() as u64);
                for (name, entry) in names {
                    hash = mix(mix_bytes(hash, name.as_bytes()), self.hash_of(*entry));
                }
            }
            for change in &directory.pending {
                hash = match change {
                    NameChange::Link(name, entry) => mix(mix_bytes(hash, name.as_bytes()), self.hash_of(*entry)),
                    NameChange::Unlink(name) => mix(mix_bytes(hash, name.as_bytes()), 1),
                    NameChange::Rename(from, to, _) => mix_bytes(mix_bytes(hash, from.as_bytes()), to.as_bytes()),
                };
            }
        }
        hash
    }

    fn hash_of(&self, entry: Entry) -> u64 {
        match entry {
            Entry::File(number) => self.inodes[number].hash(),
            Entry::Directory => 2,
        }
    }
}

fn mix_bytes(hash: u64, bytes: &[u8]) -> u64 {
    let number = |word: &[u8]| word.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    bytes.chunks(8).fold(mix(hash, bytes.len() as u64), |hash, word| mix(hash, number(word)))
}
