//! What can't be, though each setting by itself is right: required settings, and settings that contradict each other.
//!
//! Promises: pure; names both settings of a contradiction.

use super::load::{Origin, Problem};
use super::value::{show_bytes, show_time};
use super::{Config, Fence, Handover, Target};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// librdkafka's own default of `max.poll.interval.ms`.
const POLL_INTERVAL_MS: u64 = 300_000;

/// The log writes whole pages.
const PAGE: u64 = 4096;

/// Kafka's limit for the length of a topic name.
const TOPIC_BYTES_MAX: usize = 249;

/// Everything that is wrong with the whole, in the order of the reference. A setting that already has a problem is
/// not accused of being missing.
pub fn check(config: &Config, origins: &BTreeMap<String, Origin>, known: &[Problem]) -> Vec<Problem> {
    let mut found = Found { origins, problems: Vec::new() };
    required(config, known, &mut found);
    kafka(config, &mut found);
    memory(config, &mut found);
    places(config, &mut found);
    if let Some(listen) = config.server.listen
        && !listen.ip().is_loopback()
        && !config.server.allow_remote
    {
        let message = format!("is {listen}, which other hosts can reach; set server.allow_remote=true if they should");
        found.add("server.listen", message);
    }
    found.problems
}

struct Found<'a> {
    origins: &'a BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Found<'_> {
    fn add(&mut self, key: &str, message: impl Into<String>) {
        let origin = self.origins.get(key).cloned();
        self.problems.push(Problem { key: key.to_string(), message: message.into(), origin });
    }
}

fn required(config: &Config, known: &[Problem], found: &mut Found<'_>) {
    let missing = [
        ("kafka.brokers", "--brokers HOST:PORT", config.kafka.brokers.is_empty()),
        ("kafka.topics", "--topic TOPIC", config.kafka.topics.is_empty()),
        ("wal.dir", "--wal DIR", config.wal.dir.as_os_str().is_empty()),
        ("sink.target", "--sink file:DIR", config.sink.target.is_none()),
    ];
    for (key, flag, missing) in missing {
        if missing && !known.iter().any(|problem| problem.key == key) {
            found.add(key, format!("is not set: give it in the file or by {flag}"));
        }
    }
}

fn kafka(config: &Config, found: &mut Found<'_>) {
    let kafka = &config.kafka;
    if !kafka.brokers.is_empty() {
        for broker in kafka.brokers.split(',').filter(|broker| !is_broker(broker)) {
            found.add("kafka.brokers", format!("has \"{broker}\", which is not HOST:PORT"));
        }
    }
    for (place, topic) in kafka.topics.iter().enumerate() {
        if !is_topic(topic) {
            found.add("kafka.topics", format!("has \"{topic}\", which can't be the name of a topic"));
        } else if kafka.topics[..place].contains(topic) {
            found.add("kafka.topics", format!("has \"{topic}\" twice"));
        }
    }
    if kafka.fence == Fence::None && kafka.instances > 1 {
        let message = format!("is none, but kafka.instances is {}: they would deliver records twice", kafka.instances);
        found.add("kafka.fence", message);
    }
    if kafka.handover == Handover::Return {
        found.add("kafka.handover", "can't be return: that is not available yet; use keep");
    }
    let poll_interval = kafka.properties.0.get("max.poll.interval.ms");
    let poll_interval = poll_interval.and_then(|text| text.parse().ok()).unwrap_or(POLL_INTERVAL_MS);
    if kafka.session_timeout > Duration::from_millis(poll_interval) {
        let (session, poll) = (show_time(kafka.session_timeout), show_time(Duration::from_millis(poll_interval)));
        let message = format!("is {session}, more than kafka.properties.max.poll.interval.ms, {poll}");
        found.add("kafka.session_timeout", message);
    }
}

fn is_broker(text: &str) -> bool {
    let text = text.trim();
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let bare_ipv6 = host.contains(':') && !host.starts_with('[');
    !host.is_empty() && !host.contains(char::is_whitespace) && !bare_ipv6 && port_fits
}

fn is_topic(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match text.strip_prefix('^') {
        Some(pattern) => !pattern.is_empty(),
        None => (1..=TOPIC_BYTES_MAX).contains(&text.len()) && text.chars().all(letter) && text != "." && text != "..",
    }
}

fn memory(config: &Config, found: &mut Found<'_>) {
    let budget = config.memory.budget;
    let shown = show_bytes(budget);
    if config.sink.batch_bytes > budget / 2 {
        let batch = show_bytes(config.sink.batch_bytes);
        found.add("sink.batch_bytes", format!("is {batch}, more than half of memory.budget, {shown}"));
    }
    if config.block.max_record_bytes > budget / 2 {
        let record = show_bytes(config.block.max_record_bytes);
        found.add("block.max_record_bytes", format!("is {record}, more than half of memory.budget, {shown}"));
    }
    if config.block.bytes.saturating_mul(u64::from(config.kafka.receivers)) > budget / 4 {
        let message = format!(
            "is {shown}, less than four times block.bytes {} for each of {} kafka.receivers",
            show_bytes(config.block.bytes),
            config.kafka.receivers
        );
        found.add("memory.budget", message);
    }
    if !config.wal.segment_bytes.is_multiple_of(PAGE) {
        let segment = show_bytes(config.wal.segment_bytes);
        found.add("wal.segment_bytes", format!("is {segment}, must be a multiple of {}", show_bytes(PAGE)));
    }
    if let Some(max) = config.wal.max_bytes
        && max < config.wal.segment_bytes.saturating_mul(8)
    {
        let (max, segment) = (show_bytes(max), show_bytes(config.wal.segment_bytes));
        found.add("wal.max_bytes", format!("is {max}, less than eight times wal.segment_bytes, {segment}"));
    }
}

fn places(config: &Config, found: &mut Found<'_>) {
    let Some(Target::File(output)) = &config.sink.target else {
        return;
    };
    let wal = &config.wal.dir;
    if wal.as_os_str().is_empty() {
        return;
    }
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let (log, sink) = (absolute(wal), absolute(output));
    if log.starts_with(&sink) || sink.starts_with(&log) {
        let message =
            format!("is {}, which overlaps with sink.target {}: use two directories", wal.display(), output.display());
        found.add("wal.dir", message);
    }
}
