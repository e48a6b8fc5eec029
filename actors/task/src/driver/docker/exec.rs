//! One more program in a container that runs.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bollard::Docker;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures::StreamExt as _;
use rustix::process::Signal;

use super::engine::Engine;
use super::run::Run;
use super::trouble;
use crate::driver::usage::Groups;
use crate::driver::{DriverError, EXEC_OUTPUT_MAX, ExecOutcome};
use crate::shim::tree::{descendants, send};

/// Runs `argv` as the container's user, in its directory and with its environment.
pub(super) async fn exec(
    engine: &Engine,
    run: &Run,
    argv: Vec<String>,
    limit: Duration,
) -> Result<ExecOutcome, DriverError> {
    if run.is_paused() {
        return Err(DriverError::Failed {
            context: "execute a program in a container".to_owned(),
            source: std::io::Error::other("the run is paused"),
        });
    }
    let docker = engine.docker().await?;
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(argv),
        ..ExecConfig::default()
    };
    let failed = |error| engine.failed("execute a program in a container", &error);
    let created = docker.create_exec(&run.container.id, config).await;
    let id = match created {
        Ok(created) => created.id,
        Err(error) if trouble::is_missing(&error) => return Err(run.ended_error()),
        Err(error) if trouble::text(&error).contains("is not running") => {
            return Err(run.ended_error());
        }
        Err(error) => return Err(failed(error)),
    };
    let output = Mutex::new(Vec::new());
    let outcome = tokio::time::timeout(limit, follow(&docker, &id, &output)).await;
    let taken = || std::mem::take(&mut *output.lock().unwrap_or_else(PoisonError::into_inner));
    match outcome {
        Ok(Ok(())) => {}
        // What the engine cannot execute it says here, with the code a shell would use.
        Ok(Err(error)) if trouble::status(&error).is_some() => {
            let text = trouble::text(&error);
            let code = if text.contains("not found") || text.contains("no such file") {
                127
            } else {
                126
            };
            return Ok(ExecOutcome {
                code: Some(code),
                output: text.into_bytes(),
                ..ExecOutcome::default()
            });
        }
        Ok(Err(error)) => return Err(failed(error)),
        Err(_) => {
            kill(&docker, &id, &run.container.id).await;
            return Ok(ExecOutcome {
                timed_out: true,
                output: taken(),
                ..ExecOutcome::default()
            });
        }
    }
    let found = docker.inspect_exec(&id).await.map_err(failed)?;
    let code = found.exit_code.and_then(|code| i32::try_from(code).ok());
    let signal = code.map(|code| code - 128);
    let signal = signal.filter(|signal| (1..=64).contains(signal));
    Ok(ExecOutcome {
        code: code.filter(|_| signal.is_none()),
        signal,
        timed_out: false,
        output: taken(),
    })
}

/// Runs it to its end.
async fn follow(
    docker: &Docker,
    id: &str,
    output: &Mutex<Vec<u8>>,
) -> Result<(), bollard::errors::Error> {
    let options = StartExecOptions {
        detach: false,
        tty: false,
        output_capacity: None,
    };
    let StartExecResults::Attached { output: lines, .. } =
        docker.start_exec(id, Some(options)).await?
    else {
        return Ok(());
    };
    let mut lines = lines;
    while let Some(line) = lines.next().await {
        let line = line?;
        let mut kept = output.lock().unwrap_or_else(PoisonError::into_inner);
        let room = EXEC_OUTPUT_MAX.saturating_sub(kept.len());
        let bytes = line.as_ref();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
    Ok(())
}

/// Kills what took too long, and what it began; the engine has no call for that, but tells the
/// process.
async fn kill(docker: &Docker, id: &str, container: &str) {
    let Ok(found) = docker.inspect_exec(id).await else {
        return;
    };
    let pid = found.pid.and_then(|pid| u32::try_from(pid).ok());
    let Some(pid) = pid.filter(|pid| *pid > 0 && found.running == Some(true)) else {
        return;
    };
    let mut all = descendants(pid);
    all.push(pid);
    // Of a process that is not in the container's groups the number means another one here.
    all.retain(|pid| !Groups::of(*pid, container).is_empty());
    send(&all, Signal::KILL);
}
