use super::*;
use crate::config::{Format, LogLevel, MIB, Start, Target};
use std::time::Duration;

const WHOLE: &str = r#"
require = "exactly-once"

[kafka]
brokers = "one:9092,two:9092"
topics = ["orders", "^metrics-.*"]
start = "latest"
receivers = 2
session_timeout = "30s"

[kafka.properties]
"security.protocol" = "SASL_SSL"
sasl.username = "reader"
sasl.password = "hunter2"
"fetch.wait.max.ms" = 50

[wal]
dir = "log"
max_bytes = "1GiB"

[sink]
target = "file:out"
format = "raw"

[log]
level = "debug"
"#;

fn file(text: &str) -> Sources {
    Sources { file: Some((PathBuf::from("forebay.toml"), text.to_string())), ..Sources::default() }
}

fn flags() -> Vec<Flag> {
    let flag = |flag, key, value: &str| Flag { flag, key, values: vec![value.to_string()] };
    vec![
        flag("--brokers", "kafka.brokers", "localhost:9092"),
        flag("--topic", "kafka.topics", "orders"),
        flag("--wal", "wal.dir", "log"),
        flag("--sink", "sink.target", "file:out"),
    ]
}

fn set(texts: &[&str]) -> Sources {
    Sources { flags: flags(), set: texts.iter().map(ToString::to_string).collect(), ..Sources::default() }
}

fn problems(sources: &Sources) -> Vec<String> {
    load(sources).map_or_else(|problems| problems.0.iter().map(ToString::to_string).collect(), |_| Vec::new())
}

#[test]
fn a_file_fills_the_fields() {
    let config = load(&file(WHOLE)).unwrap().config;
    assert_eq!(config.kafka.topics, ["orders", "^metrics-.*"]);
    assert_eq!(config.kafka.start, Start::Latest);
    assert_eq!(config.kafka.session_timeout, Duration::from_secs(30));
    assert_eq!(config.kafka.properties.0["fetch.wait.max.ms"], "50");
    assert_eq!(config.kafka.properties.0["sasl.username"], "reader");
    assert_eq!(config.wal.max_bytes, Some(1024 * MIB));
    assert_eq!(config.sink.target, Some(Target::File("out".into())));
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!(config.block, Config::default().block);
}

#[test]
fn later_layers_win_and_the_winner_is_named() {
    let mut sources = file(WHOLE);
    let environment = [("FOREBAY_SINK__FORMAT", "jsonl"), ("FOREBAY_KAFKA__GROUP", "env"), ("FOREBAY_REQUIRE", "none")];
    sources.environment = environment.map(|(name, value)| (name.to_string(), value.to_string())).to_vec();
    sources.environment.push(("FOREBAY_SEED".to_string(), "7".to_string()));
    sources.environment.push(("PATH".to_string(), "/bin".to_string()));
    sources.set = vec!["kafka.group=set".to_string(), "kafka.properties.debug=broker".to_string()];
    sources.flags = vec![Flag { flag: "--group", key: "kafka.group", values: vec!["flag".to_string()] }];
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.config.kafka.group, "flag");
    assert_eq!(loaded.config.sink.format, Format::Jsonl);
    assert_eq!(loaded.config.kafka.properties.0["debug"], "broker");
    let rows = loaded.rows();
    let origin = |key: &str| rows.iter().find(|row| row.key == key).unwrap().origin.clone();
    assert_eq!(origin("kafka.group"), "--group");
    assert_eq!(origin("sink.format"), "environment FOREBAY_SINK__FORMAT");
    assert_eq!(origin("wal.dir"), "forebay.toml:18");
    assert_eq!(origin("block.bytes"), "default");
}

#[test]
fn secrets_are_in_no_text() {
    let loaded = load(&file(WHOLE)).unwrap();
    let shown = format!("{loaded:?}\n{}", serde_json::to_string(&loaded.rows()).unwrap());
    assert!(shown.contains("reader") && !shown.contains("hunter2"), "{shown}");
    let secret = file("[kafka.properties]\n\"sasl.jaas.config\" = \"hunter2\"\nssl.x.passphrase = \"hunter2\"\n");
    let mut hidden = set(&[]);
    hidden.file = secret.file;
    let loaded = load(&hidden).unwrap();
    let shown = format!("{loaded:?}\n{}", serde_json::to_string(&loaded.rows()).unwrap());
    assert!(shown.contains("sasl.jaas.config") && !shown.contains("hunter2"), "{shown}");
    for broken in ["\"sasl.password\" = \"hunter2", "\"sasl.password\" = [\"hunter2\"]", "\"group.id\" = \"hunter2\""] {
        let found = problems(&file(&format!("[kafka.properties]\n{broken}\n"))).join("\n");
        assert!(found.contains("forebay.toml:2") && !found.contains("hunter2"), "{found}");
    }
}

#[test]
fn all_problems_come_at_once_each_with_its_place() {
    let mut sources = file("[kafka]\nbroker = \"one:9092\"\n[wal]\nsegment_bytes = 64\n[sink]\nformat = \"avro\"\n");
    sources.environment = vec![("FOREBAY_BLOCK__AGE".to_string(), "soon".to_string())];
    sources.set = vec!["stop.deadlin=3s".to_string(), "nonsense".to_string()];
    assert_eq!(
        problems(&sources),
        [
            "nonsense needs a value, as in --set sink.format=raw (--set)",
            "kafka.broker is not a setting; did you mean kafka.brokers? (forebay.toml:2)",
            "sink.format is \"avro\", must be one of jsonl, raw (forebay.toml:6)",
            "wal.segment_bytes must be a size with its unit, as in \"64MiB\" (forebay.toml:4)",
            "block.age is \"soon\", must be a duration with its unit, as in \"200ms\" (environment FOREBAY_BLOCK__AGE)",
            "stop.deadlin is not a setting; did you mean stop.deadline? (--set)",
            "kafka.brokers is not set: give it in the file or by --brokers HOST:PORT",
            "kafka.topics is not set: give it in the file or by --topic TOPIC",
            "wal.dir is not set: give it in the file or by --wal DIR",
            "sink.target is not set: give it in the file or by --sink file:DIR",
        ]
    );
}

#[test]
fn a_variable_that_is_no_setting_is_named() {
    let mut sources = set(&[]);
    let environment = [("FOREBAY_REQUIR", "exactly-once"), ("FOREBAY_KAFKA_GROUP", "g"), ("FOREBAY_LOG__LEVL", "info")];
    sources.environment = environment.map(|(name, value)| (name.to_string(), value.to_string())).to_vec();
    sources.not_utf8 = ["FOREBAY_KAFKA__GROUP", "FOREBAY_HOOK_AFTER_SYNC", "PATH"].map(str::to_string).to_vec();
    assert_eq!(
        problems(&sources),
        [
            "kafka.group is not UTF-8 (environment FOREBAY_KAFKA__GROUP)",
            "requir is not a setting; did you mean require? (environment FOREBAY_REQUIR)",
            "kafka_group is not a setting; did you mean kafka.group? (environment FOREBAY_KAFKA_GROUP)",
            "log.levl is not a setting; did you mean log.level? (environment FOREBAY_LOG__LEVL)",
        ]
    );
}

#[test]
fn a_wrong_value_or_a_contradiction_is_named() {
    for (given, message) in [
        ("kafka.receivers=0", "kafka.receivers is 0, must be from 1 to 64 (--set)"),
        ("kafka.receivers=two", "kafka.receivers must be a whole number (--set)"),
        ("block.bytes=2MiB", "block.bytes is 2MiB, must be from 1KiB to 1MiB (--set)"),
        ("stop.deadline=2days", "stop.deadline is 2days, must be from 0s to 1h (--set)"),
        ("kafka.segment_bytes=1GiB", "kafka.segment_bytes is not a setting; did you mean wal.segment_bytes? (--set)"),
        ("wal.durability=none", "wal.durability is \"none\", must be one of fsync, os, memory (--set)"),
        ("wal.max_bytes=100MiB", "wal.max_bytes is 100MiB, less than eight times wal.segment_bytes, 32MiB (--set)"),
        ("sink.batch_bytes=33MiB", "sink.batch_bytes is 33MiB, more than half of memory.budget, 64MiB (--set)"),
        ("kafka.handover=return", "kafka.handover can't be return: that is not available yet; use keep (--set)"),
        (
            "kafka.session_timeout=10m",
            "kafka.session_timeout is 10m, more than kafka.properties.max.poll.interval.ms, 5m (--set)",
        ),
        ("kafka.properties.group.id=x", "kafka.properties.group.id is set by Forebay: use kafka.group instead (--set)"),
        ("kafka.properties=x", "kafka.properties must be a table of librdkafka's settings (--set)"),
        ("wal.segment_bytes=100001B", "wal.segment_bytes is 100001B, must be a multiple of 4KiB (--set)"),
        ("zzz=1", "zzz is not a setting (--set)"),
    ] {
        assert_eq!(problems(&set(&[given])), [message]);
    }
    let found = problems(&set(&["server.listen=0.0.0.0:80"]));
    assert!(found[0].contains("server.allow_remote=true"), "{found:?}");
    assert_eq!(problems(&set(&["server.listen=0.0.0.0:80", "server.allow_remote=true"])), Vec::<String>::new());
    assert_eq!(problems(&set(&["kafka.fence=none"])), Vec::<String>::new());
    assert_eq!(problems(&set(&["kafka.fence=none", "kafka.instances=2"])).len(), 1);
}

#[test]
fn names_and_places_are_checked() {
    let with = |key, values: &[&str]| {
        let mut sources = set(&[]);
        let values = values.iter().map(ToString::to_string).collect();
        sources.flags.push(Flag { flag: "--flag", key, values });
        problems(&sources).len()
    };
    for good in ["a", "a:1", "a:1,b:2", "[::1]:9092", "SSL://a:9093"] {
        assert_eq!(with("kafka.brokers", &[good]), 0, "{good}");
    }
    for bad in ["a:", ":1", "a:0", "a:70000", "a b:1", "a,,b", "::1"] {
        assert_eq!(with("kafka.brokers", &[bad]), 1, "{bad}");
    }
    assert_eq!(with("kafka.topics", &["a", "^b,c"]), 0);
    for bad in [&["a", "a"][..], &["a b"], &[".."], &[""], &["^"]] {
        assert_eq!(with("kafka.topics", bad), 1, "{bad:?}");
    }
    for (dir, count) in [("out", 1), ("out/log", 1), (".", 1), ("out2", 0), ("log", 0)] {
        assert_eq!(with("wal.dir", &[dir]), count, "{dir}");
    }
}

#[test]
fn the_default_port_may_give_way_a_chosen_one_may_not() {
    assert!(load(&set(&[])).unwrap().config.server.listen_is_default);
    assert!(!load(&set(&["server.listen=127.0.0.1:9465"])).unwrap().config.server.listen_is_default);
    assert_eq!(load(&set(&["server.listen=off"])).unwrap().config.server.listen, None);
}
