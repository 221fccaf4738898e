//! The rules, each a function of the changes.

use super::recorder::{Change, Id};
use std::collections::{HashMap, HashSet};

const PAGE: u64 = 4096;

fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".wal")?.parse().ok()
}

/// After a rename the directory is synced before anything is written to the file.
pub fn names_are_durable_before_use(changes: &[Change]) {
    let mut loose: HashMap<Id, String> = HashMap::new();
    for change in changes {
        match change {
            Change::Rename(id, from, to) => {
                loose.insert(*id, format!("{from} -> {to}"));
            }
            Change::SyncDir => loose.clear(),
            Change::Write { id, name, .. } => {
                assert!(!loose.contains_key(id), "{name} is written to, but {} was not synced", loose[id]);
            }
            _ => {}
        }
    }
}

/// A file gets its final name only after everything in it is synced.
pub fn contents_are_durable_before_their_name(changes: &[Change]) {
    let mut dirty = HashSet::new();
    for change in changes {
        match change {
            Change::Write { id, .. } => drop(dirty.insert(*id)),
            Change::Sync { id, ok: true } => drop(dirty.remove(id)),
            Change::Rename(id, from, to) => {
                let is_retired = number(from).is_some();
                assert!(is_retired || !dirty.contains(id), "{from} becomes {to} before it is synced");
            }
            _ => {}
        }
    }
}

/// A segment is removed or renamed away only after a durable frame or header says that it is retired.
pub fn segments_go_after_their_retirement(changes: &[Change]) -> usize {
    let (mut written, mut durable, mut gone) = (HashMap::<Id, u64>::new(), 0, 0);
    for change in changes {
        match change {
            Change::Write { id, held, .. } => {
                let of_header = held.header.map_or(0, |header| header.retired_below);
                let below = written.entry(*id).or_default();
                *below = (*below).max(held.retired_below).max(of_header);
            }
            Change::Sync { id, ok: true } => durable = durable.max(written.get(id).copied().unwrap_or_default()),
            Change::Rename(_, name, _) | Change::Unlink(name) => {
                if let Some(number) = number(name) {
                    assert!(number < durable, "{name} is gone, but durably retired is only what is below {durable}");
                    gone += 1;
                }
            }
            _ => {}
        }
    }
    gone
}

/// Between two builds of a file frames are written once to each place, in order, and every group fills whole pages.
/// (Zeros are written ahead where a segment grows.)
pub fn bytes_are_written_once(changes: &[Change]) {
    let mut reached: HashMap<Id, u64> = HashMap::new();
    for change in changes {
        if let Change::Write { id, name, position, len, held } = change {
            if held.header.is_some() {
                reached.insert(*id, 0);
            }
            let Some(end) = reached.get_mut(id).filter(|_| held.frames > 0) else { continue };
            assert!(*position >= *end, "{name}: written at {position} although {end} was reached");
            assert!(position.is_multiple_of(PAGE) && len.is_multiple_of(PAGE), "{name}: {len} bytes at {position}");
            *end = position + len;
        }
    }
}

/// After a failed sync the file is neither synced nor written to again.
pub fn a_failed_sync_is_the_last(changes: &[Change]) -> usize {
    let mut failed = HashSet::new();
    for change in changes {
        match change {
            Change::Sync { id, ok: false } => drop(failed.insert(*id)),
            Change::Sync { id, ok: true } => assert!(!failed.contains(id), "a failed sync was tried again"),
            Change::Write { id, name, .. } => {
                assert!(!failed.contains(id), "{name} was written to after a failed sync");
            }
            _ => {}
        }
    }
    failed.len()
}

/// Every life of a file has its own salt.
pub fn salts_are_new(changes: &[Change]) {
    let mut seen = HashSet::new();
    for change in changes {
        if let Change::Write { held, .. } = change
            && let Some(header) = held.header
        {
            assert!(seen.insert(header.salt), "segment {} has the salt of an older one", header.number);
        }
    }
}

/// A start syncs every segment and the directory before it changes anything, and writes into none of the segments it
/// found.
pub fn a_start_trusts_what_it_synced(found: &HashMap<Id, String>, changes: &[Change]) {
    let first = changes.iter().position(|change| !matches!(change, Change::Sync { .. } | Change::SyncDir)).unwrap();
    let synced = |id: &Id| changes[..first].iter().any(|c| matches!(c, Change::Sync { id: it, ok: true } if it == id));
    for (id, name) in found {
        assert!(synced(id), "{name} was read and not synced");
    }
    let dir = changes[..first].iter().any(|change| matches!(change, Change::SyncDir));
    assert!(dir, "names were read, and their directory not synced");
    for change in changes {
        if let Change::Write { id, name, held, .. } = change {
            let appended = found.contains_key(id) && held.header.is_none() && found[id] == *name;
            assert!(!appended, "{name} was recovered and written to again");
        }
    }
}
