//! What librdkafka can do at most: consumes a topic from its beginning to its end in batches and only counts.
//!
//!     cargo run --release --example consume -- BROKERS TOPIC
//!
//! The same batch consumption and the same fetch settings as `forebay run`, without a group, a log or a sink; prints one
//! JSON object. `seconds` and `cpu_seconds` run from the first record to the last, as in the summary of `forebay run`.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use forebay::clock;
use forebay::kafka::consumer::set_fetching;
use forebay::kafka::ffi::fetch::{Batch, FetchQueue};
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const BATCH_RECORDS: usize = 4096;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// What `forebay run` gives librdkafka's queues out of its memory budget, shared by the partitions.
const QUEUES_BYTES: usize = 32 << 20;

/// What was counted.
#[derive(Default)]
struct Count {
    records: u64,
    bytes: u64,
    ended: usize,
}

impl Count {
    fn add(&mut self, batch: &Batch) -> Result<(), Box<dyn Error>> {
        for message in batch.iter() {
            match message.error() {
                None => {
                    self.records += 1;
                    let bytes = message.key().map_or(0, <[u8]>::len) + message.value().map_or(0, <[u8]>::len);
                    self.bytes += bytes as u64;
                }
                Some(RDKafkaErrorCode::PartitionEOF) => self.ended += 1,
                Some(code) => return Err(code.into()),
            }
        }
        Ok(())
    }
}

fn client(brokers: &str, queue_bytes: usize) -> Result<Arc<BaseConsumer>, Box<dyn Error>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", "consume-example")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true");
    set_fetching(&mut config, queue_bytes);
    Ok(Arc::new(config.create::<BaseConsumer>()?))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic] = arguments.as_slice() else {
        return Err("usage: consume BROKERS TOPIC".into());
    };
    let probe = client(brokers, QUEUES_BYTES)?;
    let metadata = probe.fetch_metadata(Some(topic), ANSWER_LIMIT)?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    if partitions == 0 {
        return Err(format!("no topic {topic}").into());
    }
    let consumer = client(brokers, QUEUES_BYTES / partitions)?;
    let queue: FetchQueue<DefaultConsumerContext> = FetchQueue::new(&consumer);
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions)? {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
        if !queue.forward(topic, partition) {
            return Err(format!("no queue for partition {partition}").into());
        }
    }
    consumer.assign(&list)?;
    let mut batch = Batch::new(BATCH_RECORDS);
    let mut count = Count::default();
    // From the first record to the last: librdkafka tells the end of a partition half a second after its last record.
    let now = || (clock::monotonic(), clock::cpu_seconds());
    let (mut begin, mut end) = (None, now());
    while count.ended < partitions {
        queue.consume(&mut batch, Duration::from_millis(100));
        if !batch.is_empty() {
            begin.get_or_insert_with(now);
        }
        let before = count.records;
        count.add(&batch)?;
        if count.records > before {
            end = now();
        }
        consumer.poll(Duration::ZERO);
    }
    let begin = begin.unwrap_or(end);
    let seconds = end.0.saturating_sub(begin.0).as_secs_f64();
    let summary = serde_json::json!({
        "records": count.records,
        "bytes": count.bytes,
        "seconds": seconds,
        "records_per_s": (count.records as f64 / seconds.max(1e-9)).round(),
        "cpu_seconds": end.1 - begin.1,
        "rss_peak_bytes": clock::rss_peak_bytes(),
    });
    println!("{summary}");
    Ok(())
}
