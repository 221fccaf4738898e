use super::super::null::Null;
use super::super::stdout::Stdout;
use super::super::testing::{NoLog, block, source};
use super::*;
use crate::io::File;
use crate::io::disk::Disk;
use crate::io::fault::Faults;
use crate::io::fault::Operation::{self, Create, CreateDir, Rename, Sync, SyncDir, Write};
use crate::io::sim::Sim;
use std::sync::Mutex;

const ROOT: &str = "/out";
const FIRST: &str = "/out/topic=t/partition=0/00000000000000000000.txt";
const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const ENOSPC: i32 = 28;

fn options() -> FileOptions {
    FileOptions { format: Format::Raw, ..FileOptions::default() }
}

fn sink_on(storage: &Arc<dyn Storage>) -> FileSink {
    FileSink::new(Arc::clone(storage), Path::new(ROOT), options())
}

fn on_faults() -> (Arc<Faults>, FileSink) {
    let faults = Arc::new(Faults::new(Arc::new(Sim::new(1))));
    let storage: Arc<dyn Storage> = faults.clone();
    (faults, sink_on(&storage))
}

/// A log that keeps blocks, names, and says when a name was asked for.
#[derive(Default)]
struct Kept {
    blocks: Vec<Block>,
    names: Mutex<Vec<String>>,
}

impl Kept {
    fn last_name(&self) -> Option<String> {
        self.names.lock().unwrap().last().cloned()
    }
}

impl SinkLog for Kept {
    fn name_output(&self, _partition: Partition, name: &str) -> Result<(), SinkError> {
        self.names.lock().unwrap().push(name.into());
        Ok(())
    }

    fn read_blocks(&self, _: Partition, first: i64, next: i64) -> Result<Vec<Block>, SinkError> {
        let within = self.blocks.iter().filter(|b| b.header.first >= first && b.header.next <= next);
        Ok(within.cloned().collect())
    }
}

fn restored(receipt: Option<Receipt>, named: Option<&str>) -> [Restored; 1] {
    [Restored { source: source(0), receipt, named: named.map(Into::into) }]
}

#[test]
fn files_and_names_are_durable_before_the_receipt_and_the_name_is_logged_before_the_file_exists() {
    struct Order(Arc<Faults>);
    impl SinkLog for Order {
        fn name_output(&self, _: Partition, name: &str) -> Result<(), SinkError> {
            assert_eq!(name, "topic=t/partition=0/00000000000000000000.txt");
            assert_eq!(self.0.count(Create) + self.0.count(CreateDir), 0);
            Ok(())
        }
        fn read_blocks(&self, _: Partition, _: i64, _: i64) -> Result<Vec<Block>, SinkError> {
            Ok(Vec::new())
        }
    }
    let (faults, mut sink) = on_faults();
    let receipts = sink.deliver(&[(source(0), block(0, 0, 3))], &Order(faults.clone())).unwrap();
    assert_eq!((receipts[0].next, receipts[0].keep_from), (3, Some(0)));
    let done: Vec<Operation> = faults.take_trace().iter().map(|t| t.operation).collect();
    assert_eq!(done, [CreateDir, Create, Write, Sync, SyncDir]);

    sink.deliver(&[(source(0), block(0, 3, 6))], &NoLog).unwrap();
    let done: Vec<Operation> = faults.take_trace().iter().map(|t| t.operation).collect();
    assert_eq!(done, [Write, Sync], "an open file costs one sync");
}

#[test]
fn a_clean_stop_finishes_then_publishes_then_says_so() {
    let sim = Sim::new(1);
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let mut sink = sink_on(&storage);
    sink.deliver(&[(source(0), block(0, 0, 3))], &NoLog).unwrap();
    let finished = sink.tick(true, &NoLog).unwrap();
    assert_eq!((finished[0].next, finished[0].keep_from), (3, None));
    assert!(sim.files().contains_key(Path::new(&format!("{FIRST}.part"))));
    let published = sink.tick(true, &NoLog).unwrap();
    assert_eq!(sim.files().into_keys().collect::<Vec<_>>(), [Path::new(FIRST)]);
    assert_eq!(sink.tick(true, &NoLog).unwrap(), []);

    let mut again = sink_on(&storage);
    again.restore(&restored(Some(published[0].clone()), None), &NoLog).unwrap();
    again.deliver(&[(source(0), block(0, 3, 4))], &NoLog).unwrap();
    assert_eq!(sim.files()[Path::new(FIRST)], b"record 0\nrecord 1\nrecord 2\n");
}

#[test]
fn a_sync_that_finds_no_room_is_final() {
    for kind in [Sync, SyncDir] {
        let (faults, mut sink) = on_faults();
        faults.fail(kind, 0, ENOSPC);
        let blocks = [(source(0), block(0, 0, 3))];
        assert!(matches!(sink.deliver(&blocks, &NoLog), Err(SinkError::Io(_))));
        let syncs = faults.count(kind);
        assert!(matches!(sink.deliver(&blocks, &NoLog), Err(SinkError::Fatal(_))));
        assert!(matches!(sink.tick(true, &NoLog), Err(SinkError::Fatal(_))));
        assert_eq!(faults.count(kind), syncs, "not tried again");
    }
}

#[test]
fn a_file_that_finds_no_room_is_named_in_the_log_once() {
    for kind in [CreateDir, Create] {
        let (faults, mut sink) = on_faults();
        let log = Kept::default();
        let blocks = [(source(0), block(0, 0, 3))];
        for _ in 0..5 {
            faults.fail(kind, 0, ENOSPC);
            assert!(matches!(sink.deliver(&blocks, &log), Err(SinkError::Retry { .. })));
        }
        sink.deliver(&blocks, &log).unwrap();
        assert_eq!(log.names.lock().unwrap().len(), 1, "{kind:?}");
    }
}

#[test]
fn no_room_for_anything_else_is_waited_out() {
    for kind in [CreateDir, Create, Write] {
        let (faults, mut sink) = on_faults();
        let storage: Arc<dyn Storage> = faults.clone();
        faults.fail(kind, 0, ENOSPC);
        let blocks = [(source(0), block(0, 0, 3)), (source(1), block(1, 0, 9))];
        assert!(matches!(sink.deliver(&blocks, &NoLog), Err(SinkError::Retry { .. })), "{kind:?}");
        assert_eq!(sink.deliver(&blocks, &NoLog).unwrap().len(), 2);
        let mut bytes = [0; 100];
        let file = storage.open(Path::new(&format!("{FIRST}.part")), false).unwrap();
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), 27);
    }
}

#[test]
fn what_a_failed_write_left_is_never_published() {
    let sim = Sim::new(3);
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let mut sink = FileSink::new(Arc::clone(&storage), Path::new(ROOT), FileOptions { roll_bytes: 50, ..options() });
    let receipt = sink.deliver(&[(source(0), block(0, 0, 3))], &NoLog).unwrap().remove(0);
    sim.set_capacity(Some(27 + 1000));
    let large = [(source(0), block(0, 3, 503))];
    assert!(matches!(sink.deliver(&large, &NoLog), Err(SinkError::Retry { .. })));
    let part = PathBuf::from(format!("{FIRST}.part"));
    assert!(sim.files()[&part].len() > 100, "a part of it was written");
    assert_eq!(sink.tick(true, &NoLog).unwrap(), [], "not to be finished as it is");

    // Fewer blocks than were tried before: the file is large enough to roll, but there are bytes behind its end.
    let fewer = sink.deliver(&[(source(0), block(0, 3, 9))], &NoLog).unwrap().remove(0);
    assert!(fewer.keep_from.is_some());
    sim.set_capacity(None);
    for receipt in [receipt, fewer] {
        let next = receipt.next;
        let later = sim.snapshot();
        let log = Kept { blocks: vec![block(0, 0, 3), block(0, 3, 9)], ..Kept::default() };
        FileSink::new(Arc::new(later.clone()), Path::new(ROOT), options())
            .restore(&restored(Some(receipt), None), &log)
            .unwrap();
        assert_eq!(later.files()[&part].len() as i64, 9 * next, "cut to its receipt");
    }
}

#[test]
fn a_file_this_log_did_not_name_is_left_alone_and_named() {
    for name in [FIRST.to_owned(), format!("{FIRST}.part")] {
        let sim = Sim::new(1);
        sim.create_dir_all(Path::new(&name).parent().unwrap()).unwrap();
        sim.create_new(Path::new(&name)).unwrap();
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let log = Kept::default();
        for start in 0..3 {
            let mut sink = sink_on(&storage);
            sink.restore(&restored(None, log.last_name().as_deref()), &log).unwrap();
            let error = sink.deliver(&[(source(0), block(0, 0, 3))], &log).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{name} exists")), "start {start}: {error}");
            assert_eq!(sim.files()[Path::new(&name)], b"");
        }
        assert_eq!(log.last_name(), None);
    }
}

#[test]
fn a_file_that_appears_after_its_name_was_logged_is_left_alone_too() {
    /// Something else makes the file when its name has just become durable.
    struct Raced(Sim, Kept);
    impl SinkLog for Raced {
        fn name_output(&self, partition: Partition, name: &str) -> Result<(), SinkError> {
            let path = PathBuf::from(format!("{FIRST}.part"));
            if !self.0.exists(&path)? {
                self.0.create_dir_all(path.parent().unwrap())?;
                self.0.create_new(&path)?;
            }
            self.1.name_output(partition, name)
        }
        fn read_blocks(&self, _: Partition, _: i64, _: i64) -> Result<Vec<Block>, SinkError> {
            Ok(Vec::new())
        }
    }
    let sim = Sim::new(1);
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let log = Raced(sim.clone(), Kept::default());
    for start in 0..3 {
        let mut sink = sink_on(&storage);
        sink.restore(&restored(None, log.1.last_name().as_deref()), &log).unwrap();
        let error = sink.deliver(&[(source(0), block(0, 0, 3))], &log).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{FIRST}.part exists")), "start {start}: {error}");
        assert_eq!(sim.files()[Path::new(&format!("{FIRST}.part"))], b"");
    }
    assert_eq!(log.1.names.lock().unwrap().len(), 2, "named and taken back");

    let (faults, mut sink) = on_faults();
    faults.fail(Create, 0, EEXIST);
    let error = sink.deliver(&[(source(0), block(0, 0, 3))], &NoLog).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{FIRST}.part exists")), "{error}");
}

#[test]
fn files_go_on_behind_what_another_sink_delivered() {
    let fifth = names::output(&source(0), 5, Format::Raw);
    // Published, left over by an earlier change of the sink, or named since and without a receipt.
    for (named, suffix, stays) in [(0, "", true), (0, ".part", true), (5, ".part", false)] {
        let sim = Sim::new(1);
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let name = names::output(&source(0), named, Format::Raw);
        let path = Path::new(ROOT).join(format!("{name}{suffix}"));
        sim.create_dir_all(path.parent().unwrap()).unwrap();
        sim.create_new(&path).unwrap();
        let elsewhere = Null::default().deliver(&[(source(0), block(0, 3, 5))], &NoLog).unwrap().remove(0);
        let start = || {
            let mut sink = sink_on(&storage);
            sink.restore(&restored(Some(elsewhere.clone()), Some(&name)), &NoLog).unwrap();
            sink
        };
        let error = start().deliver(&[(source(0), block(0, 4, 6))], &NoLog).unwrap_err();
        assert!(error.to_string().contains("again after 5"), "{error}");
        assert_eq!(sim.files().contains_key(&path), stays, "{}", path.display());
        start().deliver(&[(source(0), block(0, 5, 7))], &NoLog).unwrap();
        let part = Path::new(ROOT).join(format!("{fifth}.part"));
        assert_eq!(sim.files()[&part], b"record 5\nrecord 6\n");
    }
}

#[test]
fn another_sink_goes_on_only_where_every_file_is_published() {
    let (_, mut sink) = on_faults();
    let blocks = [(source(0), block(0, 0, 3))];
    let open = sink.deliver(&blocks, &NoLog).unwrap();
    let finished = sink.tick(true, &NoLog).unwrap();
    let published = sink.tick(true, &NoLog).unwrap();
    let elsewhere = Null::default().deliver(&blocks, &NoLog).unwrap();
    for (receipts, goes_on) in [(open, false), (finished, false), (published, true), (elsewhere, true)] {
        let stdout = Stdout::new(Box::new(std::io::sink()), Format::Raw);
        let others: [Box<dyn Sink>; 2] = [Box::new(Null::default()), Box::new(stdout)];
        for mut other in others {
            let result = other.restore(&restored(Some(receipts[0].clone()), None), &NoLog);
            assert_eq!(result.is_ok(), goes_on);
            if let Err(error) = result {
                let part = "topic=t/partition=0/00000000000000000000.txt.part of t/0 is not published yet";
                assert!(error.to_string().starts_with(part), "{error}");
            }
        }
    }
}

#[test]
fn what_a_start_publishes_or_finds_taken_gets_its_receipt_where_its_directory_is() {
    let sim = Sim::new(1);
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let mut sink = sink_on(&storage);
    sink.deliver(&[(source(0), block(0, 0, 3))], &NoLog).unwrap();
    let finished = sink.tick(true, &NoLog).unwrap().remove(0);
    let left = sim.snapshot();
    let published = sink.tick(true, &NoLog).unwrap();
    let taken = sim.snapshot();
    taken.unlink(Path::new(FIRST)).unwrap();
    for (disk, is_there) in [(left, true), (sim, true), (taken, true), (Sim::new(2), false)] {
        let expected = if is_there { &published[..] } else { &[] };
        let storage: Arc<dyn Storage> = Arc::new(disk);
        let mut again = sink_on(&storage);
        again.restore(&restored(Some(finished.clone()), None), &NoLog).unwrap();
        assert_eq!(again.tick(false, &NoLog).unwrap(), expected);
        assert_eq!(again.tick(false, &NoLog).unwrap(), []);
    }
}

#[test]
fn the_next_files_receipt_is_not_followed_by_that_of_the_last_one() {
    let (_, mut sink) = on_faults();
    sink.deliver(&[(source(0), block(0, 0, 3))], &NoLog).unwrap();
    sink.tick(true, &NoLog).unwrap();
    sink.deliver(&[(source(0), block(0, 3, 5))], &NoLog).unwrap();
    assert_eq!(sink.tick(false, &NoLog).unwrap(), [], "it would take the place of the open file's");
}

#[test]
fn a_full_disk_at_one_file_keeps_no_receipt_from_the_others() {
    let (faults, mut sink) = on_faults();
    let blocks = [0, 1, 2].map(|number| (source(number), block(number, 0, 3)));
    sink.deliver(&blocks, &NoLog).unwrap();
    let mut tick = || {
        let receipts = sink.tick(true, &NoLog).unwrap();
        receipts.iter().map(|receipt| receipt.partition.number).collect::<Vec<_>>()
    };
    assert_eq!(tick(), [0, 1, 2], "finished");
    faults.fail(Rename, 1, ENOSPC);
    assert_eq!(tick(), [0, 2], "published");
    assert_eq!(tick(), [1]);
    assert!(tick().is_empty());
}

#[test]
fn a_directory_that_a_reader_removed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = FileSink::new(Arc::new(Disk), dir.path(), options());
    sink.deliver(&[(source(0), block(0, 0, 3))], &NoLog).unwrap();
    while !sink.tick(true, &NoLog).unwrap().is_empty() {}
    std::fs::remove_dir_all(dir.path().join("topic=t")).unwrap();
    sink.deliver(&[(source(0), block(0, 3, 4))], &NoLog).unwrap();
    let part = format!("{}.part", names::output(&source(0), 3, Format::Raw));
    assert_eq!(std::fs::read_to_string(dir.path().join(part)).unwrap(), "record 3\n");
}

#[test]
fn a_directory_that_is_gone_needs_no_sync_unless_a_file_is_written_in_it() {
    let blocks = [(source(0), block(0, 0, 3))];
    let (faults, mut sink) = on_faults();
    sink.deliver(&blocks, &NoLog).unwrap();
    sink.tick(true, &NoLog).unwrap();
    faults.fail(SyncDir, 0, ENOENT);
    assert_eq!(sink.tick(true, &NoLog).unwrap().len(), 1, "published and taken");

    let (faults, mut sink) = on_faults();
    faults.fail(SyncDir, 0, ENOENT);
    assert!(matches!(sink.deliver(&blocks, &NoLog), Err(SinkError::Io(_))));
    assert!(matches!(sink.deliver(&blocks, &NoLog), Err(SinkError::Fatal(_))));
}

#[test]
fn a_record_never_goes_in_twice() {
    let (_, mut sink) = on_faults();
    sink.deliver(&[(source(0), block(0, 0, 3))], &NoLog).unwrap();
    let error = sink.deliver(&[(source(0), block(0, 2, 5))], &NoLog).unwrap_err();
    assert!(error.to_string().contains("t/0 [2, 5)"), "{error}");
}

/// Delivers 1000 records in ten blocks, some pages long, and gives back the disk and the open file's receipt.
fn delivered(log: &Kept) -> (Sim, Receipt) {
    let sim = Sim::new(1);
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let mut sink = sink_on(&storage);
    let blocks: Vec<_> = log.blocks.iter().map(|block| (source(0), block.clone())).collect();
    let receipt = sink.deliver(&blocks, log).unwrap().remove(0);
    (sim, receipt)
}

fn ten_blocks() -> Kept {
    Kept { blocks: (0..10).map(|n| block(0, n * 100, n * 100 + 100)).collect(), ..Kept::default() }
}

#[test]
fn a_torn_last_page_is_written_again_from_the_log() {
    let log = ten_blocks();
    let (sim, receipt) = delivered(&log);
    let part = format!("{FIRST}.part");
    let whole = sim.files()[Path::new(&part)].clone();
    for keep_len in [true, false] {
        let len = whole.len();
        let tear = |bytes: &mut Vec<u8>| {
            if keep_len {
                bytes[len - 100..].fill(b'?');
            } else {
                bytes.truncate(len - 100);
            }
        };
        sim.damage(Path::new(&part), tear).unwrap();
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        sink_on(&storage).restore(&restored(Some(receipt.clone()), None), &log).unwrap();
        assert_eq!(sim.files()[Path::new(&part)], whole);
    }
}

#[test]
fn an_open_file_is_written_again_where_its_directory_is_missing() {
    let log = Kept { blocks: vec![block(0, 0, 3)], ..Kept::default() };
    let (sim, receipt) = delivered(&log);
    let other = Sim::new(2);
    let storage: Arc<dyn Storage> = Arc::new(other.clone());
    sink_on(&storage).restore(&restored(Some(receipt), None), &log).unwrap();
    let part = PathBuf::from(format!("{FIRST}.part"));
    for seed in 0..8 {
        assert_eq!(other.crash(seed).files().get(&part), sim.files().get(&part), "seed {seed}");
    }
}

/// A disk whose reader takes a published file away as soon as a copy of it has its place.
#[derive(Debug)]
struct Greedy(Sim);

impl Storage for Greedy {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, IoError> {
        self.0.create_new(path)
    }
    fn open(&self, path: &Path, write: bool) -> Result<Arc<dyn File>, IoError> {
        self.0.open(path, write)
    }
    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        self.0.list(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.0.rename(from, to)?;
        let published = to.with_extension("");
        let is_copied = to.extension().is_some_and(|suffix| suffix == "part") && self.0.exists(&published)?;
        if is_copied { self.0.unlink(&published) } else { Ok(()) }
    }
    fn unlink(&self, path: &Path) -> Result<(), IoError> {
        self.0.unlink(path)
    }
    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.0.sync_dir(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError> {
        self.0.create_dir_all(dir)
    }
    fn exists(&self, path: &Path) -> Result<bool, IoError> {
        self.0.exists(path)
    }
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + std::marker::Sync>>, IoError> {
        self.0.lock(path)
    }
    fn free_bytes(&self, dir: &Path) -> Result<u64, IoError> {
        self.0.free_bytes(dir)
    }
}

#[test]
fn a_file_that_is_taken_while_it_is_published_again_does_not_come_back() {
    let sim = Sim::new(1);
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let mut sink = sink_on(&storage);
    sink.deliver(&[(source(0), block(0, 0, 3))], &NoLog).unwrap();
    let finished = sink.tick(true, &NoLog).unwrap().remove(0);
    sink.tick(true, &NoLog).unwrap();
    assert!(sim.files().contains_key(Path::new(FIRST)));
    let greedy: Arc<dyn Storage> = Arc::new(Greedy(sim.clone()));
    sink_on(&greedy).restore(&restored(Some(finished), None), &NoLog).unwrap();
    assert!(sim.files().is_empty(), "{:?}", sim.files().into_keys().collect::<Vec<_>>());
}

#[test]
fn what_can_not_be_brought_back_is_named_and_left_as_it_is() {
    let log = ten_blocks();
    let part = format!("{FIRST}.part");
    let outcome = |log: &dyn SinkLog, change: &dyn Fn(&Sim)| {
        let (sim, receipt) = delivered(&ten_blocks());
        change(&sim);
        let before = sim.files();
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let mut sink = sink_on(&storage);
        let error = sink.restore(&restored(Some(receipt), None), log).unwrap_err();
        assert_eq!(sim.files(), before);
        error.to_string()
    };
    let flip = |sim: &Sim| sim.damage(Path::new(&part), |bytes| bytes[5] ^= 1).unwrap();
    let error = outcome(&log, &flip);
    assert!(error.starts_with(&format!("{part} is damaged or short in bytes 0 to ")), "{error}");
    assert!(error.contains("t/0 up to offset 1000 (last receipt [0, 1000), "), "{error}");
    let error = outcome(&log, &|sim| sim.unlink(Path::new(&part)).unwrap());
    assert!(error.contains("is missing"), "{error}");
    let shorten = |sim: &Sim| {
        let cut = |bytes: &mut Vec<u8>| bytes.truncate(9999);
        sim.damage(Path::new(&part), cut).unwrap();
    };
    let error = outcome(&NoLog, &shorten);
    let reason = "writing it again from the log failed: [700, 1000) is not in the log";
    assert!(error.contains(reason), "{error}");
}

#[test]
fn many_partitions_share_few_handles_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = FileOptions { max_open: 3, ..options() };
    let mut sink = FileSink::new(Arc::new(Disk), &dir.path().join("out"), options);
    for first in [0, 2] {
        let blocks: Vec<_> = (0..20).map(|p| (source(p), block(p, first, first + 2))).collect();
        assert_eq!(sink.deliver(&blocks, &NoLog).unwrap().len(), 20);
    }
    while !sink.tick(true, &NoLog).unwrap().is_empty() {}
    for partition in 0..20 {
        let name = names::output(&source(partition), 0, Format::Raw);
        let text = std::fs::read_to_string(dir.path().join("out").join(name)).unwrap();
        assert_eq!(text, "record 0\nrecord 1\nrecord 2\nrecord 3\n");
    }
}
