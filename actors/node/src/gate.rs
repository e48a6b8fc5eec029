//! What lets runs start: the cut-off rule, the disk, and how many start at once.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use loom_task::{Progress, StartGate, StartPermit};
use ractor::ActorRef;
use tokio::sync::{Semaphore, watch};

use crate::actor::NodeMessage;
use crate::clock;

/// The gate of one driver of a node; all its tasks share it.
pub(crate) struct Gate {
    /// Writes down the runs that no leader knows yet.
    pub(crate) node: ActorRef<NodeMessage>,
    /// Until when runs may start, since boot; none: not at all.
    pub(crate) until: watch::Receiver<Option<Duration>>,
    /// A permit a start; none where starts cost nothing.
    pub(crate) starts: Option<Arc<Semaphore>>,
}

impl StartGate for Gate {
    fn enter(&self, progress: Progress) -> BoxFuture<'static, StartPermit> {
        let node = self.node.clone();
        let until = self.until.clone();
        let starts = self.starts.clone();
        Box::pin(async move {
            if progress.run != progress.placement || progress.restart > 0 {
                written_down(&node, progress).await;
            }
            permitted(until, starts).await
        })
    }
}

/// Resolves once the node has the run on disk.
async fn written_down(node: &ActorRef<NodeMessage>, progress: Progress) {
    let asked = node
        .call(
            |kept| NodeMessage::RunBegins {
                progress: Box::new(progress),
                kept,
            },
            None,
        )
        .await;
    let kept = matches!(asked, Ok(answer) if answer.is_success());
    if !kept {
        // The node's actor is gone, and its tasks' actors go with it.
        std::future::pending::<()>().await;
    }
}

/// Resolves once a run may start and has a permit; looks at the clock again after each wait.
async fn permitted(
    mut until: watch::Receiver<Option<Duration>>,
    starts: Option<Arc<Semaphore>>,
) -> StartPermit {
    loop {
        let open = until.wait_for(|until| until.is_some_and(|until| clock::since_boot() < until));
        if open.await.is_err() {
            return std::future::pending().await;
        }
        let Some(starts) = &starts else {
            return StartPermit::free();
        };
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(starts).acquire_owned().await else {
            continue;
        };
        if until
            .borrow()
            .is_some_and(|until| clock::since_boot() < until)
        {
            return StartPermit::holding(permit);
        }
    }
}
