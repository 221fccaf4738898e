//! From a batch of messages to blocks: suppress, judge, copy, seal, admit.

use super::assign::ASK;
use super::epoch::Check;
use super::gaps::Truncation;
use super::late::For;
use super::plan::empty_block;
use super::poll::{Lane, Receiver};
use super::slot::Taken;
use super::trust::{self, Step, Trust};
use super::{Options, ReceiverError};
use crate::kafka::consumer::Position;
use crate::kafka::fetched::Fetched;
use crate::kafka::ffi::fetch::Batch;
use crate::record::batch::{self, HeaderRef};
use crate::record::{Block, Partition};
use crate::wal::Entry;
use rdkafka::error::RDKafkaErrorCode;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// A block is closed at this age when the log has nothing else to do.
const EARLY: Duration = Duration::from_millis(1);

/// Kafka does not have the offset that was to be fetched, as librdkafka says it with `auto.offset.reset=error`.
const OUT_OF_RANGE: RDKafkaErrorCode = RDKafkaErrorCode::AutoOffsetReset;

/// Errors of librdkafka about the bytes of a batch. It passes over the batch, and what it says of the partition until it
/// is told where to fetch again can be anything.
fn is_damage(error: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(error, Code::BadMessage | Code::InvalidMessage | Code::BadCompression | Code::NotImplemented)
}

impl Receiver<'_> {
    /// Takes what was fetched; returns records and bytes of payload.
    pub fn take_batch(&mut self, now: Instant) -> Result<(u64, u64), ReceiverError> {
        if self.batch.is_empty() {
            return Ok((0, 0));
        }
        self.note_first();
        let batch = std::mem::replace(&mut self.batch, Batch::new(0));
        let taken = self.take_messages(&batch, now);
        self.batch = batch;
        self.batch.clear();
        self.heard();
        taken
    }

    /// Notes when the first record came.
    pub(super) fn note_first(&mut self) {
        if !self.received_first {
            self.received_first = true;
            self.shared.views.update(self.number, |view| {
                view.first_record = Some(crate::clock::monotonic());
                view.first_record_cpu = crate::clock::cpu_seconds();
            });
        }
    }

    fn take_messages(&mut self, batch: &Batch, now: Instant) -> Result<(u64, u64), ReceiverError> {
        for lane in &mut self.lanes {
            lane.skip = false;
        }
        let mut run: Option<((usize, i32), Option<usize>)> = None;
        let mut headers: Vec<HeaderRef<'_>> = Vec::new();
        let (mut records, mut bytes, mut suppressed) = (0u64, 0u64, 0u64);
        for message in batch.iter() {
            let key = (message.topic_key(), message.partition());
            let lane = match run {
                Some((same, lane)) if same == key => lane,
                _ => {
                    let lane = self.by_name.get(&(message.topic().to_string(), message.partition())).copied();
                    run = Some((key, lane));
                    lane
                }
            };
            // A partition that was just revoked or held: what still arrives is not ours to take.
            let Some(lane) = lane else { continue };
            if self.lanes[lane].skip {
                continue;
            }
            if let Some(error) = message.error() {
                let text = message.value().map(|text| String::from_utf8_lossy(text).into_owned());
                self.event_in_queue(lane, message.offset(), error, &text.unwrap_or_else(|| error.to_string()))?;
                run = None;
                continue;
            }
            if !matches!(self.lanes[lane].check, Check::Done) && !self.check_position(lane, message)? {
                run = None;
                continue;
            }
            if !self.is_believed(lane, message.offset())? {
                run = None;
                continue;
            }
            records += 1;
            bytes += message.value().map_or(0, <[u8]>::len) as u64;
            match self.take_record(lane, message, &mut headers, now)? {
                Taken::Suppressed => suppressed += 1,
                Taken::TooLarge(_) => run = None,
                Taken::Kept | Taken::Far => {}
            }
        }
        self.count_taken(records, bytes, suppressed);
        Ok((records, bytes))
    }

    pub(super) fn count_taken(&self, records: u64, bytes: u64, suppressed: u64) {
        let metrics = &self.shared.metrics;
        metrics.records_received.inc_by(records);
        metrics.bytes_received.inc_by(bytes);
        metrics.records_suppressed.inc_by(suppressed);
    }

    #[inline]
    pub(super) fn take_record<'m, M: Fetched<'m>>(
        &mut self,
        lane: usize,
        message: M,
        headers: &mut Vec<HeaderRef<'m>>,
        now: Instant,
    ) -> Result<Taken, ReceiverError> {
        if self.lanes[lane].slot.is_again() {
            self.close_again(lane, message.offset());
        }
        let mut full = None;
        let Options { limits, .. } = self.options;
        let slot = &mut self.lanes[lane].slot;
        let mut taken = slot.take(message, headers, limits, &self.shared.pool, now, |block| full = Some(block));
        if taken == Taken::Far {
            if let Some(block) = full.take() {
                self.admit(block)?;
            }
            self.skip(lane, message.offset())?;
            let slot = &mut self.lanes[lane].slot;
            taken = slot.take(message, headers, limits, &self.shared.pool, now, |block| full = Some(block));
        }
        if let Some(block) = full {
            self.admit(block)?;
        }
        let slot = &self.lanes[lane].slot;
        if slot.is_again() {
            self.close_again(lane, slot.next);
        }
        if let Taken::TooLarge(bytes) = taken {
            let (topic, partition) = self.lanes[lane].named.clone();
            let (offset, limit) = (message.offset(), limits.record_bytes_max);
            let why = ReceiverError::TooLarge { topic, partition, offset, bytes, limit };
            self.stop_lane(lane, why.to_string())?;
        }
        Ok(taken)
    }

    /// An end of partition or an error in the place of a record. It never moves a position by itself.
    fn event_in_queue(
        &mut self,
        lane: usize,
        offset: i64,
        error: RDKafkaErrorCode,
        text: &str,
    ) -> Result<(), ReceiverError> {
        if error == RDKafkaErrorCode::PartitionEOF {
            if self.is_believed(lane, offset)? {
                self.reached_end(lane, offset)?;
                self.lanes[lane].trust = Trust::Unsure;
            }
            return Ok(());
        }
        self.lanes[lane].trust = Trust::Unsure;
        if let Some(words) = Truncation::read(text) {
            self.say(lane, text);
            return self.truncated_as_said(lane, &words);
        }
        self.fetching_failed(lane, error, text)
    }

    fn say(&self, lane: usize, text: &str) {
        let (topic, partition) = &self.lanes[lane].named;
        tracing::warn!(receiver = self.number, topic, partition, "kafka: {text}");
    }

    /// What to do when nothing can be fetched at a position.
    pub(super) fn fetching_failed(
        &mut self,
        lane: usize,
        error: RDKafkaErrorCode,
        text: &str,
    ) -> Result<(), ReceiverError> {
        self.say(lane, text);
        // Said of the record that is to be compared it tells nothing about those that follow.
        if matches!(self.lanes[lane].check, Check::Again(_)) && (is_damage(error) || error == OUT_OF_RANGE) {
            return self.leave_uncompared(lane, text);
        }
        if error == OUT_OF_RANGE && self.asks_no_more(lane) {
            return self.fetch_again(lane);
        }
        if super::assign::position_is_lost(error) {
            return self.reopen(lane);
        }
        if is_damage(error) {
            let why = format!(
                "what Kafka has from offset {} on can't be read ({text}); it is fetched again every few seconds",
                self.lanes[lane].slot.next
            );
            return self.put_off(lane, why, For::Person);
        }
        Ok(())
    }

    /// Judges what comes at `offset`: a hole behind an event is looked at again before it is believed.
    #[inline]
    fn is_believed(&mut self, lane: usize, offset: i64) -> Result<bool, ReceiverError> {
        let Lane { slot, trust, .. } = &mut self.lanes[lane];
        let (step, next) = trust::judge(*trust, offset <= slot.next);
        *trust = next;
        match step {
            Step::Take => Ok(true),
            Step::Verify => self.look_again(lane).map(|()| false),
        }
    }

    /// Fetches again from this receiver's own next offset.
    fn look_again(&mut self, lane: usize) -> Result<(), ReceiverError> {
        let start = self.lanes[lane].position();
        let Position { named: (topic, partition), offset: next, .. } = &start;
        tracing::debug!(receiver = self.number, topic, partition, next, "a hole behind an event: fetching again");
        self.lanes[lane].skip = true;
        if let Err(error) = self.member.resume_at(std::slice::from_ref(&start), ASK) {
            tracing::warn!(receiver = self.number, topic, partition, "cannot seek: {error}");
            self.reopen(lane)?;
        }
        Ok(())
    }

    /// Everything below `end` has been seen: what had no record (markers, aborted, compacted) is closed too.
    pub(super) fn reached_end(&mut self, lane: usize, end: i64) -> Result<(), ReceiverError> {
        if self.lanes[lane].slot.is_again() {
            self.close_again(lane, end);
            self.forget_again(lane, end);
        }
        let slot = &mut self.lanes[lane].slot;
        if end > slot.next {
            match slot.seal_to(end, &self.shared.pool) {
                Some(block) => self.admit(block)?,
                None => self.skip(lane, end)?,
            }
        }
        self.lanes[lane].at_end = true;
        Ok(())
    }

    /// Logs `[next, to)` as a range without records.
    fn skip(&mut self, lane: usize, to: i64) -> Result<(), ReceiverError> {
        let slot = &mut self.lanes[lane].slot;
        let (partition, tenure, first) = (slot.partition, slot.tenure, slot.next);
        slot.skip_to(to);
        if self.options.direct.is_some() {
            self.gather(empty_block(partition, tenure, first, to));
            return Ok(());
        }
        if self.may_admit(partition, tenure, first, to) {
            self.shared.log.append(Entry::Empty { partition, tenure, first, next: to })?;
        }
        Ok(())
    }

    /// Hands a block to the log, if its tenure still holds and dedupe lets it in; in direct mode, to the next plan.
    pub fn admit(&mut self, block: Block) -> Result<(), ReceiverError> {
        if self.options.direct.is_some() {
            self.gather(block);
            return Ok(());
        }
        let header = &block.header;
        if self.may_admit(header.partition, header.tenure, header.first, header.next) {
            self.shared.metrics.blocks_admitted.inc();
            let block = self.packed(block);
            self.shared.log.append(Entry::Block(block))?;
        }
        Ok(())
    }

    fn packed(&self, block: Block) -> Block {
        let Some(codec) = self.options.compression else {
            return block;
        };
        let before = block.payload.len();
        let block = batch::pack(block, codec);
        self.shared.metrics.wal_bytes_saved.inc_by((before - block.payload.len()) as u64);
        block
    }

    /// Asks ownership and dedupe; on a yes the range counts as taken.
    pub fn may_admit(&self, partition: Partition, tenure: u32, first: i64, next: i64) -> bool {
        let mut owners = self.shared.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if !owners.get(partition).is_some_and(|ownership| ownership.admit(tenure, next)) {
            return false;
        }
        drop(owners);
        let mut table = self.shared.table.lock().unwrap_or_else(PoisonError::into_inner);
        let admission = table.admit(partition, first, next);
        // The slot suppresses record by record what is below its next offset, so a whole range is always new.
        assert!(
            admission == crate::dedupe::Admission::Admit,
            "partition {partition:?}: range [{first}, {next}) against the dedupe table: {admission:?}"
        );
        true
    }

    /// Closes blocks by age, and all of them when together they hold too much.
    pub fn close_old(&mut self, now: Instant) -> Result<(), ReceiverError> {
        if self.options.direct.is_some() {
            return self.plan_due(now);
        }
        let open: usize = self.lanes.iter().map(|lane| lane.slot.open_bytes()).sum();
        let all = open > self.options.open_bytes_max;
        // A block waits for more only while the log is busy anyway.
        let idle = self.shared.log.queued_bytes() == 0;
        let age = if idle { self.options.block_age.min(EARLY) } else { self.options.block_age };
        for lane in 0..self.lanes.len() {
            let slot = &mut self.lanes[lane].slot;
            let old = slot.opened.is_some_and(|opened| now.duration_since(opened) >= age);
            if (old || all)
                && let Some(block) = slot.seal(&self.shared.pool)
            {
                self.admit(block)?;
            }
        }
        Ok(())
    }
}
