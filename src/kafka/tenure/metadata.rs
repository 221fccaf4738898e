//! The words stored with each commit:
//! `forebay1 wal=<last committer> tid=<topic id> delivered=<offset> acked=<wal>:<to>,…`.
//!
//! `acked` says per WAL how far its applied commits reach. Offset and words change in one step at the coordinator, so
//! a WAL finds its own truth there whoever committed since. Ids are 32 hexadecimal digits, as every tool shows them;
//! offsets are decimal; an unknown `delivered` is `-`. With offsets of ten digits 90 WALs fit.
//!
//! Promises: what was encoded parses to the same value; anything else is told apart as foreign, as another version or
//! as malformed. Never: an entry is never dropped to make room.

use crate::record::TopicId;
use std::fmt;

/// Bytes the broker accepts at most (its `offset.metadata.max.bytes` by default).
pub const MAX_LEN: usize = 4096;

const NAME: &str = "forebay";
const VERSION: &str = "1";
const HEX: usize = 32;

/// The identity of a WAL, as in its segment headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WalId(pub u128);

impl fmt::Display for WalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// How far the applied commits of each WAL reach; one entry a WAL, in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Acked(Vec<(WalId, i64)>);

impl Acked {
    /// How far the applied commits of `wal` reach; `None` when it never committed.
    pub fn get(&self, wal: WalId) -> Option<i64> {
        self.0.binary_search_by_key(&wal, |entry| entry.0).ok().map(|at| self.0[at].1)
    }

    /// Sets the entry of `wal`, leaving all others.
    pub fn set(&mut self, wal: WalId, to: i64) {
        match self.0.binary_search_by_key(&wal, |entry| entry.0) {
            Ok(at) => self.0[at].1 = to,
            Err(at) => self.0.insert(at, (wal, to)),
        }
    }

    /// True when no WAL ever committed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (WalId, i64)> + '_ {
        self.0.iter().copied()
    }

    /// True when a WAL other than `me` has an entry: `me` is not the only instance.
    pub fn has_other_than(&self, me: WalId) -> bool {
        self.iter().any(|(wal, _)| wal != me)
    }

    /// The furthest that any WAL's commits reached.
    pub fn highest(&self) -> Option<i64> {
        self.iter().map(|(_, to)| to).max()
    }

    /// Reads the form that [`fmt::Display`] writes: `<wal>:<to>,…`; empty for no entries.
    pub fn parse(text: &str) -> Result<Self, MetadataError> {
        let mut acked = Self::default();
        for entry in text.split(',').filter(|_| !text.is_empty()) {
            let (wal, to) = entry.split_once(':').ok_or_else(|| malformed("acked", entry))?;
            let (wal, to) = (WalId(hex("acked", wal)?), offset("acked", to)?);
            if acked.get(wal).is_some() {
                return Err(malformed("acked", entry));
            }
            acked.set(wal, to);
        }
        Ok(acked)
    }
}

impl fmt::Display for Acked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (wal, to)) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{wal}:{to}")?;
        }
        Ok(())
    }
}

/// What one commit says besides its offset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// Who made the commit.
    pub wal: WalId,
    /// The incarnation of the topic that the offset belongs to.
    pub topic: TopicId,
    /// How far the committer had delivered; information for people.
    pub delivered: Option<i64>,
    /// How far each WAL's applied commits reach, this one included.
    pub acked: Acked,
}

/// Why metadata of ours can't be used or made. The partition is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MetadataError {
    /// Written by a version of Forebay that this one does not know.
    #[error("commit metadata is of version {found:?}, supported is 1")]
    Version {
        /// What stands behind `forebay`.
        found: String,
    },
    /// It begins as ours and is not.
    #[error("commit metadata is malformed at {field}: {text:?}")]
    Malformed {
        /// The field that does not parse.
        field: &'static str,
        /// What stands there.
        text: String,
    },
    /// One more WAL than fits.
    #[error(
        "commit metadata would take {bytes} bytes for {wals} WALs, {MAX_LEN} are allowed; \
         remove WALs that will not come back with `forebay offsets forget WAL`"
    )]
    Full {
        /// What it would take.
        bytes: usize,
        /// How many WALs have an entry.
        wals: usize,
    },
}

impl Metadata {
    /// Bytes that [`Metadata::encode`] makes of it; allocates nothing.
    pub fn encoded_len(&self) -> usize {
        let fixed = NAME.len() + VERSION.len() + " wal= tid= delivered= acked=".len() + 2 * HEX;
        let entries: usize = self.acked.iter().map(|(_, to)| HEX + ":,".len() + digits(to)).sum();
        fixed + self.delivered.map_or(1, digits) + entries.saturating_sub(usize::from(entries > 0))
    }

    /// Fails with [`MetadataError::Full`] where [`Metadata::encode`] would.
    pub fn fits(&self) -> Result<(), MetadataError> {
        let bytes = self.encoded_len();
        if bytes > MAX_LEN {
            return Err(MetadataError::Full { bytes, wals: self.acked.0.len() });
        }
        Ok(())
    }

    /// The words to commit. Fails with [`MetadataError::Full`] above [`MAX_LEN`].
    pub fn encode(&self) -> Result<String, MetadataError> {
        self.fits()?;
        let Self { wal, topic, delivered, acked } = self;
        let delivered = delivered.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        Ok(format!("{NAME}{VERSION} wal={wal} tid={topic} delivered={delivered} acked={acked}"))
    }

    /// Reads what was committed. `None`: not Forebay's (nothing, or someone else's words).
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, MetadataError> {
        let Some(rest) = bytes.strip_prefix(NAME.as_bytes()) else { return Ok(None) };
        let rest = String::from_utf8_lossy(rest);
        let (version, fields) = rest.split_once(' ').unwrap_or((&rest, ""));
        if version != VERSION {
            let ours = version.starts_with(|first: char| first.is_ascii_digit());
            return if ours { Err(MetadataError::Version { found: version.to_owned() }) } else { Ok(None) };
        }
        let mut fields = fields.split(' ');
        let wal = WalId(hex("wal", field(&mut fields, "wal")?)?);
        let topic = TopicId(hex("tid", field(&mut fields, "tid")?)?.to_be_bytes());
        let delivered = match field(&mut fields, "delivered")? {
            "-" => None,
            text => Some(offset("delivered", text)?),
        };
        let acked = Acked::parse(field(&mut fields, "acked")?)?;
        match fields.next() {
            None => Ok(Some(Self { wal, topic, delivered, acked })),
            Some(text) => Err(malformed("end", text)),
        }
    }
}

fn field<'a>(fields: &mut impl Iterator<Item = &'a str>, name: &'static str) -> Result<&'a str, MetadataError> {
    let text = fields.next().unwrap_or("");
    text.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).ok_or_else(|| malformed(name, text))
}

fn hex(field: &'static str, text: &str) -> Result<u128, MetadataError> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let value = u128::from_str_radix(text, 16).ok().filter(|_| digits && text.len() == HEX);
    value.ok_or_else(|| malformed(field, text))
}

fn offset(field: &'static str, text: &str) -> Result<i64, MetadataError> {
    let value = text.parse().ok().filter(|value: &i64| *value >= 0 && value.to_string() == text);
    value.ok_or_else(|| malformed(field, text))
}

/// Digits of an offset, which is never negative.
fn digits(offset: i64) -> usize {
    offset.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn malformed(field: &'static str, text: &str) -> MetadataError {
    let text = text.chars().take(80).collect();
    MetadataError::Malformed { field, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(wals: u128, to: i64) -> Metadata {
        let mut acked = Acked::default();
        for wal in (0..wals).rev() {
            acked.set(WalId(u128::MAX - wal), to);
        }
        Metadata { wal: WalId(0xab), topic: TopicId([7; 16]), delivered: Some(41), acked }
    }

    #[test]
    fn the_words_are_as_documented_and_come_back() {
        let mut metadata = sample(0, 0);
        metadata.acked.set(WalId(2), 0);
        metadata.acked.set(WalId(1), i64::MAX);
        let text = metadata.encode().unwrap();
        let (one, two) = (WalId(1), WalId(2));
        let wal = "000000000000000000000000000000ab";
        let tid = "07070707070707070707070707070707";
        let expected = format!("forebay1 wal={wal} tid={tid} delivered=41 acked={one}:9223372036854775807,{two}:0");
        assert_eq!(text, expected);
        assert_eq!(Metadata::parse(text.as_bytes()), Ok(Some(metadata.clone())));
        metadata.delivered = None;
        metadata.acked = Acked::default();
        let text = metadata.encode().unwrap();
        assert!(text.ends_with(" delivered=- acked="), "{text}");
        assert_eq!(Metadata::parse(text.as_bytes()), Ok(Some(metadata)));
    }

    #[test]
    fn ninety_wals_fit_and_at_the_limit_it_says_what_to_do() {
        let full = sample(90, 9_999_999_999);
        for to in [0, 9, 10, 99, 100, i64::MAX] {
            let metadata = sample(3, to);
            assert_eq!(metadata.encoded_len(), metadata.encode().unwrap().len(), "{to}");
        }
        let text = full.encode().unwrap();
        assert_eq!(Metadata::parse(text.as_bytes()).unwrap().unwrap().acked.iter().count(), 90);
        let error = sample(100, 9_999_999_999).encode().unwrap_err();
        assert!(matches!(error, MetadataError::Full { wals: 100, .. }), "{error}");
        assert!(error.to_string().contains("forebay offsets forget WAL"), "{error}");
    }

    #[test]
    fn foreign_words_are_told_apart() {
        for text in ["", "x", "forebay", "forebay-migrated by hand", "forebays1 wal=", "Forebay1", "\u{e9}"] {
            assert_eq!(Metadata::parse(text.as_bytes()), Ok(None), "{text:?}");
        }
        assert_eq!(Metadata::parse(&[0xff, 0]), Ok(None));
    }

    #[test]
    fn other_versions_are_named() {
        for (text, found) in [("forebay2 wal=…", "2"), ("forebay10", "10"), ("forebay1.1 wal=", "1.1")] {
            assert_eq!(Metadata::parse(text.as_bytes()), Err(MetadataError::Version { found: found.to_owned() }));
        }
    }

    #[test]
    fn every_cut_and_every_changed_field_is_malformed() {
        let text = sample(2, 7).encode().unwrap();
        // The coordinator stores the words whole; a cut between entries could not be seen.
        for end in "forebay1".len()..text.len() {
            let cut = Metadata::parse(&text.as_bytes()[..end]);
            let between_entries = text[..end].ends_with("acked=") || text[..end].ends_with(":7");
            assert!(between_entries || matches!(cut, Err(MetadataError::Malformed { .. })), "{end}: {cut:?}");
        }
        let changes = [
            ("wal=0", "wal=+"),
            ("wal=0", "wal=A"),
            ("tid=", "tid= "),
            ("delivered=41", "delivered=-1"),
            ("delivered=41", "delivered=041"),
            ("delivered=41", "delivered=+41"),
            ("delivered=41", "delivered="),
            (":7,", ":7,,"),
            (":7,", ":99999999999999999999,"),
            ("acked=", "acke="),
            ("acked=", "acked=,"),
            ("fffffe:7", "ffffff:7"),
            (" acked", "  acked"),
        ];
        for (from, to) in changes {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            let parsed = Metadata::parse(changed.as_bytes());
            assert!(matches!(parsed, Err(MetadataError::Malformed { .. })), "{changed}: {parsed:?}");
        }
        assert!(Metadata::parse(format!("{text} more").as_bytes()).is_err());
    }

    #[test]
    fn knowing_another_wal_is_not_being_alone() {
        let mut acked = Acked::default();
        acked.set(WalId(1), 5);
        assert!(!acked.has_other_than(WalId(1)));
        acked.set(WalId(2), 3);
        assert!(acked.has_other_than(WalId(1)));
        assert_eq!(acked.highest(), Some(5));
        assert_eq!(Acked::parse(&acked.to_string()), Ok(acked));
    }
}
