//! Where the library's messages go: standard error, as text or JSON, around the progress line if there is one.

use crate::config::{Log, LogFormat, LogLevel};
use indicatif::ProgressBar;
use std::io::{self, IsTerminal, Write};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts writing messages; to be called once. `bar` is the progress line that shares the terminal.
pub(super) fn start(settings: &Log, bar: &ProgressBar) {
    let filter = EnvFilter::new(directives(settings.level));
    let writer = Around { bar: bar.clone() };
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // A second start finds the first one in place, which is as good.
    let _ = match settings.format {
        LogFormat::Text => builder.with_ansi(colours).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Other libraries say less than we do.
fn directives(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info,sled=warn,hyper=warn",
        LogLevel::Debug => "debug,sled=info,hyper=info",
        LogLevel::Trace => "trace",
    }
}

/// Standard error with the progress line out of the way while something is written.
#[derive(Clone)]
struct Around {
    bar: ProgressBar,
}

impl Write for Around {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.bar.suspend(|| io::stderr().lock().write(text))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

impl<'a> MakeWriter<'a> for Around {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
