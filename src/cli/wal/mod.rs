//! `forebay wal …`: looks into a log, live or broken.
//!
//! Promises: reads only and takes no lock, except for `repair --apply`. Positions are bytes in a file; offsets are Kafka's, ranges half open.

mod check;
mod dump;
mod ls;
mod repair;
pub(super) mod state;
mod status;

use super::args::WalCommand;
use super::exit::{FAILED, FOUND, Failure, OK};
use super::output::talk;
use crate::io::disk::Disk;
use crate::record::topics::{Topic, Topics};
use crate::record::{Partition, TopicNumber};
use crate::wal::State;
use crate::wal::inspect::{Overview, inspect};
use std::path::Path;

/// Runs one of the commands.
pub(super) fn run(command: &WalCommand) -> Result<i32, Failure> {
    match command {
        WalCommand::Ls(args) => ls::run(args),
        WalCommand::Status(args) => status::run(args),
        WalCommand::Dump(args) => dump::run(args),
        WalCommand::Check(args) => check::run(args),
        WalCommand::Repair(args) => repair::run(args),
    }
}

/// Looks at a whole log; a directory without one is an error.
fn look(dir: &Path) -> Result<Overview, Failure> {
    let overview = inspect(&Disk, dir)?;
    if overview.segments.is_empty() && overview.findings.is_empty() {
        return Err(Failure::new(FAILED, anyhow::anyhow!("there is no log in {}", dir.display())));
    }
    Ok(overview)
}

/// Says that a log is damaged, if it is; the exit code.
fn verdict(is_damaged: bool) -> i32 {
    if !is_damaged {
        return OK;
    }
    talk("the log is damaged; see `forebay wal check`");
    FOUND
}

/// The names of the topics in a log.
struct Names(Topics);

impl Names {
    fn new(state: Option<&State>) -> Self {
        let topics = state.iter().flat_map(|state| &state.topics);
        Self(Topics::new(topics.map(|(number, topic)| (*number, topic.name.clone(), topic.id))))
    }

    fn topic(&self, number: TopicNumber) -> Option<Topic> {
        self.0.get(number)
    }

    /// The name of a topic, or its number where the log does not tell the name; later incarnations are marked.
    fn name(&self, number: TopicNumber) -> String {
        match self.topic(number) {
            Some(topic) if topic.incarnation > 0 => format!("{}~{}", topic.name, topic.incarnation),
            Some(topic) => topic.name,
            None => format!("#{number}"),
        }
    }

    /// `topic/partition [first, next)`.
    fn range(&self, partition: Partition, first: i64, next: i64) -> String {
        format!("{}/{} [{first}, {next})", self.name(partition.topic), partition.number)
    }
}

/// The file name of a path, for tables.
fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
