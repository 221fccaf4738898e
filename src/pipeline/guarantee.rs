//! What a configuration can promise, and why.
//!
//! Promises: pure. A promise that hangs on something outside of Forebay names it.

use crate::config::{Config, Durability, Fence, Mode, OnForeignCommit, Require, Target};
use crate::sink::Tier;

/// What a configuration can promise.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Guarantee {
    /// Nothing is lost; is anything delivered twice?
    pub once: Once,
    /// Why not better, and what it hangs on.
    pub reasons: Vec<String>,
}

/// How often a record's effect may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Once {
    /// Exactly once.
    ExactlyOnce,
    /// At least once: doubles only for blocks in doubt at a crash.
    AtLeastOnce,
}

impl std::fmt::Display for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ExactlyOnce => "exactly once",
            Self::AtLeastOnce => "at least once",
        })
    }
}

/// What this configuration promises.
pub fn guarantee(config: &Config) -> Guarantee {
    let mut doubts = Vec::new();
    let mut reasons = Vec::new();
    let (tier, why) = sink(config);
    if tier == Tier::AtLeastOnce { &mut doubts } else { &mut reasons }.push(why.to_string());
    match config.kafka.fence {
        _ if config.mode == Mode::Direct => {
            reasons.push(
                "direct mode: a batch is acknowledged when it is delivered; what Kafka drops before is a gap"
                    .to_string(),
            );
            if config.kafka.instances > 1 {
                doubts.push("mode is direct with several instances: what one delivered and did not commit before it lost a partition, another delivers again".to_string());
            }
        }
        Fence::Commit => reasons.push("a block is delivered only when Kafka confirmed a commit beyond it".to_string()),
        Fence::None => doubts
            .push("kafka.fence is none: a second instance in the group would deliver the same records".to_string()),
    }
    if config.kafka.on_foreign_commit == OnForeignCommit::Kafka {
        let why = "kafka.on_foreign_commit is kafka: a commit by somebody else can skip records or bring them again";
        doubts.push(why.to_string());
    }
    match config.wal.durability {
        Durability::Fsync => {}
        Durability::Os => doubts.push(
            "wal.durability is os: a power cut or a crash of the system loses what was acknowledged shortly before"
                .to_string(),
        ),
        Durability::Memory => {
            doubts.push("wal.durability is memory: a kill loses what was acknowledged and not delivered".to_string());
        }
    }
    reasons.push("the disk of wal.dir honours flush, and comes back".to_string());
    if config.wal.scrub_rate == 0 {
        reasons.push("wal.scrub_rate is 0: damage of the log is found only when it is read".to_string());
    }
    let once = if doubts.is_empty() { Once::ExactlyOnce } else { Once::AtLeastOnce };
    doubts.extend(reasons);
    Guarantee { once, reasons: doubts }
}

/// Why this configuration must not start, if `require` asks for more than it can promise.
pub fn unmet(config: &Config) -> Option<String> {
    let guarantee = guarantee(config);
    let unmet = config.require == Require::ExactlyOnce && guarantee.once != Once::ExactlyOnce;
    unmet.then(|| {
        let why = guarantee.reasons.first().map(String::as_str).unwrap_or_default();
        format!("require is exactly-once, but this configuration promises {} only: {why}", guarantee.once)
    })
}

fn sink(config: &Config) -> (Tier, &'static str) {
    match config.sink.target {
        Some(Target::File(_)) => {
            (Tier::Idempotent, "the file sink is cut back to its last durable receipt after a crash")
        }
        Some(Target::Null) => (Tier::Idempotent, "the null sink keeps nothing"),
        Some(Target::Stdout) | None => {
            (Tier::AtLeastOnce, "stdout can't be asked what it has: blocks in doubt at a crash are written again")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(target: Target) -> Config {
        let mut config = Config::default();
        config.sink.target = Some(target);
        config.require = Require::ExactlyOnce;
        config
    }

    #[test]
    fn each_doubt_lowers_the_promise_and_comes_first() {
        let file = || config(Target::File("out".into()));
        assert_eq!(guarantee(&file()).once, Once::ExactlyOnce);
        assert_eq!(unmet(&file()), None);
        let mut open = file();
        open.kafka.fence = Fence::None;
        let mut foreign = file();
        foreign.kafka.on_foreign_commit = OnForeignCommit::Kafka;
        let (mut direct, mut os, mut memory) = (file(), file(), file());
        direct.mode = Mode::Direct;
        assert_eq!(guarantee(&direct).once, Once::ExactlyOnce, "alone");
        direct.kafka.instances = 2;
        (os.wal.durability, memory.wal.durability) = (Durability::Os, Durability::Memory);
        let lower = [
            (config(Target::Stdout), "stdout"),
            (open, "fence"),
            (foreign, "on_foreign_commit"),
            (direct, "several instances"),
            (os, "durability is os"),
            (memory, "durability is memory"),
        ];
        for (config, word) in lower {
            assert_eq!(guarantee(&config).once, Once::AtLeastOnce);
            assert!(unmet(&config).is_some_and(|text| text.contains(word)), "{word}");
            let relaxed = Config { require: Require::None, ..config };
            assert_eq!(unmet(&relaxed), None);
        }
    }
}
