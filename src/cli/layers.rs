//! From arguments, file and environment to a checked configuration.

use super::args::ConfigArgs;
use super::exit::{CONFIG, Failure};
use crate::config::load::{Flag, Loaded, Problems, Sources, load};
use anyhow::Context;

/// Why there is no configuration.
pub(super) enum Unusable {
    /// The file can't be read.
    File(Failure),
    /// It was read, and these things are wrong.
    Problems(Problems),
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::File(failure) => failure,
            Unusable::Problems(problems) => {
                let count = problems.0.len();
                let things = if count == 1 { "a problem" } else { "problems" };
                let lines: Vec<_> = problems.0.iter().map(ToString::to_string).collect();
                let lines = lines.join(
                    "
  ",
                );
                Failure::new(CONFIG, anyhow::anyhow!("the configuration has {things}:\n  {lines}"))
            }
        }
    }
}

/// Reads and merges everything that was said.
pub(super) fn read(args: &ConfigArgs) -> Result<Loaded, Unusable> {
    let sources = sources(args).map_err(Unusable::File)?;
    load(&sources).map_err(Unusable::Problems)
}

fn sources(args: &ConfigArgs) -> Result<Sources, Failure> {
    let file = match &args.config {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.with_context(|| format!("cannot read the configuration file {}", path.display()));
            Some((path.clone(), text.map_err(|error| Failure::new(CONFIG, error))?))
        }
    };
    let (mut environment, mut not_utf8) = (Vec::new(), Vec::new());
    for (name, value) in std::env::vars_os() {
        match (name.to_str(), value.to_str()) {
            (Some(name), Some(value)) => environment.push((name.to_string(), value.to_string())),
            _ => not_utf8.push(name.to_string_lossy().into_owned()),
        }
    }
    Ok(Sources { file, environment, not_utf8, set: args.set.clone(), flags: flags(args) })
}

fn flags(args: &ConfigArgs) -> Vec<Flag> {
    let single = [
        ("--brokers", "kafka.brokers", &args.brokers),
        ("--group", "kafka.group", &args.group),
        ("--wal", "wal.dir", &args.wal),
        ("--sink", "sink.target", &args.sink),
    ];
    let mut flags = Vec::new();
    for (flag, key, value) in single {
        flags.extend(value.iter().map(|value| Flag { flag, key, values: vec![value.clone()] }));
    }
    if !args.topic.is_empty() {
        flags.push(Flag { flag: "--topic", key: "kafka.topics", values: args.topic.clone() });
    }
    flags
}
