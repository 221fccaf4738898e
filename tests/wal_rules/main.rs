//! Rules of the log that no single crash shows: what a state holds, what retires, what zeros, old bytes and a rewritten
//! frame are taken for, what a full disk leaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damage;
#[path = "../common/entries.rs"]
mod entries;
mod segments;
mod space;
mod world;
