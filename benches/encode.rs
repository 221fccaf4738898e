//! How fast records become a block: encoding, with checksum and digest, and reading them back.

#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay::record::batch::{self, BatchBuilder, Encoded, RecordRef};
use std::hint::black_box;

const BLOCK: usize = 1 << 20;

fn encode(values: &[Vec<u8>], buffer: Vec<u8>) -> Encoded {
    let mut builder = BatchBuilder::new(buffer, 0);
    for (offset, value) in (0..).zip(values) {
        let (timestamp, value) = (1_700_000_000_000 + offset, Some(&value[..]));
        builder.push(&RecordRef { offset, timestamp, key: Some(b"key-0123"), value, headers: &[] });
    }
    let next = builder.next();
    builder.finish(next, 0)
}

fn blocks(criterion: &mut Criterion) {
    for size in [100, 1000, 10_000] {
        let values: Vec<Vec<u8>> = (0..BLOCK / size).map(|i| vec![i as u8; size]).collect();
        let bytes = encode(&values, Vec::new()).buffer;
        let mut group = criterion.benchmark_group("block of 1 MiB");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut buffer = Vec::new();
        group.bench_function(BenchmarkId::new("encode, record bytes", size), |b| {
            b.iter(|| buffer = encode(&values, std::mem::take(&mut buffer)).buffer);
        });
        group.bench_function(BenchmarkId::new("read, record bytes", size), |b| {
            b.iter(|| batch::records(&bytes).map(|record| black_box(record.unwrap()).offset).max());
        });
        group.bench_function(BenchmarkId::new("digest, record bytes", size), |b| {
            b.iter(|| batch::digest(&bytes, 0).unwrap());
        });
        group.finish();
    }
}

criterion_group!(benches, blocks);
criterion_main!(benches);
