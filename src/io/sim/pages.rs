//! A file's bytes as shared pages: copying a file copies pointers, and the hash of a page is computed once.
//!
//! Promises: pure state; bytes beyond the length are zero and never seen.

use std::sync::{Arc, OnceLock};

pub(super) const SECTOR: usize = 512;
pub(super) const PAGE: usize = 4096;

/// One page. A page of zeros is no page at all (`None`).
pub(super) type Shared = Option<Arc<Page>>;

#[derive(Debug)]
pub(super) struct Page {
    pub bytes: [u8; PAGE],
    hash: OnceLock<u64>,
}

/// A page of these bytes.
pub(super) fn shared(bytes: &[u8; PAGE]) -> Shared {
    (bytes != bytes_of(&None)).then(|| Arc::new(Page { bytes: *bytes, hash: OnceLock::new() }))
}

/// The bytes of a page.
pub(super) fn bytes_of(page: &Shared) -> &[u8; PAGE] {
    static ZEROS: [u8; PAGE] = [0; PAGE];
    page.as_ref().map_or(&ZEROS, |page| &page.bytes)
}

fn is_same(one: &Shared, other: &Shared) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// Adds a number to a hash. Not for adversaries: for telling states apart.
pub(super) fn mix(hash: u64, number: u64) -> u64 {
    let wide = u128::from(hash ^ number ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (wide >> 64) as u64 ^ wide as u64 ^ hash.rotate_left(23)
}

/// A hash of a page's bytes.
pub(super) fn hash_of(page: &Shared) -> u64 {
    let Some(page) = page else { return 0 };
    *page.hash.get_or_init(|| {
        let mut lanes = [1_u64, 2, 3, 4];
        for words in page.bytes.chunks_exact(32) {
            for (lane, word) in lanes.iter_mut().zip(words.chunks_exact(8)) {
                *lane = mix(*lane, word.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)));
            }
        }
        lanes.into_iter().fold(PAGE as u64, mix)
    })
}

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pages: Vec<Shared>,
    len: usize,
}

impl Contents {
    pub fn len(&self) -> usize {
        self.len
    }

    /// The page with this number; zeros beyond the end.
    pub fn page(&self, number: usize) -> Shared {
        self.pages.get(number).cloned().flatten()
    }

    /// Puts a page in place; the length stays.
    pub fn put(&mut self, number: usize, page: Shared) {
        if self.pages.len() <= number {
            self.pages.resize(number + 1, None);
        }
        self.pages[number] = page;
    }

    /// Cuts or grows; what is new is zero.
    pub fn set_len(&mut self, len: usize) {
        self.len = len;
        self.pages.resize(len.div_ceil(PAGE), None);
        let tail = len % PAGE;
        if tail > 0
            && let Some(last) = self.pages.last_mut()
            && bytes_of(last)[tail..].iter().any(|byte| *byte != 0)
        {
            let mut bytes = *bytes_of(last);
            bytes[tail..].fill(0);
            *last = shared(&bytes);
        }
    }

    /// Overwrites and grows.
    pub fn write(&mut self, position: usize, mut bytes: &[u8]) {
        let end = position + bytes.len();
        if self.len < end {
            self.set_len(end);
        }
        let mut at = position;
        while !bytes.is_empty() {
            let (number, from) = (at / PAGE, at % PAGE);
            let part = bytes.len().min(PAGE - from);
            let page = if part == PAGE {
                bytes.first_chunk().and_then(shared)
            } else {
                let mut page = *bytes_of(&self.pages[number]);
                page[from..from + part].copy_from_slice(&bytes[..part]);
                shared(&page)
            };
            self.pages[number] = page;
            (at, bytes) = (at + part, &bytes[part..]);
        }
    }

    /// Copies bytes out; returns how many there were.
    pub fn read(&self, position: usize, buffer: &mut [u8]) -> usize {
        let start = position.min(self.len);
        let end = (start + buffer.len()).min(self.len);
        let mut at = start;
        while at < end {
            let (number, from) = (at / PAGE, at % PAGE);
            let part = (end - at).min(PAGE - from);
            let target = &mut buffer[at - start..at - start + part];
            match &self.pages[number] {
                Some(page) => target.copy_from_slice(&page.bytes[from..from + part]),
                None => target.fill(0),
            }
            at += part;
        }
        end - start
    }

    /// Everything.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }

    /// True if these are the same pages; equal bytes on other pages may count as different.
    pub fn is_same(&self, other: &Self) -> bool {
        self.len == other.len && self.pages.iter().zip(&other.pages).all(|(one, other)| is_same(one, other))
    }

    /// Numbers of the pages that may differ from `other`.
    pub fn differing(&self, other: &Self) -> Vec<usize> {
        let pages = self.pages.len().max(other.pages.len());
        (0..pages).filter(|n| !is_same(&self.page(*n), &other.page(*n))).collect()
    }

    pub fn hash(&self) -> u64 {
        self.pages.iter().fold(self.len as u64, |hash, page| mix(hash, hash_of(page)))
    }
}
