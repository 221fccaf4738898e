//! How long a durable append takes on the disk of the temporary directory (`TMPDIR` chooses it): one writer, the log as
//! the pipeline uses it. `scripts/bench-wal.sh` compares it with other logs.

#![allow(missing_docs, clippy::unwrap_used)]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay::io::disk::Disk;
use forebay::metrics::Metrics;
use forebay::record::batch::payload_crc;
use forebay::record::{Block, BlockHeader, Partition, TopicId};
use forebay::wal::{Entry, Opened, Options, open};
use std::sync::Arc;
use std::time::Duration;

const P: Partition = Partition { topic: 1, number: 0 };

fn block(first: i64, payload: &Bytes) -> Entry {
    let (next, leader_epoch, tenure, count, digest) = (first + 1, 0, 1, 1, 0);
    let payload_crc = payload_crc(payload);
    let header = BlockHeader { partition: P, first, next, leader_epoch, tenure, count, digest, payload_crc };
    Entry::Block(Block { header, payload: payload.clone() })
}

fn durable_appends(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(dir.path(), Arc::new(Metrics::new()));
    let Opened { log, mut feed, .. } = open(Arc::new(Disk), options).unwrap();
    let owned = Entry::Owned { partition: P, tenure: 1, first: 0, next: 0, acked_entries: String::new() };
    log.append_synced(vec![Entry::Topic { number: 1, name: "t".into(), id: TopicId([1; 16]) }, owned]).unwrap();
    let mut next = 0;
    let mut group = criterion.benchmark_group("durable append");
    for bytes in [4 << 10, 64 << 10, 1 << 20] {
        let payload: Bytes = (0..bytes).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        group.throughput(Throughput::Bytes(u64::from(bytes)));
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| {
            b.iter(|| {
                let through_lsn = log.append_synced(vec![block(next, &payload)]).unwrap();
                feed.next(Duration::from_secs(1)).unwrap();
                next += 1;
                if next % 16 == 0 {
                    // What is delivered is retired, and its segments are used again.
                    let (keep_from, detail) = (None, Vec::new());
                    let receipt =
                        Entry::Delivered { route: 0, partition: P, first: 0, next, through_lsn, keep_from, detail };
                    log.append(receipt).unwrap();
                }
            });
        });
    }
    group.finish();
    drop(feed);
    log.close().unwrap();
}

criterion_group!(benches, durable_appends);
criterion_main!(benches);
