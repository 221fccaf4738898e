//! Moments that a test wants to kill the process in, made visible: between the sync of the log and the commit of the
//! offsets, and between the sink's write and its receipt. Hidden: only environment variables switch them on.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Names the file that gets a line when the log is synced and the commit is about to be sent.
pub const AFTER_SYNC: &str = "FOREBAY_HOOK_AFTER_SYNC";
/// Names the file that gets a line when the sink's output is durable and its receipt is about to be logged.
pub const AFTER_WRITE: &str = "FOREBAY_HOOK_AFTER_WRITE";
/// How long the process stands still, to be killed.
const PAUSE: Duration = Duration::from_millis(200);

/// Writes a line to a file at each such moment and waits.
#[derive(Clone, Debug)]
pub struct Hook {
    path: PathBuf,
}

impl Hook {
    /// Reads the variable; `None` in normal life.
    pub fn from_environment(variable: &str) -> Option<Self> {
        std::env::var_os(variable).map(|path| Self { path: path.into() })
    }

    /// Called at the moment.
    pub fn reached(&self) {
        let file = OpenOptions::new().append(true).create(true).open(&self.path);
        if let Err(error) = file.and_then(|mut file| file.write_all(b"reached\n")) {
            tracing::warn!("hook {}: {error}", self.path.display());
        }
        std::thread::sleep(PAUSE);
    }
}
