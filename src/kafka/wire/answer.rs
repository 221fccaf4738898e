//! One partition's part of a request and of its answer. Pure.

use super::batches::{Aborted, Walked, walk};
use crate::kafka::consumer::Named;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// This part of an answer, or less, is copied out of it.
const SMALL: usize = 8;

/// What a fetch of one partition brought.
#[derive(Debug)]
pub(super) enum Outcome {
    Took { walked: Walked, bytes: Bytes, ends: Ends },
    Diverged { end: i64 },
    Failed(i16),
}

impl Outcome {
    /// Judges an answer without holding anybody up. `all` is the size of the memory that its records share with others', if
    /// small ones are to be copied out of it.
    pub fn of(asked: &Asked, answer: Answer, all: Option<usize>) -> Self {
        if answer.error != 0 {
            return Self::Failed(answer.error);
        }
        if let Some((epoch, end)) = answer.diverging {
            // In an earlier epoch its log may go further than what was read: that is another history all the same.
            let end = if epoch < asked.epoch { end.min(asked.next - 1) } else { end };
            return Self::Diverged { end };
        }
        let walked = walk(&answer.records, asked.next, asked.epoch, answer.aborted);
        // A partition that is taken slowly must not hold on to what was fetched with it.
        let is_small = all.is_some_and(|all| answer.records.len() < all / SMALL);
        let bytes = if is_small { Bytes::copy_from_slice(&answer.records) } else { answer.records };
        Self::Took { walked, bytes, ends: answer.ends }
    }
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    pub low: i64,
    /// What may be read ends here: the last stable offset or the high watermark.
    pub end: i64,
    pub high: i64,
}

/// A partition's part of an answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub error: i16,
    pub ends: Ends,
    /// The last epoch up to the one asked about that the leader has, and where it ends there.
    pub diverging: Option<(i32, i64)>,
    pub aborted: Vec<Aborted>,
    pub records: Bytes,
}

/// A partition's part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub named: Arc<Named>,
    pub next: i64,
    pub epoch: i32,
    pub leader_epoch: i32,
}

/// What to ask a broker for.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub number: u64,
    pub partition_bytes: usize,
    /// The broker must not wait longer for something to come: others are to be asked for soon.
    pub wait_max: Option<Duration>,
    /// The partitions are taken from one by one, some perhaps slowly: they must not hold on to each other's records.
    pub apart: bool,
    /// By topic, in the order in which they are to be answered.
    pub topics: Vec<(Uuid, Vec<Asked>)>,
}
