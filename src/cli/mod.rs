//! The command line: arguments → settings → one command → an exit code. One file a command.
//!
//! Promises: standard output is data, standard error is talk; exit codes are those of [`exit`]; a closed standard
//! output ends a command quietly. Never: a command writes to a log; `run` does, through the pipeline.

mod args;
pub mod bench;
mod check;
mod client;
mod completions;
pub mod demo;
pub mod exit;
mod layers;
mod logging;
mod obstacles;
mod output;
mod progress;
mod run;
mod show_demo;
mod signals;
mod summary;
mod wal;

use args::{Arguments, Command};
use clap::Parser;
use exit::Failure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Runs the command that the process was started with; returns the exit code.
pub fn main() -> i32 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, everything else is a usage error; there is nobody to tell if this fails.
            let _ = error.print();
            return error.exit_code();
        }
    };
    raise_open_files();
    signals::outlive_long_files();
    match dispatch(arguments) {
        Ok(code) => code,
        Err(failure) if failure.is_broken_pipe() => exit::OK,
        Err(failure) => {
            output::complain(&format!("forebay: {}", failure.text()));
            failure.code
        }
    }
}

/// A long log is looked at with all its segments open, where many systems allow 1024 files unless they are asked for more.
/// A refusal changes nothing.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn dispatch(arguments: Arguments) -> Result<i32, Failure> {
    match arguments.command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => show_demo::run(&args),
        Command::Bench(command) => bench::run(&command),
        Command::Check(args) => check::run(&args),
        Command::Wal(command) => wal::run(&command),
        Command::Completions(args) => completions::run(&args),
    }
}
