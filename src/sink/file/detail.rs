//! What a file's receipt says, as bytes.
//!
//! Version 1, little-endian, nothing behind it:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | state: 0 open, 1 finished (never written again), 2 published (its name is durable) |
//! | 8 | length of the file |
//! | 4 | CRC-32/ISO-HDLC of the whole file |
//! | 8 | tail: first offset of the block whose output begins at or before the last, incomplete 4 KiB page |
//! | 8 | tail: the position where that block's output begins |
//! | 4 | tail: CRC-32 of the file up to that position |
//! | 2 | length of the name |
//! | n | the published name, relative to the sink's directory, UTF-8 |

use std::fmt::Debug;

const VERSION: u8 = 1;
const FIXED: usize = 1 + 1 + 8 + 4 + 8 + 8 + 4 + 2;

/// A block boundary in a file: what is before it is known to be whole, what is behind it can be written again from
/// the log's blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// First offset of the block whose output begins here.
    pub first: i64,
    /// The byte where it begins.
    pub position: u64,
    /// CRC-32 of all bytes before.
    pub crc: u32,
}

/// How far a file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is written to.
    Open,
    /// It will never be written again; it is to be renamed.
    Finished,
    /// Renamed, and the new name is durable: it belongs to its readers.
    Published,
}

/// The detail of a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Detail {
    /// Published name, relative to the sink's directory.
    pub name: String,
    /// How far the file has come.
    pub state: State,
    /// Bytes that belong to receipts.
    pub len: u64,
    /// CRC-32 over them.
    pub crc: u32,
    /// From where the log can write the last page again.
    pub tail: Tail,
}

impl Detail {
    /// The bytes of version 1.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + self.name.len());
        bytes.extend_from_slice(&[VERSION, self.state as u8]);
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&self.crc.to_le_bytes());
        bytes.extend_from_slice(&self.tail.first.to_le_bytes());
        bytes.extend_from_slice(&self.tail.position.to_le_bytes());
        bytes.extend_from_slice(&self.tail.crc.to_le_bytes());
        bytes.extend_from_slice(&(self.name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(self.name.as_bytes());
        bytes
    }

    /// Reads what [`Detail::encode`] wrote; the error says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = bytes;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(format!("version {version}, supported is {VERSION}"));
        }
        let state = match take(&mut rest)? {
            [0] => State::Open,
            [1] => State::Finished,
            [2] => State::Published,
            [other] => return Err(format!("state {other}, known are 0 to 2")),
        };
        let len = u64::from_le_bytes(take(&mut rest)?);
        let crc = u32::from_le_bytes(take(&mut rest)?);
        let tail = Tail {
            first: i64::from_le_bytes(take(&mut rest)?),
            position: u64::from_le_bytes(take(&mut rest)?),
            crc: u32::from_le_bytes(take(&mut rest)?),
        };
        let name_len = usize::from(u16::from_le_bytes(take(&mut rest)?));
        if tail.position > len || rest.len() != name_len {
            return Err("lengths contradict each other".into());
        }
        let name = std::str::from_utf8(rest).map_err(|e| e.to_string())?.to_owned();
        Ok(Self { name, state, len, crc, tail })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], String> {
    let (bytes, after) = rest.split_first_chunk::<N>().ok_or("ends early")?;
    *rest = after;
    Ok(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_survive_and_damage_is_refused() {
        let tail = Tail { first: -3, position: 4, crc: 5 };
        let detail = Detail { name: "topic=t/partition=0/é".into(), state: State::Published, len: 9, crc: 6, tail };
        let bytes = detail.encode();
        assert_eq!(Detail::decode(&bytes), Ok(detail));
        for end in 0..bytes.len() {
            assert!(Detail::decode(&bytes[..end]).is_err());
        }
        assert!(Detail::decode(&[bytes.clone(), vec![0]].concat()).is_err());
        for (at, value) in [(0, 2), (1, 3), (22, 200)] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            assert!(Detail::decode(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_bytes_of_version_1_do_not_change() {
        let tail = Tail { first: 1, position: 2, crc: 3 };
        let detail = Detail { name: "n".into(), state: State::Open, len: 4, crc: 5, tail };
        let expected = [
            &[1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0][..],
            &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, b'n'],
        ];
        assert_eq!(detail.encode(), expected.concat());
    }
}
