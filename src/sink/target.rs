//! Which sink: the words of `--sink` and of the configuration, and the sink they stand for.

use super::Sink;
use super::file::{FileOptions, FileSink};
use super::null::Null;
use super::stdout::{Stdout, standard_output};
use crate::io::Storage;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Where output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Files below a directory: `file:DIR`.
    File {
        /// The directory; made when it is missing.
        dir: PathBuf,
    },
    /// Standard output: `stdout` or `-`.
    Stdout,
    /// Nowhere: `null`.
    Null,
}

/// A sink that is none of the known ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// `file:` without a directory.
    #[error("sink \"file:\" names no directory; write file:DIR")]
    NoDirectory,
    /// Anything else.
    #[error("unknown sink {0:?}; known are file:DIR, stdout (or -) and null")]
    Unknown(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text {
            "stdout" | "-" => Ok(Self::Stdout),
            "null" => Ok(Self::Null),
            _ => match text.strip_prefix("file:") {
                Some("") => Err(TargetError::NoDirectory),
                Some(dir) => Ok(Self::File { dir: dir.into() }),
                None => Err(TargetError::Unknown(text.into())),
            },
        }
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { dir } => write!(f, "file:{}", dir.display()),
            Self::Stdout => f.write_str("stdout"),
            Self::Null => f.write_str("null"),
        }
    }
}

/// Makes the sink. Nothing is opened or created before [`Sink::restore`]; `storage` and all options but the format
/// matter to files alone.
pub fn open(target: &Target, options: &FileOptions, storage: &Arc<dyn Storage>) -> Box<dyn Sink> {
    match target {
        Target::File { dir } => Box::new(FileSink::new(Arc::clone(storage), dir, options.clone())),
        Target::Stdout => Box::new(Stdout::new(standard_output(), options.format)),
        Target::Null => Box::new(Null::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_they_are_written() {
        for text in ["file:out/dir", "stdout", "null"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("-".parse::<Target>(), Ok(Target::Stdout));
        assert_eq!("file:".parse::<Target>(), Err(TargetError::NoDirectory));
        let error = "files:x".parse::<Target>().unwrap_err().to_string();
        assert_eq!(error, "unknown sink \"files:x\"; known are file:DIR, stdout (or -) and null");
    }
}
