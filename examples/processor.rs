//! A [`Processor`] of one's own: drops tombstones and writes the rest in upper case.
//!
//! `cargo run --release --example processor -- BROKERS TOPIC WAL_DIR OUT_DIR` takes what the topic has now, and ends.

use forebay::config::{Config, Target};
use forebay::pipeline::{Control, Custom, run_with};
use forebay::processor::Processor;
use forebay::record::Block;
use forebay::record::batch::{BatchBuilder, HeaderRef, RecordRef, records};

struct UpperCase;

impl Processor for UpperCase {
    /// Deterministic, as it must be: after a crash the same block is processed again.
    fn process(&mut self, mut block: Block) -> Result<Block, String> {
        let mut builder = BatchBuilder::new(Vec::with_capacity(block.payload.len()), block.header.first);
        for record in records(&block.payload) {
            let record = record.map_err(|error| error.to_string())?;
            let Some(value) = record.value else { continue };
            let value = value.to_ascii_uppercase();
            let headers: Vec<HeaderRef<'_>> = record.headers.iter().collect();
            builder.push(&RecordRef {
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key,
                value: Some(&value),
                headers: &headers,
            });
        }
        let encoded = builder.finish(block.header.next, block.header.leader_epoch);
        block.header.count = encoded.count;
        block.header.digest = encoded.digest;
        block.header.payload_crc = encoded.payload_crc;
        block.payload = encoded.buffer.into();
        Ok(block)
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic, wal, out] = arguments.as_slice() else {
        anyhow::bail!("usage: processor BROKERS TOPIC WAL_DIR OUT_DIR");
    };
    let mut config = Config::default();
    config.kafka.brokers.clone_from(brokers);
    config.kafka.topics = vec![topic.clone()];
    config.wal.dir = wal.into();
    config.sink.target = Some(Target::File(out.into()));
    config.exit_at_end = true;
    let custom = Custom { processor: Box::new(UpperCase), ..Custom::default() };
    let summary = run_with(config, Control::new(), custom)?;
    println!("{} records in {:.1} s", summary.records, summary.seconds);
    Ok(())
}
