//! The figures, for people and as JSON.

use crate::load::{Figure, Shape};
use serde_json::{Map, Value, json};

/// The table, then one line of JSON: MB/s by shape and engine.
pub fn print(all: &[(Shape, Vec<(&'static str, Figure)>)]) {
    println!(
        "{:<10} {:<12} {:>8} {:>10} {:>9} {:>13} {:>11}",
        "shape", "engine", "MB/s", "us/append", "CPU s/GB", "appends/sync", "of ceiling"
    );
    let mut document = Map::new();
    for (shape, figures) in all {
        let ceiling = figures.iter().find(|(name, _)| *name == "ceiling").map_or(f64::NAN, |(_, f)| f.megabytes);
        let mut object = Map::new();
        for (name, Figure { megabytes, micros, cpu, group }) in figures {
            let part = megabytes / ceiling;
            let group = if group.is_nan() { String::new() } else { format!("{group:.2}") };
            println!(
                "{:<10} {name:<12} {megabytes:>8.1} {micros:>10.1} {cpu:>9.2} {group:>13} {part:>11.2}",
                shape.name
            );
            object.insert((*name).to_owned(), json!((megabytes * 10.0).round() / 10.0));
        }
        document.insert(shape.name.to_owned(), Value::Object(object));
    }
    println!("{}", Value::Object(document));
}
