//! Logs on simulated machines that crash in every way: what the sweeps are made of.

#![allow(dead_code)]

pub mod entries;
pub mod life;
pub mod seen;
pub mod steps;
pub mod sweep;
