//! The `forebay` binary against a real Apache Kafka: nothing lost, nothing doubled, and a clear answer to bad input.
//!
//! One broker serves all tests of this binary; each test has its own topic, group and directory. Without Java or Maven
//! the tests say so and pass; with `CI=true` they fail then.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod consume;
mod damage;
mod direct;
mod election;
mod fetch;
mod gap;
mod heal;
mod instances;
mod kills;
mod rate;
mod refusals;
mod stall;
mod topics;
