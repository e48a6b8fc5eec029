//! One more program in a run that runs.

use std::ffi::OsStr;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

use super::failed;
use super::run::Run;
use crate::driver::{DriverError, EXEC_OUTPUT_MAX, ExecOutcome, exit_of};
use crate::shim::EXEC_WORD;

/// How much is taken out of the pipe at once.
const CHUNK: usize = 4 * 1024;

/// Runs `argv` as the run's user, in its groups, directory and environment.
pub(super) async fn exec(
    run: &Run,
    shim: &Path,
    argv: &[String],
    timeout: Duration,
) -> Result<ExecOutcome, DriverError> {
    run.can_exec()?;
    let shown = argv.first().map_or("", String::as_str).to_owned();
    let failed = || failed(|| format!("execute `{shown}` in run {}", run.id()));
    let (mut child, mut pipe) = spawn(run, shim, argv).map_err(failed())?;
    let mut output = Vec::new();
    let ended = tokio::time::timeout(timeout, follow(&mut child, &mut pipe, &mut output)).await;
    let Ok(status) = ended else {
        kill(&child);
        // The rest is up to the kernel: one that is frozen dies when it is thawed.
        return Ok(ExecOutcome {
            code: None,
            signal: None,
            timed_out: true,
            output,
        });
    };
    let (code, signal) = exit_of(status.map_err(failed())?);
    Ok(ExecOutcome {
        code,
        signal,
        timed_out: false,
        output,
    })
}

fn spawn(run: &Run, shim: &Path, argv: &[String]) -> io::Result<(Child, Receiver)> {
    let (reader, writer): (PipeReader, _) = io::pipe()?;
    let errors = writer.try_clone()?;
    let child = Command::new(shim)
        .arg0("loom-exec")
        .arg(EXEC_WORD)
        .arg(run.directory())
        .args(argv.iter().map(OsStr::new))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::from(writer))
        .stderr(Stdio::from(errors))
        // Where nobody waits for it any longer.
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, Receiver::from_owned_fd(OwnedFd::from(reader))?))
}

/// Until the program itself has ended, whatever it left behind.
async fn follow(
    child: &mut Child,
    pipe: &mut Receiver,
    output: &mut Vec<u8>,
) -> io::Result<ExitStatus> {
    let mut chunk = [0; CHUNK];
    loop {
        tokio::select! {
            biased;
            count = pipe.read(&mut chunk) => match count? {
                0 => return child.wait().await,
                count => keep(output, &chunk[..count]),
            },
            status = child.wait() => {
                while let Ok(count @ 1..) = pipe.try_read(&mut chunk) {
                    keep(output, &chunk[..count]);
                }
                return status;
            }
        }
    }
}

fn keep(output: &mut Vec<u8>, bytes: &[u8]) {
    let room = EXEC_OUTPUT_MAX.saturating_sub(output.len());
    output.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// Kills it with what it started; it leads a session of its own.
fn kill(child: &Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}
