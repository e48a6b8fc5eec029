//! Work beside an actor: its handlers never wait for I/O.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use ractor::{ActorRef, Message};
use tokio::task::AbortHandle;

/// Runs `work` beside the actor and tells it the outcome; a panic in it ends the actor, so that
/// supervision takes it up.
pub(crate) fn carry_out<M, T, W>(
    actor: &ActorRef<M>,
    work: W,
    tell: impl FnOnce(T) -> M + Send + 'static,
) -> Worker
where
    M: Message,
    T: Send + 'static,
    W: Future<Output = T> + Send + 'static,
{
    let actor = actor.clone();
    let task = tokio::spawn(async move {
        match AssertUnwindSafe(work).catch_unwind().await {
            // A dead actor's supervisor already knows.
            Ok(outcome) => drop(actor.cast(tell(outcome))),
            Err(_) => actor.kill(),
        }
    });
    Worker(task.abort_handle())
}

/// A task beside an actor. Dropping it ends the task, so it ends with the actor that keeps it.
#[derive(Debug)]
pub(crate) struct Worker(AbortHandle);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.abort();
    }
}
