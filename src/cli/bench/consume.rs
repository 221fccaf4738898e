//! The limit: librdkafka's batch consumption of a topic from its beginning, counting and nothing else.
//!
//! Promises: the same batches and the same fetch settings as `forebay run`; no group, no log, no sink. The numbers have
//! the names of the summary of `forebay run`.

use crate::clock;
use crate::kafka::consumer::set_fetching;
use crate::kafka::fetched::Fetched;
use crate::kafka::ffi::fetch::{Batch, FetchQueue};
use anyhow::{Context, anyhow, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

const BATCH_RECORDS: usize = 4096;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// What `forebay run` gives librdkafka's queues out of its memory budget, shared by the partitions.
const QUEUES_BYTES: usize = 32 << 20;

/// What to consume.
#[derive(Clone, Debug, clap::Args)]
pub struct ConsumeArgs {
    /// Brokers to ask first
    #[arg(long, value_name = "HOST:PORT")]
    pub brokers: String,
    /// The topic
    #[arg(long, value_name = "TOPIC")]
    pub topic: String,
    /// A setting of librdkafka; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub property: Vec<String>,
    /// Begin again until this time has been measured, if one pass is not far too short for that
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    pub seconds: f64,
    /// Go on for ever and print each value on a line as it comes
    #[arg(long)]
    pub follow: bool,
}

/// A shorter pass measures the start and the end only; repeating it would not help.
const PASS_SECONDS_MIN: f64 = 0.2;

/// What was counted, from the first record to the last of each pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Counted {
    /// Records, those of all passes.
    pub records: u64,
    /// How often the topic was consumed.
    pub passes: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Time between the first record and the last.
    pub seconds: f64,
    /// `records / seconds`.
    pub records_per_s: f64,
    /// CPU time of all threads over `seconds`.
    pub cpu_seconds: f64,
    /// The most memory that was resident at once.
    pub rss_peak_bytes: u64,
}

/// Consumes to the end of every partition and counts; with `follow`, prints values to `out` until killed.
pub fn consume(args: &ConsumeArgs, out: &mut dyn Write) -> anyhow::Result<Counted> {
    let probe = client(args, QUEUES_BYTES)?;
    let metadata = probe.fetch_metadata(Some(&args.topic), ANSWER_LIMIT)?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    ensure!(partitions > 0, "no topic {}", args.topic);
    let mut counted = Counted::default();
    loop {
        let consumer = client(args, QUEUES_BYTES / partitions)?;
        let before = counted.seconds;
        pass(args, partitions, &consumer, &mut counted, out)?;
        counted.passes += 1;
        if counted.seconds >= args.seconds || counted.seconds - before < PASS_SECONDS_MIN {
            break;
        }
    }
    counted.records_per_s = (counted.records as f64 / counted.seconds.max(1e-9)).round();
    counted.rss_peak_bytes = clock::rss_peak_bytes();
    Ok(counted)
}

/// The topic once. librdkafka tells the end of a partition half a second after its last record, which does not count.
fn pass(
    args: &ConsumeArgs,
    partitions: usize,
    consumer: &Arc<BaseConsumer>,
    counted: &mut Counted,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let queue: FetchQueue<DefaultConsumerContext> = FetchQueue::new(consumer);
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions)? {
        list.add_partition_offset(&args.topic, partition, Offset::Beginning)?;
        ensure!(queue.forward(&args.topic, partition), "no queue for partition {partition}");
    }
    consumer.assign(&list)?;
    let (mut batch, mut ended) = (Batch::new(BATCH_RECORDS), 0);
    let now = || (clock::monotonic(), clock::cpu_seconds());
    let (mut begin, mut end) = (None, now());
    while ended < partitions || args.follow {
        queue.consume(&mut batch, Duration::from_millis(100));
        if !batch.is_empty() {
            begin.get_or_insert_with(now);
        }
        let before = counted.records;
        ended += add(counted, &batch)?;
        if counted.records > before {
            end = now();
        }
        if args.follow {
            print(&batch, out)?;
        }
        consumer.poll(Duration::ZERO);
    }
    let begin = begin.unwrap_or(end);
    counted.seconds += end.0.saturating_sub(begin.0).as_secs_f64();
    counted.cpu_seconds += end.1 - begin.1;
    Ok(())
}

fn client(args: &ConsumeArgs, queue_bytes: usize) -> anyhow::Result<Arc<BaseConsumer>> {
    let mut config = ClientConfig::new();
    set_fetching(&mut config, queue_bytes);
    for property in &args.property {
        let (name, value) = property.split_once('=').context("a --property is not NAME=VALUE")?;
        config.set(name, value);
    }
    config
        .set("bootstrap.servers", &args.brokers)
        .set("group.id", "forebay-bench-consume")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true");
    Ok(Arc::new(config.create::<BaseConsumer>().map_err(|error| crate::cli::client::error(&error))?))
}

/// Adds a batch; returns how many partitions have ended in it.
fn add(counted: &mut Counted, batch: &Batch) -> anyhow::Result<usize> {
    let mut ended = 0;
    for message in batch.iter() {
        match message.error() {
            None => {
                counted.records += 1;
                let bytes = message.key().map_or(0, <[u8]>::len) + message.value().map_or(0, <[u8]>::len);
                counted.bytes += bytes as u64;
            }
            Some(RDKafkaErrorCode::PartitionEOF) => ended += 1,
            Some(code) => return Err(anyhow!("cannot fetch {}/{}: {code}", message.topic(), message.partition())),
        }
    }
    Ok(ended)
}

fn print(batch: &Batch, out: &mut dyn Write) -> std::io::Result<()> {
    let mut text = Vec::new();
    for message in batch.iter().filter(|message| message.error().is_none()) {
        text.extend_from_slice(message.value().unwrap_or_default());
        text.push(b'\n');
    }
    out.write_all(&text)?;
    out.flush()
}
