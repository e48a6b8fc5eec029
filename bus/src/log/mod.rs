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
//! | [`snapshot`] | a state as a file, on the bus and outside it (pure) |
//! | [`store`] | the stream: open, read, catch up, notice that it was rewound |
//! | [`follow`] | entries as they come |
//! | [`writer`] | leading and appending |
//! | [`snapshots`] | snapshots in their bucket; what they make needless |
//! | [`restore`] | giving a log its state back |
//!
//! A standby: [`Log::catch_up`], then [`Log::follow`] and [`Log::apply`] what comes; when it is
//! [`Behind`](Followed::Behind), catch up and follow anew. Taking over: stop following,
//! [`Log::catch_up`], [`Log::lead`]. A leader: [`Writer::append`] what a [`Gatherer`] holds, apply
//! each [`Committed`] to its replica, hand it to the relay of events, then carry out the effects.

pub mod batch;
mod bulk;
pub mod entry;
pub mod follow;
mod objects;
pub mod replica;
pub mod restore;
pub mod snapshot;
pub mod snapshots;
mod start;
pub mod store;
pub mod writer;

#[cfg(test)]
mod tests;

pub use batch::{Batch, Gatherer, TooLarge};
pub use entry::{Change, Checksum, Commit, Entry, EntryKind, QueueCursor, SnapshotMark};
pub use follow::{Followed, Follower};
pub use replica::{ApplyError, Committed, Fold, Position, Replica};
pub use restore::Floor;
pub use snapshots::{SnapshotError, Snapshots};
pub use store::{Extent, Log, LogError, LogOptions};
pub use writer::{AppendError, Writer};
