//! How far one partition's output has come: pure bookkeeping, no I/O.

use super::super::{Receipt, Source};
use super::detail::{Detail, State, Tail};
use std::collections::VecDeque;
use std::time::Instant;

/// What a disk writes at once: an append can tear the page it begins in.
const PAGE: u64 = 4096;

/// The contents of a file up to a block boundary (or, inside a block, to the last record).
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Bytes.
    pub len: u64,
    /// CRC-32 over them.
    pub crc: u32,
    /// One past the last offset in them.
    pub next: i64,
    /// Blocks whose output touches the last page, and the one before it begins in.
    tails: VecDeque<Tail>,
}

impl Progress {
    /// What a receipt left.
    pub fn restored(detail: &Detail, next: i64) -> Self {
        Self { len: detail.len, crc: detail.crc, next, tails: [detail.tail].into() }
    }

    /// The contents before a block boundary.
    pub fn up_to(tail: Tail) -> Self {
        Self { len: tail.position, crc: tail.crc, next: tail.first, tails: [tail].into() }
    }

    /// Takes bytes that go to the end of the file.
    pub fn absorb(&mut self, bytes: &[u8]) {
        let mut crc = crc32fast::Hasher::new_with_initial(self.crc);
        crc.update(bytes);
        self.crc = crc.finalize();
        self.len += bytes.len() as u64;
    }

    /// Notes that a block's output begins at the end.
    pub fn begin_block(&mut self, first: i64) {
        self.tails.push_back(Tail { first, position: self.len, crc: self.crc });
        let page = self.len / PAGE * PAGE;
        while self.tails.get(1).is_some_and(|second| second.position <= page) {
            self.tails.pop_front();
        }
    }

    /// The last block boundary at or before the page that the next append begins in.
    pub fn tail(&self) -> Tail {
        let page = self.len / PAGE * PAGE;
        if page == self.len {
            return Tail { first: self.next, position: self.len, crc: self.crc };
        }
        let before = self.tails.iter().rev().find(|tail| tail.position <= page);
        before.copied().unwrap_or_default()
    }
}

/// A file that is written to.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// Published name.
    pub name: String,
    /// When this process opened it.
    pub since: Instant,
    /// What the last receipt covers; empty before the first.
    pub receipted: Progress,
    /// The range of that receipt.
    pub range: Option<(i64, i64)>,
    /// What was written, or is being written.
    pub written: Progress,
    /// Where the next write goes: `written` may be ahead of it by what is still in a buffer.
    pub flushed: u64,
    /// The farthest byte any write may have reached: beyond `written` only after a failed one.
    pub reach: u64,
}

impl OpenFile {
    /// A new, empty file.
    pub fn new(name: String) -> Self {
        let (receipted, written) = (Progress::default(), Progress::default());
        Self { name, since: Instant::now(), receipted, range: None, written, flushed: 0, reach: 0 }
    }

    /// A file as its receipt left it.
    pub fn restored(detail: &Detail, receipt: &Receipt) -> Self {
        let progress = Progress::restored(detail, receipt.next);
        Self {
            name: detail.name.clone(),
            since: Instant::now(),
            flushed: progress.len,
            reach: progress.len,
            receipted: progress.clone(),
            written: progress,
            range: Some((receipt.first, receipt.next)),
        }
    }

    /// True when every byte of the file is covered by the last receipt, and there is one.
    pub fn is_settled(&self) -> bool {
        self.range.is_some() && self.reach == self.receipted.len
    }

    /// Forgets what no receipt covers; it is written again at the same place.
    pub fn roll_back(&mut self) {
        self.written = self.receipted.clone();
        self.flushed = self.written.len;
    }

    /// Declares what was written durable and returns the receipt for it.
    pub fn settle(&mut self, source: &Source, first: i64, state: State) -> Receipt {
        self.receipted = self.written.clone();
        self.range = Some((first, self.written.next));
        self.receipt(source, state)
    }

    /// The last receipt, with another state.
    pub fn receipt(&self, source: &Source, state: State) -> Receipt {
        let Progress { len, crc, next, .. } = self.receipted;
        let tail = self.receipted.tail();
        let first = self.range.map_or(next, |(first, _)| first);
        let detail = Detail { name: self.name.clone(), state, len, crc, tail }.encode();
        let keep_from = (state == State::Open).then_some(tail.first);
        Receipt { partition: source.partition, first, next, detail, keep_from }
    }
}

/// One partition's output.
#[derive(Debug)]
pub(super) struct Output {
    /// Whose.
    pub source: Source,
    /// Delivered up to here.
    pub next: i64,
    /// The file that is written to.
    pub file: Option<OpenFile>,
    /// A file that has its last receipt and is to be published.
    pub finished: Option<OpenFile>,
    /// Says that the last file has its published name: given once its directory is synced, unless the next file has a
    /// receipt by then.
    pub published: Option<Receipt>,
    /// The directory is known to exist and its name to be durable.
    pub has_dir: bool,
    /// A name that is durable in the log and has no receipt yet.
    pub named: Option<String>,
}

impl Output {
    /// Nothing yet.
    pub fn new(source: Source) -> Self {
        let (file, finished, published) = (None, None, None);
        Self { source, next: i64::MIN, file, finished, published, has_dir: false, named: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(blocks: &[(i64, u64)]) -> Progress {
        let mut progress = Progress::default();
        for (first, bytes) in blocks {
            progress.begin_block(*first);
            progress.absorb(&vec![b'x'; *bytes as usize]);
            progress.next = first + 1;
        }
        progress
    }

    #[test]
    fn the_tail_is_the_last_block_that_begins_before_the_last_page() {
        for (blocks, first, position) in [
            (&[(0, 100)][..], 0, 0),
            (&[(0, 4096)], 1, 4096),
            (&[(0, 4096), (1, 1)], 1, 4096),
            (&[(0, 4000), (1, 200)], 1, 4000),
            (&[(0, 4000), (1, 96), (2, 1)], 2, 4096),
            (&[(0, 5000), (1, 200), (2, 200)], 0, 0),
            (&[(0, 5000), (1, 5000), (2, 200)], 1, 5000),
        ] {
            let progress = written(blocks);
            let tail = progress.tail();
            assert_eq!((tail.first, tail.position), (first, position), "{blocks:?}");
            assert_eq!(tail.crc, crc32fast::hash(&vec![b'x'; position as usize]));
        }
    }

    #[test]
    fn a_thousand_small_blocks_leave_only_those_of_the_last_page() {
        let blocks: Vec<(i64, u64)> = (0..1000).map(|n| (n, 100)).collect();
        let progress = written(&blocks);
        assert!(progress.tails.len() <= 42);
        assert_eq!(progress.tail().position, 98_300);
    }

    #[test]
    fn the_checksum_is_carried_over_a_restart() {
        let mut progress = written(&[(0, 10)]);
        let detail = OpenFile { receipted: progress.clone(), ..OpenFile::new("n".into()) };
        let source = super::super::super::testing::source(0);
        let detail = Detail::decode(&detail.receipt(&source, State::Open).detail).unwrap();
        let mut restored = Progress::restored(&detail, 1);
        for p in [&mut progress, &mut restored] {
            p.begin_block(1);
            p.absorb(b"123456789");
        }
        assert_eq!((progress.crc, progress.len), (restored.crc, restored.len));
        assert_eq!(progress.tail(), restored.tail());
    }
}
