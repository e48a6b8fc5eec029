//! Health checks of real runs: played, by program, and over the network.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use loom_schemas::ids::Name;
use loom_schemas::spec::{HealthCheck, HealthSpec, RestartOn, SimScript};
use loom_schemas::units::Millis;
use loom_schemas::wire::{Assigned, Inspect, RunReport, TaskCommand};
use loom_schemas::words::{HealthStatus, RunState};
use loom_task::driver::sim::SimDriver;

use super::counting::Counting;
use super::whole::Processes;
use super::world::{World, bash, sim, until};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn quick(check: HealthCheck) -> HealthSpec {
    HealthSpec {
        check,
        interval: Millis(100),
        timeout: Millis(2_000),
        retries: 2,
        start_period: Millis(60_000),
    }
}

fn exec(script: &str) -> HealthCheck {
    HealthCheck::Exec(["sh", "-c", script].map(str::to_owned).to_vec())
}

fn http() -> HealthCheck {
    HealthCheck::Http {
        path: "/${task.name}".into(),
        port: name("http"),
    }
}

fn is(status: HealthStatus) -> impl Fn(&RunReport) -> bool {
    move |report| {
        report
            .health
            .as_ref()
            .is_some_and(|health| health.status == status)
    }
}

/// A port nobody listens on now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A web server that answers with what stands in the file `status` beside it.
fn server(port: u16, status: &Path) -> Assigned {
    let script = format!(
        r#"exec python3 -c '
import http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(open("{}").read()) if self.path == "/main" else 404)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", {port}), Answer).serve_forever()
'"#,
        status.display()
    );
    let mut assigned = bash(&script);
    assigned.ports.insert(name("http"), port);
    assigned
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_played_run_becomes_healthy_and_unhealthy_and_is_restarted() {
    let world = World::new().await;
    let mut assigned = sim(SimScript {
        healthy_after: Millis(300),
        unhealthy_after: Some(Millis(2_500)),
        ..SimScript::default()
    });
    assigned.task.health = Some(quick(http()));
    assigned.ports.insert(name("http"), 20_001);
    assigned.task.restart.on = RestartOn::Any;
    assigned.task.restart.attempts = 2;
    world.task(assigned, Arc::new(SimDriver::new())).await;
    let end = world.state(RunState::Failed).await;
    assert!(end.will_restart);
    let unhealthy = "unhealthy: http GET /main on port 20001: no longer after 2s 500ms";
    assert_eq!(end.reason.as_deref(), Some(unhealthy));
    let reports = world.reports();
    let of_run = reports.iter().filter(|report| report.run == end.run);
    let mut told: Vec<_> = of_run
        .map(|report| {
            (
                report.state,
                report.health.as_ref().map(|health| health.status),
            )
        })
        .collect();
    told.dedup();
    let running = |status| (RunState::Running, Some(status));
    assert_eq!(
        told,
        [
            running(HealthStatus::Pending),
            running(HealthStatus::Healthy),
            running(HealthStatus::Unhealthy),
            (RunState::Failed, None),
        ]
    );
    // The next run begins anew.
    world
        .report(|report| report.restarts == 1 && is(HealthStatus::Healthy)(report))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_server_is_asked_over_http() {
    let world = World::new().await;
    let processes = Processes::new(world.dir.path());
    let status = world.dir.path().join("status");
    std::fs::write(&status, "500").unwrap();
    let port = free_port();
    let mut assigned = server(port, &status);
    assigned.task.health = Some(quick(http()));
    world.task(assigned, processes.driver()).await;
    let answered = format!("http GET /main on port {port}: 500");
    let says = |report: &RunReport| {
        let health = report.health.as_ref();
        health.is_some_and(|health| health.reason.as_ref() == Some(&answered))
    };
    // The first reason may be that nobody listened yet; another is told a while later.
    until("the answer or the refusal is told", async || {
        let reports = world.reports();
        let reason =
            |report: &RunReport| report.health.as_ref().is_some_and(|h| h.reason.is_some());
        reports.iter().any(|report| says(report) || reason(report))
    })
    .await;
    std::fs::write(&status, "204").unwrap();
    world.report(is(HealthStatus::Healthy)).await;
    std::fs::write(&status, "503").unwrap();
    let report = world.report(is(HealthStatus::Unhealthy)).await;
    let reason = report.health.unwrap().reason.unwrap();
    assert_eq!(reason, format!("http GET /main on port {port}: 503"));
    // It is never restarted, so it goes on, and may become healthy again.
    std::fs::write(&status, "200").unwrap();
    let healthy = |report: &RunReport| is(HealthStatus::Healthy)(report);
    until("it is healthy again", async || {
        world.reports().last().is_some_and(healthy)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_is_asked_in_the_run() {
    let world = World::new().await;
    let processes = Processes::new(world.dir.path());
    let mut assigned = bash("touch ready; exec sleep 300");
    assigned.task.env.insert("COLOUR".into(), "red".into());
    assigned.task.health = Some(quick(exec(
        "test $COLOUR = red -a -e ready || { echo not yet; exit 3; }",
    )));
    let task = world.task(assigned.clone(), processes.driver()).await;
    world.report(is(HealthStatus::Healthy)).await;
    let row = world.ask("inspect", &TaskCommand::default()).await;
    let inspect: Inspect = serde_json::from_value(row.value.unwrap()).unwrap();
    assert!(inspect.health.unwrap().is_healthy());
    // Another check takes the place of the first, and the run goes on.
    assigned.task.health = Some(quick(exec("echo no; exit 3")));
    task.assign(assigned);
    let report = world.report(is(HealthStatus::Unhealthy)).await;
    let reason = report.health.unwrap().reason.unwrap();
    assert_eq!(reason, "exec sh: exit code 3: no");
    assert_eq!(report.run, world.reports()[0].run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_run_is_not_checked() {
    let world = World::new().await;
    let driver = Arc::new(Counting::default());
    let mut assigned = sim(SimScript::default());
    assigned.task.health = Some(quick(exec("true")));
    world.task(assigned, driver.clone()).await;
    world.report(is(HealthStatus::Healthy)).await;
    assert!(world.ask("pause", &TaskCommand::default()).await.is_done());
    world.report(|report| report.marks.paused).await;
    let checks = || driver.checks.load(Ordering::Relaxed);
    let before = checks();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(checks(), before);
    assert!(world.ask("resume", &TaskCommand::default()).await.is_done());
    until("it is checked again", async || checks() > before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_run_goes_on_being_checked() {
    let world = World::new().await;
    let driver = Arc::new(SimDriver::new());
    let mut assigned = sim(SimScript {
        unhealthy_after: Some(Millis(3_000)),
        ..SimScript::default()
    });
    assigned.task.health = Some(quick(exec("true")));
    let task = world.task(assigned.clone(), driver.clone()).await;
    world.report(is(HealthStatus::Healthy)).await;
    task.actor().kill();
    let mut arguments = world.arguments(assigned, driver);
    arguments.adopt = Some(world.progress());
    let before = world.reports().len();
    world.spawn(arguments).await;
    world.report(is(HealthStatus::Unhealthy)).await;
    // It was healthy all the time as far as anybody was told.
    assert!(
        !world.reports()[before..]
            .iter()
            .any(is(HealthStatus::Pending))
    );
}
