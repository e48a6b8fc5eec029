//! Labels, taints and drains of nodes, as people type them, over restarts of everything.

use loom_tests::parts::Server;
use loom_tests::wait::until;
use serde_json::Value;

/// A service that ends at once when it is told to, on nodes with processes.
fn service(name: &str, replicas: u32, more: &str) -> String {
    format!(
        "name: {name}\nreplicas: {replicas}\nstop: {{grace: 2s}}\nupdate: {{healthy_for: 200ms}}\n\
         cpu: 0.05\nmemory: 16MiB\n{more}\n\
         bash: |\n  trap 'exit 0' TERM\n  while true; do sleep 0.05; done\n"
    )
}

fn slots(server: &Server, name: &str) -> Vec<Value> {
    let said = server.ctl(&["status", name, "-o", "json"]);
    let view: Value = serde_json::from_str(&said.out).unwrap_or_default();
    view["slots"].as_array().cloned().unwrap_or_default()
}

/// The nodes of the running runs of a job that go on, in the order of names.
fn nodes_of(server: &Server, name: &str) -> Vec<String> {
    let running = |slot: &Value| {
        let run = &slot["current"];
        let goes_on = run["state"] == "running" && run["order"] == "run";
        let alone = slot["incoming"].is_null();
        (goes_on && alone).then(|| run["node"].as_str().unwrap_or_default().to_owned())
    };
    let mut nodes: Vec<String> = slots(server, name).iter().filter_map(running).collect();
    nodes.sort();
    nodes
}

fn wait_for(server: &Server, name: &str, nodes: &[&str]) {
    until(&format!("{name} runs on {nodes:?}"), || {
        let found = nodes_of(server, name);
        if found == nodes {
            Ok(())
        } else {
            Err(server.ctl(&["status", name]).out)
        }
    });
}

fn waits_for(server: &Server, name: &str, why: &str) {
    until(&format!("{name} says {why}"), || {
        let said = server.ctl(&["status", name]);
        if said.out.contains(why) {
            Ok(())
        } else {
            Err(said.out)
        }
    });
}

fn node(server: &Server, name: &str) -> Value {
    let said = server
        .ctl(&["node", "status", name, "-o", "json"])
        .expect_code(0);
    said.json()["summary"]["node"].clone()
}

#[test]
fn a_constraint_waits_for_a_label_that_outlives_managers_and_agents() {
    let server = Server::start();
    let mut manager = server.manager("m1");
    let mut n1 = server.node("n1");
    let _n2 = server.node("n2");
    let job = service(
        "index",
        1,
        "constraints: [node.label.disk == ssd, os.version is_set, driver == process]\n\
         env: {DISK: '${node.label.disk}'}",
    );
    server.run(&job, &["--detach"]).expect_code(0);
    waits_for(
        &server,
        "index",
        "no node fits: 2 constraint node.label.disk == ssd",
    );
    let said = server
        .ctl(&["node", "label", "n1", "disk=ssd"])
        .expect_code(0);
    assert_eq!(said.out, "n1 is labelled\n");
    wait_for(&server, "index", &["n1"]);
    let run = slots(&server, "index")[0]["current"].clone();
    assert_eq!(run["filled"]["node.label.disk"], "ssd", "{run}");
    let said = server.ctl(&["node", "status", "n1"]).expect_code(0);
    assert!(said.out.contains("disk=ssd"), "{}", said.out);

    manager.kill();
    manager.start_again();
    n1.kill();
    n1.start_again();
    until(
        "the node is up again",
        || match node(&server, "n1")["status"].as_str() {
            Some("up") => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
    assert_eq!(node(&server, "n1")["labels"]["disk"], "ssd");
    wait_for(&server, "index", &["n1"]);
    let said = server.ctl(&["node", "label", "n1", "rack-"]).expect_code(4);
    assert!(
        said.err.contains("node n1 has no label rack"),
        "{}",
        said.err
    );
    server.ctl(&["stop", "index"]).expect_code(0);
}

#[test]
fn a_drained_node_is_left_one_by_one_and_stays_empty_over_a_new_manager() {
    let server = Server::start();
    let mut manager = server.manager("m1");
    let (mut n1, _n2) = (server.node("n1"), server.node("n2"));
    server.run(&service("web", 4, ""), &[]).expect_code(0);
    wait_for(&server, "web", &["n1", "n1", "n2", "n2"]);
    let drained = [
        "node",
        "drain",
        "n1",
        "--reason",
        "new kernel",
        "--deadline",
        "5m",
    ];
    let said = server.ctl(&drained).expect_code(0);
    assert_eq!(said.out, "n1 is drained\n", "{}", said.err);
    assert!(said.err.contains("of 2 runs left"), "{}", said.err);
    wait_for(&server, "web", &["n2", "n2", "n2", "n2"]);
    let said = server
        .ctl(&["events", "task.web.main.*.killed", "-o", "jsonl"])
        .expect_code(0);
    let reason = "node n1 is drained by ";
    let by = said
        .out
        .lines()
        .filter(|line| line.contains(reason) && line.contains("new kernel"));
    assert_eq!(by.count(), 2, "{}", said.out);

    manager.kill();
    manager.start_again();
    n1.kill();
    n1.start_again();
    let said = until("the node is back", || {
        let said = server.ctl(&["node", "ls"]);
        if said.out.contains("drained") {
            Ok(said)
        } else {
            Err(said.out)
        }
    });
    assert_eq!(said.code, 0);
    server.run(&service("late", 2, ""), &[]).expect_code(0);
    wait_for(&server, "late", &["n2", "n2"]);
    server.ctl(&["node", "undrain", "n1"]).expect_code(0);
    let spread = service("spread", 2, "constraints: [distinct_hosts]");
    server.run(&spread, &[]).expect_code(0);
    wait_for(&server, "spread", &["n1", "n2"]);
    for job in ["web", "late", "spread"] {
        server.ctl(&["stop", job]).expect_code(0);
    }
}

#[test]
fn a_taint_keeps_away_evicts_and_lets_a_system_job_follow() {
    let server = Server::start();
    let _manager = server.manager("m1");
    let _nodes = [server.node("n1"), server.node("n2")];
    let agent = "name: agent\nkind: system\nstop: {grace: 2s}\ncpu: 0.05\nmemory: 16MiB\n\
                 bash: |\n  trap 'exit 0' TERM\n  while true; do sleep 0.05; done\n";
    server.run(agent, &[]).expect_code(0);
    wait_for(&server, "agent", &["n1", "n2"]);
    server
        .ctl(&["node", "taint", "n1", "gpu=a:no-schedule"])
        .expect_code(0);
    server.run(&service("plain", 2, ""), &[]).expect_code(0);
    wait_for(&server, "plain", &["n2", "n2"]);
    let tolerant = service(
        "gpu",
        1,
        "constraints: [node.name == n1]\ntolerations: [gpu=a]",
    );
    server.run(&tolerant, &[]).expect_code(0);
    wait_for(&server, "gpu", &["n1"]);
    let pinned = service("pinned", 1, "constraints: [node.name == n1]");
    server.run(&pinned, &["--detach"]).expect_code(0);
    waits_for(
        &server,
        "pinned",
        "1 constraint node.name == n1, 1 taint gpu=a:no-schedule",
    );

    server
        .ctl(&["node", "taint", "n2", "bad:evict"])
        .expect_code(0);
    wait_for(&server, "agent", &["n1"]);
    waits_for(&server, "plain", "taint bad:evict");
    server.ctl(&["node", "taint", "n2", "bad-"]).expect_code(0);
    wait_for(&server, "agent", &["n1", "n2"]);
    wait_for(&server, "plain", &["n2", "n2"]);
    let said = server.ctl(&["node", "taint", "n1", "gpu"]).expect_code(1);
    assert!(said.err.contains("write gpu:no-schedule"), "{}", said.err);
    for job in ["agent", "plain", "gpu", "pinned"] {
        server.ctl(&["stop", job]).expect_code(0);
    }
}

#[test]
fn affinities_and_spreads_decide_where_runs_go_and_say_so() {
    let server = Server::start();
    let _manager = server.manager("m1");
    let nodes = ["n1", "n2", "n3"];
    // Nodes that only play use what their tasks reserve, whatever else this host does.
    let _nodes = nodes.map(|name| server.node_with(name, &["--driver", "sim"]));
    let service = |name: &str, replicas: u32, more: &str| {
        let (cpu, memory) = ("cpu: 0.05", "memory: 16MiB");
        format!(
            "name: {name}\nreplicas: {replicas}\n{cpu}\n{memory}\nsim: {{}}\nexec: [x]\n{more}\n"
        )
    };
    for (node, labels) in nodes.iter().zip([
        ["rack=a", "disk=hdd"],
        ["rack=a", "disk=ssd"],
        ["rack=b", "disk=hdd"],
    ]) {
        let label = ["node", "label", node, labels[0], labels[1]];
        server.ctl(&label).expect_code(0);
    }
    let fast = "affinities: [{match: node.label.disk == ssd, weight: 90}]";
    server.run(&service("fast", 1, fast), &[]).expect_code(0);
    wait_for(&server, "fast", &["n2"]);
    let away = "affinities: [{match: node.label.rack == a, weight: -80}]";
    server.run(&service("away", 1, away), &[]).expect_code(0);
    wait_for(&server, "away", &["n3"]);
    // On three nodes that are alike each would have one before any has two.
    let even = "spread: [{over: node.label.rack, weight: 100}]";
    server.run(&service("even", 4, even), &[]).expect_code(0);
    wait_for(&server, "even", &["n1", "n2", "n3", "n3"]);
    let mostly = "spread: [{over: node.label.rack, weight: 100, targets: {a: 100}}]";
    server
        .run(&service("mostly", 4, mostly), &[])
        .expect_code(0);
    wait_for(&server, "mostly", &["n1", "n1", "n2", "n2"]);

    let run = slots(&server, "fast")[0]["current"].clone();
    assert_eq!(run["decision"]["bias"]["points"], 90, "{run}");
    let said = server.ctl(&["status", "fast/0"]).expect_code(0);
    assert!(said.out.contains("(+90 points), before n"), "{}", said.out);
    for job in ["fast", "away", "even", "mostly"] {
        server.ctl(&["stop", job]).expect_code(0);
    }
}

/// Six replicas of which a node holds six.
const ROOMY: &[&str] = &["--cpu", "4", "--memory", "6GiB"];

/// So much memory that what the host's processors do beside is of no weight.
fn heavy(name: &str) -> String {
    service(name, 6, "")
        .replace("cpu: 0.05", "cpu: 0.001")
        .replace("memory: 16MiB", "memory: 900MiB")
}

#[test]
fn a_rebalance_shows_its_moves_and_goes_on_over_a_new_manager() {
    let server = Server::start();
    let mut manager = server.manager("m1");
    let _n1 = server.node_with("n1", ROOMY);
    server.run(&heavy("web"), &[]).expect_code(0);
    let _n2 = server.node_with("n2", ROOMY);
    let said = server
        .ctl(&["node", "rebalance", "--margin", "5", "--dry-run"])
        .expect_code(0);
    let told = "3 of 6 runs cost at least 5 % less elsewhere";
    assert!(said.out.contains(told), "{}", said.out);
    let asked = ["node", "rebalance", "--margin", "90", "--dry-run"];
    let said = server.ctl(&asked).expect_code(0);
    let told = "nothing to move: none of 6 runs would cost 90 % less elsewhere";
    assert!(said.out.contains(told), "{}", said.out);
    wait_for(&server, "web", &["n1"; 6]);

    let once = ["--at-once", "1", "--detach"];
    let asked = [&["node", "rebalance", "--margin", "5"][..], &once].concat();
    let said = server.ctl(&asked).expect_code(0);
    assert!(said.out.contains("web/0 "), "{}", said.out);
    manager.kill();
    manager.start_again();
    wait_for(&server, "web", &["n1", "n1", "n1", "n2", "n2", "n2"]);
    let said = until("all moves are done", || {
        let said = server.ctl(&["events", "cluster.>", "-o", "jsonl"]);
        if said.out.contains("rebalanced") {
            Ok(said)
        } else {
            Err(said.out)
        }
    });
    assert!(said.out.contains("3 runs were moved"), "{}", said.out);
    let said = server.ctl(&["node", "rebalance"]).expect_code(0);
    assert!(said.out.starts_with("nothing to move"), "{}", said.out);
    let said = server.ctl(&["node", "rebalance", "--stop"]).expect_code(0);
    assert_eq!(said.out, "no move is under way\n");
    let said = server
        .ctl(&["events", "task.web.main.*.killed", "-o", "jsonl"])
        .expect_code(0);
    let reason = "it costs less on node n2 than on n1: rebalanced by ";
    let moved = said.out.lines().filter(|line| line.contains(reason));
    assert_eq!(moved.count(), 3, "{}", said.out);
    server.ctl(&["stop", "web"]).expect_code(0);
}

#[test]
fn a_rebalance_is_followed_to_its_end() {
    let server = Server::start();
    let _manager = server.manager("m1");
    let _n1 = server.node_with("n1", ROOMY);
    server.run(&heavy("web"), &[]).expect_code(0);
    let _n2 = server.node_with("n2", ROOMY);
    let asked = ["node", "rebalance", "--margin", "5"];
    let said = server.ctl(&asked).expect_code(0);
    assert!(said.out.ends_with("3 runs were moved\n"), "{}", said.out);
    assert!(said.err.contains("under way"), "{}", said.err);
    wait_for(&server, "web", &["n1", "n1", "n1", "n2", "n2", "n2"]);
    let said = server
        .ctl(&["node", "rebalance", "--margin", "91"])
        .expect_code(64);
    assert!(said.err.contains("91 is not in 1..=90"), "{}", said.err);
    server.ctl(&["stop", "web"]).expect_code(0);
}
