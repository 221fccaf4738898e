//! The log as the delivery and the sink see it: what is handed in is durable when the call returns.

use super::workload::Act;
use super::{Missing, Stop};
use crate::crash_world::life::{DIR, Life};
use forebay::record::{Block, Partition};
use forebay::sink::{Receipt, SinkError, SinkLog};
use forebay::wal::repair::Repairs;
use forebay::wal::{DEFAULT_ROUTE, Entry, reread};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

/// The real writer, with what rides its next sync.
pub struct Desk {
    pub life: Life,
    pub missing: Option<Missing>,
    /// Nobody waits for these.
    pub riding: Vec<Entry>,
    /// What a call of the sink found to be broken.
    violation: Option<String>,
}

impl Desk {
    pub fn new(life: Life, missing: Option<Missing>) -> Self {
        Self { life, missing, riding: Vec::new(), violation: None }
    }

    /// As the log's worker fills a batch: what retires segments comes first, because it makes room.
    fn batch(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let retirement = self.life.retirement();
        retirement.into_iter().chain(self.riding.drain(..)).chain(entries).collect()
    }

    /// Logs blocks. False if there is no space for them now: Kafka has them.
    pub fn log_blocks(&mut self, blocks: Vec<Block>) -> Result<bool, Stop> {
        let is_short = self.life.writer().rack().is_short();
        let mut ahead = 0;
        let entries: Vec<Entry> = blocks.into_iter().map(Entry::Block).collect();
        for entry in &entries {
            if is_short && !self.life.writer().has_room(entry, ahead) {
                return Ok(false);
            }
            ahead += entry.bytes();
        }
        let batch = self.batch(Vec::new());
        self.log_batch(&batch)?;
        Ok(self.life.append(&entries)?)
    }

    /// Logs what may pass while blocks wait for space, and is waited for. There is room in time.
    pub fn log(&mut self, entries: Vec<Entry>) -> Result<(), Stop> {
        let batch = self.batch(entries);
        self.log_batch(&batch)
    }

    fn log_batch(&mut self, batch: &[Entry]) -> Result<(), Stop> {
        let before = self.life.writer().durable_lsn();
        if !self.life.append(batch)? {
            self.make_room()?;
            let logged = (self.life.writer().durable_lsn() - before) as usize;
            if !self.life.append(&batch[logged..])? {
                return Err(Stop::Violation("no space on an unlimited disk".into()));
            }
        }
        Ok(self.life.recycle()?)
    }

    pub fn make_room(&mut self) -> Result<(), Stop> {
        self.life.sim.set_capacity(None);
        Ok(self.life.spares()?)
    }

    /// The end of the log, if that is what the act is about.
    pub fn act(&mut self, act: Act) -> Result<(), Stop> {
        match act {
            Act::Roll => self.life.roll()?,
            Act::Retire => self.log(Vec::new())?,
            Act::Idle if self.life.writer().needs_idle() => self.log(vec![Entry::Idle])?,
            Act::Full(bytes) => self.life.sim.set_capacity(Some(self.life.sim.used() + bytes)),
            _ => {}
        }
        Ok(())
    }

    /// Makes receipts durable.
    pub fn log_receipts(&mut self, receipts: Vec<Receipt>, through: &[u64]) -> Result<(), Stop> {
        let kept = |receipt: &Receipt| receipt.keep_from.filter(|_| self.missing != Some(Missing::KeptTail));
        let entry = |receipt: Receipt| Entry::Delivered {
            route: DEFAULT_ROUTE,
            partition: receipt.partition,
            first: receipt.first,
            next: receipt.next,
            through_lsn: through[receipt.partition.number as usize],
            keep_from: kept(&receipt),
            detail: receipt.detail,
        };
        let entries: Vec<Entry> = receipts.into_iter().map(entry).collect();
        if entries.is_empty() {
            return Ok(());
        }
        if self.missing == Some(Missing::ReceiptSync) {
            self.riding.extend(entries);
            return Ok(());
        }
        self.log(entries)
    }

    /// Calls the sink.
    pub fn with_sink<T>(&mut self, call: impl FnOnce(&View<'_>) -> Result<T, SinkError>) -> Result<T, CallError> {
        let view = View(RefCell::new(self));
        let result = call(&view);
        match self.violation.take() {
            Some(why) => Err(CallError::Stop(Stop::Violation(why))),
            None => result.map_err(CallError::from),
        }
    }
}

/// Why a call of the sink brought nothing.
pub enum CallError {
    /// To be tried again, and why.
    Full(String),
    Stop(Stop),
}

impl From<SinkError> for CallError {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Retry { reason, .. } => Self::Full(reason),
            other => Self::Stop(Stop::Ended(format!("sink: {other}"))),
        }
    }
}

/// The part of the log that the sink may use.
pub struct View<'a>(RefCell<&'a mut Desk>);

impl SinkLog for View<'_> {
    fn name_output(&self, partition: Partition, name: &str) -> Result<(), SinkError> {
        self.name_outputs(&[(partition, name.to_owned())])
    }

    fn name_outputs(&self, names: &[(Partition, String)]) -> Result<(), SinkError> {
        let named = |(partition, name): &(Partition, String)| Entry::Named {
            route: DEFAULT_ROUTE,
            partition: *partition,
            name: name.clone(),
        };
        let entries = names.iter().map(named).collect();
        let mut desk = self.0.borrow_mut();
        if desk.missing == Some(Missing::NameSync) {
            desk.riding.extend(entries);
            return Ok(());
        }
        match desk.log(entries) {
            Ok(()) => Ok(()),
            Err(Stop::Ended(why)) => Err(SinkError::Fatal(why)),
            Err(Stop::Violation(why)) => {
                desk.violation = Some(why.clone());
                Err(SinkError::Fatal(why))
            }
        }
    }

    fn read_blocks(&self, partition: Partition, first: i64, next: i64) -> Result<Vec<Block>, SinkError> {
        let mut desk = self.0.borrow_mut();
        let sim = desk.life.sim.clone();
        let writer = desk.life.writer();
        let repairs = Repairs::new(Arc::new(sim.clone()), Path::new(DIR), writer.state().wal_id, Vec::new());
        let blocks = reread::read_blocks(&sim, writer.catalogue(), &repairs, &[], (partition, first, next));
        blocks.map_err(|error| SinkError::Fatal(error.to_string()))
    }
}
