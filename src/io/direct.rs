//! Large writes past the page cache (`O_DIRECT`).
//!
//! A write into the page cache costs more per page than its copy: each is looked up, marked, and gathered again by the
//! sync. What is copied into one aligned buffer goes to the disk from there.
//!
//! Promises: a write ends where an ordinary one would, and is as little durable: the disk has a cache of its own, a sync is
//! still needed. Where the kernel, the file system or the disk refuses, nothing was written, and the caller writes as usual.
//! Never: bytes are written twice, or from a buffer that changes meanwhile.

use super::disk::{is_unknown, write_all};
use rustix::fs::OFlags;
use rustix::io::ReadWriteFlags;
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Positions and lengths are multiples of this. A disk with larger blocks refuses, and is written to as usual.
pub const PAGE: usize = 4096;
/// A shorter write is as fast through the page cache: its sync writes it, where this waits for the disk twice.
const LEAST: usize = 512 << 10;
/// Bytes of one write, many pages: each write waits for the disk.
const STAGE: usize = 4 << 20;

thread_local! {
    /// One buffer for all files of a thread: few threads write, each one file at a time.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A second handle of an open file, made when it is first needed.
#[derive(Debug, Default)]
pub struct Direct {
    handle: OnceLock<Option<File>>,
    is_refused: AtomicBool,
}

impl Direct {
    /// True if the whole was written; false if nothing was, and is not to be in this way. The error names where it ended.
    pub fn write(&self, file: &File, position: u64, slices: &[IoSlice<'_>]) -> Result<bool, (u64, io::Error)> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        if bytes < LEAST || !bytes.is_multiple_of(PAGE) || !position.is_multiple_of(PAGE as u64) {
            return Ok(false);
        }
        let Some(handle) = self.handle.get_or_init(|| reopen(file)) else { return Ok(false) };
        if self.is_refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match BUFFER.with_borrow_mut(|buffer| write_staged(handle, buffer, position, slices)) {
            Ok(()) => Ok(true),
            Err((at, error)) if at == position && is_unknown(&error) => {
                self.is_refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            Err(failed) => Err(failed),
        }
    }
}

#[cfg(test)]
impl Direct {
    /// One that writes to this file, whatever is asked for.
    pub fn with(handle: File) -> Self {
        Self { handle: OnceLock::from(Some(handle)), is_refused: AtomicBool::new(false) }
    }
}

/// By the open file and not by its name, which may be another by now.
fn reopen(file: &File) -> Option<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path).ok()
}

/// Piece by piece through the buffer; each is a multiple of a page, as the whole is.
fn write_staged(
    handle: &File,
    buffer: &mut Vec<u8>,
    mut position: u64,
    slices: &[IoSlice<'_>],
) -> Result<(), (u64, io::Error)> {
    buffer.resize(STAGE + PAGE, 0);
    let aligned = buffer.as_ptr().align_offset(PAGE);
    let stage = &mut buffer[aligned..aligned + STAGE];
    let mut filled = 0;
    let mut flush = |stage: &[u8]| {
        write_all(handle, position, &[IoSlice::new(stage)], ReadWriteFlags::empty())?;
        position += stage.len() as u64;
        Ok(())
    };
    for slice in slices {
        let mut rest: &[u8] = slice;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(STAGE - filled));
            stage[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
            rest = behind;
            if filled == STAGE {
                flush(stage)?;
                filled = 0;
            }
        }
    }
    if filled == 0 { Ok(()) } else { flush(&stage[..filled]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        (0..bytes as u64).map(|at| (at.wrapping_mul(seed | 1) >> 5) as u8).collect()
    }

    fn file(path: &Path) -> File {
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).unwrap()
    }

    fn is_possible(path: &Path) -> bool {
        OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path).is_ok()
    }

    #[test]
    fn what_is_large_and_whole_is_written_as_it_is_over_what_is_cached() {
        for root in [std::env::temp_dir(), "/dev/shm".into()].iter().filter(|root| root.exists()) {
            let dir = tempfile::tempdir_in(root).unwrap();
            let path = dir.path().join("f");
            let file = file(&path);
            let is_possible = is_possible(&path);
            let mut expected = noise(3, 3 * STAGE);
            file.write_all_at(&expected, 0).unwrap();
            file.sync_data().unwrap();
            // The name is another when the first of them is written.
            std::fs::rename(&path, dir.path().join("g")).unwrap();
            let direct = Direct::default();
            let cases =
                [(0, LEAST), (LEAST, LEAST + PAGE), (PAGE, STAGE), (0, STAGE + PAGE), (2 * PAGE, 2 * STAGE + 3 * PAGE)];
            for (number, (position, bytes)) in cases.into_iter().enumerate() {
                let new = noise(7 + number as u64 * 1000, bytes);
                let slices: Vec<IoSlice<'_>> = new.chunks(100_003).map(IoSlice::new).collect();
                assert_eq!(direct.write(&file, position as u64, &slices).unwrap(), is_possible, "{}", root.display());
                if is_possible {
                    expected[position..position + bytes].copy_from_slice(&new);
                }
                let mut read = vec![0; expected.len()];
                file.read_exact_at(&mut read, 0).unwrap();
                assert!(read == expected, "{position} {bytes}");
            }
        }
    }

    #[test]
    fn what_is_small_or_not_whole_pages_is_left_to_the_caller() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = file(&path);
        let bytes = noise(1, 2 * LEAST);
        for (position, len) in [(0, LEAST - PAGE), (0, LEAST + 1), (1, LEAST), (512, LEAST), (0, 0)] {
            let written = Direct::default().write(&file, position, &[IoSlice::new(&bytes[..len])]).unwrap();
            assert_eq!((written, file.metadata().unwrap().len()), (false, 0), "{position} {len}");
        }
    }

    #[test]
    fn what_is_refused_is_left_to_the_caller_from_then_on_and_an_error_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = file(&path);
        let bytes = noise(1, LEAST);
        let write = |direct: &Direct| direct.write(&file, 4096, &[IoSlice::new(&bytes)]);
        // It takes nothing but a number, and says EINVAL to everything else.
        let refusing = Direct::with(OpenOptions::new().write(true).open("/proc/self/coredump_filter").unwrap());
        assert!(!write(&refusing).unwrap());
        assert!(refusing.is_refused.load(Ordering::Relaxed));
        // What has refused once is not asked again, whatever it would say.
        let able = Direct::with(OpenOptions::new().write(true).open(&path).unwrap());
        able.is_refused.store(true, Ordering::Relaxed);
        assert!(!write(&able).unwrap());
        assert_eq!(file.metadata().unwrap().len(), 0);
        let (at, error) = write(&Direct::with(File::open(&path).unwrap())).unwrap_err();
        assert_eq!((at, error.raw_os_error()), (4096, Some(Errno::BADF.raw_os_error())), "not open for writing");
    }
}
