//! What would keep `forebay run` from starting here, though the configuration is right.
//!
//! Promises: no connection is made and no group joined; a lock or port that is free is held for a moment only, and
//! nothing is created. Never: it does not say that the disk can be written.

use super::exit::{CONFIG, IO, OK};
use crate::config::Config;
use crate::io::Storage;
use crate::io::disk::Disk;
use crate::kafka::consumer::{Member, Settings};
use crate::kafka::error::words;
use crate::wal::segment::LOCK;
use std::net::TcpListener;
use std::path::Path;

/// Something in the way.
pub(super) struct Obstacle {
    /// What it is about.
    pub what: &'static str,
    /// For people.
    pub detail: String,
    /// The exit code of a run; [`OK`] for what is only worth knowing.
    pub code: i32,
}

/// Looks for them. `kafka`: how to reach Kafka; nothing is asked.
pub(super) fn find(config: &Config, kafka: &Settings) -> Vec<Obstacle> {
    // Whoever holds the log is most likely this service, and has the port too.
    let in_use = lock(&config.wal.dir).or_else(|| port(config));
    [librdkafka(config, kafka), sink(config), in_use].into_iter().flatten().collect()
}

fn librdkafka(config: &Config, kafka: &Settings) -> Option<Obstacle> {
    let obstacle = |what, detail| Some(Obstacle { what, detail, code: CONFIG });
    // A client without brokers connects to nothing, and so joins no group when it subscribes.
    let nowhere = Settings { brokers: String::new(), ..kafka.clone() };
    let member = match Member::new(&nowhere) {
        Ok(member) => member,
        Err(error) => return obstacle("librdkafka", words(&error)),
    };
    let patterns = config.kafka.topics.iter().filter(|topic| topic.starts_with('^'));
    for pattern in patterns {
        if let Err(error) = member.subscribe(std::slice::from_ref(pattern)) {
            return obstacle("topics", format!("librdkafka refuses the pattern {pattern}: {error}"));
        }
    }
    None
}

fn sink(config: &Config) -> Option<Obstacle> {
    let dir = config.sink_dir()?;
    let detail = match Disk.exists(dir) {
        Ok(true) if !dir.is_dir() => format!("{} is not a directory", dir.display()),
        Ok(_) => return None,
        Err(error) => error.to_string(),
    };
    Some(Obstacle { what: "sink", detail, code: IO })
}

fn lock(dir: &Path) -> Option<Obstacle> {
    let path = dir.join(LOCK);
    // An error is the log's: it is told with the log.
    let is_held = Disk.exists(&path).unwrap_or(false) && matches!(Disk.lock(&path), Ok(None));
    let detail = || format!("{} is in use by a running process; another is refused until that ends", dir.display());
    is_held.then(|| Obstacle { what: "log", detail: detail(), code: OK })
}

fn port(config: &Config) -> Option<Obstacle> {
    let address = config.server.listen.filter(|_| !config.server.listen_is_default)?;
    let error = TcpListener::bind(address).err()?;
    Some(Obstacle { what: "server.listen", detail: format!("{address}: {error}"), code: CONFIG })
}
