//! The targets that need a machine and not only bytes: a log's life by the bytes' choice, and a sink that is given any
//! receipt.

use super::crash_world::life::{End, Expected, Life};
use super::crash_world::steps::{Random, Step, start};
use forebay::io::Storage;
use forebay::io::sim::Sim;
use forebay::metrics::Metrics;
use forebay::record::{Block, Partition};
use forebay::sink::file::FileOptions;
use forebay::sink::render::Format;
use forebay::sink::target::{self, Target};
use forebay::sink::{Receipt, Restored, SinkError, SinkLog, Source};
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Steps of one life.
const STEPS: usize = 24;

/// A life on a simulated machine: each pair of bytes chooses a step, perhaps a crash or an error in it, and what a crash
/// leaves. After every crash, and at the end, what recovery finds is compared with what was appended.
pub fn log_life(data: &[u8]) {
    let metrics = Arc::new(Metrics::new());
    let mut life = Life::new(Sim::new(1), Expected::default(), &metrics);
    let mut random = Random(0);
    holds(start(&mut life));
    for pair in data.chunks_exact(2).take(STEPS) {
        let (what, how) = (pair[0], pair[1]);
        random.0 ^= u64::from(how) << 32 | u64::from(what);
        let soon = life.sim.operations() + u64::from(how % 32);
        match what >> 6 {
            1 => life.sim.crash_at(soon),
            2 => life.sim.fail_at(soon),
            _ => {}
        }
        holds(Step::ALL[usize::from(what) % Step::ALL.len()].take(&mut life, &mut random));
    }
    for _ in 0..2 {
        let next = life.sim.crash(random.below(1 << 32));
        next.set_capacity(None);
        life.goes_on(next);
        holds(life.open());
        assert_eq!(life.inspect(), Ok(()));
    }
}

fn holds(result: Result<(), End>) {
    if let Err(end) = result {
        panic!("{end:?}");
    }
}

struct NoLog;

impl SinkLog for NoLog {
    fn name_output(&self, _: Partition, _: &str) -> Result<(), SinkError> {
        Ok(())
    }

    fn read_blocks(&self, _: Partition, _: i64, _: i64) -> Result<Vec<Block>, SinkError> {
        Ok(Vec::new())
    }
}

/// The words of a receipt: the file sink is brought to whatever they say. The first byte chooses which files are there.
pub fn sink_receipt(data: &[u8]) {
    let Some((files, detail)) = data.split_first() else { return };
    let disk = Sim::new(0);
    let dir = Path::new("/out/topic=t/partition=0");
    disk.create_dir_all(dir).unwrap();
    let name = "00000000000000000000.txt";
    for (bit, ending) in ["", ".part", ".part.copy", ".part.unsure"].iter().enumerate() {
        if files & 1 << bit != 0 {
            let file = disk.create_new(&dir.join(format!("{name}{ending}"))).unwrap();
            file.write_at(0, &[IoSlice::new(&[b'x'; 5000][..usize::from(*files) * 16])]).unwrap();
        }
    }
    let storage: Arc<dyn Storage> = Arc::new(disk);
    let hour = Duration::from_secs(3600);
    let options =
        FileOptions { format: Format::Raw, roll_bytes: 1 << 20, roll_age: hour, max_open: 4, sync_threads: 1 };
    let mut sink = target::open(&Target::File { dir: "/out".into() }, &options, &storage);
    let partition = Partition { topic: 1, number: 0 };
    let source = Source { partition, topic: "t".into(), incarnation: 1 };
    let receipt = Receipt { partition, first: 0, next: 10, detail: detail.to_vec(), keep_from: Some(0) };
    let named = Some(format!("topic=t/partition=0/{name}"));
    let _ = sink.restore(&[Restored { source, receipt: Some(receipt), named }], &NoLog);
}
