//! The configuration reference, generated from the table of settings.

use super::keys::{KEYS, Key, Kind};
use super::value::{show, show_bytes, show_time};
use super::{Config, owned};

/// The table of settings in Markdown, as the README has it.
pub fn markdown() -> String {
    let defaults = Config::default();
    let rows = KEYS.iter().map(|key| {
        let default = show(&defaults, key);
        let default = if default.is_empty() { "–".to_string() } else { format!("`{default}`") };
        format!(
            "| `{}` | {default} | {} | {} |
",
            key.name,
            limits(key),
            key.about
        )
    });
    let rows: String = rows.collect();
    let owned: Vec<_> = owned::names().map(|name| format!("`{name}`")).collect();
    format!(
        "| setting | default | may be | effect |
|---|---|---|---|
{rows}
\
         Forebay sets these librdkafka settings itself and refuses them: {}.
",
        owned.join(", ")
    )
}

fn limits(key: &Key) -> String {
    match &key.kind {
        Kind::Text(_) => "text".to_string(),
        Kind::List(_) => "list of texts".to_string(),
        Kind::Path(_) => "path".to_string(),
        Kind::Flag(_) => "`true`, `false`".to_string(),
        Kind::Secret(_) => "text, never shown".to_string(),
        Kind::Factor(min, max, _) => format!("{min} to {max}"),
        Kind::Count(min, max, _) | Kind::Limit(min, max, _) => format!("{min} to {max}"),
        Kind::Bytes(min, max, _) | Kind::Quota(min, max, _) => {
            format!("{} to {}", show_bytes(*min), show_bytes(*max))
        }
        Kind::Time(min, max, _) => format!("{} to {}", show_time(*min), show_time(*max)),
        Kind::Choice(words, ..) => {
            let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
        Kind::Target(_) => "`file:DIR`, `stdout`, `null`".to_string(),
        Kind::Listen(_) => "address and port, `off`".to_string(),
        Kind::Properties(_) => "table".to_string(),
    }
}
