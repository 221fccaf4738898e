//! A log of two partitions on the simulated disk.

use crate::entries::{block, plain};
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::{Partition, TopicId};
use forebay::wal::recovery::{Recovered, recover};
use forebay::wal::segment::wal_name;
use forebay::wal::{Entry, Options, PlanRange, WalError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub const DIR: &str = "/wal";
pub const P: Partition = Partition { topic: 1, number: 0 };
pub const Q: Partition = Partition { topic: 1, number: 1 };
pub const LONG: Duration = Duration::from_secs(20);

pub fn options(seed: u64) -> Options {
    let mut options = Options::new(DIR, Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    options.idle = Duration::from_millis(5);
    options.seed = Some(seed);
    options
}

pub fn start(sim: &Sim, seed: u64) -> Result<Recovered, WalError> {
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let log = recover(&storage, &options(seed))?;
    spares(&log);
    Ok(log)
}

pub fn spares(log: &Recovered) {
    while log.writer.rack().work(&mut || {}).unwrap() {}
}

pub fn owned(partition: Partition) -> Entry {
    Entry::Owned { partition, tenure: 1, first: 0, next: 0, acked_entries: "a:1".into() }
}

pub fn delivered(route: u16, partition: Partition, next: i64, keep_from: Option<i64>) -> Entry {
    Entry::Delivered { route, partition, first: 0, next, through_lsn: 3, keep_from, detail: vec![7; 9] }
}

pub fn path(number: u64) -> PathBuf {
    Path::new(DIR).join(wal_name(number))
}

/// Every kind of entry that leaves something in the state.
pub fn everything() -> Vec<Entry> {
    let gap =
        |first, reason: &str| Entry::Gap { partition: P, tenure: 1, first, next: first + 5, reason: reason.into() };
    let range = |from| PlanRange { topic: 1, partition: 1, from, until: from + 10 };
    let plan = |id, from| Entry::Plan { route: 0, id, time_ms: 5, ranges: vec![range(from)], blocks: Vec::new() };
    vec![
        Entry::Topic { number: 1, name: "orders".into(), id: TopicId([4; 16]) },
        Entry::Route { route: 0, name: "file".into() },
        owned(P),
        owned(Q),
        block(P, 0, 100),
        block(P, 1, 100),
        gap(2, "retention"),
        block(P, 7, 100),
        Entry::Empty { partition: P, tenure: 1, first: 8, next: 9 },
        Entry::Confirmed { partition: P, tenure: 1, next: 1 },
        plan(1, 0),
        plan(2, 10),
        Entry::PlanDropped { route: 0, id: 2 },
        Entry::Named { route: 0, partition: P, name: "orders/0/a.part".into() },
        delivered(0, P, 1, Some(0)),
        Entry::Disowned { partition: P, tenure: 1, first: 7, next: 9 },
        Entry::Owned { partition: P, tenure: 2, first: 7, next: 7, acked_entries: "b:2".into() },
        Entry::Block(plain(P, 2, 7, 50)),
        delivered(0, Q, 0, None),
    ]
}
