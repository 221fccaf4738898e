//! One flipped byte anywhere in the log is found and named.

use std::path::{Path, PathBuf};

use crate::common::process::forebay;
use crate::common::{Dice, Run, Scratch, env_number, kafka, unique};

const PARTITIONS: i32 = 2;

fn segments(wal: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(wal).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths.filter(|p| p.extension().is_some_and(|e| e == "wal")).collect();
    found.sort();
    found
}

fn check(wal: &Path) -> (Option<i32>, String) {
    let finished = forebay(&["wal", "check", &wal.display().to_string()]);
    let text = format!("{}{}", finished.stdout, finished.stderr);
    (finished.status.code(), text)
}

/// The end of what was written: beyond it the last segment holds zeros only.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1
}

#[test]
fn a_flipped_byte_is_found_and_named() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("damage");
    let topic = unique("damage");
    kafka.create_topic(&topic, PARTITIONS, &[]);
    kafka.fill(&topic, PARTITIONS, 0, 3000, 200);
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path());
    run.drain();
    let (code, text) = check(run.wal());
    assert_eq!(code, Some(0), "{text}");
    let mut dice = Dice::new("damage");
    let flips = env_number("FOREBAY_FLIPS", 60);
    let mut with_offsets = 0;
    for path in segments(run.wal()) {
        let clean = std::fs::read(&path).unwrap();
        let end = written(&clean);
        for flip in 0..flips {
            // The first pages hold headers and State, the rest mostly blocks: look at both closely.
            let high = if flip % 2 == 0 { end.min(16 * 1024) } else { end };
            let place = dice.range(0, high as u64) as usize;
            let mut bytes = clean.clone();
            bytes[place] ^= 1 << dice.range(0, 8);
            std::fs::write(&path, &bytes).unwrap();
            let (code, text) = check(run.wal());
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(code, Some(3), "byte {place} of {name} (written up to {end}):\n{text}");
            assert!(text.contains(name), "byte {place} of {name}:\n{text}");
            with_offsets += u32::from(text.contains(&topic) || text.contains("offset"));
        }
        std::fs::write(&path, &clean).unwrap();
    }
    assert!(with_offsets > 0, "no damaged block named its offsets");
    let (code, text) = check(run.wal());
    assert_eq!(code, Some(0), "{text}");
}

/// A damaged block that is acknowledged, not yet delivered and gone from Kafka stops its partition: nothing is delivered
/// past it, nothing on disk is changed.
#[test]
fn a_run_stops_at_an_acknowledged_damaged_block() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("stop-at-damage");
    let (topic, group) = (unique("stop-at-damage"), unique("group"));
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, 20_000, 200);
    // A pipe that nobody reads keeps everything acknowledged and undelivered; the kill keeps it so.
    let run = Run::new(kafka, &topic, &group, scratch.path()).set("sink.format=raw");
    let process = run.clone().stdout_sink().spawn();
    crate::common::wait_for("commit of everything", crate::common::process::LIMIT, || {
        (kafka.committed(&group, &topic, 1) == [Some(20_000)]).then_some(())
    });
    process.kill();
    let path = segments(run.wal()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let needle = b"p0-19000-";
    let place = bytes.windows(needle.len()).position(|w| w == needle).unwrap();
    bytes[place + needle.len()] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    // Otherwise it would be fetched again.
    kafka.delete_records(&topic, 0, 20_000);
    let finished = run.clone().exit_at_end().finish();
    assert!(matches!(finished.status.code(), Some(1 | 3 | 74)), "{}:\n{}", finished.status, finished.stderr);
    finished.says(path.file_name().unwrap().to_str().unwrap());
    let found = crate::common::verify::lines(run.out(), &topic, 0, crate::common::Format::Raw);
    let values = found.iter().filter_map(|line| line.value.as_deref());
    let highest = values.filter_map(|v| v.split('-').nth(1)?.parse::<u64>().ok()).max();
    assert!(highest < Some(19_000), "delivered past the damage: {highest:?}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "the damaged segment was changed");
    // What direct mode would plan behind it is not even fetched.
    kafka.fill(&topic, 1, 20_000, 20_100, 200);
    let direct = run.set("mode=direct").exit_at_end().finish();
    direct.expect(finished.status.code().unwrap());
    direct.says("can't be repaired");
    assert_eq!(kafka.committed(&group, &topic, 1), [Some(20_000)]);
}
