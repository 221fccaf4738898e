//! What the benchmark writes into a record's value: where it belongs and when it was made.
//!
//! Promises: text of fixed width, so that any sink keeps it readable and no allocation is needed to write it.

const PARTITION: usize = 6;
const SEQUENCE: usize = 12;
const MICROS: usize = 14;

/// Bytes a value has at least.
pub(super) const VALUE_BYTES_MIN: usize = PARTITION + SEQUENCE + MICROS;

/// The beginning of a value; the rest is padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// Partition it was produced to.
    pub partition: u64,
    /// Its place in the partition, which is its offset.
    pub sequence: u64,
    /// When it was due, by [`crate::clock::monotonic`] of the process that produced it; 0 when nobody asks.
    pub micros: u64,
}

impl Value {
    /// Writes it over the beginning of `buffer`, which has at least [`VALUE_BYTES_MIN`] bytes.
    pub fn write(self, buffer: &mut [u8]) {
        let (partition, rest) = buffer.split_at_mut(PARTITION);
        let (sequence, rest) = rest.split_at_mut(SEQUENCE);
        digits(self.partition, partition);
        digits(self.sequence, sequence);
        digits(self.micros, &mut rest[..MICROS]);
    }

    /// Reads one back; none if the bytes don't begin as a value does.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (partition, rest) = bytes.split_at_checked(PARTITION)?;
        let (sequence, rest) = rest.split_at_checked(SEQUENCE)?;
        Some(Self { partition: number(partition)?, sequence: number(sequence)?, micros: number(rest.get(..MICROS)?)? })
    }
}

/// A buffer of `bytes` bytes of padding to write values into.
pub(super) fn padding(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| b'a' + (place * 7 % 26) as u8).collect()
}

fn digits(mut number: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let add = |sum: u64, byte: &u8| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'));
    digits.iter().try_fold(0, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut buffer = padding(50);
        let value = Value { partition: 999, sequence: 123_456_789_012, micros: 42 };
        value.write(&mut buffer);
        assert_eq!(Value::read(&buffer), Some(value));
        assert_eq!(Value::read(&buffer[..VALUE_BYTES_MIN]), Some(value));
        assert_eq!(Value::read(&buffer[..VALUE_BYTES_MIN - 1]), None);
        assert_eq!(Value::read(&padding(50)), None);
        assert!(!buffer.contains(&b'\n'));
    }
}
