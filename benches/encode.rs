//! How fast records become a block: encoding, with checksum and digest, and reading them back; and what it costs to
//! compress it.

#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay::record::batch::{self, BatchBuilder, Codec, Encoded, RecordRef};
use forebay::record::{Block, BlockHeader, Partition};
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

/// A value such as services log: names that come again, numbers that do not.
fn line(number: u64) -> Vec<u8> {
    let noise = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!(
        r#"{{"time":{},"level":"info","service":"checkout","user":"{:08x}","path":"/cart/{}","ms":{},"trace":"{noise:016x}"}}"#,
        1_700_000_000_000 + number,
        noise >> 32,
        noise % 5000,
        noise % 977
    )
    .into_bytes()
}

fn compression(criterion: &mut Criterion) {
    let values: Vec<Vec<u8>> = (0..8000).map(line).collect();
    let encoded = encode(&values, Vec::new());
    let header = BlockHeader {
        partition: Partition { topic: 1, number: 0 },
        first: 0,
        next: values.len() as i64,
        leader_epoch: 0,
        tenure: 1,
        count: encoded.count,
        digest: encoded.digest,
        payload_crc: encoded.payload_crc,
    };
    let block = Block { header, payload: encoded.buffer.into() };
    let mut group = criterion.benchmark_group("block of log lines");
    group.throughput(Throughput::Bytes(block.payload.len() as u64));
    for codec in [Codec::Lz4, Codec::Zstd] {
        let packed = batch::pack(block.clone(), codec);
        let percent = 100 * packed.payload.len() / block.payload.len();
        let name = format!("{codec:?}, {percent} % of {} bytes", block.payload.len());
        group.bench_function(BenchmarkId::new("pack", &name), |b| b.iter(|| batch::pack(block.clone(), codec)));
        group.bench_function(BenchmarkId::new("unpack", &name), |b| {
            b.iter(|| batch::unpacked(&packed.payload).unwrap().len());
        });
    }
    group.finish();
}

criterion_group!(benches, blocks, compression);
criterion_main!(benches);
