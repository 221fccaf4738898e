//! Why a pipeline ended, and the process exit code that says so.

use crate::io::IoError;
use crate::processor::delivery::DeliveryError;
use crate::receiver::ReceiverError;
use crate::sink::SinkError;
use crate::wal::WalError;

/// The end of a pipeline that is not a success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log can't be opened or written.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Delivery failed.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// A receiver failed.
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
    /// A directory can't be made.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Something in the configuration does not fit what is there.
    #[error("{0}")]
    Config(String),
    /// Kafka was not reachable for as long as an `--exit-at-end` run waits.
    #[error("{0}")]
    Unavailable(String),
    /// Everything that could be delivered was; these partitions could not.
    #[error("stopped partitions: {}", .0.join("; "))]
    Stopped(Vec<String>),
    /// These partitions wait for an operator.
    #[error("held partitions: {}", .0.join("; "))]
    Held(Vec<String>),
    /// A part of the program panicked, which is a bug.
    #[error("{0} ended by a panic")]
    Panic(&'static str),
    /// The drain did not end within its deadline; what is durable is delivered at the next start.
    #[error(
        "stopped at the deadline with {0} blocks not delivered; they are in the log and are delivered at the next start"
    )]
    Deadline(u64),
}

impl Error {
    /// The process exit code: 1 failed, 3 damage found, 69 unavailable, 74 I/O, 78 configuration, 130 interrupted.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Wal(error) | Self::Delivery(DeliveryError::Wal(error)) => i32::from(error.exit_code()),
            Self::Delivery(DeliveryError::Sink(SinkError::Io(_))) | Self::Io(_) => 74,
            Self::Receiver(error) => error.exit_code(),
            Self::Config(_) => 78,
            Self::Unavailable(_) => 69,
            Self::Stopped(_) => 3,
            Self::Deadline(_) | Self::Delivery(DeliveryError::Stopped(_)) => 130,
            Self::Held(_) | Self::Panic(_) | Self::Delivery(_) => 1,
        }
    }
}
