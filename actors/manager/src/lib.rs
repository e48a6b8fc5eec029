//! The manager: state, reconcile, scheduler, log writer and the read API.
//!
//! One manager leads and decides; the others stand by warm. Decisions are pure functions, actors
//! carry them out.
//!
//! | room | what is in it |
//! |---|---|
//! | [`state`] | every record of the log, with indexes; a draft of the next commit (pure) |
//! | [`reconcile`] | what has to change in a job's slots, and how a job stands (pure) |
//! | [`depend`] | who waits for whom, and who may start (pure) |
//! | [`subjob`] | tasks that are jobs (pure) |
//! | [`system`] | one of each task on every node that matches (pure) |
//! | [`schedule`] | jobs that run again and again (pure) |
//! | [`child`] | jobs that are made of jobs (pure) |
//! | [`scheduler`] | candidates, score, pick (pure) |
//! | [`plan`] | reconcile and place for what changed; assignments (pure) |
//! | [`decide`] | each request and each fact from a node, as edits of a draft (pure) |
//! | [`view`] | the answers of the read API (pure) |
//! | `standby`, `retry`, `liveness`, `leader/outbox` | when to lead, when to read again, who is silent, who is told what (pure) |
//! | `root` | the actors' tree: follows or leads, restarts what ends |
//! | `follower`, `term` | applies the log, and leads when nobody does |
//! | `leader` | the manager actor and its children |
//! | `serve` | pings, heartbeats and reads |
//! | `snapshotter` | snapshots when they are due |

pub mod child;
pub mod decide;
pub mod depend;
pub mod plan;
pub mod reconcile;
pub mod schedule;
pub mod scheduler;
pub mod state;
pub mod subjob;
pub mod system;
pub mod view;

mod context;
mod follower;
mod leader;
mod liveness;
mod options;
mod retry;
mod root;
mod serve;
mod size;
mod snapshotter;
mod standby;
mod start;
mod term;
mod work;

pub use context::{Part, Unreadable};
pub use options::{Limits, ManagerOptions, Timings};
pub use start::{ManagerHandle, StartError, start};
