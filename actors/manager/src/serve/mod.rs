//! The edge: subjects that every manager serves, whether it leads or not.
//!
//! | room | what is in it |
//! |---|---|
//! | [`door`] | one subject, open as long as it is kept |
//! | [`ping`] | whether this manager lives, answered off every busy path |
//! | [`hearts`] | the nodes' last heartbeats |
//! | [`reads`] | `orch.api.<noun>.<verb>` |

pub(crate) mod discovery;
pub(crate) mod door;
pub(crate) mod hearts;
pub(crate) mod ping;
pub(crate) mod reads;
