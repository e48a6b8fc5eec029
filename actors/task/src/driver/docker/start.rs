//! The start of a container, and what an earlier agent's has become.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, ContainerState};
use bollard::query_parameters::{
    CreateContainerOptions, StartContainerOptions, UploadToContainerOptions,
};
use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::spec::LogSpec;
use loom_schemas::spec::image::ImageName;
use loom_schemas::units::Bytes;
use tokio::time::timeout;

use super::logs::{self, Copying, Cursor};
use super::record::{self, ContainerRecord};
use super::run::{self, Run, directory_of, inspect};
use super::{Inner, create, end, image, name_of, trouble};
use crate::driver::{Adopted, DriverError, Started};
use crate::launch::{Container, Launch};
use crate::output::last;
use crate::private::{OWN_DIRECTORY, make_directory};

/// How long a start waits until the engine is through with what died before.
const CLOSED: Duration = Duration::from_secs(5);

/// Starts a launch, or finds it started.
pub(super) async fn start(inner: &Arc<Inner>, launch: &Launch) -> Result<Arc<Run>, DriverError> {
    let Some(container) = &launch.container else {
        return Err(DriverError::Rejected(
            "the task has no image, so it is no container".to_owned(),
        ));
    };
    let docker = inner.engine.docker().await?;
    let id = create(inner, &docker, launch, container).await?;
    upload(inner, &docker, launch, &id).await?;
    let prepared = inner.image_of(launch.run);
    let directory = directory_of(&inner.directory, launch.run);
    let mut record = ContainerRecord {
        id,
        image: prepared.clone().unwrap_or_default(),
        name: container.image.name.clone(),
        logs: launch.logs.clone(),
        result: launch.result,
    };
    // Before it runs: an agent that dies now is followed by one that knows where the output goes.
    keep(launch.run, &directory, &record)?;
    let found = begin(inner, &docker, container, &record.id).await?;
    if prepared.is_none() {
        record.image = identify(inner, &docker, container, &found).await;
        keep(launch.run, &directory, &record)?;
    }
    let state = found.state.unwrap_or_default();
    let notes = held(launch, &record.id, &state).await;
    follow(inner, launch.run, &directory, record, &state, notes)
}

/// Holds a container that was started to what the engine does not; returns what it is not held to.
async fn held(launch: &Launch, container: &str, state: &ContainerState) -> Vec<String> {
    let Some(rate) = launch.resources.disk_rate else {
        return Vec::new();
    };
    let (pid, container) = (pid_of(state), container.to_owned());
    let limit = move || Run::limit_disk(pid, &container, Some(rate));
    tokio::task::spawn_blocking(limit).await.unwrap_or_default()
}

fn pid_of(state: &ContainerState) -> Option<u32> {
    let pid = state.pid.and_then(|pid| u32::try_from(pid).ok());
    pid.filter(|pid| *pid > 0)
}

/// Starts a container that is created. Where nobody can say whether it was, the error says that: a
/// run that is taken for failed and lives would soon be two.
async fn begin(
    inner: &Inner,
    docker: &Docker,
    container: &Container,
    id: &str,
) -> Result<ContainerInspectResponse, DriverError> {
    if !container.ports.is_empty() {
        // The ports of a run before this one are taken until the engine is through with it.
        let _ = timeout(CLOSED, inner.engine.closed()).await;
    }
    let begun = docker
        .start_container(id, None::<StartContainerOptions>)
        .await;
    if let Err(error) = begun {
        return Err(trouble::of_begin(inner.engine.socket(), container, &error));
    }
    match inspect(&inner.engine, id).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(DriverError::Unavailable(
            "its container was removed while it was started".to_owned(),
        )),
        Err(error) => Err(DriverError::Uncertain(error.to_string())),
    }
}

/// Writes down which container a run has.
fn keep(run: RunId, directory: &Path, record: &ContainerRecord) -> Result<(), DriverError> {
    let made = make_directory(directory, OWN_DIRECTORY);
    let kept = made.and_then(|_| record.write(directory));
    kept.map_err(|source| not_kept(run, directory, source))
}

fn not_kept(run: RunId, directory: &Path, source: io::Error) -> DriverError {
    DriverError::Failed {
        context: format!("keep the files of run {run} in {}", directory.display()),
        source,
    }
}

/// Which image it is, of a run that was prepared by an earlier agent.
async fn identify(
    inner: &Inner,
    docker: &Docker,
    container: &Container,
    found: &ContainerInspectResponse,
) -> String {
    let id = found.image.clone().unwrap_or_default();
    let Ok(name) = ImageName::parse(&container.image.name) else {
        return id;
    };
    match image::find(&inner.engine, docker, &id).await {
        Ok(Some(found)) => image::identity(&name, &found),
        _ => id,
    }
}

/// Creates the container, or finds it created; returns the engine's id.
async fn create(
    inner: &Arc<Inner>,
    docker: &Docker,
    launch: &Launch,
    container: &Container,
) -> Result<String, DriverError> {
    let owner = inner.owner()?;
    let body = create::body(launch, container, &owner);
    let options = CreateContainerOptions {
        name: Some(name_of(launch.run)),
        ..CreateContainerOptions::default()
    };
    let mut created = docker
        .create_container(Some(options.clone()), body.clone())
        .await;
    if matches!(&created, Err(error) if trouble::is_missing(error)) {
        // Between preparing and now somebody cleaned up.
        image::get(&inner.engine, &container.image, &(Box::new(drop) as _)).await?;
        created = docker.create_container(Some(options), body).await;
    }
    match created {
        Ok(created) => Ok(created.id),
        Err(error) if trouble::status(&error) == Some(409) => earlier(inner, launch.run).await,
        Err(error) => Err(trouble::of_start(inner.engine.socket(), container, &error)),
    }
}

/// The container of that name, if it is the run's own and has not run yet, or still runs.
async fn earlier(inner: &Arc<Inner>, run: RunId) -> Result<String, DriverError> {
    let found = inspect(&inner.engine, &name_of(run)).await?;
    let Some(found) = found.filter(|found| inner.is_own(found, run)) else {
        return Err(DriverError::Unavailable(format!(
            "a container named {} is there that is none of this node's",
            name_of(run)
        )));
    };
    let state = found.state.unwrap_or_default();
    if is_begun(&state) && state.running != Some(true) {
        return Err(DriverError::Ended(run));
    }
    Ok(found.id.unwrap_or_else(|| name_of(run)))
}

fn is_begun(state: &ContainerState) -> bool {
    run::time(state.started_at.as_deref()).is_some()
}

/// Puts the launch's files into the container.
async fn upload(
    inner: &Inner,
    docker: &Docker,
    launch: &Launch,
    id: &str,
) -> Result<(), DriverError> {
    let files = create::files(launch).map_err(|source| DriverError::Failed {
        context: "pack the task's files".to_owned(),
        source,
    })?;
    let Some(files) = files else { return Ok(()) };
    let options = UploadToContainerOptions {
        path: "/".to_owned(),
        ..UploadToContainerOptions::default()
    };
    let sent = docker.upload_to_container(id, Some(options), bollard::body_full(files.into()));
    sent.await.map_err(|error| {
        inner
            .engine
            .failed("put the task's files into its container", &error)
    })
}

/// Follows a container that was started: its output, and soon its end.
fn follow(
    inner: &Arc<Inner>,
    id: RunId,
    directory: &Path,
    container: ContainerRecord,
    state: &ContainerState,
    held: Vec<String>,
) -> Result<Arc<Run>, DriverError> {
    let known = record::read_started(directory);
    let (writer, note) = logs::open(directory, &container.logs);
    let (cursor, base) = match &known {
        Some(known) if known.output == writer.path() => (
            Cursor::after(last::last(&known.output, known.base)),
            known.base,
        ),
        _ => (Cursor::default(), writer.offset()),
    };
    let pid = pid_of(state);
    let at = run::time(state.started_at.as_deref()).unwrap_or_else(Timestamp::now);
    // What was said at the start holds for the run, whoever follows it.
    let held = match known {
        Some(known) => known.notes.clone(),
        None => held,
    };
    let mut notes: Vec<String> = note.into_iter().chain(held).collect();
    notes.dedup();
    record::write_started(directory, pid, at, writer.path(), base, &notes)
        .map_err(|source| not_kept(id, directory, source))?;
    let engine = Arc::clone(&inner.engine);
    let fate = engine.fates.of(&container.id);
    let copying = Copying::start(engine, container.id.clone(), writer, cursor);
    let started = Started {
        pid,
        at,
        directory: Some(directory.to_path_buf()),
        unenforced: notes,
        container: Some(container.started()),
    };
    Ok(Run::new(
        id,
        directory.to_path_buf(),
        container,
        started,
        fate,
        Some(copying),
    ))
}

/// What became of a run that is followed already, asked because the engine was away; none if what
/// runs now is not what was followed.
pub(super) async fn look_again(
    inner: &Arc<Inner>,
    run: &Arc<Run>,
) -> Result<Option<Adopted>, DriverError> {
    if !run.has_ended() {
        let found = inspect(&inner.engine, &run.container.id).await?;
        let state = found.and_then(|found| found.state).unwrap_or_default();
        if state.running == Some(true) {
            let pid = state.pid.and_then(|pid| u32::try_from(pid).ok());
            let same = run.describe().pid == pid;
            return Ok(same.then(|| Adopted::Running {
                started: run.describe(),
                paused: state.paused == Some(true),
            }));
        }
    }
    let ended = run.wait(&inner.engine).await?;
    let started = Some(run.describe());
    Ok(Some(Adopted::Ended { started, ended }))
}

/// What became of a run, by its files and by the engine; with the run itself where the engine still
/// has its container.
pub(super) async fn adopt(
    inner: &Arc<Inner>,
    id: RunId,
) -> Result<(Adopted, Option<Arc<Run>>), DriverError> {
    let directory = directory_of(&inner.directory, id);
    let kept = ContainerRecord::read(&directory);
    let started = kept
        .as_ref()
        .and_then(|container| record::started(&directory, container));
    if let Some(ended) = record::read_ended(&directory) {
        return Ok((Adopted::Ended { started, ended }, None));
    }
    let found = inspect(&inner.engine, &name_of(id)).await?;
    let Some(found) = found.filter(|found| inner.is_own(found, id)) else {
        let adopted = match started {
            Some(_) => Adopted::Ended {
                started,
                ended: end::removed(),
            },
            None => Adopted::Gone,
        };
        return Ok((adopted, None));
    };
    let state = found.state.clone().unwrap_or_default();
    if !is_begun(&state) {
        // Created and never started: a start does the rest.
        return Ok((Adopted::Gone, None));
    }
    let container = match kept {
        Some(container) if Some(&container.id) == found.id.as_ref() && container.is_whole() => {
            container
        }
        kept => {
            let mut container = described(inner, &found).await?;
            if let Some(kept) = kept {
                container.logs = kept.logs;
            }
            keep(id, &directory, &container)?;
            container
        }
    };
    let run = follow(inner, id, &directory, container, &state, Vec::new())?;
    if state.running == Some(true) {
        let adopted = Adopted::Running {
            started: run.describe(),
            paused: state.paused == Some(true),
        };
        return Ok((adopted, Some(run)));
    }
    let ended = run.wait(&inner.engine).await?;
    let started = Some(run.describe());
    Ok((Adopted::Ended { started, ended }, Some(run)))
}

/// What the engine tells of a container whose files are lost.
async fn described(
    inner: &Inner,
    found: &ContainerInspectResponse,
) -> Result<ContainerRecord, DriverError> {
    let docker = inner.engine.docker().await?;
    let id = found.image.clone().unwrap_or_default();
    let name = found
        .config
        .as_ref()
        .and_then(|config| config.image.clone());
    let name = name.unwrap_or_else(|| id.clone());
    let image = match (
        ImageName::parse(&name),
        image::find(&inner.engine, &docker, &id).await?,
    ) {
        (Ok(name), Some(found)) => image::identity(&name, &found),
        _ => id,
    };
    Ok(ContainerRecord {
        id: found.id.clone().unwrap_or_default(),
        image,
        name,
        logs: LogSpec {
            max_size: Bytes::mib(10),
            keep: 5,
            ship: true,
            to: None,
        },
        result: false,
    })
}
