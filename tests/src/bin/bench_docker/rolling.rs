//! A new version of ten containers, one by one, beside ten bare stops and starts.

use std::time::{Duration, Instant};

use bollard::query_parameters::StopContainerOptions;
use loom_tests::cluster::Dev;
use loom_tests::figure::{Sample, figure};
use loom_tests::nats::Client;

use crate::{BARE, Bare, await_events, job, listen, ms, stop, until_gone};

/// How many containers are replaced.
const SLOTS: usize = 10;
/// How often, in each order.
const ROUNDS: usize = 5;

/// Both orders: with start-first each new container runs before the old one is stopped.
pub(crate) async fn rolling(bare: &Bare) {
    let dev = Dev::start(&[]);
    for (order, part) in [("stop-first", "stop_first"), ("start-first", "start_first")] {
        let (mut through, mut ratios, mut raw) = (Vec::new(), Vec::new(), Vec::new());
        let mut nats = dev.nats();
        let name = crate::own(&format!("roll-{order}"));
        let mut events = listen(&dev, &name);
        submit(&mut nats, bare, &name, order, 0);
        await_events(&mut events, ".running", SLOTS);
        let mut deployed = dev.nats();
        let subject = format!("orch.events.job.{name}.deployed");
        deployed.subscribe(&subject).expect("subscribed");
        deployed.flush_round_trip().expect("the bus answers");
        for version in 1..=ROUNDS {
            let one_by_one = stops_and_starts(bare).await;
            let begun = Instant::now();
            submit(&mut nats, bare, &name, order, version);
            await_events(&mut deployed, ".deployed", 1);
            let took = ms(begun);
            through.push(took);
            ratios.push(took / one_by_one);
            raw.push(one_by_one);
            only_wanted_left(bare, &name).await;
        }
        let ratio = format!("docker_rolling_10_{part}_ratio");
        figure(&ratio, "x", &Sample(ratios), None, "at most 1.3");
        let time = format!("docker_rolling_10_{part}_ms");
        let raw = Sample(raw).median();
        figure(&time, "ms", &Sample(through), Some(raw), "-");
        stop(&mut nats, &name);
        until_gone(bare, &name).await;
    }
}

fn submit(nats: &mut Client, bare: &Bare, name: &str, order: &str, version: usize) {
    let text = job(name, &bare.network, SLOTS);
    let update = format!("update: {{parallel: 1, healthy_for: 0s, order: {order}}}\n");
    let text = format!("{text}{update}env: {{ROUND: '{version}'}}\n");
    let said = nats.request("orch.job.submit", text.as_bytes());
    said.expect("accepted");
}

/// Ten containers that run, each stopped and another started in its place, one after the other; the
/// time of these ten. They are stopped with the same signal as the job's.
async fn stops_and_starts(bare: &Bare) -> f64 {
    for number in 0..SLOTS {
        bare.start(&format!("{BARE}-old-{number}")).await;
    }
    let begun = Instant::now();
    for number in 0..SLOTS {
        let options = StopContainerOptions {
            signal: None,
            t: Some(0),
        };
        let old = format!("{BARE}-old-{number}");
        let stopped = bare.docker.stop_container(&old, Some(options)).await;
        stopped.expect("stopped");
        bare.start(&format!("{BARE}-new-{number}")).await;
    }
    let took = ms(begun);
    for number in 0..SLOTS {
        bare.remove(&format!("{BARE}-old-{number}")).await;
        bare.remove(&format!("{BARE}-new-{number}")).await;
    }
    took
}

/// What an update has replaced is removed behind it; the next round begins after that.
async fn only_wanted_left(bare: &Bare, name: &str) {
    let begun = Instant::now();
    while bare.left(name).await > SLOTS {
        assert!(
            begun.elapsed() < Duration::from_mins(1),
            "{name} leaves containers"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
