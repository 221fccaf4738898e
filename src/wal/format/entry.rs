//! Entries: what callers log and what the fold reads, and their frames.
//!
//! Which frame header fields a kind uses (the others are zero):
//!
//! | kind | header fields |
//! |---|---|
//! | `Block` | all but route |
//! | `Empty`, `Gap`, `Disowned`, `Returning`, `Owned` | topic, partition, tenure, first, next |
//! | `Confirmed` | topic, partition, tenure, next |
//! | `Topic` | topic (its number) |
//! | `Named` | route, topic, partition |
//! | `Delivered` | route, topic, partition, first, next |
//! | `Route`, `Plan`, `PlanDropped` | route |
//! | `RetiredBelow`, `Idle` | none |

use super::frame::{FrameHeader, Kind};
use super::payload::{
    self, DeliveredPayload, PayloadError, PlanDroppedPayload, PlanPayload, RetiredPayload, TextPayload, TopicPayload,
};
use crate::record::batch::payload_crc;
use crate::record::{Block, Lsn, Partition, TopicId, TopicNumber};
use bytes::Bytes;

pub use super::payload::PlanRange;

/// One thing the log is told.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Records. `first` equals the partition's admitted offset.
    Block(Block),
    /// The range holds no records (markers, aborted, compacted away); advances the admitted offset.
    Empty {
        /// Whose range.
        partition: Partition,
        /// The tenure in which it was seen.
        tenure: u32,
        /// First offset.
        first: i64,
        /// One past the last offset.
        next: i64,
    },
    /// Kafka no longer had the range; advances the admitted offset.
    Gap {
        /// Whose range.
        partition: Partition,
        /// The tenure in which it was seen.
        tenure: u32,
        /// First offset.
        first: i64,
        /// One past the last offset.
        next: i64,
        /// Why.
        reason: String,
    },
    /// Gives a topic incarnation its number.
    Topic {
        /// The number.
        number: TopicNumber,
        /// The name.
        name: String,
        /// Kafka's id.
        id: TopicId,
    },
    /// Opens a tenure at `first`; fetching begins at `next`; undecided older blocks of `[first, next)` are adopted.
    Owned {
        /// The partition.
        partition: Partition,
        /// The new tenure.
        tenure: u32,
        /// The group's commit when it was opened.
        first: i64,
        /// Where fetching begins.
        next: i64,
        /// Entries carried over from the commit metadata.
        acked_entries: String,
    },
    /// Blocks of `tenure` or older that begin in `[first, next)` will never be delivered.
    Disowned {
        /// The partition.
        partition: Partition,
        /// The newest tenure meant.
        tenure: u32,
        /// First offset.
        first: i64,
        /// One past the last offset.
        next: i64,
    },
    /// A commit of ours up to `next` is known to be applied.
    Confirmed {
        /// The partition.
        partition: Partition,
        /// The tenure of the commit.
        tenure: u32,
        /// What was committed.
        next: i64,
    },
    /// Takes back the acknowledgement of `[first, next)`.
    Returning {
        /// The partition.
        partition: Partition,
        /// The tenure that gives it back.
        tenure: u32,
        /// First offset.
        first: i64,
        /// One past the last offset.
        next: i64,
    },
    /// The name of an output, logged before the output exists.
    Named {
        /// The route.
        route: u16,
        /// The partition.
        partition: Partition,
        /// The name.
        name: String,
    },
    /// A receipt: the output of `[first, next)` is durable.
    Delivered {
        /// The route.
        route: u16,
        /// The partition.
        partition: Partition,
        /// First offset covered.
        first: i64,
        /// One past the last offset covered.
        next: i64,
        /// LSN of the last block covered.
        through_lsn: Lsn,
        /// First offset whose blocks the log must keep although they are delivered.
        keep_from: Option<i64>,
        /// The sink's own words.
        detail: Vec<u8>,
    },
    /// Declares a route.
    Route {
        /// Its number.
        route: u16,
        /// Its name or address.
        name: String,
    },
    /// Direct mode: the ranges a batch delivers, one for each of its blocks, in order.
    Plan {
        /// The route.
        route: u16,
        /// Batch id.
        id: u64,
        /// When it was made, ms since 1970.
        time_ms: i64,
        /// What it reads.
        ranges: Vec<PlanRange>,
        /// The blocks, in memory only: the feed hands them out once the plan is durable. Empty when read back.
        blocks: Vec<Block>,
    },
    /// Direct mode: the plan will not be run.
    PlanDropped {
        /// The route.
        route: u16,
        /// Batch id.
        id: u64,
    },
    /// Segments below `segment` are retired. Written by the log itself.
    RetiredBelow {
        /// The lowest segment kept.
        segment: u64,
        /// Its first LSN.
        lsn: Lsn,
    },
    /// Carries `synced_through`. Written by the log itself.
    Idle,
}

impl Entry {
    /// The kind of its frame.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Block(_) => Kind::Block,
            Self::Empty { .. } => Kind::Empty,
            Self::Gap { .. } => Kind::Gap,
            Self::Topic { .. } => Kind::Topic,
            Self::Owned { .. } => Kind::Owned,
            Self::Disowned { .. } => Kind::Disowned,
            Self::Confirmed { .. } => Kind::Confirmed,
            Self::Returning { .. } => Kind::Returning,
            Self::Named { .. } => Kind::Named,
            Self::Delivered { .. } => Kind::Delivered,
            Self::Route { .. } => Kind::Route,
            Self::Plan { .. } => Kind::Plan,
            Self::PlanDropped { .. } => Kind::PlanDropped,
            Self::RetiredBelow { .. } => Kind::RetiredBelow,
            Self::Idle => Kind::Idle,
        }
    }

    /// The partition it is about, if it is about one.
    pub fn partition(&self) -> Option<Partition> {
        match self {
            Self::Block(block) => Some(block.header.partition),
            Self::Empty { partition, .. }
            | Self::Gap { partition, .. }
            | Self::Owned { partition, .. }
            | Self::Disowned { partition, .. }
            | Self::Confirmed { partition, .. }
            | Self::Returning { partition, .. }
            | Self::Named { partition, .. }
            | Self::Delivered { partition, .. } => Some(*partition),
            _ => None,
        }
    }

    /// An upper bound of the bytes its frame takes without the pad to a page.
    pub fn bytes(&self) -> u64 {
        const HEADER: u64 = super::frame::FRAME_HEADER as u64 + super::ALIGN;
        let payload = match self {
            Self::Block(block) => block.payload.len(),
            Self::Gap { reason: text, .. }
            | Self::Owned { acked_entries: text, .. }
            | Self::Named { name: text, .. }
            | Self::Route { name: text, .. } => 8 + text.len(),
            Self::Topic { name, .. } => 24 + name.len(),
            Self::Delivered { detail, .. } => 25 + detail.len(),
            Self::Plan { ranges, .. } => 24 + ranges.len() * 24,
            Self::PlanDropped { .. } => 8,
            Self::RetiredBelow { .. } => 16,
            _ => 0,
        };
        HEADER + payload as u64
    }

    /// The frame header without LSN, position, `synced_through` and pad. The payload is appended to `out`, except a
    /// block's, which stays where it is.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<FrameHeader, PayloadError> {
        let start = out.len();
        let mut header = FrameHeader::new(self.kind());
        if let Self::Block(block) = self {
            fill_block(&mut header, block);
            return Ok(header);
        }
        self.fill(&mut header);
        self.encode_payload(out)?;
        header.payload_len = (out.len() - start) as u32;
        header.payload_crc = payload_crc(&out[start..]);
        Ok(header)
    }

    fn fill(&self, header: &mut FrameHeader) {
        header.partition = self.partition().unwrap_or(header.partition);
        match self {
            Self::Empty { tenure, first, next, .. }
            | Self::Gap { tenure, first, next, .. }
            | Self::Owned { tenure, first, next, .. }
            | Self::Disowned { tenure, first, next, .. }
            | Self::Returning { tenure, first, next, .. } => {
                (header.tenure, header.first, header.next) = (*tenure, *first, *next);
            }
            Self::Confirmed { tenure, next, .. } => {
                (header.tenure, header.next) = (*tenure, *next);
            }
            Self::Topic { number, .. } => header.partition.topic = *number,
            Self::Delivered { route, first, next, .. } => {
                (header.route, header.first, header.next) = (*route, *first, *next);
            }
            Self::Named { route, .. }
            | Self::Route { route, .. }
            | Self::Plan { route, .. }
            | Self::PlanDropped { route, .. } => header.route = *route,
            Self::Block(_) | Self::RetiredBelow { .. } | Self::Idle => {}
        }
    }

    fn encode_payload(&self, out: &mut Vec<u8>) -> Result<(), PayloadError> {
        match self {
            Self::Topic { name, id, .. } => {
                let (name, id) = (name.clone(), id.0);
                payload::encode("Topic", &TopicPayload { name, id }, out)
            }
            Self::Owned { acked_entries: text, .. } => text_payload("Owned", text, out),
            Self::Gap { reason: text, .. } => text_payload("Gap", text, out),
            Self::Named { name: text, .. } => text_payload("Named", text, out),
            Self::Route { name: text, .. } => text_payload("Route", text, out),
            Self::Delivered { through_lsn, keep_from, detail, .. } => {
                let value =
                    DeliveredPayload { through_lsn: *through_lsn, keep_from: *keep_from, detail: detail.clone() };
                payload::encode("Delivered", &value, out)
            }
            Self::Plan { id, time_ms, ranges, .. } => {
                let value = PlanPayload { id: *id, time_ms: *time_ms, ranges: ranges.clone() };
                payload::encode("Plan", &value, out)
            }
            Self::PlanDropped { id, .. } => payload::encode("PlanDropped", &PlanDroppedPayload { id: *id }, out),
            Self::RetiredBelow { segment, lsn } => {
                let (segment, lsn) = (*segment, *lsn);
                payload::encode("RetiredBelow", &RetiredPayload { segment, lsn }, out)
            }
            _ => Ok(()),
        }
    }

    /// The entry of a frame whose checksums are right. `None` for `State` and `Footer`, which are not entries.
    pub fn decode(header: &FrameHeader, payload: &Bytes) -> Result<Option<Self>, PayloadError> {
        let (partition, tenure, route) = (header.partition, header.tenure, header.route);
        let (first, next) = (header.first, header.next);
        let entry = match header.kind {
            Kind::Block => block(header, payload)?,
            Kind::Empty => Self::Empty { partition, tenure, first, next },
            Kind::Gap => Self::Gap { partition, tenure, first, next, reason: text("Gap", payload)? },
            Kind::Topic => topic(header, payload)?,
            Kind::Owned => Self::Owned { partition, tenure, first, next, acked_entries: text("Owned", payload)? },
            Kind::Disowned => Self::Disowned { partition, tenure, first, next },
            Kind::Confirmed => Self::Confirmed { partition, tenure, next },
            Kind::Returning => Self::Returning { partition, tenure, first, next },
            Kind::Named => Self::Named { route, partition, name: text("Named", payload)? },
            Kind::Delivered => delivered(header, payload)?,
            Kind::Route => Self::Route { route, name: text("Route", payload)? },
            Kind::Plan => plan(route, payload)?,
            Kind::PlanDropped => {
                Self::PlanDropped { route, id: payload::decode::<PlanDroppedPayload>("PlanDropped", payload)?.id }
            }
            Kind::RetiredBelow => {
                let value: RetiredPayload = payload::decode("RetiredBelow", payload)?;
                let (segment, lsn) = (value.segment, value.lsn);
                Self::RetiredBelow { segment, lsn }
            }
            Kind::Idle => Self::Idle,
            Kind::State | Kind::Footer => return Ok(None),
        };
        Ok(Some(entry))
    }
}

fn fill_block(header: &mut FrameHeader, block: &Block) {
    let from = &block.header;
    header.payload_len = block.payload.len() as u32;
    header.partition = from.partition;
    (header.first, header.next) = (from.first, from.next);
    header.leader_epoch = from.leader_epoch;
    (header.count, header.digest) = (from.count, from.digest);
    header.tenure = from.tenure;
    header.payload_crc = from.payload_crc;
}

fn block(header: &FrameHeader, payload: &Bytes) -> Result<Entry, PayloadError> {
    let Some(found) = header.block() else {
        return Err(PayloadError { kind: "Block", reason: "not a block".to_owned() });
    };
    Ok(Entry::Block(Block { header: found, payload: payload.clone() }))
}

fn topic(header: &FrameHeader, payload: &[u8]) -> Result<Entry, PayloadError> {
    let value: TopicPayload = payload::decode("Topic", payload)?;
    Ok(Entry::Topic { number: header.partition.topic, name: value.name, id: TopicId(value.id) })
}

fn delivered(header: &FrameHeader, payload: &[u8]) -> Result<Entry, PayloadError> {
    let value: DeliveredPayload = payload::decode("Delivered", payload)?;
    Ok(Entry::Delivered {
        route: header.route,
        partition: header.partition,
        first: header.first,
        next: header.next,
        through_lsn: value.through_lsn,
        keep_from: value.keep_from,
        detail: value.detail,
    })
}

fn plan(route: u16, payload: &[u8]) -> Result<Entry, PayloadError> {
    let PlanPayload { id, time_ms, ranges } = payload::decode("Plan", payload)?;
    Ok(Entry::Plan { route, id, time_ms, ranges, blocks: Vec::new() })
}

fn text_payload(kind: &'static str, text: &str, out: &mut Vec<u8>) -> Result<(), PayloadError> {
    let text = text.to_owned();
    payload::encode(kind, &TextPayload { text }, out)
}

fn text(kind: &'static str, payload: &[u8]) -> Result<String, PayloadError> {
    payload::decode::<TextPayload>(kind, payload).map(|value| value.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BlockHeader;
    use crate::wal::format::ALIGN;

    /// One of each kind, with texts and payloads of this length.
    fn entries(len: usize) -> Vec<Entry> {
        let (partition, tenure, first, next) = (Partition { topic: 1, number: 2 }, 3, 4, 5);
        let text = || "x".repeat(len);
        let header =
            BlockHeader { partition, first, next, leader_epoch: -1, tenure, count: 1, digest: 0, payload_crc: 0 };
        let delivered = |keep_from| {
            let detail = vec![7; len];
            Entry::Delivered { route: 0, partition, first, next, through_lsn: 6, keep_from, detail }
        };
        let ranges = vec![PlanRange { topic: 1, partition: 2, from: 4, until: 5 }; len.min(9)];
        vec![
            Entry::Block(Block { header, payload: Bytes::from(vec![1; len]) }),
            Entry::Empty { partition, tenure, first, next },
            Entry::Gap { partition, tenure, first, next, reason: text() },
            Entry::Topic { number: 1, name: text(), id: TopicId([8; 16]) },
            Entry::Owned { partition, tenure, first, next, acked_entries: text() },
            Entry::Disowned { partition, tenure, first, next },
            Entry::Confirmed { partition, tenure, next },
            Entry::Returning { partition, tenure, first, next },
            Entry::Named { route: 0, partition, name: text() },
            delivered(None),
            delivered(Some(4)),
            Entry::Route { route: 0, name: text() },
            Entry::Plan { route: 0, id: 9, time_ms: 10, ranges, blocks: Vec::new() },
            Entry::PlanDropped { route: 0, id: 9 },
            Entry::RetiredBelow { segment: 2, lsn: 6 },
            Entry::Idle,
        ]
    }

    /// The bound decides what fits into a segment: below the frame, a group would run over what is kept for the footer;
    /// far above it, blocks would be refused for want of space that is there.
    #[test]
    fn an_entry_takes_its_frame_and_no_more_than_two_alignments_beside_it() {
        for len in [0, 1, 7, 8, 5000] {
            for entry in entries(len) {
                let frame = entry.encode(&mut Vec::new()).unwrap().frame_len();
                let (kind, bytes) = (entry.kind(), entry.bytes());
                let fits = frame + ALIGN..=frame + 2 * ALIGN;
                assert!(fits.contains(&bytes), "{kind:?} with {len}: {bytes} for a frame of {frame}");
            }
        }
    }
}
