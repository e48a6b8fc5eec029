//! The whole path: commands and output on the bus, real processes under their shims.

use std::path::Path;
use std::sync::Arc;

use loom_bus::connection::Messages;
use loom_bus::logs::{LogBlock, end_of, source_of};
use loom_schemas::ids::RunId;
use loom_schemas::spec::{RestartOn, TimeoutSpec, TimeoutWarning};
use loom_schemas::units::{Bytes, Millis};
use loom_schemas::wire::{Inspect, LogEnd, LogLine, LogLines, TaskCommand};
use loom_schemas::words::RunState;
use loom_task::driver::Driver;
use loom_task::driver::process::{ProcessDriver, ProcessOptions};
use nix::sys::signal::Signal;

use super::world::{PATIENCE, SOON, World, bash, stopped, until};

/// A process driver whose processes end with the test.
pub(crate) struct Processes(ProcessDriver);

impl Processes {
    pub(crate) fn new(directory: &Path) -> Self {
        Self(driver(directory))
    }

    pub(crate) fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(self.0.clone())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let driver = self.0.clone();
        let killing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                for run in driver.inventory().await.unwrap_or_default() {
                    let _ = driver.signal(run, Signal::SIGKILL, true).await;
                }
            });
        });
        let _ = killing.join();
    }
}

fn driver(directory: &Path) -> ProcessDriver {
    let mut options = ProcessOptions::new(directory);
    options.shim = Some(env!("CARGO_BIN_EXE_loom-shim").into());
    ProcessDriver::new(options).unwrap()
}

/// Output as it comes over the bus, told apart by offset.
struct Shipped {
    messages: Messages,
    lines: Vec<LogLine>,
    ends: Vec<LogEnd>,
}

impl Shipped {
    async fn of(world: &World) -> Self {
        let messages = world.client.subscribe("orch.logs.>").await.unwrap();
        Self {
            messages,
            lines: Vec::new(),
            ends: Vec::new(),
        }
    }

    fn take(&mut self, message: &loom_bus::connection::Message) {
        let block = LogBlock::decode(|name| message.headers.get(name), &message.payload).unwrap();
        let (slot, node, stream) = source_of(&message.subject).unwrap();
        assert_eq!(
            (slot.to_string().as_str(), node.as_str()),
            ("web/0", "node-1")
        );
        self.ends
            .extend(end_of(|name| message.headers.get(name), stream));
        for line in block.into_lines(&slot, stream) {
            let same = |l: &&LogLine| {
                (l.run, &l.stream, l.offset) == (line.run, &line.stream, line.offset)
            };
            match self.lines.iter().find(same) {
                Some(known) => assert_eq!(known.text, line.text, "an offset is one line"),
                None => self.lines.push(line),
            }
        }
    }

    /// Waits until these are the texts of a run's stream.
    async fn until(&mut self, run: RunId, stream: &str, expected: &[String]) {
        let waiting = async {
            while self.texts(run, stream) != expected {
                let message = self.messages.next().await.unwrap();
                self.take(&message);
            }
        };
        let late = tokio::time::timeout(PATIENCE, waiting).await.is_err();
        assert!(
            !late,
            "expected {expected:?}, found {:?}",
            self.texts(run, stream)
        );
    }

    /// Waits until both streams of a run have ended, and says after how many bytes.
    async fn ended(&mut self, run: RunId) -> [u64; 2] {
        let of = |ends: &[LogEnd], stream: &str| {
            let mut ends = ends.iter();
            ends.find(|end| end.run == run && end.stream == stream)
                .map(|end| end.offset)
        };
        let waiting = async {
            loop {
                let streams = ["stdout", "stderr"].map(|stream| of(&self.ends, stream));
                if let [Some(stdout), Some(stderr)] = streams {
                    return [stdout, stderr];
                }
                let message = self.messages.next().await.unwrap();
                self.take(&message);
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("both streams end")
    }

    fn texts(&self, run: RunId, stream: &str) -> Vec<String> {
        let mut lines: Vec<_> = self
            .lines
            .iter()
            .filter(|l| l.run == run && l.stream == stream)
            .collect();
        lines.sort_by_key(|line| line.offset);
        lines.into_iter().map(|line| line.text.clone()).collect()
    }
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn logs(world: &World, count: u32) -> Vec<String> {
    let command = TaskCommand {
        tail: Some(count),
        ..TaskCommand::default()
    };
    let row = world.ask("logs", &command).await;
    let lines: LogLines = serde_json::from_value(row.value.unwrap()).unwrap();
    lines.lines.into_iter().map(|line| line.text).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_traps_a_signal_prints_and_stops_when_asked() {
    let world = World::new().await;
    let processes = Processes::new(world.dir.path());
    let mut shipped = Shipped::of(&world).await;
    let assigned = bash(
        "trap 'echo hup' HUP; trap 'echo bye >&2; exit 0' TERM\n\
         echo I am ${job.name}/${task.index} on $LOOM_NODE; \
         while :; do sleep 0.02; done",
    );
    let task = world.task(assigned.clone(), processes.driver()).await;
    let report = world.state(RunState::Running).await;
    assert!(report.pid.is_some());
    shipped
        .until(report.run, "stdout", &texts(&["I am web/0 on node-1"]))
        .await;
    assert!(world.signal("HUP").await.is_done());
    shipped
        .until(
            report.run,
            "stdout",
            &texts(&["I am web/0 on node-1", "hup"]),
        )
        .await;
    assert_eq!(logs(&world, 1).await, ["hup"]);
    task.assign(stopped(assigned));
    let end = world.state(RunState::Killed).await;
    assert_eq!(end.exit.unwrap().code, Some(0));
    shipped.until(report.run, "stderr", &texts(&["bye"])).await;
    assert_eq!(shipped.ended(report.run).await, [25, 4]);
    task.forget();
    until("it is forgotten", async || world.forgotten()).await;
    assert!(processes.0.inventory().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_process_stands_still_and_can_be_stopped() {
    let world = World::new().await;
    let processes = Processes::new(world.dir.path());
    let assigned = bash("trap 'exit 0' TERM; n=0; while :; do echo $((n++)); sleep 0.01; done");
    let task = world.task(assigned.clone(), processes.driver()).await;
    world.state(RunState::Running).await;
    until("it prints", async || !logs(&world, 1).await.is_empty()).await;
    assert!(world.ask("pause", &TaskCommand::default()).await.is_done());
    until("it stands still", async || {
        let before = logs(&world, 1).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        before == logs(&world, 1).await
    })
    .await;
    let still = logs(&world, 1).await;
    assert!(world.ask("resume", &TaskCommand::default()).await.is_done());
    until("it goes on", async || logs(&world, 1).await != still).await;
    assert!(world.ask("pause", &TaskCommand::default()).await.is_done());
    task.assign(stopped(assigned));
    let end = world.state(RunState::Killed).await;
    assert_eq!(
        end.exit.unwrap().code,
        Some(0),
        "it was thawed to end by itself"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ignores_the_stop_is_killed_after_its_grace() {
    let world = World::new().await;
    let processes = Processes::new(world.dir.path());
    let mut assigned = bash("trap '' TERM; echo ready; while :; do sleep 0.02; done");
    assigned.task.stop.grace = Millis(200);
    let task = world.task(assigned.clone(), processes.driver()).await;
    world.state(RunState::Running).await;
    until("it is ready", async || logs(&world, 1).await == ["ready"]).await;
    task.assign(stopped(assigned));
    let end = world.state(RunState::Killed).await;
    assert_eq!(end.exit.unwrap().signal, Some(9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_limit_warns_and_then_ends_it() {
    let world = World::new().await;
    let processes = Processes::new(world.dir.path());
    let mut shipped = Shipped::of(&world).await;
    let mut assigned = bash("trap 'echo warned' USR1; while :; do sleep 0.02; done");
    assigned.task.timeout = Some(TimeoutSpec {
        after: Millis(1_500),
        warn: Some(TimeoutWarning {
            signal: "USR1".into(),
            before: Millis(1_000),
        }),
    });
    world.task(assigned, processes.driver()).await;
    let end = world.state(RunState::Failed).await;
    assert_eq!(end.reason.as_deref(), Some("timed out after 1s 500ms"));
    assert!(end.exit.unwrap().timed_out);
    shipped.until(end.run, "stdout", &texts(&["warned"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_script_is_tried_as_often_as_it_says() {
    let world = World::new().await;
    let processes = Processes::new(world.dir.path());
    let mut shipped = Shipped::of(&world).await;
    let mut assigned = bash("echo try; exit 3");
    assigned.task.restart.on = RestartOn::Failure;
    assigned.task.restart.attempts = 3;
    let task = world.task(assigned, processes.driver()).await;
    let end = world
        .report(|r| r.state == RunState::Failed && !r.will_restart)
        .await;
    assert_eq!((end.restarts, end.exit.unwrap().code), (2, Some(3)));
    assert_eq!(
        end.reason.as_deref(),
        Some("exit code 3; its 3 attempts are spent")
    );
    let ends = world
        .reports()
        .into_iter()
        .filter(|report| report.state.is_terminal());
    for end in ends {
        shipped.until(end.run, "stdout", &texts(&["try"])).await;
    }
    task.forget();
    until("it is forgotten", async || world.forgotten()).await;
    until("nothing is left", async || {
        processes.0.inventory().await.unwrap().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interpreter_that_is_missing_is_a_rejection() {
    let world = World::new().await;
    let processes = Processes::new(world.dir.path());
    let mut assigned = bash("true");
    assigned.task.command = vec!["no-such-shell".into()];
    world.task(assigned, processes.driver()).await;
    let end = world.state(RunState::Rejected).await;
    assert!(end.reason.unwrap().contains("no-such-shell"));
    assert!(!end.will_restart);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_agent_adopts_the_process_and_ships_the_rest() {
    let world = World::new().await;
    let processes = Processes::new(world.dir.path());
    let mut shipped = Shipped::of(&world).await;
    let assigned = bash("echo 1; trap 'echo 2; exit 0' HUP; while :; do sleep 0.02; done");
    let task = world.task(assigned.clone(), processes.driver()).await;
    let first = world.state(RunState::Running).await;
    shipped.until(first.run, "stdout", &texts(&["1"])).await;
    task.actor().get_cell().kill_and_wait(None).await.unwrap();

    // As after a kill of the agent: nothing but the disk is left.
    let again = driver(world.dir.path());
    let mut arguments = world.arguments(assigned.clone(), Arc::new(again));
    arguments.adopt = Some(world.progress());
    world.spawn(arguments).await;
    until("the new actor answers", async || {
        let subject = "orch.task.web.main.0.inspect";
        world
            .client
            .call_bytes(subject, "".into(), &[], SOON)
            .await
            .is_ok()
    })
    .await;
    until("it was taken over", async || {
        let row = world.ask("inspect", &TaskCommand::default()).await;
        let inspect: Inspect = serde_json::from_value(row.value.unwrap()).unwrap();
        inspect.pid == first.pid
    })
    .await;
    assert!(world.signal("HUP").await.is_done());
    let end = world.state(RunState::Completed).await;
    assert_eq!(end.run, first.run);
    shipped
        .until(first.run, "stdout", &texts(&["1", "2"]))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_output_is_shipped_whole_and_in_order() {
    let world = World::new().await;
    let processes = Processes::new(world.dir.path());
    let mut shipped = Shipped::of(&world).await;
    let mut assigned = bash("for ((i = 0; i < 20000; i++)); do echo line $i; done; printf end");
    assigned.task.logs.max_size = Bytes::mib(4);
    let task = world.task(assigned, processes.driver()).await;
    let end = world.state(RunState::Completed).await;
    let mut expected: Vec<_> = (0..20_000).map(|i| format!("line {i}")).collect();
    expected.push("end".into());
    shipped.until(end.run, "stdout", &expected).await;
    task.forget();
    until("it is forgotten", async || world.forgotten()).await;
}
