use super::*;
use crate::io::fault::{Faults, Operation};
use crate::io::sim::Sim;
use std::sync::mpsc;

const DIR: &str = "/wal";
const SEGMENT: u64 = 64 << 10;
/// A quota, and what it is without its reserve.
const QUOTA: u64 = 64 * SEGMENT;
const USABLE: u64 = 63 * SEGMENT;
const LONG: Duration = Duration::from_secs(20);
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

struct World {
    sim: Sim,
    faults: Arc<Faults>,
    rack: Rack,
}

/// A directory with so many spares and nothing else.
fn world(spares: usize, quota: Option<u64>) -> World {
    let sim = Sim::new(1);
    sim.create_dir_all(Path::new(DIR)).unwrap();
    let names: Vec<String> = (0..spares).map(|number| format!("old-{number}.spare")).collect();
    for name in &names {
        put(&sim, name, SEGMENT);
    }
    sim.sync_dir(Path::new(DIR)).unwrap();
    let faults = Arc::new(Faults::new(Arc::new(sim.clone())));
    let storage = Arc::clone(&faults) as Arc<dyn Storage>;
    let rack = Rack::new(storage, PathBuf::from(DIR), (SEGMENT, quota), names, spares as u64 * SEGMENT);
    World { sim, faults, rack }
}

fn put(sim: &Sim, name: &str, bytes: u64) {
    let file = sim.create_new(&Path::new(DIR).join(name)).unwrap();
    file.set_len(bytes).unwrap();
}

/// The file of a segment, counted.
fn segment(sim: &Sim, rack: &Rack, number: u64, bytes: u64) {
    put(sim, &wal_name(number), bytes);
    rack.grew(bytes);
}

fn names(sim: &Sim) -> Vec<String> {
    sim.list(Path::new(DIR)).unwrap()
}

fn work(rack: &Rack) -> Result<bool, WalError> {
    rack.work(&mut || {})
}

#[test]
fn a_spare_that_was_not_used_can_be_taken_again() {
    let World { rack, .. } = world(1, None);
    let spare = rack.take().unwrap();
    assert_eq!((rack.take(), rack.ready()), (None, 0));
    rack.put_back(spare.clone());
    assert_eq!((rack.ready(), rack.used()), (1, SEGMENT));
    assert_eq!(rack.take(), Some(spare));
}

#[test]
fn a_spare_that_failed_is_removed_durably_and_not_counted_any_more() {
    let World { sim, rack, .. } = world(2, None);
    let spare = rack.take().unwrap();
    assert_eq!(spare, "old-1.spare");
    rack.discard(&spare).unwrap();
    assert_eq!((rack.ready(), rack.used()), (1, SEGMENT));
    for seed in 0..8 {
        assert_eq!(names(&sim.crash(seed)), ["old-0.spare"]);
    }
}

#[test]
fn on_a_full_disk_no_spare_is_begun_and_blocks_pause_when_those_they_need_are_missing() {
    for ready in 0..SPARES {
        let World { sim, rack, .. } = world(ready, None);
        sim.set_capacity(Some(sim.used()));
        let operations = sim.operations();
        assert!(!work(&rack).unwrap());
        assert_eq!(rack.is_short(), ready < SPARES_FOR_BLOCKS, "{ready} spares");
        assert_eq!(sim.operations(), operations, "nothing was begun");
    }
}

#[test]
fn room_for_the_spares_that_blocks_need_is_enough_on_disk_and_in_the_quota() {
    for ready in 0..SPARES_FOR_BLOCKS {
        let missing = (SPARES_FOR_BLOCKS - ready) as u64 * SEGMENT;
        for (less, is_short) in [(0, false), (1, true)] {
            let World { sim, rack, .. } = world(ready, None);
            sim.set_capacity(Some(sim.used() + missing - less));
            rack.look_for_space().unwrap();
            assert_eq!(rack.is_short(), is_short, "{ready} spares, {less} bytes less on disk");
            let World { rack, .. } = world(ready, Some(QUOTA));
            rack.grew(USABLE - rack.used() - missing + less);
            rack.look_for_space().unwrap();
            assert_eq!(rack.is_short(), is_short, "{ready} spares, {less} bytes less in the quota");
        }
    }
}

#[test]
fn a_spare_is_made_where_it_just_fits() {
    for (less, is_made) in [(0, true), (1, false)] {
        let World { sim, rack, .. } = world(0, None);
        sim.set_capacity(Some(SEGMENT - less));
        assert_eq!(work(&rack).unwrap(), is_made, "{less} bytes less on disk");
        assert_eq!((rack.ready(), rack.used()), (usize::from(is_made), sim.used()));
        let World { rack, .. } = world(0, Some(QUOTA));
        rack.grew(USABLE - SEGMENT + less);
        assert_eq!(work(&rack).unwrap(), is_made, "{less} bytes less in the quota");
        assert_eq!(rack.ready(), usize::from(is_made));
    }
}

#[test]
fn only_what_is_too_long_for_a_segment_needs_disk_and_quota_for_a_longer_one() {
    let World { sim, rack, .. } = world(1, None);
    let can_grow = |bytes| rack.can_grow(bytes).unwrap();
    sim.set_capacity(Some(sim.used() + 3 * SEGMENT));
    assert!(can_grow(3 * SEGMENT) && !can_grow(3 * SEGMENT + 1));
    sim.set_capacity(Some(sim.used()));
    assert!(can_grow(0) && can_grow(SEGMENT / 2 - 1) && !can_grow(SEGMENT / 2));
    let World { rack: limited, .. } = world(1, Some(QUOTA));
    let left = USABLE - SEGMENT;
    assert!(limited.can_grow(left).unwrap() && !limited.can_grow(left + 1).unwrap());
}

#[test]
fn no_room_for_a_name_is_a_full_disk_and_any_other_refusal_an_error() {
    let World { faults, rack, .. } = world(0, None);
    faults.fail(Operation::Create, 0, ENOSPC);
    assert!(!work(&rack).unwrap());
    assert!(rack.is_short());
    assert!(work(&rack).unwrap());
    assert!(!rack.is_short(), "there is room again");
    faults.fail(Operation::Create, 0, EIO);
    assert!(matches!(work(&rack), Err(WalError::Io(_))));
}

#[test]
fn a_spare_that_fails_is_given_up_and_the_second_in_a_row_is_an_error() {
    for operation in [Operation::Write, Operation::Sync] {
        let World { sim, faults, rack } = world(0, None);
        for made in 1..3 {
            faults.fail(operation, 0, EIO);
            assert!(!work(&rack).unwrap(), "{operation:?}: it is given up");
            assert!(work(&rack).unwrap(), "{operation:?}: the next one is good");
            assert_eq!((rack.ready(), names(&sim).len(), rack.used()), (made, made, sim.used()));
        }
        faults.fail_always(operation, Some(EIO));
        assert!(!work(&rack).unwrap());
        assert!(matches!(work(&rack), Err(WalError::Io(_))), "{operation:?}");
    }
}

#[test]
fn a_disk_that_becomes_full_meanwhile_is_no_failure_however_often() {
    let World { sim, faults, rack } = world(0, None);
    for operation in [Operation::Write, Operation::Sync].repeat(3) {
        faults.fail(operation, 0, ENOSPC);
        assert!(!work(&rack).unwrap(), "{operation:?}");
        assert!(rack.is_short() && names(&sim).is_empty(), "{operation:?}");
    }
    assert!(work(&rack).unwrap());
}

#[test]
fn a_large_spare_is_synced_in_pieces_and_what_retires_between_them_is_ready_sooner() {
    const LARGE: u64 = 9 << 20;
    let World { sim, faults, .. } = world(0, None);
    let storage = Arc::clone(&faults) as Arc<dyn Storage>;
    let rack = Rack::new(storage, PathBuf::from(DIR), (LARGE, None), Vec::new(), 0);
    segment(&sim, &rack, 3, LARGE);
    let mut ready = Vec::new();
    let made = rack.work(&mut || {
        ready.push(rack.ready());
        if ready.len() == 1 {
            rack.hand_over([(3, LARGE)]);
        }
    });
    assert!(made.unwrap());
    assert_eq!(ready, [0, 1, 1]);
    assert_eq!(faults.count(Operation::Sync), 3);
    assert_eq!((rack.ready(), rack.used()), (2, sim.used()));
}

#[test]
fn what_retires_becomes_a_spare_if_it_is_sound_and_as_long_as_one_and_is_removed_otherwise() {
    let World { sim, rack, .. } = world(1, None);
    for (number, bytes) in [(3, SEGMENT), (4, SEGMENT / 2), (5, 2 * SEGMENT), (6, SEGMENT)] {
        segment(&sim, &rack, number, bytes);
        rack.hand_over([(number, bytes)]);
    }
    rack.never_reuse(6);
    assert!(work(&rack).unwrap());
    assert_eq!(names(&sim), [recycled_name(3), "old-0.spare".to_owned()]);
    assert_eq!((rack.ready(), rack.used()), (2, sim.used()));
    assert!(!rack.is_short(), "nobody found the disk full");
}

#[test]
fn of_what_retires_so_many_are_kept_and_fewer_with_a_quota() {
    for (quota, kept) in [(None, SPARES_KEPT), (Some(QUOTA), SPARES)] {
        let World { sim, rack, .. } = world(0, quota);
        for number in 1..=10 {
            segment(&sim, &rack, number, SEGMENT);
            rack.hand_over([(number, SEGMENT)]);
        }
        assert!(work(&rack).unwrap());
        assert_eq!((rack.ready(), names(&sim).len(), rack.used()), (kept, kept, sim.used()), "{quota:?}");
    }
}

#[test]
fn a_full_disk_is_full_until_enough_is_retired_and_again_when_it_is_looked_at() {
    let World { sim, rack, .. } = world(0, None);
    for number in 1..=3 {
        segment(&sim, &rack, number, SEGMENT);
    }
    sim.set_capacity(Some(sim.used()));
    rack.look_for_space().unwrap();
    for (number, is_short) in [(1, true), (2, true), (3, false)] {
        rack.hand_over([(number, SEGMENT)]);
        assert!(work(&rack).unwrap());
        assert_eq!(rack.is_short(), is_short, "{number} are retired");
    }
    rack.take().unwrap();
    assert!(!rack.is_short(), "perhaps there is room for another one by now");
    assert!(!work(&rack).unwrap());
    assert!(rack.is_short());
}

#[test]
fn a_disk_without_room_is_left_alone_for_a_while() {
    let World { faults, rack, .. } = world(0, None);
    faults.fail_always(Operation::Create, Some(ENOSPC));
    let rack = Arc::new(rack);
    let (running, begun) = (Arc::clone(&rack), Instant::now());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = tell.send(running.run(&mut || {}));
    });
    while faults.count(Operation::Create) < 2 {
        assert!(begun.elapsed() < LONG, "it is looked at again");
        std::thread::sleep(Duration::from_millis(1));
    }
    let elapsed = begun.elapsed();
    rack.stop();
    told.recv_timeout(LONG).expect("it ends").unwrap();
    assert!(elapsed >= Duration::from_millis(100), "looked at again after {elapsed:?}");
}

#[test]
fn only_a_single_spare_that_was_just_taken_is_waited_for() {
    let cases =
        [(SPARES, true, false), (SPARES - 1, true, true), (SPARES - 1, false, false), (SPARES - 2, true, false)];
    for (ready, was_taken, waits) in cases {
        let World { rack, .. } = world(ready, None);
        // However slow the machine is: a moment that is still to come.
        rack.shelf().taken = was_taken.then(|| Instant::now() + Duration::from_secs(3600));
        assert_eq!(rack.may_wait(), waits, "{ready} spares");
    }
}
