//! The bytes of the log: pure encoders and decoders, no I/O, no clock.
//!
//! Promises: every length is compared with a limit before memory is asked for; a decoder may return an error, it never
//! panics; the header of a frame is verified before its length is believed. Everything is little-endian, fixed width.
//!
//! # A segment, byte by byte
//! | position | what |
//! |---|---|
//! | 0 | segment header, 4096 bytes ([`header`]) |
//! | 4096 | the same page again |
//! | 8192 | `State` frame ([`state`]), padded to a 4 KiB boundary |
//! | next 4 KiB boundary | the same `State` once more, padded to a 4 KiB boundary |
//! | after it | frames copied from a recovered predecessor (only after a crash), the last padded to a 4 KiB boundary |
//! | `built_end` | sync groups: frames ([`frame`]) one after the other, the last of each group padded to a 4 KiB boundary |
//! | before the end | `Footer` frame ([`footer`]), may be missing |
//! | the end | said by the *successor's* header; bytes beyond it are never judged |
//!
//! Checksums are CRC-32/ISO-HDLC (check value `CBF43926` for `123456789`).

pub mod entry;
pub mod footer;
pub mod frame;
pub mod header;
pub mod payload;
pub mod state;

/// Header pages, States and sync groups begin and end on a multiple of this.
pub const PAGE: u64 = 4096;
/// Where the first `State` frame begins: after two header pages.
pub const FRAMES_START: u64 = 2 * PAGE;
/// Frames begin on a multiple of this.
pub const ALIGN: u64 = 8;
/// LSNs and segment numbers are less: whoever counts on from one that was read does not overflow.
pub const NUMBER_LIMIT: u64 = 1 << 63;
/// No payload is longer: 64 MiB.
pub const MAX_PAYLOAD: u32 = 64 << 20;

/// The next page boundary at or after `position`.
pub const fn page_up(position: u64) -> u64 {
    position.next_multiple_of(PAGE)
}

/// The next frame boundary at or after `position`.
pub const fn align_up(position: u64) -> u64 {
    position.next_multiple_of(ALIGN)
}

pub(crate) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

pub(crate) fn get_u128(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(array(bytes, at))
}

/// True if all bytes are zero; much faster than byte by byte.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
}

pub(crate) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

/// Callers pass slices whose length they have checked.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_iso_hdlc() {
        assert_eq!(crc32fast::hash(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn boundaries() {
        assert_eq!((page_up(0), page_up(1), page_up(4096)), (0, 4096, 4096));
        assert_eq!((align_up(96), align_up(97)), (96, 104));
    }
}
