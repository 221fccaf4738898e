//! Whether what the client is told to do can be done without librdkafka's own fetching. Pure.
//!
//! Promises: a setting that is not known here to leave fetching alone speaks against it.

use std::collections::BTreeMap;

/// What the settings say of fetching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fetching {
    /// Brokers to ask first: host and port.
    pub bootstrap: Vec<(String, u16)>,
    pub client_id: String,
    pub read_committed: bool,
    /// Milliseconds a broker may wait for `min_bytes`.
    pub wait_ms: i32,
    pub min_bytes: i32,
    /// Bytes of one answer and of one partition in it.
    pub max_bytes: i32,
    pub partition_bytes: i32,
}

/// librdkafka's settings that have nothing to do with fetching, or the part of a name they begin with.
const ELSEWHERE: [&str; 21] = [
    "allow.auto.create.topics",
    "auto.commit.interval.ms",
    "broker.version.fallback",
    "check.crcs",
    "coordinator.query.interval.ms",
    "debug",
    "enable.",
    "fetch.queue.backoff.ms",
    "group.",
    "heartbeat.interval.ms",
    "internal.termination.signal",
    "linger.ms",
    "log",
    "max.poll.interval.ms",
    "message.max.bytes",
    "metadata.",
    "queue",
    "reconnect.",
    "retry.",
    "statistics.interval.ms",
    "topic.",
];

const DEFAULT_PORT: u16 = 9092;
/// A broker answers at once when it has anything. What begins to be fetched meanwhile waits no longer than this.
const WAIT_MS: i32 = 100;
const BYTES: i32 = 8 << 20;
const BYTES_MAX: i32 = 256 << 20;

/// What is to be fetched how, or the setting that leaves it to librdkafka.
pub(super) fn judge(brokers: &str, properties: &BTreeMap<String, String>) -> Result<Fetching, String> {
    let bootstrap = bootstrap(brokers).ok_or_else(|| "kafka.brokers".to_owned())?;
    let (max_bytes, partition_bytes) = (BYTES, BYTES / 2);
    let client_id = "forebay".to_owned();
    let mut fetching = Fetching {
        bootstrap,
        client_id,
        read_committed: true,
        wait_ms: WAIT_MS,
        min_bytes: 1,
        max_bytes,
        partition_bytes,
    };
    for (name, value) in properties {
        let number = || value.parse::<i32>().ok().filter(|number| *number >= 0);
        let known = match name.as_str() {
            "security.protocol" => is(value, "plaintext").then_some(()),
            "client.id" => {
                fetching.client_id.clone_from(value);
                Some(())
            }
            "isolation.level" => {
                fetching.read_committed = is(value, "read_committed");
                (fetching.read_committed || is(value, "read_uncommitted")).then_some(())
            }
            "fetch.wait.max.ms" => number().map(|number| fetching.wait_ms = number),
            "fetch.min.bytes" => number().map(|number| fetching.min_bytes = number),
            "fetch.max.bytes" => number().map(|number| fetching.max_bytes = number),
            "fetch.message.max.bytes" | "max.partition.fetch.bytes" => {
                number().map(|number| fetching.partition_bytes = number)
            }
            other => ELSEWHERE.iter().any(|known| other.starts_with(known)).then_some(()),
        };
        known.ok_or_else(|| format!("kafka.properties.{name}"))?;
    }
    fetching.max_bytes = fetching.max_bytes.clamp(1, BYTES_MAX);
    fetching.partition_bytes = fetching.partition_bytes.clamp(1, fetching.max_bytes);
    Ok(fetching)
}

/// librdkafka reads words like this.
fn is(value: &str, word: &str) -> bool {
    value.trim().eq_ignore_ascii_case(word)
}

/// `[PLAINTEXT://]host[:port],…` with IPv6 addresses in brackets.
fn bootstrap(brokers: &str) -> Option<Vec<(String, u16)>> {
    let each = |broker: &str| {
        let broker = broker.strip_prefix("PLAINTEXT://").unwrap_or(broker);
        if let Some((host, port)) = broker.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let port = if port.is_empty() { DEFAULT_PORT } else { port.strip_prefix(':')?.parse().ok()? };
            return Some((host.to_owned(), port));
        }
        let (host, port) = broker.split_once(':').map_or((broker, None), |(host, port)| (host, Some(port)));
        let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
        (!host.is_empty() && !host.contains('/')).then(|| (host.to_owned(), port))
    };
    brokers.split(',').map(|broker| each(broker.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Result<Fetching, String> {
        judge("b:1", &BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn brokers_are_named_as_librdkafka_names_them() {
        for (text, expected) in [
            ("a", Some(vec![("a", 9092)])),
            ("a:1, b:2", Some(vec![("a", 1), ("b", 2)])),
            ("PLAINTEXT://a:1,[::1]:5,[::1]", Some(vec![("a", 1), ("::1", 5), ("::1", 9092)])),
            ("SSL://a:1", None),
            ("a:b", None),
            ("", None),
            ("a,", None),
        ] {
            let found = bootstrap(text);
            let found = found.as_ref().map(|all| all.iter().map(|(host, port)| (host.as_str(), *port)).collect());
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn only_settings_that_are_understood_keep_it_here() {
        for (name, value) in [
            ("security.protocol", "plaintext"),
            ("isolation.level", "read_committed"),
            ("debug", "all"),
            ("queued.min.messages", "1"),
        ] {
            assert!(with(name, value).is_ok(), "{name}");
        }
        for (name, value) in [
            ("security.protocol", "SASL_SSL"),
            ("sasl.username", "me"),
            ("ssl.ca.location", "x"),
            ("client.rack", "r"),
            ("socket.nagle.disable", "true"),
            ("test.mock.num.brokers", "3"),
            ("fetch.min.bytes", "-1"),
            ("isolation.level", "1"),
            ("plugin.library.paths", "x"),
        ] {
            assert_eq!(with(name, value), Err(format!("kafka.properties.{name}")));
        }
        for (level, read_committed) in [(" READ_Committed", true), ("read_uncommitted ", false)] {
            assert_eq!(with("isolation.level", level).unwrap().read_committed, read_committed);
        }
        let small = with("fetch.max.bytes", "1000").unwrap();
        assert_eq!((small.max_bytes, small.partition_bytes), (1000, 1000));
        assert_eq!(with("fetch.wait.max.ms", "7").unwrap().wait_ms, 7);
    }
}
