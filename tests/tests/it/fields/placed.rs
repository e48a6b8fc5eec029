//! Where a task runs, who goes first, and which taints it puts up with.

use loom_tests::cluster::Dev;
use loom_tests::parts::{Agent, Server};
use loom_tests::wait::until;
use serde_json::Value;

use super::{time, wait_for};

/// One run of each of these on simulated nodes, of so many cores.
fn sim(name: &str, cpu: f32, more: &str) -> String {
    format!("name: {name}\ncpu: {cpu}\nmemory: 64MiB\nsim: {{}}\nexec: [x]\n{more}\n")
}

fn nodes(view: &Value) -> Vec<String> {
    let slots = view["slots"].as_array().into_iter().flatten();
    let of = |slot: &Value| Some(slot["current"]["node"].as_str()?.to_owned());
    let mut nodes: Vec<String> = slots.filter_map(of).collect();
    nodes.sort();
    nodes
}

#[test]
fn nodes_are_chosen_by_the_strategy_of_the_job() {
    let shape = ["--sim-shape", "cpu=4,memory=4GiB"];
    let dev = Dev::start(&[&["--nodes", "0", "--sim-nodes", "4"], shape.as_slice()].concat());
    // The first has few cores left, the second little memory, the others all of both.
    let of = |node: &str| format!("constraints: [node.name == {node}]");
    let memory = sim("memory", 0.1, &of("sim-2")).replace("64MiB", "2600MiB");
    for job in [sim("cores", 2.9, &of("sim-1")), memory] {
        dev.run(&job, &["--detach"]).expect_code(0);
    }
    for name in ["cores", "memory"] {
        dev.wait_for_job(name, "running");
    }
    let on = |strategy: &str, name: &str, replicas: u32| {
        let more = format!("strategy: {strategy}\nreplicas: {replicas}");
        let job = sim(name, 0.25, &more);
        dev.run(&job, &["--detach"]).expect_code(0);
        let view = wait_for(&dev, name, "all of it runs", |view| {
            view["summary"]["running"] == replicas
        });
        let chosen = view["slots"][0]["current"]["decision"]["strategy"].clone();
        assert_eq!(chosen, strategy, "{view}");
        nodes(&view)
    };
    let gone = |name: &str| {
        dev.ctl(&["stop", name]).expect_code(0);
    };
    assert_eq!(on("binpack", "fullest", 3), ["sim-1"; 3]);
    gone("fullest");
    assert_eq!(on("balanced", "cores-left", 1), ["sim-2"]);
    gone("cores-left");
    assert_eq!(
        on("epvm", "cheapest", 4),
        ["sim-2", "sim-3", "sim-3", "sim-4"]
    );
    gone("cheapest");
    assert_eq!(
        on("spread", "apart", 4),
        ["sim-1", "sim-2", "sim-3", "sim-4"]
    );
    gone("apart");
    assert_eq!(on("spread", "emptiest", 1), ["sim-3"]);
    let each = ["a", "b", "c", "d"].map(|name| on("round-robin", name, 1).remove(0));
    let mut each = each.to_vec();
    each.sort();
    assert_eq!(each, ["sim-1", "sim-2", "sim-3", "sim-4"]);
}

#[test]
fn a_replica_waits_for_a_node_of_its_own_where_the_task_says_so() {
    let dev = Dev::start(&["--nodes", "0", "--sim-nodes", "2"]);
    let job = sim("apart", 0.1, "replicas: 3\nconstraints: [distinct_hosts]");
    dev.run(&job, &["--detach"]).expect_code(0);
    let view = wait_for(&dev, "apart", "two run and one waits", |view| {
        view["summary"]["running"] == 2 && view["summary"]["waiting"] == 1
    });
    assert_eq!(nodes(&view), ["sim-1", "sim-2"]);
}

#[test]
fn preferences_count_as_much_as_they_weigh() {
    let dev = Dev::start(&["--nodes", "0", "--sim-nodes", "4"]);
    for (node, rack) in [
        ("sim-1", "a"),
        ("sim-2", "a"),
        ("sim-3", "b"),
        ("sim-4", "b"),
    ] {
        let label = format!("rack={rack}");
        dev.ctl(&["node", "label", node, &label]).expect_code(0);
    }
    let on = |name: &str, replicas: u32, more: &str| {
        let job = sim(name, 0.1, &format!("replicas: {replicas}\n{more}"));
        dev.run(&job, &["--detach"]).expect_code(0);
        let view = wait_for(&dev, name, "all of it runs", |view| {
            view["summary"]["running"] == replicas
        });
        dev.ctl(&["stop", name]).expect_code(0);
        nodes(&view)
    };
    assert_eq!(on("none", 2, ""), ["sim-1", "sim-2"]);
    let rack = "affinities: [node.label.rack == b]";
    assert_eq!(on("likes", 1, rack), ["sim-3"]);
    let more = "affinities: [{match: node.name == sim-2, weight: 20}, \
                {match: node.name == sim-4, weight: 60}]";
    assert_eq!(on("likes-more", 1, more), ["sim-4"]);
    assert_eq!(
        on("apart", 2, "spread: [node.label.rack]"),
        ["sim-1", "sim-3"]
    );
    let together = "spread: [{over: node.label.rack, weight: -100}]";
    assert_eq!(on("together", 2, together), ["sim-1", "sim-2"]);
    let aimed = "spread: [{over: node.label.rack, weight: 100, targets: {b: 100}}]";
    assert_eq!(on("aimed", 2, aimed), ["sim-3", "sim-4"]);
}

#[test]
fn room_goes_to_the_higher_priority_and_then_to_the_owner_who_has_less() {
    let server = Server::start();
    let _manager = server.manager("m1");
    let directory = server.path("n1");
    let _node = Agent::on(&server.url, "node", "n1", directory, &["--driver", "sim"]);
    // There is one of that port, whatever machine this is.
    let port = "ports: {only: {host: 7000}}";
    let run = |name: &str, more: &str| {
        let job = sim(name, 0.1, more);
        server.run(&job, &["--detach"]).expect_code(0);
    };
    let waits = |name: &str| waits_for(&server, name, "port 7000 taken");
    run("of-ann", "owner: ann");
    run("of-zoe", &format!("owner: zoe\n{port}"));
    for job in ["of-ann", "of-zoe"] {
        runs_on(&server, job, "n1");
    }
    // Nobody is so much higher that the others have to go.
    run("low", &format!("owner: bob\npriority: 45\n{port}"));
    run("more-of-ann", &format!("owner: ann\npriority: 55\n{port}"));
    run("first-of-bob", &format!("owner: bob\npriority: 55\n{port}"));
    for job in ["low", "more-of-ann", "first-of-bob"] {
        waits(job);
    }
    server.ctl(&["stop", "of-zoe"]).expect_code(0);
    runs_on(&server, "first-of-bob", "n1");
    for job in ["low", "more-of-ann"] {
        waits(job);
    }
    server.ctl(&["stop", "first-of-bob"]).expect_code(0);
    runs_on(&server, "more-of-ann", "n1");
    waits("low");
}

/// A manager, and a node in each of two datacenters.
fn two_datacenters() -> (Server, Vec<Agent>) {
    let server = Server::start();
    let mut agents = vec![server.manager("m1")];
    for place in ["east", "west"] {
        let flags = ["--allow-process", "--datacenter", place];
        let directory = server.path(place);
        agents.push(Agent::on(&server.url, "node", place, directory, &flags));
    }
    (server, agents)
}

fn process(name: &str, more: &str) -> String {
    format!(
        "name: {name}\ncpu: 0.02\nmemory: 16MiB\nstop: {{grace: 1s}}\n\
         update: {{healthy_for: 0s}}\nexec: [sleep, '1000']\n{more}\n"
    )
}

fn view(server: &Server, job: &str) -> Value {
    let said = server.ctl(&["status", job, "-o", "json"]);
    serde_json::from_str(&said.out).unwrap_or_default()
}

fn wait_until(server: &Server, job: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    until(&format!("{job}: {what}"), || {
        let view = view(server, job);
        if holds(&view) {
            Ok(view)
        } else {
            Err(view.to_string())
        }
    })
}

fn runs_on(server: &Server, job: &str, node: &str) {
    wait_until(server, job, &format!("it runs on {node}"), |view| {
        let slots = view["slots"].as_array().cloned().unwrap_or_default();
        let there = |slot: &Value| {
            let run = &slot["current"];
            run["node"] == node && run["state"] == "running" && slot["incoming"].is_null()
        };
        !slots.is_empty() && slots.iter().all(there)
    });
}

fn waits_for(server: &Server, job: &str, why: &str) {
    wait_until(server, job, why, |view| {
        let waiting = view["slots"][0]["waiting"].as_str();
        waiting.is_some_and(|waiting| waiting.contains(why))
    });
}

#[test]
fn a_job_runs_in_its_datacenters_alone() {
    let (server, _agents) = two_datacenters();
    let job = |places: &str| process("web", &format!("replicas: 3\ndatacenters: [{places}]"));
    server.run(&job("west"), &[]).expect_code(0);
    runs_on(&server, "web", "west");
    server
        .run(&job("east, south"), &["--detach"])
        .expect_code(0);
    runs_on(&server, "web", "east");
    let nowhere = process("nowhere", "datacenters: [north]");
    server.run(&nowhere, &["--detach"]).expect_code(0);
    waits_for(&server, "nowhere", "no node fits: 2 in another datacenter");
    server.ctl(&["stop", "web"]).expect_code(0);
}

#[test]
fn a_task_puts_up_with_the_taints_it_tolerates_for_as_long_as_it_says() {
    let (server, _agents) = two_datacenters();
    let on = |name: &str, node: &str, toleration: &str| {
        let more = format!("constraints: [node.name == {node}]\ntolerations: [{toleration}]");
        let job = process(name, &more);
        server.run(&job, &["--detach"]).expect_code(0);
    };
    server
        .ctl(&["node", "taint", "east", "gpu=a:no-schedule"])
        .expect_code(0);
    for (name, toleration) in [
        ("any", "{key: '*'}"),
        ("key", "{key: gpu}"),
        ("value", "{key: gpu, value: a}"),
        ("effect", "{key: gpu, value: a, effect: no-schedule}"),
    ] {
        on(name, "east", toleration);
        runs_on(&server, name, "east");
    }
    for (name, toleration) in [
        ("other-key", "{key: disk}"),
        ("other-value", "{key: gpu, value: b}"),
        ("other-effect", "{key: gpu, effect: evict}"),
    ] {
        on(name, "east", toleration);
        waits_for(&server, name, "1 taint gpu=a:no-schedule");
    }

    on("stays", "west", "{key: bad, for: 2s}");
    on("stays-on", "west", "{key: bad}");
    on("leaves", "west", "{key: gpu}");
    for job in ["stays", "stays-on", "leaves"] {
        runs_on(&server, job, "west");
    }
    let tainted = jiff::Timestamp::now();
    server
        .ctl(&["node", "taint", "west", "bad:evict"])
        .expect_code(0);
    let ended = |job: &str| {
        let view = wait_until(&server, job, "it left", |view| {
            view["slots"][0]["ended"].is_array()
                || view["slots"][0]["current"]["ended_at"].is_string()
        });
        let run = super::newest(&view["slots"][0]);
        time(&run["ended_at"]).as_millisecond() - tainted.as_millisecond()
    };
    let (leaves, stays) = (ended("leaves"), ended("stays"));
    assert!(stays >= 2_000 && leaves < stays, "{leaves} {stays}");
    runs_on(&server, "stays-on", "west");
    for job in ["any", "key", "value", "effect", "stays-on"] {
        server.ctl(&["stop", job]).expect_code(0);
    }
}
