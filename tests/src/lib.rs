//! What the tests of the whole program share: clusters as processes, `loomctl` as a user types it,
//! a NATS client that is not ours, waiting for conditions.

pub mod cgroup;
pub mod cluster;
pub mod docker;
pub mod figure;
pub mod hosts;
pub mod nats;
pub mod parts;
pub mod skip;
pub mod wait;
