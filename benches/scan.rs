//! How fast a log is verified, every byte of it, from the page cache.

#![allow(missing_docs, clippy::unwrap_used)]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay::io::disk::Disk;
use forebay::metrics::Metrics;
use forebay::record::batch::payload_crc;
use forebay::record::{Block, BlockHeader, Partition, TopicId};
use forebay::wal::inspect::inspect;
use forebay::wal::{Entry, Opened, Options, open};
use std::path::Path;
use std::sync::Arc;

const P: Partition = Partition { topic: 1, number: 0 };
const LOG: usize = 512 << 20;

fn fill(dir: &Path, bytes: usize) {
    let Opened { log, .. } = open(Arc::new(Disk), Options::new(dir, Arc::new(Metrics::new()))).unwrap();
    let owned = Entry::Owned { partition: P, tenure: 1, first: 0, next: 0, acked_entries: String::new() };
    log.append_synced(vec![Entry::Topic { number: 1, name: "t".into(), id: TopicId([1; 16]) }, owned]).unwrap();
    let payload = Bytes::from(vec![7; bytes]);
    let payload_crc = payload_crc(&payload);
    for first in 0..(LOG / bytes) as i64 {
        let (next, leader_epoch, tenure, count, digest) = (first + 1, 0, 1, 1, 0);
        let header = BlockHeader { partition: P, first, next, leader_epoch, tenure, count, digest, payload_crc };
        log.append(Entry::Block(Block { header, payload: payload.clone() })).unwrap();
        if log.queued_bytes() > 64 << 20 {
            log.append_synced(Vec::new()).unwrap();
        }
    }
    log.close().unwrap();
}

fn verified(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify 512 MiB");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(LOG as u64));
    for bytes in [4 << 10, 64 << 10, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), bytes);
        group.bench_function(BenchmarkId::new("block bytes", bytes), |b| {
            b.iter(|| assert!(!inspect(&Disk, dir.path()).unwrap().is_damaged()));
        });
    }
    group.finish();
}

criterion_group!(benches, verified);
criterion_main!(benches);
