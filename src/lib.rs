//! Forebay takes records from Kafka through an fsynced, checksummed write-ahead log to where you want them: nothing
//! lost, nothing twice.
//!
//! The rooms of the house, each using only those to its right:
//!
//! `cli → server → pipeline → receiver, processor → wal, dedupe, kafka, sink → io, metrics, config, clock, rate → record`
//!
//! * [`record`]: the words: partition, block, Kafka's record batch;
//! * [`io`]: the only door to the file system, with a simulated disk behind the same door;
//! * [`wal`]: the log: format, writer, recovery, reader;
//! * [`rate`]: how fast records may be taken;
//! * [`kafka`]: membership, batches, commits, and who owns what ([`kafka::tenure`]);
//! * [`dedupe`]: nothing is taken twice;
//! * [`sink`]: where blocks go;
//! * [`receiver`]: from Kafka into the log, or in direct mode into a plan ([`receiver::plan`]);
//! * [`processor`]: from the log to the sink;
//! * [`pipeline`]: wires the stages, starts and stops them in order;
//! * [`server`], [`cli`]: the faces.
//!
//! A record's path: receiver → dedupe → log (one fdatasync for all that wait) → commit → fence → processor → sink →
//! receipt in the log.

pub mod cli;
pub mod clock;
pub mod config;
pub mod dedupe;
pub mod io;
pub mod kafka;
pub mod metrics;
pub mod pipeline;
pub mod processor;
pub mod rate;
pub mod receiver;
pub mod record;
pub mod server;
pub mod sink;
pub mod wal;
