//! Carrying out what the machine asks for.

use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use loom_schemas::ids::RunId;
use loom_schemas::spec::Resources;
use nix::sys::signal::Signal;
use ractor::ActorRef;
use tokio::time::Instant;

use super::background::{Background, caught};
use super::message::{StartPermit, TaskMessage, TaskNotice};
use super::{Internal, Returned, State};
use crate::driver::{Adopted, DriverError};
use crate::launch::Launch;
use crate::machine::{Call, Happened, StartError};
use crate::operator::{self, Place};

/// The pause between two looks at what the files of a run take.
const MEASURE_EVERY: Duration = Duration::from_secs(2);

/// A look is followed by a pause of so many times what it took.
const MEASURE_REST: u32 = 20;

/// The longest that changing the limits of a run may take.
const RESIZING: Duration = Duration::from_secs(30);

/// The longest that ending and removing what is left of a run may take.
const CLEANING: Duration = Duration::from_secs(30);

impl State {
    /// Carries out calls until the machine waits, then sees to everything that follows from where
    /// it stands: addresses, output, the end.
    pub(super) async fn go_on(&mut self, myself: &ActorRef<TaskMessage>) {
        loop {
            let call = self.machine.next_call(&self.assigned, self.clock());
            if let Call::Wait { until } = call {
                self.set_timer(until, myself);
                break;
            }
            self.happen(Happened::Called(call.clone()));
            self.perform(call, myself).await;
        }
        // What may not start any longer gives its place at the gate back.
        self.permit = None;
        if !self.machine.is_entering() {
            self.gate = None;
        }
        if !self.machine.is_preparing() {
            self.preparing = None;
        }
        if self.machine.is_running() {
            self.wait_for_end(myself);
            self.ship_running(myself);
        }
        self.measure_disk(myself);
        self.check_health(myself);
        self.refresh_addresses(myself);
        self.shipping.retain(|_, shipping| !shipping.is_done());
        self.end_if_forgotten(myself);
    }

    /// Takes back the outcome of a driver call.
    pub(super) fn returned(&mut self, happened: Happened, myself: &ActorRef<TaskMessage>) {
        // What ended while no agent watched has output that nobody shipped.
        let unshipped = match &happened {
            Happened::Adopted(
                run,
                Ok(Adopted::Ended {
                    started: Some(started),
                    ..
                }),
            ) => started.directory.clone().map(|directory| (*run, directory)),
            _ => None,
        };
        if let Happened::Ended(run, _) = &happened
            && self
                .waiting
                .as_ref()
                .is_some_and(|(waiting, _)| waiting == run)
        {
            self.waiting = None;
        }
        self.happen(happened);
        if let Some((run, directory)) = unshipped {
            self.ship(run, directory, myself);
        }
    }

    pub(super) fn entered(&mut self, entry: (RunId, u32), permit: StartPermit) {
        if self
            .gate
            .as_ref()
            .is_some_and(|(waiting, _)| *waiting == entry)
        {
            self.gate = None;
            self.permit = Some(permit);
            self.happen(Happened::Entered(entry.0));
        }
    }

    async fn perform(&mut self, call: Call, myself: &ActorRef<TaskMessage>) {
        match call {
            Call::Wait { .. } => {}
            Call::Prepare { run } => self.prepare(run, myself),
            Call::Enter { run } => self.enter(run, myself).await,
            Call::Start { run } => self.start(run, myself),
            Call::Adopt { run } => {
                let driver = self.driver.clone();
                cast_outcome(myself, async move {
                    let outcome = caught(driver.adopt(run)).await;
                    let outcome =
                        outcome.and_then(|outcome| outcome.map_err(|error| chain(&error)));
                    match &outcome {
                        Ok(_) => tracing::info!(%run, "taken over"),
                        Err(error) => tracing::warn!(%run, "a run is not taken over yet: {error}"),
                    }
                    Happened::Adopted(run, outcome)
                });
            }
            Call::Signal { run, signal, tree } => self.send_signal(run, signal, tree),
            Call::Resize { run, wanted } => self.resize(run, wanted, myself),
            Call::Resume { run } => {
                let driver = self.driver.clone();
                tokio::spawn(async move {
                    if let Ok(Err(error)) = caught(driver.resume(run)).await {
                        tracing::warn!(%run, "a run that shall end was not thawed: {error}");
                    }
                });
            }
            Call::Release { run, kill } => self.release(run, kill),
            Call::Remove { run } => self.remove_files(run),
        }
    }

    /// Asks the node whether the run may start; an open gate costs no detour.
    async fn enter(&mut self, run: RunId, myself: &ActorRef<TaskMessage>) {
        let progress = self.machine.progress();
        let entry = (run, progress.restart);
        let mut permit = self.may_start.enter(progress);
        if let Poll::Ready(permit) = futures::poll!(&mut permit) {
            self.permit = Some(permit);
            self.happen(Happened::Entered(run));
            return;
        }
        let myself = myself.clone();
        let waiting = Background::spawn(async move {
            let entered = Returned::Entered(entry, permit.await);
            let _ = myself.cast(TaskMessage::Internal(Internal(entered)));
        });
        self.gate = Some((entry, waiting));
    }

    /// Ended with the need for it, unlike a start.
    fn prepare(&mut self, run: RunId, myself: &ActorRef<TaskMessage>) {
        let launch = match self.launch(run) {
            Ok(launch) => launch,
            Err(error) => return self.happen(Happened::Prepared(run, Err(error))),
        };
        let driver = self.driver.clone();
        let myself = myself.clone();
        self.preparing = Some(Background::spawn(async move {
            let listener = myself.clone();
            let tell = Box::new(move |doing| cast(&listener, Happened::Preparing(run, doing)));
            let outcome = match caught(driver.prepare(launch, tell)).await {
                Ok(outcome) => outcome.map_err(|error| start_error(&error)),
                Err(panic) => Err(StartError::Failed(panic)),
            };
            cast(&myself, Happened::Prepared(run, outcome));
        }));
    }

    fn launch(&self, run: RunId) -> Result<Launch, StartError> {
        let labels = self.node.labels.get();
        let place = Place {
            node: &self.node.name,
            address: &self.node.address,
            labels: &labels,
            log_dirs: &self.node.log_dirs,
        };
        operator::launch(&self.assigned, run, place)
            .map_err(|error| StartError::Rejected(chain(&error)))
    }

    fn start(&mut self, run: RunId, myself: &ActorRef<TaskMessage>) {
        let permit = self.permit.take();
        let launch = match self.launch(run) {
            Ok(launch) => launch,
            Err(error) => return self.happen(Happened::Started(run, Err(error))),
        };
        self.machine.fill(launch.filled.clone());
        let driver = self.driver.clone();
        self.refresh_addresses(myself);
        let subscribed = self.addresses.subscribed();
        cast_outcome(myself, async move {
            let outcome = match caught(driver.start(launch)).await {
                Ok(outcome) => outcome.map_err(|error| start_error(&error)),
                Err(panic) => Err(StartError::Failed(panic)),
            };
            drop(permit);
            subscribed.await;
            Happened::Started(run, outcome)
        });
    }

    fn wait_for_end(&mut self, myself: &ActorRef<TaskMessage>) {
        let run = self.machine.run();
        if self
            .waiting
            .as_ref()
            .is_some_and(|(waiting, _)| *waiting == run)
        {
            return;
        }
        let driver = self.driver.clone();
        let myself = myself.clone();
        let waiting = Background::spawn(async move {
            let outcome = caught(driver.wait(run)).await;
            let outcome = outcome.and_then(|outcome| outcome.map_err(|error| chain(&error)));
            if let Err(error) = &outcome {
                tracing::warn!(%run, "the end of a run is not watched: {error}");
            }
            cast(&myself, Happened::Ended(run, outcome));
        });
        self.waiting = Some((run, waiting));
    }

    /// Looks again and again at what the files of a run take that may take only so much.
    fn measure_disk(&mut self, myself: &ActorRef<TaskMessage>) {
        let run = self.machine.run();
        let resources = self.assigned.task.resources_of(&self.assigned.slot.index);
        if !self.machine.is_running() || resources.disk.0 == 0 {
            self.measuring = None;
            return;
        }
        if self.measuring.as_ref().is_some_and(|(of, _)| *of == run) {
            return;
        }
        let driver = self.driver.clone();
        let myself = myself.clone();
        let measuring = Background::spawn(async move {
            loop {
                let begun = Instant::now();
                if let Ok(Ok(Some(taken))) = caught(driver.disk(run)).await {
                    cast(&myself, Happened::Measured(run, taken));
                }
                // A look at very many files is taken more seldom.
                let pause = MEASURE_EVERY.max(begun.elapsed() * MEASURE_REST);
                tokio::time::sleep(pause).await;
            }
        });
        self.measuring = Some((run, measuring));
    }

    /// Has the driver hold the run to other limits; it must go on even if this actor is lost.
    fn resize(&self, run: RunId, wanted: Resources, myself: &ActorRef<TaskMessage>) {
        let driver = self.driver.clone();
        let myself = myself.clone();
        tokio::spawn(async move {
            let called = tokio::time::timeout(RESIZING, caught(driver.resize(run, wanted.clone())));
            let outcome = match called.await {
                Ok(Ok(Ok(notes))) => Ok(notes),
                Ok(Ok(Err(DriverError::Ended(_)))) => Err(None),
                Ok(Ok(Err(error))) => Err(Some(chain(&error))),
                Ok(Err(panic)) => Err(Some(panic)),
                Err(_) => Err(Some(format!(
                    "the driver did not answer within {RESIZING:?}"
                ))),
            };
            match &outcome {
                Ok(_) => tracing::info!(%run, "held to other limits"),
                Err(Some(error)) => tracing::warn!(%run, "not held to other limits: {error}"),
                Err(None) => {}
            }
            cast(&myself, Happened::Resized(run, wanted, outcome));
        });
    }

    fn send_signal(&self, run: RunId, signal: Signal, tree: bool) {
        let driver = self.driver.clone();
        // A start under way may not be known to the driver yet; the signal is sent again.
        tokio::spawn(async move {
            match caught(driver.signal(run, signal, tree)).await {
                Ok(Ok(()) | Err(DriverError::Ended(_) | DriverError::NotFound(_))) => {}
                Ok(Err(error)) => {
                    let error = chain(&error);
                    tracing::warn!(%run, %signal, "a signal was not sent: {error}");
                }
                Err(panic) => tracing::error!(%run, %signal, "a signal was not sent: {panic}"),
            }
        });
    }

    fn release(&self, run: RunId, kill: bool) {
        let driver = self.driver.clone();
        tokio::spawn(async move {
            let released = caught(async {
                if kill {
                    // Nothing may be left of a start that failed half-way.
                    let _ = driver.signal(run, Signal::SIGKILL, true).await;
                }
                driver.remove(run, false).await
            });
            log_cleaning(run, tokio::time::timeout(CLEANING, released).await);
        });
    }

    fn remove_files(&mut self, run: RunId) {
        let driver = self.driver.clone();
        let shipping = self.shipping.remove(&run);
        tokio::spawn(async move {
            if let Some(shipping) = shipping {
                shipping.finish().await;
            }
            let removed = caught(driver.remove(run, true));
            log_cleaning(run, tokio::time::timeout(CLEANING, removed).await);
        });
    }

    /// Ends the actor once the placement is forgotten and its output shipped.
    fn end_if_forgotten(&mut self, myself: &ActorRef<TaskMessage>) {
        let Some(until) = self.forgetting else {
            return;
        };
        if !self.shipping.is_empty() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            let at = self.clock() + left;
            self.set_timer(Some(at), myself);
            return;
        }
        let runs = self.machine.kept().to_vec();
        let driver = self.driver.clone();
        let notices = self.notices.clone();
        let placement = self.assigned.placement;
        tokio::spawn(async move {
            for run in runs {
                let removed = caught(driver.remove(run, true));
                log_cleaning(run, tokio::time::timeout(CLEANING, removed).await);
            }
            notices.send(TaskNotice::Forgotten { placement });
        });
        myself.stop(None);
    }

    fn set_timer(&mut self, until: Option<Duration>, myself: &ActorRef<TaskMessage>) {
        let Some(until) = until else {
            self.timer = None;
            return;
        };
        if self.timer.as_ref().is_some_and(|(at, _)| *at == until) {
            return;
        }
        // A time beyond the clock's reach never comes.
        let Some(at) = self.origin.checked_add(until) else {
            self.timer = None;
            return;
        };
        let myself = myself.clone();
        let timer = Background::spawn(async move {
            tokio::time::sleep_until(at).await;
            cast(&myself, Happened::Passed);
        });
        self.timer = Some((until, timer));
    }
}

/// Spawns a driver call that must go on even if this actor is lost meanwhile.
fn cast_outcome(
    myself: &ActorRef<TaskMessage>,
    call: impl Future<Output = Happened> + Send + 'static,
) {
    let myself = myself.clone();
    tokio::spawn(async move { cast(&myself, call.await) });
}

fn cast(actor: &ActorRef<TaskMessage>, happened: Happened) {
    // Nobody is left to tell if the actor is gone; the next one adopts.
    let happened = Returned::Happened(Box::new(happened));
    let _ = actor.cast(TaskMessage::Internal(Internal(happened)));
}

fn start_error(error: &DriverError) -> StartError {
    match error {
        DriverError::Rejected(_) | DriverError::Unsupported(_) => {
            StartError::Rejected(chain(error))
        }
        DriverError::Ended(_) | DriverError::Uncertain(_) => StartError::Known,
        DriverError::NotFound(_) | DriverError::Unavailable(_) | DriverError::Failed { .. } => {
            StartError::Failed(chain(error))
        }
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

type Cleaned = Result<Result<Result<(), DriverError>, String>, tokio::time::error::Elapsed>;

fn log_cleaning(run: RunId, outcome: Cleaned) {
    let error = match outcome {
        Ok(Ok(Ok(()) | Err(DriverError::NotFound(_)))) => return,
        Ok(Ok(Err(error))) => chain(&error),
        Ok(Err(panic)) => panic,
        Err(_) => format!("it took more than {CLEANING:?}"),
    };
    tracing::warn!(%run, "what is left of a run was not removed: {error}");
}
