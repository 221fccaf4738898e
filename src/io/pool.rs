//! Buffers for blocks and for what they are made of, used again when the last reader of one has let go of it.
//!
//! Promises: at most a fixed number of idle buffers is kept; taking and giving back is one short lock per block.

use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// A buffer must have grown to this before it is worth keeping.
const WORTH_KEEPING: usize = 64 << 10;

/// A stock of idle buffers; clones share it.
#[derive(Clone, Debug)]
pub struct Pool {
    idle: Arc<Mutex<Vec<Vec<u8>>>>,
    kept_max: usize,
}

impl Pool {
    /// Keeps up to `kept_max` idle buffers.
    pub fn new(kept_max: usize) -> Self {
        Self { idle: Arc::default(), kept_max }
    }

    /// An empty buffer: a used one if there is one idle.
    pub fn take(&self) -> Vec<u8> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Wraps a filled buffer; it comes back to the pool when the last clone of the result is dropped.
    pub fn share(&self, buffer: Vec<u8>) -> Bytes {
        if buffer.capacity() < WORTH_KEEPING {
            return Bytes::from(buffer);
        }
        Bytes::from_owner(Pooled { buffer, pool: self.clone() })
    }
}

struct Pooled {
    buffer: Vec<u8>,
    pool: Pool,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.pool.kept_max {
            idle.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_reader_is_gone() {
        let pool = Pool::new(1);
        let mut buffer = pool.take();
        buffer.resize(WORTH_KEEPING, 7);
        let place = buffer.as_ptr();
        let shared = pool.share(buffer);
        let second = shared.clone();
        drop(shared);
        assert_eq!(second[0], 7);
        assert_eq!(pool.take().capacity(), 0, "still in use");
        drop(second);
        let again = pool.take();
        assert_eq!(again.as_ptr(), place);
    }

    #[test]
    fn no_more_than_the_bound_is_kept() {
        let pool = Pool::new(1);
        let all: Vec<_> = (0..3).map(|_| pool.share(vec![0; WORTH_KEEPING])).collect();
        drop(all);
        assert_eq!(pool.idle.lock().unwrap().len(), 1);
    }
}
