//! What is to be run: the modes, the points of a sweep, and how many records and partitions each point has.
//!
//! Promises: pure; what can't be run is refused here, with what to do instead.

use super::args::{CompareArgs, size};
use super::value::VALUE_BYTES_MIN;
use crate::config::keys::{self, Kind};
use clap::ValueEnum;
use serde::Serialize;
use std::str::FromStr;

/// What the embedded broker keeps of a partition, with room for what it adds to each batch.
const PARTITION_BYTES: u64 = 4_800_000;
const PARTITION_RECORDS: u64 = 98_000;
/// What a record takes in a batch besides its value, and its part of the batch's head.
const RECORD_OVERHEAD: u64 = 13;
/// Records of a run on a real Kafka unless told.
const RECORDS: u64 = 8_000_000;
/// Bytes of values of a run unless told: no disk should be filled by a look at it.
const BYTES: u64 = 2_000_000_000;
/// Partitions of a topic on a real Kafka unless told, and the least on the embedded one.
const PARTITIONS: u64 = 4;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum Mode {
    /// librdkafka alone, counting: the limit
    Consume,
    /// Ranges in the log, records acknowledged on delivery
    Direct,
    /// Records in the log, synced before they are acknowledged
    Receiver,
    /// Records handed to the system before they are acknowledged
    ReceiverOs,
    /// Records in memory before they are acknowledged
    ReceiverMemory,
}

impl Mode {
    /// As typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Direct => "direct",
            Self::Receiver => "receiver",
            Self::ReceiverOs => "receiver-os",
            Self::ReceiverMemory => "receiver-memory",
        }
    }

    /// Settings of `forebay run` that make it this mode.
    pub fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Consume | Self::Receiver => &[],
            Self::Direct => &[("mode", "direct")],
            Self::ReceiverOs => &[("wal.durability", "os")],
            Self::ReceiverMemory => &[("wal.durability", "memory")],
        }
    }

    /// All modes whose settings this build has.
    pub fn available() -> Vec<Self> {
        let known = |&(key, word): &(&str, &str)| match keys::find(key).map(|key| &key.kind) {
            Some(Kind::Choice(words, ..)) => words.contains(&word),
            _ => false,
        };
        let modes = Self::value_variants().iter().copied();
        modes.filter(|mode| mode.settings().iter().all(known)).collect()
    }
}

/// What a sweep varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Axis {
    RecordBytes,
    Partitions,
    Receivers,
    BlockBytes,
}

impl Axis {
    /// As typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::RecordBytes => "record-bytes",
            Self::Partitions => "partitions",
            Self::Receivers => "receivers",
            Self::BlockBytes => "block-bytes",
        }
    }

    const ALL: [Self; 4] = [Self::RecordBytes, Self::Partitions, Self::Receivers, Self::BlockBytes];
}

/// One size with several values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Sweep {
    pub(super) axis: Axis,
    pub(super) values: Vec<u64>,
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let axes = Axis::ALL.map(Axis::name).join(", ");
        let (name, values) = text.split_once('=').ok_or("write it as record-bytes=100,1024")?;
        let axis = Axis::ALL.into_iter().find(|axis| axis.name() == name);
        let axis = axis.ok_or_else(|| format!("{name} can't be varied; choose one of {axes}"))?;
        let values = values.split(',').map(size).collect::<Result<Vec<_>, _>>()?;
        let max = match axis {
            Axis::Partitions => 10_000,
            Axis::Receivers => 64,
            Axis::RecordBytes | Axis::BlockBytes => u64::MAX,
        };
        match values.iter().find(|value| **value > max) {
            Some(value) => Err(format!("{name}={value} is more than {max}")),
            None => Ok(Self { axis, values }),
        }
    }
}

/// One combination of sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Point {
    /// What a sweep varies here; none at the point all others differ from.
    pub sweep: Option<Axis>,
    /// Over all partitions.
    pub records: u64,
    /// Of a value.
    pub record_bytes: u64,
    /// Of the topic.
    pub partitions: u64,
    /// Group members in the process.
    pub receivers: u64,
    /// At which a block is closed; none for the setting's own default.
    pub block_bytes: Option<u64>,
}

impl Point {
    /// Records of each partition.
    pub fn each(&self) -> u64 {
        self.records / self.partitions
    }

    /// True when both can be measured on the same records.
    pub fn same_records(&self, other: &Self) -> bool {
        let records = |point: &Self| (point.records, point.record_bytes, point.partitions);
        records(self) == records(other)
    }
}

/// Everything to be run at each point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// In the order of each round.
    pub modes: Vec<Mode>,
    /// The base point unless there is a sweep.
    pub points: Vec<Point>,
}

/// What the embedded broker may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Bytes of memory for records.
    pub memory: u64,
    /// Records of a run if they were not told and fit.
    pub records: u64,
}

/// Decides, or says what is wrong with the arguments.
pub(super) fn plan(args: &CompareArgs, room: Room) -> Result<Plan, String> {
    let mut modes = if args.modes.is_empty() { Mode::available() } else { args.modes.clone() };
    let mut unique = Vec::new();
    modes.retain(|mode| {
        !unique.contains(mode) && {
            unique.push(*mode);
            true
        }
    });
    let swept = args.sweep.iter().flat_map(|sweep| sweep.values.iter().map(|value| (sweep.axis, *value)));
    let mut variants: Vec<_> = swept.map(Some).collect();
    if variants.is_empty() {
        variants.push(None);
    }
    let fewest = args.sweep.iter().filter(|sweep| sweep.axis == Axis::Partitions).flat_map(|sweep| &sweep.values).min();
    let points = variants.into_iter().map(|varied| point(args, varied, fewest.copied(), room));
    Ok(Plan { modes, points: points.collect::<Result<_, _>>()? })
}

fn point(args: &CompareArgs, varied: Option<(Axis, u64)>, fewest: Option<u64>, room: Room) -> Result<Point, String> {
    let value = |axis| varied.filter(|(of, _)| *of == axis).map(|(_, value)| value);
    let record_bytes = value(Axis::RecordBytes).unwrap_or(args.record_bytes);
    if record_bytes < VALUE_BYTES_MIN as u64 {
        return Err(format!(
            "a record has at least {VALUE_BYTES_MIN} bytes, to say which one it is: raise record-bytes"
        ));
    }
    let asked = value(Axis::Partitions).or(args.partitions.map(u64::from));
    let (records, partitions) = if args.brokers.is_some() {
        (args.records.unwrap_or(RECORDS.min(BYTES / record_bytes)), asked.unwrap_or(PARTITIONS))
    } else {
        // At a sweep over partitions each point has the records that the fewest can hold.
        let fewest = value(Axis::Partitions).and(fewest);
        embedded(args.records, record_bytes, asked, fewest, room)?
    };
    Ok(Point {
        sweep: varied.map(|(axis, _)| axis),
        records: records.div_ceil(partitions) * partitions,
        record_bytes,
        partitions,
        receivers: value(Axis::Receivers).unwrap_or(u64::from(args.receivers)),
        block_bytes: value(Axis::BlockBytes).or(args.block_bytes),
    })
}

/// Records and partitions that the embedded broker can hold.
fn embedded(
    asked: Option<u64>,
    record_bytes: u64,
    partitions: Option<u64>,
    fewest: Option<u64>,
    room: Room,
) -> Result<(u64, u64), String> {
    let size = record_bytes + RECORD_OVERHEAD;
    let each = (PARTITION_BYTES / size).min(PARTITION_RECORDS);
    if each == 0 {
        return Err(format!("the embedded broker can't hold records of {record_bytes} bytes; use --brokers"));
    }
    let fits = room.memory / size;
    let records = match asked {
        Some(records) if records > fits => {
            return Err(format!(
                "{records} records of {record_bytes} bytes are more than a quarter of the memory; the embedded broker \
                 keeps them there: ask for at most {fits} (--records), or use --brokers"
            ));
        }
        Some(records) => records,
        None => {
            let held = fewest.or(partitions).map_or(u64::MAX, |partitions| partitions * each);
            room.records.min(BYTES / record_bytes).min(fits).min(held)
        }
    };
    let needed = records.div_ceil(each);
    let partitions = partitions.unwrap_or(needed.max(PARTITIONS));
    if partitions < needed {
        return Err(format!(
            "the embedded broker holds {each} records of {record_bytes} bytes in a partition: {records} records need \
             --partitions {needed}, or use --brokers"
        ));
    }
    Ok((records, partitions))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    const ROOM: Room = Room { memory: 4 << 30, records: 8_000_000 };

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: CompareArgs,
    }

    fn planned(line: &str) -> Result<Plan, String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        plan(&Line::try_parse_from(words).map_err(|error| error.to_string())?.args, ROOM)
    }

    #[test]
    fn without_arguments_everything_fits_the_embedded_broker() {
        let plan = planned("").unwrap();
        assert!(plan.modes.contains(&Mode::Consume) && plan.modes.contains(&Mode::Receiver));
        let [point] = plan.points.as_slice() else { panic!("{plan:?}") };
        assert!(
            point.records >= ROOM.records && point.each() * (100 + RECORD_OVERHEAD) <= PARTITION_BYTES,
            "{point:?}"
        );
        assert_eq!(point.each() * point.partitions, point.records);
        assert_eq!((point.receivers, point.block_bytes, point.sweep), (1, None, None));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_to_do() {
        for (line, words) in [
            ("--records 1000000 --partitions 2", "--partitions 24"),
            ("--records 900000000", "--records"),
            ("--record-bytes 10", "raise record-bytes"),
            ("--record-bytes 10MB", "--brokers"),
            ("--sweep speed=1,2", "record-bytes, partitions"),
            ("--sweep receivers=65", "more than 64"),
            ("--sweep partitions", "write it as"),
            ("--record-bytes many", "64KiB"),
            ("--topic t", "--brokers"),
        ] {
            let error = planned(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn a_sweep_varies_one_size_at_a_time() {
        let plan = planned("--sweep record-bytes=100,1KiB --sweep receivers=1,2 --records 100000").unwrap();
        let seen: Vec<_> = plan.points.iter().map(|p| (p.sweep.unwrap().name(), p.record_bytes, p.receivers)).collect();
        assert_eq!(
            seen,
            [("record-bytes", 100, 1), ("record-bytes", 1024, 1), ("receivers", 100, 1), ("receivers", 100, 2)]
        );
        assert!(plan.points[2].same_records(&plan.points[3]) && !plan.points[0].same_records(&plan.points[1]));
    }

    #[test]
    fn a_sweep_over_partitions_keeps_the_records() {
        let plan = planned("--sweep partitions=1,10,100").unwrap();
        let records: Vec<_> = plan.points.iter().map(|point| point.records / 1000).collect();
        assert!(records.iter().all(|thousands| *thousands == records[0]), "{records:?}");
        assert!(planned("--sweep partitions=1,10 --records 1000000").is_err());
    }

    #[test]
    fn modes_are_run_once_a_round_in_the_order_given() {
        let plan = planned("--modes receiver,consume,receiver --brokers h:1 --topic t").unwrap();
        assert_eq!(plan.modes, [Mode::Receiver, Mode::Consume]);
        assert_eq!((plan.points[0].records, plan.points[0].partitions), (RECORDS, PARTITIONS));
        for mode in Mode::value_variants() {
            assert_eq!(mode.to_possible_value().unwrap().get_name(), mode.name());
        }
    }
}
