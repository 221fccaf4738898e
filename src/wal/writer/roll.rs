//! From one segment to the next: the footer, the successor, and what happens when a disk says no.

use super::{SYNC, Writer};
use crate::config::Durability;
use crate::io::IoError;
use crate::wal::catalogue::Listed;
use crate::wal::error::WalError;
use crate::wal::format::footer;
use crate::wal::format::header::Predecessor;
use crate::wal::retention::Sealed;
use crate::wal::segment::{self, Active, Birth};
use std::sync::Arc;

const WRITE: &str = "write";

impl Writer {
    /// Goes on in the next segment. False, and nothing happened, if there is no spare.
    pub fn roll(&mut self) -> Result<bool, WalError> {
        if self.is_poisoned {
            return Err(WalError::Closed);
        }
        while let Some(spare) = self.parts.rack.take() {
            if !self.parts.active.is_closed {
                self.seal()?;
            }
            self.sync_before_leaving()?;
            match self.build_successor(&spare) {
                Ok(active) => {
                    self.switch(active);
                    return Ok(true);
                }
                Err(WalError::Io(error)) if error.is_full() && error.operation == WRITE => {
                    self.parts.active.is_closed = true;
                    self.parts.rack.put_back(spare);
                    return Ok(false);
                }
                Err(WalError::Io(error)) => {
                    self.failed(error)?;
                    self.parts.active.is_closed = true;
                    self.parts.rack.discard(&spare).map_err(|error| self.poison(error))?;
                }
                Err(error) => return Err(self.poison(error)),
            }
        }
        Ok(false)
    }

    /// A write to the active segment, or its sync, failed: it ends at its last synced frame. What lies beyond is never
    /// judged, and never written again.
    pub(super) fn end_here(&mut self, error: IoError, blocks: usize) -> Result<(), WalError> {
        if error.operation == SYNC && self.parts.durability != Durability::Fsync {
            // What it lost may be what counted as durable before it: there is nobody to ask for that again.
            return Err(self.poison(error.into()));
        }
        if !error.is_full() || error.operation == SYNC {
            self.failed(error)?;
            // Its disk blocks are not trusted with another segment.
            self.parts.rack.never_reuse(self.parts.active.number);
        }
        self.parts.active.is_closed = true;
        self.parts.active.index.truncate(blocks);
        self.group.clear();
        Ok(())
    }

    /// Counts the failure of a file. The second one without a durable group in between is final, and so is that of
    /// anything but a file's contents.
    fn failed(&mut self, error: IoError) -> Result<(), WalError> {
        self.failures += 1;
        let is_of_contents = error.operation == SYNC || error.operation == WRITE;
        if self.failures > 1 || !is_of_contents {
            return Err(self.poison(error.into()));
        }
        self.parts.metrics.wal_failed_syncs.inc();
        tracing::error!("the log goes on in another segment: {error}");
        Ok(())
    }

    /// Writes and syncs the footer, if there is room for it.
    fn seal(&mut self) -> Result<(), WalError> {
        let active = &self.parts.active;
        let need = footer::reserve(active.index.len());
        if active.position + need > active.capacity {
            return Ok(());
        }
        self.group.clear();
        self.encode(&[], true)?;
        match self.write(self.parts.active.position, &[]) {
            Ok(()) => {
                self.take_over(&[], true)?;
                self.show_written();
                Ok(())
            }
            Err(error) => self.end_here(error, self.parts.active.index.len()),
        }
    }

    /// The successor says how far this segment goes, and is synced: so this one must be, whatever counts as durable.
    fn sync_before_leaving(&mut self) -> Result<(), WalError> {
        if self.parts.durability != Durability::Fsync {
            let synced = self.parts.active.file.sync_data();
            synced.map_err(|error| self.poison(error.into()))?;
            self.synced = self.parts.next_lsn - 1;
        }
        Ok(())
    }

    fn build_successor(&mut self, spare: &str) -> Result<Active, WalError> {
        let salt = self.parts.entropy.number()?;
        let parts = &self.parts;
        let old = &parts.active;
        let predecessor = Predecessor {
            number: old.number,
            salt: old.salt,
            end_lsn: parts.next_lsn,
            end_position: old.position,
            digest: old.digest.clone().finalize(),
        };
        let birth = Birth {
            number: old.number + 1,
            salt,
            first_lsn: parts.next_lsn,
            retired_below: parts.state.retired_below,
            predecessor,
            state: &parts.state,
            tail: &[],
        };
        let file = parts.storage.open(&parts.dir.join(spare), true)?;
        let len = file.len()?;
        let active = segment::build(parts.storage.as_ref(), &parts.dir, spare, file, &birth)?;
        parts.rack.grew(active.capacity - len);
        Ok(active)
    }

    fn switch(&mut self, active: Active) {
        let parts = &mut self.parts;
        parts.catalogue.put(Listed::of(&active));
        let old = std::mem::replace(&mut parts.active, active);
        let runs = Arc::new(old.runs);
        parts.catalogue.seal(old.number, old.position, &runs);
        parts.sealed.push_back(Sealed { number: old.number, len: old.capacity, first_lsn: old.first_lsn, runs });
        parts.metrics.wal_segments.set(parts.sealed.len() as i64 + 1);
        parts.metrics.wal_bytes.set(parts.rack.used() as i64);
        self.is_idle = true;
    }
}
