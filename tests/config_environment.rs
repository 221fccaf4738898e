//! Each variable of the project's own tests and scripts is a setting or a listed exception: processes inherit them.

#![allow(clippy::unwrap_used, clippy::panic)]

use forebay::config::environment::{PREFIX, setting};
use forebay::config::keys::{PROPERTIES, find};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Names with the prefix in all texts below `dir`.
fn names(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names(&path, found);
            continue;
        }
        let text = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&text);
        for (at, _) in text.match_indices(PREFIX) {
            let rest = text[at..].chars();
            found.insert(rest.take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_').collect());
        }
    }
}

#[test]
fn no_variable_of_the_project_is_taken_for_a_wrong_setting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for dir in ["tests", "scripts", "src/io", "src/cli"] {
        names(&root.join(dir), &mut found);
    }
    assert!(found.contains("FOREBAY_SWEEP_STATES") && found.len() > 20, "{found:?}");
    let is_wrong = |name: &&String| {
        let key = setting(name);
        name.as_str() != PREFIX
            && key.is_some_and(|key| find(&key).is_none() && !key.starts_with(&format!("{PROPERTIES}.")))
    };
    let wrong: Vec<_> = found.iter().filter(is_wrong).collect();
    assert!(wrong.is_empty(), "put them into src/config/environment.rs: {wrong:?}");
}
