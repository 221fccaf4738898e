//! Kafka as Forebay uses it: membership, batches of records, commits with a result each, and the ownership protocol.
//!
//! Promises: every call has a timeout; a commit is offered only for what the caller says is durable. Never: it stores
//! nothing and knows nothing of the log; [`tenure`], [`start`], [`gap`] and [`loss`] are pure.

pub mod again;
pub mod consumer;
pub mod error;
pub mod events;
pub mod fetched;
pub mod ffi;
pub mod gap;
pub mod loss;
pub mod low;
pub mod start;
pub mod tenure;
pub mod wire;
