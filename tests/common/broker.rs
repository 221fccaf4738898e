//! One real Apache Kafka node per test binary, started with the first test that asks for it; and clusters of three for
//! tests that kill brokers.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rustix::process::{Pid, Signal, kill_process};

use super::leash;

const READY_LIMIT: Duration = Duration::from_secs(60);
/// `scripts/kafka/classpath.sh` ends so when Java or Maven is missing.
const MISSING: i32 = 69;

/// A running broker.
pub struct Kafka {
    brokers: String,
    dir: PathBuf,
    controller: u16,
    node: Mutex<Node>,
}

/// The broker of this test binary. `None`, said on standard error, if Java or Maven is missing; with `CI=true` that fails.
pub fn kafka() -> Option<&'static Kafka> {
    static KAFKA: OnceLock<Result<Kafka, String>> = OnceLock::new();
    match KAFKA.get_or_init(start) {
        Ok(kafka) => Some(kafka),
        Err(why) => {
            let ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!ci, "with CI=true the real-Kafka tests must run: {why}");
            // Not eprintln: the test runner would hide it, since the test passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED a real-Kafka test: {why}");
            None
        }
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka")
}

fn start() -> Result<Kafka, String> {
    let found = Command::new(scripts().join("classpath.sh"))
        .env("CARGO_TARGET_DIR", target_dir())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("scripts/kafka/classpath.sh: {error}"))?;
    if !found.status.success() {
        let text = String::from_utf8_lossy(&found.stderr).trim().to_owned();
        assert_eq!(found.status.code(), Some(MISSING), "{text}");
        return Err(text);
    }
    // The two ports are free now and could be taken by others before Kafka binds them: then the next try gets new ones.
    for _ in 0..3 {
        if let Some(kafka) = start_once() {
            return Ok(kafka);
        }
    }
    panic!("three brokers in a row did not become ready");
}

fn start_once() -> Option<Kafka> {
    let dir = tempfile::Builder::new().prefix("forebay-kafka-").tempdir().unwrap().keep();
    let (port, controller) = two_free_ports();
    let mut node = Node::start(&dir, port, controller, 1)?;
    let brokers = format!("127.0.0.1:{port}");
    if !wait_ready(&brokers, &mut node.script) {
        node.end();
        return None;
    }
    Some(Kafka { brokers, dir, controller, node: Mutex::new(node) })
}

/// A broker's process and the script around it, whose standard input is its leash.
struct Node {
    script: Child,
    broker: Pid,
}

impl Node {
    fn start(dir: &Path, port: u16, controller: u16, number: i32) -> Option<Self> {
        let mut script = leash::start(
            Command::new(scripts().join("broker.sh"))
                .arg(dir)
                .args([port.to_string(), controller.to_string(), number.to_string()])
                .env("FOREBAY_REMOVE", if number == 1 { "1" } else { "" })
                .env("CARGO_TARGET_DIR", target_dir())
                .stdout(Stdio::piped()),
        );
        // The first line comes after formatting; its absence means that the script has failed and said why.
        let mut line = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let broker = line.trim().parse().ok().and_then(Pid::from_raw);
        let mut node = Self { script, broker: broker.unwrap_or(Pid::INIT) };
        if broker.is_none() {
            node.end();
            return None;
        }
        Some(node)
    }

    /// Signals the broker and waits until it has ended.
    fn stop(mut self, signal: Signal) {
        kill_process(self.broker, signal).unwrap();
        let _ = self.script.wait();
    }

    fn end(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

fn wait_ready(brokers: &str, node: &mut Child) -> bool {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("log_level", "0").create().unwrap();
    let start = Instant::now();
    while start.elapsed() < READY_LIMIT {
        if node.try_wait().unwrap().is_some() {
            return false;
        }
        let answer = consumer.fetch_metadata(None, Duration::from_millis(500));
        if answer.is_ok_and(|metadata| !metadata.brokers().is_empty()) {
            return true;
        }
    }
    false
}

fn two_free_ports() -> (u16, u16) {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let second = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    (port(&first), port(&second))
}

/// The folder that Cargo built this test in.
fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_forebay")).ancestors().nth(2).unwrap().to_path_buf()
}

/// An address on which nothing listens.
pub fn dead_address() -> String {
    format!("127.0.0.1:{}", two_free_ports().0)
}

impl Kafka {
    /// Host and port for clients.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The file of a partition's first records.
    pub fn first_segment(&self, topic: &str, partition: i32) -> PathBuf {
        self.dir.join(format!("data/{topic}-{partition}/00000000000000000000.log"))
    }

    /// A client configuration for this broker that keeps quiet.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("log_level", "2");
        config
    }

    /// How often the members of `group` have been given their partitions: one per generation that came to be.
    pub fn generations(&self, group: &str) -> usize {
        let log = std::fs::read_to_string(self.dir.join("broker.log")).unwrap();
        let words = format!("Stabilized group {group} generation ");
        log.lines().filter(|line| line.contains(&words)).count()
    }
}

/// Three brokers for one test. The first is the controller and holds the groups; the others can be ended.
pub struct Cluster {
    /// All of them, for clients.
    pub kafka: Kafka,
    others: Vec<(u16, Option<Node>)>,
}

impl Cluster {
    /// Starts the cluster. `None` as for [`kafka`].
    pub fn start() -> Option<Self> {
        kafka()?;
        let mut first = start_once().unwrap();
        // Asking for a group makes the topic of commits, while there is only the first broker to put it on.
        first.committed("nobody", "nothing", 1);
        // The same for transactions.
        first.create_topic("first", 1, &[]);
        first.transact("first", 0, &["x".to_owned()], true);
        let others = [two_free_ports().0, two_free_ports().0].map(|port| (port, None));
        for (port, _) in &others {
            first.brokers = format!("{},127.0.0.1:{port}", first.brokers);
        }
        let mut cluster = Self { kafka: first, others: others.into() };
        cluster.start_node(2);
        cluster.start_node(3);
        Some(cluster)
    }

    /// Starts node 2 or 3 (again).
    pub fn start_node(&mut self, number: i32) {
        let dir = self.kafka.dir.join(format!("node-{number}"));
        let (port, node) = &mut self.others[number as usize - 2];
        let mut started = Node::start(&dir, *port, self.kafka.controller, number).unwrap();
        assert!(wait_ready(&format!("127.0.0.1:{port}"), &mut started.script), "node {number}");
        *node = Some(started);
    }

    /// Ends node 2 or 3 and waits for its end.
    pub fn end_node(&mut self, number: i32, signal: Signal) {
        self.others[number as usize - 2].1.take().unwrap().stop(signal);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, node) in &mut self.others {
            node.iter_mut().for_each(Node::end);
        }
        self.kafka.node.lock().unwrap_or_else(std::sync::PoisonError::into_inner).end();
    }
}
