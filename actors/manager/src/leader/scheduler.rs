//! The scheduler: plans on a clone of the state, off the I/O threads and off the manager's path.

use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::{Revision, RunId};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use uuid::Uuid;

use super::ManagerMessage;
use crate::context::{Context, Part};
use crate::plan::{PlanOptions, Planned, plan_on};
use crate::scheduler::Cluster;
use crate::state::{CodecError, Decided, Draft, State};
use crate::work::{Worker, carry_out};

/// At most so many slots are changed in one pass: what a request has to wait for at most.
pub(super) const SLOTS_OF_A_PASS: usize = 256;

/// Plans.
pub(crate) struct Scheduler;

/// What the scheduler starts from.
pub(crate) struct SchedulerArguments {
    pub(crate) context: Context,
    pub(crate) manager: ActorRef<ManagerMessage>,
}

/// What the scheduler is told. The manager sends the next order once the last was answered.
pub(crate) enum SchedulerMessage {
    /// Plan what changed in this state.
    Plan {
        state: Box<State>,
        /// The last durable entry in it.
        revision: Revision,
        /// Runs of nodes that are down for so long are lost.
        lost_after: Duration,
        /// What was made before may have ended without this manager knowing.
        unheard_before: Option<Timestamp>,
        /// At most so many slots are changed.
        slots: usize,
    },
    /// The pass came to this.
    Planned(Box<(Pass, Cluster)>),
}

/// What a pass came to.
pub(crate) struct Pass {
    /// The edits.
    pub(crate) decided: Result<Decided, CodecError>,
    /// What it left.
    pub(crate) planned: Planned,
}

/// Keeps the pass under way.
pub(crate) struct SchedulerState {
    context: Context,
    manager: ActorRef<ManagerMessage>,
    work: Option<Worker>,
    /// The nodes as the last pass left them; with the pass under way.
    cluster: Option<Cluster>,
}

impl Actor for Scheduler {
    type Msg = SchedulerMessage;
    type State = SchedulerState;
    type Arguments = SchedulerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let SchedulerArguments { context, manager } = arguments;
        context.parts.put(Part::Scheduler, myself.get_cell());
        Ok(SchedulerState {
            context,
            manager,
            work: None,
            cluster: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SchedulerMessage::Plan {
                state: cluster,
                revision,
                lost_after,
                unheard_before,
                slots,
            } => {
                let options = PlanOptions {
                    strategy: state.context.options.strategy,
                    lost_after,
                    unheard_before,
                    slots,
                    revision,
                    measured: state.context.hearts.cores(),
                };
                let nodes = state.cluster.take();
                let mut nodes = nodes.unwrap_or_else(|| Cluster::empty(options.strategy));
                let pass = tokio::task::spawn_blocking(move || {
                    let pass = pass(*cluster, &mut nodes, &options);
                    (pass, nodes)
                });
                let work = async move {
                    match pass.await {
                        Ok(pass) => pass,
                        // Planning panicked: so does this actor, and its supervisor starts another.
                        Err(error) => std::panic::resume_unwind(error.into_panic()),
                    }
                };
                let tell = |pass| SchedulerMessage::Planned(Box::new(pass));
                state.work = Some(carry_out(&myself, work, tell));
            }
            SchedulerMessage::Planned(done) => {
                let (pass, cluster) = *done;
                state.work = None;
                state.cluster = Some(cluster);
                drop(state.manager.cast(ManagerMessage::Planned(Box::new(pass))));
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        _: SupervisionEvent,
        _: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

fn pass(state: State, cluster: &mut Cluster, options: &PlanOptions) -> Pass {
    let mut draft = Draft::new(state);
    let mut ids = || RunId(Uuid::now_v7());
    let planned = plan_on(cluster, &mut draft, Timestamp::now(), options, &mut ids);
    Pass {
        decided: draft.finish(),
        planned,
    }
}
