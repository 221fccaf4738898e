//! File systems of our own: small ones that fill up, and one that becomes read-only.

use super::driver::STOPPED;
use super::trace::{Call, Made};
use super::world::{Scratch, World};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// A mounted file system, unmounted at the end.
pub struct Mount {
    scratch: Scratch,
}

impl Mount {
    fn new(arguments: &[&str]) -> Result<Self, String> {
        let scratch = Scratch::new("mount");
        run(Command::new("mount").args(arguments).arg(scratch.path()))?;
        Ok(Self { scratch })
    }

    pub fn path(&self) -> &Path {
        self.scratch.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(self.path()));
    }
}

/// An ext4 file system in a file.
pub struct Ext4 {
    mount: Mount,
    image: Scratch,
}

impl Ext4 {
    pub fn path(&self) -> &Path {
        self.mount.path()
    }

    fn image(&self) -> PathBuf {
        self.image.path().join("disk")
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
}

/// Whether something can be mounted here.
pub fn allowed() -> Result<(), String> {
    tmpfs().map(drop)
}

pub fn ext4() -> Result<Ext4, String> {
    let image = Scratch::new("image");
    let path: PathBuf = image.path().join("disk");
    std::fs::File::create(&path).and_then(|file| file.set_len(32 << 20)).map_err(|error| error.to_string())?;
    run(Command::new("mkfs.ext4").arg("-q").arg(&path))?;
    let mount = Mount::new(&["-o", "loop,errors=remount-ro", path.to_str().unwrap_or_default()])?;
    Ok(Ext4 { mount, image })
}

/// Waits for a child; it is killed when it takes too long.
fn ended(mut child: std::process::Child) -> Option<i32> {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > until {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it neither goes on nor stops");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The log's whole life is longer than its disk: segments are retired and used again.
pub fn a_small_tmpfs_holds_a_long_life() {
    let disk = tmpfs().unwrap();
    let world = World::new("small");
    std::os::unix::fs::symlink(disk.path(), world.dir().join("wal")).unwrap();
    // What is left holds five segments.
    std::fs::write(disk.path().join("LOCK"), vec![1; (1 << 20) - 5 * (64 << 10) - 8192]).unwrap();
    assert_eq!(world.run(), Some(0), "{}", world.said());
    world.check_output();
}

/// Files find no space: the sink waits, and goes on by itself once there is some.
pub fn a_full_tmpfs_stops_it_and_space_lets_it_go_on() {
    let disk = tmpfs().unwrap();
    let world = World::new("full");
    std::os::unix::fs::symlink(disk.path(), world.dir().join("out")).unwrap();
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; (1 << 20) - (100 << 10)]).unwrap();
    let child = world.plain().spawn().unwrap();
    wait_for("all is committed or the log stands", || {
        super::driver::committed(world.dir()) > world.shape().records / 2
    });
    wait_for("the disk is full", || {
        let volume = rustix::fs::statvfs(disk.path()).unwrap();
        volume.f_bavail * volume.f_frsize < 16 << 10
    });
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(ended(child), Some(0), "{}", world.said());
    world.check_output();
}

/// Fills a disk but for so many bytes. How many it has left for a file it does not say to the byte.
fn fill(ballast: &Path, but: u64) {
    let mut file = std::fs::File::create(ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    file.sync_all().unwrap();
    file.set_len(file.metadata().unwrap().len() - but).unwrap();
    file.sync_all().unwrap();
}

/// The same under strace, with so many bytes free; how many writes were cut short where the disk ended. The rest of them
/// came later.
pub fn cut_by_a_full_disk(disk: &Path, bytes: u64) -> usize {
    let world = World::new("cut");
    let files = disk.join("out");
    std::fs::create_dir(&files).unwrap();
    std::os::unix::fs::symlink(&files, world.dir().join("out")).unwrap();
    let ballast = disk.join("ballast");
    fill(&ballast, bytes);
    let mut strace = world.under_strace(&[], &[]).spawn().unwrap();
    let full = world.wait_for_line(&mut strace, |line| line.contains(" ENOSPC "));
    assert!(full.is_some(), "no write found the disk full: {}", world.said());
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(ended(strace), Some(0), "{}", world.said());
    let trace = world.calls();
    let of_file = |made: &&Made| matches!(&made.call, Call::Write { path, .. } if path.ends_with(".part"));
    world.check_output();
    trace.calls.iter().filter(of_file).filter(|made| made.is_short()).count()
}

/// A file system in memory of a size of its own.
pub fn tmpfs() -> Result<Mount, String> {
    Mount::new(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
}

/// The disk becomes read-only in the middle, its journal aborted: the process stops, and loses nothing.
pub fn read_only_in_the_middle(disk: &Ext4) {
    let dir = disk.mount.path().join("life");
    std::fs::create_dir(&dir).unwrap();
    let world = World::in_dir(&dir);
    let child = world.plain().spawn().unwrap();
    wait_for("a third is committed", || super::driver::committed(&dir) > world.shape().records / 3);
    run(Command::new("mount").args(["-o", "remount,abort"]).arg(disk.mount.path())).unwrap();
    assert_eq!(ended(child), Some(STOPPED), "{}", world.said());
    run(Command::new("umount").arg(disk.mount.path())).unwrap();
    // What the journal did not get is gone now, as after a power cut.
    run(Command::new("mount").args(["-o", "loop"]).arg(disk.image()).arg(disk.mount.path())).unwrap();
    assert_eq!(world.run(), Some(0), "{}", world.said());
    world.check_output();
}
