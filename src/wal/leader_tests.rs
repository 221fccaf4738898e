use super::*;
use crate::io::Storage;
use crate::io::fault::Operation;
use crate::record::Lsn;
use crate::wal::format::entry::Entry;
use crate::wal::options::{Options, SPARES};
use crate::wal::recovery::recover;
use crate::wal::testing::{P, World, block, delivered, settings, wait_until, world};
use std::sync::mpsc::Receiver;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);
const EIO: i32 = 5;

type Answer = Receiver<Result<Lsn, Arc<WalError>>>;

fn unit(entries: Vec<Entry>) -> (Unit, Answer) {
    let (reply, answer) = mpsc::sync_channel(1);
    (Unit { entries, reply: Some(reply) }, answer)
}

fn quiet(entry: Entry) -> Request {
    Request::Append(Unit { entries: vec![entry], reply: None })
}

/// The thread sleeps for so long.
fn sleeps(callers: &Callers, time: Duration) {
    callers.lead.lock().sleeps_until = Some(Instant::now() + time);
}

fn is_logged_now(callers: &Callers, entry: Entry) -> bool {
    callers.log_now(unit(vec![entry]).0).is_none()
}

#[test]
fn a_stop_logs_all_that_was_sent_before_it() {
    let World { sim, worker, .. } = world(SPARES, settings());
    let (callers, thread) = lead(worker);
    (0..3).for_each(|first| callers.send(quiet(block(first, 100))).unwrap());
    let (reply, answer) = mpsc::sync_channel(1);
    callers.send(Request::Close(reply)).unwrap();
    let thread = std::thread::spawn(move || thread.run());
    assert!(matches!(answer.recv_timeout(LONG), Ok(Ok(()))));
    thread.join().unwrap();
    assert!(!is_logged_now(&callers, block(3, 100)), "it is closed");
    let storage: Arc<dyn Storage> = Arc::new(sim);
    let again = recover(&storage, &Options { seed: Some(2), ..settings() }).unwrap();
    assert_eq!(again.writer.state().partitions[&P].admitted, 3);
}

#[test]
fn who_waits_alone_logs_by_itself() {
    let (callers, _clerk) = lead(world(SPARES, settings()).worker);
    for first in 0..3 {
        let (unit, answer) = unit(vec![block(first, 100)]);
        assert!(callers.log_now(unit).is_none(), "nobody runs the thread");
        // After the tenure's.
        assert!(matches!(answer.try_recv(), Ok(Ok(lsn)) if lsn == 2 + first as u64));
    }
}

#[test]
fn nobody_is_passed() {
    let (callers, mut thread) = lead(world(SPARES, settings()).worker);
    callers.send(quiet(block(0, 100))).unwrap();
    assert!(!is_logged_now(&callers, block(1, 100)), "one is on its way");
    let lead = Arc::clone(&callers.lead);
    let (seat, end) = thread.gather(&lead, lead.lock());
    assert!(end.is_none());
    assert!(!is_logged_now(&callers, block(1, 100)), "somebody is at work");
    drop(seat);
    assert!(!is_logged_now(&callers, block(1, 100)), "one is queued");
    thread.turn(&mut lead.lock().worker, None).unwrap();
    assert!(is_logged_now(&callers, block(1, 100)));
    lead.lock().worker.fail(WalError::Closed);
    assert!(!is_logged_now(&callers, block(2, 100)), "the log is poisoned");
}

#[test]
fn what_finds_no_space_is_left_to_the_thread_and_not_passed() {
    let World { sim, worker, .. } = world(2, settings());
    sim.set_capacity(Some(sim.used()));
    let (callers, mut thread) = lead(worker);
    sleeps(&callers, HOUR);
    let (unit, answer) = unit(vec![block(0, 100_000)]);
    assert!(callers.log_now(unit).is_none());
    assert!(answer.try_recv().is_err(), "it waits");
    assert!(matches!(thread.inbox.at_hand(), Ok(Request::Look)), "the thread is woken up for it");
    assert!(callers.lead.lock().sleeps_until.is_none(), "once");
    assert!(!is_logged_now(&callers, block(1, 100)));
}

#[test]
fn the_thread_is_woken_up_for_what_is_due_before_it_wakes_by_itself() {
    for (idle, sleep, is_woken) in [
        (HOUR, HOUR, true),
        (2 * HOUR, HOUR, false),
        (Duration::ZERO, Duration::ZERO, false),
        (Duration::ZERO, HOUR, true),
    ] {
        let options = Options { idle, segment_age: 4 * HOUR, ..settings() };
        let (callers, mut thread) = lead(world(SPARES, options).worker);
        assert!(is_logged_now(&callers, delivered(0)));
        assert!(thread.inbox.at_hand().is_err(), "it does not sleep");
        // A moment more than the idle time, which begins with the group.
        sleeps(&callers, sleep + Duration::from_secs(u64::from(idle == sleep && is_woken)));
        assert!(is_logged_now(&callers, delivered(0)));
        let woken = matches!(thread.inbox.at_hand(), Ok(Request::Look));
        assert_eq!(woken, is_woken, "an idle frame is due after {idle:?}, it sleeps {sleep:?}");
    }
}

#[test]
fn an_error_of_a_caller_at_work_poisons_the_log_and_everyone_is_told() {
    for is_asleep in [false, true] {
        let World { faults, worker, .. } = world(SPARES, settings());
        let (callers, thread) = lead(worker);
        faults.fail_always(Operation::Sync, Some(EIO));
        if is_asleep {
            sleeps(&callers, HOUR);
        }
        let (unit, answer) = unit(vec![block(0, 100)]);
        assert!(callers.log_now(unit).is_none());
        assert!(callers.lead.lock().worker.failure().is_some());
        let thread = std::thread::spawn(move || thread.run());
        assert!(matches!(answer.recv_timeout(LONG), Ok(Err(_))), "before it sleeps again: {is_asleep}");
        drop(callers);
        thread.join().unwrap();
    }
}

#[test]
fn a_panic_of_a_caller_at_work_poisons_the_log_and_everyone_is_told() {
    let (callers, thread) = lead(world(SPARES, settings()).worker);
    let thread = std::thread::spawn(move || thread.run());
    wait_until("the thread sleeps", || callers.lead.lock().sleeps_until.is_some());
    let (unit, answer) = unit(vec![block(5, 100)]);
    assert!(callers.log_now(unit).is_none(), "offsets are missing before it");
    assert!(matches!(answer.recv_timeout(LONG), Ok(Err(error)) if matches!(*error, WalError::Internal(_))));
    drop(callers);
    thread.join().unwrap();
}

#[test]
fn what_is_queued_is_not_slept_on() {
    let World { mut worker, .. } = world(SPARES, settings());
    worker.push(Unit { entries: vec![delivered(0)], reply: None });
    let (callers, mut thread) = lead(worker);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let lead = Arc::clone(&thread.lead);
        let _ = tell.send(thread.gather(&lead, lead.lock()).1.is_none());
    });
    assert_eq!(told.recv_timeout(LONG), Ok(true), "the idle frame is due in an hour");
    drop(callers);
}

#[test]
fn with_nothing_to_do_the_thread_sleeps_until_something_is_due() {
    let due = Duration::from_millis(30);
    let options = Options { idle: Duration::ZERO, segment_age: due, ..settings() };
    let World { mut worker, .. } = world(SPARES, options);
    worker.rest().unwrap();
    let (_post, mut thread) = lead(worker);
    let lead = Arc::clone(&thread.lead);
    let from = Instant::now();
    let (seat, end) = thread.gather(&lead, lead.lock());
    assert!(end.is_none() && from.elapsed() >= due);
    assert!(seat.sleeps_until.is_none(), "it is awake");
}

#[test]
fn who_asks_a_log_that_failed_is_told_until_it_is_closed() {
    let (callers, mut thread) = lead(world(SPARES, settings()).worker);
    let (sent, answer) = unit(vec![delivered(0)]);
    callers.send(Request::Append(sent)).unwrap();
    let (done, withdrawn) = mpsc::sync_channel(1);
    callers.send(Request::Withdraw(P, 1, done)).unwrap();
    let (reply, closed) = mpsc::sync_channel(1);
    callers.send(Request::Close(reply)).unwrap();
    thread.refuse_all(&Arc::new(WalError::Closed));
    assert!(matches!(answer.try_recv(), Ok(Err(_))));
    assert!(withdrawn.try_recv().is_err(), "it was not withdrawn");
    assert!(matches!(closed.try_recv(), Ok(Err(_))));
}
