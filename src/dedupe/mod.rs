//! Nothing is taken twice: per partition the next offset to admit, to deliver, and the tenure.
//!
//! Promises: a range below `admit` is dropped, one that straddles it is trimmed, one that starts above it is refused as
//! a hole. Never: the table decides nothing the log does not know; it is an *index of the log*. Its sled copy is
//! trusted only where it equals what the log's frames say; otherwise it is rebuilt from the log (sled 0.34 survives
//! kill -9, not a power cut).

pub mod store;

use crate::record::Partition;
use std::collections::HashMap;

/// What the table knows of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    /// Next offset to admit into the log.
    pub admit: i64,
    /// Next offset to deliver.
    pub deliver: i64,
    /// Tenure in which `admit` holds.
    pub tenure: u32,
}

/// What is to be done with a range that wants to get into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// All of it is new.
    Admit,
    /// All of it is here already.
    Drop,
    /// What lies below the offset is here already.
    Trim(i64),
    /// Offsets from here to its start would be missing.
    Hole(i64),
}

/// Decides about `[first, next)` when `admit` is the next offset to admit.
pub fn decide(admit: i64, first: i64, next: i64) -> Admission {
    if next <= admit {
        Admission::Drop
    } else if first < admit {
        Admission::Trim(admit)
    } else if first == admit {
        Admission::Admit
    } else {
        Admission::Hole(admit)
    }
}

/// The rows in memory. One owner; no lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    rows: HashMap<Partition, Row>,
}

impl Table {
    /// A table of these rows.
    pub fn new(rows: impl IntoIterator<Item = (Partition, Row)>) -> Self {
        Self { rows: rows.into_iter().collect() }
    }

    /// The row of a partition, if it is known.
    pub fn row(&self, partition: Partition) -> Option<Row> {
        self.rows.get(&partition).copied()
    }

    /// Sets a partition's row: a tenure opened, or a range was skipped for a logged reason.
    pub fn set(&mut self, partition: Partition, row: Row) {
        self.rows.insert(partition, row);
    }

    /// Asks for `[first, next)`; on [`Admission::Admit`] the range counts as taken.
    pub fn admit(&mut self, partition: Partition, first: i64, next: i64) -> Admission {
        let row = self.rows.entry(partition).or_insert(Row { admit: first, deliver: first, tenure: 0 });
        let admission = decide(row.admit, first, next);
        if admission == Admission::Admit {
            row.admit = next;
        }
        admission
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = (Partition, Row)> {
        self.rows.iter().map(|(partition, row)| (*partition, *row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_relation_of_a_range_to_the_admitted_offset_has_its_answer() {
        for (first, next, answer) in [
            (0, 5, Admission::Drop),
            (5, 10, Admission::Drop),
            (5, 11, Admission::Trim(10)),
            (10, 11, Admission::Admit),
            (11, 12, Admission::Hole(10)),
        ] {
            assert_eq!(decide(10, first, next), answer, "[{first}, {next})");
        }
    }

    #[test]
    fn a_range_is_admitted_once() {
        let partition = Partition { topic: 1, number: 0 };
        let mut table = Table::default();
        assert_eq!(table.admit(partition, 7, 9), Admission::Admit, "an unknown partition starts where it starts");
        assert_eq!(table.admit(partition, 7, 9), Admission::Drop);
        assert_eq!(table.admit(partition, 8, 12), Admission::Trim(9));
        assert_eq!(table.admit(partition, 10, 12), Admission::Hole(9));
        assert_eq!(table.row(partition).map(|row| row.admit), Some(9));
    }
}
