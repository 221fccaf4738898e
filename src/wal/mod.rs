//! The log engine: frames into segments, group commit, recovery, retention, and reading it all back.
//!
//! Promises: what [`Log::append_synced`] acknowledged or the feed handed out is durable and comes back, byte for byte,
//! in order, through any sequence of kills and power cuts, until every route has a receipt for it; damage of such bytes
//! is found and named, never passed over. One thread owns the files. Never: it does not retry a sync, does not write a
//! byte of a segment twice, does not append to a segment it recovered.
//!
//! ```text
//! append ─► queue ─► commit (the thread) ─► writer ─► segments ─► feed ─► the processor
//!                                             │  ▲                 (memory, or read back)
//!                              fold, retention┘  └ rack (spares, prepared by a second thread)
//! open: recovery = scan (survey) ─► table ─► plan ─► apply
//! ```
//!
//! [`format`] is bytes, [`fold`] and [`retention`] are pure, [`scan`] never writes and is shared with [`inspect`].

pub mod catalogue;
pub mod commit;
mod detour;
pub mod error;
pub mod feed;
pub mod fold;
pub mod format;
pub mod group;
pub mod handover;
pub mod inbox;
pub mod inspect;
pub mod leader;
pub mod log;
pub mod marks;
pub mod options;
pub mod queue;
pub mod rack;
pub mod recovery;
pub mod repair;
pub mod reread;
pub mod retention;
pub mod scan;
pub mod scrub;
pub mod segment;
#[cfg(test)]
mod testing;
pub mod writer;

pub use error::{ErrorClass, WalError};
pub use feed::{Feed, FeedItem};
pub use format::entry::{Entry, PlanRange};
pub use format::state::{
    DEFAULT_ROUTE, Delivery, Disowned, GapRange, NO_OFFSET, OpenPlan, PartitionState, State, StoredReceipt,
    TenureRange, Topic, looks_back,
};
pub use log::{Log, Opened, Status, open};
pub use marks::PartitionMarks;
pub use options::Options;
pub use recovery::{RecoveryReport, TornTail};
pub use scan::finding::{CorruptBlock, Finding};
