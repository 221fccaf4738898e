//! A file that notes how it is read.

use forebay::io::{File, IoError};
use std::io::IoSlice;
use std::sync::Mutex;

/// A file of these bytes, handed out so many at once; it notes what it is asked for.
#[derive(Debug)]
pub struct Asked {
    pub bytes: Vec<u8>,
    pub most: usize,
    pub reads: Mutex<Vec<(u64, usize)>>,
}

impl Asked {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, most: usize::MAX, reads: Mutex::default() }
    }

    /// Position and length of each read.
    pub fn reads(&self) -> Vec<(u64, usize)> {
        self.reads.lock().unwrap().clone()
    }
}

impl File for Asked {
    fn write_at(&self, _position: u64, _slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        panic!("a scan never writes")
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        self.reads.lock().unwrap().push((position, buffer.len()));
        let rest = &self.bytes[self.bytes.len().min(position as usize)..];
        let len = rest.len().min(buffer.len()).min(self.most);
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.bytes.len() as u64)
    }

    fn set_len(&self, _len: u64) -> Result<(), IoError> {
        panic!("a scan never writes")
    }

    fn sync_data(&self) -> Result<(), IoError> {
        panic!("a scan never writes")
    }
}
