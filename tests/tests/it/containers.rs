//! Containers as a user has them: three hosts with parts killed, troubles, logins.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use loom_tests::cluster::{Dev, Said};
use loom_tests::docker::{IMAGE, OwnEngine, Registry, WebImage, docker, is_there, remove_labelled};
use loom_tests::hosts::{Host, Hosts};
use loom_tests::wait::until;
use serde_json::Value;

/// Removes what a node that was killed cannot, when dropped.
struct Containers(String);

impl Containers {
    fn of(job: &str) -> Self {
        Self(format!("loom.job={job}"))
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        remove_labelled(&self.0);
    }
}

/// One running container of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replica {
    index: u64,
    node: String,
    run: String,
    pid: u64,
    /// The engine's id of the container.
    id: String,
    port: u64,
}

fn replicas(job: &Value) -> Vec<Replica> {
    let slots = job["slots"].as_array().into_iter().flatten();
    let of = |slot: &Value| {
        let run = &slot["current"];
        let name = format!("loom-{}", run["run"].as_str()?);
        let mut command = Command::new("docker");
        let shown = command.args(["inspect", "-f", "{{.Id}} {{.State.Running}}", &name]);
        let shown: Said = shown.output().ok()?.into();
        let (id, running) = shown.out.trim().split_once(' ')?;
        (running == "true").then_some(())?;
        Some(Replica {
            index: slot["slot"]["index"].as_u64()?,
            node: run["node"].as_str()?.to_owned(),
            run: run["run"].as_str()?.to_owned(),
            pid: run["pid"].as_u64()?,
            id: id.to_owned(),
            port: run["ports"]["http"].as_u64()?,
        })
    };
    slots.filter_map(of).collect()
}

/// Waits until three are healthy, their containers run, and `holds` of them.
fn whole(hosts: &Hosts, job: &str, what: &str, holds: impl Fn(&[Replica]) -> bool) -> Vec<Replica> {
    until(&format!("3/3 healthy: {what}"), || {
        let view = hosts.job(job);
        let found = replicas(&view);
        if view["summary"]["healthy"] == 3 && found.len() == 3 && holds(&found) {
            Ok(found)
        } else {
            Err(format!("{found:?} {view}"))
        }
    })
}

fn answers(port: u64) -> bool {
    use std::io::{Read as _, Write as _};
    let port = u16::try_from(port).unwrap();
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let mut answer = String::new();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.contains("hello from a container")
}

/// The service of five lines.
fn web(name: &str, image: &str) -> String {
    format!("name: {name}\nimage: {image}\nreplicas: 3\nports: {{http: 80}}\nhealth: {{http: /}}\n")
}

#[test]
fn the_web_job_on_three_hosts_outlives_what_is_killed_of_it() {
    if !is_there() {
        return;
    }
    let image = WebImage::make();
    let job = format!("web-{}", std::process::id());
    let job = job.as_str();
    let _left = Containers::of(job);
    let mut hosts = Hosts::new((0..3).map(|_| Host::loopback()).collect()).lost_after("12s");
    hosts.start_all();
    let said = hosts
        .ctl_with_input("ada", &["run", "-"], &web(job, image.name()))
        .expect_code(0);
    assert!(said.err.contains("3/3 healthy"), "{}", said.err);
    let first = whole(&hosts, job, "at first", |all| {
        all.iter().all(|replica| answers(replica.port))
    });
    let nodes: Vec<_> = first.iter().map(|replica| &replica.node).collect();
    for node in ["node-1", "node-2", "node-3"] {
        assert!(nodes.iter().any(|other| *other == node), "{nodes:?}");
    }
    commands(&hosts, job, &first);

    // The agent of a node: its containers do not notice, and the next agent goes on with them.
    hosts.kill("node-2");
    for replica in &first {
        let state = docker(&[
            "inspect",
            "-f",
            "{{.State.Running}} {{.State.Pid}}",
            &replica.id,
        ]);
        assert_eq!(state, format!("true {}", replica.pid));
    }
    hosts.start_node(2);
    whole(&hosts, job, "under the next agent", |all| all == first);
    // The managers may not have noticed that the agent was gone.
    until("all three answer", || {
        let shown = hosts.ctl("ada", &["inspect", job, "-o", "wide"]);
        let there = |replica: &Replica| shown.out.contains(&replica.id[..12]);
        if first.iter().all(there) {
            Ok(())
        } else {
            Err(format!("{shown:?}"))
        }
    });

    let leader = hosts.leader();
    hosts.kill(&leader);
    assert_ne!(hosts.leader(), leader);
    whole(&hosts, job, "under the next leader", |all| all == first);

    by_hand(&hosts, job, &first);

    // A host that is gone for good, as far as anybody can tell.
    hosts.kill("node-3");
    whole(&hosts, job, "without the third host", |all| {
        all.iter()
            .all(|replica| replica.node != "node-3" && answers(replica.port))
    });
    hosts.start_node(3);
    until("what it still had is ended", || {
        let filter = format!("label=loom.job={job}");
        let label = "label=loom.node=node-3";
        let left = docker(&["ps", "-q", "--filter", &filter, "--filter", label]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    hosts.ctl("ada", &["stop", job]).expect_code(0);
    until("no container is left", || {
        let filter = format!("label=loom.job={job}");
        let left = docker(&["ps", "-aq", "--filter", &filter]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

/// Runtime commands to containers, one row a task.
fn commands(hosts: &Hosts, job: &str, first: &[Replica]) {
    let ctl = |arguments: &[&str]| hosts.ctl("ada", arguments).expect_code(0);
    let address = format!("{job}/1");
    let said = ctl(&["signal", job, "WINCH"]);
    assert_eq!(said.out.lines().count(), 4, "{}", said.out);
    ctl(&["pause", &address]);
    let second = first.iter().find(|replica| replica.index == 1).unwrap();
    let state = || docker(&["inspect", "-f", "{{.State.Status}}", &second.id]);
    assert_eq!(state(), "paused");
    assert!(ctl(&["status", job]).out.contains("paused"));
    ctl(&["resume", &address]);
    assert_eq!(state(), "running");
    let said = ctl(&["stats", job, "-o", "json"]).json();
    let rows = said["items"].as_array().unwrap();
    let memory = |row: &&Value| {
        row["value"]["memory"]
            .as_u64()
            .is_some_and(|memory| memory > 0)
    };
    assert_eq!(rows.iter().filter(memory).count(), 3, "{said}");
    let shown = ctl(&["status", job, "-o", "wide"]).out;
    assert_eq!(shown.matches("sha256:").count(), 3, "{shown}");
    ctl(&["logs", job]);
}

/// What somebody does to containers behind Loom's back is mended, and said.
fn by_hand(hosts: &Hosts, job: &str, first: &[Replica]) {
    for (index, arguments) in [(0, ["kill"].as_slice()), (1, &["rm", "-f"])] {
        let replica = first.iter().find(|replica| replica.index == index).unwrap();
        docker(&[arguments, &[replica.id.as_str()]].concat());
        let now = whole(hosts, job, "after it was killed by hand", |all| {
            all.iter()
                .any(|now| now.index == index && now.run != replica.run)
        });
        let now = now.iter().find(|now| now.index == index).unwrap();
        assert!(answers(now.port), "{now:?}");
        let address = format!("{job}/{index}");
        let shown = hosts.ctl("ada", &["status", &address]).expect_code(0);
        assert!(shown.out.contains("somebody else"), "{}", shown.out);
    }
}

#[test]
fn a_script_whose_image_lacks_its_interpreter_says_so() {
    if !is_there() {
        return;
    }
    let dev = Dev::start(&[]);
    for (kind, program) in [("bash", "bash"), ("python", "python3"), ("go", "go")] {
        let job = format!(
            "name: {kind}\nkind: batch\nimage: {IMAGE}\n{kind}: print\nrestart: never\n\
             network: none\n"
        );
        let said = dev.run(&job, &[]).expect_code(1);
        let why = format!("program `{program}` was not found in image `{IMAGE}`");
        assert!(said.err.contains(&why), "{}", said.err);
    }
    // What the image has can stand in, and the script is put there.
    let job = format!(
        "name: right\nkind: batch\nimage: {IMAGE}\ncommand: [sh, -eu]\nbash: echo at $0\n\
         network: none\n"
    );
    let said = dev.run(&job, &["--once"]).expect_code(0);
    assert!(said.out.contains("at /loom/script.sh"), "{}", said.out);
}

#[test]
fn while_the_engine_is_away_its_tasks_are_unknown_and_then_found_again() {
    let Some(mut engine) = OwnEngine::start(true) else {
        return;
    };
    let host = format!("unix://{}", engine.socket().display());
    let dev = Dev::start_with(&[], &[("DOCKER_HOST", &host)]);
    let job = format!(
        "name: web\nimage: {IMAGE}\ncommand: [sh, -c, 'while :; do sleep 0.1; done']\n\
         network: none\nstop: {{signal: KILL}}\nhealth: {{exec: ['true'], interval: 200ms}}\n"
    );
    dev.run(&job, &[]).expect_code(0);
    let before = dev.job("web")["slots"][0]["current"].clone();
    engine.stop();
    until("it is unknown", || {
        let job = dev.job("web");
        let run = &job["slots"][0]["current"];
        let unknown = run["marks"]["unknown"] == true && run["health"]["status"] == "unknown";
        if unknown {
            Ok(())
        } else {
            Err(job.to_string())
        }
    });
    let shown = dev.ctl(&["status", "web"]).expect_code(0).out;
    assert!(
        shown.contains("is away") || shown.contains("no Docker Engine"),
        "{shown}"
    );
    assert!(shown.contains("unknown"), "{shown}");
    // The kernel needs no engine to deliver a signal.
    dev.ctl(&["signal", "web/0", "WINCH"]).expect_code(0);
    let said = dev.ctl(&["pause", "web/0"]).expect_code(3);
    assert!(said.out.contains("Docker Engine"), "{said:?}");
    engine.start_again();
    until("it is known again", || {
        let job = dev.job("web");
        let run = &job["slots"][0]["current"];
        let same = ["run", "pid", "started_at"]
            .iter()
            .all(|key| run[key] == before[key]);
        let known = run["marks"]["unknown"] != true && run["health"]["status"] == "healthy";
        let same = same && run["reason"].is_null();
        if same && known {
            Ok(())
        } else {
            Err(job.to_string())
        }
    });
    dev.ctl(&["stop", "web"]).expect_code(0);
    dev.wait_for_job("web", "killed");
}

/// A `config.json` of Docker's with this content.
fn configure(directory: &Path, config: &Value) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn a_login_of_docker_or_of_a_helper_of_its_opens_a_registry() {
    if !is_there() {
        return;
    }
    let Some(registry) = Registry::start(Some("secret")) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let (config, programs) = (
        directory.path().join("docker"),
        directory.path().join("bin"),
    );
    let login = |auth: &str| serde_json::json!({"auths": {&registry.address: {"auth": auth}}});
    // ada:secret, as `docker login` writes it
    configure(&config, &login("YWRhOnNlY3JldA=="));
    let image = registry.push_as(&config, "team/app:1");
    fs::create_dir(&programs).unwrap();
    let helper = programs.join("docker-credential-mine");
    let script = format!(
        "#!/bin/sh\nread server\n[ \"$1 $server\" = 'get {}' ] || {{ echo locked; exit 1; }}\n\
         test -e {}/locked && {{ echo the store is locked; exit 1; }}\n\
         echo '{{\"ServerURL\":\"\",\"Username\":\"ada\",\"Secret\":\"secret\"}}'\n",
        registry.address,
        programs.display()
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let docker_config = config.display().to_string();
    let dev = Dev::start_with(&[], &[("DOCKER_CONFIG", &docker_config), ("PATH", &path)]);
    let run = |name: &str| {
        let job = format!(
            "name: {name}\nkind: batch\nimage: {{name: '{image}', pull: always}}\n\
             command: ['true']\nrestart: never\nnetwork: none\n"
        );
        dev.run(&job, &[])
    };
    run("right").expect_code(0);
    // ada:wrong
    configure(&config, &login("YWRhOndyb25n"));
    let refused = format!("docker login {}", registry.address);
    let said = run("wrong").expect_code(1);
    assert!(said.err.contains(&refused), "{}", said.err);
    configure(&config, &serde_json::json!({}));
    let said = run("without").expect_code(1);
    assert!(said.err.contains(&refused), "{}", said.err);
    configure(
        &config,
        &serde_json::json!({"credHelpers": {&registry.address: "mine"}}),
    );
    run("helped").expect_code(0);
    fs::write(programs.join("locked"), "").unwrap();
    let said = run("locked").expect_code(1);
    let why = "`docker-credential-mine` failed: the store is locked";
    assert!(said.err.contains(why), "{}", said.err);
    configure(&config, &serde_json::json!({"credsStore": "nobodys"}));
    let said = run("nobodys").expect_code(1);
    assert!(
        said.err
            .contains("helper `docker-credential-nobodys` cannot be run"),
        "{}",
        said.err
    );
    assert!(!dev.log().contains("secret"), "no secret is logged");
    docker(&["image", "rm", &image]);
}
