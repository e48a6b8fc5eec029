//! One file a verb, all its forms together.

pub(crate) mod bus;
pub(crate) mod completion;
pub(crate) mod dispatch;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod history;
pub(crate) mod logs;
pub(crate) mod managers;
pub(crate) mod node_orders;
pub(crate) mod nodes;
pub(crate) mod plan;
pub(crate) mod rebalance;
pub(crate) mod restart;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod schema;
pub(crate) mod selection;
pub(crate) mod signal;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod update;
pub(crate) mod validate;
pub(crate) mod version;
