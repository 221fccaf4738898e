//! Durable appends side by side: Forebay's log, other logs, and what the disk gives at best.
//!
//! ```text
//! bench-wal append DIR [ROUNDS [SECONDS]]    every append waits for its sync; interleaved rounds, medians
//! bench-wal recovery DIR [GIB [GIB]]         verifying every byte of a log; opening a long one
//! ```
//!
//! `BENCH_WAL_ENGINES` and `BENCH_WAL_SHAPES` choose some of them, by name, with commas between. The last line on standard
//! output is JSON. Everything in DIR that it made is removed at the end.

mod ceiling;
mod engines;
mod load;
mod recovery;
mod table;

use anyhow::{Context, Result, bail};
use load::{Figure, SHAPES};
use std::path::Path;
use std::time::Duration;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, otherwise: f64| arguments.get(at).map_or(Ok(otherwise), |text| text.parse::<f64>());
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["append", dir, ..] => {
            append(Path::new(dir), number(2, 5.0)? as usize, Duration::from_secs_f64(number(3, 2.0)?))
        }
        ["recovery", dir, ..] => recovery::measure(Path::new(dir), number(2, 2.0)?, number(3, 10.0)?),
        ["verify", dir] => recovery::verify(Path::new(dir)),
        ["open", dir] => recovery::open(Path::new(dir)),
        _ => bail!("bench-wal append|recovery DIR ...: see the beginning of its source"),
    }
}

/// All engines at all shapes. Each engine is opened once for a shape and warmed up; then they take turns.
fn append(dir: &Path, rounds: usize, seconds: Duration) -> Result<()> {
    let mut all = Vec::new();
    let chosen = |variable: &str, name: &str| {
        let wanted = std::env::var(variable).unwrap_or_default();
        wanted.is_empty() || wanted.split(',').any(|wanted| wanted == name)
    };
    for shape in SHAPES.into_iter().filter(|shape| chosen("BENCH_WAL_SHAPES", shape.name)) {
        let mut engines = Vec::new();
        for (name, make) in engines::ALL.into_iter().filter(|(name, _)| chosen("BENCH_WAL_ENGINES", name)) {
            let dir = dir.join(name);
            std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
            let engine = make(&dir, &shape).with_context(|| format!("opening {name}"))?;
            load::drive(engine.as_ref(), &shape, seconds).with_context(|| format!("warming up {name}"))?;
            engines.push((name, engine, Vec::<Figure>::new()));
        }
        for round in 0..rounds {
            // Whoever comes first finds a quieter disk: everybody does once.
            engines.rotate_left(usize::from(round > 0));
            for (name, engine, figures) in &mut engines {
                let figure =
                    load::drive(engine.as_ref(), &shape, seconds).with_context(|| format!("running {name}"))?;
                figures.push(figure);
            }
        }
        engines.sort_by_key(|(name, ..)| engines::ALL.iter().position(|(known, _)| known == name));
        let medians = engines.iter().map(|(name, _, figures)| (*name, Figure::median(figures))).collect();
        for (name, engine, _) in engines {
            engine.close().with_context(|| format!("closing {name}"))?;
            std::fs::remove_dir_all(dir.join(name))?;
        }
        all.push((shape, medians));
    }
    table::print(&all);
    Ok(())
}
