//! What a log that can't go on still holds: its directory, until nobody has a handle of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/entries.rs"]
mod entries;

use entries::{block, delivered, owned, wait_until};
use forebay::io::Storage;
use forebay::io::fault::{Faults, Operation};
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::Partition;
use forebay::wal::options::SPARES;
use forebay::wal::{ErrorClass, Options, WalError, open};
use std::sync::Arc;
use std::time::{Duration, Instant};

const P: Partition = Partition { topic: 1, number: 0 };
const LONG: Duration = Duration::from_secs(20);
const EIO: i32 = 5;

fn options(seed: u64) -> Options {
    let mut options = Options::new("/wal", Arc::new(Metrics::new()));
    options.segment_bytes = 64 << 10;
    options.idle = LONG;
    options.seed = Some(seed);
    options
}

#[test]
fn a_log_that_failed_keeps_its_directory_until_its_handles_are_gone() {
    let faults = Arc::new(Faults::new(Arc::new(Sim::new(1))));
    let storage = Arc::clone(&faults) as Arc<dyn Storage>;
    let first = open(Arc::clone(&storage), options(1)).unwrap();
    first.log.append_synced(vec![owned(P)]).unwrap();
    wait_until("its spares", || first.log.status().spares == SPARES);
    faults.fail_always(Operation::Write, Some(EIO));
    let error = first.log.append_synced(vec![block(P, 0, 100)]).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Poisoned);
    faults.fail_always(Operation::Write, None);
    let until = Instant::now() + Duration::from_millis(100);
    while Instant::now() < until {
        assert!(matches!(first.log.append(delivered(P, 0)), Err(WalError::Poisoned(_))));
        let second = open(Arc::clone(&storage), options(2));
        assert!(matches!(second, Err(WalError::Locked { .. })), "given free while it has handles");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(first);
    wait_until("the directory is given free", || open(Arc::clone(&storage), options(3)).is_ok());
}
