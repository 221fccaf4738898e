//! Which states were checked already: a state counts once.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, PoisonError};

const SHARDS: usize = 256;

#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

type Map = HashMap<u64, u64, BuildHasherDefault<Same>>;

/// The states that were checked, with what was expected of each.
pub struct Seen(Vec<Mutex<Map>>);

impl Seen {
    pub fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    /// Whether the state is new, and whether it is to be checked: it is new, or more was expected of it this time.
    pub fn note(&self, hash: u64, key: u64) -> (bool, bool) {
        let shard = &self.0[(hash >> 56) as usize % SHARDS];
        let mut map = shard.lock().unwrap_or_else(PoisonError::into_inner);
        match map.insert(hash, key) {
            None => (true, true),
            Some(before) => (false, before != key),
        }
    }
}
