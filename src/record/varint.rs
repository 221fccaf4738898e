//! Zigzag variable-length integers as Kafka's record format writes them: seven bits a byte, lowest first.

/// Longest encoding of a 64-bit value.
pub const MAX_LEN: usize = 10;

/// Bytes that [`put`] takes for `value`.
#[inline]
pub fn len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Writes `value` at the start of `out` and returns the bytes taken. `out` must hold [`MAX_LEN`] bytes.
#[inline]
pub fn put(out: &mut [u8], value: i64) -> usize {
    let mut rest = zigzag(value);
    let mut at = 0;
    while rest >= 0x80 {
        out[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    out[at] = rest as u8;
    at + 1
}

/// Reads a value from the start of `bytes`; `None` when it does not end within the bytes or within 64 bits.
#[inline]
pub fn get(bytes: &[u8]) -> Option<(i64, usize)> {
    let mut value = 0u64;
    for (at, &byte) in bytes.iter().take(MAX_LEN).enumerate() {
        if at == MAX_LEN - 1 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(((value >> 1) as i64 ^ -((value & 1) as i64), at + 1));
        }
    }
    None
}

#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_lengths_agree() {
        let mut values = vec![0, 1, -1, 63, 64, -64, -65, i64::MAX, i64::MIN];
        values.extend((0..63).flat_map(|shift| [1i64 << shift, -(1i64 << shift), (1i64 << shift) - 1]));
        for value in values {
            let mut out = [0; MAX_LEN];
            let put = put(&mut out, value);
            assert_eq!(put, len(value), "{value}");
            assert_eq!(get(&out), Some((value, put)));
            assert_eq!(get(&out[..put - 1]), None, "a cut value is refused");
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        assert_eq!(get(&[0xff; 11]), None);
    }
}
