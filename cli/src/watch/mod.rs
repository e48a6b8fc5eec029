//! What goes on: output and events as they come, without a gap and without a line twice.
//!
//! A subscription drops what is published while the connection is away. So what comes is held
//! against what was seen, and what is missing is read from the history before anything later is
//! shown.

pub(crate) mod events;
pub(crate) mod live;
pub(crate) mod output;
pub(crate) mod printer;
pub(crate) mod scope;
