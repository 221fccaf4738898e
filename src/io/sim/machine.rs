//! The simulated machine's system calls: what becomes of each operation, by plan and by chance.
//!
//! Promises: every changing operation is numbered and passes [`Machine::begin`]; a stopped machine changes nothing.

use super::image::{Directory, Entry, Image};
use super::pages::PAGE;
use super::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

pub(super) const EIO: i32 = 5;
pub(super) const ENOSPC: i32 = 28;

#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub image: Image,
    pub random: Random,
    pub operations: u64,
    pub crash_at: Option<u64>,
    pub down: bool,
    /// Planned errors: operation and errno.
    pub fail_at: BTreeMap<u64, i32>,
    pub capacity: Option<u64>,
    pub unreadable: BTreeMap<usize, Range<u64>>,
    pub locks: BTreeSet<PathBuf>,
    /// The disk at each moment it could have stopped, while that is watched.
    pub moments: Option<Vec<(u64, Image)>>,
}

/// How much of an operation takes place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// It fails with this errno, perhaps half done.
    Fails(i32),
    /// The machine stops in the middle; whether the operation still took place is open.
    Stops {
        happened: bool,
    },
}

impl Machine {
    pub fn new(image: Image, seed: u64, capacity: Option<u64>) -> Self {
        Self {
            image,
            random: Random(seed),
            operations: 0,
            crash_at: None,
            down: false,
            fail_at: BTreeMap::new(),
            capacity,
            unreadable: BTreeMap::new(),
            locks: BTreeSet::new(),
            moments: None,
        }
    }

    /// Counts one changing operation and says what becomes of it.
    fn begin(&mut self) -> Result<Fate, Error> {
        self.check_up()?;
        let number = self.operations;
        if let Some(moments) = &mut self.moments {
            moments.push((number, self.image.clone()));
        }
        self.operations += 1;
        if self.crash_at == Some(number) {
            self.down = true;
            return Ok(Fate::Stops { happened: self.random.below(2) == 0 });
        }
        Ok(self.fail_at.remove(&number).map_or(Fate::Done, Fate::Fails))
    }

    pub fn check_up(&self) -> Result<(), Error> {
        if self.down { Err(Error::other("the simulated machine is down")) } else { Ok(()) }
    }

    /// Runs an all-or-nothing operation.
    pub fn atomic(&mut self, act: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        match self.begin()? {
            Fate::Done => act(self),
            Fate::Fails(errno) => Err(Error::from_raw_os_error(errno)),
            Fate::Stops { happened } => {
                if happened {
                    act(self)?;
                }
                self.check_up()
            }
        }
    }

    pub fn entry(&self, path: &Path) -> Option<Entry> {
        let (dir, name) = split(path);
        self.image.directory(dir).and_then(|d| d.names.get(&name)).copied()
    }

    pub fn file(&self, path: &Path) -> Result<usize, Error> {
        match self.entry(path) {
            Some(Entry::File(number)) => Ok(number),
            Some(Entry::Directory) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub fn directory(&mut self, dir: &Path) -> Result<&mut Directory, Error> {
        self.image.directory_mut(dir).ok_or_else(|| ErrorKind::NotFound.into())
    }

    pub fn create(&mut self, path: &Path) -> Result<(), Error> {
        if self.entry(path).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let (dir, name) = split(path);
        self.directory(dir)?;
        let number = self.image.add_inode();
        self.directory(dir)?.link(name, Entry::File(number));
        Ok(())
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        let ((dir, old), (other, new)) = (split(from), split(to));
        if dir != other {
            return Err(ErrorKind::Unsupported.into());
        }
        let number = self.file(from)?;
        self.directory(dir)?.rename(old, new, Entry::File(number));
        Ok(())
    }

    pub fn sync_dir(&mut self, dir: &Path) -> Result<(), Error> {
        let fate = self.begin()?;
        let mut random = self.random.clone();
        let directory = self.directory(dir)?;
        match fate {
            Fate::Done | Fate::Stops { happened: true } => directory.sync(),
            Fate::Fails(_) => directory.sync_and_fail(&mut random),
            Fate::Stops { happened: false } => {}
        }
        self.random.next();
        if let Fate::Fails(errno) = fate { Err(Error::from_raw_os_error(errno)) } else { self.check_up() }
    }

    pub fn write(&mut self, number: usize, position: u64, bytes: &[u8]) -> Result<(), Error> {
        let fate = self.begin()?;
        let old = self.image.inode(number).cache.len() as u64;
        let growth = (position + bytes.len() as u64).saturating_sub(old);
        let missing = growth.saturating_sub(self.free());
        let fits = bytes.len() - (missing as usize).min(bytes.len());
        let part = self.part_of(fits);
        let written = if fate == Fate::Done { fits } else { part };
        if let Some(moments) = &mut self.moments {
            let mut image = self.image.clone();
            image.inode_mut(number).write(position as usize, &bytes[..part]);
            moments.push((self.operations - 1, image));
        }
        if written > 0 {
            self.image.inode_mut(number).write(position as usize, &bytes[..written]);
        }
        self.check_up()?;
        match fate {
            Fate::Fails(errno) => Err(Error::from_raw_os_error(errno)),
            _ if fits < bytes.len() => Err(ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// How much of a write is done when it is done in part: any number of bytes, or as often whole pages, as disks do.
    fn part_of(&mut self, bytes: usize) -> usize {
        match self.random.below(2) {
            0 => self.random.below(bytes + 1),
            _ => (self.random.below(bytes.div_ceil(PAGE) + 1) * PAGE).min(bytes),
        }
    }

    pub fn sync(&mut self, number: usize) -> Result<(), Error> {
        let fate = self.begin()?;
        let inode = self.image.inode_mut(number);
        match fate {
            Fate::Done | Fate::Stops { happened: true } => inode.sync(),
            Fate::Fails(_) => inode.sync_and_fail(&mut self.random),
            Fate::Stops { happened: false } => {}
        }
        if let Fate::Fails(errno) = fate { Err(Error::from_raw_os_error(errno)) } else { self.check_up() }
    }

    pub fn read(&self, number: usize, position: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        self.check_up()?;
        let inode = self.image.inode(number);
        let start = (position as usize).min(inode.cache.len());
        let end = (start + buffer.len()).min(inode.cache.len());
        let is_planned = self.unreadable.get(&number).is_some_and(|r| r.start < end as u64 && position < r.end);
        if is_planned || !inode.can_read(start, end) {
            return Err(Error::from_raw_os_error(EIO));
        }
        Ok(inode.cache.read(start, buffer))
    }

    pub fn free(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.image.used()))
    }
}

/// The directory and the name of a path.
pub(super) fn split(path: &Path) -> (&Path, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    (path.parent().unwrap_or(path), name)
}
