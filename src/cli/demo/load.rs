//! The demo's Kafka and the producer that feeds it while the ingestion is being killed.

use crate::kafka::ffi::mock::MockKafka;
use anyhow::Context;
use rdkafka::producer::{BaseRecord, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A new group waits this long for more members; with librdkafka's default a killed member does not get back in.
const GROUP_DELAY: Duration = Duration::from_millis(100);
/// Records per step of the producer and the pause between steps: about 3,500 records/s, so that there is something to
/// produce for as long as there is something to kill.
const STEP: u64 = 200;
const PAUSE: Duration = Duration::from_millis(50);

/// A running producer and the cluster it produces to.
pub struct Load {
    /// `host:port` of the embedded brokers.
    pub brokers: String,
    hurry: Arc<AtomicBool>,
    // Holds the cluster until the demo is over.
    _kafka: Arc<MockKafka>,
    thread: std::sync::Mutex<Option<JoinHandle<anyhow::Result<Vec<u64>>>>>,
}

impl Load {
    /// Starts the cluster, creates the topic and begins to produce.
    pub fn start(topic: &'static str, partitions: i32, records: u64) -> anyhow::Result<Self> {
        let kafka = Arc::new(MockKafka::start(1, GROUP_DELAY).context("cannot start the embedded Kafka")?);
        kafka.create_topic(topic, partitions)?;
        let hurry = Arc::new(AtomicBool::new(false));
        let (from, until) = (Arc::clone(&kafka), Arc::clone(&hurry));
        let thread = std::thread::spawn(move || produce(&from, topic, partitions, records, &until));
        Ok(Self { brokers: kafka.bootstrap_servers(), hurry, _kafka: kafka, thread: Some(thread).into() })
    }

    /// Produces the rest without pauses and waits until the brokers have everything; records per partition.
    pub fn finish(&self, patience: Duration) -> anyhow::Result<Vec<u64>> {
        self.hurry.store(true, Ordering::Release);
        let thread = self.thread.lock().map_err(|_| anyhow::anyhow!("the producer panicked"))?.take();
        let thread = thread.context("the producer has already been waited for")?;
        let until = std::time::Instant::now() + patience;
        while !thread.is_finished() {
            anyhow::ensure!(std::time::Instant::now() < until, "the producer did not finish within {patience:?}");
            std::thread::sleep(PAUSE);
        }
        thread.join().map_err(|_| anyhow::anyhow!("the producer panicked"))?
    }
}

/// The value of a partition's n-th record: unique, and it says where it belongs.
pub fn value(partition: i32, sequence: u64) -> String {
    format!("p{partition}-{sequence}")
}

fn produce(
    kafka: &MockKafka,
    topic: &str,
    partitions: i32,
    records: u64,
    hurry: &AtomicBool,
) -> anyhow::Result<Vec<u64>> {
    let producer = kafka.producer();
    let mut produced = vec![0; partitions as usize];
    for number in 0..records {
        let partition = (number % partitions as u64) as i32;
        let sequence = &mut produced[partition as usize];
        let payload = value(partition, *sequence);
        let mut record = BaseRecord::<(), str>::to(topic).partition(partition).payload(&payload);
        // A full queue gives the record back; everything else is a failure.
        while let Err((error, again)) = producer.send(record) {
            let full = error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::QueueFull);
            anyhow::ensure!(full, "cannot produce: {error}");
            producer.poll(PAUSE);
            record = again;
        }
        *sequence += 1;
        if number % STEP == STEP - 1 {
            producer.poll(Duration::ZERO);
            if !hurry.load(Ordering::Acquire) {
                std::thread::sleep(PAUSE);
            }
        }
    }
    producer.flush(Duration::from_secs(30)).context("the embedded Kafka did not take all records")?;
    Ok(produced)
}
