//! Payloads of the small frames: bincode 1.3, fixed-width integers, little-endian, a size limit, no trailing bytes.
//! This is the only file that knows bincode.
//!
//! A string or byte list is its length as `u64`, then the bytes; a list or map is its count as `u64`, then the items;
//! an option is one byte (0 none, 1 some), then the value; a bool is one byte. Fields are stored in the order below.
//!
//! | kind | payload |
//! |---|---|
//! | `Block` | Kafka record batches v2, untouched |
//! | `Topic` | `name: str, id: 16 bytes` |
//! | `Owned` | `acked_entries: str` |
//! | `Gap` | `reason: str` |
//! | `Named`, `Route` | `name: str` |
//! | `Delivered` | `through_lsn: u64, keep_from: option i64, detail: bytes` |
//! | `Plan` | `id: u64, time_ms: i64, ranges: list of {topic: u32, partition: i32, from: i64, until: i64}` |
//! | `PlanDropped` | `id: u64` |
//! | `RetiredBelow` | `segment: u64, lsn: u64` |
//! | `Empty`, `Disowned`, `Confirmed`, `Returning`, `Idle` | none; the frame header says it all |
//! | `State` | see [`super::state`] |
//! | `Footer` | see [`super::footer`] |

use super::MAX_PAYLOAD;
use crate::record::Partition;
use bincode::Options;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A payload that is not what its kind says, although its checksum is right.
#[derive(Debug, thiserror::Error)]
#[error("payload of a {kind} frame: {reason}")]
pub struct PayloadError {
    /// Kind of the frame.
    pub kind: &'static str,
    /// What the decoder said.
    pub reason: String,
}

/// Appends the encoded value. Fails only above the size limit of a payload.
pub fn encode<T: Serialize>(kind: &'static str, value: &T, out: &mut Vec<u8>) -> Result<(), PayloadError> {
    options().serialize_into(out, value).map_err(|error| PayloadError { kind, reason: error.to_string() })
}

/// Decodes a whole payload; trailing bytes are refused.
pub fn decode<T: DeserializeOwned>(kind: &'static str, bytes: &[u8]) -> Result<T, PayloadError> {
    options().deserialize(bytes).map_err(|error| PayloadError { kind, reason: error.to_string() })
}

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(u64::from(MAX_PAYLOAD))
        .reject_trailing_bytes()
}

/// Payload of `Topic`.
#[derive(Serialize, Deserialize)]
pub struct TopicPayload {
    /// Topic name.
    pub name: String,
    /// Kafka's topic id.
    pub id: [u8; 16],
}

/// Payload of `Owned`, `Gap`, `Named` and `Route`: one text.
#[derive(Serialize, Deserialize)]
pub struct TextPayload {
    /// The text.
    pub text: String,
}

/// Payload of `Delivered`.
#[derive(Serialize, Deserialize)]
pub struct DeliveredPayload {
    /// LSN of the last block covered.
    pub through_lsn: u64,
    /// First offset whose blocks the log must keep.
    pub keep_from: Option<i64>,
    /// The sink's own words.
    pub detail: Vec<u8>,
}

/// One range of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRange {
    /// Topic number.
    pub topic: u32,
    /// Partition.
    pub partition: i32,
    /// First offset.
    pub from: i64,
    /// One past the last offset.
    pub until: i64,
}

impl PlanRange {
    /// The partition it belongs to.
    pub fn partition(&self) -> Partition {
        Partition { topic: self.topic, number: self.partition }
    }
}

/// Payload of `Plan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPayload {
    /// Batch id.
    pub id: u64,
    /// When it was made, ms since 1970.
    pub time_ms: i64,
    /// What it reads.
    pub ranges: Vec<PlanRange>,
}

/// Payload of `PlanDropped`.
#[derive(Serialize, Deserialize)]
pub struct PlanDroppedPayload {
    /// Batch id.
    pub id: u64,
}

/// Payload of `RetiredBelow`.
#[derive(Serialize, Deserialize)]
pub struct RetiredPayload {
    /// Segments with a lower number are retired.
    pub segment: u64,
    /// First LSN of the lowest segment that is kept.
    pub lsn: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_width_little_endian_no_trailing_bytes() {
        let mut out = Vec::new();
        let value = DeliveredPayload { through_lsn: 258, keep_from: Some(-1), detail: vec![7] };
        encode("Delivered", &value, &mut out).unwrap();
        let expected = [&[2, 1, 0, 0, 0, 0, 0, 0, 1][..], &[255; 8], &[1, 0, 0, 0, 0, 0, 0, 0, 7]].concat();
        assert_eq!(out, expected);
        out.push(0);
        assert!(decode::<DeliveredPayload>("Delivered", &out).is_err());
    }

    #[test]
    fn a_hostile_length_is_an_error_not_an_allocation() {
        let mut bytes = vec![0; 24];
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(decode::<TextPayload>("Named", &bytes).is_err());
        bytes[..8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        assert!(decode::<TextPayload>("Named", &bytes).is_err());
    }
}
