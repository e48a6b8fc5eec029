//! A cluster on several hosts, as processes: the files of `loomctl bus init`, a NATS server each,
//! managers and nodes. The hosts are loopback, or network namespaces.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::{Said, checkout, forget_bus, loomctl, signal};
use crate::wait::until;

/// How long a node may be silent before its tasks are replaced; short, for tests.
pub const LOST_AFTER: &str = "3s";

/// Where a host is.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its address.
    pub address: String,
    /// What starts a program there: nothing for this one.
    pub enter: Vec<String>,
    port: u16,
    route_port: u16,
}

impl Host {
    /// This one, with ports of its own.
    pub fn loopback() -> Self {
        Self {
            address: "127.0.0.1".to_owned(),
            enter: Vec::new(),
            port: free_port(),
            route_port: free_port(),
        }
    }

    /// Another one, where the usual ports are free.
    pub fn at(address: &str, enter: &[&str]) -> Self {
        Self {
            address: address.to_owned(),
            enter: enter.iter().map(ToString::to_string).collect(),
            port: 4222,
            route_port: 6222,
        }
    }

    fn command(&self, program: &Path) -> Command {
        let mut words = self.enter.iter().map(PathBuf::from).chain([program.into()]);
        let mut command = Command::new(words.next().expect("at least the program"));
        command.args(words).stdin(Stdio::null());
        forget_bus(&mut command);
        command
    }
}

/// A cluster; all of it is ended when dropped.
#[derive(Debug)]
pub struct Hosts {
    directory: TempDir,
    places: Vec<Host>,
    running: BTreeMap<String, Child>,
    lost_after: &'static str,
}

impl Hosts {
    /// Makes the files for a server on each host, and the users ada and bob; starts nothing.
    ///
    /// # Panics
    /// When the files cannot be made.
    pub fn new(hosts: Vec<Host>) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("loom-hosts")
            .tempdir()
            .expect("a directory");
        let made = Self {
            directory,
            places: hosts,
            running: BTreeMap::new(),
            lost_after: LOST_AFTER,
        };
        let mut command = Command::new(loomctl());
        command.args(["bus", "init", "--user", "ada", "--user", "bob"]);
        for (number, host) in made.numbered() {
            command.arg(format!(
                "--server=n{number}={}:{}:{}",
                host.address, host.port, host.route_port
            ));
            command.arg(format!("--node=node-{number}"));
        }
        let said: Said = command
            .arg(made.path("bus"))
            .output()
            .expect("loomctl starts")
            .into();
        let said = said.expect_code(0);
        assert!(said.out.contains("LOOM_BUS=tls://"), "{}", said.out);
        made
    }

    /// With a longer time than [`LOST_AFTER`], in which a node can be started again.
    #[must_use]
    pub fn lost_after(mut self, time: &'static str) -> Self {
        self.lost_after = time;
        self
    }

    /// A place for files of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn numbered(&self) -> impl Iterator<Item = (usize, &Host)> {
        self.places
            .iter()
            .enumerate()
            .map(|(at, host)| (at + 1, host))
    }

    /// The bus, as clients are told.
    pub fn url(&self) -> String {
        let urls = self.places.iter();
        let urls = urls.map(|host| format!("tls://{}:{}", host.address, host.port));
        urls.collect::<Vec<_>>().join(",")
    }

    /// A file that clients need: `ca.crt` or somebody's credentials.
    pub fn client_file(&self, name: &str) -> PathBuf {
        self.path("bus/clients").join(name)
    }

    /// What tells a client of ours, or any that follows its example, which bus and as whom.
    pub fn environment(&self, user: &str) -> Vec<(&'static str, String)> {
        let file = |name: &str| self.client_file(name).display().to_string();
        vec![
            ("LOOM_BUS", self.url()),
            ("LOOM_TLS_CA", file("ca.crt")),
            ("LOOM_CREDS", file(&format!("{user}.creds"))),
        ]
    }

    /// Starts the NATS server of a host, from 1.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_server(&mut self, number: usize) {
        let own = self.path("bus/servers").join(format!("n{number}"));
        let mut command = self.places[number - 1].command(&nats_server());
        command.args(["-c", "nats-server.conf"]).current_dir(own);
        self.spawn(&format!("server-{number}"), command);
    }

    /// Has every server read its configuration again.
    pub fn reload_servers(&self) {
        let servers = self.running.iter();
        for (_, server) in servers.filter(|(name, _)| name.starts_with("server-")) {
            signal(server.id(), Signal::SIGHUP);
        }
    }

    /// What one of its processes has logged.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Starts a manager on a host.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_manager(&mut self, number: usize) {
        let name = format!("manager-{number}");
        let mut command = self.agent(number, "manager", &name);
        command
            .arg("--system-creds")
            .arg(self.client_file("system.creds"))
            .args(["--down-after", "2s"]);
        self.spawn(&name, command);
    }

    /// Starts a node on a host.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_node(&mut self, number: usize) {
        let name = format!("node-{number}");
        let first = 20_000 + number * 100;
        let mut command = self.agent(number, "node", &name);
        command
            .args(["--allow-process", "--stop-tasks", "--ports"])
            .arg(format!("{first}-{}", first + 99));
        self.spawn(&name, command);
    }

    fn agent(&self, number: usize, kind: &str, name: &str) -> Command {
        let login = match kind {
            "node" => format!("nodes/{name}"),
            _ => "loom".to_owned(),
        };
        let mut command = self.places[number - 1].command(&loomctl());
        command
            .args([kind, "start", "--name", name])
            .args(["--lost-after", self.lost_after])
            .arg("--data-dir")
            .arg(self.path(name))
            .envs(self.environment(&login))
            .env("LOOM_LOG", "info");
        command
    }

    fn spawn(&mut self, name: &str, mut command: Command) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")))
            .expect("a log file");
        let child = command
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        self.running.insert(name.to_owned(), child);
    }

    /// Starts a server on every host, managers on the first two and a node on each, and waits
    /// until all of it is there.
    pub fn start_all(&mut self) {
        let all: Vec<usize> = self.numbered().map(|(number, _)| number).collect();
        for number in &all {
            self.start_server(*number);
        }
        for number in 1..=2 {
            self.start_manager(number);
        }
        for number in &all {
            self.start_node(*number);
        }
        until("every manager and node is there", || {
            self.still_running();
            let managers = self.ctl("ada", &["manager", "ls", "-o", "name"]);
            let nodes = self.nodes_up();
            if managers.out.lines().count() == 2 && nodes.len() == all.len() {
                Ok(())
            } else {
                Err(format!("{managers:?}, {nodes:?}"))
            }
        });
    }

    /// What was started and has ended by itself is a failure at once.
    fn still_running(&mut self) {
        for (name, child) in &mut self.running {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("{name} ended with {status}");
            }
        }
    }

    /// Names of the nodes that are up.
    pub fn nodes_up(&self) -> Vec<String> {
        let said = self.ctl("ada", &["node", "ls", "-o", "json"]);
        let list: Value = serde_json::from_str(&said.out).unwrap_or_default();
        let nodes = list["items"].as_array().into_iter().flatten();
        nodes
            .filter(|node| node["node"]["status"] == "up")
            .filter_map(|node| node["node"]["name"].as_str().map(str::to_owned))
            .collect()
    }

    /// Runs `loomctl` on the first host as somebody.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn ctl(&self, user: &str, arguments: &[&str]) -> Said {
        self.ctl_with_input(user, arguments, "")
    }

    /// The same with something on standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn ctl_with_input(&self, user: &str, arguments: &[&str], input: &str) -> Said {
        let mut child = self.places[0]
            .command(&loomctl())
            .args(arguments)
            .envs(self.environment(user))
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

    /// A job as `status -o json` shows it; null if there is none.
    pub fn job(&self, name: &str) -> Value {
        let said = self.ctl("ada", &["status", name, "-o", "json"]);
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    /// The manager that leads, once one does.
    pub fn leader(&self) -> String {
        until("a manager leads", || {
            let said = self.ctl("ada", &["manager", "ls", "-o", "json"]);
            let list: Value = serde_json::from_str(&said.out).unwrap_or_default();
            let leads = |manager: &&Value| manager["role"] == "leader";
            let leader = list["items"].as_array().into_iter().flatten().find(leads);
            leader
                .and_then(|manager| manager["name"].as_str().map(str::to_owned))
                .ok_or_else(|| format!("{said:?}"))
        })
    }

    /// Ends something as `kill -9` does; true if it ran.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self, name: &str) {
        let mut child = self
            .running
            .remove(name)
            .unwrap_or_else(|| panic!("{name} does not run"));
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }
}

/// A port nobody listens on at this moment, below those that the kernel gives to outgoing
/// connections: nobody gets it by chance before it is used.
fn free_port() -> u16 {
    loop {
        let random = RandomState::new().build_hasher().finish();
        let port = 10_000 + u16::try_from(random % 10_000).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn nats_server() -> PathBuf {
    std::env::var_os("LOOM_NATS_SERVER")
        .map_or_else(|| checkout().join(".loom/bin/nats-server"), PathBuf::from)
        .canonicalize()
        .expect("scripts/nats-server.sh puts it into .loom/bin")
}

/// Processes that have the directory in their command line or environment, or work in it.
fn processes_of(directory: &Path) -> Vec<u32> {
    let wanted = directory.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) else {
            continue;
        };
        let holds = |name: &str| {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(&wanted)
        };
        let works = fs::read_link(entry.path().join("cwd")).is_ok_and(|p| p.starts_with(directory));
        if pid != std::process::id() && (works || holds("cmdline") || holds("environ")) {
            found.push(pid);
        }
    }
    found
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // Nodes first: they end their tasks.
        for prefix in ["node", "manager", "server"] {
            let of_kind = |name: &String| name.starts_with(prefix);
            let names: Vec<String> = self
                .running
                .keys()
                .filter(|n| of_kind(n))
                .cloned()
                .collect();
            let mut ended: Vec<Child> = Vec::new();
            for name in names {
                if let Some(mut child) = self.running.remove(&name) {
                    if matches!(child.try_wait(), Ok(None)) {
                        signal(child.id(), Signal::SIGTERM);
                    }
                    ended.push(child);
                }
            }
            for mut child in ended {
                let _ = child.wait();
            }
        }
        // The tasks of a node that was killed have nobody left to end them.
        for pid in processes_of(self.directory.path()) {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
        if std::thread::panicking() {
            let mut err = std::io::stderr().lock();
            for entry in fs::read_dir(self.directory.path())
                .into_iter()
                .flatten()
                .flatten()
            {
                if entry.path().extension().is_some_and(|e| e == "log") {
                    let log = fs::read_to_string(entry.path()).unwrap_or_default();
                    let _ = writeln!(err, "--- {}\n{log}", entry.path().display());
                }
            }
        }
    }
}
