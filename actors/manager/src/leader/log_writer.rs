//! The log writer: one append outstanding, and after it the state as all managers have it.

use std::time::Duration;

use loom_bus::log::{AppendError, Commit, Committed, Replica, SnapshotMark, Writer};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::ManagerMessage;
use crate::context::{Context, Part};
use crate::state::State;
use crate::work::{Worker, carry_out};

/// Appends to the log.
pub(crate) struct LogWriter;

/// What the log writer starts from.
pub(crate) struct LogWriterArguments {
    pub(crate) context: Context,
    pub(crate) manager: ActorRef<ManagerMessage>,
    pub(crate) writer: Writer,
    pub(crate) replica: Replica<State>,
}

/// What the log writer is told. The manager sends the next order once the last was answered.
pub(crate) enum LogWriterMessage {
    /// Append this.
    Append(Box<Commit>),
    /// Append that a snapshot was taken.
    AppendSnapshot(Box<SnapshotMark>),
    /// The append came to this.
    Appended(Box<(Bench, Result<Option<Committed>, AppendError>)>),
}

/// An append that is durable.
#[derive(Clone, Debug)]
pub(crate) struct Landed {
    /// The entry; none if there was nothing to append.
    pub(crate) committed: Option<Committed>,
    /// The state with it.
    pub(crate) replica: Replica<State>,
}

/// What an append needs; it travels with the work and comes back.
pub(crate) struct Bench {
    writer: Writer,
    replica: Replica<State>,
}

/// Keeps the bench while nothing is appended, and the work while something is.
pub(crate) struct LogWriterState {
    manager: ActorRef<ManagerMessage>,
    bench: Option<Bench>,
    work: Option<Worker>,
}

impl Actor for LogWriter {
    type Msg = LogWriterMessage;
    type State = LogWriterState;
    type Arguments = LogWriterArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let LogWriterArguments {
            context,
            manager,
            writer,
            replica,
        } = arguments;
        context.parts.put(Part::LogWriter, myself.get_cell());
        Ok(LogWriterState {
            manager,
            bench: Some(Bench { writer, replica }),
            work: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            LogWriterMessage::Append(commit) => {
                let bench = state.take_bench()?;
                state.work = Some(carry_out(&myself, bench.append(*commit), appended));
            }
            LogWriterMessage::AppendSnapshot(mark) => {
                let bench = state.take_bench()?;
                state.work = Some(carry_out(&myself, bench.append_snapshot(*mark), appended));
            }
            LogWriterMessage::Appended(outcome) => {
                state.work = None;
                let (bench, appended) = *outcome;
                let landed = appended.map(|committed| Landed {
                    committed,
                    replica: bench.replica.clone(),
                });
                state.bench = Some(bench);
                drop(state.manager.cast(ManagerMessage::Landed(Box::new(landed))));
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

impl LogWriterState {
    fn take_bench(&mut self) -> Result<Bench, ActorProcessingErr> {
        self.bench
            .take()
            .ok_or_else(|| "two appends at once were asked for".into())
    }
}

impl Bench {
    async fn append(mut self, commit: Commit) -> (Self, Result<Option<Committed>, AppendError>) {
        let appended = self.writer.append(commit).await;
        self.apply(appended.map(Some)).await
    }

    async fn append_snapshot(
        mut self,
        mark: SnapshotMark,
    ) -> (Self, Result<Option<Committed>, AppendError>) {
        let appended = self.writer.snapshot(mark).await;
        self.apply(appended).await
    }

    /// Takes the entry into the state as every other manager will.
    async fn apply(
        mut self,
        mut appended: Result<Option<Committed>, AppendError>,
    ) -> (Self, Result<Option<Committed>, AppendError>) {
        // Without room halfway an append may still land: nothing goes on before that is known.
        while self.writer.is_unresolved() {
            match self.writer.settle().await {
                Ok(committed) => appended = Ok(committed),
                Err(error) => appended = Err(error),
            }
            if self.writer.is_unresolved() {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
        if let Ok(Some(committed)) = &appended
            && let Err(error) = self.replica.apply_committed(committed)
        {
            // Our own entry on our own state: the chain is broken, so somebody else must look.
            tracing::error!(%error, "an entry of our own cannot be applied");
            appended = Err(AppendError::Deposed { by: None });
        }
        (self, appended)
    }
}

fn appended(outcome: (Bench, Result<Option<Committed>, AppendError>)) -> LogWriterMessage {
    LogWriterMessage::Appended(Box::new(outcome))
}
