//! Words, ids, job specs, records, messages and errors of Loom: data only.
//!
//! Everybody depends on this crate and it depends on none of the others. It does no I/O, reads no
//! clock and knows neither tokio nor ractor.
//!
//! | room | what is in it |
//! |---|---|
//! | [`words`] | run states, job status, kinds: the enums everyone speaks in |
//! | [`ids`] | names, slots, run ids, epochs, revisions |
//! | [`units`] | byte sizes, durations and cores, as people write them |
//! | [`spec`] | the job language: its canonical form, and the reader of its three syntaxes |
//! | [`record`] | what the log keeps: jobs, versions, slots and runs, nodes, managers |
//! | [`event`] | what people and triggers are told |
//! | [`wire`] | messages between managers, nodes and clients |
//! | [`subject`] | the names of the bus |
//! | [`error`] | the error every request can be answered with |

pub mod error;
pub mod event;
pub mod ids;
pub mod record;
pub mod spec;
pub mod subject;
pub mod units;
pub mod wire;
pub mod words;
