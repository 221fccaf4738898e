//! Settings of the log and the numbers it starts from.

use super::error::WalError;
use super::format::PAGE;
use crate::config::Durability;
use crate::metrics::Metrics;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How many spares are kept ready: two for the next rolls, one for receipts on a full disk, one for recovery, which builds
/// in it what it replaces and thereby makes the space of another.
pub const SPARES: usize = 4;
/// A block rolls the log only if so many are ready.
pub const SPARES_FOR_BLOCKS: usize = 3;

/// Called after each sync. Must not block.
pub type OnDurable = Arc<dyn Fn() + Send + Sync>;

/// Settings of the log.
#[derive(Clone)]
pub struct Options {
    /// The directory; made if it is missing. Nothing else may be in it.
    pub dir: PathBuf,
    /// Size of a segment. Default 32 MiB, at least 64 KiB. Smaller: more files and syncs; larger: retired later, and more to
    /// prepare before the first block.
    pub segment_bytes: u64,
    /// A segment with a block in it is followed by the next one after this time. Default one hour.
    pub segment_age: Duration,
    /// Quota for all files of the log, spares included; at least eight segments. Default none: the disk is the limit.
    pub max_bytes: Option<u64>,
    /// A group that is synced together holds at most this many bytes, or one entry. Default 8 MiB.
    pub group_bytes: usize,
    /// Bytes of durable blocks kept in memory for the feed; beyond it they are read back. Default 32 MiB.
    pub feed_bytes: usize,
    /// An `Idle` frame follows the last group after this time. Default 100 ms.
    pub idle: Duration,
    /// At a start the newest segments are verified byte by byte, so many bytes of them; older ones are taken by their
    /// headers, states and footers, and verified as they are read. Default 1 GiB.
    pub verify_bytes: u64,
    /// When an entry counts as durable. Weaker than the default, acknowledged entries can be lost: see [`Durability`].
    pub durability: Durability,
    /// Where the log counts.
    pub metrics: Arc<Metrics>,
    /// Called after each sync by whoever did it. Must not wait for the log.
    pub on_durable: Option<OnDurable>,
    /// For simulations: makes salts and ids reproducible.
    pub seed: Option<u64>,
}

impl Options {
    /// Defaults for a directory.
    pub fn new(dir: impl Into<PathBuf>, metrics: Arc<Metrics>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 32 << 20,
            segment_age: Duration::from_secs(3600),
            max_bytes: None,
            group_bytes: 8 << 20,
            feed_bytes: 32 << 20,
            idle: Duration::from_millis(100),
            verify_bytes: 1 << 30,
            durability: Durability::Fsync,
            metrics,
            on_durable: None,
            seed: None,
        }
    }

    /// Checks the limits.
    pub fn check(&self) -> Result<(), WalError> {
        let least = 16 * PAGE;
        let wrong = |text: String| Err(WalError::Options(text));
        if self.segment_bytes < least || !self.segment_bytes.is_multiple_of(PAGE) {
            let size = self.segment_bytes;
            return wrong(format!("wal.segment_bytes is {size}; it must be a multiple of {PAGE} and at least {least}"));
        }
        let need = 8 * self.segment_bytes;
        match self.max_bytes {
            Some(max) if max < need => wrong(format!("wal.max_bytes is {max}; eight segments need {need}")),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("dir", &self.dir)
            .field("segment_bytes", &self.segment_bytes)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// Where salts and ids come from: the system, or a seed in simulations.
#[derive(Debug)]
pub struct Entropy {
    seed: Option<u64>,
}

impl Entropy {
    /// The system's, or one that follows from a seed.
    pub fn new(seed: Option<u64>) -> Self {
        Self { seed }
    }

    /// 64 bits.
    pub fn number(&mut self) -> Result<u64, WalError> {
        if let Some(seed) = &mut self.seed {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            return Ok(*seed ^ (*seed >> 29));
        }
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| WalError::Internal(format!("no random numbers: {error}")))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// 128 bits.
    pub fn id(&mut self) -> Result<u128, WalError> {
        Ok(u128::from(self.number()?) << 64 | u128::from(self.number()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with these sizes.
    fn wrong(segment_bytes: u64, max_bytes: Option<u64>) -> Option<String> {
        let options = Options::new("wal", Arc::new(Metrics::new()));
        let options = Options { segment_bytes, max_bytes, ..options };
        options.check().err().map(|error| error.to_string())
    }

    #[test]
    fn a_segment_is_whole_pages_and_at_least_sixteen_and_a_quota_holds_eight_segments() {
        let least = 64 << 10;
        for good in [least, least + PAGE] {
            assert_eq!(wrong(good, None), None);
            assert_eq!(wrong(good, Some(8 * good)), None);
        }
        for bad in [0, PAGE, least - PAGE, least + 512] {
            let must = "it must be a multiple of 4096 and at least 65536";
            assert_eq!(wrong(bad, None), Some(format!("wal.segment_bytes is {bad}; {must}")));
        }
        let text = wrong(least, Some(8 * least - 1));
        assert_eq!(text.as_deref(), Some("wal.max_bytes is 524287; eight segments need 524288"));
    }

    #[test]
    fn options_are_shown_with_their_directory_and_sizes() {
        let options = Options::new("some-log", Arc::new(Metrics::new()));
        let text = format!("{:?}", Options { max_bytes: Some(1 << 30), ..options });
        for part in ["some-log", "33554432", "1073741824"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
