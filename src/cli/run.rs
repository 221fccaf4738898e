//! `forebay run`: the pipeline with its faces — messages, progress, HTTP, signals, summary.

use super::args::RunArgs;
use super::exit::{CONFIG, Failure, IO, OK};
use super::output::{self, Format};
use super::{layers, logging, progress, signals, summary};
use crate::config::{LogFormat, Target};
use crate::pipeline::{self, Control, Custom, Summary, guarantee};
use crate::server::{Server, ServerError};

/// Runs until stopped, until the end with `--exit-at-end`, or until it fails.
pub(super) fn run(args: &RunArgs) -> Result<i32, Failure> {
    let mut config = layers::read(&args.settings)?.config;
    config.exit_at_end = args.exit_at_end;
    let talk_is_json = config.log.format == LogFormat::Json;
    if talk_is_json {
        output::talk_json();
    }
    if let Some(reason) = guarantee::unmet(&config) {
        return Err(Failure::new(CONFIG, anyhow::anyhow!(reason)));
    }
    let bar = progress::line();
    logging::start(&config.log, &bar);
    let control = Control::new();
    signals::listen(&control)?;
    let server = Server::start(&config.server, &control).map_err(server_failure)?;
    let watch = progress::Watch::start(&bar, &control);
    let data_on_stdout = config.sink.target == Some(Target::Stdout);
    let custom = Custom { unprotected: args.unprotected, ..Custom::default() };
    let result = pipeline::run_with(config, control.clone(), custom);
    drop(watch);
    drop(server);
    let show = |summary: &Summary| {
        if data_on_stdout {
            let format = if talk_is_json { Format::Jsonl } else { args.output };
            summary::write(&mut std::io::stderr().lock(), format, summary)
        } else {
            summary::write(&mut std::io::stdout().lock(), args.output, summary)
        }
    };
    match result {
        Ok(summary) => show(&summary)?,
        Err(error) => {
            // What was done is done; if it can't be told, what failed still can.
            if let Some(summary) = control.summary() {
                let _ = show(&summary);
            }
            return Err(error.into());
        }
    }
    Ok(OK)
}

fn server_failure(error: ServerError) -> Failure {
    let code = if matches!(error, ServerError::Bind { .. }) { CONFIG } else { IO };
    Failure::new(code, error)
}
