//! Messages between managers, nodes and clients.
//!
//! Between managers and nodes they are MessagePack maps with field names; clients may use JSON.

mod history;
mod job;
mod machine;
mod node;
mod read;
mod rebalance;
mod task;

use serde::{Deserialize, Serialize};

pub use history::*;
pub use job::*;
pub use machine::*;
pub use node::*;
pub use read::*;
pub use rebalance::*;
pub use task::*;

/// The newest format of log entries and messages that this build reads and writes.
pub const FORMAT: u32 = 1;

/// Who sent a request, as the bus server knows them; never what a payload says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The user, or the account where the server names no user.
    pub user: String,
    /// The server's own words where it gave more (host, client name), for logs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
