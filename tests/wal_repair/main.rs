//! Damaged blocks, repair files and the feed that goes back for them: on the simulated disk, with crashes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/entries.rs"]
mod entries;
mod repairs;
mod scrubbing;
mod world;
