//! From what somebody wrote to the value of a setting, and back to text.
//!
//! Promises: pure; a message says what is allowed. It repeats what was written unless the setting may be a secret.

use super::keys::{Key, Kind};
use super::{Config, GIB, KIB, MIB, Target, owned, shown};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A value as it was given: typed in a file, plain text everywhere else.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// From TOML.
    Toml(toml::Value),
    /// From the environment or the command line.
    Text(String),
}

impl Given {
    fn text(&self) -> Result<&str, String> {
        match self {
            Self::Toml(toml::Value::String(text)) | Self::Text(text) => Ok(text),
            Self::Toml(other) => Err(format!("must be text in quotes, not {}", article(other))),
        }
    }

    fn count(&self) -> Result<u64, String> {
        let number = match self {
            Self::Toml(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
            Self::Text(text) => text.parse().ok(),
            Self::Toml(_) => None,
        };
        number.ok_or_else(|| "must be a whole number".to_string())
    }

    fn number(&self) -> Result<f64, String> {
        let number = match self {
            Self::Toml(toml::Value::Float(number)) => Some(*number),
            Self::Toml(toml::Value::Integer(number)) => Some(*number as f64),
            Self::Text(text) => text.parse().ok(),
            Self::Toml(_) => None,
        };
        number.filter(|number| number.is_finite()).ok_or_else(|| "must be a number".to_string())
    }

    fn flag(&self) -> Result<bool, String> {
        match self {
            Self::Toml(toml::Value::Boolean(flag)) => Ok(*flag),
            Self::Text(text) if text == "true" => Ok(true),
            Self::Text(text) if text == "false" => Ok(false),
            _ => Err("must be true or false".to_string()),
        }
    }

    fn list(&self) -> Result<Vec<String>, String> {
        match self {
            Self::Toml(toml::Value::Array(items)) => {
                let texts = items.iter().map(|item| item.as_str().map(str::to_string));
                texts.collect::<Option<_>>().ok_or_else(|| "must be a list of texts".to_string())
            }
            Self::Text(text) => Ok(text.split(',').map(|item| item.trim().to_string()).collect()),
            Self::Toml(_) => Err("must be a list of texts, as in [\"a\", \"b\"]".to_string()),
        }
    }

    fn scalar(&self) -> Result<String, String> {
        match self {
            Self::Text(text) | Self::Toml(toml::Value::String(text)) => Ok(text.clone()),
            Self::Toml(toml::Value::Integer(number)) => Ok(number.to_string()),
            Self::Toml(toml::Value::Boolean(flag)) => Ok(flag.to_string()),
            Self::Toml(toml::Value::Float(number)) => Ok(number.to_string()),
            Self::Toml(_) => Err("must be a text, a number, true or false".to_string()),
        }
    }
}

fn article(value: &toml::Value) -> String {
    let name = value.type_str();
    let an = name.starts_with(['a', 'i']);
    format!("{} {name}", if an { "an" } else { "a" })
}

/// Puts a given value into its field, or says what is wrong with it.
pub(super) fn set(config: &mut Config, key: &Key, given: &Given) -> Result<(), String> {
    match &key.kind {
        Kind::Text(field) => *field(config) = non_empty(given.text()?)?.to_string(),
        Kind::List(field) => *field(config) = given.list()?,
        Kind::Path(field) => *field(config) = PathBuf::from(non_empty(given.text()?)?),
        Kind::Flag(field) => *field(config) = given.flag()?,
        Kind::Count(min, max, field) => {
            let number = within(given.count()?, u64::from(*min), u64::from(*max), |n| n.to_string())?;
            *field(config) = u32::try_from(number).map_err(|error| error.to_string())?;
        }
        Kind::Bytes(min, max, field) => {
            *field(config) = within(bytes(given)?, *min, *max, show_bytes)?;
        }
        Kind::Quota(min, max, field) => {
            *field(config) = Some(within(bytes(given)?, *min, *max, show_bytes)?);
        }
        Kind::Time(min, max, field) => {
            *field(config) = within(time(given)?, *min, *max, show_time)?;
        }
        Kind::Secret(field) => {
            *field(config) = non_empty(given.text().map_err(|_| "must be text in quotes")?)?.to_string();
        }
        Kind::Limit(min, max, field) => {
            let number = within(given.count()?, u64::from(*min), u64::from(*max), |n| n.to_string())?;
            *field(config) = Some(u32::try_from(number).map_err(|error| error.to_string())?);
        }
        Kind::Factor(min, max, field) => *field(config) = within(given.number()?, *min, *max, |n| n.to_string())?,
        Kind::Choice(words, _, set) => set(config, choice(given.text()?, words)?),
        Kind::Target(field) => *field(config) = Some(target(given.text()?)?),
        Kind::Listen(field) => {
            let listen = listen(given.text()?)?;
            let server = field(config);
            (server.listen, server.listen_is_default) = (listen, false);
        }
        Kind::Properties(_) => return Err("must be a table of librdkafka's settings".to_string()),
    }
    Ok(())
}

/// Puts one librdkafka setting into the table.
pub(super) fn set_property(config: &mut Config, name: &str, given: &Given) -> Result<(), String> {
    if let Some(refusal) = owned::refusal(name) {
        return Err(refusal);
    }
    let value = given.scalar()?;
    config.kafka.properties.0.insert(name.to_string(), value);
    Ok(())
}

/// The value of a setting as text; secrets are replaced.
pub(super) fn show(config: &Config, key: &Key) -> String {
    // Fields are reached for writing; a copy keeps the caller's untouched.
    let mut copy = config.clone();
    match &key.kind {
        Kind::Text(field) => field(&mut copy).clone(),
        Kind::List(field) => field(&mut copy).join(","),
        Kind::Path(field) => field(&mut copy).display().to_string(),
        Kind::Flag(field) => field(&mut copy).to_string(),
        Kind::Count(.., field) => field(&mut copy).to_string(),
        Kind::Bytes(.., field) => show_bytes(*field(&mut copy)),
        Kind::Quota(.., field) => field(&mut copy).map(show_bytes).unwrap_or_default(),
        Kind::Time(.., field) => show_time(*field(&mut copy)),
        Kind::Secret(field) => if field(&mut copy).is_empty() { "" } else { "[hidden]" }.to_string(),
        Kind::Limit(.., field) => field(&mut copy).map(|number| number.to_string()).unwrap_or_default(),
        Kind::Factor(.., field) => field(&mut copy).to_string(),
        Kind::Choice(words, get, _) => words[get(config)].to_string(),
        Kind::Target(field) => field(&mut copy).as_ref().map(ToString::to_string).unwrap_or_default(),
        Kind::Listen(field) => field(&mut copy).listen.map_or("off".to_string(), |at| at.to_string()),
        Kind::Properties(field) => {
            let all = &field(&mut copy).0;
            let lines: Vec<_> = all.iter().map(|(name, value)| format!("{name}={}", shown(name, value))).collect();
            lines.join(" ")
        }
    }
}

fn non_empty(text: &str) -> Result<&str, String> {
    if text.is_empty() { Err("must not be empty".to_string()) } else { Ok(text) }
}

fn within<T: PartialOrd + Copy>(value: T, min: T, max: T, show: impl Fn(T) -> String) -> Result<T, String> {
    if value < min || value > max {
        return Err(format!("is {}, must be from {} to {}", show(value), show(min), show(max)));
    }
    Ok(value)
}

fn bytes(given: &Given) -> Result<u64, String> {
    const WANTED: &str = "must be a size with its unit, as in \"64MiB\"";
    let text = given.text().map_err(|_| WANTED.to_string())?;
    if text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(WANTED.to_string());
    }
    text.parse::<bytesize::ByteSize>().map(|size| size.as_u64()).map_err(|_| format!("is \"{text}\", {WANTED}"))
}

fn time(given: &Given) -> Result<Duration, String> {
    const WANTED: &str = "must be a duration with its unit, as in \"200ms\"";
    let text = given.text().map_err(|_| WANTED.to_string())?;
    humantime::parse_duration(text).map_err(|_| format!("is \"{text}\", {WANTED}"))
}

fn choice(text: &str, words: &[&str]) -> Result<usize, String> {
    let place = words.iter().position(|word| *word == text);
    place.ok_or_else(|| match words {
        [only] => format!("is \"{text}\", but there is only \"{only}\""),
        _ => format!("is \"{text}\", must be one of {}", words.join(", ")),
    })
}

fn target(text: &str) -> Result<Target, String> {
    match (text, text.strip_prefix("file:")) {
        ("stdout" | "-", _) => Ok(Target::Stdout),
        ("null", _) => Ok(Target::Null),
        (_, Some(dir)) if !dir.is_empty() => Ok(Target::File(PathBuf::from(dir))),
        _ => Err(format!("is \"{text}\", must be file:DIR, stdout or null")),
    }
}

fn listen(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    let address =
        text.parse().map_err(|_| format!("is \"{text}\", must be an address and port like 127.0.0.1:9465, or off"));
    address.map(Some)
}

/// A size in the largest unit that keeps it whole.
pub(super) fn show_bytes(bytes: u64) -> String {
    match bytes {
        n if n >= GIB && n % GIB == 0 => format!("{}GiB", n / GIB),
        n if n >= MIB && n % MIB == 0 => format!("{}MiB", n / MIB),
        n if n >= KIB && n % KIB == 0 => format!("{}KiB", n / KIB),
        n => format!("{n}B"),
    }
}

/// A duration with units.
pub(super) fn show_time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}
