//! What each setting is when nobody sets it. The reference is generated from these values.

use super::{
    Block, Config, Controller, Direct, Durability, Fence, Fetcher, Format, GIB, Handover, Kafka, Log, LogFormat,
    LogLevel, MIB, Memory, Mode, OnForeignCommit, OnGap, Properties, Rate, Require, Server, Sink, Start, Stop, Wal,
};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Receiver,
            direct: Direct { batch_interval: Duration::from_millis(100), batch_bytes: 4 * MIB },
            rate: Rate::default(),
            kafka: Kafka::default(),
            block: Block { bytes: MIB, records: 65_536, age: Duration::from_millis(10), max_record_bytes: 16 * MIB },
            memory: Memory { budget: 64 * MIB },
            wal: Wal {
                dir: PathBuf::new(),
                segment_bytes: 32 * MIB,
                segment_age: Duration::from_secs(600),
                max_bytes: None,
                durability: Durability::Fsync,
                compression: None,
                verify_at_start: GIB,
                scrub_rate: 8 * MIB,
                scrub_every: Duration::from_secs(3600),
            },
            sink: Sink {
                target: None,
                format: Format::Jsonl,
                roll_bytes: 256 * MIB,
                roll_age: Duration::from_secs(600),
                batch_bytes: 8 * MIB,
                batch_age: Duration::from_millis(50),
            },
            server: Server {
                listen: Some(SocketAddr::from(([127, 0, 0, 1], 9465))),
                listen_is_default: true,
                allow_remote: false,
                token: String::new(),
            },
            log: Log { format: LogFormat::Text, level: LogLevel::Info },
            stop: Stop { deadline: Duration::from_secs(10) },
            require: Require::None,
            exit_at_end: false,
        }
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            controller: Controller::None,
            records: None,
            bytes: None,
            topic_records: None,
            topic_bytes: None,
            partition_records: None,
            partition_bytes: None,
            burst: Duration::from_secs(1),
            initial_records: 10_000,
            min_records: 100,
            proportional: 1.0,
            integral: 0.2,
            derivative: 0.0,
        }
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            group: "forebay".to_string(),
            topics: Vec::new(),
            start: Start::Earliest,
            receivers: 1,
            instances: 1,
            fence: Fence::Commit,
            handover: Handover::Keep,
            on_foreign_commit: OnForeignCommit::Hold,
            on_gap: OnGap::Fail,
            warn_time_to_loss: Duration::from_secs(600),
            static_membership: true,
            session_timeout: Duration::from_secs(45),
            unreachable_timeout: Duration::from_secs(60),
            fetcher: Fetcher::Auto,
            properties: Properties::default(),
        }
    }
}
