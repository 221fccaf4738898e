//! Repairs the log while it runs: fetches damaged blocks again, and starts the scrubber that looks for them.
//!
//! Promises: one damaged block at a time, on a thread of its own; delivery of other partitions goes on. What Kafka no longer
//! has is given up with its exact range. Never: it does not touch the group's commits, and does not decide whether a block
//! is the right one (that is [`crate::wal::repair::accept`]).

use super::Error;
use crate::kafka::again::{Again, Missing};
use crate::kafka::consumer::Settings;
use crate::kafka::error::words;
use crate::metrics::Metrics;
use crate::record::batch::Encoded;
use crate::record::topics::Topics;
use crate::record::{Block, BlockHeader};
use crate::wal::repair::{Attempt, KeepError, Open};
use crate::wal::scrub::{self, Pace};
use crate::wal::{CorruptBlock, Log, WalError};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks at what is damaged.
const NAP: Duration = Duration::from_millis(20);
/// After a round in which something could not be had for now.
const PAUSE: Duration = Duration::from_secs(2);
/// Between two looks at repair files of retired segments.
const TIDY: Duration = Duration::from_secs(1);

/// The threads.
pub(super) struct Healing {
    stop: Arc<AtomicBool>,
    healer: Option<JoinHandle<Result<(), WalError>>>,
    scrubber: Option<JoinHandle<()>>,
}

/// What the healer works with.
pub(super) struct Healer {
    pub log: Log,
    pub topics: Topics,
    pub kafka: Settings,
    pub metrics: Arc<Metrics>,
}

impl Healing {
    /// Starts both.
    pub fn start(healer: Healer, pace: Pace) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let (log, metrics, told) = (healer.log.clone(), Arc::clone(&healer.metrics), Arc::clone(&stop));
        let scrubber = super::supervise::spawn("scrub", move || scrub::run(&log, &metrics, pace, &told))?;
        let told = Arc::clone(&stop);
        let healer = super::supervise::spawn("heal", move || healer.run(&told))?;
        Ok(Self { stop, healer: Some(healer), scrubber: Some(scrubber) })
    }

    /// An error if the healer ended by itself: it failed in a way that ends everything.
    pub fn look(&mut self) -> Result<(), Error> {
        match self.healer.take_if(|thread| thread.is_finished()) {
            Some(thread) => Ok(thread.join().map_err(|_| Error::Panic("the healer"))??),
            None => Ok(()),
        }
    }

    /// Ends both.
    pub fn stop(mut self) -> Result<(), Error> {
        self.stop.store(true, Ordering::Release);
        let scrubbed = self.scrubber.take().map_or(Ok(()), JoinHandle::join);
        let healed = self.healer.take().map_or(Ok(Ok(())), JoinHandle::join);
        scrubbed.map_err(|_| Error::Panic("the scrubber"))?;
        Ok(healed.map_err(|_| Error::Panic("the healer"))??)
    }
}

impl Healer {
    fn run(self, stop: &AtomicBool) -> Result<(), WalError> {
        let mut client = None;
        let (mut tidied, mut paused) = (Instant::now(), None::<Instant>);
        while !stop.load(Ordering::Acquire) {
            let mut silent: Option<String> = None;
            let tidies = tidied.elapsed() >= TIDY;
            for open in self.log.repairs().open() {
                if stop.load(Ordering::Acquire) {
                    return Ok(());
                }
                // What can't be repaired waits for a person, or for its tenure to be given up.
                let is_given_up = matches!(open.attempt, Attempt::Never(_));
                if is_given_up && !tidies {
                    continue;
                }
                if self.log.is_settled(&open.block) {
                    self.log.repairs().forget(&open.block);
                } else if let Some(why) = silent.as_ref().filter(|_| !is_given_up) {
                    // Who did not answer once is not asked again: each question takes its time.
                    self.log.repairs().note(&open.block, Attempt::Later(why.clone()));
                } else if !is_given_up
                    && (open.attempt == Attempt::New || paused.is_none_or(|since| since.elapsed() >= PAUSE))
                {
                    silent = self.heal(&mut client, &open)?;
                }
            }
            paused =
                if silent.is_some() { Some(Instant::now()) } else { paused.filter(|since| since.elapsed() < PAUSE) };
            let counts = self.log.repairs().counts();
            self.metrics.wal_damaged_blocks.set((counts.waiting + counts.given_up) as i64);
            if tidies {
                tidied = Instant::now();
                self.log.retire_repairs()?;
            }
            std::thread::sleep(NAP);
        }
        Ok(())
    }

    /// Tries to repair one block; why not, if it is worth trying again later.
    fn heal(&self, client: &mut Option<Again>, open: &Open) -> Result<Option<String>, WalError> {
        let block = &open.block;
        let attempt = match self.fetch(client, block) {
            Ok(fetched) => match self.log.keep_repair(block, &fetched) {
                Ok(()) => {
                    self.metrics.wal_repaired_blocks.inc();
                    tracing::info!("repaired: {}, fetched again from Kafka", self.name(block));
                    return Ok(None);
                }
                Err(KeepError::Refused(refusal)) => Attempt::Never(refusal.to_string()),
                // A name whose durability is in doubt: nothing more can be relied on.
                Err(KeepError::Wal(error @ WalError::Poisoned(_))) => return Err(error),
                Err(KeepError::Wal(error)) => Attempt::Later(error.to_string()),
            },
            Err(Missing::Gone(why)) => Attempt::Never(why),
            Err(Missing::Later(why)) => Attempt::Later(why),
        };
        let later = match &attempt {
            Attempt::Later(why) => Some(why.clone()),
            Attempt::New | Attempt::Never(_) => None,
        };
        if self.log.repairs().note(block, attempt.clone()) {
            match attempt {
                Attempt::Never(why) => tracing::error!("{} cannot be repaired: {why}", self.name(block)),
                Attempt::Later(why) => tracing::warn!("{} is not repaired yet: {why}", self.name(block)),
                Attempt::New => {}
            }
        }
        Ok(later)
    }

    fn fetch(&self, client: &mut Option<Again>, block: &CorruptBlock) -> Result<Block, Missing> {
        let Some(topic) = self.topics.get(block.partition.topic) else {
            return Err(Missing::Gone("the log does not know the topic's name".to_owned()));
        };
        let again = match client {
            Some(again) => again,
            None => client.insert(Again::new(&self.kafka).map_err(|error| Missing::Later(words(&error)))?),
        };
        let named = (topic.name, block.partition.number);
        let fetched = again.fetch(&named, topic.id, block.first, block.next)?;
        Ok(assemble(block, fetched))
    }

    /// The block for people: topic, partition, offsets, place.
    fn name(&self, block: &CorruptBlock) -> String {
        let topic = self.topics.get(block.partition.topic).map_or_else(|| "?".to_owned(), |topic| topic.name);
        let CorruptBlock { path, position, lsn, first, next, .. } = block;
        let (partition, path) = (block.partition.number, path.display());
        format!("{topic}/{partition} [{first}, {next}), LSN {lsn}, {path} at byte {position}")
    }
}

/// The block as it was fetched again.
pub fn assemble(block: &CorruptBlock, (encoded, leader_epoch): (Encoded, i32)) -> Block {
    let header = BlockHeader {
        leader_epoch,
        count: encoded.count,
        digest: encoded.digest,
        payload_crc: encoded.payload_crc,
        ..block.block()
    };
    Block { header, payload: Bytes::from(encoded.buffer) }
}
