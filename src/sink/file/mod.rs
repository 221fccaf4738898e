//! Records in files: `DIR/topic=T/partition=P/<first offset>.jsonl`, each record once, whatever happens.
//!
//! Promises:
//! - A receipt is returned after the file was synced, and its directory if the file is new. A file is published
//!   (renamed from `.part`) after its last receipt is durable in the log, and never changes from then on.
//! - A file is created only after its name is durable in the log. A file this log did not name is never cut or
//!   replaced: the sink stops and names it. A name is logged when nothing has it, and taken back (an empty name is logged)
//!   when something else has it by the time the file is made.
//! - At a start each file is brought to exactly what its last receipt says ([`restore`]); what comes again is written
//!   again with the same bytes.
//! - A full disk is a [`SinkError::Retry`]: nothing beyond the receipts counts, and the same bytes go to the same place
//!   when there is room. Any other failed write or sync is final: no receipt is returned any more.
//! - What another sink delivered is left out: files go on behind it. Another sink does not go on while a file is not
//!   published.
//!
//! Never: it does not cut a file in place, and does not split a call of `deliver` over two files of a partition (so a
//! file may exceed `roll_bytes` by one delivery).
//!
//! Not covered: at a start the `.part` that has the logged name and no receipt is removed. One that something else made
//! after the process died between name and receipt, or in another directory chosen since, looks the same.

mod detail;
mod handles;
mod names;
mod output;
mod restore;

use super::render::{FLUSH_BYTES, Format, Renderer};
use super::{Receipt, Restored, Sink, SinkError, SinkLog, Source, Tier};
use crate::io::{IoError, SYNC_DIR, Storage};
use crate::record::{Block, Partition};
use detail::{Detail, State};
use handles::Handles;
use names::Paths;
use output::{OpenFile, Output};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a full disk is left alone.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);
/// A buffer that grew beyond this for one large record is not kept.
const BUFFER_MAX: usize = 4 * FLUSH_BYTES;

/// How files are written.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// Layout of new files; a file that is open at a restart keeps its own.
    pub format: Format,
    /// A file of at least this many bytes is finished at the end of a delivery.
    pub roll_bytes: u64,
    /// A file is finished when this process has had it open for so long.
    pub roll_age: Duration,
    /// Files held open at a time.
    pub max_open: usize,
    /// Files synced at a time; 1 keeps the order of operations the same in every run.
    pub sync_threads: usize,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            format: Format::Jsonl,
            roll_bytes: 256 << 20,
            roll_age: Duration::from_secs(3600),
            max_open: 256,
            sync_threads: 1,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct FileSink {
    storage: Arc<dyn Storage>,
    root: PathBuf,
    options: FileOptions,
    outputs: BTreeMap<Partition, Output>,
    handles: Handles,
    buffer: Vec<u8>,
    /// Directories with names that are not durable yet.
    unsynced: BTreeSet<PathBuf>,
    /// Why nothing goes on.
    broken: Option<String>,
}

impl FileSink {
    /// A sink that writes below `root`. Touches nothing before [`Sink::restore`] or the first delivery.
    pub fn new(storage: Arc<dyn Storage>, root: &Path, options: FileOptions) -> Self {
        Self {
            handles: Handles::new(Arc::clone(&storage), options.max_open, options.sync_threads),
            storage,
            root: root.to_path_buf(),
            options,
            outputs: BTreeMap::new(),
            buffer: Vec::new(),
            unsynced: BTreeSet::new(),
            broken: None,
        }
    }

    /// Runs one call; a full disk is a reason to wait, every other failure is final.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, SinkError>) -> Result<T, SinkError> {
        if let Some(reason) = &self.broken {
            return Err(SinkError::Fatal(format!("the file sink has stopped: {reason}")));
        }
        act(self).map_err(|error| {
            let error = waiting_if_full(error);
            match &error {
                SinkError::Retry { .. } => {
                    let files = self.outputs.values_mut().filter_map(|output| output.file.as_mut());
                    files.for_each(OpenFile::roll_back);
                }
                other => self.broken = Some(other.to_string()),
            }
            error
        })
    }

    fn deliver_all(&mut self, blocks: &[(Source, Block)], log: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError> {
        let mut sorted: Vec<&(Source, Block)> = blocks.iter().collect();
        sorted.sort_by_key(|(source, _)| source.partition);
        let runs: Vec<&[&(Source, Block)]> = sorted.chunk_by(|a, b| a.0.partition == b.0.partition).collect();
        self.accept(&runs)?;
        if let Err(error) = self.open_files(&runs, log) {
            if matches!(error, SinkError::Fatal(_)) {
                // Best effort: it stops with that error anyway.
                let _ = self.take_back_names(log);
            }
            return Err(error);
        }
        for run in &runs {
            self.write_run(run)?;
        }
        self.handles.sync()?;
        self.sync_dirs()?;
        Ok(runs.iter().filter_map(|run| self.settle(run)).collect())
    }

    /// Refuses what would put a record into a file twice.
    fn accept(&mut self, runs: &[&[&(Source, Block)]]) -> Result<(), SinkError> {
        for run in runs {
            let source = &run[0].0;
            let output = self.outputs.entry(source.partition).or_insert_with(|| Output::new(source.clone()));
            let mut next = output.next;
            for (source, block) in *run {
                if block.header.first < next {
                    return Err(SinkError::Fatal(format!(
                        "{}/{} [{}, {}) was handed to the file sink again after {next}",
                        source.topic, source.partition.number, block.header.first, block.header.next
                    )));
                }
                next = block.header.next;
            }
        }
        Ok(())
    }

    /// Gives every run a file: names durable in the log, then created.
    fn open_files(&mut self, runs: &[&[&(Source, Block)]], log: &dyn SinkLog) -> Result<(), SinkError> {
        let mut names = Vec::new();
        for run in runs {
            let (source, block) = run[0];
            if self.outputs.get(&source.partition).is_some_and(|output| output.file.is_none()) {
                let name = names::output(source, block.header.first, self.options.format);
                refuse_foreign(self.storage.as_ref(), &Paths::new(&self.root, &name))?;
                names.push((source.partition, name));
            }
        }
        self.log_names(&names, log)?;
        for (partition, name) in names {
            // The receipts of what is published here were durable before this call.
            self.publish(partition)?;
            self.create(partition, name)?;
        }
        Ok(())
    }

    /// Makes names durable that the log does not have yet. While a file can't be created it is tried again and again, and
    /// must not fill the log.
    fn log_names(&mut self, names: &[(Partition, String)], log: &dyn SinkLog) -> Result<(), SinkError> {
        let is_new = |(partition, name): &&(Partition, String)| {
            self.outputs.get(partition).is_none_or(|output| output.named.as_ref() != Some(name))
        };
        let new: Vec<(Partition, String)> = names.iter().filter(is_new).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        log.name_outputs(&new)?;
        for (partition, name) in new {
            if let Some(output) = self.outputs.get_mut(&partition) {
                output.named = Some(name);
            }
        }
        Ok(())
    }

    /// What is named and has no receipt is removed at the next start; not what something else put there.
    fn take_back_names(&self, log: &dyn SinkLog) -> Result<(), SinkError> {
        let mut foreign = Vec::new();
        for (partition, output) in self.outputs.iter().filter(|(_, output)| output.file.is_none()) {
            let paths = output.named.as_ref().map(|name| Paths::new(&self.root, name));
            if paths.is_some_and(|paths| refuse_foreign(self.storage.as_ref(), &paths).is_err()) {
                foreign.push((*partition, String::new()));
            }
        }
        if foreign.is_empty() { Ok(()) } else { log.name_outputs(&foreign) }
    }

    fn create(&mut self, partition: Partition, name: String) -> Result<(), SinkError> {
        let Some(output) = self.outputs.get_mut(&partition) else {
            return Ok(());
        };
        let paths = Paths::new(&self.root, &name);
        if !output.has_dir {
            self.storage.create_dir_all(&paths.dir)?;
            output.has_dir = true;
        }
        refuse_foreign(self.storage.as_ref(), &paths)?;
        let mut created = self.handles.create(partition, &paths.part);
        if matches!(&created, Err(e) if e.source.kind() == ErrorKind::NotFound) {
            // Whoever reads the files removed the directory when it was empty.
            self.storage.create_dir_all(&paths.dir)?;
            created = self.handles.create(partition, &paths.part);
        }
        match created {
            Err(e) if e.source.kind() == ErrorKind::AlreadyExists => return Err(foreign(&paths.part)),
            other => other?,
        }
        self.unsynced.insert(paths.dir);
        output.file = Some(OpenFile::new(name));
        Ok(())
    }

    /// Renders and writes one partition's blocks. Nothing is durable yet.
    fn write_run(&mut self, run: &[&(Source, Block)]) -> Result<(), SinkError> {
        let Self { outputs, handles, buffer, root, .. } = self;
        let source = &run[0].0;
        let Some(file) = outputs.get_mut(&source.partition).and_then(|output| output.file.as_mut()) else {
            return Ok(());
        };
        let path = Paths::new(root, &file.name).part;
        let renderer = Renderer::new(names::format_of(&file.name), source);
        let mut append = |file: &mut OpenFile, bytes: &[u8]| {
            let end = file.flushed + bytes.len() as u64;
            file.reach = file.reach.max(end);
            handles.write(source.partition, &path, file.flushed, bytes)?;
            file.flushed = end;
            Ok::<(), SinkError>(())
        };
        buffer.clear();
        let mut summed = 0;
        for (_, block) in run {
            file.written.begin_block(block.header.first);
            renderer.block(block, buffer, |full| {
                file.written.absorb(&full[summed..]);
                append(file, full)?;
                full.clear();
                summed = 0;
                Ok(())
            })?;
            file.written.absorb(&buffer[summed..]);
            summed = buffer.len();
            file.written.next = block.header.next;
        }
        append(file, buffer)?;
        if buffer.capacity() > BUFFER_MAX {
            *buffer = Vec::new();
        }
        Ok(())
    }

    /// The receipt of one run, whose file and name are durable.
    fn settle(&mut self, run: &[&(Source, Block)]) -> Option<Receipt> {
        let partition = run[0].0.partition;
        let output = self.outputs.get_mut(&partition)?;
        let file = output.file.as_mut()?;
        output.next = file.written.next;
        let full = file.written.len >= self.options.roll_bytes && file.reach == file.written.len;
        let state = if full { State::Finished } else { State::Open };
        let receipt = file.settle(&output.source, run[0].1.header.first, state);
        if full {
            output.finished = output.file.take();
            self.handles.close(partition);
        }
        // From now on the log's last receipt is one of this file.
        (output.named, output.published) = (None, None);
        Some(receipt)
    }

    /// Renames a finished file whose last receipt is durable; the directory is still to be synced.
    fn publish(&mut self, partition: Partition) -> Result<(), SinkError> {
        let Some(output) = self.outputs.get_mut(&partition) else {
            return Ok(());
        };
        let Some(file) = &output.finished else {
            return Ok(());
        };
        let paths = Paths::new(&self.root, &file.name);
        self.storage.rename(&paths.part, &paths.published)?;
        self.unsynced.insert(paths.dir);
        output.published = Some(file.receipt(&output.source, State::Published));
        output.finished = None;
        Ok(())
    }

    fn sync_dirs(&mut self) -> Result<(), SinkError> {
        while let Some(dir) = self.unsynced.first() {
            match self.storage.sync_dir(dir) {
                // Its readers took what was published there, and then the directory: no name can be lost any more.
                Err(e) if e.source.kind() == ErrorKind::NotFound && !self.has_file_in(dir) => {}
                other => other?,
            }
            self.unsynced.pop_first();
        }
        Ok(())
    }

    /// True if a file that is not published yet belongs there.
    fn has_file_in(&self, dir: &Path) -> bool {
        let mut files = self.outputs.values().flat_map(|output| output.file.iter().chain(&output.finished));
        files.any(|file| Paths::new(&self.root, &file.name).dir == dir)
    }

    /// Publishes what was finished before, and finishes what is old enough.
    fn finish(&mut self, closing: bool) -> Result<Vec<Receipt>, SinkError> {
        let partitions: Vec<Partition> = self.outputs.keys().copied().collect();
        for partition in partitions {
            match self.publish(partition).map_err(waiting_if_full) {
                // Nothing waits for it: a later call publishes it, or the next start. Nor do the others' receipts.
                Err(SinkError::Retry { .. }) => {}
                other => other?,
            }
        }
        self.sync_dirs()?;
        let published = self.outputs.values_mut().filter_map(|output| output.published.take());
        let mut receipts: Vec<Receipt> = published.collect();
        for (partition, output) in &mut self.outputs {
            let due =
                |file: &mut OpenFile| file.is_settled() && (closing || file.since.elapsed() >= self.options.roll_age);
            if let Some(file) = output.file.take_if(due) {
                receipts.push(file.receipt(&output.source, State::Finished));
                output.finished = Some(file);
                self.handles.close(*partition);
            }
        }
        Ok(receipts)
    }
}

fn refuse_foreign(storage: &dyn Storage, paths: &Paths) -> Result<(), SinkError> {
    for path in [&paths.published, &paths.part] {
        if storage.exists(path)? {
            return Err(foreign(path));
        }
    }
    Ok(())
}

fn foreign(path: &Path) -> SinkError {
    SinkError::Fatal(format!(
        "{} exists and was not written from this log; move it away or choose another directory",
        path.display()
    ))
}

/// Keeps another sink from going on where files wait to be published: its receipts would take the place of theirs, and
/// nobody would ever publish them.
pub(super) fn refuse_to_leave(restored: &[Restored]) -> Result<(), SinkError> {
    for Restored { source, receipt, .. } in restored {
        let detail = receipt.as_ref().and_then(|receipt| Detail::decode(&receipt.detail).ok());
        if let Some(detail) = detail.filter(|detail| detail.state != State::Published) {
            return Err(SinkError::Fatal(format!(
                "{} of {}/{} is not published yet; run once more with the file sink (a clean stop or --exit-at-end \
                 publishes it) before the sink is changed",
                Paths::new(Path::new(""), &detail.name).part.display(),
                source.topic,
                source.partition.number
            )));
        }
    }
    Ok(())
}

/// A disk without room is worth waiting for, unless it was a sync that failed: then data is lost.
fn waiting_if_full(error: SinkError) -> SinkError {
    match error {
        SinkError::Io(e) if e.is_full() && !is_sync(&e) => {
            SinkError::Retry { after: FULL_DISK_PAUSE, reason: e.to_string() }
        }
        other => other,
    }
}

fn is_sync(error: &IoError) -> bool {
    error.operation == "sync" || error.operation == SYNC_DIR
}

impl Sink for FileSink {
    fn tier(&self) -> Tier {
        Tier::Idempotent
    }

    fn restore(&mut self, restored: &[Restored], log: &dyn SinkLog) -> Result<(), SinkError> {
        self.guarded(|sink| {
            sink.outputs.clear();
            for one in restored {
                let output = restore::restore(sink.storage.as_ref(), &sink.root, one, log)?;
                sink.outputs.insert(one.source.partition, output);
            }
            Ok(())
        })
    }

    fn watermark(&mut self, _source: &Source) -> Result<Option<i64>, SinkError> {
        // The log's receipts are the only truth about these files.
        Ok(None)
    }

    fn deliver(&mut self, blocks: &[(Source, Block)], log: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError> {
        self.guarded(|sink| sink.deliver_all(blocks, log))
    }

    fn tick(&mut self, closing: bool, log: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError> {
        let _ = log;
        self.guarded(|sink| sink.finish(closing))
    }
}

#[cfg(test)]
mod tests;
