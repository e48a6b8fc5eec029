//! The task actor.

mod message;
mod verb;

use ractor::{ActorCell, SpawnErr};

pub use message::{
    CommandRequest, NodeFacts, NoticeSender, OpenGate, StartGate, StartPermit, TaskArguments,
    TaskMessage, TaskNotice, TaskRef,
};
pub use verb::Verb;

/// Something a task actor started has come back to it; made by the actor alone.
pub struct Internal(());

/// Starts the actor of a placement under the node's actor.
pub async fn spawn(arguments: TaskArguments, supervisor: ActorCell) -> Result<TaskRef, SpawnErr> {
    let _ = (arguments, supervisor);
    Err(SpawnErr::ActorAlreadyStarted)
}
