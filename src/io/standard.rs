//! What the process was started with.

use rustix::fs::{OFlags, fcntl_getfl, fstat, stat};

/// Whether the process was started with a standard output. Rust's runtime opens `/dev/null`, for reading and writing, in
/// the place of one that is missing; a shell that is told to opens it for writing. True where that can't be found out.
pub fn is_stdout_open() -> bool {
    let out = std::io::stdout();
    let (Ok(null), Ok(found), Ok(flags)) = (stat("/dev/null"), fstat(&out), fcntl_getfl(&out)) else { return true };
    found.st_rdev != null.st_rdev || flags & OFlags::RWMODE != OFlags::RDWR
}
