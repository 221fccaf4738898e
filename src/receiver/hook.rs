//! The moment between the sync of the log and the commit of the offsets, made visible to a test that wants to kill the
//! process right there. Hidden: only an environment variable switches it on.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// The variable that names the file to write to.
pub const VARIABLE: &str = "FOREBAY_HOOK_AFTER_SYNC";
/// How long the process stands still, to be killed.
const PAUSE: Duration = Duration::from_millis(200);

/// Writes a line to a file at each such moment and waits.
#[derive(Clone, Debug)]
pub struct Hook {
    path: PathBuf,
}

impl Hook {
    /// Reads the variable; `None` in normal life.
    pub fn from_environment() -> Option<Self> {
        std::env::var_os(VARIABLE).map(|path| Self { path: path.into() })
    }

    /// Called when something is durable and its commit is about to be sent.
    pub fn after_sync(&self) {
        let file = OpenOptions::new().append(true).create(true).open(&self.path);
        if let Err(error) = file.and_then(|mut file| file.write_all(b"synced\n")) {
            tracing::warn!("hook {}: {error}", self.path.display());
        }
        std::thread::sleep(PAUSE);
    }
}
