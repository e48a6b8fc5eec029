//! The root of a node's actors: keeps what must survive the node's actor, and starts that one
//! again, from disk, if it ends unasked.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;

use crate::actor::{Context, NodeActor, NodeMessage};
use crate::ledger::Ledger;
use crate::options::TasksOnStop;
use crate::store_error::StoreError;

/// The pause before the node's actor is started a second time in a row; it doubles.
const RESTART: Duration = Duration::from_millis(100);

/// The longest such pause.
const RESTART_MAX: Duration = Duration::from_secs(10);

/// A node's actor that lived so long ends for a new reason.
const RESTART_FORGOTTEN: Duration = Duration::from_mins(1);

/// What the root is told.
#[derive(Debug)]
pub(crate) enum AgentMessage {
    /// What is on disk was read, to start the node's actor from it.
    Reloaded(Result<Box<Ledger>, StoreError>),
    /// Start the node's actor from what is on disk.
    RestartDue,
    /// End the node.
    Leave(TasksOnStop),
}

/// The root.
pub(crate) struct Agent;

/// What the root knows.
pub(crate) struct State {
    context: Arc<Context>,
    node: Option<ActorRef<NodeMessage>>,
    leaving: Option<TasksOnStop>,
    crashes: u32,
    started_at: Instant,
}

impl Actor for Agent {
    type Msg = AgentMessage;
    type State = State;
    type Arguments = (Arc<Context>, Ledger);

    async fn pre_start(
        &self,
        myself: ActorRef<AgentMessage>,
        (context, ledger): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        // Linked by the first message: before this returns a child's supervisor is not running.
        myself.cast(AgentMessage::Reloaded(Ok(Box::new(ledger))))?;
        Ok(State {
            context,
            node: None,
            leaving: None,
            crashes: 0,
            started_at: Instant::now(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<AgentMessage>,
        message: AgentMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            AgentMessage::Reloaded(Ok(ledger)) => {
                let arguments = (Arc::clone(&state.context), *ledger);
                let cell = myself.get_cell();
                match Actor::spawn_linked(None, NodeActor, arguments, cell).await {
                    Ok((node, _)) => state.started(node),
                    Err(error) => state.restart_later(&myself, &error.to_string()),
                }
            }
            AgentMessage::Reloaded(Err(error)) => {
                state.restart_later(&myself, &error.to_string());
            }
            AgentMessage::RestartDue => {
                let store = state.context.store.clone();
                tokio::spawn(async move {
                    let ledger = store.reload().await.map(Box::new);
                    // A root that is gone restarts nothing.
                    let _ = myself.cast(AgentMessage::Reloaded(ledger));
                });
            }
            AgentMessage::Leave(tasks) => {
                state.leaving = Some(tasks);
                state.pass_on_leave();
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<AgentMessage>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(_, _, reason) => {
                state.ended(&myself, reason.as_deref().unwrap_or("it stopped"));
            }
            SupervisionEvent::ActorFailed(_, error) => {
                state.ended(&myself, &error.to_string());
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

impl State {
    fn started(&mut self, node: ActorRef<NodeMessage>) {
        self.node = Some(node);
        self.started_at = Instant::now();
        self.pass_on_leave();
    }

    fn pass_on_leave(&self) {
        if let (Some(node), Some(tasks)) = (&self.node, self.leaving) {
            // One that is gone is started again, and told then.
            let _ = node.cast(NodeMessage::Leave(tasks));
        }
    }

    fn ended(&mut self, myself: &ActorRef<AgentMessage>, reason: &str) {
        self.node = None;
        let over = self.context.phase.borrow().is_over();
        if over {
            myself.stop(None);
        } else {
            self.restart_later(myself, reason);
        }
    }

    fn restart_later(&mut self, myself: &ActorRef<AgentMessage>, reason: &str) {
        if self.started_at.elapsed() > RESTART_FORGOTTEN {
            self.crashes = 0;
        }
        let pause = match self.crashes {
            0 => Duration::ZERO,
            crashes => RESTART
                .saturating_mul(1 << (crashes - 1).min(16))
                .min(RESTART_MAX),
        };
        self.crashes = self.crashes.saturating_add(1);
        let node = &self.context.name;
        tracing::error!(%node, reason, ?pause, "the node's actor ended, starting another");
        myself.send_after(pause, || AgentMessage::RestartDue);
    }
}
