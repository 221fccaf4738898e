//! A record as it was fetched, whoever fetched it.

use crate::record::batch::HeaderRef;

/// See the module. Borrows from what it was fetched in.
pub trait Fetched<'a>: Copy {
    /// The record's offset.
    fn offset(&self) -> i64;
    /// Milliseconds since 1970, -1 for none.
    fn timestamp(&self) -> i64;
    /// Leader epoch of the record, -1 when unknown.
    fn leader_epoch(&self) -> i32;
    /// The key, if there is one.
    fn key(&self) -> Option<&'a [u8]>;
    /// The value, `None` for a tombstone.
    fn value(&self) -> Option<&'a [u8]>;
    /// Fills `out` (cleared first) with the headers in their order.
    fn headers(&self, out: &mut Vec<HeaderRef<'a>>);
    /// Key, value and headers as they lie in a record batch, if the record does.
    fn encoded(&self) -> Option<&'a [u8]> {
        None
    }
}
