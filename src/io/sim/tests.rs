use super::*;
use std::collections::BTreeSet;

const SEEDS: Range<u64> = 0..64;

fn path(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

fn write(file: &Arc<dyn File>, position: u64, bytes: &[u8]) {
    file.write_at(position, &[IoSlice::new(bytes)]).unwrap();
}

fn seen(sim: &Sim, name: &str) -> Option<Vec<u8>> {
    sim.files().remove(&path(name))
}

/// A file of three pages of `a`, durable with its name.
fn durable_file(sim: &Sim) -> Arc<dyn File> {
    let file = sim.create_new(&path("f")).unwrap();
    write(&file, 0, &[b'a'; 3 * 4096]);
    file.sync_data().unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    file
}

#[test]
fn an_unsynced_sector_is_kept_lost_or_garbled_and_the_others_stay() {
    let sim = Sim::new(1);
    let file = durable_file(&sim);
    write(&file, 4096, &[b'b'; 1024]);
    let (mut kept, mut lost, mut garbled, mut apart) = (0, 0, 0, 0);
    for seed in SEEDS {
        let bytes = seen(&sim.crash(seed), "f").unwrap();
        assert_eq!((&bytes[..4096], &bytes[8192..]), (&[b'a'; 4096][..], &[b'a'; 4096][..]));
        let fate = |sector: &[u8]| [b'a', b'b'].iter().position(|&c| sector == [c; 512]);
        let (one, two) = (fate(&bytes[4096..4608]), fate(&bytes[4608..5120]));
        apart += usize::from(one != two);
        match one {
            Some(0) => lost += 1,
            Some(_) => kept += 1,
            None => garbled += 1,
        }
    }
    assert!(kept > 0 && lost > 0 && garbled > 0 && apart > 0);
    assert_eq!(seen(&sim.kill(), "f").unwrap()[4096..5120], [b'b'; 1024]);
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    let sim = Sim::new(1);
    let file = durable_file(&sim);
    write(&file, 100, b"new");
    file.set_len(5000).unwrap();
    file.sync_data().unwrap();
    sim.rename(&path("f"), &path("g")).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    for seed in SEEDS {
        let after = sim.crash(seed);
        assert_eq!(after.files(), sim.files());
        assert_eq!(after.hash(), sim.crash(seed + 1).hash());
    }
}

#[test]
fn unsynced_names_come_undone() {
    let sim = Sim::new(1);
    durable_file(&sim);
    sim.rename(&path("f"), &path("g")).unwrap();
    let names = |sim: &Sim| sim.list(Path::new("/")).unwrap().join(",");
    let outcomes: BTreeSet<String> = SEEDS.map(|seed| names(&sim.crash(seed))).collect();
    assert_eq!(outcomes, ["f", "g"].map(String::from).into());

    sim.create_new(&path("h")).unwrap();
    let outcomes: BTreeSet<String> = SEEDS.map(|seed| names(&sim.crash(seed))).collect();
    assert_eq!(outcomes, ["f", "g", "f,h", "g,h"].map(String::from).into());
    assert_eq!(names(&sim.kill().crash(3)), names(&sim.crash(3)), "a kill makes nothing durable");
}

#[test]
fn a_truncation_comes_undone() {
    let sim = Sim::new(1);
    let file = durable_file(&sim);
    file.set_len(100).unwrap();
    let lengths: BTreeSet<usize> = SEEDS.map(|s| seen(&sim.crash(s), "f").unwrap().len()).collect();
    assert_eq!(lengths, [100, 3 * 4096].into());
}

#[test]
fn a_sync_that_failed_lies_when_tried_again() {
    let mut losses = 0;
    for seed in SEEDS {
        let sim = Sim::new(seed);
        let file = durable_file(&sim);
        write(&file, 0, &[b'b'; 4096]);
        sim.fail_at(sim.operations());
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(seen(&sim, "f").unwrap()[..4096], [b'b'; 4096], "the cache shows the new bytes");
        assert_eq!(seen(&sim.kill(), "f").unwrap()[..4096], [b'b'; 4096]);
        losses += usize::from(seen(&sim.crash(seed), "f").unwrap()[..4096] != [b'b'; 4096]);
    }
    assert!(losses > 10);
}

#[test]
fn a_directory_sync_that_failed_lies_when_tried_again() {
    let mut losses = 0;
    for seed in SEEDS {
        let sim = Sim::new(seed);
        durable_file(&sim);
        sim.rename(&path("f"), &path("g")).unwrap();
        sim.fail_at(sim.operations());
        assert!(sim.sync_dir(Path::new("/")).is_err());
        sim.sync_dir(Path::new("/")).unwrap();
        assert_eq!(sim.list(Path::new("/")).unwrap(), ["g"]);
        losses += usize::from(sim.crash(seed).list(Path::new("/")).unwrap() == ["f"]);
    }
    assert!(losses > 10);
}

#[test]
fn a_full_disk_takes_a_part_and_recovers() {
    let sim = Sim::new(1);
    sim.set_capacity(Some(1000));
    let file = sim.create_new(&path("f")).unwrap();
    write(&file, 0, &[1; 900]);
    assert!(file.write_at(900, &[IoSlice::new(&[2; 200])]).unwrap_err().is_full());
    assert_eq!(file.len().unwrap(), 1000);
    assert_eq!(sim.free_bytes(Path::new("/")).unwrap(), 0);
    write(&file, 0, &[3; 900]);
    sim.set_capacity(None);
    write(&file, 1000, &[2; 200]);
}

#[test]
fn a_stopped_machine_changes_nothing_more() {
    let mut lengths = BTreeSet::new();
    for seed in SEEDS {
        let sim = Sim::new(seed);
        let file = durable_file(&sim);
        sim.crash_at(sim.operations() + 1);
        write(&file, 0, b"x");
        assert!(!sim.is_down());
        assert!(file.write_at(3 * 4096, &[IoSlice::new(&[b'c'; 9])]).is_err());
        assert!(sim.is_down());
        let hash = sim.hash();
        assert!(file.sync_data().is_err() && file.len().is_err() && sim.list(Path::new("/")).is_err());
        assert!(sim.rename(&path("f"), &path("g")).is_err());
        assert_eq!(sim.hash(), hash);
        lengths.insert(seen(&sim.kill(), "f").unwrap().len() - 3 * 4096);
    }
    assert!(lengths.len() > 5, "the last write may be done in part");
}

#[test]
fn a_directory_whose_name_is_lost_takes_its_files_along() {
    let sim = Sim::new(1);
    sim.create_dir_all(&path("a/b")).unwrap();
    sim.make_dir(&path("a/c")).unwrap();
    for dir in ["a/b", "a/c"] {
        sim.create_new(&path(dir).join("f")).unwrap().sync_data().unwrap();
        sim.sync_dir(&path(dir)).unwrap();
    }
    let outcomes: BTreeSet<(bool, bool)> = SEEDS
        .map(|seed| sim.crash(seed))
        .map(|s| (s.exists(&path("a/b/f")).unwrap(), s.exists(&path("a/c/f")).unwrap()))
        .collect();
    assert_eq!(outcomes, [(true, true), (true, false)].into());
}

#[test]
fn damage_and_unreadable_sectors_are_seen() {
    let sim = Sim::new(1);
    let file = durable_file(&sim);
    sim.damage(&path("f"), |bytes| bytes[5] ^= 1).unwrap();
    assert_eq!(seen(&sim.crash(1), "f").unwrap()[5], b'a' ^ 1);
    sim.fail_reads(&path("f"), 512..1024).unwrap();
    let mut buffer = [0; 512];
    file.read_at(0, &mut buffer).unwrap();
    assert!(file.read_at(600, &mut buffer).is_err());
}

#[test]
fn a_lock_is_exclusive_until_dropped_or_killed() {
    let sim = Sim::new(1);
    let guard = sim.lock(&path("LOCK")).unwrap();
    assert!(guard.is_some() && sim.lock(&path("LOCK")).unwrap().is_none());
    assert!(sim.kill().lock(&path("LOCK")).unwrap().is_some());
    drop(guard);
    assert!(sim.lock(&path("LOCK")).unwrap().is_some());
}

#[test]
fn watched_moments_are_the_disk_before_each_operation_and_inside_each_write() {
    let sim = Sim::new(1);
    let file = durable_file(&sim);
    let (before, first) = (sim.hash(), sim.operations());
    sim.watch();
    write(&file, 0, &[b'b'; 4096]);
    file.sync_data().unwrap();
    let moments = sim.take_moments();
    assert_eq!(moments.iter().map(|(operation, _)| *operation).collect::<Vec<_>>(), [first, first, first + 1]);
    assert_eq!(moments[0].1.hash(), before);
    assert_eq!(seen(&moments[2].1.kill(), "f").unwrap()[..4096], [b'b'; 4096]);
    assert_ne!(moments[2].1.hash(), sim.hash(), "not synced yet");
    sim.watch_no_more();
    write(&file, 0, b"x");
    assert!(sim.take_moments().is_empty());
}

#[test]
fn a_clean_page_that_a_failed_sync_lost_may_leave_the_cache() {
    let mut fates = BTreeSet::new();
    for seed in SEEDS {
        let sim = Sim::new(seed);
        let file = durable_file(&sim);
        write(&file, 0, &[b'b'; 4096]);
        assert_eq!(seen(&sim.kill_and_evict(seed), "f").unwrap()[0], b'b', "a dirty page stays");
        sim.fail_at(sim.operations());
        assert!(file.sync_data().is_err());
        fates.insert(seen(&sim.kill_and_evict(seed), "f").unwrap()[0]);
    }
    assert_eq!(fates, [b'a', b'b'].into());
}

#[test]
fn what_was_on_its_way_may_become_unreadable_until_it_is_written() {
    let sim = Sim::new(1);
    let file = durable_file(&sim);
    write(&file, 4096, &[b'b'; 4096]);
    let mut buffer = [0; 4096];
    let bad = |sim: &Sim, position| sim.open(&path("f"), true).unwrap().read_at(position, &mut [0; 4096]).is_err();
    let after = (0..512).map(|seed| sim.crash_unreadably(seed)).find(|after| bad(after, 4096)).unwrap();
    assert!(!bad(&after, 0) && !bad(&after, 8192), "what was durable stays readable");
    assert!((0..512).all(|seed| !bad(&sim.crash(seed), 4096)));
    let file = after.open(&path("f"), true).unwrap();
    write(&file, 4096, &[b'c'; 4096]);
    file.read_at(4096, &mut buffer).unwrap();
    assert_eq!(buffer, [b'c'; 4096]);
}

#[test]
fn a_refused_write_says_so_and_may_be_done_in_part() {
    let lengths: BTreeSet<u64> = SEEDS
        .map(|seed| {
            let sim = Sim::new(seed);
            let file = sim.create_new(&path("f")).unwrap();
            sim.refuse_at(sim.operations());
            assert!(file.write_at(0, &[IoSlice::new(&[1; 8192])]).unwrap_err().is_full());
            file.len().unwrap()
        })
        .collect();
    assert!([0, 4096, 8192].iter().all(|whole| lengths.contains(whole)) && lengths.len() > 8, "{lengths:?}");
}
