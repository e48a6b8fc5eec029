use std::time::Instant;

use loom_schemas::spec::SimScript;
use loom_schemas::units::Millis;
use loom_schemas::words::RunState;

use crate::specs::{played, script};
use crate::world::World;

async fn run(world: &World, many: Vec<loom_schemas::wire::Assigned>, what: &str) {
    let begun = Instant::now();
    let refs: Vec<_> = many.iter().collect();
    for chunk in refs.chunks(50) {
        world.leader.assign("node-1", chunk, &[]).await;
    }
    let count = many.len();
    world
        .until("all done", |said| {
            said.reports
                .iter()
                .filter(|r| r.state == RunState::Completed)
                .count()
                >= count
        })
        .await;
    let took = begun.elapsed();
    println!(
        "{what}: {count} in {took:?}: {:.0}/s",
        count as f64 / took.as_secs_f64()
    );
    world.leader.said().reports.clear();
    let ids: Vec<_> = many.iter().map(|a| a.placement).collect();
    world.leader.assign("node-1", &[], &ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures() {
    let world = World::new().await;
    for starts in [1, 2, 4, 8, 16] {
        let mut options = world.options("node-1");
        options.allow_process = true;
        options.limits.starts = Some(starts);
        let node = world.start(options).await;
        let sim = SimScript {
            run: Some(Millis(1)),
            ..SimScript::default()
        };
        if starts == 1 {
            run(
                &world,
                (0..500)
                    .map(|i| played(&format!("s{i}"), 0, sim.clone()))
                    .collect(),
                "sim",
            )
            .await;
        }
        let truth = |i| {
            let mut s = script(&format!("p{i}"), "true");
            s.task.operator = loom_schemas::spec::Operator::Exec(vec!["true".into()]);
            s
        };
        run(
            &world,
            (0..300).map(truth).collect(),
            &format!("process, {starts} starts"),
        )
        .await;
        // one at a time
        let mut times = Vec::new();
        for i in 0..30 {
            let s = truth(1000 + i);
            let begun = Instant::now();
            world.leader.assign("node-1", &[&s], &[]).await;
            world
                .until("runs", |said| said.of(s.placement).is_some())
                .await;
            times.push(begun.elapsed());
        }
        times.sort();
        println!("assign to report p50 {:?}", times[15]);
        node.stop(loom_node::TasksOnStop::Stop).await;
        println!(
            "rss {}",
            std::fs::read_to_string("/proc/self/status")
                .unwrap()
                .lines()
                .find(|l| l.starts_with("VmRSS"))
                .unwrap()
        );
    }
    let bus = loom_bus::connection::Bus::connect(world.connect.clone())
        .await
        .unwrap();
    let rss = || {
        std::fs::read_to_string("/proc/self/status")
            .unwrap()
            .lines()
            .find(|l| l.starts_with("VmRSS"))
            .unwrap()
            .to_owned()
    };
    println!("before fleet {}", rss());
    let begun = Instant::now();
    let mut nodes = vec![];
    for n in 0..1000 {
        let options = loom_node::NodeOptions {
            bus: loom_node::BusAccess::Shared {
                control: bus.clone(),
                bulk: bus.clone(),
            },
            drivers: vec![loom_schemas::words::DriverKind::Sim],
            timings: loom_node::Timings::default(),
            ..world.options(&format!("sim-{n}"))
        };
        match loom_node::start(options).await {
            Ok(n) => nodes.push(n),
            Err(e) => {
                println!("{n}: {e} {:?}", std::error::Error::source(&e));
                break;
            }
        }
    }
    for n in &nodes {
        n.ready().await.unwrap();
    }
    println!("{} nodes in {:?}, {}", nodes.len(), begun.elapsed(), rss());
}
