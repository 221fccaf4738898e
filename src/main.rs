//! The `forebay` command.

/// librdkafka allocates each message in one thread and frees it in another, where glibc's allocator waits for locks; this
/// one does not. It serves the C code too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    std::process::exit(forebay::cli::main());
}
