//! The binary against the mock cluster: how it ends when it is not let end in peace, and what it says then.

use super::common::{Forebay, Run, Scratch};
use super::world::{TOPIC, World, produced};
use rdkafka::producer::{BaseRecord, Producer};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

const RECORDS: u64 = 20_000;
/// Far less than the deadlines that must not be waited for.
const SOON: Duration = Duration::from_secs(20);

fn run(world: &World, scratch: &Scratch) -> Run {
    Run::at(&world.kafka.bootstrap_servers(), TOPIC, "group", scratch.path())
        .set("kafka.session_timeout=1500ms")
        .set("kafka.static_membership=false")
        .set("wal.segment_bytes=1MiB")
}

/// The values of complete lines; a process that was ended may leave half of one.
fn values(text: &str, found: &mut BTreeSet<String>) {
    let complete = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    for record in complete.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        found.insert(record["value"].as_str().unwrap().to_owned());
    }
}

fn rest(pipe: impl Read) -> String {
    std::io::read_to_string(pipe).unwrap()
}

/// Starts it with a pipe that is left alone after its first line: the sink takes nothing any more.
fn stuck(run: &Run) -> (Forebay, String, BufReader<ChildStdout>) {
    let mut process = run.spawn();
    let mut pipe = BufReader::new(process.pipe.take().unwrap());
    let mut line = String::new();
    pipe.read_line(&mut line).unwrap();
    (process, line, pipe)
}

/// What the next start delivers, together with what came before, is everything.
fn nothing_is_lost(run: &Run, before: &str) {
    let mut process = run.clone().exit_at_end().spawn();
    let text = rest(process.pipe.take().unwrap());
    process.finish(Duration::from_secs(60)).expect(0);
    let mut found = BTreeSet::new();
    values(before, &mut found);
    assert!(found.len() < RECORDS as usize, "the pipe took everything");
    values(&text, &mut found);
    assert!(found.into_iter().collect::<Vec<_>>() == produced(2, RECORDS), "lost");
}

#[test]
fn a_second_signal_ends_at_once_and_nothing_is_lost() {
    let (world, scratch) = (World::new(2, RECORDS), Scratch::new("second-signal"));
    let run = run(&world, &scratch).stdout_sink();
    let (mut process, first, pipe) = stuck(&run.clone().set("stop.deadline=10m"));
    process.terminate();
    process.wait_says("stopping; a second signal ends at once");
    assert!(!process.has_ended(), "it has something left to deliver");
    process.terminate();
    let ended = process.finish(SOON);
    ended.expect(130);
    ended.says("second signal, ending at once");
    nothing_is_lost(&run, &(first + &rest(pipe)));
}

#[test]
fn a_sink_that_takes_nothing_holds_a_stop_up_until_the_deadline_only_and_nothing_is_lost() {
    let (world, scratch) = (World::new(2, RECORDS), Scratch::new("deadline"));
    let run = run(&world, &scratch).stdout_sink();
    let (mut process, first, pipe) = stuck(&run.clone().set("stop.deadline=2s"));
    let since = Instant::now();
    process.terminate();
    let ended = process.finish(SOON);
    assert!(since.elapsed() >= Duration::from_secs(2), "ended after {:?}: not tried to the end", since.elapsed());
    ended.expect(130);
    ended.says("stopped at the deadline with");
    // Data is on standard output, so the summary is here.
    let summary = ended.stderr.lines().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    assert!(summary.unwrap_or_default()["records"].is_number(), "no summary in:\n{}", ended.stderr);
    nothing_is_lost(&run, &(first + &rest(pipe)));
}

#[test]
fn a_run_that_fails_after_it_worked_prints_its_summary_too() {
    let (world, scratch) = (World::new(2, 1_000), Scratch::new("summary"));
    let large = "x".repeat(5_000);
    let producer = world.kafka.producer();
    producer.send(BaseRecord::<(), str>::to(TOPIC).partition(1).payload(&large)).map_err(|(error, _)| error).unwrap();
    producer.flush(SOON).unwrap();
    let run = run(&world, &scratch).set("block.max_record_bytes=4KiB").exit_at_end();
    let ended = run.finish();
    ended.expect(1);
    ended.says("block.max_record_bytes");
    assert_eq!((ended.number("records"), ended.number("suppressed")), (1_000, 0));
}
