//! `scripts/read_wal.py`, written from `wal_format.md` alone, and the library read the same: every frame with its fields
//! and bytes, every damaged place, and whether a log is clean, torn or damaged. On random logs and damaged copies of them.
//!
//! Needs Python 3. `SECOND_READER_SEEDS=FIRST..LAST` tries other logs than the usual ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod second_reader_world;

use forebay::io::disk::Disk;
use forebay::record::{Lsn, batch};
use forebay::wal::format::frame::FrameHeader;
use forebay::wal::inspect::{Dumped, dump, inspect};
use forebay::wal::recovery::table::Verdict;
use forebay::wal::{Entry, State};
use second_reader_world::{Life, Rng, damage};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

/// What a reader makes of a log.
#[derive(Debug, Default)]
struct View {
    /// `clean`, `torn`, `damaged` or `refused`.
    verdict: &'static str,
    /// By segment and position.
    frames: BTreeMap<(u64, u64), Value>,
    damaged: BTreeSet<(u64, u64, u64, Lsn)>,
    findings: BTreeSet<(String, String)>,
    /// The findings, for people.
    told: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The library's view.
fn library(dir: &Path) -> View {
    let mut view = View { verdict: "refused", ..View::default() };
    let Ok(log) = inspect(&Disk, dir) else { return view };
    view.verdict = match (log.is_damaged(), log.findings.is_empty()) {
        (true, _) => "damaged",
        (false, true) => "clean",
        (false, false) => "torn",
    };
    for finding in &log.findings {
        writeln!(view.told, "{finding:?}").unwrap();
        let verdict = match finding.verdict {
            Verdict::Torn => "torn",
            Verdict::Report => "damaged",
            Verdict::StopPartition => "corrupt-block",
            Verdict::Refuse => "corrupt",
            Verdict::Unreadable => "unreadable",
        };
        view.findings.insert((verdict.to_owned(), finding.path.display().to_string()));
    }
    for segment in &log.segments {
        let number = segment.number;
        dump(&Disk, dir, number, &mut |piece| {
            match piece {
                Dumped::Segment(header) => {
                    assert_eq!(header.number, number);
                    let value = json!({"salt": header.salt, "first_lsn": header.first_lsn, "end": header.predecessor.end_position});
                    view.frames.insert((number, 0), value);
                }
                Dumped::State(state) => {
                    view.frames.insert((number, 8192), of_state(state));
                }
                Dumped::Frame(header, entry) => {
                    view.frames.insert((number, header.position), of_frame(header, entry));
                }
                Dumped::Damage(place) => {
                    view.damaged.insert((number, place.position, place.end, place.lsn));
                }
            }
            true
        })
        .unwrap();
    }
    view
}

fn of_state(state: &State) -> Value {
    let mut payload = Vec::new();
    state.encode(&mut payload).unwrap();
    let partitions = state.partitions.iter().map(|(partition, known)| {
        let delivery = known.delivery.iter().map(|(route, d)| {
            let receipt = d.receipt.as_ref().map(|r| json!([r.first, r.next, r.keep_from, hex(&r.detail)]));
            json!([route, d.delivered, d.delivered_lsn, receipt, d.named])
        });
        let undecided = known.undecided.iter().map(|r| json!([r.tenure, r.first, r.next]));
        let disowned = known.disowned.iter().map(|r| json!([r.tenure, r.first, r.next, r.lsn]));
        let gaps = known.gaps.iter().map(|r| json!([r.first, r.next, r.reason]));
        let [undecided, disowned, gaps, delivery]: [Vec<Value>; 4] =
            [undecided.collect(), disowned.collect(), gaps.collect(), delivery.collect()];
        let whose = json!([partition.topic, partition.number, known.tenure, known.tenure_start, known.owned]);
        json!([whose, [known.admitted, known.acked, known.acked_entries], undecided, disowned, gaps, delivery])
    });
    let topics = state.topics.iter().map(|(number, topic)| json!([number, topic.name, topic.id.to_string()]));
    let plans = state.plans.iter().map(|plan| json!([plan.route, plan.id, plan.time_ms, plan.ranges.len()]));
    json!({
        "payload_hash": crc32fast::hash(&payload), "wal_id": format!("{:032x}", state.wal_id), "lsn": state.lsn,
        "retired_below": state.retired_below, "kept_lsn": state.kept_lsn, "topics": topics.collect::<Vec<_>>(),
        "plans": plans.collect::<Vec<_>>(), "partitions": partitions.collect::<Vec<_>>(),
    })
}

fn of_frame(header: &FrameHeader, entry: Option<&Entry>) -> Value {
    let mut frame = json!({
        "kind": format!("{:?}", header.kind), "payload_len": header.payload_len, "pad_len": header.pad_len,
        "lsn": header.lsn, "position": header.position, "synced_through": header.synced_through, "first": header.first,
        "next": header.next, "topic": header.partition.topic, "partition": header.partition.number,
        "leader_epoch": header.leader_epoch, "count": header.count, "digest": header.digest, "tenure": header.tenure,
        "route": header.route, "length": header.frame_len(), "payload_crc": header.payload_crc,
    });
    let mut encoded = Vec::new();
    let payload = match entry {
        Some(Entry::Block(block)) => &block.payload[..],
        Some(entry) => {
            entry.encode(&mut encoded).unwrap();
            &encoded
        }
        None => return frame,
    };
    frame["payload_hash"] = json!(crc32fast::hash(payload));
    frame["entry"] = entry.map_or(Value::Null, content);
    frame
}

/// What the header of a compressed batch says of it.
fn packed(batch: &[u8]) -> Value {
    let (offset, count) = (&batch[..8], &batch[57..61]);
    json!([{"offset": i64::from_be_bytes(offset.try_into().unwrap()),
            "count": i32::from_be_bytes(count.try_into().unwrap()), "codec": batch[22] & 7}])
}

fn content(entry: &Entry) -> Value {
    match entry {
        Entry::Block(block) => {
            let plain = batch::unpacked(&block.payload).unwrap();
            assert_eq!(batch::digest(&plain, block.header.first).unwrap(), block.header.digest);
            // To unpack what is compressed is beyond Python's standard library.
            if matches!(plain, Cow::Owned(_)) {
                return packed(&block.payload);
            }
            let records = batch::records(&plain).map(|record| {
                let record = record.unwrap();
                let headers = record.headers.iter().map(|(name, value)| json!([text(Some(name)), text(value)]));
                json!({"offset": record.offset, "timestamp": record.timestamp, "key": text(record.key),
                       "value": text(record.value), "headers": headers.collect::<Vec<_>>()})
            });
            Value::Array(records.collect())
        }
        Entry::Gap { reason, .. } => json!({ "reason": reason }),
        Entry::Topic { name, id, .. } => json!({"name": name, "id": id.to_string()}),
        Entry::Owned { acked_entries, .. } => json!({ "acked_entries": acked_entries }),
        Entry::Named { name, .. } | Entry::Route { name, .. } => json!({ "name": name }),
        Entry::Delivered { through_lsn, keep_from, detail, .. } => {
            json!({"through_lsn": through_lsn, "keep_from": keep_from, "detail": hex(detail)})
        }
        Entry::RetiredBelow { segment, lsn } => json!({"segment": segment, "lsn": lsn}),
        Entry::Plan { id, time_ms, ranges, .. } => {
            let range = |r: &forebay::wal::PlanRange| json!({"topic": r.topic, "partition": r.partition, "from": r.from, "until": r.until});
            json!({"id": id, "time_ms": time_ms, "ranges": ranges.iter().map(range).collect::<Vec<_>>()})
        }
        Entry::PlanDropped { id, .. } => json!({ "id": id }),
        _ => json!({}),
    }
}

fn text(bytes: Option<&[u8]>) -> Value {
    use base64::Engine as _;
    let Some(bytes) = bytes else { return Value::Null };
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes) }),
    }
}

/// Python's view.
fn script(dir: &Path, options: &[&str]) -> View {
    let script = Path::new(file!()).parent().unwrap().join("../scripts/read_wal.py");
    let output = Command::new("python3").arg(&script).arg(dir).args(options).output();
    let Output { status, stdout, stderr } = output.expect("python3 is needed for this test");
    let told = String::from_utf8(stderr).unwrap();
    let code = status.code().unwrap();
    assert!(!told.contains("Traceback") && [0, 1, 3].contains(&code), "{told}");
    let verdict = match code {
        0 if told.is_empty() => "clean",
        0 => "torn",
        3 => "damaged",
        _ => "refused",
    };
    let mut view = View { verdict, ..View::default() };
    view.told.clone_from(&told);
    if code != 1 {
        view.findings = told.lines().map(|line| line.split_once(": ").unwrap()).map(finding).collect();
    }
    for line in String::from_utf8(stdout).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let at = |name: &str| row[name].as_u64().unwrap_or_else(|| panic!("{name} in {line}"));
        match row["kind"].as_str().unwrap() {
            "Segment" => {
                let value =
                    json!({"salt": row["salt"], "first_lsn": row["first_lsn"], "end": row["predecessor_end_position"]});
                view.frames.insert((at("number"), 0), value);
            }
            "Damage" => {
                view.damaged.insert((at("segment"), at("position"), at("end"), at("lsn")));
            }
            "State" => {
                // The library's dump shows one of the two.
                let state = shown_state(&row);
                let known = view.frames.insert((at("segment"), 8192), state.clone());
                assert!(known.is_none_or(|known| known == state), "the two States differ");
            }
            _ => {
                view.frames.insert((at("segment"), at("position")), shown_frame(row));
            }
        }
    }
    view
}

fn finding((verdict, rest): (&str, &str)) -> (String, String) {
    (verdict.to_owned(), rest.split_once(", byte ").unwrap().0.to_owned())
}

fn shown_frame(mut row: Value) -> Value {
    let fields = row.as_object_mut().unwrap();
    fields.remove("segment");
    if fields["kind"] == "Footer" {
        fields.remove("payload_hash");
        fields.remove("entry");
    }
    row
}

fn shown_state(row: &Value) -> Value {
    let entry = &row["entry"];
    let list = |value: &Value, names: &[&str]| -> Vec<Value> {
        let pick = |item: &Value| json!(names.iter().map(|name| item[*name].clone()).collect::<Vec<_>>());
        value.as_array().unwrap().iter().map(pick).collect()
    };
    let partitions = entry["partitions"].as_array().unwrap().iter().map(|p| {
        let delivery = p["delivery"].as_array().unwrap().iter().map(|d| {
            let r = &d["receipt"];
            let receipt =
                if r.is_null() { json!(null) } else { json!([r["first"], r["next"], r["keep_from"], r["detail"]]) };
            json!([d["route"], d["delivered"], d["delivered_lsn"], receipt, d["named"]])
        });
        json!([
            [p["topic"], p["partition"], p["tenure"], p["tenure_start"], p["owned"]],
            [p["admitted"], p["acked"], p["acked_entries"]],
            list(&p["undecided"], &["tenure", "first", "next"]),
            list(&p["disowned"], &["tenure", "first", "next", "lsn"]),
            list(&p["gaps"], &["first", "next", "reason"]),
            delivery.collect::<Vec<_>>()
        ])
    });
    let plans = entry["plans"].as_array().unwrap().iter();
    let plans = plans.map(|p| json!([p["route"], p["id"], p["time_ms"], p["ranges"].as_array().unwrap().len()]));
    json!({
        "payload_hash": row["payload_hash"], "wal_id": entry["wal_id"], "lsn": entry["lsn"],
        "retired_below": entry["retired_below"], "kept_lsn": entry["kept_lsn"],
        "topics": list(&entry["topics"], &["number", "name", "id"]), "plans": plans.collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

/// Compares the two views; what to tell if they differ.
fn compare(dir: &Path, with_records: bool) -> Result<&'static str, String> {
    let (mut ours, theirs) = (library(dir), script(dir, if with_records { &["--records"] } else { &[] }));
    if !with_records {
        let blocks = ours.frames.values_mut().filter(|frame| frame["kind"] == "Block");
        blocks.for_each(|frame| frame["entry"] = json!([]));
    }
    let mut told = String::new();
    // What a missing segment means to the ones around it is not laid down; nor does the script fold.
    let is_whole = !theirs.told.contains("missing") && !ours.told.contains("differs from the fold");
    let findings_differ = is_whole && ours.verdict != "refused" && ours.findings != theirs.findings;
    if ours.verdict != theirs.verdict || findings_differ {
        write!(told, "library: {}\n{}script: {}\n{}", ours.verdict, ours.told, theirs.verdict, theirs.told).unwrap();
    } else if ours.verdict != "refused" {
        let keys: BTreeSet<_> = ours.frames.keys().chain(theirs.frames.keys()).collect();
        for key in keys {
            let (a, b) = (ours.frames.get(key), theirs.frames.get(key));
            if a != b {
                writeln!(told, "segment {} position {}\nlibrary: {a:?}\nscript: {b:?}", key.0, key.1).unwrap();
            }
        }
        for place in ours.damaged.symmetric_difference(&theirs.damaged) {
            writeln!(told, "damaged place of one only: {place:?}").unwrap();
        }
    }
    if told.is_empty() { Ok(ours.verdict) } else { Err(told) }
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(range) = std::env::var("SECOND_READER_SEEDS") else { return 1..9 };
    let (first, last) = range.split_once("..").expect("FIRST..LAST");
    first.parse().unwrap()..last.parse().unwrap()
}

#[test]
fn the_script_and_the_library_agree_on_random_logs_and_damaged_copies() {
    const COPIES: u64 = 16;
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let mut differences = Vec::new();
    for seed in seeds() {
        let mut rng = Rng::new(seed);
        let log = Life::live(seed, &mut rng);
        for copy in 0..=COPIES {
            let dir = tempfile::tempdir().unwrap();
            log.copy_to(dir.path());
            let what = if copy == 0 { "as it is".to_owned() } else { damage(dir.path(), &mut rng) };
            match compare(dir.path(), copy % 8 == 0) {
                Ok(verdict) => *seen.entry(verdict).or_default() += 1,
                Err(told) => differences.push(format!("seed {seed}, copy {copy}: {what}\n{told}")),
            }
        }
    }
    assert!(differences.is_empty(), "{} differences; the first:\n{}", differences.len(), differences.join("\n---\n"));
    println!("{seen:?}");
    for verdict in ["clean", "torn", "damaged", "refused"] {
        assert!(seen.contains_key(verdict) || std::env::var("SECOND_READER_SEEDS").is_ok(), "{verdict} in {seen:?}");
    }
}
