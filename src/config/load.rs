//! Layers into one configuration: defaults, file, environment, `--set`, flags; each overrides the ones before.
//!
//! Promises: every problem is reported, with the place it came from. Never: it reads nothing itself; texts are given.

use super::keys::{KEYS, PROPERTIES, find};
use super::value::{self, Given};
use super::{Config, check, environment};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Everything somebody may have said about the configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Path and text of the file.
    pub file: Option<(PathBuf, String)>,
    /// The environment, whole; what does not concern us is passed over.
    pub environment: Vec<(String, String)>,
    /// Names of variables whose name or value is not UTF-8, as well as they can be shown.
    pub not_utf8: Vec<String>,
    /// `a.b=c` texts.
    pub set: Vec<String>,
    /// Flags that stand for a setting.
    pub flags: Vec<Flag>,
}

/// A flag that stands for a setting.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As typed, for messages.
    pub flag: &'static str,
    /// The setting.
    pub key: &'static str,
    /// One value, or several for a list.
    pub values: Vec<String>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of the file.
    File(PathBuf, usize),
    /// A variable.
    Environment(String),
    /// `--set`.
    Set,
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Set => f.write_str("--set"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, or the part of it that was understood.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
    /// Who said so; `None` when nobody did and somebody should have.
    pub origin: Option<Origin>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{} ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.origin {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}

/// All that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// A configuration without problems, and where its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// By name of the setting; missing ones are defaults.
    pub origins: BTreeMap<String, Origin>,
}

/// One setting and its value for people; secrets are replaced.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    /// Dotted name.
    pub key: &'static str,
    /// The value.
    pub value: String,
    /// Where it came from.
    pub origin: String,
}

impl Loaded {
    /// All settings as they are in force.
    pub fn rows(&self) -> Vec<Row> {
        let origin = |name: &str| self.origins.get(name).unwrap_or(&Origin::Default).to_string();
        let row = |key: &super::keys::Key| (value::show(&self.config, key), origin(key.name));
        let rows = KEYS.iter().map(|key| (key.name, row(key)));
        rows.map(|(key, (value, origin))| Row { key, value, origin }).collect()
    }
}

#[derive(Debug)]
struct Setting {
    key: String,
    given: Given,
    origin: Origin,
}

/// Merges the sources and checks the result.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let mut settings = Vec::new();
    if let Some((path, text)) = &sources.file {
        from_file(path, text, &mut settings, &mut problems);
    }
    from_environment(&sources.environment, &mut settings);
    problems.extend(sources.not_utf8.iter().filter_map(|name| not_utf8(name)));
    from_set(&sources.set, &mut settings, &mut problems);
    settings.extend(sources.flags.iter().map(from_flag));
    let mut config = Config::default();
    let mut origins = BTreeMap::new();
    for setting in settings {
        match apply(&mut config, &setting) {
            Ok(name) => {
                origins.insert(name.to_string(), setting.origin);
            }
            Err(message) => problems.push(Problem { key: setting.key, message, origin: Some(setting.origin) }),
        }
    }
    problems.extend(check::check(&config, &origins, &problems));
    if problems.is_empty() { Ok(Loaded { config, origins }) } else { Err(Problems(problems)) }
}

/// Applies one setting; returns the name its origin is kept under.
fn apply(config: &mut Config, setting: &Setting) -> Result<&'static str, String> {
    let property = setting.key.strip_prefix(PROPERTIES).and_then(|rest| rest.strip_prefix('.'));
    if let Some(name) = property {
        value::set_property(config, name, &setting.given)?;
        return Ok(PROPERTIES);
    }
    let key = find(&setting.key).ok_or_else(|| unknown(&setting.key))?;
    value::set(config, key, &setting.given)?;
    Ok(key.name)
}

fn unknown(name: &str) -> String {
    match suggestion(name) {
        Some(close) => format!("is not a setting; did you mean {close}?"),
        None => "is not a setting".to_string(),
    }
}

/// The setting somebody probably meant: the same last word in another section, or few letters away.
fn suggestion(name: &str) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().map(str::to_string);
    let mut moved = KEYS.iter().filter(|key| last(key.name) == last(name));
    if let (Some(only), None) = (moved.next(), moved.next()) {
        return Some(only.name);
    }
    let letters = name.chars().count();
    let few = letters.div_ceil(3).min(5);
    // Names differ by at least as many letters as one is longer: comparing costs time for the product of their lengths.
    let alike = KEYS.iter().filter(|key| key.name.len().abs_diff(letters) <= few);
    let (distance, near) = alike.map(|key| (strsim::damerau_levenshtein(key.name, name), key.name)).min()?;
    (distance <= few).then_some(near)
}

fn from_file(path: &Path, text: &str, settings: &mut Vec<Setting>, problems: &mut Vec<Problem>) {
    match DeTable::parse(text) {
        Ok(table) => {
            let place = |at: usize| Origin::File(path.to_path_buf(), line_of(text, at));
            flatten("", table.get_ref(), &place, settings);
        }
        // Only the message: the error's own text would repeat the line, and with it a secret.
        Err(error) => {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            let message = format!("is not TOML: {}", error.message().trim_end());
            let origin = Some(Origin::File(path.to_path_buf(), line));
            problems.push(Problem { key: "the file".to_string(), message, origin });
        }
    }
}

fn line_of(text: &str, position: usize) -> usize {
    1 + text.get(..position).unwrap_or_default().matches('\n').count()
}

fn flatten(above: &str, table: &DeTable<'_>, place: &impl Fn(usize) -> Origin, settings: &mut Vec<Setting>) {
    for (name, value) in table {
        let key = if above.is_empty() { name.get_ref().to_string() } else { format!("{above}.{}", name.get_ref()) };
        match value.get_ref() {
            DeValue::Table(inner) => flatten(&key, inner, place, settings),
            leaf => settings.push(Setting { key, given: Given::Toml(plain(leaf)), origin: place(name.span().start) }),
        }
    }
}

/// A parsed value without its places. Numbers out of range become text, which no number setting takes.
fn plain(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Boolean(flag) => toml::Value::Boolean(*flag),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            parsed.map_or_else(|_| toml::Value::String(number.as_str().to_string()), toml::Value::Integer)
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().parse();
            parsed.map_or_else(|_| toml::Value::String(number.as_str().to_string()), toml::Value::Float)
        }
        DeValue::Datetime(time) => toml::Value::Datetime(*time),
        DeValue::Array(items) => toml::Value::Array(items.iter().map(|item| plain(item.get_ref())).collect()),
        DeValue::Table(inner) => {
            let entries = inner.iter().map(|(name, value)| (name.get_ref().to_string(), plain(value.get_ref())));
            toml::Value::Table(entries.collect())
        }
    }
}

fn from_environment(environment: &[(String, String)], settings: &mut Vec<Setting>) {
    for (name, value) in environment {
        if let Some(key) = environment::setting(name) {
            let origin = Origin::Environment(name.clone());
            settings.push(Setting { key, given: Given::Text(value.clone()), origin });
        }
    }
}

fn not_utf8(name: &str) -> Option<Problem> {
    let key = environment::setting(name)?;
    let origin = Some(Origin::Environment(name.to_string()));
    Some(Problem { key, message: "is not UTF-8".to_string(), origin })
}

fn from_set(set: &[String], settings: &mut Vec<Setting>, problems: &mut Vec<Problem>) {
    for text in set {
        match text.split_once('=') {
            Some((key, value)) => settings.push(Setting {
                key: key.trim().to_string(),
                given: Given::Text(value.trim().to_string()),
                origin: Origin::Set,
            }),
            None => problems.push(Problem {
                key: text.clone(),
                message: "needs a value, as in --set sink.format=raw".to_string(),
                origin: Some(Origin::Set),
            }),
        }
    }
}

fn from_flag(flag: &Flag) -> Setting {
    let is_list = find(flag.key).is_some_and(|key| matches!(key.kind, super::keys::Kind::List(_)));
    let given = if is_list {
        let items = flag.values.iter().cloned().map(toml::Value::String);
        Given::Toml(toml::Value::Array(items.collect()))
    } else {
        Given::Text(flag.values.join(","))
    };
    Setting { key: flag.key.to_string(), given, origin: Origin::Flag(flag.flag) }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
