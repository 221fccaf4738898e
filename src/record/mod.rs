//! The words everything else is written in: partitions, blocks and record batches.
//!
//! Promises: pure values and pure functions of bytes; no I/O, no clock, no global state.
//! An *offset* is always a Kafka offset and a stored one is *next to read*; ranges are half open `[first, next)`.

pub mod batch;
pub mod topics;
pub mod varint;

use bytes::Bytes;

/// The number the log gave to one incarnation of a topic (name and topic id).
///
/// A topic that is deleted and created again gets a new number, so the number is a safe key.
pub type TopicNumber = u32;

/// One topic-partition, keyed by the log's topic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The log's number for this incarnation of the topic.
    pub topic: TopicNumber,
    /// Kafka's partition number.
    pub number: i32,
}

/// Kafka's id of a topic incarnation; all zero when the broker has none (the mock cluster).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// True when the broker gave no id.
    pub fn is_none(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl std::fmt::Display for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Sequence number of a frame in the log: starts at 1, no gaps but the ones a segment header declares.
pub type Lsn = u64;

/// What a block is, without its payload. It is repeated in the frame header, so that a block whose
/// payload is damaged still says what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// The topic-partition all records of the block belong to.
    pub partition: Partition,
    /// First offset of the range; equals the partition's admitted offset when it is logged.
    pub first: i64,
    /// One past the last offset of the range (offsets may be missing inside: compaction, markers).
    pub next: i64,
    /// Leader epoch of the last record, -1 when unknown.
    pub leader_epoch: i32,
    /// The ownership tenure of the partition in which the block was received.
    pub tenure: u32,
    /// How many records the payload holds.
    pub count: u32,
    /// CRC-32 over what can be fetched again: each record's offset, timestamp, key, value and headers.
    pub digest: u32,
    /// CRC-32 (ISO-HDLC) of the payload; see `wal_format.md` for payloads over 1 MiB.
    pub payload_crc: u32,
}

/// One run of a partition's records: the unit of logging, delivery and dedupe. Cloning shares the payload.
#[derive(Clone, Debug)]
pub struct Block {
    /// Identity, range and checksums.
    pub header: BlockHeader,
    /// One or more Kafka record batches v2; read with [`batch::records`].
    pub payload: Bytes,
}
