//! Managers and nodes as processes of their own, against a plain nats-server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::{Said, checkout, command, signal};
use crate::wait::until;

/// A nats-server with `JetStream` and nothing else: no accounts, no credentials.
#[derive(Debug)]
pub struct Server {
    /// Its address.
    pub url: String,
    child: Child,
    directory: TempDir,
}

impl Server {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("loom-parts")
            .tempdir()
            .expect("a directory");
        let config = directory.path().join("nats.conf");
        let text = format!(
            "host: 127.0.0.1\nport: -1\nmax_payload: 8MB\nports_file_dir: \"{0}\"\n\
             jetstream {{ store_dir: \"{0}\", sync_interval: always }}\n",
            directory.path().display()
        );
        fs::write(&config, text).expect("a configuration");
        let program = std::env::var_os("LOOM_NATS_SERVER")
            .map_or_else(|| checkout().join(".loom/bin/nats-server"), PathBuf::from);
        let child = Command::new(&program)
            .arg("--config")
            .arg(&config)
            .arg("--log")
            .arg(directory.path().join("nats.log"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let ports = directory
            .path()
            .join(format!("nats-server_{}.ports", child.id()));
        let url = until("nats-server listens", || {
            let text = fs::read(&ports).map_err(|e| e.to_string())?;
            let ports: Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
            let url = ports["nats"][0].as_str().map(str::to_owned);
            url.ok_or_else(|| ports.to_string())
        });
        Self {
            url,
            child,
            directory,
        }
    }

    /// A place for the files of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs `loomctl` against it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn ctl(&self, arguments: &[&str]) -> Said {
        command(&self.url, arguments)
            .output()
            .expect("loomctl starts")
            .into()
    }

    /// Submits a job file given as text and follows it.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn run(&self, job: &str, flags: &[&str]) -> Said {
        let file = self.path("job.yaml");
        fs::write(&file, job).expect("a file");
        let mut arguments = vec!["run", file.to_str().expect("a path")];
        arguments.extend(flags);
        self.ctl(&arguments)
    }

    /// A manager on it.
    pub fn manager(&self, name: &str) -> Agent {
        Agent::start(self, "manager", name, &[])
    }

    /// A node on it that runs processes.
    pub fn node(&self, name: &str) -> Agent {
        self.node_with(name, &[])
    }

    /// The same with more flags.
    pub fn node_with(&self, name: &str, flags: &[&str]) -> Agent {
        let flags = [&["--allow-process"], flags].concat();
        Agent::start(self, "node", name, &flags)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `loomctl manager start` or `loomctl node start`.
#[derive(Debug)]
pub struct Agent {
    /// Its name.
    pub name: String,
    kind: &'static str,
    bus: String,
    directory: PathBuf,
    flags: Vec<String>,
    child: Option<Child>,
}

impl Agent {
    fn start(server: &Server, kind: &'static str, name: &str, flags: &[&str]) -> Self {
        Self::on(&server.url, kind, name, server.path(name), flags)
    }

    /// Starts one on a bus by its address, none if it brings its own, with a data directory.
    ///
    /// # Panics
    /// When it ends before it is ready.
    pub fn on(
        bus: &str,
        kind: &'static str,
        name: &str,
        directory: PathBuf,
        flags: &[&str],
    ) -> Self {
        let mut agent = Self {
            name: name.to_owned(),
            kind,
            bus: bus.to_owned(),
            directory,
            flags: flags.iter().map(ToString::to_string).collect(),
            child: None,
        };
        agent.start_again();
        agent
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.directory
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The bus it says that it is on.
    ///
    /// # Panics
    /// When it is not ready.
    pub fn bus(&self) -> String {
        let text = fs::read(self.directory.with_extension("ready")).expect("a ready file");
        let ready: Value = serde_json::from_slice(&text).expect("JSON");
        ready["bus"].as_str().expect("a bus").to_owned()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.with_extension("log")).unwrap_or_default()
    }

    /// Starts it on the same directory, and waits until it is ready.
    ///
    /// # Panics
    /// When it ends before it is ready.
    pub fn start_again(&mut self) {
        let ready = self.directory.with_extension("ready");
        let _ = fs::remove_file(&ready);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.with_extension("log"))
            .expect("a log file");
        let mut child = command(&self.bus, &[self.kind, "start", "--name", &self.name])
            .arg("--data-dir")
            .arg(&self.directory)
            .arg("--ready-file")
            .arg(&ready)
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("loomctl starts");
        until(&format!("{} {} is ready", self.kind, self.name), || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("{} ended with {status}: {}", self.name, self.log());
            }
            if ready.exists() {
                Ok(())
            } else {
                Err(self.log())
            }
        });
        self.child = Some(child);
    }

    /// Ends it as kill -9 does.
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

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let mut err = std::io::stderr().lock();
            let _ = std::io::Write::write_fmt(
                &mut err,
                format_args!("--- log of {} {} ---\n{}", self.kind, self.name, self.log()),
            );
        }
    }
}
