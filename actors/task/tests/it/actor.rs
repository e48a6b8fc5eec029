//! The task actor with the `sim` driver and a real server.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use loom_bus::call::CallError;
use loom_schemas::error::ErrorCode;
use loom_schemas::event::CommandEvent;
use loom_schemas::spec::{RestartOn, SimScript};
use loom_schemas::units::Millis;
use loom_schemas::wire::{Caller, CommandReply, Inspect, TaskCommand};
use loom_schemas::words::RunState;
use loom_task::driver::Driver;
use loom_task::driver::sim::SimDriver;
use loom_task::{CommandRequest, Progress, Verb};

use super::counting::Counting;
use super::world::{PATIENCE, SOON, World, sim, stopped, until};

fn forever() -> SimScript {
    SimScript::default()
}

fn short(exit: i32) -> SimScript {
    SimScript {
        run: Some(Millis(5)),
        exit,
        ..SimScript::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_is_told_things_and_is_stopped() {
    let world = World::new().await;
    let driver = Arc::new(SimDriver::new());
    let assigned = sim(forever());
    let mut events = world
        .client
        .subscribe("orch.events.command.>")
        .await
        .unwrap();
    let task = world.task(assigned.clone(), driver).await;
    let report = world.state(RunState::Running).await;
    assert_eq!(report.run, assigned.placement);
    assert_eq!(report.passed, [RunState::Preparing, RunState::Starting]);

    let row = world.signal("HUP").await;
    assert!(row.is_done(), "{row:?}");
    assert_eq!(
        (row.run, row.version, row.node.as_str()),
        (report.run, 7, "node-1")
    );
    let event = tokio::time::timeout(PATIENCE, events.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(event.subject, "orch.events.command.web.main.0");
    let event: CommandEvent = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(
        (event.verb.as_str(), event.result.as_str()),
        ("signal", "done")
    );
    assert_eq!(
        (event.run, event.args["signal"].as_str()),
        (report.run, Some("HUP"))
    );
    assert_eq!(event.by, "dev");

    assert!(world.ask("pause", &TaskCommand::default()).await.is_done());
    world.report(|report| report.marks.paused).await;
    let row = world.ask("inspect", &TaskCommand::default()).await;
    let inspect: Inspect = serde_json::from_value(row.value.unwrap()).unwrap();
    assert!(inspect.marks.paused && inspect.state == RunState::Running);
    assert!(world.ask("resume", &TaskCommand::default()).await.is_done());

    task.assign(stopped(assigned.clone()));
    let end = world.state(RunState::Killed).await;
    assert_eq!(end.reason.as_deref(), Some("stopped by alice"));
    assert!(!end.will_restart);
    until("the address is given up", async || {
        let (subject, empty) = ("orch.task.web.main.0.inspect", TaskCommand::default());
        let asked = world
            .client
            .call::<_, CommandReply>(subject, &empty, SOON)
            .await;
        matches!(asked, Err(CallError::NoResponders))
    })
    .await;
    task.forget();
    until("it is forgotten", async || world.forgotten()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_client_is_understood() {
    let world = World::new().await;
    let assigned = sim(forever());
    world
        .task(assigned.clone(), Arc::new(SimDriver::new()))
        .await;
    world.state(RunState::Running).await;
    let ask = async |subject: String, payload: &'static [u8]| {
        world
            .client
            .call_bytes(&subject, payload.into(), &[], PATIENCE)
            .await
    };
    let slot = |verb: &str| format!("orch.task.web.main.0.{verb}");
    let run = |verb: &str| format!("orch.run.{}.{verb}", assigned.placement);
    for (subject, payload) in [
        (slot("signal"), &b"HUP"[..]),
        (slot("signal"), b"SIGUSR1\n"),
        (slot("signal"), br#"{"signal": "10", "all": true}"#),
        (run("signal"), b"USR2"),
        (run("inspect"), b""),
        (slot("logs"), b"5"),
    ] {
        let reply = ask(subject.clone(), payload).await;
        let reply: CommandReply = reply.unwrap().decode().unwrap();
        assert!(reply.rows[0].is_done(), "{subject} {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_with_what_was_expected() {
    let world = World::new().await;
    world.task(sim(forever()), Arc::new(SimDriver::new())).await;
    world.state(RunState::Running).await;
    let slot = |verb: &str| format!("orch.task.web.main.0.{verb}");
    for (subject, payload, code, word) in [
        (
            slot("signal"),
            &b""[..],
            ErrorCode::Invalid,
            "is not a signal",
        ),
        (slot("signal"), b"RTMIN+1", ErrorCode::Invalid, "real-time"),
        (
            slot("signal"),
            b"{\"signal\": [",
            ErrorCode::Invalid,
            "cannot be read",
        ),
        (
            slot("signal"),
            b"\xde\xff\xff",
            ErrorCode::Invalid,
            "cannot be read",
        ),
        (
            slot("pause"),
            b"now",
            ErrorCode::Invalid,
            "no bare argument",
        ),
        (
            slot("logs"),
            b"many",
            ErrorCode::Invalid,
            "`many` is not a number of lines",
        ),
        (
            slot("fly"),
            b"",
            ErrorCode::Invalid,
            "a task takes signal, pause, resume",
        ),
        (slot("stop"), b"", ErrorCode::Invalid, "orch.job.stop"),
        (
            slot("exec"),
            b"",
            ErrorCode::NotYet,
            "`exec` is not built yet",
        ),
        (
            slot("attach"),
            b"",
            ErrorCode::NotYet,
            "`attach` is not built yet",
        ),
    ] {
        match world
            .client
            .call_bytes(&subject, payload.into(), &[], PATIENCE)
            .await
        {
            Err(CallError::Refused(error)) => {
                assert_eq!(error.code, code, "{subject}");
                assert!(error.message.contains(word), "{}", error.message);
            }
            other => panic!("{subject}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_comes_too_late_is_not_carried_out() {
    let world = World::new().await;
    world.task(sim(forever()), Arc::new(SimDriver::new())).await;
    world.state(RunState::Running).await;
    let late = [("Orch-Deadline", "2020-01-01T00:00:00Z".to_owned())];
    let subject = "orch.task.web.main.0.pause";
    let reply = world
        .client
        .call_bytes(subject, "".into(), &late, PATIENCE)
        .await;
    assert!(matches!(reply, Err(CallError::Refused(error)) if error.code == ErrorCode::Expired));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_comes_twice_is_carried_out_once() {
    let world = World::new().await;
    let driver = Arc::new(Counting::default());
    let task = world.task(sim(forever()), driver.clone()).await;
    world.state(RunState::Running).await;
    let id = [("Orch-Cmd-Id", "c-1".to_owned())];
    let subject = "orch.task.web.main.0.signal";
    for _ in 0..3 {
        let reply = world
            .client
            .call_bytes(subject, "HUP".into(), &id, PATIENCE)
            .await;
        let reply: CommandReply = reply.unwrap().decode().unwrap();
        assert!(reply.rows[0].is_done());
    }
    assert_eq!(driver.signals.load(Ordering::Relaxed), 1);
    let reply = world
        .client
        .call_bytes(subject, "USR1".into(), &id, PATIENCE)
        .await;
    let reply: CommandReply = reply.unwrap().decode().unwrap();
    let error = reply.rows[0].error.clone().unwrap();
    assert_eq!(error.code, ErrorCode::Conflict, "{error:?}");
    // The same id of somebody else is another command.
    let (reply, row) = ractor::concurrency::oneshot();
    task.command(CommandRequest {
        verb: Verb::Signal,
        command: TaskCommand {
            signal: Some("HUP".into()),
            ..TaskCommand::default()
        },
        caller: Caller {
            user: "ada".into(),
            detail: None,
        },
        deadline: None,
        command_id: Some("c-1".into()),
        reply: reply.into(),
    });
    assert!(row.await.unwrap().is_done());
    assert_eq!(driver.signals.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_are_restarted_as_the_task_says() {
    let world = World::new().await;
    let mut assigned = sim(short(3));
    assigned.task.restart.on = RestartOn::Any;
    assigned.task.restart.attempts = 4;
    world.task(assigned, Arc::new(SimDriver::new())).await;
    let last = world
        .report(|r| r.state == RunState::Failed && !r.will_restart)
        .await;
    assert_eq!(last.restarts, 3);
    assert_eq!(last.exit.unwrap().code, Some(3));
    let reports = world.reports();
    let ends = reports.iter().filter(|report| report.state.is_terminal());
    assert_eq!(ends.count(), 4);
    let runs: std::collections::BTreeSet<_> = reports.iter().map(|report| report.run).collect();
    assert_eq!(runs.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_error_is_a_rejection_with_its_reason() {
    let world = World::new().await;
    let script = SimScript {
        start: Millis(300),
        start_error: Some("no such image".into()),
        ..SimScript::default()
    };
    world.task(sim(script), Arc::new(SimDriver::new())).await;
    let end = world.state(RunState::Rejected).await;
    assert_eq!(end.reason.as_deref(), Some("no such image"));
    // A start that takes its time is told.
    assert_eq!(world.reports()[0].state, RunState::Starting);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_place_ends_the_run_and_starts_another() {
    let world = World::new().await;
    let mut assigned = sim(forever());
    let task = world
        .task(assigned.clone(), Arc::new(SimDriver::new()))
        .await;
    let first = world.state(RunState::Running).await;
    assigned.restart = 1;
    task.assign(assigned.clone());
    task.assign(assigned);
    let second = world
        .report(|r| r.state == RunState::Running && r.run != first.run)
        .await;
    assert_eq!(second.restarts, 1);
    let end = world.state(RunState::Killed).await;
    assert_eq!((end.run, end.will_restart), (first.run, true));
    assert_eq!(world.signal("HUP").await.run, second.run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_is_killed_costs_no_run() {
    let world = World::new().await;
    let driver = Arc::new(SimDriver::new());
    let assigned = sim(forever());
    let task = world.task(assigned.clone(), driver.clone()).await;
    let first = world.state(RunState::Running).await;
    assert!(world.ask("pause", &TaskCommand::default()).await.is_done());
    world.report(|report| report.marks.paused).await;
    task.actor().get_cell().kill_and_wait(None).await.unwrap();

    let mut arguments = world.arguments(assigned.clone(), driver.clone());
    arguments.adopt = Some(world.progress());
    let task = world.spawn(arguments).await;
    until("the new actor answers", async || {
        let (subject, empty) = ("orch.task.web.main.0.inspect", TaskCommand::default());
        let asked = world
            .client
            .call::<_, CommandReply>(subject, &empty, SOON)
            .await;
        asked.is_ok_and(|reply| reply.rows[0].run == first.run)
    })
    .await;
    let row = world.ask("inspect", &TaskCommand::default()).await;
    let inspect: Inspect = serde_json::from_value(row.value.unwrap()).unwrap();
    assert!(inspect.marks.paused);
    assert_eq!(inspect.started_at, first.started_at);
    assert_eq!(driver.inventory().await.unwrap(), [first.run]);
    task.assign(stopped(assigned));
    assert_eq!(world.state(RunState::Killed).await.run, first.run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_is_not_confirmed_in_time_is_what_the_driver_says() {
    let pause = async |takes_effect: bool| {
        let world = World::new().await;
        let driver = Arc::new(Counting {
            pause_hangs: Some(takes_effect),
            ..Counting::default()
        });
        let _task = world.task(sim(forever()), driver).await;
        world.state(RunState::Running).await;
        let row = world.ask("pause", &TaskCommand::default()).await;
        let error = row.error.unwrap();
        assert_eq!(error.code, ErrorCode::Failed);
        assert!(error.message.contains("did not answer"), "{error:?}");
        // It stands behind the pause in the lane, so what that came to is known by then.
        assert!(world.signal("HUP").await.is_done());
        let row = world.ask("inspect", &TaskCommand::default()).await;
        let inspect: Inspect = serde_json::from_value(row.value.unwrap()).unwrap();
        assert_eq!(inspect.marks.paused, takes_effect);
        assert_eq!(inspect.state, RunState::Running);
        let told = world.reports().iter().any(|report| report.marks.paused);
        assert_eq!(told, takes_effect, "the leader is told the same");
        assert!(world.ask("resume", &TaskCommand::default()).await.is_done());
        let row = world.ask("inspect", &TaskCommand::default()).await;
        let inspect: Inspect = serde_json::from_value(row.value.unwrap()).unwrap();
        assert!(!inspect.marks.paused);
    };
    // Each takes as long as a driver may, so both at once.
    tokio::join!(pause(true), pause(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_panics_is_an_error_and_no_end() {
    let world = World::new().await;
    let driver = Arc::new(Counting {
        panics: true,
        ..Counting::default()
    });
    world.task(sim(forever()), driver).await;
    world.state(RunState::Running).await;
    let row = world.signal("HUP").await;
    assert_eq!(row.code(), Some(ErrorCode::Internal));
    assert!(
        row.error
            .unwrap()
            .message
            .contains("the driver panicked: out of luck")
    );
    // The lane goes on.
    assert!(world.ask("pause", &TaskCommand::default()).await.is_done());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_which_nothing_is_left_has_failed() {
    let world = World::new().await;
    let assigned = sim(forever());
    let mut arguments = world.arguments(assigned.clone(), Arc::new(SimDriver::new()));
    let mut progress = Progress::first(assigned.placement);
    progress.state = RunState::Running;
    arguments.adopt = Some(progress);
    world.spawn(arguments).await;
    let end = world.state(RunState::Failed).await;
    assert!(end.reason.unwrap().starts_with("gone"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_carried_out_in_the_order_they_came() {
    let world = World::new().await;
    let driver = Arc::new(Counting::default());
    world.task(sim(forever()), driver.clone()).await;
    world.state(RunState::Running).await;
    let mut events = world
        .client
        .subscribe("orch.events.command.>")
        .await
        .unwrap();
    for number in 0..50_u32 {
        let verb = if number % 2 == 0 { "pause" } else { "resume" };
        let subject = format!("orch.task.web.main.0.{verb}");
        world
            .client
            .publish(&subject, "".into(), &[])
            .await
            .unwrap();
    }
    for number in 0..50_u32 {
        let event = tokio::time::timeout(PATIENCE, events.next())
            .await
            .unwrap()
            .unwrap();
        let event: CommandEvent = serde_json::from_slice(&event.payload).unwrap();
        let expected = if number % 2 == 0 { "pause" } else { "resume" };
        assert_eq!(
            (event.verb.as_str(), event.result.as_str()),
            (expected, "done")
        );
    }
}

/// Prints what a signal costs over a bare round trip; times are not asserted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_signal_costs() {
    let world = World::new().await;
    world.task(sim(forever()), Arc::new(SimDriver::new())).await;
    world.state(RunState::Running).await;
    world.signal("HUP").await;
    let mut bare: Vec<Duration> = Vec::new();
    let mut signals: Vec<Duration> = Vec::new();
    for _ in 0..500 {
        bare.push(world.client.round_trip().await.unwrap());
        let begun = Instant::now();
        assert!(world.signal("HUP").await.is_done());
        signals.push(begun.elapsed());
    }
    bare.sort();
    signals.sort();
    eprintln!("p50: bare {:?}, signal {:?}", bare[250], signals[250]);
}
