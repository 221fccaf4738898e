//! A mock cluster with a topic, instances with folders of their own, and what they delivered.

use forebay::config::{Config, Target};
use forebay::kafka::ffi::mock::MockKafka;
use forebay::pipeline::{Control, Custom, Error, Summary, run_with};
use forebay::record::Block;
use forebay::sink::{Receipt, Restored, Sink, SinkError, SinkLog, Source, Tier};
use rdkafka::producer::{BaseRecord, Producer};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const TOPIC: &str = "t";
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until it is so; panics after a minute.
pub fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < until, "waited {LIMIT:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The values of the first `records` records of a topic, sorted.
pub fn produced(partitions: i32, records: u64) -> Vec<String> {
    let mut all: Vec<String> = (0..records).map(|number| value(partitions, number)).collect();
    all.sort();
    all
}

fn value(partitions: i32, number: u64) -> String {
    format!("p{}-{}", number % partitions as u64, number / partitions as u64)
}

pub struct World {
    pub kafka: MockKafka,
    partitions: i32,
    sent: AtomicU64,
    dir: tempfile::TempDir,
}

impl World {
    /// A topic with so many partitions and records, spread evenly.
    pub fn new(partitions: i32, records: u64) -> Self {
        let kafka = MockKafka::start(1, Duration::from_millis(100)).unwrap();
        kafka.create_topic(TOPIC, partitions).unwrap();
        let world = Self { kafka, partitions, sent: AtomicU64::new(0), dir: tempfile::tempdir().unwrap() };
        world.produce(records);
        world
    }

    pub fn produce(&self, records: u64) {
        self.produce_as(records, "");
    }

    /// The same with words behind each value.
    pub fn produce_as(&self, records: u64, words: &str) {
        let producer = self.kafka.producer();
        let first = self.sent.fetch_add(records, Ordering::SeqCst);
        for number in first..first + records {
            let payload = value(self.partitions, number) + words;
            let partition = (number % self.partitions as u64) as i32;
            let mut record = BaseRecord::<(), str>::to(TOPIC).partition(partition).payload(&payload);
            while let Err((_, again)) = producer.send(record) {
                producer.poll(Duration::from_millis(10));
                record = again;
            }
        }
        producer.flush(LIMIT).unwrap();
    }

    /// The same instances, whose brokers are other ones now, and have nothing of what was produced.
    pub fn with_new_brokers(self) -> Self {
        let fresh = Self::new(self.partitions, 0);
        Self { dir: self.dir, ..fresh }
    }

    pub fn config(&self, name: &str) -> Config {
        let mut config = Config::default();
        config.kafka.brokers = self.kafka.bootstrap_servers();
        config.kafka.topics = vec![TOPIC.to_string()];
        config.kafka.session_timeout = Duration::from_millis(1500);
        config.kafka.static_membership = false;
        config.wal.dir = self.dir.path().join(name).join("wal");
        config.wal.segment_bytes = 1 << 20;
        config.sink.target = Some(Target::File(self.dir.path().join(name).join("out")));
        config
    }

    pub fn instance(&self, name: &str) -> Instance {
        Instance { config: self.config(name), out: self.dir.path().join(name).join("out") }
    }

    /// The instance "only", to the end.
    pub fn run_to_end(&self, change: impl FnOnce(&mut Config)) -> Summary {
        let mut config = self.config("only");
        config.exit_at_end = true;
        change(&mut config);
        run_with(config, Control::new(), Custom::default()).unwrap()
    }

    /// The instance "only", until the first delivery, which fails: everything is durable and nothing is delivered.
    pub fn run_to_the_sink(&self) {
        let custom = Custom { sink: Some(Box::new(Broken)), ..Custom::default() };
        let config = Config { exit_at_end: true, ..self.config("only") };
        let error = run_with(config, Control::new(), custom).unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
    }

    pub fn delivered(&self) -> Vec<String> {
        self.instance("only").delivered()
    }
}

pub struct Instance {
    config: Config,
    out: PathBuf,
}

impl Instance {
    pub fn start(&self, control: &Control, change: impl FnOnce(&mut Config)) -> JoinHandle<Result<Summary, Error>> {
        let (mut config, control) = (self.config.clone(), control.clone());
        change(&mut config);
        std::thread::spawn(move || run_with(config, control, Custom::default()))
    }

    pub fn start_with(
        &self,
        control: &Control,
        custom: Custom,
        change: impl FnOnce(&mut Config),
    ) -> JoinHandle<Result<Summary, Error>> {
        let (mut config, control) = (self.config.clone(), control.clone());
        change(&mut config);
        std::thread::spawn(move || run_with(config, control, custom))
    }

    pub fn run_to_end(&self) -> Summary {
        let config = Config { exit_at_end: true, ..self.config.clone() };
        run_with(config, Control::new(), Custom::default()).unwrap()
    }

    /// All values in the output, sorted.
    pub fn delivered(&self) -> Vec<String> {
        let mut all = Vec::new();
        collect(&self.out, &mut all);
        all.sort();
        all
    }
}

fn collect(dir: &Path, all: &mut Vec<String>) {
    for entry in dir.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, all);
            continue;
        }
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            all.push(record["value"].as_str().unwrap().to_string());
        }
    }
}

/// A sink that can't deliver anything.
struct Broken;

impl Sink for Broken {
    fn tier(&self) -> Tier {
        Tier::AtLeastOnce
    }

    fn restore(&mut self, _: &[Restored], _: &dyn SinkLog) -> Result<(), SinkError> {
        Ok(())
    }

    fn watermark(&mut self, _: &Source) -> Result<Option<i64>, SinkError> {
        Ok(None)
    }

    fn deliver(&mut self, _: &[(Source, Block)], _: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError> {
        Err(SinkError::Fatal("broken".to_string()))
    }

    fn tick(&mut self, _: bool, _: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError> {
        Ok(Vec::new())
    }
}

/// A sink that lets nothing through until it is opened.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<(Mutex<bool>, Condvar, AtomicU64)>,
}

impl Gate {
    pub fn closed() -> Self {
        Self { inner: Arc::new((Mutex::new(false), Condvar::new(), AtomicU64::new(0))) }
    }

    pub fn open(&self) {
        *self.inner.0.lock().unwrap() = true;
        self.inner.1.notify_all();
    }

    pub fn records(&self) -> u64 {
        self.inner.2.load(Ordering::SeqCst)
    }

    pub fn sink(&self) -> Box<dyn Sink> {
        Box::new(self.clone())
    }
}

impl Sink for Gate {
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
        let mut is_open = self.inner.0.lock().unwrap();
        while !*is_open {
            is_open = self.inner.1.wait(is_open).unwrap();
        }
        let each = |(source, block): &(Source, Block)| {
            self.inner.2.fetch_add(u64::from(block.header.count), Ordering::SeqCst);
            let (partition, first, next) = (source.partition, block.header.first, block.header.next);
            Receipt { partition, first, next, detail: Vec::new(), keep_from: None }
        };
        Ok(blocks.iter().map(each).collect())
    }

    fn tick(&mut self, _: bool, _: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError> {
        Ok(Vec::new())
    }
}
