//! Records to standard output, or to any writer.
//!
//! Promises: a receipt is returned after the writer took and flushed everything. Never: it can't take anything back, so
//! blocks in doubt at a crash come twice; and it does not go on where files wait to be published.

use super::render::{Format, Renderer};
use super::{Receipt, Restored, Sink, SinkError, SinkLog, Source, Tier, file, receipts};
use crate::io::IoError;
use crate::io::standard::is_stdout_open;
use crate::record::Block;
use std::fmt::{self, Debug, Formatter};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Writes lines; blocks while the reader does not read.
pub struct Stdout {
    out: Box<dyn Write + Send>,
    format: Format,
    buffer: Vec<u8>,
}

impl Debug for Stdout {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdout").field("format", &self.format).finish_non_exhaustive()
    }
}

impl Stdout {
    /// Writes to `out` (the process's standard output, or anything in its place).
    pub fn new(out: Box<dyn Write + Send>, format: Format) -> Self {
        Self { out, format, buffer: Vec::new() }
    }
}

/// The process's standard output. If it was started without one, writes fail: what would be written is for somebody.
pub(super) fn standard_output() -> Box<dyn Write + Send> {
    if is_stdout_open() { Box::new(std::io::stdout()) } else { Box::new(Closed) }
}

struct Closed;

impl Write for Closed {
    fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("it is closed"))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn failed(error: std::io::Error) -> SinkError {
    if error.kind() == ErrorKind::BrokenPipe {
        return SinkError::Fatal("standard output was closed by its reader".into());
    }
    SinkError::Io(IoError::new("write", Path::new("standard output"), error))
}

impl Sink for Stdout {
    fn tier(&self) -> Tier {
        Tier::AtLeastOnce
    }

    fn restore(&mut self, restored: &[Restored], _log: &dyn SinkLog) -> Result<(), SinkError> {
        file::refuse_to_leave(restored)
    }

    fn watermark(&mut self, _source: &Source) -> Result<Option<i64>, SinkError> {
        Ok(None)
    }

    fn deliver(&mut self, blocks: &[(Source, Block)], _log: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError> {
        let Self { out, buffer, format } = self;
        buffer.clear();
        for run in blocks.chunk_by(|a, b| a.0.partition == b.0.partition) {
            let renderer = Renderer::new(*format, &run[0].0);
            for (_, block) in run {
                renderer.block(block, buffer, |full| {
                    out.write_all(full).map_err(failed)?;
                    full.clear();
                    Ok(())
                })?;
            }
        }
        out.write_all(buffer).map_err(failed)?;
        out.flush().map_err(failed)?;
        Ok(receipts(blocks))
    }

    fn tick(&mut self, _closing: bool, _log: &dyn SinkLog) -> Result<Vec<Receipt>, SinkError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NoLog, block, source};
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Pipe {
        bytes: Arc<Mutex<Vec<u8>>>,
        flushed: Arc<Mutex<usize>>,
        broken: bool,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.broken {
                return Err(ErrorKind::BrokenPipe.into());
            }
            self.bytes.lock().unwrap().extend_from_slice(&bytes[..bytes.len().min(100)]);
            Ok(bytes.len().min(100))
        }

        fn flush(&mut self) -> std::io::Result<()> {
            *self.flushed.lock().unwrap() = self.bytes.lock().unwrap().len();
            Ok(())
        }
    }

    #[test]
    fn everything_is_flushed_before_the_receipts() {
        let pipe = Pipe::default();
        let mut sink = Stdout::new(Box::new(pipe.clone()), Format::Raw);
        let blocks = [(source(0), block(0, 0, 3)), (source(1), block(1, 5, 6)), (source(0), block(0, 3, 4))];
        let receipts = sink.deliver(&blocks, &NoLog).unwrap();
        let ranges: Vec<_> = receipts.iter().map(|r| (r.partition.number, r.first, r.next)).collect();
        assert_eq!(ranges, [(0, 0, 4), (1, 5, 6)]);
        let bytes = pipe.bytes.lock().unwrap();
        assert_eq!(bytes.split(|b| *b == b'\n').count(), 6, "five lines");
        assert_eq!(*pipe.flushed.lock().unwrap(), bytes.len());
    }

    #[test]
    fn a_closed_pipe_is_named() {
        let mut sink = Stdout::new(Box::new(Pipe { broken: true, ..Pipe::default() }), Format::Raw);
        let error = sink.deliver(&[(source(0), block(0, 0, 3))], &NoLog).unwrap_err();
        assert_eq!(error.to_string(), "standard output was closed by its reader");
    }
}
