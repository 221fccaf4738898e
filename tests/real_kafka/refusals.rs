//! Bad input gets a clear line and the right exit code.

use std::path::Path;
use std::process::Command;

use crate::common::broker::dead_address;
use crate::common::process::{LIMIT, forebay};
use crate::common::produce::Numbered;
use crate::common::{Forebay, Format, Kafka, Run, Scratch, delivered, kafka, unique, wait_for};

fn small_topic(kafka: &Kafka, name: &str) -> String {
    let topic = unique(name);
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, 10, 0);
    topic
}

#[test]
fn unreachable_broker() {
    let scratch = Scratch::new("unreachable");
    let address = dead_address();
    let run = Run::at(&address, "t", "g", scratch.path()).set("kafka.unreachable_timeout=3s").exit_at_end();
    let finished = run.finish();
    finished.expect(69);
    finished.says(&address);
}

#[test]
fn missing_topic() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("missing");
    let run =
        Run::new(kafka, "no-such-topic-here", "g", scratch.path()).set("kafka.unreachable_timeout=3s").exit_at_end();
    let finished = run.finish();
    finished.says("no-such-topic-here");
    assert!([69, 78].contains(&finished.status.code().unwrap()), "{}", finished.status);
}

#[test]
fn log_in_use_by_a_living_process() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("locked");
    let topic = small_topic(kafka, "locked");
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path());
    let first = run.spawn();
    wait_for("lock", LIMIT, || run.wal().join("LOCK").exists().then_some(()));
    wait_for("delivery", LIMIT, || {
        let out = run.out().join(format!("topic={topic}"));
        out.exists().then_some(())
    });
    let second = run.clone().out_at(&scratch.join("other")).finish();
    let code = second.status.code();
    assert!(matches!(code, Some(74 | 78)), "{}:\n{}", second.status, second.stderr);
    second.says("wal");
    assert!(!scratch.join("other").join(format!("topic={topic}")).exists());
    first.stop();
}

/// Two processes with copies of one log have one identity: the broker lets only the newer one live.
#[test]
fn two_processes_with_one_identity() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("identity");
    let topic = small_topic(kafka, "identity");
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path());
    run.drain();
    let copy = scratch.join("copy");
    copy_dir(run.wal(), &copy);
    let other = run.clone().wal_at(&copy).out_at(&scratch.join("out2"));
    let mut pair = [run.spawn(), other.spawn()];
    let ended = wait_for("refusal", LIMIT, || pair.iter_mut().position(Forebay::has_ended));
    let [first, second] = pair;
    let loser = if ended == 0 { first } else { second };
    loser.finish(LIMIT).expect(78);
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// A path below a regular file cannot be made, whoever asks (root ignores permission bits).
#[test]
fn directories_that_cannot_be_written() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("unwritable");
    let topic = small_topic(kafka, "unwritable");
    let file = scratch.join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path()).exit_at_end();
    for (run, path) in [
        (run.clone().wal_at(&file.join("wal")), file.join("wal")),
        (run.clone().out_at(&file.join("out")), file.join("out")),
    ] {
        let finished = run.finish();
        let code = finished.status.code();
        assert!(matches!(code, Some(74 | 78)), "{}:\n{}", finished.status, finished.stderr);
        finished.says(&path.display().to_string());
    }
}

#[test]
fn a_stranger_in_the_log_directory() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("stranger");
    let topic = small_topic(kafka, "stranger");
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path()).exit_at_end();
    std::fs::create_dir_all(run.wal()).unwrap();
    std::fs::write(run.wal().join("holiday.jpg"), "not ours").unwrap();
    let finished = run.finish();
    assert_ne!(finished.status.code(), Some(0), "{}", finished.stderr);
    finished.says("holiday.jpg");
}

#[test]
fn a_session_timeout_that_brokers_refuse() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("session");
    let topic = small_topic(kafka, "session");
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path()).set("kafka.session_timeout=40m");
    let run = run.set("kafka.properties.max.poll.interval.ms=3600000").exit_at_end();
    let finished = run.finish();
    finished.expect(78);
    finished.says("kafka.session_timeout");
}

/// A process without a standard output delivers nothing to it, and says so; what it took is there for the next start.
#[test]
fn standard_output_that_is_closed() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("closed");
    let (topic, group) = (small_topic(kafka, "closed"), unique("group"));
    let wal = scratch.join("wal").display().to_string();
    let arguments = ["run", "--brokers", kafka.brokers(), "--topic", &topic, "--group", &group, "--wal", &wal];
    let run = |redirected: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec \"$0\" \"$@\" {redirected}"), env!("CARGO_BIN_EXE_forebay")]);
        command.args(arguments).args(["--sink", "stdout", "--exit-at-end", "--set", "server.listen=off"]);
        command.output().unwrap()
    };
    let closed = run(">&-");
    let said = String::from_utf8_lossy(&closed.stderr);
    assert_eq!(closed.status.code(), Some(74), "{said}");
    assert!(said.contains("standard output") && said.contains("closed"), "{said}");
    let open = run("");
    assert_eq!(open.status.code(), Some(0), "{}", String::from_utf8_lossy(&open.stderr));
    assert_eq!(String::from_utf8_lossy(&open.stdout).lines().count(), 10);
}

#[test]
fn a_wrong_key_gets_a_suggestion() {
    let finished = forebay(&[
        "run",
        "--brokers",
        "127.0.0.1:1",
        "--topic",
        "t",
        "--group",
        "g",
        "--wal",
        "/nonexistent/wal",
        "--sink",
        "null",
        "--set",
        "sink.fromat=raw",
    ]);
    finished.expect(78);
    finished.says("did you mean");
    finished.says("format");
}

#[test]
fn an_unknown_flag_is_a_usage_error() {
    forebay(&["run", "--no-such-flag"]).expect(2);
}

/// A record over the limit stops its partition, and only that one; what came before it is delivered.
#[test]
fn a_record_over_the_limit() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("over-limit");
    let topic = unique("over-limit");
    kafka.create_topic(&topic, 2, &[]);
    kafka.fill(&topic, 2, 0, 10, 0);
    let mut producer = Numbered::new(kafka, &topic);
    producer.send(0, 10, 5000);
    producer.send(0, 11, 0);
    producer.flush();
    let run = Run::new(kafka, &topic, &unique("group"), scratch.path());
    let finished = run.clone().set("block.max_record_bytes=4KiB").exit_at_end().finish();
    assert_ne!(finished.status.code(), Some(0), "{}", finished.stderr);
    finished.says(&topic);
    finished.says("10");
    delivered(&[run.out()], &topic, 2, 10, Format::Jsonl).expect_once();
    let roomy = run.set("block.max_record_bytes=8KiB").drain();
    assert_eq!(roomy.number("records"), 2);
}

/// A commit that Forebay did not write: the partition is held, with both numbers, until the operator has decided.
#[test]
fn a_commit_by_someone_else() {
    let Some(kafka) = kafka() else { return };
    let scratch = Scratch::new("by-hand");
    let (topic, group) = (unique("by-hand"), unique("group"));
    kafka.create_topic(&topic, 1, &[]);
    kafka.fill(&topic, 1, 0, 1000, 0);
    let run = Run::new(kafka, &topic, &group, scratch.path()).short_session();
    run.drain();
    kafka.fill(&topic, 1, 1000, 1100, 0);
    kafka.commit_by_hand(&group, &topic, 0, 417);
    let held = run.clone().exit_at_end().finish();
    assert_ne!(held.status.code(), Some(0), "{}", held.stderr);
    held.says("417");
    held.says("1000");
    delivered(&[run.out()], &topic, 1, 1000, Format::Jsonl).expect_once();
    let decided = run.set("kafka.on_foreign_commit=log");
    assert_eq!(decided.drain().number("records"), 100);
    delivered(&[decided.out()], &topic, 1, 1100, Format::Jsonl).expect_once();
}
