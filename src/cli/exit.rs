//! Exit codes, and errors that carry one.

use crate::pipeline;
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

    /// The error and its causes, each once: the text of many an error ends with its cause.
    pub fn text(&self) -> String {
        let mut text = self.error.to_string();
        for cause in self.error.chain().skip(1).map(ToString::to_string) {
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        text
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

impl From<pipeline::Error> for Failure {
    fn from(error: pipeline::Error) -> Self {
        Self::new(error.exit_code(), error)
    }
}

impl From<crate::wal::WalError> for Failure {
    fn from(error: crate::wal::WalError) -> Self {
        Self::new(i32::from(error.exit_code()), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::IoError;
    use crate::receiver::ReceiverError;
    use rdkafka::ClientConfig;
    use rdkafka::consumer::BaseConsumer;
    use std::path::Path;

    #[test]
    fn each_cause_is_said_once() {
        let cause = || IoError::new("list", Path::new("absent"), ErrorKind::NotFound);
        let text = Failure::from(crate::wal::WalError::from(cause())).text();
        assert_eq!(text, format!("cannot list absent: {}", std::io::Error::from(ErrorKind::NotFound)));
        let text = Failure::from(anyhow::Error::new(cause()).context("no log")).text();
        assert_eq!(text, format!("no log: {}", cause()));
    }

    #[test]
    fn what_a_receiver_can_t_use_is_said_without_the_value() {
        let made = ClientConfig::new().set("ssl.truststore.password", "hunter2").create::<BaseConsumer>();
        let failure = Failure::from(pipeline::Error::from(ReceiverError::from(made.err().unwrap())));
        let text = failure.text();
        assert!(failure.code == CONFIG && text.contains("ssl.truststore.password"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
