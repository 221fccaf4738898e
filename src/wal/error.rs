//! What can go wrong with the log, with the place where it did.

use crate::io::IoError;
use crate::record::{Lsn, Partition};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An error of the log.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Acknowledged bytes are damaged.
    #[error("corrupt log: {} at byte {position}{}{}: {reason}", path.display(), lsn_text(*lsn), range_text(*range))]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// The first damaged byte's frame or page.
        position: u64,
        /// LSN, where it is known.
        lsn: Option<Lsn>,
        /// Partition and `[first, next)`, where they are known.
        range: Option<(Partition, i64, i64)>,
        /// What is wrong.
        reason: String,
    },
    /// Another process has the log open.
    #[error("{} is locked by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Written by another version of the format.
    #[error("cannot read {}: {reason}", path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// Found and supported.
        reason: String,
    },
    /// A file that does not belong into the directory, or a segment of another log.
    #[error("{} does not belong to this log: {reason}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No space for what must be written now.
    #[error("no space for the log in {}: {reason}", path.display())]
    Full {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// An option is outside its limits.
    #[error("{0}")]
    Options(String),
    /// An entry can't be logged: its payload is too long.
    #[error("a {kind} frame can't be logged: {reason}")]
    Entry {
        /// Kind of frame.
        kind: &'static str,
        /// Why.
        reason: String,
    },
    /// A blocks' range is not kept by the log any more.
    #[error("partition {partition:?}: offsets [{first}, {next}) are not in the log any more")]
    NotKept {
        /// The partition.
        partition: Partition,
        /// First offset asked for.
        first: i64,
        /// One past the last offset asked for.
        next: i64,
    },
    /// A rule of the log was broken by its own program, or the system gave no thread or random numbers.
    #[error("the log can't go on: {0}")]
    Internal(String),
    /// An earlier write or sync failed; nothing more is written.
    #[error("the log is poisoned: {0}")]
    Poisoned(Arc<WalError>),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Exit 3: acknowledged bytes are damaged.
    Corrupt,
    /// Exit 74: a system call failed.
    Io,
    /// Exit 74: no space.
    Full,
    /// Exit 78: another process has the log.
    Locked,
    /// Exit 78: another format version.
    Version,
    /// Exit 78: a file of somebody else.
    Foreign,
    /// Exit 78: an option is wrong.
    Options,
    /// Exit 74: an earlier write or sync failed.
    Poisoned,
    /// Exit 1: a rule was broken by the program itself.
    Internal,
    /// Exit 1: used after close, or in a way it does not allow.
    Closed,
}

impl WalError {
    /// The class of the error, which says what to do.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io(error) if error.is_full() => ErrorClass::Full,
            Self::Io(_) => ErrorClass::Io,
            Self::Corrupt { .. } | Self::NotKept { .. } => ErrorClass::Corrupt,
            Self::Locked { .. } => ErrorClass::Locked,
            Self::Version { .. } => ErrorClass::Version,
            Self::Foreign { .. } => ErrorClass::Foreign,
            Self::Full { .. } => ErrorClass::Full,
            Self::Options(_) => ErrorClass::Options,
            Self::Internal(_) => ErrorClass::Internal,
            Self::Poisoned(_) => ErrorClass::Poisoned,
            Self::Entry { .. } | Self::Closed => ErrorClass::Closed,
        }
    }

    /// The process exit code that belongs to the error.
    pub fn exit_code(&self) -> u8 {
        match self.class() {
            ErrorClass::Corrupt => 3,
            ErrorClass::Io | ErrorClass::Full | ErrorClass::Poisoned => 74,
            ErrorClass::Locked | ErrorClass::Version | ErrorClass::Foreign | ErrorClass::Options => 78,
            ErrorClass::Internal | ErrorClass::Closed => 1,
        }
    }

    pub(crate) fn corrupt(path: &Path, position: u64, lsn: Option<Lsn>, reason: String) -> Self {
        let path = path.to_path_buf();
        Self::Corrupt { path, position, lsn, range: None, reason }
    }
}

fn lsn_text(lsn: Option<Lsn>) -> String {
    lsn.map_or_else(String::new, |lsn| format!(", LSN {lsn}"))
}

fn range_text(range: Option<(Partition, i64, i64)>) -> String {
    range.map_or_else(String::new, |(partition, first, next)| {
        let Partition { topic, number } = partition;
        format!(", topic number {topic} partition {number} offsets [{first}, {next})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error;

    #[test]
    fn a_full_disk_or_quota_is_told_apart_from_a_disk_that_fails() {
        let class = |errno| {
            let source = Error::from_raw_os_error(errno);
            WalError::Io(IoError::new("write", Path::new("file"), source)).class()
        };
        let (eio, enospc, edquot) = (5, 28, 122);
        assert_eq!([eio, enospc, edquot].map(class), [ErrorClass::Io, ErrorClass::Full, ErrorClass::Full]);
    }

    #[test]
    fn damage_is_named_with_all_that_is_known_of_its_place() {
        let text = |lsn, range| {
            let (path, reason) = (PathBuf::from("1.wal"), "bad checksum".to_owned());
            WalError::Corrupt { path, position: 4096, lsn, range, reason }.to_string()
        };
        assert_eq!(text(None, None), "corrupt log: 1.wal at byte 4096: bad checksum");
        let range = (Partition { topic: 3, number: 7 }, 5, 9);
        let place = "1.wal at byte 4096, LSN 17, topic number 3 partition 7 offsets [5, 9)";
        assert_eq!(text(Some(17), Some(range)), format!("corrupt log: {place}: bad checksum"));
    }
}
