//! The `forebay` command.

fn main() {
    std::process::exit(forebay::cli::main());
}
