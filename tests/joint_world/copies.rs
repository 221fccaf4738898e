//! The copy of the dedupe table, as a crash may show it.
//!
//! sled can't live on the simulated disk, and promises little for a power cut: so at each start any copy that was ever
//! written may be there, or none, or another log's, or one that is ahead of a log whose unsynced end is gone.

use super::real_copy::RealCopy;
use super::{Missing, Stop};
use crate::crash_world::steps::Random;
use forebay::dedupe::store::Stamp;
use forebay::dedupe::{Row, Table};
use forebay::wal::State;

/// The table as the log's state gives it.
pub fn table_of(state: &State) -> Table {
    Table::new(state.partitions.iter().map(|(partition, known)| {
        let row = Row { admit: known.admitted, deliver: known.delivered(), tenure: known.tenure };
        (*partition, row)
    }))
}

/// What may be in the copy's directory.
#[derive(Clone, Debug)]
pub struct Copy {
    pub stamp: Stamp,
    pub table: Table,
}

impl Copy {
    pub fn of(state: &State) -> Self {
        Self { stamp: Stamp { wal_id: state.wal_id, lsn: state.lsn }, table: table_of(state) }
    }

    /// Stamped and filled beyond what the log has.
    pub fn ahead(&self) -> Self {
        let on = |row: Row| Row { admit: row.admit + 7, deliver: row.deliver + 3, ..row };
        let table = Table::new(self.table.rows().map(|(partition, row)| (partition, on(row))));
        Self { stamp: Stamp { lsn: self.stamp.lsn + 5, ..self.stamp }, table }
    }

    /// The same rows, of another log.
    pub fn foreign(&self) -> Self {
        Self { stamp: Stamp { wal_id: !self.stamp.wal_id, ..self.stamp }, table: self.ahead().table }
    }
}

/// Every copy that was written.
#[derive(Default)]
pub struct Copies {
    pub saved: Vec<Copy>,
    /// The real one, where it is there too.
    pub real: Option<RealCopy>,
}

impl Copies {
    /// What is there at a start.
    fn found(&self, random: &mut Random) -> Option<Copy> {
        let last = self.saved.last()?;
        match random.below(6) {
            0 => None,
            1 => Some(last.foreign()),
            2 => Some(last.ahead()),
            3 => Some(last.clone()),
            _ => Some(self.saved[random.below(self.saved.len() as u64) as usize].clone()),
        }
    }

    /// The table that the process goes on with: the log's, whatever is found.
    pub fn open(&mut self, state: &State, random: &mut Random, missing: Option<Missing>) -> Result<Table, Stop> {
        if let Some(real) = &mut self.real {
            real.open(state, &self.saved, random).map_err(Stop::Violation)?;
        }
        let (mut table, found) = (table_of(state), self.found(random));
        let rows = found.iter().flat_map(|copy| copy.table.rows());
        for (partition, believed) in rows.collect::<Vec<_>>() {
            let row = table.row(partition).unwrap_or_default();
            match missing {
                Some(Missing::AdmitStamp) => table.set(partition, Row { admit: believed.admit, ..row }),
                Some(Missing::DeliverStamp) => table.set(partition, Row { deliver: believed.deliver, ..row }),
                _ => {}
            }
        }
        self.saved.push(Copy::of(state));
        Ok(table)
    }

    pub fn save(&mut self, state: &State) {
        let copy = Copy::of(state);
        if let Some(real) = &mut self.real {
            real.save(&copy);
        }
        self.saved.push(copy);
    }

    /// The process is gone.
    pub fn close(&mut self) -> Result<(), String> {
        match (&mut self.real, self.saved.last()) {
            (Some(real), Some(last)) => real.close(last),
            _ => Ok(()),
        }
    }
}
