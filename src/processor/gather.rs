//! When is what was gathered given to the sink? A pure function.
//!
//! A sink's sync costs about the same for one block as for many, so blocks are gathered: as long as more comes, until the
//! batch is full or old. When nothing more is there it is delivered at once, but the sink is not kept busy with small
//! batches for more than a share of the time: a fast sink means short delays, a slow one large batches.

use std::time::Duration;

/// Between two small batches the sink rests as long as the last one took, so many times.
const REST: u32 = 1;

/// What the answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct Gathered {
    /// Bytes gathered.
    pub bytes: usize,
    /// Since the first block was gathered.
    pub age: Duration,
    /// Since the last delivery ended.
    pub rested: Duration,
    /// What the last delivery took, its receipts included.
    pub took: Duration,
}

/// The bounds of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes.
    pub bytes: usize,
    /// Age.
    pub age: Duration,
}

/// How long to wait for more; zero: deliver now. `more`: there is more to take at once.
pub fn wait(gathered: &Gathered, bounds: &Bounds, more: bool) -> Duration {
    let left = bounds.age.saturating_sub(gathered.age);
    if gathered.bytes >= bounds.bytes || left.is_zero() {
        return Duration::ZERO;
    }
    if more { left } else { left.min((gathered.took * REST).saturating_sub(gathered.rested)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case() {
        const MS: Duration = Duration::from_millis(1);
        let bounds = Bounds { bytes: 100, age: 50 * MS };
        for (bytes, age, rested, took, more, expected) in [
            (100, 0, 0, 9, true, 0),
            (99, 50, 0, 9, true, 0),
            (99, 20, 1000, 9, true, 30),
            (99, 20, 1000, 9, false, 0),
            (1, 0, 1000, 9, false, 0),
            (1, 0, 0, 9, false, 9),
            (1, 0, 8, 9, false, 1),
            (1, 45, 0, 9, false, 5),
        ] {
            let gathered = Gathered { bytes, age: age * MS, rested: rested * MS, took: took * MS };
            assert_eq!(wait(&gathered, &bounds, more), expected * MS, "{gathered:?} {more}");
        }
    }
}
