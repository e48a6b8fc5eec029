//! What tests with containers share: whether there is an engine, an engine of one's own, a registry.
//!
//! The image is made by `scripts/docker.sh up`, which `make test` calls.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::cluster::checkout;
use crate::skip::skip;
use crate::wait::until;

/// The image of the tests: busybox, with a user `worker`.
pub const IMAGE: &str = "loom-test/busybox:1";

/// Whether containers can be tested here; where not, that is said.
///
/// # Panics
/// When there is no engine and `LOOM_REQUIRE_DOCKER=1` says that there must be one.
pub fn is_there() -> bool {
    let engine = succeeds(&["version"]);
    let there = engine && succeeds(&["image", "inspect", IMAGE]);
    let missing = match (engine, there) {
        (_, true) => return true,
        (true, false) => "no image loom-test/busybox:1: run scripts/docker.sh up",
        (false, _) => "no Docker Engine",
    };
    skip("a test with containers", missing, "LOOM_REQUIRE_DOCKER");
    false
}

fn succeeds(arguments: &[&str]) -> bool {
    let mut docker = Command::new("docker");
    let docker = docker.args(arguments);
    let quiet = docker.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// What `docker` says to a command, trimmed.
///
/// # Panics
/// When it fails.
pub fn docker(arguments: &[&str]) -> String {
    docker_at(None, arguments)
}

fn docker_at(socket: Option<&Path>, arguments: &[&str]) -> String {
    let mut command = Command::new("docker");
    if let Some(socket) = socket {
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
    }
    let output = command.args(arguments).output().expect("docker runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Removes every container with a label.
pub fn remove_labelled(label: &str) {
    let filter = format!("label={label}");
    let listed = Command::new("docker")
        .args(["ps", "-aq", "--filter", &filter])
        .output();
    let Ok(listed) = listed else { return };
    let ids = String::from_utf8_lossy(&listed.stdout);
    let mut command = Command::new("docker");
    command.args(["rm", "-f"]).args(ids.split_whitespace());
    if !ids.trim().is_empty() {
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// A registry on a free port of the loopback; ends when dropped.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub address: String,
    directory: TempDir,
    child: Child,
}

impl Registry {
    /// Starts one; with `password` only `ada` with that password gets in. None where the program is
    /// not there, which is said.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(password: Option<&str>) -> Option<Self> {
        let program = checkout().join(".loom/packages/docker-registry/usr/bin/docker-registry");
        if !program.exists() {
            skip(
                "a test of pulls",
                "no docker-registry: run scripts/docker.sh up",
                "LOOM_REQUIRE_DOCKER",
            );
            return None;
        }
        let directory = TempDir::new().expect("a directory");
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let mut text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{address}\"}}\nlog: {{level: error}}\n",
            directory.path().join("data").display()
        );
        if let Some(password) = password {
            let file = directory.path().join("passwords");
            fs::write(&file, bcrypt_line(password)).expect("a file");
            let file = file.display();
            let _ = writeln!(text, "auth: {{htpasswd: {{realm: test, path: {file}}}}}");
        }
        let config = directory.path().join("config.yml");
        fs::write(&config, text).expect("a file");
        let log = File::create(directory.path().join("log")).expect("a file");
        let child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let registry = Self {
            address,
            directory,
            child,
        };
        until("the registry answers", || {
            std::net::TcpStream::connect(&registry.address).map_err(|error| error.to_string())
        });
        Some(registry)
    }

    /// Puts the image of the tests into it under a name; the engine then has it no more.
    pub fn push(&self, name: &str) -> String {
        let image = format!("{}/{name}", self.address);
        docker(&["tag", IMAGE, &image]);
        docker(&["push", "-q", &image]);
        docker(&["image", "rm", &image]);
        image
    }

    /// The same with an image that no engine has a part of.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn push_new(&self, name: &str) -> String {
        let image = format!("{}/{name}", self.address);
        let work = TempDir::new().expect("a directory");
        let file = work.path().join("random");
        let mut random = vec![0; 200_000];
        let mut source = File::open("/dev/urandom").expect("random bytes");
        std::io::Read::read_exact(&mut source, &mut random).expect("random bytes");
        fs::write(file, random).expect("a file");
        let archive = work.path().join("image.tar").display().to_string();
        let root = work.path().display().to_string();
        let mut tar = Command::new("tar");
        let packed = tar.args(["-C", &root, "-cf", &archive, "random"]).status();
        assert!(packed.is_ok_and(|status| status.success()), "tar");
        docker(&["import", &archive, &image]);
        docker(&["push", "-q", &image]);
        docker(&["image", "rm", &image]);
        image
    }

    /// Where it keeps what was pushed.
    pub fn blobs(&self) -> PathBuf {
        let data = self.directory.path().join("data");
        data.join("docker/registry/v2/blobs/sha256")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let filter = format!("reference={}/*/*", self.address);
        let listed = Command::new("docker")
            .args([
                "images",
                "-q",
                "--filter",
                &filter,
                "--format",
                "{{.Repository}}:{{.Tag}}",
            ])
            .output();
        let Ok(listed) = listed else { return };
        for image in String::from_utf8_lossy(&listed.stdout).lines() {
            succeeds(&["image", "rm", image]);
        }
    }
}

/// `ada` with a password that only this file knows the hash of.
fn bcrypt_line(password: &str) -> String {
    assert_eq!(password, "secret", "the one whose hash is here");
    "ada:$2b$05$INnUaSiGjtTFe5QvXDp2VeoLwRqrzD12bXFpw521SMAWXpmiWb8km\n".to_owned()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

/// A Docker Engine of a test's own, to be stopped and started; without networks of its own.
#[derive(Debug)]
pub struct OwnEngine {
    directory: TempDir,
    live_restore: bool,
    child: Option<Child>,
}

impl OwnEngine {
    /// Starts one with the image of the tests in it; none where that cannot be, which is said.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(live_restore: bool) -> Option<Self> {
        if !is_there() {
            return None;
        }
        let dockerd = Command::new("dockerd").arg("--version").output();
        if !nix::unistd::Uid::effective().is_root() || dockerd.is_err() {
            skip(
                "a test with an engine of its own",
                "no dockerd that this user may start",
                "LOOM_REQUIRE_DOCKER",
            );
            return None;
        }
        let directory = tempfile::Builder::new().prefix("loom-dockerd").tempdir();
        let mut engine = Self {
            directory: directory.expect("a directory"),
            live_restore,
            child: None,
        };
        engine.start_again();
        let archive = engine.directory.path().join("image.tar");
        let archive = archive.display().to_string();
        docker(&["save", "-o", &archive, IMAGE]);
        engine.docker(&["load", "-q", "-i", &archive]);
        Some(engine)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// What its `docker` says to a command.
    ///
    /// # Panics
    /// When it fails.
    pub fn docker(&self, arguments: &[&str]) -> String {
        docker_at(Some(&self.socket()), arguments)
    }

    /// Starts it on what it has, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_again(&mut self) {
        let path = |name: &str| self.directory.path().join(name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(path("log"))
            .expect("a log file");
        // In a network of its own: an engine without a bridge removes the host's `docker0`.
        let mut command = Command::new("unshare");
        command
            .args(["--net", "dockerd", "--host"])
            .arg(format!("unix://{}", self.socket().display()))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .args(["--bridge", "none", "--iptables=false"])
            .args(self.live_restore.then_some("--live-restore"))
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().expect("dockerd starts"));
        until("the engine answers", || {
            let child = self.child.as_mut().expect("it was started");
            if let Ok(Some(status)) = child.try_wait() {
                let log = fs::read_to_string(self.directory.path().join("log"));
                panic!("dockerd ended with {status}: {}", log.unwrap_or_default());
            }
            let socket = self.socket();
            let asked = Command::new("docker")
                .env("DOCKER_HOST", format!("unix://{}", socket.display()))
                .arg("version")
                .output();
            match asked {
                Ok(output) if output.status.success() => Ok(()),
                _ => Err("no answer".to_owned()),
            }
        });
    }

    /// Stops it, as the system does.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it lives");
        child.wait().expect("it ends");
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if self.child.is_none() {
            self.start_again();
        }
        let ids = self.docker(&["ps", "-aq"]);
        for id in ids.split_whitespace() {
            let socket = format!("unix://{}", self.socket().display());
            let mut command = Command::new("docker");
            let command = command.env("DOCKER_HOST", socket).args(["rm", "-f", id]);
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        self.stop();
        // Its own mounts keep the directory from being removed.
        let exec = self.directory.path().join("exec");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let root = self.directory.path().display().to_string();
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
            if mount.starts_with(&root) {
                let _ = Command::new("umount").arg(mount).status();
            }
        }
        let _ = fs::remove_dir_all(exec);
    }
}
