//! Brings one partition's output to exactly what its last durable receipt says: look → [`decide`] → apply.
//!
//! Promises: a file is never cut in place: the receipted bytes go to a copy, which is synced and renamed over it, and
//! the directory is synced. Bytes are used only when their checksum fits. May crash anywhere and be run again. What
//! can't be brought back stops the sink with file, byte and offsets named, and is left as it is.

use super::super::render::Renderer;
use super::super::{Receipt, Restored, SinkError, SinkLog};
use super::detail::{Detail, State, Tail};
use super::names::{self, Paths};
use super::output::{OpenFile, Output, Progress};
use crate::io::{File, Storage};
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

const PIECE: usize = 1 << 20;

/// What became of a file, measured by its receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// No such name.
    Missing,
    /// All receipted bytes are there, and nothing else.
    Exact,
    /// All receipted bytes are there, and more.
    Longer,
    /// Damaged or cut short, but whole up to the receipt's tail.
    Torn,
    /// Damaged before the tail.
    Damaged,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The file is as it should be.
    Keep,
    /// Copy the receipted bytes.
    Cut,
    /// Copy the bytes up to the tail and write the rest from the log.
    Rebuild,
    /// It has its published name, but a failed directory sync may have lost that: publish a copy in its place.
    Republish,
    /// It was published, and its reader has taken it away or changed it.
    Taken,
    /// Both names exist: one of them is not ours.
    Ambiguous,
    /// Acknowledged output is gone.
    Lost,
}

/// The whole table. `from_start`: the log still keeps every block of the file.
fn decide(finished: bool, part: Found, published: Found, from_start: bool) -> Action {
    match (part, published) {
        (Found::Exact, Found::Missing) => Action::Keep,
        (Found::Longer, Found::Missing) => Action::Cut,
        (Found::Torn, Found::Missing) => Action::Rebuild,
        (Found::Missing, Found::Exact) => Action::Republish,
        // A crash while it was published again.
        (Found::Exact, Found::Exact) if finished => Action::Keep,
        (Found::Missing, _) if finished => Action::Taken,
        (Found::Missing, Found::Missing) if from_start => Action::Rebuild,
        (Found::Damaged, Found::Missing) | (Found::Missing, _) => Action::Lost,
        (_, _) => Action::Ambiguous,
    }
}

/// Restores one partition and returns its state. Blocks.
pub(super) fn restore(
    storage: &dyn Storage,
    root: &Path,
    restored: &Restored,
    log: &dyn SinkLog,
) -> Result<Output, SinkError> {
    let mut output = Output::new(restored.source.clone());
    let receipt = restored.receipt.as_ref();
    let by_file = receipt.filter(|receipt| !receipt.detail.is_empty());
    let detail = by_file.map(|receipt| read_detail(restored, receipt)).transpose()?;
    if let Some(named) = unreceipted(restored, detail.as_ref()) {
        drop_unreceipted(storage, &Paths::new(root, named))?;
    }
    if let Some(receipt) = receipt {
        output.next = receipt.next;
    }
    if let (Some(receipt), Some(detail)) = (receipt, detail) {
        output.file = Restore { storage, log, restored, receipt, detail: &detail }.run(root)?;
        let dir = Paths::new(root, &detail.name).dir;
        let published = output.file.is_none() && detail.state != State::Published;
        // Without its directory this is perhaps not where the file is: its receipt stays as it is.
        if published && storage.exists(&dir)? {
            storage.sync_dir(&dir)?;
            let file = OpenFile::restored(&detail, receipt);
            output.published = Some(file.receipt(&output.source, State::Published));
        }
    }
    Ok(output)
}

/// The name of a file that was perhaps made and has no receipt. An empty name was taken back.
fn unreceipted<'a>(restored: &'a Restored, detail: Option<&Detail>) -> Option<&'a str> {
    let named = restored.named.as_deref().filter(|name| !name.is_empty())?;
    let is_unreceipted = match (detail, &restored.receipt) {
        (Some(detail), _) => detail.name != named,
        // Another sink delivered since: what was named before that may be published, and nothing waits for it.
        (None, Some(elsewhere)) => names::first_of(named).is_some_and(|first| first >= elsewhere.next),
        (None, None) => true,
    };
    is_unreceipted.then_some(named)
}

fn read_detail(restored: &Restored, receipt: &Receipt) -> Result<Detail, SinkError> {
    Detail::decode(&receipt.detail).map_err(|reason| {
        let (topic, number) = (&restored.source.topic, restored.source.partition.number);
        let range = format!("{topic}/{number} [{}, {})", receipt.first, receipt.next);
        SinkError::Fatal(format!("the file receipt of {range} can't be read: {reason}"))
    })
}

/// Removes a file that was named and perhaps made, but never got a receipt: it is made anew.
fn drop_unreceipted(storage: &dyn Storage, paths: &Paths) -> Result<(), SinkError> {
    if storage.exists(&paths.published)? {
        return Err(SinkError::Fatal(format!(
            "{} exists, but this log never published it; move it away",
            paths.published.display()
        )));
    }
    if storage.exists(&paths.part)? {
        storage.unlink(&paths.part)?;
        storage.sync_dir(&paths.dir)?;
    }
    Ok(())
}

struct Restore<'a> {
    storage: &'a dyn Storage,
    log: &'a dyn SinkLog,
    restored: &'a Restored,
    receipt: &'a Receipt,
    detail: &'a Detail,
}

impl Restore<'_> {
    /// The file to go on with, unless it is published.
    fn run(&self, root: &Path) -> Result<Option<OpenFile>, SinkError> {
        let paths = Paths::new(root, &self.detail.name);
        if self.detail.state == State::Published {
            return Ok(None);
        }
        let finished = self.detail.state == State::Finished;
        self.drop_copy(&paths)?;
        let part = self.look_at(&paths.part, !finished)?;
        let published = self.look_at(&paths.published, false)?;
        let action = decide(finished, part, published, self.detail.tail.position == 0);
        // A directory sync that failed may have lost the name of what is here, and another sync would not say so.
        let unsure = action == Action::Keep && self.storage.exists(&paths.unsure)?;
        match if unsure { Action::Cut } else { action } {
            Action::Taken => return Ok(None),
            Action::Keep => {}
            Action::Cut => self.replace(&paths, &paths.part, self.detail.len, &[])?,
            Action::Rebuild => {
                let lost = self.render_tail(&paths)?;
                self.replace(&paths, &paths.part, self.detail.tail.position, &lost)?;
            }
            Action::Republish => {
                self.replace(&paths, &paths.published, self.detail.len, &[])?;
                if !self.is_still_published(&paths)? {
                    // Its reader has taken it away meanwhile: it must not come back.
                    self.storage.unlink(&paths.part)?;
                    self.storage.sync_dir(&paths.dir)?;
                    return Ok(None);
                }
            }
            Action::Ambiguous => {
                let (part, published) = (paths.part.display(), paths.published.display());
                let text = format!("both {part} and {published} exist; one of them is not from this log");
                return Err(SinkError::Fatal(text));
            }
            Action::Lost => return Err(self.lost(&paths, part)),
        }
        if finished || action == Action::Republish {
            // Its last receipt is durable: publish.
            self.storage.rename(&paths.part, &paths.published)?;
            self.storage.sync_dir(&paths.dir)?;
            return Ok(None);
        }
        Ok(Some(OpenFile::restored(self.detail, self.receipt)))
    }

    /// `is_open`: it was perhaps written to when the machine stopped.
    fn look_at(&self, path: &Path, is_open: bool) -> Result<Found, SinkError> {
        if !self.storage.exists(path)? {
            return Ok(Found::Missing);
        }
        let file = self.storage.open(path, false)?;
        let Detail { len, crc, tail, .. } = self.detail;
        let mut read = Progress::default();
        let whole_before_tail = copy(&file, tail.position, &mut read, |_, _| Ok(()))? && read.crc == tail.crc;
        if !whole_before_tail {
            return Ok(Found::Damaged);
        }
        let whole = match copy(&file, *len, &mut read, |_, _| Ok(())) {
            // A power cut may leave a page that was on its way unreadable until it is written again: it is as good as torn.
            Err(SinkError::Io(_)) if is_open => false,
            other => other? && read.crc == *crc,
        };
        Ok(match (whole, file.len()? > *len) {
            (false, _) => Found::Torn,
            (true, false) => Found::Exact,
            (true, true) => Found::Longer,
        })
    }

    fn is_still_published(&self, paths: &Paths) -> Result<bool, SinkError> {
        let is_there = self.storage.exists(&paths.published)?;
        Ok(is_there && self.storage.open(&paths.published, false)?.len()? == self.detail.len)
    }

    /// Renders the receipted bytes behind the tail again from the log's blocks.
    fn render_tail(&self, paths: &Paths) -> Result<Vec<u8>, SinkError> {
        let Tail { first, .. } = self.detail.tail;
        let partition = self.restored.source.partition;
        let unusable = |reason: String| {
            let error = self.lost(paths, Found::Torn);
            SinkError::Fatal(format!("{error}; writing it again from the log failed: {reason}"))
        };
        let blocks = self.log.read_blocks(partition, first, self.receipt.next);
        let blocks = blocks.map_err(|e| unusable(e.to_string()))?;
        let renderer = Renderer::new(names::format_of(&self.detail.name), &self.restored.source);
        let mut lost = Vec::new();
        for block in &blocks {
            let mut full = Vec::new();
            renderer.block(block, &mut full, |full| {
                lost.append(full);
                Ok(())
            })?;
            lost.append(&mut full);
        }
        let mut all = Progress::up_to(self.detail.tail);
        all.absorb(&lost);
        if (all.len, all.crc) != (self.detail.len, self.detail.crc) {
            return Err(unusable(format!("its blocks give {} bytes with checksum {:08x}", all.len, all.crc)));
        }
        Ok(lost)
    }

    /// Removes what a crash in [`Restore::replace`] left.
    fn drop_copy(&self, paths: &Paths) -> Result<(), SinkError> {
        if self.storage.exists(&paths.copy)? {
            self.storage.unlink(&paths.copy)?;
        }
        Ok(())
    }

    /// Puts a copy of the first `keep` bytes of `from` and `then`, verified, in the place of the part file.
    fn replace(&self, paths: &Paths, from: &Path, keep: u64, then: &[u8]) -> Result<(), SinkError> {
        // It is missing when it was removed with all that was in it, or another one was chosen.
        self.storage.create_dir_all(&paths.dir)?;
        let made = self.make_copy(paths, from, keep, then);
        if made.is_err() {
            // Best effort: an incomplete copy only takes room, and the next start removes it too.
            let _ = self.drop_copy(paths);
        }
        made?;
        if !self.storage.exists(&paths.unsure)? {
            self.storage.create_new(&paths.unsure)?;
        }
        self.storage.rename(&paths.copy, &paths.part)?;
        self.storage.sync_dir(&paths.dir)?;
        Ok(self.storage.unlink(&paths.unsure)?)
    }

    fn make_copy(&self, paths: &Paths, from: &Path, keep: u64, then: &[u8]) -> Result<(), SinkError> {
        let target = self.storage.create_new(&paths.copy)?;
        let mut copied = Progress::default();
        if keep > 0 {
            let file = self.storage.open(from, false)?;
            copy(&file, keep, &mut copied, |position, bytes| Ok(target.write_at(position, &[IoSlice::new(bytes)])?))?;
        }
        target.write_at(copied.len, &[IoSlice::new(then)])?;
        copied.absorb(then);
        if (copied.len, copied.crc) != (self.detail.len, self.detail.crc) {
            return Err(self.lost(paths, Found::Torn));
        }
        Ok(target.sync_data()?)
    }

    fn lost(&self, paths: &Paths, found: Found) -> SinkError {
        let Detail { len, tail, .. } = self.detail;
        let what = match found {
            Found::Missing => "is missing".to_owned(),
            Found::Damaged => format!("is damaged or short in bytes 0 to {}", tail.position),
            _ => format!("is damaged or short in bytes {} to {len}", tail.position),
        };
        let source = &self.restored.source;
        SinkError::Fatal(format!(
            "{} {what}; it holds delivered records of {}/{} up to offset {} (last receipt [{}, {}), {len} bytes)",
            paths.part.display(),
            source.topic,
            source.partition.number,
            self.receipt.next,
            self.receipt.first,
            self.receipt.next,
        ))
    }
}

/// Reads from where `read` stands up to byte `end`, in pieces, and hands them on with their position; false if the
/// file is shorter.
fn copy(
    file: &Arc<dyn File>,
    end: u64,
    read: &mut Progress,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), SinkError>,
) -> Result<bool, SinkError> {
    let mut buffer = vec![0; PIECE.min((end - read.len) as usize)];
    while read.len < end {
        let wanted = buffer.len().min((end - read.len) as usize);
        let got = file.read_at(read.len, &mut buffer[..wanted])?;
        take(read.len, &buffer[..got])?;
        read.absorb(&buffer[..got]);
        if got < wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_the_files_has_its_answer() {
        use Found::{Damaged, Exact, Longer, Missing, Torn};
        for finished in [false, true] {
            for (part, expected) in
                [(Exact, Action::Keep), (Longer, Action::Cut), (Torn, Action::Rebuild), (Damaged, Action::Lost)]
            {
                assert_eq!(decide(finished, part, Missing, false), expected);
                for published in [Longer, Torn, Damaged] {
                    assert_eq!(decide(finished, part, published, true), Action::Ambiguous);
                }
            }
        }
        assert_eq!(decide(true, Exact, Exact, false), Action::Keep);
        assert_eq!(decide(false, Exact, Exact, false), Action::Ambiguous);
        for published in [Missing, Longer, Torn, Damaged] {
            assert_eq!(decide(true, Missing, published, false), Action::Taken);
        }
        assert_eq!(decide(true, Missing, Exact, false), Action::Republish);
        assert_eq!(decide(false, Missing, Exact, false), Action::Republish);
        assert_eq!(decide(false, Missing, Torn, true), Action::Lost);
        assert_eq!(decide(false, Missing, Missing, true), Action::Rebuild);
        assert_eq!(decide(false, Missing, Missing, false), Action::Lost);
    }
}
