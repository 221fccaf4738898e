//! A leader that had not all records is elected: what was read and is no longer in Kafka is declared, exactly.

use rustix::process::Signal;

use crate::common::process::LIMIT;
use crate::common::verify::lines;
use crate::common::{Cluster, Format, Run, Scratch, delivered, kafka, unique, wait_for};
use crate::gap::{gap, gaps, wait_committed};

const MODES: [&str; 2] = ["receiver", "direct"];

fn wait_leader(cluster: &Cluster, topic: &str, leader: i32, replicas: usize) {
    wait_for(&format!("leader {leader} of {replicas}"), LIMIT, || {
        let (now, in_sync) = cluster.kafka.leader(topic)?;
        (now == leader && in_sync.len() == replicas).then_some(())
    });
}

/// Ends the follower, writes `[100, 150)` to the leader alone; `meanwhile`; then ends the leader and brings the follower
/// back, which writes other records from 100 on, up to 180.
fn elect_one_with_less(cluster: &mut Cluster, topic: &str, meanwhile: impl FnOnce(&Cluster)) {
    let leads = |cluster: &Cluster, leader, replicas| wait_leader(cluster, topic, leader, replicas);
    let settings = [("unclean.leader.election.enable", "true"), ("min.insync.replicas", "1")];
    cluster.kafka.create_topic_on(&[2, 3], topic, &settings);
    leads(cluster, 2, 2);
    cluster.kafka.fill(topic, 1, 0, 100, 100);
    cluster.end_node(3, Signal::TERM);
    leads(cluster, 2, 1);
    cluster.kafka.fill(topic, 1, 100, 150, 100);
    meanwhile(cluster);
    cluster.end_node(2, Signal::KILL);
    cluster.start_node(3);
    leads(cluster, 3, 1);
    cluster.kafka.fill(topic, 1, 100, 180, 50);
}

/// Offsets from 0 on, those below 150 as the first leader had them.
fn assert_old_then_new(run: &Run, topic: &str) {
    let found = lines(run.out(), topic, 0, Format::Jsonl);
    let lengths: Vec<_> = found.iter().map(|line| (line.offset, line.value.as_deref().unwrap().len())).collect();
    let expected: Vec<_> = (0..180).map(|offset| (offset, if offset < 150 { 100 } else { 50 })).collect();
    assert_eq!(lengths, expected);
}

#[test]
fn a_leader_that_had_less_is_a_gap_in_both_modes() {
    let Some(mut cluster) = Cluster::start() else { return };
    let topic = unique("election");
    let scratch = Scratch::new("election");
    let brokers = cluster.kafka.brokers().to_owned();
    let run = |what: &str, mode: &str| {
        let name = format!("{what}-{mode}");
        Run::at(&brokers, &topic, &name, &scratch.join(&name)).short_session().set(&format!("mode={mode}"))
    };
    let watched = MODES.map(|mode| run("watched", mode).set("kafka.on_gap=skip"));
    let stopped = MODES.map(|mode| run("stopped", mode));
    let restored = run("restored", "receiver");
    let mut processes = Vec::new();
    elect_one_with_less(&mut cluster, &topic, |cluster| {
        for run in &stopped {
            assert_eq!(run.drain().number("records"), 150);
        }
        processes = watched.iter().map(Run::spawn).collect();
        for mode in MODES {
            wait_committed(&cluster.kafka, &format!("watched-{mode}"), &topic, &[Some(150)]);
        }
        killed_with_all(cluster, &restored, "restored-receiver", &topic, 150);
    });
    // The epoch is one that the leader does not know, as if the cluster had been restored: the last record tells.
    cluster.kafka.commit_in_epoch("restored-receiver", &topic, 99);
    let failed = restored.clone().exit_at_end().finish();
    failed.expect(1);
    failed.says("can't tell how far it goes");
    failed.says("[149, 150)");
    let declared = [gap(&topic, 0, 100, 150, "truncation")];
    for ((run, mode), process) in watched.iter().zip(MODES).zip(processes) {
        wait_committed(&cluster.kafka, &format!("watched-{mode}"), &topic, &[Some(180)]);
        process.stop();
        assert_eq!(gaps(run.wal()), declared, "{mode}");
        assert_old_then_new(run, &topic);
    }
    for (run, mode) in stopped.iter().zip(MODES) {
        for _ in 0..2 {
            let failed = run.clone().exit_at_end().finish();
            failed.expect(1);
            failed.says("[100, 150)");
        }
        let run = run.clone().set("kafka.on_gap=skip");
        assert_eq!(run.drain().number("records"), 30, "{mode}");
        assert_eq!(gaps(run.wal()), declared, "{mode}");
        assert_old_then_new(&run, &topic);
    }
    let killed = run("killed", "receiver");
    killed_with_all(&cluster, &killed, "killed-receiver", &topic, 180);
    an_election_that_loses_nothing_is_no_event(&mut cluster, &topic, &watched, &stopped, &killed);
}

/// Runs until all is committed and in the output. The log then holds the last record, since its file is open.
fn killed_with_all(cluster: &Cluster, run: &Run, group: &str, topic: &str, records: usize) {
    let process = run.spawn();
    wait_committed(&cluster.kafka, group, topic, &[Some(records as i64)]);
    let all = || (lines(run.out(), topic, 0, Format::Jsonl).len() == records).then_some(());
    wait_for("output of everything", LIMIT, all);
    process.kill();
}

fn an_election_that_loses_nothing_is_no_event(
    cluster: &mut Cluster,
    topic: &str,
    watched: &[Run; 2],
    stopped: &[Run; 2],
    killed: &Run,
) {
    let declared = [gap(topic, 0, 100, 150, "truncation")];
    cluster.start_node(2);
    wait_leader(cluster, topic, 3, 2);
    cluster.end_node(3, Signal::TERM);
    wait_leader(cluster, topic, 2, 1);
    cluster.kafka.fill(topic, 1, 180, 200, 50);
    for run in watched.iter().chain(stopped) {
        assert_eq!(run.clone().set("kafka.on_gap=fail").drain().number("records"), 20);
        assert_eq!(gaps(run.wal()), declared);
    }
    // Also when Kafka does not have the last record any more that was read.
    cluster.kafka.delete_records(topic, 0, 180);
    let drained = killed.drain();
    drained.says("Kafka does not have the last record read any more");
    assert_eq!((drained.number("records"), gaps(killed.wal())), (20, Vec::new()));
    // The same when nothing but a marker comes behind it, in the new epoch: it moves the position, which was never good
    // in the old one.
    cluster.start_node(3);
    wait_leader(cluster, topic, 2, 2);
    cluster.end_node(2, Signal::TERM);
    wait_leader(cluster, topic, 3, 1);
    cluster.kafka.transact(topic, 0, &["dropped".to_owned()], false);
    let end = cluster.kafka.ends(topic, 1)[0];
    assert_eq!(end, 202);
    let processes: Vec<_> = stopped.iter().map(|run| run.clone().set("kafka.on_gap=fail").spawn()).collect();
    for next in [end, end + 20] {
        cluster.kafka.fill(topic, 1, 0, (next - end) as u64, 50);
        for mode in MODES {
            wait_committed(&cluster.kafka, &format!("stopped-{mode}"), topic, &[Some(next)]);
        }
    }
    for (process, run) in processes.into_iter().zip(stopped) {
        process.stop();
        assert_eq!(gaps(run.wal()), declared);
    }
}

/// A cluster that was restored begins with lower epochs than those we read in, and its leader says to a question about one
/// of these that it does not have the position. That is no reason to give the position up and ask the same again for ever.
#[test]
fn an_epoch_that_the_leader_does_not_know_holds_nothing_up() {
    let Some(kafka) = kafka() else { return };
    for mode in MODES {
        let (topic, group) = (unique("restored"), unique("group"));
        let scratch = Scratch::new("restored");
        kafka.create_topic(&topic, 1, &[]);
        kafka.fill(&topic, 1, 0, 1000, 100);
        let run = Run::new(kafka, &topic, &group, scratch.path()).short_session().set(&format!("mode={mode}"));
        assert_eq!(run.drain().number("records"), 1000);
        kafka.commit_in_epoch(&group, &topic, 7);
        kafka.fill(&topic, 1, 1000, 1100, 100);
        let finished = run.drain();
        assert_eq!((finished.number("records"), finished.number("gaps")), (100, 0), "{mode}");
        finished.says("can't tell how far it goes");
        delivered(&[run.out()], &topic, 1, 1100, Format::Jsonl).expect_once();
    }
}
