//! Damage done to a log on purpose, behind the program's back, and what its repair files say.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Dice;
use super::process::forebay;

/// Bytes of a frame header, and of a repair file before the payload (`wal_format.md`).
const FRAME_HEADER: u64 = 96;
const REPAIR_HEAD: usize = 160;

/// A block of a log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Logged {
    /// Its partition.
    pub partition: i32,
    /// Its first offset.
    pub first: i64,
    /// One past its last offset.
    pub next: i64,
    /// Its segment.
    pub segment: u64,
    /// Position of its frame.
    pub position: u64,
    /// Its LSN.
    pub lsn: u64,
    /// Bytes of its payload.
    pub bytes: u64,
}

impl Logged {
    /// Its segment's file.
    pub fn path(&self, wal: &Path) -> PathBuf {
        wal.join(format!("{:020}.wal", self.segment))
    }

    /// Its payload as it is in the segment now.
    pub fn payload(&self, wal: &Path) -> Vec<u8> {
        let mut payload = vec![0; self.bytes as usize];
        let file = std::fs::File::open(self.path(wal)).unwrap();
        file.read_exact_at(&mut payload, self.position + FRAME_HEADER).unwrap();
        payload
    }

    /// Its payload in its repair file, if there is one.
    pub fn repaired(&self, wal: &Path) -> Option<Vec<u8>> {
        let name = format!("{:020}-{:020}.repair", self.segment, self.lsn);
        let bytes = std::fs::read(wal.join(name)).ok()?;
        Some(bytes[REPAIR_HEAD..REPAIR_HEAD + self.bytes as usize].to_vec())
    }

    /// `[first, next)`, as messages say it.
    pub fn range(&self) -> String {
        format!("[{}, {})", self.first, self.next)
    }

    /// Changes up to eight bytes somewhere in it, header included.
    pub fn harm(&self, wal: &Path, dice: &mut Dice) {
        let at = self.position + dice.range(0, FRAME_HEADER + self.bytes - 8);
        let file = std::fs::File::options().read(true).write(true).open(self.path(wal)).unwrap();
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        let changed = dice.range(1, 9) as usize;
        for byte in &mut bytes[..changed] {
            *byte ^= dice.range(1, 256) as u8;
        }
        file.write_all_at(&bytes, at).unwrap();
    }
}

/// The blocks of a log that lie in finished segments with an index, in the order of the log.
pub fn blocks(wal: &Path) -> Vec<Logged> {
    let dump = forebay(&["wal", "dump", &wal.display().to_string(), "--output", "jsonl"]);
    let rows: Vec<Value> = dump.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let number = |row: &Value, key: &str| row[key].as_u64().unwrap();
    let finished: BTreeSet<u64> =
        rows.iter().filter(|row| row["kind"] == "Footer").map(|row| number(row, "segment")).collect();
    let blocks = rows.iter().filter(|row| row["kind"] == "Block" && finished.contains(&number(row, "segment")));
    let block = |row: &Value| Logged {
        partition: row["partition"].as_i64().unwrap() as i32,
        first: row["first"].as_i64().unwrap(),
        next: row["next"].as_i64().unwrap(),
        segment: number(row, "segment"),
        position: number(row, "position"),
        lsn: number(row, "lsn"),
        bytes: payload_bytes(wal, number(row, "segment"), number(row, "position")),
    };
    blocks.map(block).collect()
}

/// The payload's length, from the frame's header.
fn payload_bytes(wal: &Path, segment: u64, position: u64) -> u64 {
    let mut length = [0; 4];
    let file = std::fs::File::open(wal.join(format!("{segment:020}.wal"))).unwrap();
    file.read_exact_at(&mut length, position + 8).unwrap();
    u64::from(u32::from_le_bytes(length))
}

/// The delivered offset of each partition. A pipe that nobody reads takes its first 64 KiB all the same.
pub fn delivered_to(wal: &Path, partitions: i32) -> Vec<i64> {
    let status = forebay(&["wal", "status", &wal.display().to_string(), "--output", "json"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let rows = status["partitions"].as_array().unwrap();
    let of = |partition: i32| rows.iter().find(|row| row["partition"] == partition);
    let delivered = |partition| of(partition).and_then(|row| row["delivered"].as_i64()).unwrap_or(0);
    (0..partitions).map(delivered).collect()
}

/// Those of [`blocks`] that are not delivered.
pub fn undelivered_blocks(wal: &Path, partitions: i32) -> Vec<Logged> {
    let delivered = delivered_to(wal, partitions);
    blocks(wal).into_iter().filter(|block| block.first >= delivered[block.partition as usize]).collect()
}

/// Picks `count` blocks at random.
pub fn pick(mut blocks: Vec<Logged>, count: usize, dice: &mut Dice) -> Vec<Logged> {
    assert!(blocks.len() >= count, "only {} blocks in finished segments", blocks.len());
    let mut picked: Vec<Logged> = (0..count)
        .map(|_| {
            let at = dice.range(0, blocks.len() as u64) as usize;
            blocks.swap_remove(at)
        })
        .collect();
    picked.sort();
    picked
}
