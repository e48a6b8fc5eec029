//! What tests with containers share: whether there is an engine, an engine of one's own, a registry.
//!
//! The image is made by `scripts/docker.sh up`, which `make test` calls.

mod engine;
mod registry;

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::skip::skip;

pub use engine::OwnEngine;
pub use registry::Registry;

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

/// An image that is a web server on port 80 by itself; removed when dropped.
#[derive(Debug)]
pub struct WebImage(String);

impl WebImage {
    /// Makes it from the image of the tests.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn make() -> Self {
        let name = format!("loom-test/web-{}:1", std::process::id());
        let work = TempDir::new().expect("a directory");
        let page = work.path().join("index.html");
        std::fs::write(&page, "hello from a container\n").expect("a file");
        let container = docker(&["create", IMAGE]);
        let place = format!("{container}:/tmp/index.html");
        docker(&["cp", &page.display().to_string(), &place]);
        let program = r#"CMD ["httpd", "-f", "-p", "80", "-h", "/tmp"]"#;
        docker(&["commit", "--change", program, &container, &name]);
        docker(&["rm", &container]);
        Self(name)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for WebImage {
    fn drop(&mut self) {
        succeeds(&["image", "rm", "-f", &self.0]);
    }
}
