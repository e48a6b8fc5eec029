//! The client examples are run as their users would, with the libraries their lock files name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use loom_tests::cluster::{Dev, checkout};
use loom_tests::hosts::{Host, Hosts};
use loom_tests::skip::{run, skip, works};

/// Says on a machine that has Python and Node.js with a registry each that both must run.
const MUST: &str = "LOOM_REQUIRE_CLIENTS";

/// Where the examples' libraries are put: below `.loom`, once for each set of pinned versions.
fn installed(kind: &str, lock: &Path, install: impl FnOnce(&Path)) -> PathBuf {
    let stamp = digest_of(lock);
    let place = checkout().join(".loom/clients");
    fs::create_dir_all(&place).unwrap();
    let place = place
        .canonicalize()
        .unwrap()
        .join(format!("{kind}-{stamp}"));
    if !place.join("done").exists() {
        // Two tests may come here at once: each makes its own, the first one stays.
        let own = place.with_extension(std::process::id().to_string());
        let _ = fs::remove_dir_all(&own);
        fs::create_dir_all(&own).unwrap();
        install(&own);
        fs::write(own.join("done"), "").unwrap();
        if fs::rename(&own, &place).is_err() {
            fs::remove_dir_all(&own).unwrap();
        }
    }
    place
}

fn digest_of(path: &Path) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    fs::read(path).unwrap().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The Python example, ready to be run.
fn python() -> Command {
    let example = checkout().join("examples/clients/python");
    let lock = example.join("requirements.txt");
    let place = installed("python", &lock, |place| {
        let library = place.join("lib");
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args([
            "--no-warn-script-location",
            "--require-hashes",
            "--requirement",
        ])
        .arg(&lock)
        .arg("--target")
        .arg(library);
        run(&mut pip);
    });
    let mut command = Command::new("python3");
    command
        .arg(example.join("loom_client.py"))
        .env("PYTHONPATH", place.join("lib"));
    command
}

/// The JavaScript example, ready to be run.
fn javascript() -> Command {
    let example = checkout().join("examples/clients/javascript");
    let lock = example.join("package-lock.json");
    let place = installed("javascript", &lock, |place| {
        for file in ["package.json", "package-lock.json"] {
            fs::copy(example.join(file), place.join(file)).unwrap();
        }
        run(Command::new("npm")
            .args(["ci", "--silent", "--no-audit", "--no-fund"])
            .current_dir(place));
    });
    // A module finds its libraries from where it lies.
    let program = place.join(format!("loom_client-{}.mjs", std::process::id()));
    fs::copy(example.join("loom_client.mjs"), &program).unwrap();
    let mut command = Command::new("node");
    command.arg(program);
    command
}

/// What every example must have said.
fn check(mut command: Command, environment: &[(&str, String)]) {
    for name in ["LOOM_TLS_CA", "LOOM_CREDS"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let said = run(&mut command);
    for part in [
        ": created, version 1",
        ".main.0.running",
        "inspect: run ",
        "signal: sent to ",
        "got the signal",
        "pause: done in ",
        "resume: done in ",
        "refused as invalid: ",
        "did you mean `bash`?",
        "stopped: ",
    ] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
}

/// Both, against a cluster of one host without any credentials, and over TLS as a user.
fn on_both(example: fn() -> Command, user: &str) {
    let dev = Dev::start(&[]);
    check(example(), &[("LOOM_BUS", dev.bus.clone())]);
    drop(dev);
    let mut hosts = Hosts::new((0..3).map(|_| Host::loopback()).collect());
    hosts.start_all();
    check(example(), &hosts.environment(user));
    let jobs = hosts.ctl("ada", &["status", "-o", "json"]).json();
    let owners = jobs["items"].as_array().unwrap();
    assert!(
        owners.iter().all(|job| job["job"]["owner"] == user),
        "{jobs}"
    );
}

#[test]
fn the_python_client_is_true() {
    if !works(
        "python3",
        &["-c", "import sys, pip; sys.exit(sys.version_info < (3, 9))"],
    ) {
        return skip("the Python client", "no python3 with pip", MUST);
    }
    on_both(python, "ada");
}

#[test]
fn the_javascript_client_is_true() {
    let new = "process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)";
    if !works("node", &["-e", new]) || !works("npm", &["--version"]) {
        return skip("the JavaScript client", "no Node.js 18 with npm", MUST);
    }
    on_both(javascript, "bob");
}
