//! The frame header: 96 bytes in front of every payload; all kinds use the same one.
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `FBF1` |
//! | 4 | 1 | kind ([`Kind`]) |
//! | 5 | 1 | codec, 0: the payload is stored as it is (Kafka's own compression is inside the batches) |
//! | 6 | 2 | flags, 0 |
//! | 8 | 4 | payload length, ≤ 64 MiB |
//! | 12 | 4 | pad length: zero bytes after the payload, covered (checked to be zero) |
//! | 16 | 8 | LSN; `State` and `Footer` repeat the last LSN before them and use none |
//! | 24 | 8 | position of this header in its file |
//! | 32 | 8 | `synced_through`: the last LSN whose sync had returned when this frame was encoded |
//! | 40 | 8 | first offset |
//! | 48 | 8 | next offset |
//! | 56 | 4 | topic number |
//! | 60 | 4 | partition |
//! | 64 | 4 | leader epoch, -1 unknown |
//! | 68 | 4 | record count |
//! | 72 | 4 | block digest |
//! | 76 | 4 | tenure |
//! | 80 | 2 | route |
//! | 82 | 2 | zero |
//! | 84 | 4 | payload CRC, unsalted; over 1 MiB: CRC of the list of the CRCs of the 1 MiB pieces |
//! | 88 | 4 | zero |
//! | 92 | 4 | header CRC: CRC-32 of the salt (8 bytes) followed by bytes 0..92 |
//!
//! Frame length = 96 + payload length + pad length, a multiple of 8. Fields a kind does not use are zero.

use super::{ALIGN, MAX_PAYLOAD, NUMBER_LIMIT, PAGE, get_u16, get_u32, get_u64, put};
use crate::record::{BlockHeader, Partition};

/// Bytes of a frame header.
pub const FRAME_HEADER: usize = 96;
/// The first four bytes of a frame, as a little-endian number.
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"FBF1");
const CRC: usize = FRAME_HEADER - 4;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Records of one partition.
    Block = 1,
    /// A range of offsets that holds no records.
    Empty = 2,
    /// A range that Kafka no longer had.
    Gap = 3,
    /// A topic incarnation gets its number.
    Topic = 4,
    /// A tenure begins.
    Owned = 5,
    /// Blocks that will never be delivered.
    Disowned = 6,
    /// A commit of ours is known to be applied.
    Confirmed = 7,
    /// An acknowledgement is taken back.
    Returning = 8,
    /// The name of an output, before the output exists.
    Named = 9,
    /// A receipt.
    Delivered = 10,
    /// A route is declared.
    Route = 11,
    /// Direct mode: a plan.
    Plan = 12,
    /// Direct mode: a plan will not be run.
    PlanDropped = 13,
    /// Segments below a number are retired.
    RetiredBelow = 14,
    /// Nothing happened; carries `synced_through`.
    Idle = 15,
    /// The complete fold of everything before.
    State = 16,
    /// Index of the segment.
    Footer = 17,
}

impl Kind {
    /// All kinds, in number order.
    pub const ALL: [Self; 17] = [
        Self::Block,
        Self::Empty,
        Self::Gap,
        Self::Topic,
        Self::Owned,
        Self::Disowned,
        Self::Confirmed,
        Self::Returning,
        Self::Named,
        Self::Delivered,
        Self::Route,
        Self::Plan,
        Self::PlanDropped,
        Self::RetiredBelow,
        Self::Idle,
        Self::State,
        Self::Footer,
    ];

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).wrapping_sub(1)).copied()
    }

    /// False for `State` and `Footer`, which repeat the LSN before them.
    pub fn has_lsn(self) -> bool {
        !matches!(self, Self::State | Self::Footer)
    }
}

/// A frame header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is.
    pub kind: Kind,
    /// Bytes of payload.
    pub payload_len: u32,
    /// Zero bytes after the payload.
    pub pad_len: u32,
    /// The frame's LSN.
    pub lsn: u64,
    /// Where the header is in its file.
    pub position: u64,
    /// The last LSN known durable when this was encoded.
    pub synced_through: u64,
    /// First offset.
    pub first: i64,
    /// One past the last offset.
    pub next: i64,
    /// The topic-partition.
    pub partition: Partition,
    /// Leader epoch, -1 unknown.
    pub leader_epoch: i32,
    /// Records in the payload.
    pub count: u32,
    /// Block digest.
    pub digest: u32,
    /// Tenure.
    pub tenure: u32,
    /// Route.
    pub route: u16,
    /// CRC of the payload.
    pub payload_crc: u32,
}

/// Why a frame header was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No frame begins here.
    #[error("no frame here (magic)")]
    Magic,
    /// The header does not match its checksum.
    #[error("frame header crc {found:08x}, expected {expected:08x}")]
    Crc {
        /// Computed.
        found: u32,
        /// Stored.
        expected: u32,
    },
    /// The header is intact, but says something this version does not allow.
    #[error("frame header field {0} is out of its limits")]
    Field(&'static str),
}

impl FrameHeader {
    /// An all-zero header of a kind.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            payload_len: 0,
            pad_len: 0,
            lsn: 0,
            position: 0,
            synced_through: 0,
            first: 0,
            next: 0,
            partition: Partition { topic: 0, number: 0 },
            leader_epoch: 0,
            count: 0,
            digest: 0,
            tenure: 0,
            route: 0,
            payload_crc: 0,
        }
    }

    /// Header, payload and pad.
    pub fn frame_len(&self) -> u64 {
        FRAME_HEADER as u64 + u64::from(self.payload_len) + u64::from(self.pad_len)
    }

    /// The position after the frame.
    pub fn end(&self) -> u64 {
        self.position.saturating_add(self.frame_len())
    }

    /// The block this header describes, if it is one.
    pub fn block(&self) -> Option<BlockHeader> {
        (self.kind == Kind::Block).then_some(BlockHeader {
            partition: self.partition,
            first: self.first,
            next: self.next,
            leader_epoch: self.leader_epoch,
            tenure: self.tenure,
            count: self.count,
            digest: self.digest,
            payload_crc: self.payload_crc,
        })
    }

    /// The 96 bytes, sealed with the salt.
    pub fn encode(&self, salt: u64) -> [u8; FRAME_HEADER] {
        let mut out = [0; FRAME_HEADER];
        put(&mut out, 0, &FRAME_MAGIC.to_le_bytes());
        out[4] = self.kind as u8;
        put(&mut out, 8, &self.payload_len.to_le_bytes());
        put(&mut out, 12, &self.pad_len.to_le_bytes());
        put(&mut out, 16, &self.lsn.to_le_bytes());
        put(&mut out, 24, &self.position.to_le_bytes());
        put(&mut out, 32, &self.synced_through.to_le_bytes());
        put(&mut out, 40, &self.first.to_le_bytes());
        put(&mut out, 48, &self.next.to_le_bytes());
        put(&mut out, 56, &self.partition.topic.to_le_bytes());
        put(&mut out, 60, &self.partition.number.to_le_bytes());
        put(&mut out, 64, &self.leader_epoch.to_le_bytes());
        put(&mut out, 68, &self.count.to_le_bytes());
        put(&mut out, 72, &self.digest.to_le_bytes());
        put(&mut out, 76, &self.tenure.to_le_bytes());
        put(&mut out, 80, &self.route.to_le_bytes());
        put(&mut out, 84, &self.payload_crc.to_le_bytes());
        let crc = seal(salt, &out[..CRC]);
        put(&mut out, CRC, &crc.to_le_bytes());
        out
    }

    /// Reads the header found at `position`; `bytes` holds at least [`FRAME_HEADER`] bytes.
    pub fn decode(bytes: &[u8], salt: u64, position: u64) -> Result<Self, FrameError> {
        if bytes.len() < FRAME_HEADER || get_u32(bytes, 0) != FRAME_MAGIC {
            return Err(FrameError::Magic);
        }
        let (found, expected) = (seal(salt, &bytes[..CRC]), get_u32(bytes, CRC));
        if found != expected {
            return Err(FrameError::Crc { found, expected });
        }
        let kind = Kind::from_number(bytes[4]).ok_or(FrameError::Field("kind"))?;
        let header = Self {
            kind,
            payload_len: get_u32(bytes, 8),
            pad_len: get_u32(bytes, 12),
            lsn: get_u64(bytes, 16),
            position: get_u64(bytes, 24),
            synced_through: get_u64(bytes, 32),
            first: get_u64(bytes, 40) as i64,
            next: get_u64(bytes, 48) as i64,
            partition: Partition { topic: get_u32(bytes, 56), number: get_u32(bytes, 60) as i32 },
            leader_epoch: get_u32(bytes, 64) as i32,
            count: get_u32(bytes, 68),
            digest: get_u32(bytes, 72),
            tenure: get_u32(bytes, 76),
            route: get_u16(bytes, 80),
            payload_crc: get_u32(bytes, 84),
        };
        let bad = [
            (bytes[5] != 0, "codec"),
            (get_u16(bytes, 6) != 0, "flags"),
            (get_u16(bytes, 82) != 0, "reserved"),
            (get_u32(bytes, 88) != 0, "reserved"),
            (header.payload_len > MAX_PAYLOAD, "payload length"),
            (u64::from(header.pad_len) >= PAGE, "pad length"),
            (!header.frame_len().is_multiple_of(ALIGN), "length"),
            (header.position != position, "position"),
            (header.lsn >= NUMBER_LIMIT, "lsn"),
        ];
        match bad.into_iter().find(|(bad, _)| *bad) {
            Some((_, field)) => Err(FrameError::Field(field)),
            None => Ok(header),
        }
    }
}

/// The bytes of an encoded header that the digest of a segment covers: all but its own checksum, since a CRC over bytes
/// that end in their own CRC is the same whatever they are.
pub fn digested(header: &[u8]) -> &[u8] {
    &header[..CRC.min(header.len())]
}

/// The header checksum: seeded by the salt, so that a frame of another life of the file never verifies.
fn seal(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_salt_another_place_another_bit_are_refused() {
        let header = FrameHeader { position: 8192, lsn: 4, first: -1, ..FrameHeader::new(Kind::Block) };
        let bytes = header.encode(77);
        assert_eq!(FrameHeader::decode(&bytes, 77, 8192), Ok(header));
        assert!(FrameHeader::decode(&bytes, 78, 8192).is_err());
        assert_eq!(FrameHeader::decode(&bytes, 77, 8200), Err(FrameError::Field("position")));
        for bit in 0..FRAME_HEADER * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&bad, 77, 8192).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn kinds_are_numbered_without_holes() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind as u8), Some(kind));
        }
        assert_eq!(Kind::from_number(0), None);
        assert_eq!(Kind::from_number(18), None);
    }

    #[test]
    fn fields_are_allowed_up_to_their_limits_and_no_further() {
        let header = |payload_len, pad_len, lsn| {
            let header = FrameHeader { payload_len, pad_len, lsn, position: 8192, ..FrameHeader::new(Kind::Block) };
            FrameHeader::decode(&header.encode(7), 7, 8192)
        };
        let (page, limit) = (PAGE as u32, NUMBER_LIMIT);
        for (payload_len, pad_len, lsn) in [(MAX_PAYLOAD, 0, 1), (0, page - 8, 1), (3, 5, limit - 1)] {
            let read = header(payload_len, pad_len, lsn).unwrap();
            assert_eq!((read.payload_len, read.pad_len, read.lsn), (payload_len, pad_len, lsn));
        }
        assert_eq!(header(MAX_PAYLOAD + 8, 0, 1), Err(FrameError::Field("payload length")));
        assert_eq!(header(0, page, 1), Err(FrameError::Field("pad length")));
        assert_eq!(header(3, 4, 1), Err(FrameError::Field("length")));
        assert_eq!(header(0, 0, limit), Err(FrameError::Field("lsn")));
    }
}
