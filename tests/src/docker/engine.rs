//! A Docker Engine of a test's own.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{IMAGE, docker, docker_at, is_there};
use crate::skip::{run, skip};
use crate::wait::until;

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
        Self::start_on(live_restore, None)
    }

    /// The same on a disk of so many bytes, kept in memory.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_small(size: u64) -> Option<Self> {
        Self::start_on(true, Some(size))
    }

    fn start_on(live_restore: bool, size: Option<u64>) -> Option<Self> {
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
        if let Some(size) = size {
            fs::create_dir(engine.data()).expect("a directory");
            let mut mount = Command::new("mount");
            let mount = mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
            run(mount.arg(engine.data()));
        }
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

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Fills its disk but for so many bytes; what is returned frees it again.
    ///
    /// # Panics
    /// When it cannot be written to.
    pub fn fill(&self, but: u64) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new_in(self.data()).expect("a file");
        let zeros = vec![0; 64 * 1024];
        while file.write_all(&zeros).is_ok() {}
        let size = file.as_file().metadata().expect("its size").len();
        let kept = size.saturating_sub(but);
        file.as_file().set_len(kept).expect("a shorter file");
        file
    }

    /// A command that runs in its network.
    ///
    /// # Panics
    /// When it does not run.
    pub fn enter(&self, program: &Path) -> Command {
        let pid = self.child.as_ref().expect("it runs").id();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .arg(program);
        command
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
            .arg(self.data())
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
        run(self.enter("ip".as_ref()).args(["link", "set", "lo", "up"]));
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
        let mounts: Vec<_> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .collect();
        for mount in mounts.into_iter().rev() {
            if mount.starts_with(&root) {
                let _ = Command::new("umount").arg(mount).status();
            }
        }
        let _ = fs::remove_dir_all(exec);
    }
}
