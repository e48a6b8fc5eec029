//! The log: the state of the control plane as a stream of fenced commits.
//!
//! Every manager folds the log into a [`Replica`]; the leader appends to it with a [`Writer`].
//! Leading *is* an entry of the log, so there is no lease, no clock and no other store in the
//! argument for safety: an append carries the sequence it follows on, and the server refuses it
//! if anybody else, a new leader first of all, has appended since.
//!
//! | room | what is in it |
//! |---|---|
//! | [`entry`] | one entry and its bytes (pure) |
//! | [`replica`] | the state folded from entries, its hash, its position (pure) |
//! | [`batch`] | what gathers while an append is under way (pure) |

pub mod batch;
pub mod entry;
pub mod replica;

pub use batch::{Batch, Gatherer};
pub use entry::{Change, Checksum, Commit, Entry, EntryKind, QueueCursor, SnapshotMark};
pub use replica::{ApplyError, Fold, Position, Replica};
