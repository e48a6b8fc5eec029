//! Reads: `orch.api.<noun>.<verb>`, answered by every manager from what it has applied.

use std::str::FromStr;
use std::time::{Duration, Instant};

use loom_bus::codec::Form;
use loom_bus::connection::{Bus, BusError};
use loom_bus::events::{History, HistoryError};
use loom_bus::facts::system_facts;
use loom_bus::header::{MIN_REVISION, REVISION};
use loom_bus::serve::{Request, ServeLimits};
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::{Name, Revision};
use loom_schemas::subject;
use loom_schemas::wire::{
    BusView, EventQuery, JobGet, JobListQuery, LogQuery, ManagerView, NodeGet, NodeListQuery,
    RunGet, VersionGet, VersionList, VersionSummary,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::door::{Door, LINGER, Next, Rest};
use crate::context::{AGENT, Context, Part, View};
use crate::follower::chain;
use crate::view;
use crate::work::{Worker, carry_out};

/// Bytes of MessagePack after which a list is cut into pages; as JSON they are about twice as many.
const PAGE_BYTES: usize = 2 << 20;

/// How long a read waits for the revision it asks for.
const WAIT: Duration = Duration::from_secs(1);

/// How long the servers have to tell the system account about themselves.
const SYSTEM_PATIENCE: Duration = Duration::from_millis(300);

/// How long what was found out about the bus is taken for so.
const BUS_FACTS_GOOD: Duration = Duration::from_secs(5);

/// What can be read.
const READS: &str = "job.list, job.get, job.versions, job.export, run.get, node.list, node.get, \
                     manager.list, event.list, log.get, bus.get";

/// Answers reads.
pub(crate) struct Reads;

/// What the reads are told.
pub(crate) enum ReadsMessage {
    /// The log was read and the door is open, or cannot be opened.
    Opened(Result<Door, BusError>),
}

/// Keeps the work that opens the door. The door itself is shared: it stays open while this actor
/// is started again, and is closed by the next one.
pub(crate) struct ReadsState {
    context: Context,
    opening: Option<Worker>,
}

impl Actor for Reads {
    type Msg = ReadsMessage;
    type State = ReadsState;
    type Arguments = Context;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        context: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        context.parts.put(Part::Reads, myself.get_cell());
        let opening = carry_out(&myself, open(context.clone()), ReadsMessage::Opened);
        Ok(ReadsState {
            context,
            opening: Some(opening),
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let ReadsMessage::Opened(door) = message;
        state.opening = None;
        let before = state.context.set_reads(Some(door?));
        // What it was handed before the new one was open is still on its way to it.
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            drop(before);
        });
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

/// Opens the door once there is something to read: before, everything would be `not found`.
async fn open(context: Context) -> Result<Door, BusError> {
    let mut views = context.watch();
    // The sender lives in the context.
    drop(
        views
            .wait_for(|view| view.replica.position.sequence > 0)
            .await,
    );
    let limits = ServeLimits {
        max_in_flight: context.options.limits.reads,
        max_payload: 64 * 1024,
        ..ServeLimits::default()
    };
    let bus = context.control.clone();
    let take = move |request| {
        tokio::spawn(read(context.clone(), request));
        Next::GoOn
    };
    // In no group: one manager that hangs would swallow requests; the first answer counts.
    let door = Door::serve(&bus, subject::API_ALL, None, limits, Rest::Dropped, take).await?;
    // Back and forth once: from now on the bus hands requests to this door.
    bus.round_trip().await?;
    Ok(door)
}

async fn read(context: Context, request: Request) {
    let view = match wait_for(&context, request.header(MIN_REVISION)).await {
        Ok(view) => view,
        Err(error) => return request.refuse(error).await,
    };
    let noun = request.token(2).unwrap_or_default().to_owned();
    let verb = request.token(3).unwrap_or_default().to_owned();
    match (noun.as_str(), verb.as_str()) {
        ("event", "list") => {
            let history = History::new(&context.bulk);
            let read = async |query: EventQuery| {
                history
                    .events(&query)
                    .await
                    .map_err(|error| history_error(&error))
            };
            answer_later(request, &view, read).await;
        }
        ("log", "get") => {
            let history = History::new(&context.bulk);
            let read = async |query: LogQuery| {
                history
                    .logs(&query)
                    .await
                    .map_err(|error| history_error(&error))
            };
            answer_later(request, &view, read).await;
        }
        ("bus", "get") => {
            let found = this_bus(&context).await;
            answer(request, &view, Ok(found)).await;
        }
        (noun, verb) => read_state(&context, request, &view, noun, verb).await,
    }
}

/// What the bus keeps its promises with: any user may ask, so it is found out now and then only, by a
/// connection of its own, and by one of those who ask at once.
async fn this_bus(context: &Context) -> BusView {
    let mut known = context.bus_facts.lock().await;
    match &*known {
        Some((at, facts)) if at.elapsed() < BUS_FACTS_GOOD => facts.clone(),
        _ => {
            let facts = find_bus(context).await;
            *known = Some((Instant::now(), facts.clone()));
            facts
        }
    }
}

async fn find_bus(context: &Context) -> BusView {
    let mut found = BusView {
        version: context.control.server().version,
        ..BusView::default()
    };
    let Some(system) = context.options.system.clone() else {
        return found;
    };
    let facts = async {
        let bus = Bus::connect(system).await.ok()?;
        system_facts(&bus, SYSTEM_PATIENCE).await.ok()
    };
    let servers = facts.await.unwrap_or_default();
    if !servers.is_empty() {
        found.sync_always = Some(servers.iter().all(|server| server.sync_always));
        let longest = servers
            .iter()
            .filter_map(|server| server.sync_interval)
            .max();
        found.sync_interval_ms =
            longest.map(|interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX));
    }
    found
}

/// Reads what the state holds.
async fn read_state(context: &Context, request: Request, view: &View, noun: &str, verb: &str) {
    let state = &view.replica.state;
    let heart = |node: &Name| context.hearts.last(node);
    match (noun, verb) {
        ("job", "list") => {
            let found = asked_page(&request)
                .map(|page: JobListQuery| view::job_list(state, &page, PAGE_BYTES));
            answer(request, view, found).await;
        }
        ("job", "get") => {
            let found = asked_job(&request).and_then(|ask| view::job_view(state, &ask, PAGE_BYTES));
            answer(request, view, found).await;
        }
        ("job", "versions") => {
            let found =
                asked_name::<JobGet>(&request, |ask| ask.job).and_then(|job| versions(view, &job));
            answer(request, view, found).await;
        }
        ("job", "export") => export(request, view).await,
        ("run", "get") => {
            let text = match request.text() {
                Some(text) => Ok(text.to_owned()),
                None => request.decode::<RunGet>().map(|ask| ask.run),
            };
            let found = text.and_then(|text| view::run_view(state, &text));
            answer(request, view, found).await;
        }
        ("node", "list") => {
            let found = asked_page(&request).map(|page: NodeListQuery| {
                let mut list = view::node_list(state, &page, &heart, PAGE_BYTES);
                for node in &mut list.nodes {
                    node.ahead_ms = context.hearts.ahead_ms(&node.node.name);
                }
                list
            });
            answer(request, view, found).await;
        }
        ("node", "get") => {
            let found = asked_node(&request)
                .and_then(|ask| view::node_view(state, &ask, heart(&ask.node), PAGE_BYTES));
            answer(request, view, found).await;
        }
        ("manager", "list") => answer(request, view, Ok(this_manager(context, view))).await,
        (noun, verb) => {
            let message = format!("`{noun}.{verb}` cannot be read; there are {READS}");
            request.refuse(WireError::not_found(message)).await;
        }
    }
}

/// The text of a version as it was submitted, byte for byte.
async fn export(request: Request, view: &View) {
    let found = request
        .decode::<VersionGet>()
        .and_then(|ask| view::job_text(&view.replica.state, &ask.job, ask.version));
    match found {
        Ok(text) => {
            let headers = revision(view);
            request.reply_bytes(text.into(), Form::Text, &headers).await;
        }
        Err(error) => request.refuse(error).await,
    }
}

fn versions(view: &View, job: &Name) -> Result<VersionList, WireError> {
    let state = &view.replica.state;
    let Some(record) = state.job(job) else {
        return Err(WireError::not_found(format!("no job {job}")));
    };
    let wanted = record.version;
    let versions = state.versions(job).map(|record| VersionSummary {
        wanted: record.version == wanted,
        reason: record.reason.clone(),
        version: record.version,
        at: record.at,
        by: record.by.clone(),
        size: record.text.len() as u64,
        sets: record.sets.clone(),
    });
    Ok(VersionList {
        versions: versions.collect(),
    })
}

fn this_manager(context: &Context, view: &View) -> ManagerView {
    ManagerView {
        name: context.name().clone(),
        role: view.role,
        agent: AGENT.to_owned(),
        revision: view.replica.position.revision(),
        state_hash: view.replica.hash(),
        leader: view.replica.position.leader.clone(),
    }
}

/// A job by bare text, or by a map that may say where to go on.
fn asked_job(request: &Request) -> Result<JobGet, WireError> {
    let Some(text) = request.text() else {
        return request.decode();
    };
    let job = Name::new(text).map_err(|error| WireError::invalid(error.to_string()))?;
    Ok(JobGet { job, after: None })
}

/// The same for a node.
fn asked_node(request: &Request) -> Result<NodeGet, WireError> {
    let Some(text) = request.text() else {
        return request.decode();
    };
    let node = Name::new(text).map_err(|error| WireError::invalid(error.to_string()))?;
    Ok(NodeGet { node, after: None })
}

/// Nothing, or a map that says where to go on.
fn asked_page<T: DeserializeOwned + Default>(request: &Request) -> Result<T, WireError> {
    match request.text() {
        Some(_) => Ok(T::default()),
        None => Ok(request.decode::<Option<_>>()?.unwrap_or_default()),
    }
}

/// The one argument of a request: bare text, or a field of a map.
fn asked_name<T: DeserializeOwned>(
    request: &Request,
    name: impl FnOnce(T) -> Name,
) -> Result<Name, WireError> {
    match request.text() {
        Some(text) => Name::new(text).map_err(|error| WireError::invalid(error.to_string())),
        None => request.decode().map(name),
    }
}

async fn answer<T: Serialize>(request: Request, view: &View, answer: Result<T, WireError>) {
    match answer {
        Ok(answer) => request.reply_with(&answer, &revision(view)).await,
        Err(error) => request.refuse(error).await,
    }
}

async fn answer_later<Q, T>(
    request: Request,
    view: &View,
    read: impl AsyncFnOnce(Q) -> Result<T, WireError>,
) where
    Q: DeserializeOwned,
    T: Serialize,
{
    let found = match request.decode() {
        Ok(query) => read(query).await,
        Err(error) => Err(error),
    };
    answer(request, view, found).await;
}

fn revision(view: &View) -> [(&'static str, String); 1] {
    [(REVISION, view.replica.position.revision().to_string())]
}

/// What this manager has applied, once it has applied what the request asks for.
async fn wait_for(context: &Context, wanted: Option<&str>) -> Result<View, WireError> {
    let Some(text) = wanted else {
        return Ok(context.view());
    };
    let wanted = Revision::from_str(text.trim()).map_err(|_| {
        WireError::invalid(format!("{MIN_REVISION}: expected `1.42`, found `{text}`"))
    })?;
    let mut views = context.watch();
    let applied = views.wait_for(|view| view.replica.position.revision() >= wanted);
    if let Ok(Ok(view)) = tokio::time::timeout(WAIT, applied).await {
        return Ok(view.clone());
    }
    let at = context.view().replica.position.revision();
    let message = format!("this manager is at revision {at}, not yet at {wanted}");
    Err(WireError::unavailable(message))
}

fn history_error(error: &HistoryError) -> WireError {
    let code = match error {
        HistoryError::Filter(_) => ErrorCode::Invalid,
        HistoryError::Timeout => ErrorCode::TooLarge,
        HistoryError::Stream(_) | HistoryError::Consumer(_) => ErrorCode::Unavailable,
    };
    WireError::new(code, chain(error))
}
