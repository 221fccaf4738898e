//! A [`Sink`] of one's own: counts records per topic and partition and prints the counts when it is finished.
//!
//! `cargo run --release --example sink -- BROKERS TOPIC WAL_DIR` takes what the topic has now, and ends.

use forebay::config::Config;
use forebay::pipeline::{Control, Custom, run_with};
use forebay::record::Block;
use forebay::sink::{Receipt, Restored, Sink, SinkError, SinkLog, Source, Tier};
use std::collections::BTreeMap;

/// Keeps its counts in memory only, so a crash between count and receipt counts a block twice: at least once.
#[derive(Default)]
struct Counts {
    records: BTreeMap<(String, i32), u64>,
}

impl Sink for Counts {
    fn tier(&self) -> Tier {
        Tier::AtLeastOnce
    }

    fn restore(&mut self, _: &[Restored], _: &dyn SinkLog) -> Result<(), SinkError> {
        Ok(())
    }

    fn watermark(&mut self, _: &Source) -> Result<Option<i64>, SinkError> {
        Ok(None)
    }

    fn deliver(&mut self, blocks: &[(Source, Block)], _: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError> {
        let mut receipts: BTreeMap<(String, i32), Receipt> = BTreeMap::new();
        for (source, block) in blocks {
            let key = (source.topic.clone(), source.partition.number);
            *self.records.entry(key.clone()).or_default() += u64::from(block.header.count);
            let (partition, first) = (source.partition, block.header.first);
            let fresh = Receipt { partition, first, next: first, detail: Vec::new(), keep_from: None };
            receipts.entry(key).or_insert(fresh).next = block.header.next;
        }
        Ok(receipts.into_values().collect())
    }

    fn tick(&mut self, closing: bool, _: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError> {
        if closing {
            for ((topic, partition), records) in std::mem::take(&mut self.records) {
                println!("{topic}/{partition}: {records}");
            }
        }
        Ok(Vec::new())
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic, wal] = arguments.as_slice() else {
        anyhow::bail!("usage: sink BROKERS TOPIC WAL_DIR");
    };
    let mut config = Config::default();
    config.kafka.brokers.clone_from(brokers);
    config.kafka.topics = vec![topic.clone()];
    config.wal.dir = wal.into();
    config.exit_at_end = true;
    let custom = Custom { sink: Some(Box::new(Counts::default())), ..Custom::default() };
    run_with(config, Control::new(), custom)?;
    Ok(())
}
