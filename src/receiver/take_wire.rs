//! From parts of answers to blocks: the same as [`super::take`], for what was fetched without librdkafka.

use super::ReceiverError;
use super::epoch::Check;
use super::poll::{BATCH, Receiver};
use super::slot::Taken;
use super::trust::Trust;
use crate::kafka::consumer::Named;
use crate::kafka::fetched::Fetched;
use crate::kafka::wire::{Part, Records, Unreadable, What};
use crate::record::batch::HeaderRef;
use rdkafka::error::RDKafkaErrorCode;
use std::time::{Duration, Instant};

/// After so many bytes of payload the pressure is looked at, if a batch ends there.
const AT_A_TIME: u64 = 1 << 20;
/// The same within a batch, which may be compressed to a fraction of its size.
const WITHIN_BATCH: u64 = 8 << 20;

/// How far records were taken.
enum Taking {
    /// All of them.
    Whole,
    /// As many as were wanted.
    Enough,
    /// The rest is not to be taken: the partition was repositioned, or is not this receiver's any more.
    Dropped,
    /// The rest can't be read.
    Unreadable(Unreadable),
}

/// Records and bytes of payload.
type Amount = (u64, u64);

impl Receiver<'_> {
    /// Takes what arrived, up to about a batch of records; waits up to `wait` for the first.
    pub(super) fn take_parts(&mut self, wait: Duration) -> Result<(), ReceiverError> {
        let (mut taken, mut bytes, mut wait) = (0, 0, wait);
        while let Some(amount) = self.take_part(None, usize::MAX, wait)? {
            taken += amount.0.max(1);
            bytes += amount.1;
            if taken >= BATCH as u64 || bytes >= AT_A_TIME {
                break;
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Takes the next part, of one partition or of any, and at most so many records of it; `None` when there is none.
    pub(super) fn take_part(
        &mut self,
        of: Option<&Named>,
        most: usize,
        wait: Duration,
    ) -> Result<Option<Amount>, ReceiverError> {
        let Some(wire) = self.member.wire() else { return Ok(None) };
        let Some(Part { named, what }) = wire.take(of, wait) else { return Ok(None) };
        self.heard();
        let lane = self.by_name.get(&*named).copied();
        let mut amount = (0, 0);
        match (what, lane) {
            (What::Records(mut records), Some(lane)) => {
                self.note_first();
                let taking = self.take_records(lane, &mut records, most, &mut amount)?;
                let part = Part { named, what: What::Records(records) };
                self.after(lane, part, taking, of.is_some())?;
            }
            // It was just let go of.
            (what, None) => {
                if let Some(wire) = self.member.wire() {
                    wire.done(&Part { named: std::sync::Arc::clone(&named), what }, false);
                    wire.forget(std::slice::from_ref(&*named));
                }
            }
            (What::End(end), Some(lane)) => self.reached_end(lane, end)?,
            (What::Error(error, text), Some(lane)) => self.fetching_failed(lane, error, &text)?,
            (What::Truncated { end }, Some(lane)) => self.truncated(lane, end)?,
        }
        Ok(Some(amount))
    }

    fn after(&mut self, lane: usize, part: Part, taking: Taking, slowly: bool) -> Result<(), ReceiverError> {
        let Some(wire) = self.member.wire() else { return Ok(()) };
        match taking {
            Taking::Enough => wire.put_back(part, slowly),
            Taking::Whole => wire.done(&part, true),
            Taking::Dropped => wire.done(&part, false),
            Taking::Unreadable(why) => {
                wire.done(&part, false);
                // Nothing that comes behind it may be taken.
                wire.pause(std::slice::from_ref(&*part.named));
                self.fetching_failed(lane, RDKafkaErrorCode::BadMessage, &why.to_string())?;
            }
        }
        Ok(())
    }

    fn take_records(
        &mut self,
        lane: usize,
        records: &mut Records,
        most: usize,
        amount: &mut Amount,
    ) -> Result<Taking, ReceiverError> {
        self.lanes[lane].skip = false;
        let now = Instant::now();
        while !records.is_empty() {
            let taking = match records.open() {
                Ok(()) => self.take_first(lane, records, most, amount, now)?,
                Err(why) => Taking::Unreadable(why),
            };
            match taking {
                Taking::Whole => records.pass(),
                Taking::Enough => {
                    records.taken_below(self.lanes[lane].slot.next);
                    return Ok(taking);
                }
                Taking::Dropped | Taking::Unreadable(_) => return Ok(taking),
            }
            // The log may have enough by now: what is compressed can be many times its size.
            if amount.1 >= AT_A_TIME && !records.is_empty() {
                return Ok(Taking::Enough);
            }
        }
        Ok(Taking::Whole)
    }

    /// Takes the records of the first batch.
    fn take_first(
        &mut self,
        lane: usize,
        records: &Records,
        most: usize,
        amount: &mut Amount,
        now: Instant,
    ) -> Result<Taking, ReceiverError> {
        let mut headers: Vec<HeaderRef<'_>> = Vec::new();
        let (mut count, mut bytes, mut suppressed) = (0, 0, 0);
        let mut taking = Taking::Whole;
        for record in records.first() {
            let record = match record {
                Ok(record) => record,
                Err(why) => {
                    taking = Taking::Unreadable(why);
                    break;
                }
            };
            if amount.0 + count >= most as u64 || bytes >= WITHIN_BATCH {
                taking = Taking::Enough;
                break;
            }
            if !matches!(self.lanes[lane].check, Check::Done) {
                let named = self.lanes[lane].named.clone();
                let is_good = self.check_position(lane, record)?;
                if self.by_name.get(&named) != Some(&lane) || self.lanes[lane].skip {
                    taking = Taking::Dropped;
                    break;
                }
                if !is_good {
                    continue;
                }
            }
            count += 1;
            bytes += record.value().map_or(0, <[u8]>::len) as u64;
            match self.take_record(lane, record, &mut headers, now)? {
                Taken::Suppressed => suppressed += 1,
                Taken::TooLarge(_) => {
                    taking = Taking::Dropped;
                    break;
                }
                Taken::Kept | Taken::Far => {}
            }
        }
        self.count_taken(count, bytes, suppressed);
        (amount.0, amount.1) = (amount.0 + count, amount.1 + bytes);
        Ok(taking)
    }

    /// What can't be fetched without librdkafka is left to it, with all the rest.
    pub(super) fn leave_to_client(&mut self) -> Result<(), ReceiverError> {
        if self.member.wire().is_some() {
            // What the client says of partitions that it does not fetch.
            self.member.fetch(&mut self.batch, Duration::ZERO);
            self.batch.clear();
        }
        let Some(why) = self.member.wire().and_then(crate::kafka::wire::Wire::gave_up) else { return Ok(()) };
        tracing::warn!(receiver = self.number, "librdkafka fetches from now on: {why}");
        for lane in &mut self.lanes {
            lane.trust = Trust::Unsure;
        }
        let starts = self.positions();
        let left = self.member.leave_to_client(&starts, super::assign::ASK);
        self.resumed(left, starts)
    }
}
