//! Credential helpers: programs that keep logins, and may wait for whatever they ask.

use std::collections::HashMap;
use std::process::{Output, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use docker_credential::DockerCredential;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::{Instant, timeout_at};

use super::{Trouble, login};
use crate::driver::docker::trouble::one_line;

/// The most bytes of an answer, or of what is said beside it.
const ANSWER_MAX: u64 = 64 * 1024;

/// What a helper says that has no login of a server.
const NOT_FOUND: &str = "credentials not found";

/// Whose turn it is with a helper, by its name and the server.
type Turns = HashMap<(String, String), Arc<tokio::sync::Mutex<()>>>;

/// Many runs of one image would start as many helpers, which all wait for the same key ring.
static TURNS: LazyLock<Mutex<Turns>> = LazyLock::new(Mutex::default);

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Kills a program with all that it started, unless it has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Asks a helper for the login of a server; none if it has none.
pub(super) async fn ask(
    helper: &str,
    server: &str,
    patience: Duration,
) -> Result<Option<DockerCredentials>, Trouble> {
    ask_program(format!("docker-credential-{helper}"), server, patience).await
}

async fn ask_program(
    program: String,
    server: &str,
    patience: Duration,
) -> Result<Option<DockerCredentials>, Trouble> {
    let turn = {
        let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry((program.clone(), server.to_owned()));
        Arc::clone(turn.or_default())
    };
    let deadline = Instant::now() + patience;
    let asked = async {
        let _turn = turn.lock().await;
        if Instant::now() >= deadline {
            // The one before took all the time there was.
            std::future::pending::<()>().await;
        }
        run(&program, server).await
    };
    let late = |_| Trouble::Helper(format!("`{program}` took more than {patience:?}"));
    let output = timeout_at(deadline, asked).await.map_err(late)??;
    read(&program, server, &output)
}

/// Runs it; however this ends, nothing of it is left.
async fn run(program: &str, server: &str) -> Result<Output, Trouble> {
    let mut command = Command::new(program);
    command.arg("get").process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        Trouble::Configuration(format!(
            "the credential helper `{program}` cannot be run ({error}): put it on the agent's PATH"
        ))
    })?;
    let pid = child
        .id()
        .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let mut group = Group(pid);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let say = async move {
        if let Some(mut stdin) = stdin {
            // One that does not want to know says by its answer what is wrong.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
    };
    let ((), stdout, stderr) = tokio::join!(say, all(stdout), all(stderr));
    let status = child.wait().await;
    let failed = |error| Trouble::Helper(format!("`{program}` failed: {error}"));
    let status = status.map_err(failed)?;
    // Its number may be another's from here on; what it left behind holds the pipes no more.
    group.0 = None;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

async fn all(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // What cannot be read was not said.
        let _ = from.take(ANSWER_MAX).read_to_end(&mut bytes).await;
    }
    bytes
}

fn read(
    program: &str,
    server: &str,
    output: &Output,
) -> Result<Option<DockerCredentials>, Trouble> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        if stdout.contains(NOT_FOUND) {
            return Ok(None);
        }
        // By their protocol it stands on standard output; some write it where others do.
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said = if stderr.trim().is_empty() {
            stdout
        } else {
            stderr
        };
        let why = format!("`{program}` failed: {}", one_line(&said));
        return Err(Trouble::Helper(why));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|_| {
        let why =
            format!("`{program}` answers what is no login: expected JSON with Username and Secret");
        Trouble::Helper(why)
    })?;
    let found = match answer.username.as_str() {
        "<token>" => DockerCredential::IdentityToken(answer.secret),
        _ => DockerCredential::UsernamePassword(answer.username, answer.secret),
    };
    Ok(Some(login(server, found)))
}

#[cfg(test)]
#[path = "helper_tests.rs"]
mod tests;
