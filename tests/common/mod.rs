//! What the tests on a real Kafka share: one broker per test binary, producers whose records can be told apart, the
//! `forebay` binary as a child process, and a verifier that reads what it wrote.
//!
//! Everything is black box: nothing here calls into the library. Every wait has a condition and a limit, every child
//! process ends with the test, also when the test panics or is killed.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of the harness")]

pub mod broker;
pub mod chaos;
pub mod harm;
pub mod leash;
pub mod load;
pub mod process;
pub mod produce;
pub mod read;
pub mod topics;
pub mod verify;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use broker::{Cluster, Kafka, kafka};
pub use load::Load;
pub use process::{Forebay, Run};
pub use verify::{Format, Verdict, delivered};

/// Waits until `condition` gives a value; fails the test, naming `what`, after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "no {what} within {limit:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A directory of one test, removed when it passes and kept (and named) when it fails.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes an empty directory for the test `name`.
    pub fn new(name: &str) -> Self {
        let path = tempfile::Builder::new().prefix(&format!("forebay-{name}-")).tempdir().unwrap().keep();
        Self { path }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside the directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.path.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// A name no other test of this process uses: for topics and groups.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{number}", std::process::id())
}

/// A number from the environment, for tests that scale.
pub fn env_number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// Small pseudo random numbers (SplitMix64): the seed is printed by the tests that use them.
pub struct Dice(u64);

impl Dice {
    /// Starts from `FOREBAY_SEED`, or from the clock; prints the seed.
    pub fn new(what: &str) -> Self {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
        let seed = env_number("FOREBAY_SEED", u64::from(clock));
        eprintln!("{what}: FOREBAY_SEED={seed}");
        Self(seed)
    }

    /// A number in `[low, high)`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (z ^ (z >> 31)) % (high - low)
    }

    /// A time between `low` and `high` milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.range(low, high))
    }
}
