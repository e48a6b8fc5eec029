//! Tasks: the run's state machine, the task actor, operators and drivers.
//!
//! | room | what is in it |
//! |---|---|
//! | [`health`] | whether a run does its work: a pure watch, and the probes |
//! | [`machine`] | the life of a placement on its node, pure |
//! | [`operator`] | spec in, launch out, pure |
//! | [`launch`] | what an operator makes and a driver runs |
//! | [`driver`] | what runs launches: processes, and `sim` |
//! | [`shim`] | the program between the agent and a process, which outlives the agent |
//! | [`output`] | what a run wrote |
//! | [`private`] | what others on the host see of all that: nothing |
//! | [`actor`] | the task actor: one placement, its commands, its output on the bus |
//! | [`limits`] | how many files an agent and its programs may have open |
//! | [`signals`] | signals as people write them |

pub mod actor;
pub mod driver;
pub mod health;
pub mod launch;
pub mod limits;
pub mod machine;
pub mod operator;
pub mod output;
pub mod private;
pub mod shim;
pub mod signals;

pub use actor::{
    CommandRequest, NodeFacts, NodeLabels, NoticeSender, OpenGate, StartGate, StartPermit,
    TaskArguments, TaskMessage, TaskNotice, TaskRef, Verb, spawn,
};
pub use machine::Progress;
pub use output::LogDirs;
