//! Finds `OffsetCommit` requests in what was sent to a broker.

const OFFSET_COMMIT: i16 = 8;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn i64(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A string that may be null; compact from `flexible` versions on.
    fn text(&mut self, flexible: bool) -> Option<&'a [u8]> {
        let len = if flexible { self.varint()?.wrapping_sub(1) } else { self.i16()? as usize };
        self.take(if len > isize::MAX as usize { 0 } else { len })
    }

    fn count(&mut self, flexible: bool) -> Option<usize> {
        if flexible { Some(self.varint()?.saturating_sub(1)) } else { Some(self.i32()?.max(0) as usize) }
    }

    fn tags(&mut self, flexible: bool) -> Option<()> {
        if flexible {
            for _ in 0..self.varint()? {
                self.varint()?;
                let len = self.varint()?;
                self.take(len)?;
            }
        }
        Some(())
    }
}

/// Partitions and offsets of all commits in the bytes; several requests may follow each other.
pub fn committed(mut bytes: &[u8]) -> Vec<(i32, i64)> {
    let mut all = Vec::new();
    while bytes.len() >= 8 {
        let len = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let Some(request) = bytes.get(4..4 + len) else { break };
        all.extend(request_of(request).unwrap_or_default());
        bytes = &bytes[4 + len..];
    }
    all
}

fn request_of(request: &[u8]) -> Option<Vec<(i32, i64)>> {
    let mut reader = Reader(request);
    let (key, version) = (reader.i16()?, reader.i16()?);
    if key != OFFSET_COMMIT || !(2..=9).contains(&version) {
        return None;
    }
    let flexible = version >= 8;
    reader.i32()?;
    reader.text(false)?;
    reader.tags(flexible)?;
    reader.text(flexible)?;
    reader.i32()?;
    reader.text(flexible)?;
    if version >= 7 {
        reader.text(flexible)?;
    }
    if version <= 4 {
        reader.i64()?;
    }
    let mut commits = Vec::new();
    for _ in 0..reader.count(flexible)? {
        reader.text(flexible)?;
        for _ in 0..reader.count(flexible)? {
            commits.push((reader.i32()?, reader.i64()?));
            if version >= 6 {
                reader.i32()?;
            }
            reader.text(flexible)?;
            reader.tags(flexible)?;
        }
        reader.tags(flexible)?;
    }
    Some(commits)
}
