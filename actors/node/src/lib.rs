//! A node: its assignment, its tasks, its reports and its commands.
//!
//! | room | what is in it |
//! |---|---|
//! | `assignment` | what the node shall have, whose word it takes, what it must do; pure |
//! | `journal` | reports that no leader has acknowledged, folded to one a run; pure |
//! | `link` | which call to the leader comes next, and the cut-off rule; pure |
//! | `ledger` | all of what survives the agent, and each change of it; pure |
//! | `frame`, `store`, `store_error` | the ledger's file: its form, its writer, what can be wrong |
//! | `agent`, `actor` | the actors: the root, the node |
//! | `greeting` | saying hello, in parts where it is large |
//! | `gate` | what lets runs start |
//! | `drivers`, `refusal` | what runs launches here |
//! | `facts`, `usage`, `gpus`, `pids`, `clock` | what the host is and has |
//! | `serve` | the loops between the bus and the node's actor |
//! | `start`, `options` | starting and stopping |

mod actor;
mod agent;
mod assignment;
mod clock;
mod drivers;
mod facts;
mod frame;
mod gate;
mod gpus;
mod greeting;
mod journal;
mod ledger;
mod link;
mod options;
mod pids;
mod refusal;
mod serve;
mod start;
mod store;
mod store_error;
mod usage;

#[cfg(test)]
mod testing;

pub use drivers::docker_answers;
pub use options::{
    BusAccess, CapacityOverride, Limits, NodeOptions, PORTS_FROM, PORTS_TO, TasksOnStop, Timings,
};
pub use start::{NodeHandle, StartError, start};
pub use store_error::StoreError;
pub use usage::host_capacity;
