//! SIGINT and SIGTERM: the first asks for an ordered stop, the second ends the process. SIGXFSZ ends nothing.

use super::exit::INTERRUPTED;
use super::output::talk;
use crate::pipeline::Control;
use rustix::process::Signal;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// Starts listening, on a thread of its own, for as long as the process lives.
pub(super) fn listen(control: &Control) -> io::Result<()> {
    let control = control.clone();
    each(move || {
        if control.is_stopping() {
            talk("forebay: second signal, ending at once; what is durable is delivered at the next start");
            std::process::exit(INTERRUPTED);
        }
        talk("forebay: stopping; a second signal ends at once");
        control.stop();
    })
}

/// The same for a command without a pipeline: the first signal sets the flag.
pub(super) fn set(flag: Arc<AtomicBool>) -> io::Result<()> {
    each(move || {
        if flag.swap(true, Ordering::AcqRel) {
            std::process::exit(INTERRUPTED);
        }
    })
}

/// A file that would become longer than allowed (`LimitFSIZE=`, `ulimit -f`) is an error that names it, and not the end of
/// the process without a word. Caught and not ignored: what is ignored, children ignore too. A refusal changes nothing.
pub(super) fn outlive_long_files() {
    let caught = tokio::runtime::Builder::new_current_thread().enable_io().build().and_then(|runtime| {
        let _entered = runtime.enter();
        signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))
    });
    // The handler stays for as long as the process lives, whoever listens.
    drop(caught);
}

fn each(mut told: impl FnMut() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    drop(guard);
    let listening = async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            told();
        }
    };
    std::thread::Builder::new().name("signals".to_string()).spawn(move || runtime.block_on(listening))?;
    Ok(())
}
