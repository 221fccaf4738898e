//! Exit codes, and errors that carry one.

use std::io::ErrorKind;

/// It worked.
pub const OK: i32 = 0;
/// It failed.
pub const FAILED: i32 = 1;
/// The command line is wrong; clap's own code.
pub const USAGE: i32 = 2;
/// It worked and found problems: corruption, holes, doubles.
pub const FOUND: i32 = 3;
/// Something needed is not there: brokers, a lock.
pub const UNAVAILABLE: i32 = 69;
/// Reading or writing failed.
pub const IO: i32 = 74;
/// The configuration is wrong.
pub const CONFIG: i32 = 78;
/// Stopped before it was done.
pub const INTERRUPTED: i32 = 130;

/// Why a command did not do what it was asked to, and the exit code for that.
#[derive(Debug)]
pub struct Failure {
    /// The process exit code.
    pub code: i32,
    /// For people.
    pub error: anyhow::Error,
}

impl Failure {
    /// An error with its exit code.
    pub fn new(code: i32, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into() }
    }

    /// True when whoever reads our output has gone: no reason to complain.
    pub fn is_broken_pipe(&self) -> bool {
        let io = self.error.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(IO, error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(FAILED, error)
    }
}

impl From<crate::pipeline::Error> for Failure {
    fn from(error: crate::pipeline::Error) -> Self {
        Self::new(error.exit_code(), error)
    }
}

impl From<crate::wal::WalError> for Failure {
    fn from(error: crate::wal::WalError) -> Self {
        Self::new(i32::from(error.exit_code()), error)
    }
}
