//! A registry of a test's own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{IMAGE, OwnEngine, docker_at};
use crate::cluster::checkout;
use crate::skip::skip;
use crate::wait::until;

/// A registry on a free port of the loopback; ends when dropped.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub address: String,
    directory: TempDir,
    /// The engine that is on the same loopback; none for the usual one.
    engine: Option<PathBuf>,
    child: Child,
}

impl Registry {
    /// Starts one; with `password` only `ada` with that password gets in. None where the program is
    /// not there, which is said.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(password: Option<&str>) -> Option<Self> {
        Self::start_beside(None, password)
    }

    /// The same on the loopback of an engine of one's own.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_beside(engine: Option<&OwnEngine>, password: Option<&str>) -> Option<Self> {
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
        let mut command = match engine {
            Some(engine) => engine.enter(&program),
            None => Command::new(program),
        };
        let child = command
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let registry = Self {
            address,
            directory,
            engine: engine.map(OwnEngine::socket),
            child,
        };
        until("the registry listens", || registry.listens(port));
        Some(registry)
    }

    /// Whether it does, as its own network has it.
    fn listens(&self, port: u16) -> Result<(), String> {
        let table = format!("/proc/{}/net/tcp", self.child.id());
        let table = fs::read_to_string(table).map_err(|error| error.to_string())?;
        let port = format!(":{port:04X} 00000000:0000 0A");
        if table.contains(&port) {
            Ok(())
        } else {
            Err(table)
        }
    }

    fn docker(&self, arguments: &[&str]) -> String {
        docker_at(self.engine.as_deref(), arguments)
    }

    /// Puts the image of the tests into it under a name; the engine then has it no more.
    pub fn push(&self, name: &str) -> String {
        let image = format!("{}/{name}", self.address);
        self.docker(&["tag", IMAGE, &image]);
        self.docker(&["push", "-q", &image]);
        self.docker(&["image", "rm", &image]);
        image
    }

    /// The same as ada, with the logins of a `config.json` in a directory.
    pub fn push_as(&self, config: &Path, name: &str) -> String {
        let image = format!("{}/{name}", self.address);
        let config = config.display().to_string();
        self.docker(&["tag", IMAGE, &image]);
        self.docker(&["--config", &config, "push", "-q", &image]);
        self.docker(&["image", "rm", &image]);
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
        self.docker(&["import", &archive, &image]);
        self.docker(&["push", "-q", &image]);
        self.docker(&["image", "rm", &image]);
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
        if self.engine.is_some() {
            // Its images go with it.
            return;
        }
        let filter = format!("reference={}/*/*", self.address);
        let format = "{{.Repository}}:{{.Tag}}";
        let mut list = Command::new("docker");
        let Ok(listed) = list
            .args(["images", "--filter", &filter, "--format", format])
            .output()
        else {
            return;
        };
        for image in String::from_utf8_lossy(&listed.stdout).lines() {
            super::succeeds(&["image", "rm", image]);
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
