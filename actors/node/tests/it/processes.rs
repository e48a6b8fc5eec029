use std::process::{Child, Command, Stdio};
use std::time::Duration;

use loom_schemas::ids::RunId;
use loom_schemas::units::Millis;
use loom_schemas::words::RunState;

use crate::leader::Manner;
use crate::specs::{restarting, script};
use crate::world::{AGENT, World, lives, until};

/// An agent in a process of its own.
struct Agent(Child);

impl Agent {
    async fn start(world: &World, node: &str) -> Self {
        let before = world.leader.said().hellos.len();
        let child = Command::new(AGENT)
            .arg(node)
            .args(world.credentials())
            .arg(world.data_dir(node))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        world
            .until("the agent says hello", |said| said.hellos.len() > before)
            .await;
        Self(child)
    }

    /// As the kernel would, at any moment.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

fn end(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn inventory(world: &World, run: RunId) -> Option<RunState> {
    let said = world.leader.said();
    let hello = said.hellos.last().unwrap();
    hello
        .runs
        .iter()
        .find(|report| report.run == run)
        .map(|report| report.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_and_started_again_has_the_same_processes() {
    let world = World::new().await;
    let mut agent = Agent::start(&world, "node-1").await;
    let web = script("web", "sleep 1000");
    let batch = script("batch", "sleep 1000");
    world.leader.assign("node-1", &[&web, &batch], &[]).await;
    let pid = world
        .until_state(web.placement, RunState::Running)
        .await
        .pid
        .unwrap();
    let other = world
        .until_state(batch.placement, RunState::Running)
        .await
        .pid
        .unwrap();

    agent.kill();
    assert!(lives(pid));
    // One of them ends while nobody watches.
    end(other);
    let mut agent = Agent::start(&world, "node-1").await;
    assert_eq!(inventory(&world, web.placement), Some(RunState::Running));
    let ended = world.until_state(batch.placement, RunState::Failed).await;
    assert_eq!(ended.exit.unwrap().signal, Some(9));
    assert!(lives(pid));

    // What was to be told when the agent was killed is told by the next one.
    world.leader.manner(Manner::Silent);
    world.leader.said().reports.clear();
    end(pid);
    until("it is gone", async || !lives(pid)).await;
    agent.kill();
    world.leader.manner(Manner::Answers);
    let mut agent = Agent::start(&world, "node-1").await;
    let report = world.until_state(web.placement, RunState::Failed).await;
    assert_eq!(report.restarts, 0);
    agent.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_run_is_adopted_as_well() {
    let world = World::new().await;
    let mut agent = Agent::start(&world, "node-1").await;
    let web = restarting(script("web", "sleep 1000"), Millis(10));
    world.leader.assign("node-1", &[&web], &[]).await;
    let first = world.until_state(web.placement, RunState::Running).await;
    end(first.pid.unwrap());
    world
        .until("it runs again", |said| {
            said.of(web.placement)
                .is_some_and(|at| at.restarts == 1 && at.state == RunState::Running)
        })
        .await;
    let second = world.leader.said().of(web.placement).unwrap().clone();
    assert_ne!(second.run, web.placement);
    agent.kill();
    let mut agent = Agent::start(&world, "node-1").await;
    assert_eq!(inventory(&world, second.run), Some(RunState::Running));
    // Asked for again and again by the leader it stays the same process.
    world.leader.assign("node-1", &[&web], &[]).await;
    assert!(lives(second.pid.unwrap()));
    // A run that no leader wants any more ends.
    world.leader.assign("node-1", &[], &[web.placement]).await;
    until("it is ended", async || !lives(second.pid.unwrap())).await;
    agent.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_never_make_two_of_a_run() {
    let world = World::new().await;
    let marks = world.directory.path().join("marks");
    std::fs::create_dir(&marks).unwrap();
    let text = format!("echo $$ > {}/$LOOM_RUN.$$; sleep 1000", marks.display());
    let mut agent = Agent::start(&world, "node-1").await;
    let mut placements = Vec::new();
    for round in 0..6_u64 {
        let web = script(&format!("web-{round}"), &text);
        world.leader.want("node-1", &[&web], &[]);
        let node = crate::specs::name("node-1");
        let whole = world.leader.whole(&node);
        let leader = world.leader.clone();
        let sending = tokio::spawn(async move { leader.send(&node, &whole).await });
        tokio::time::sleep(Duration::from_millis(round * 4)).await;
        agent.kill();
        sending.abort();
        agent = Agent::start(&world, "node-1").await;
        placements.push(web.placement);
    }
    for placement in &placements {
        let report = world.until_state(*placement, RunState::Running).await;
        assert_eq!(report.run, *placement, "{report:?}");
    }
    let started = || std::fs::read_dir(&marks).unwrap().count();
    until("all have started", async || started() >= placements.len()).await;
    assert_eq!(started(), placements.len());
    world.leader.assign("node-1", &[], &placements).await;
    for placement in placements {
        world.until_state(placement, RunState::Killed).await;
    }
    agent.kill();
}
