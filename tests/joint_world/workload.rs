//! What Kafka has, and what the lives do with it.

use crate::crash_world::steps::Random;
use crate::entries::recorded;
use crate::file_sink_world::{rendered, source};
use forebay::record::Block;
use forebay::sink::render::Format;
use std::time::Duration;

pub const PARTITIONS: i32 = 2;
/// The offset both partitions begin at.
pub const FIRST: i64 = 10;

/// One thing that a process does.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Takes so many records of the partition in one block, if there are so many.
    Take(i32, i64),
    /// Takes so many of both partitions, logged in one group.
    Both(i64, i64),
    /// Commits to Kafka what is durable, and hears that it was applied.
    Commit,
    /// The same, but the answer never comes: what it acknowledges stays in doubt.
    Unheard,
    /// So many blocks go to the sink.
    Deliver(usize),
    /// The sink finishes outputs by age.
    Tick,
    /// The sink finishes all outputs, as it does when they keep too many segments.
    Finish,
    /// The log goes on in the next segment.
    Roll,
    /// The frame after the last group.
    Idle,
    /// What the log does not need any more is retired.
    Retire,
    /// The copy of the dedupe table is renewed.
    Save,
    /// The disk is full to so many bytes. Room comes back when the sink has asked often enough.
    Full(u64),
}

/// Everything that stays the same in all lives of a machine.
#[derive(Clone, Debug)]
pub struct Setup {
    pub name: &'static str,
    pub format: Format,
    pub roll_bytes: u64,
    pub roll_age: Duration,
    /// Bytes that the feed keeps in memory; the rest is read back.
    pub feed_bytes: usize,
    /// Records of each partition.
    pub records: i64,
    /// What each life does but the last, which does all that is left.
    pub acts: Vec<Act>,
}

const HOUR: Duration = Duration::from_secs(3600);

/// Small enough to be stopped at every operation.
pub fn small() -> Vec<Setup> {
    use Act::{Both, Commit, Deliver, Finish, Idle, Retire, Roll, Save, Take, Tick, Unheard};
    let pages = vec![
        Both(3, 2),
        Commit,
        Deliver(2),
        Save,
        Roll,
        Take(0, 4),
        Commit,
        Deliver(9),
        Take(1, 2),
        Roll,
        Take(0, 1),
        Commit,
        Deliver(9),
    ];
    let files = vec![
        Take(0, 5),
        Both(2, 7),
        Commit,
        Deliver(2),
        Deliver(9),
        Tick,
        Both(4, 1),
        Commit,
        Roll,
        Deliver(9),
        Finish,
        Save,
        Retire,
        Idle,
        Take(1, 3),
    ];
    let doubt = vec![
        Both(2, 2),
        Unheard,
        Deliver(9),
        Take(0, 3),
        Roll,
        Commit,
        Take(1, 2),
        Deliver(2),
        Tick,
        Deliver(9),
        Tick,
        Save,
    ];
    let setup = |name, format, roll_bytes, roll_age, acts| Setup {
        name,
        format,
        roll_bytes,
        roll_age,
        feed_bytes: 3000,
        records: 24,
        acts,
    };
    vec![
        setup("pages", Format::Raw, 1 << 20, HOUR, pages),
        setup("files", Format::Raw, 6000, HOUR, files),
        setup("doubt", Format::Jsonl, 1 << 20, Duration::ZERO, doubt),
    ]
}

/// For long lives: `records` is large, what each life does comes from a seed.
pub fn long(seed: u64) -> Setup {
    let [mut pages, mut files, doubt] = <[Setup; 3]>::try_from(small()).unwrap();
    (pages.name, files.name) = ("long pages", "long files");
    let chosen = match seed % 4 {
        0 => pages,
        1 | 2 => files,
        _ => Setup { name: "long doubt", ..doubt },
    };
    Setup { records: 160, feed_bytes: [1, 3000, 1 << 20][(seed / 4 % 3) as usize], acts: Vec::new(), ..chosen }
}

pub fn random_acts(random: &mut Random) -> Vec<Act> {
    let count = 6 + random.below(16);
    let act = |_| match random.below(24) {
        0..4 => Act::Take(random.below(2) as i32, 1 + random.below(6) as i64),
        4..6 => Act::Both(1 + random.below(5) as i64, 1 + random.below(5) as i64),
        6..9 => Act::Commit,
        9 => Act::Unheard,
        10..15 => Act::Deliver(1 + random.below(5) as usize),
        15 => Act::Tick,
        16 => Act::Finish,
        17..20 => Act::Roll,
        20 => Act::Retire,
        21 => Act::Idle,
        22 => Act::Save,
        _ if random.below(4) == 0 => Act::Full(random.below(60_000)),
        _ => Act::Retire,
    };
    (0..count).map(act).collect()
}

/// Records of very different sizes, so that ends of files and blocks fall everywhere in their pages.
fn value(number: i32, offset: i64) -> Vec<u8> {
    let size = [30, 700, 150, 2600, 5, 1900, 1][(offset * 3 + i64::from(number)) as usize % 7];
    format!("{number}:{offset:06} {}", "x".repeat(size)).into_bytes()
}

/// These records of the partition, as Kafka gives them whenever they are asked for.
pub fn fetched(number: i32, tenure: u32, first: i64, next: i64) -> Block {
    recorded(source(number).partition, tenure, first..next, |offset| value(number, offset))
}

impl Setup {
    /// One past the last offset of each partition.
    pub fn end(&self) -> i64 {
        FIRST + self.records
    }

    /// What the files of the partition hold together when everything below `next` is delivered.
    pub fn output(&self, number: i32, next: i64) -> Vec<u8> {
        if next <= FIRST { Vec::new() } else { rendered(self.format, &[fetched(number, 1, FIRST, next)]) }
    }
}
