//! The load: writers that append what can't be compressed, each append waiting until it is durable.

use anyhow::Result;
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many writers append what.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub bytes: usize,
    pub writers: usize,
}

pub const SHAPES: [Shape; 3] = [
    Shape { name: "1MiB x 1", bytes: 1 << 20, writers: 1 },
    Shape { name: "64KiB x 4", bytes: 64 << 10, writers: 4 },
    Shape { name: "4KiB x 8", bytes: 4 << 10, writers: 8 },
];

/// A log under test.
pub trait Engine: Sync {
    /// Appends, and returns once it is durable.
    fn append(&self, writer: usize, payload: &Bytes) -> Result<()>;

    /// Bytes one call of writer 0 makes durable; the ceiling writes those of all writers at once.
    fn group(&self, shape: &Shape) -> u64 {
        shape.bytes as u64
    }

    /// Writers that call; the ceiling needs one.
    fn writers(&self, shape: &Shape) -> usize {
        shape.writers
    }

    /// Syncs so far, where the engine tells.
    fn syncs(&self) -> Option<u64> {
        None
    }

    /// Stops.
    fn close(self: Box<Self>) -> Result<()>;
}

/// What one run gave, or the medians of several.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Payload bytes made durable, 10⁶ a second.
    pub megabytes: f64,
    /// Microseconds an append takes, on average.
    pub micros: f64,
    /// CPU seconds of the whole process for 10⁹ bytes.
    pub cpu: f64,
    /// Appends that one sync makes durable; not a number where it is not known.
    pub group: f64,
}

impl Figure {
    pub fn median(figures: &[Self]) -> Self {
        let middle = |value: fn(&Self) -> f64| {
            let mut values: Vec<f64> = figures.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            let half = values.len() / 2;
            if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
        };
        Self {
            megabytes: middle(|f| f.megabytes),
            micros: middle(|f| f.micros),
            cpu: middle(|f| f.cpu),
            group: middle(|f| f.group),
        }
    }
}

/// Bytes that can't be compressed (xorshift).
pub fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect::<Vec<u8>>().into()
}

/// Runs the writers for so long. The first tenth does not count.
pub fn drive(engine: &dyn Engine, shape: &Shape, seconds: Duration) -> Result<Figure> {
    const POOL: u64 = 8;
    let (begin, counted, uncounted) = (Instant::now() + seconds / 10, AtomicU64::new(0), AtomicU64::new(0));
    let (end, group) = (begin + seconds, engine.group(shape));
    let (cpu_before, syncs_before) = (cpu(), engine.syncs());
    let last = std::thread::scope(|scope| {
        let (counted, uncounted) = (&counted, &uncounted);
        let write = |writer: usize| {
            move || -> Result<Instant> {
                let pool: Vec<Bytes> = (0..POOL).map(|i| noise(writer as u64 * POOL + i + 1, shape.bytes)).collect();
                let mut now = Instant::now();
                for payload in pool.iter().cycle() {
                    let is_counted = now >= begin;
                    engine.append(writer, payload)?;
                    let counter = if is_counted { counted } else { uncounted };
                    counter.fetch_add(group, Ordering::Relaxed);
                    now = Instant::now();
                    if now >= end {
                        break;
                    }
                }
                Ok(now)
            }
        };
        let writers: Vec<_> = (0..engine.writers(shape)).map(|writer| scope.spawn(write(writer))).collect();
        let ends = writers.into_iter().map(|writer| writer.join().expect("a writer does not panic"));
        ends.collect::<Result<Vec<Instant>>>().map(|ends| ends.into_iter().max().unwrap_or(end))
    })?;
    let bytes = counted.into_inner() as f64;
    let taken = (last - begin).as_secs_f64();
    let appends = bytes / shape.bytes as f64;
    let all = appends + uncounted.into_inner() as f64 / shape.bytes as f64;
    Ok(Figure {
        megabytes: bytes / taken / 1e6,
        micros: taken / appends * shape.writers as f64 * 1e6,
        cpu: (cpu() - cpu_before) / (all * shape.bytes as f64) * 1e9,
        group: engine.syncs().zip(syncs_before).map_or(f64::NAN, |(now, before)| all / (now - before) as f64),
    })
}

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
