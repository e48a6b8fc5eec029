//! Starting and stopping a manager.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loom_bus::call::CallError;
use loom_bus::connection::{Bus, ConnectError, ConnectOptions};
use loom_bus::events::{KeepOptions, ensure_streams};
use loom_bus::log::{Log, LogError, LogOptions};
use loom_bus::queue::{Queue, QueueOptions};
use loom_bus::stream::StreamError;
use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_schemas::wire::{ManagerRole, Pong};
use ractor::rpc::CallResult;
use ractor::{Actor, ActorRef, SpawnErr};
use tokio::fs::DirBuilder;
use tokio::task::JoinHandle;

use crate::context::{Beginning, Context, Part, Shared, Streams, Unreadable};
use crate::options::ManagerOptions;
use crate::root::{Root, RootMessage};

/// How long a manager of the same name has to answer.
const PING: Duration = Duration::from_millis(500);

/// How often a manager of the same name has to answer to be taken for alive.
const PINGS: u32 = 3;

/// How long a stop may take before the manager ends without finishing.
const STOP: Duration = Duration::from_secs(5);

/// How long the streams may take to come up after the bus did.
const STREAMS: Duration = Duration::from_secs(10);

/// Why a manager could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bus cannot be reached, is too old, or refuses the login.
    #[error("cannot reach the bus")]
    Connect(#[from] ConnectError),
    /// The data directory cannot be made.
    #[error("cannot use the data directory {}", path.display())]
    DataDirectory {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A manager of that name lives.
    #[error("a manager named {0} is there already: choose another name with --name")]
    NameTaken(Name),
    /// A stream is not there and cannot be made, or is not as it must be.
    #[error("cannot make the streams")]
    Streams(#[from] StreamError),
    /// The log cannot be opened.
    #[error("cannot open the log")]
    Log(#[from] LogError),
    /// What is in the log is nothing this build can read.
    #[error("the log cannot be read")]
    Unreadable(#[source] Unreadable),
    /// The actors do not come up.
    #[error("the manager's actors do not start")]
    Actors(#[from] SpawnErr),
}

/// The pause before another ping, and before the root is started again after it ended by itself.
const PAUSE: Duration = Duration::from_millis(200);

/// A manager that was started. Dropping it ends the manager as a crash would.
pub struct ManagerHandle {
    context: Context,
    /// Starts the root again if it ends by itself.
    guardian: JoinHandle<()>,
}

impl std::fmt::Debug for ManagerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let role = self.context.view().role;
        f.debug_struct("ManagerHandle")
            .field("name", self.name())
            .field("role", &role)
            .finish_non_exhaustive()
    }
}

/// Starts a manager: resolves once it listens and the log is open. Whether it can read the log is told
/// by [`ManagerHandle::begun`], whether it leads by [`ManagerHandle::leads`].
pub async fn start(options: ManagerOptions) -> Result<ManagerHandle, StartError> {
    let path = options.data_dir.clone();
    make_directory(&path)
        .await
        .map_err(|source| StartError::DataDirectory { path, source })?;
    // Four handshakes at once are a large future.
    let streams = Box::pin(connect(&options)).await?;
    refuse_twin(&streams.control, &options.name).await?;
    let context = Shared::new(options, streams);
    let (_, ended) = Actor::spawn(None, Root, context.clone()).await?;
    let guardian = tokio::spawn(guard(context.clone(), ended));
    Ok(ManagerHandle { context, guardian })
}

/// Makes a directory that only this user may enter, and what is missing above it as usual.
async fn make_directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await?;
    }
    let made = DirBuilder::new().mode(0o700).create(path).await;
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// Nobody supervises the root, so this does.
async fn guard(context: Context, mut ended: JoinHandle<()>) {
    loop {
        // Why it ended was logged where it ended.
        drop(ended.await);
        tracing::error!("the root of the manager's actors ended and is started again");
        ended = loop {
            tokio::time::sleep(PAUSE).await;
            match Actor::spawn(None, Root, context.clone()).await {
                Ok((_, ended)) => break ended,
                Err(error) => tracing::error!("it does not start: {error}"),
            }
        };
    }
}

/// The connections, each for its own kind of traffic, and the streams.
async fn connect(options: &ManagerOptions) -> Result<Streams, StartError> {
    let with = |purpose: &str| ConnectOptions {
        name: format!("manager {} {purpose}", options.name),
        require_jetstream: true,
        ..options.bus.clone()
    };
    let (control, bulk, reader, log_bus) = tokio::try_join!(
        Bus::connect(with("control")),
        Bus::connect(with("bulk")),
        Bus::connect(with("reader")),
        Bus::connect(with("log")),
    )?;
    let replicas = options.replicas;
    let log_options = LogOptions {
        replicas,
        ..options.log.clone()
    };
    let log = Log::open(&reader, log_options);
    let keep = KeepOptions {
        replicas,
        ..KeepOptions::default()
    };
    let queue = QueueOptions {
        replicas,
        ..QueueOptions::default()
    };
    let opened = async {
        let log = log.await?;
        ensure_streams(&bulk, &keep).await?;
        let queue = Queue::open(&control, queue).await?;
        Ok::<_, StartError>((log, queue))
    };
    let opened = tokio::time::timeout(STREAMS, opened).await;
    let (log, queue) = opened.map_err(|_| StreamError::Timeout(STREAMS))??;
    Ok(Streams {
        control,
        bulk,
        reader,
        log_bus,
        log,
        queue,
    })
}

/// Two managers of one name would take each other for themselves. One that is just ending may
/// still answer once.
async fn refuse_twin(bus: &Bus, name: &Name) -> Result<(), StartError> {
    let subject = subject::manager_ping(name);
    for _ in 0..PINGS {
        match bus.call::<_, Pong>(&subject, &(), PING).await {
            Err(CallError::NoResponders | CallError::Timeout) => return Ok(()),
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
    Err(StartError::NameTaken(name.clone()))
}

impl ManagerHandle {
    /// Its name.
    pub fn name(&self) -> &Name {
        &self.context.options.name
    }

    /// What it is now.
    pub fn role(&self) -> ManagerRole {
        self.context.view().role
    }

    /// Whether it leads now, as far as it knows.
    pub fn leads(&self) -> bool {
        self.context.pulse.leads()
    }

    /// Resolves once this manager has read the log, or knows that it was rewound and has to be given
    /// its state back; an error if this build cannot read it. It goes on trying all the same.
    pub async fn begun(&self) -> Result<(), StartError> {
        let mut beginning = self.context.beginning();
        // The sender lives in the context, which lives in this handle.
        match beginning.wait_for(|now| *now != Beginning::UnderWay).await {
            Ok(now) => match &*now {
                Beginning::Hopeless(why) => Err(StartError::Unreadable(why.clone())),
                Beginning::UnderWay | Beginning::Done => Ok(()),
            },
            Err(_) => Ok(()),
        }
    }

    /// Resolves once this manager leads, or knows who else does.
    pub async fn ready(&self) {
        let mut views = self.context.watch();
        let known = views.wait_for(|view| {
            let leader = view.replica.position.leader.as_ref();
            view.role != ManagerRole::Standby || leader.is_some_and(|leader| leader != self.name())
        });
        // The sender lives in the context, which lives in this handle.
        drop(known.await);
    }

    /// Hash of its state and the revision that is of: equal on all managers at the same revision.
    pub fn state_hash(&self) -> (loom_schemas::ids::Revision, String) {
        let replica = self.context.view().replica;
        (replica.position.revision(), replica.hash())
    }

    /// Finishes what is under way, says bye and ends: a standby takes over at once.
    pub async fn stop(self) {
        self.guardian.abort();
        drop(self.context.set_reads(None));
        let Some(root) = self.root() else { return };
        let asked = root.call(RootMessage::Stop, Some(STOP)).await;
        if !matches!(asked, Ok(CallResult::Success(()))) {
            tracing::warn!("the manager did not finish in time");
        }
        drop(root.stop_and_wait(None, Some(STOP)).await);
    }

    /// Kills one of its actors: supervision has to make that good. True if there was one.
    pub fn kill(&self, part: Part) -> bool {
        let cell = self.context.parts.get(part);
        if let Some(cell) = &cell {
            cell.kill();
        }
        cell.is_some()
    }

    fn root(&self) -> Option<ActorRef<RootMessage>> {
        self.context.parts.get(Part::Root).map(ActorRef::from)
    }
}

impl Drop for ManagerHandle {
    fn drop(&mut self) {
        self.guardian.abort();
        drop(self.context.set_reads(None));
        if let Some(root) = self.root() {
            root.kill();
        }
    }
}
