//! The scan, on segments written frame by frame: what counts as a frame, what damage is and how far it goes, what a
//! segment, its states, its footer and its successor say of each other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod asked;
#[path = "../common/entries.rs"]
mod entries;
mod footers;
mod frames;
mod image;
mod logs;
mod segments;
mod states;
mod windows;
