use super::*;
use crate::io::fault::Operation;
use crate::io::sim::Sim;
use crate::wal::options::SPARES;
use crate::wal::testing::{P, SEGMENT, World, block, bytes_of_all_files, delivered, settings, wait_until, world};
use std::sync::mpsc;

const LONG: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);
const ENOSPC: i32 = 28;

fn push(worker: &mut Worker, entry: Entry) {
    worker.queue.push(Unit { entries: vec![entry], reply: None });
}

fn log(worker: &mut Worker, entry: Entry) {
    push(worker, entry);
    assert!(work(worker), "it is logged");
}

fn work(worker: &mut Worker) -> bool {
    worker.work(&mut || {}).unwrap()
}

/// Next offset to become durable.
fn durable(worker: &Worker) -> i64 {
    worker.shared.marks.of(P).durable()
}

/// From now on nothing grows; the rack knows it.
fn fill_up(sim: &Sim, worker: &Worker) {
    sim.set_capacity(Some(sim.used()));
    worker.writer.rack().look_for_space().unwrap();
}

/// What comes before the end of a clean stop.
fn finish(mut worker: Worker) -> Worker {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let finished = worker.finish();
        let _ = tell.send((finished, worker));
    });
    let (finished, worker) = told.recv_timeout(LONG).expect("the stop comes to an end");
    finished.unwrap();
    worker
}

/// Makes a spare when the stop has looked at what it waits for: it then says again whether the disk is full.
fn make_a_spare_once_it_stops(worker: &Worker) -> std::thread::JoinHandle<bool> {
    let (shared, rack) = (Arc::clone(&worker.shared), Arc::clone(worker.writer.rack()));
    std::thread::spawn(move || {
        wait_until("the stop", || !shared.full.load(Ordering::Acquire));
        rack.work(&mut || {}).unwrap()
    })
}

#[test]
fn a_stop_waits_for_a_spare_that_a_waiting_block_needs() {
    stop_with_a_block_that_needs_a_spare(true);
}

#[test]
fn a_stop_waits_for_a_spare_that_the_last_block_turns_out_to_need() {
    stop_with_a_block_that_needs_a_spare(false);
}

#[test]
fn a_stop_waits_for_the_spare_that_its_end_needs() {
    let World { worker, .. } = world(0, settings());
    worker.shared.full.store(true, Ordering::Release);
    let preparer = make_a_spare_once_it_stops(&worker);
    let worker = finish(worker);
    assert!(preparer.join().unwrap());
    assert_eq!(worker.writer.rack().ready(), 1);
}

fn stop_with_a_block_that_needs_a_spare(was_tried: bool) {
    let World { mut worker, .. } = world(2, settings());
    log(&mut worker, block(0, 30_000));
    push(&mut worker, block(1, 10_000));
    if was_tried {
        assert!(!work(&mut worker));
        assert!(worker.queue.is_waiting(), "two spares are not for blocks, and the segment has no room");
    }
    worker.shared.full.store(true, Ordering::Release);
    let preparer = make_a_spare_once_it_stops(&worker);
    let worker = finish(worker);
    assert!(preparer.join().unwrap());
    assert_eq!((durable(&worker), worker.queue.is_waiting()), (2, false));
}

#[test]
fn a_stop_tries_again_in_the_next_segment_what_found_no_space_in_this_one() {
    let World { faults, mut worker, .. } = world(SPARES, settings());
    log(&mut worker, block(0, 100));
    faults.fail(Operation::Write, 0, ENOSPC);
    push(&mut worker, delivered(1));
    let worker = finish(worker);
    assert_eq!(worker.shared.marks.of(P).delivered(), 1);
}

#[test]
fn a_stop_waits_for_no_space() {
    let World { sim, mut worker, .. } = world(2, settings());
    fill_up(&sim, &worker);
    push(&mut worker, block(0, 100));
    assert!(!work(&mut worker));
    let worker = finish(worker);
    assert_eq!((durable(&worker), worker.queue.is_waiting()), (0, true));
}

#[test]
fn a_stop_does_not_wait_for_space_for_receipts_either() {
    let World { sim, mut worker, .. } = world(0, settings());
    fill_up(&sim, &worker);
    let logged = (0..20).take_while(|_| {
        push(&mut worker, delivered(0));
        work(&mut worker)
    });
    assert!((1..20).contains(&logged.count()), "the segment has room for some");
    assert!(worker.is_jammed && worker.queue.is_ready());
    finish(worker);
}

#[test]
fn a_block_that_finds_no_space_does_not_hold_up_receipts() {
    let World { sim, mut worker, .. } = world(SPARES, settings());
    sim.set_capacity(Some(sim.used()));
    push(&mut worker, block(0, 100_000));
    push(&mut worker, delivered(0));
    assert!(!work(&mut worker), "it is larger than a segment");
    wait_until("the receipt passes", || work(&mut worker));
    assert_eq!((durable(&worker), worker.queue.is_waiting()), (0, true));
    sim.set_capacity(None);
    wait_until("there is space again", || work(&mut worker));
    assert_eq!((durable(&worker), worker.queue.is_waiting()), (1, false));
}

#[test]
fn with_nothing_to_do_the_bytes_on_the_disk_are_told_as_they_are() {
    let World { sim, mut worker, .. } = world(0, settings());
    assert!(worker.writer.rack().work(&mut || {}).unwrap());
    worker.rest().unwrap();
    assert_eq!(worker.options.metrics.wal_bytes.get(), bytes_of_all_files(&sim) as i64);
}

#[test]
fn a_full_disk_is_looked_at_again_long_before_an_idle_frame_is_due() {
    let World { sim, mut worker, .. } = world(2, settings());
    assert!(worker.patience() > LOOK_AGAIN, "nothing waits");
    worker.is_jammed = true;
    assert_eq!(worker.patience(), LOOK_AGAIN, "not even receipts have room");
    worker.is_jammed = false;
    worker.stuck_until = Some(Instant::now() + HOUR);
    assert_eq!(worker.patience(), LOOK_AGAIN, "a block found no space");
    worker.stuck_until = None;
    log(&mut worker, block(0, 30_000));
    push(&mut worker, block(1, 10_000));
    assert!(!work(&mut worker));
    assert_eq!(worker.patience(), BRIEFLY, "a spare is being made");
    fill_up(&sim, &worker);
    assert_eq!(worker.patience(), LOOK_AGAIN, "none can be made");
}

#[test]
fn a_group_ends_with_the_unit_that_fills_half_a_segment() {
    let World { mut worker, .. } = world(SPARES, settings());
    for first in 0..10 {
        push(&mut worker, block(first, 10_000));
    }
    worker.fill_batch();
    let (last, others) = worker.batch.split_last().unwrap();
    let before = others.iter().map(Entry::bytes).sum::<u64>();
    assert!(before < SEGMENT / 2 && before + last.bytes() >= SEGMENT / 2, "{before}");
}

#[test]
fn who_waits_for_everything_before_is_answered_and_nobody_is_told_of_a_group() {
    let woken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&woken);
    let mut options = settings();
    options.on_durable = Some(Arc::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    let World { mut worker, .. } = world(SPARES, options);
    assert_eq!(woken.load(Ordering::Relaxed), 1, "one group was logged");
    let (reply, answer) = mpsc::sync_channel(1);
    worker.queue.push(Unit { entries: Vec::new(), reply: Some(reply) });
    assert!(work(&mut worker), "someone was answered");
    let lsn = worker.writer.durable_lsn();
    assert!(matches!(answer.try_recv(), Ok(Ok(answered)) if answered == lsn));
    assert!(!work(&mut worker), "nothing is left to do");
    assert_eq!(woken.load(Ordering::Relaxed), 1, "nothing more was logged");
}

#[test]
fn a_segment_is_left_by_age_only_with_a_block_in_it_and_not_on_a_full_disk() {
    let cases = [
        (HOUR, true, SPARES, false),
        (Duration::ZERO, false, SPARES, false),
        (Duration::ZERO, true, 2, false),
        (Duration::ZERO, true, SPARES, true),
    ];
    for (segment_age, has_block, spares, is_left) in cases {
        let World { sim, mut worker, .. } = world(spares, Options { segment_age, ..settings() });
        if has_block {
            log(&mut worker, block(0, 100));
        }
        fill_up(&sim, &worker);
        let before = worker.writer.segment();
        worker.rest().unwrap();
        let case = format!("after {segment_age:?}, {has_block}, {spares} spares");
        assert_eq!(worker.writer.segment() > before, is_left, "{case}");
    }
}

#[test]
fn an_idle_frame_is_logged_once_and_everyone_knows_that_it_is_durable() {
    let World { mut worker, .. } = world(SPARES, Options { idle: Duration::ZERO, ..settings() });
    let before = worker.writer.durable_lsn();
    for _ in 0..2 {
        worker.rest().unwrap();
        let next = worker.shared.handover.shelf().next_lsn;
        assert_eq!((worker.shared.durable.load(Ordering::Acquire), next), (before + 1, before + 2));
    }
}

#[test]
fn everyone_who_waits_is_told_why_nothing_more_is_logged() {
    let World { mut worker, .. } = world(SPARES, settings());
    let (reply, answers) = mpsc::sync_channel(2);
    worker.ends.push((1, Some(reply.clone())));
    worker.push(Unit { entries: vec![delivered(0)], reply: Some(reply) });
    let error = worker.fail(WalError::Closed);
    worker.refuse_all(&error);
    assert_eq!(answers.try_iter().filter(Result::is_err).count(), 2);
}
