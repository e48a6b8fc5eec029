//! The follower: applies the log while this manager stands by, and leads when nobody does.
//!
//! The loop runs beside the actor, which keeps it and tells its supervisor what came of it.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Fuse};
use loom_bus::connection::{BusError, Messages};
use loom_bus::log::{Followed, Log, LogError, Replica};
use loom_bus::stream::StreamError;
use loom_schemas::ids::{Epoch, Name};
use loom_schemas::subject;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::MissedTickBehavior;

use crate::context::{Context, Part, Unreadable};
use crate::retry::{Obstacle, Retry};
use crate::root::RootMessage;
use crate::serve::ping;
use crate::standby::{Cause, Pinged, Watch};
use crate::state::State;
use crate::term::{Elected, Race, restore, restore_for_nodes, run_for_leader};
use crate::work::{Worker, carry_out};

/// A leader that was quiet for so long is asked whether it lives.
const QUIET: Duration = Duration::from_millis(500);

/// Applies the log.
pub(crate) struct Follower;

/// What the follower starts from.
pub(crate) struct FollowerArguments {
    pub(crate) context: Context,
    pub(crate) root: ActorRef<RootMessage>,
    /// No attempt to lead before.
    pub(crate) not_before: Instant,
}

/// What the follower is told.
pub(crate) enum FollowerMessage {
    /// Its loop ended: this manager leads.
    Elected(Box<Elected>),
}

/// Keeps the loop.
pub(crate) struct FollowerState {
    root: ActorRef<RootMessage>,
    _loop: Worker,
}

impl Actor for Follower {
    type Msg = FollowerMessage;
    type State = FollowerState;
    type Arguments = FollowerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let FollowerArguments {
            context,
            root,
            not_before,
        } = arguments;
        context.parts.put(Part::Follower, myself.get_cell());
        let standing_by = stand_by(context, not_before);
        let tell = |elected| FollowerMessage::Elected(Box::new(elected));
        Ok(FollowerState {
            root,
            _loop: carry_out(&myself, standing_by, tell),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let FollowerMessage::Elected(elected) = message;
        drop(state.root.cast(RootMessage::Elected(elected)));
        myself.stop(None);
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

/// Follows the log until this manager leads; trouble is waited out.
async fn stand_by(context: Context, not_before: Instant) -> Elected {
    let mut replica = context.view().replica;
    let mut said = String::new();
    let mut retry = Retry::default();
    loop {
        if let Some(loss) = context.take_loss()
            && let Err(error) = restore_for_nodes(&context, &mut replica, &loss).await
        {
            // Nodes say it again to whoever leads next.
            tracing::warn!("the log is not given a later life: {}", chain(&error));
        }
        let error = match follow(&context, &mut replica, not_before).await {
            Ok(elected) => return elected,
            Err(error) => error,
        };
        // The same trouble is told once, not four times a second.
        let now = chain(&error);
        if now != said {
            tracing::warn!("this manager cannot stand by: {now}");
            said = now;
        }
        let obstacle = error.obstacle();
        let next = retry.next(obstacle, replica.position.sequence);
        if next.is_hopeless {
            let newer = obstacle == Obstacle::Newer;
            context.cannot_begin(Unreadable::new(newer, error.cause()));
        }
        if next.reload {
            replica = Replica::default();
        }
        if error.wants_streams()
            && let Err(error) = open_log(&context).await
        {
            tracing::warn!("the log is gone and cannot be made anew: {}", chain(&error));
        }
        if error.wants_restore() {
            // Whoever waits for the log's state gets it from others, or from a person.
            context.begun();
            match restore(&context, &mut replica).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!("the log is not given its state back: {}", chain(&error));
                }
            }
        }
        tokio::time::sleep(next.pause).await;
    }
}

/// Why following stopped.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("the log cannot be followed")]
    Log(#[from] LogError),
    #[error("managers that hand over cannot be heard")]
    Bus(#[from] BusError),
}

impl FollowError {
    /// What stands in the way.
    fn obstacle(&self) -> Obstacle {
        match self {
            Self::Log(error) => Obstacle::of(error),
            Self::Bus(_) => Obstacle::Other,
        }
    }

    /// What is said to whoever starts a manager on such a log.
    fn cause(&self) -> String {
        match self {
            Self::Log(LogError::Apply(error)) => chain(error),
            Self::Log(error) => chain(error),
            Self::Bus(error) => chain(error),
        }
    }

    /// Whether the stream itself is gone: an empty one is what a state can be given back to.
    fn wants_streams(&self) -> bool {
        matches!(self, Self::Log(LogError::Stream(StreamError::NoStream(_))))
    }

    /// Whether the log lost what was known: nothing is applied or appended before it has it back.
    fn wants_restore(&self) -> bool {
        matches!(
            self,
            Self::Log(LogError::Rewound { .. } | LogError::Recovering { .. })
        )
    }
}

/// Makes the log's stream again; the log that is shared finds it under its name.
async fn open_log(context: &Context) -> Result<(), LogError> {
    Log::open(&context.reader, context.log.options().clone())
        .await
        .map(drop)
}

async fn follow(
    context: &Context,
    replica: &mut Replica<State>,
    not_before: Instant,
) -> Result<Elected, FollowError> {
    let byes = context.control.subscribe(subject::BYES_ALL).await?;
    let mut standing = Standing {
        context,
        byes,
        not_before,
        ask_from: Instant::now(),
    };
    loop {
        context.log.catch_up(replica).await?;
        context.publish(replica.clone());
        context.begun();
        let Some(cause) = standing.watch(replica).await? else {
            // The consumer says that it cannot go on: begin anew from the stream.
            continue;
        };
        match run_for_leader(context, replica, cause).await? {
            Race::Won(elected) => return Ok(*elected),
            // The winner may not know yet that it leads, so it would say that it does not.
            Race::Lost => standing.ask_from = Instant::now() + context.options.timings.back_off,
        }
    }
}

/// What a standby listens to.
struct Standing<'a> {
    context: &'a Context,
    byes: Messages,
    not_before: Instant,
    /// The leader is not asked before.
    ask_from: Instant,
}

/// A ping under way, and of which epoch the leader is that is asked.
type Pinging = Fuse<BoxFuture<'static, (Epoch, Pinged)>>;

impl Standing<'_> {
    /// Applies entries until there is cause to lead; none if the log has to be caught up with.
    async fn watch(&mut self, replica: &mut Replica<State>) -> Result<Option<Cause>, FollowError> {
        let options = &self.context.options;
        let mut entries = self
            .context
            .log
            .follow(options.name.as_str(), replica.position.sequence);
        let mut watch = Watch::new(&options.timings, Instant::now());
        let mut cause = self.vacancy(replica);
        let mut pinging: Pinging = Fuse::terminated();
        let mut ticks = tokio::time::interval(QUIET / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if cause.is_some() && Instant::now() >= self.not_before {
                return Ok(cause);
            }
            tokio::select! {
                biased;
                followed = entries.next() => {
                    let Some(Followed::Entry { sequence, raw }) = followed else {
                        return Ok(None);
                    };
                    self.context.log.apply(replica, sequence, &raw).await?;
                    self.context.publish(replica.clone());
                    watch.entry(Instant::now());
                    cause = self.vacancy(replica);
                }
                said = self.byes.next() => match said {
                    Some(bye) => {
                        let leader = replica.position.leader.as_ref();
                        if leader.is_some_and(|leader| is_from(&bye.subject, leader)) {
                            cause = Some(Cause::Bye);
                        }
                    }
                    None => return Err(BusError::Closed.into()),
                },
                // What an earlier leader says, or does not say, is nothing of the one there is now.
                (epoch, pinged) = &mut pinging => {
                    if epoch == replica.position.epoch() {
                        cause = watch.pinged(pinged, Instant::now()).or(cause.filter(|cause| {
                            *cause == Cause::Bye || *cause == Cause::Vacant
                        }));
                    }
                }
                _ = ticks.tick() => {
                    if futures::future::FusedFuture::is_terminated(&pinging)
                        && Instant::now() >= self.ask_from
                        && watch.asks(QUIET, Instant::now())
                        && let Some(leader) = replica.position.leader.clone()
                        && leader != options.name
                    {
                        let (bus, wait) = (self.context.control.clone(), options.timings.ping);
                        let epoch = replica.position.epoch();
                        let ping = async move { (epoch, ping::ping(&bus, &leader, wait).await) };
                        pinging = ping.boxed().fuse();
                    }
                }
            }
        }
    }

    /// Nobody has led, or the last to lead was an earlier life of this very manager.
    fn vacancy(&self, replica: &Replica<State>) -> Option<Cause> {
        let leader = replica.position.leader.as_ref();
        let vacant = leader.is_none_or(|leader| leader == self.context.name());
        vacant.then_some(Cause::Vacant)
    }
}

fn is_from(subject: &str, manager: &Name) -> bool {
    subject == subject::manager_bye(manager)
}

/// An error with its causes, in a line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
