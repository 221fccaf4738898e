//! `forebay check`: the configuration, what it can promise, the log, what is in the way, the connections.
//!
//! Promises: changes nothing, joins no group. Exit codes: 78 the configuration or `require`, 74 a path can't be used,
//! 69 Kafka does not answer, 3 a topic is missing or the log is damaged.

use super::args::CheckArgs;
use super::exit::{CONFIG, FOUND, Failure, OK, UNAVAILABLE};
use super::layers::{self, Unusable};
use super::obstacles::{self, Obstacle};
use super::output::{Format, plain, print, screen, table};
use super::wal::state;
use crate::config::load::{Loaded, Problem, Row};
use crate::config::{self, Config, Fetcher, reference};
use crate::kafka::consumer::{Member, Settings};
use crate::kafka::error::words;
use crate::kafka::wire::Wire;
use crate::pipeline::guarantee::{self, Guarantee};
use rdkafka::error::RDKafkaErrorCode;
use serde::Serialize;
use std::time::Duration;

const SCHEMA: &str = "forebay.check/1";

/// How long to wait for an answer from Kafka.
const PATIENCE: Duration = Duration::from_secs(5);

/// Memory for fetched records: nothing is fetched.
const QUEUE_BYTES: usize = 1 << 20;

/// What was found. The names are stable.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    ok: bool,
    guarantee: Guarantee,
    unmet: Option<String>,
    wal: state::Overview,
    connections: Vec<Connection>,
    settings: Vec<Row>,
}

/// Something outside that was asked.
#[derive(Debug, Serialize)]
struct Connection {
    what: String,
    ok: bool,
    detail: String,
    #[serde(skip)]
    code: i32,
}

/// Checks and prints.
pub(super) fn run(args: &CheckArgs) -> Result<i32, Failure> {
    if args.print_reference {
        print(&reference::markdown())?;
        return Ok(OK);
    }
    let loaded = match layers::read(&args.settings) {
        Err(Unusable::Problems(problems)) if args.output != Format::Table => {
            return show_problems(&problems.0);
        }
        other => other?,
    };
    let unmet = guarantee::unmet(&loaded.config);
    let wal = state::overview(&loaded.config.wal.dir);
    let mut connections = connections(&loaded.config, args.offline);
    let detail = fetching(&loaded.config.kafka);
    connections.push(Connection { what: "fetching".to_string(), ok: true, detail, code: OK });
    let connected = connections.iter().map(|connection| connection.code).max().unwrap_or(OK);
    let code = if unmet.is_some() { CONFIG } else { connected.max(wal.code) };
    let report = Report {
        schema: SCHEMA,
        ok: code == OK,
        guarantee: guarantee::guarantee(&loaded.config),
        unmet,
        wal,
        connections,
        settings: loaded.rows(),
    };
    match args.output {
        Format::Table => print(&text(&report, &loaded))?,
        Format::Json => print(&format!("{:#}\n", serde_json::json!(report)))?,
        Format::Jsonl => print(&format!("{}\n", serde_json::json!(report)))?,
    }
    Ok(code)
}

fn show_problems(problems: &[Problem]) -> Result<i32, Failure> {
    let row = |problem: &Problem| {
        let origin = problem.origin.as_ref().map(ToString::to_string);
        serde_json::json!({ "key": problem.key, "message": problem.message, "origin": origin })
    };
    let problems: Vec<_> = problems.iter().map(row).collect();
    print(&format!("{}\n", serde_json::json!({ "schema": SCHEMA, "ok": false, "problems": problems })))?;
    Ok(CONFIG)
}

/// What is in the way and, unless that is the client itself or nothing is to be asked, what Kafka says.
fn connections(config: &Config, offline: bool) -> Vec<Connection> {
    let settings = Settings {
        brokers: config.kafka.brokers.clone(),
        group: config.kafka.group.clone(),
        instance_id: None,
        session_timeout: config.kafka.session_timeout,
        queue_bytes: QUEUE_BYTES,
        wire_bytes: None,
        properties: config.kafka.properties.0.clone(),
    };
    let of = |Obstacle { what, detail, code }| Connection { what: what.to_string(), ok: code == OK, detail, code };
    let mut found: Vec<_> = obstacles::find(config, &settings).into_iter().map(of).collect();
    if offline || found.iter().any(|connection| connection.what == "librdkafka") {
        return found;
    }
    match Member::new(&settings) {
        Ok(member) => topics(config, &member, &mut found),
        Err(error) => {
            let detail = words(&error);
            found.push(Connection { what: "librdkafka".to_string(), ok: false, detail, code: CONFIG });
        }
    }
    found
}

/// Who fetches records.
fn fetching(kafka: &config::Kafka) -> String {
    if kafka.fetcher == Fetcher::Librdkafka {
        return "by librdkafka, as kafka.fetcher says".to_string();
    }
    match Wire::new(&kafka.brokers, &kafka.properties.0, 0) {
        Ok(_) => "by Forebay itself, where the brokers know how".to_string(),
        Err(setting) => format!("by librdkafka, because of {setting}"),
    }
}

/// Asks Kafka for each topic; stops at the first sign that no broker answers.
fn topics(config: &Config, member: &Member, found: &mut Vec<Connection>) {
    for topic in &config.kafka.topics {
        // A pattern matches what there is; the brokers answer all the same.
        let asked = topic.strip_prefix('^').map_or(topic.as_str(), |_| "__consumer_offsets");
        let what = format!("topic {topic}");
        let connection = match member.partitions_of(asked, PATIENCE) {
            Ok(_) if asked != topic => {
                Connection { what, ok: true, detail: "a pattern; Kafka answers".to_string(), code: OK }
            }
            Ok(partitions) => Connection { what, ok: true, detail: format!("{partitions} partitions"), code: OK },
            Err(error) if is_missing(error.rdkafka_error_code()) => {
                let ok = asked != topic;
                let detail = if ok { "a pattern; Kafka answers" } else { "does not exist" };
                Connection { what, ok, detail: detail.to_string(), code: if ok { OK } else { FOUND } }
            }
            Err(error) => {
                let detail = format!("no answer from {}: {error}", config.kafka.brokers);
                found.push(Connection { what: "brokers".to_string(), ok: false, detail, code: UNAVAILABLE });
                break;
            }
        };
        found.push(connection);
    }
}

fn is_missing(code: Option<RDKafkaErrorCode>) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    matches!(code, Some(UnknownTopicOrPartition | UnknownTopic | UnknownPartition))
}

fn text(report: &Report, loaded: &Loaded) -> String {
    let mark = |ok: bool| if ok { "ok" } else { "PROBLEM" };
    let mut lines = plain();
    lines.add_row([mark(true), "configuration", &format!("{} settings given", loaded.origins.len())]);
    let required = if report.unmet.is_some() { ", but exactly once is required" } else { "" };
    let promise = format!("nothing lost, each record {}{required}", report.guarantee.once);
    lines.add_row([mark(report.unmet.is_none()), "guarantee", &promise]);
    for reason in &report.guarantee.reasons {
        lines.add_row(["", "", reason]);
    }
    lines.add_row([mark(report.wal.code == OK), "log", &report.wal.text]);
    for connection in &report.connections {
        lines.add_row([mark(connection.ok), &connection.what, &connection.detail]);
    }
    let mut settings = table(["setting", "value", "from"]);
    for row in report.settings.iter().filter(|row| row.origin != "default") {
        settings.add_row([row.key, &row.value, &row.origin]);
    }
    format!("{}\n{}", screen(&lines), screen(&settings))
}
