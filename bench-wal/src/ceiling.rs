//! What the disk gives at best: a bare loop of `pwritev` and `fdatasync` of the same groups, into blocks that are written.

use crate::load::{Engine, Shape};
use anyhow::{Result, ensure};
use bytes::Bytes;
use rustix::fs::fdatasync;
use rustix::io::pwritev;
use std::fs::File;
use std::io::{IoSlice, Write};
use std::path::Path;
use std::sync::Mutex;

const FILE: u64 = 64 << 20;
const FILES: usize = 4;

pub struct Ceiling {
    files: Vec<File>,
    writers: usize,
    at: Mutex<(usize, u64)>,
}

pub fn make(dir: &Path, shape: &Shape) -> Result<Box<dyn Engine>> {
    let mut files = Vec::new();
    for i in 0..FILES {
        let mut file =
            File::options().create(true).truncate(true).read(true).write(true).open(dir.join(i.to_string()))?;
        let noise = crate::load::noise(i as u64 + 1000, 1 << 20);
        (0..FILE >> 20).try_for_each(|_| file.write_all(&noise))?;
        file.sync_all()?;
        files.push(file);
    }
    Ok(Box::new(Ceiling { files, writers: shape.writers, at: Mutex::new((0, 0)) }))
}

impl Engine for Ceiling {
    fn append(&self, _: usize, payload: &Bytes) -> Result<()> {
        let mut at = self.at.lock().expect("nobody panics");
        let group = (payload.len() * self.writers) as u64;
        if at.1 + group > FILE {
            *at = ((at.0 + 1) % FILES, 0);
        }
        let slices = vec![IoSlice::new(payload); self.writers];
        let written = pwritev(&self.files[at.0], &slices, at.1)?;
        ensure!(written as u64 == group, "a short write");
        fdatasync(&self.files[at.0])?;
        at.1 += group;
        Ok(())
    }

    fn group(&self, shape: &Shape) -> u64 {
        (shape.bytes * shape.writers) as u64
    }

    fn writers(&self, _: &Shape) -> usize {
        1
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
