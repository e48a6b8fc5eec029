//! `loomctl dev` as a process, and `loomctl` as a user types it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::nats::Client;
use crate::wait::until;

/// The root of the checkout.
pub fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The program under test, beside the test's own.
///
/// # Panics
/// When it was not built.
pub fn loomctl() -> PathBuf {
    let mut path = std::env::current_exe().expect("a test has a path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.push("loomctl");
    assert!(
        path.exists(),
        "{} is not built: run `make test`, not cargo test",
        path.display()
    );
    path
}

/// What a command said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; -1 if it died of a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Itself, if it ended with this code.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[allow(
        clippy::must_use_candidate,
        clippy::return_self_not_must_use,
        reason = "mostly asked for its panic"
    )]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.out, self.err
        );
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs `loomctl` without any bus in its environment.
///
/// # Panics
/// When it cannot be started.
pub fn run_alone(arguments: &[&str]) -> Said {
    command("", arguments)
        .output()
        .expect("loomctl starts")
        .into()
}

pub(crate) fn command(bus: &str, arguments: &[&str]) -> Command {
    command_of(&loomctl(), bus, arguments)
}

fn command_of(program: &Path, bus: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    forget_bus(command.args(arguments));
    if !bus.is_empty() {
        command.env("LOOM_BUS", bus);
    }
    command
}

/// Takes everything that says which bus out of a command's environment.
pub(crate) fn forget_bus(command: &mut Command) {
    for name in [
        "LOOM_BUS",
        "LOOM_CREDS",
        "LOOM_TLS_CA",
        "LOOM_TLS_CERT",
        "LOOM_TLS_KEY",
        "LOOM_INSECURE",
        "LOOM_SYSTEM_CREDS",
    ] {
        command.env_remove(name);
    }
    command.env("XDG_CONFIG_HOME", "/nonexistent");
}

/// A running `loomctl dev`; killed with all its tasks when dropped.
#[derive(Debug)]
pub struct Dev {
    /// Address of the bus.
    pub bus: String,
    directory: TempDir,
    program: PathBuf,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Dev {
    /// Starts one with these flags on a fresh data directory.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_with(flags, &[])
    }

    /// The same, of a `loomctl` that lies elsewhere.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_program(program: &Path, flags: &[&str]) -> Self {
        Self::start_so(program, flags, &[])
    }

    /// The same with something in its environment.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_with(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_so(&loomctl(), flags, environment)
    }

    fn start_so(program: &Path, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("loom-dev")
            .tempdir()
            .expect("a directory");
        let mut dev = Self {
            bus: String::new(),
            directory,
            program: program.to_owned(),
            flags: flags.iter().map(ToString::to_string).collect(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            child: None,
        };
        dev.start_again();
        dev
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A place for files of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts it on the same directory, and waits until it is ready.
    ///
    /// # Panics
    /// When it ends before it is ready.
    pub fn start_again(&mut self) {
        self.begin_again();
        let mut child = self.child.take().expect("it was started");
        let file = self.path("ready.json");
        let ready: Value = until("loomctl dev is ready", || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("loomctl dev ended with {status}: {}", self.log());
            }
            let text = fs::read(&file).map_err(|e| format!("{e}; log: {}", self.log()))?;
            serde_json::from_slice(&text).map_err(|e| e.to_string())
        });
        ready["bus"]
            .as_str()
            .expect("a bus")
            .clone_into(&mut self.bus);
        self.child = Some(child);
    }

    /// Starts it on the same directory and waits for nothing.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn begin_again(&mut self) {
        let ready = self.path("ready.json");
        let _ = fs::remove_file(&ready);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("dev.log"))
            .expect("a log file");
        let child = command_of(&self.program, "", &["dev", "--listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--ready-file")
            .arg(&ready)
            .args(&self.flags)
            .env("LOOM_LOG", "info")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("loomctl starts");
        self.child = Some(child);
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("dev.log")).unwrap_or_default()
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The process of its bus.
    ///
    /// # Panics
    /// When there is none.
    pub fn bus_pid(&self) -> u32 {
        self.bus_pid_now().expect("a nats-server")
    }

    /// The process of its bus, if there is one now.
    pub fn bus_pid_now(&self) -> Option<u32> {
        let data = self.data_dir().display().to_string();
        fs::read_dir("/proc").ok()?.find_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let program = line.split(' ').next().unwrap_or_default();
            (program.ends_with("nats-server") && line.contains(&data)).then_some(pid)
        })
    }

    /// Runs `loomctl` against it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn ctl(&self, arguments: &[&str]) -> Said {
        command(&self.bus, arguments)
            .output()
            .expect("loomctl starts")
            .into()
    }

    /// Runs `loomctl` against it with something on standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn ctl_with_input(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = command(&self.bus, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("loomctl starts");
        // It may end before it has read everything.
        let _ = child
            .stdin
            .take()
            .expect("piped")
            .write_all(input.as_bytes());
        child.wait_with_output().expect("it ends").into()
    }

    /// Starts `loomctl` against it, its output piped.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        command(&self.bus, arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("loomctl starts")
    }

    /// Submits a job file given as text and follows it.
    pub fn run(&self, job: &str, flags: &[&str]) -> Said {
        let mut arguments = vec!["run", "-"];
        arguments.extend(flags);
        self.ctl_with_input(&arguments, job)
    }

    /// A NATS client that is not ours.
    ///
    /// # Panics
    /// When the bus does not answer.
    pub fn nats(&self) -> Client {
        Client::connect(&self.bus).expect("the bus answers")
    }

    /// The job as `status -o json` shows it; null if there is none.
    pub fn job(&self, name: &str) -> Value {
        let said = self.ctl(&["status", name, "-o", "json"]);
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    /// Waits until the job has a status.
    pub fn wait_for_job(&self, name: &str, status: &str) -> Value {
        until(&format!("job {name} is {status}"), || {
            let job = self.job(name);
            if job["summary"]["status"] == status {
                Ok(job)
            } else {
                Err(job.to_string())
            }
        })
    }

    /// Ends it as kill -9 does: nobody gets to say anything.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Ends it as Ctrl-C does, and gives its exit code.
    ///
    /// # Panics
    /// When it does not run.
    pub fn interrupt(&mut self) -> i32 {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), nix::sys::signal::Signal::SIGINT);
        child.wait().expect("it ends").code().unwrap_or(-1)
    }
}

/// Sends a signal to a process.
///
/// # Panics
/// When the kernel refuses.
pub fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, signal).expect("the process takes signals");
}

/// Whether a process is there and no zombie.
pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .starts_with(" Z")
    })
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.child.is_none() {
            // Tasks of a killed cluster are stopped by one that adopts them.
            if std::thread::panicking() || !self.data_dir().exists() {
                return;
            }
            self.start_again();
        }
        if let Some(mut child) = self.child.take() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let mut err = std::io::stderr().lock();
            let _ = writeln!(err, "--- log of loomctl dev ---\n{}", self.log());
        }
    }
}
