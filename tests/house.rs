//! Holds the rules of the house: which room may use which, where the dangerous things live, how long a file may be.
//!
//! Each rule is a function of a file's name and text; the second half of this file breaks every rule on purpose.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms in layers: a room may use those of later layers, never its own layer or an earlier one.
const LAYERS: [&[&str]; 8] = [
    &["main"],
    &["cli"],
    &["server"],
    &["pipeline"],
    &["receiver", "direct", "processor"],
    &["wal", "dedupe", "kafka", "sink"],
    &["io", "metrics", "config", "clock", "rate"],
    &["record"],
];

/// Lines of a file without its tests.
const LINES_MAX: usize = 450;

/// A word and the only places (prefixes of paths in `src`) where it may occur.
///
/// Exceptions for files: the configuration file and the folders of demo and bench are read by the command line; sled's own
/// folder is removed by its wrapper.
const PLACES: [(&str, &[&str]); 14] = [
    ("std::fs", &["io/", "cli/layers.rs", "cli/demo/", "cli/bench/", "dedupe/store.rs"]),
    ("rustix::fs", &["io/", "clock.rs"]),
    ("unsafe", &["kafka/ffi/"]),
    ("anyhow", &["main.rs", "cli/"]),
    ("sled::", &["dedupe/"]),
    ("bincode::", &["wal/format/payload.rs"]),
    ("rdkafka::", &["kafka/", "receiver/", "cli/"]),
    ("rdkafka_sys", &["kafka/ffi/"]),
    ("kafka_protocol::", &["kafka/wire/"]),
    ("std::net::Tcp", &["kafka/wire/", "cli/"]),
    ("tokio::", &["server/", "cli/"]),
    ("axum::", &["server/"]),
    ("prometheus_client::", &["metrics.rs"]),
    ("process::exit", &["main.rs", "cli/signals.rs"]),
];

/// What never stands outside of tests.
const NEVER: [&str; 8] = [
    ".unwrap()",
    ".expect(",
    "panic!(",
    "todo!(",
    "unimplemented!(",
    "clippy::unwrap_used",
    "clippy::expect_used",
    "clippy::panic",
];

/// A source file: its path inside `src` and its text without tests and comments, line by line.
struct Source {
    path: String,
    lines: Vec<(usize, String)>,
    has_promise: bool,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let has_promise = text.starts_with("//!");
        Self { path: path.to_string(), lines: without_tests(text), has_promise }
    }

    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Lines of code with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = self.lines.iter().filter(|(_, line)| !line.trim_start().starts_with("//"));
        code.map(|(number, line)| (*number, line.as_str()))
    }

    fn at(&self, number: usize, complaint: &str) -> String {
        format!("src/{}:{number}: {complaint}", self.path)
    }
}

/// The lines that are no part of a `#[cfg(test)]` item. Relies on rustfmt's layout.
fn without_tests(text: &str) -> Vec<(usize, String)> {
    let mut kept = Vec::new();
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push((number, line.to_string()));
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let item = lines.by_ref().find(|(_, line)| !line.trim_start().starts_with("#["));
        if item.is_some_and(|(_, line)| !line.ends_with(';') && !line.ends_with('}')) {
            let end = format!("{indent}}}");
            lines.by_ref().find(|(_, line)| *line == end);
        }
    }
    kept
}

fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name == "tests.rs" || name == "testing.rs" || name.ends_with("_tests.rs") || path.contains("/tests/")
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

/// Rooms named by `crate::…` in a piece of code.
fn rooms_used(code: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$')) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => used.push(name(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (place, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && c.is_alphanumeric() => {
                            used.push(name(&group[place..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    used
}

/// How often `super::` may be repeated before the path leaves the room.
fn depth(path: &str) -> usize {
    let parts = path.split('/').count();
    if path.ends_with("/mod.rs") { parts - 1 } else { parts }
}

fn arrows(source: &Source) -> Vec<String> {
    let room = source.room();
    if room == "lib" {
        return Vec::new();
    }
    let Some(own) = layer(room) else {
        return vec![source.at(1, &format!("{room} is no room of the house"))];
    };
    let mut complaints = Vec::new();
    let (mut whole, mut numbers) = (String::new(), Vec::new());
    for (number, line) in source.code() {
        // Continued lines are joined, so that a group of names may span several.
        whole.push_str(line.trim());
        numbers.push((whole.len(), number));
        let supers = line.matches("super::").count();
        if line.trim_start().trim_start_matches("pub ").starts_with("use super::") && supers >= depth(&source.path) {
            complaints.push(source.at(number, "`super` leaves the room"));
        }
    }
    for used in rooms_used(&whole) {
        let allowed = used == room || layer(&used).is_some_and(|other| other > own);
        if !allowed {
            let place = whole.find(&format!("crate::{used}")).or_else(|| whole.find("crate::{"));
            let number = numbers.iter().find(|(end, _)| place.is_some_and(|place| place < *end));
            let number = number.map_or(1, |(_, number)| *number);
            complaints.push(source.at(number, &format!("{room} must not use {used}")));
        }
    }
    complaints
}

fn places(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in source.code() {
        for (word, places) in PLACES {
            let allowed = places.iter().any(|place| source.path.starts_with(place));
            if has_word(line, word) && !allowed {
                complaints.push(source.at(number, &format!("`{word}` belongs to {}", places.join(", "))));
            }
        }
        for never in NEVER.iter().filter(|never| line.contains(**never)) {
            complaints.push(source.at(number, &format!("`{never}` outside of tests")));
        }
    }
    complaints
}

/// True if the word occurs and is not the end or the start of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part);
        let after = line[at + word.len()..].chars().next().is_some_and(part);
        !before && (!after || word.ends_with(':'))
    })
}

fn shape(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    if source.lines.len() > LINES_MAX {
        let lines = source.lines.len();
        complaints.push(source.at(1, &format!("{lines} lines without tests, more than {LINES_MAX}")));
    }
    if !source.has_promise {
        complaints.push(source.at(1, "does not start with what it promises (`//!`)"));
    }
    complaints
}

/// Words that no file of the project has: unfinished work, and paths of one machine.
fn words(path: &str, text: &str) -> Vec<String> {
    let unwanted = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/t", "mp/"),
    ];
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for word in unwanted.iter().filter(|word| line.contains(**word)) {
            complaints.push(format!("{path}:{}: {word}", index + 1));
        }
    }
    complaints
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extensions, found);
        } else if path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted)) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let dir = root().join("src");
    let mut found = Vec::new();
    files(&dir, &["rs"], &mut found);
    assert!(found.len() > 20, "the sources are not where they should be: {}", dir.display());
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&dir).unwrap().to_str().unwrap().to_string();
        (!is_test_file(&name)).then(|| Source::new(&name, &fs::read_to_string(path).unwrap()))
    };
    found.iter().filter_map(read).collect()
}

fn check(rule: impl Fn(&Source) -> Vec<String>) {
    let complaints: Vec<_> = sources().iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn rooms_use_only_what_is_right_of_them() {
    check(arrows);
}

#[test]
fn dangerous_things_stay_in_their_place() {
    check(places);
}

#[test]
fn files_are_short_and_say_what_they_promise() {
    check(shape);
}

#[test]
fn nothing_is_unfinished_or_tied_to_one_machine() {
    let mut found = Vec::new();
    for dir in ["src", "tests", "examples", "scripts", "benches", "fuzz/fuzz_targets"] {
        files(&root().join(dir), &["rs", "sh", "py", "toml", "java"], &mut found);
    }
    found.extend(["README.md", "wal_format.md", "Cargo.toml"].map(|name| root().join(name)));
    let complaints =
        found.iter().flat_map(|path| words(&path.display().to_string(), &fs::read_to_string(path).unwrap_or_default()));
    let complaints: Vec<_> = complaints.collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn a_broken_arrow_is_seen() {
    let complaints = |path, text| arrows(&Source::new(path, text)).len();
    for (path, text, count) in [
        ("wal/writer.rs", "use crate::io::File;\nuse crate::record::Lsn;\n", 0),
        ("wal/writer.rs", "use crate::sink::Sink;\n", 1),
        ("wal/writer.rs", "use crate::{\n    io,\n    kafka::{Member, ffi},\n    record,\n};\n", 1),
        ("record/mod.rs", "fn f() -> crate::io::IoError {}\n", 1),
        ("record/mod.rs", "/// See [`crate::io`].\n", 0),
        ("config/mod.rs", "use crate::metrics::Metrics;\n", 1),
        ("pipeline/mod.rs", "use crate::server::Server;\n", 1),
        ("main.rs", "use crate::cli;\n", 0),
        ("attic/mod.rs", "", 1),
        ("metrics.rs", "use super::config::Config;\n", 1),
        ("wal/mod.rs", "use super::io::File;\n", 1),
        ("wal/scan/mod.rs", "use super::frame::Frame;\n", 0),
        ("wal/scan/mod.rs", "use super::super::io::File;\n", 1),
        ("metrics.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::cli;\n}\n", 0),
        ("metrics.rs", "#[cfg(test)]\nmod testing;\nuse crate::cli;\n", 1),
    ] {
        assert_eq!(complaints(path, text), count, "{path}: {text}");
    }
}

#[test]
fn a_thing_out_of_its_place_is_seen() {
    let complaints = |path, text| places(&Source::new(path, text)).len();
    for (path, text, count) in [
        ("io/disk.rs", "use std::fs::File;\n", 0),
        ("wal/segment.rs", "use std::fs::File;\n", 1),
        ("kafka/ffi/fetch.rs", "unsafe { f() }\n", 0),
        ("kafka/consumer.rs", "unsafe { f() }\n", 1),
        ("kafka/consumer.rs", "// not unsafe\n#![deny(unsafe_code)]\n", 0),
        ("wal/mod.rs", "fn f() -> anyhow::Result<()> {}\n", 1),
        ("wal/fold.rs", "bincode::serialize(x);\n", 1),
        ("wal/fold.rs", "let x = y.unwrap();\n", 1),
        ("wal/fold.rs", "let x = y.unwrap_or(0);\nassert!(x > 0);\n", 0),
        ("wal/fold.rs", "#[allow(clippy::expect_used)]\nlet x = y.expect(\"why\");\n", 2),
        ("wal/fold.rs", "#[cfg(test)]\nmod tests {\n    fn f() {\n        x.unwrap();\n    }\n}\n", 0),
    ] {
        assert_eq!(complaints(path, text), count, "{path}: {text}");
    }
}

#[test]
fn a_shapeless_file_is_seen() {
    let long = format!("//! Short.\n{}", "fn f() {}\n".repeat(LINES_MAX));
    assert_eq!(shape(&Source::new("wal/a.rs", &long)).len(), 1);
    let tested = format!("//! Short.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    fn f() {}\n".repeat(LINES_MAX));
    assert_eq!(shape(&Source::new("wal/a.rs", &tested)).len(), 0);
    assert_eq!(shape(&Source::new("wal/a.rs", "use x;\n")).len(), 1);
    assert_eq!(words("a.rs", &format!("// {}: later\n", concat!("TO", "DO"))).len(), 1);
}

/// Each of them is built with `--locked`, and would not be without this.
#[test]
fn the_locks_of_other_packages_know_what_this_one_depends_on() {
    let table = |path: &str| toml::from_str::<toml::Table>(&fs::read_to_string(root().join(path)).unwrap()).unwrap();
    let manifest = table("Cargo.toml");
    for lock in ["Cargo.lock", "bench-wal/Cargo.lock", "fuzz/Cargo.lock"] {
        let lines = table(lock)["package"].as_array().unwrap().clone();
        let package = lines.iter().find(|package| package["name"].as_str() == Some("forebay")).unwrap();
        // A name has its version behind it where there are several.
        let known =
            package["dependencies"].as_array().unwrap().iter().filter_map(|name| name.as_str()?.split(' ').next());
        let known: Vec<_> = known.collect();
        for name in manifest["dependencies"].as_table().unwrap().keys() {
            assert!(known.contains(&name.as_str()), "{lock} is older than Cargo.toml: no {name}");
        }
    }
}

/// What the museum and the fuzz targets are built from has no binary: a test of it that asks for one does not compile.
#[test]
fn the_tests_of_the_smaller_crate_ask_for_no_binary() {
    let script = fs::read_to_string(root().join("scripts/log-crate.sh")).unwrap();
    let names = script.split_once("tests=(").and_then(|(_, rest)| rest.split_once(')')).unwrap().0;
    for name in names.split_whitespace() {
        let file = [format!("tests/{name}.rs"), format!("tests/{name}/main.rs")].map(|path| root().join(path));
        let file = file.iter().find(|file| file.exists()).unwrap_or_else(|| panic!("there is no test {name}"));
        let text = fs::read_to_string(file).unwrap();
        let asks = text.replace("option_env!", "").contains(concat!("env!(\"CARGO_BIN", "_EXE"));
        assert!(!asks, "{}", file.display());
    }
}
