//! `forebay completions`.

use super::args::{Arguments, CompletionsArgs};
use super::exit::{Failure, OK};
use super::output::print;
use clap::CommandFactory;

/// Prints the completions for a shell.
pub(super) fn run(args: &CompletionsArgs) -> Result<i32, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "forebay", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(OK)
}
