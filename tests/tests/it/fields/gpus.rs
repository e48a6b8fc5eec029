//! Gpus: who has which, and who waits for one.

use loom_tests::cluster::Dev;
use loom_tests::parts::Server;
use loom_tests::wait::until;
use serde_json::Value;

use super::{newest, slot, wait_for, wait_for_words};

/// The gpus of a run, `name:id` with spaces between them.
fn gpus(run: &Value) -> String {
    let gpus = run["gpus"].as_array().into_iter().flatten();
    let words = |part: &Value| part.as_str().unwrap_or_default().to_owned();
    let each = gpus.map(|gpu| format!("{}:{}", words(&gpu["name"]), words(&gpu["id"])));
    each.collect::<Vec<_>>().join(" ")
}

#[test]
fn gpus_are_placed_by_name_and_count_and_each_is_one_runs() {
    let shape = "cpu=8,memory=16GiB,gpus=a100:2,gpus=t4:1";
    let dev = Dev::start(&["--nodes", "0", "--sim-nodes", "2", "--sim-shape", shape]);
    let job = |name: &str, more: &str| {
        let job = format!("name: {name}\nsim: {{}}\nexec: [x]\nmemory: 64MiB\n{more}\n");
        dev.run(&job, &["--detach"]).expect_code(0);
    };
    job("pairs", "replicas: 3\ngpus: {a100: 2}\npriority: 40");
    let view = wait_for(&dev, "pairs", "two run and one waits", |view| {
        view["summary"]["running"] == 2 && view["summary"]["waiting"] == 1
    });
    let why = "no node fits: 2 not enough a100 gpus";
    wait_for_words(&dev, &["status", "pairs"], why);
    for index in 0..2 {
        let run = newest(&slot(&view, "main", index));
        assert_eq!(gpus(&run), "a100:0 a100:1", "{run}");
    }
    wait_for_words(
        &dev,
        &["node", "status", "sim-1"],
        "2 a100, 1 t4; 2 reserved",
    );
    // Of any name there is one left on each node; who asks for none pays no heed to them.
    job("any", "gpus: 1\nreplicas: 2");
    let view = wait_for(&dev, "any", "it runs", |view| {
        view["summary"]["running"] == 2
    });
    let any = [0, 1].map(|index| newest(&slot(&view, "main", index)));
    assert_eq!(any.map(|run| gpus(&run)), ["t4:2", "t4:2"]);
    job("more", "gpus: 1\npriority: 45");
    wait_for_words(&dev, &["status", "more"], "no node fits: 2 not enough gpus");
    job("none", "");
    dev.wait_for_job("none", "running");
    // Ten more of priority take the gpus of the lowest.
    job("first", "gpus: {a100: 1}\npriority: 60");
    let view = wait_for(&dev, "first", "it runs", |view| {
        view["summary"]["running"] == 1
    });
    let of = newest(&slot(&view, "main", 0));
    assert!(gpus(&of).starts_with("a100:"), "{of}");
    dev.ctl(&["stop", "any"]).expect_code(0);
    dev.wait_for_job("more", "running");
    for name in ["pairs", "more", "first", "none"] {
        dev.ctl(&["stop", name]).expect_code(0);
    }
    for node in ["sim-1", "sim-2"] {
        wait_for_words(&dev, &["node", "status", node], "2 a100, 1 t4; 0 reserved");
    }
}

#[test]
fn processes_are_told_their_gpus_and_keep_them_over_a_new_agent() {
    let server = Server::start();
    let _manager = server.manager("m1");
    let mut node = server.node_with("n1", &["--gpu", "a100=2", "--gpu", "t4=1"]);
    let job = "name: train\nreplicas: 2\ngpus: {a100: 1}\nmemory: 16MiB\nstop: {grace: 1s}\n\
               per_index: {1: {gpus: {t4: 1, a100: 1}}}\n\
               bash: |\n  echo \"$LOOM_GPUS $NVIDIA_VISIBLE_DEVICES $CUDA_VISIBLE_DEVICES\"\n  \
               exec sleep 1000\n";
    server.run(job, &[]).expect_code(0);
    let view = || -> Value { server.ctl(&["status", "train", "-o", "json"]).json() };
    let of = |view: &Value| [0, 1].map(|index| newest(&slot(view, "main", index)));
    let first = of(&view());
    let mut held = first.clone().map(|run| gpus(&run));
    let said = |index: u32| {
        let address = format!("train/{index}");
        until("it says its gpus", || {
            let said = server.ctl(&["logs", &address]).out;
            said.lines().next().map(str::to_owned).ok_or(said)
        })
    };
    for (index, held) in held.iter().enumerate() {
        let ids: Vec<&str> = held
            .split(' ')
            .filter_map(|gpu| gpu.split(':').nth(1))
            .collect();
        let ids = ids.join(",");
        assert_eq!(
            said(u32::try_from(index).unwrap()),
            format!("{ids} {ids} {ids}")
        );
    }
    held.sort();
    let [one, both] = held;
    assert!(
        one.starts_with("a100:") && both.ends_with(" t4:2"),
        "{one}, {both}"
    );
    assert!(!both.contains(&one), "{one}, {both}");
    node.kill();
    node.start_again();
    let status = || server.ctl(&["node", "status", "n1", "-o", "json"]).json();
    until("the node is up again", || {
        let status = status();
        let node = &status["summary"]["node"];
        let up = node["status"] == "up" && status["summary"]["reserved_gpus"] == 3;
        if up { Ok(()) } else { Err(status.to_string()) }
    });
    let again = of(&view());
    for (before, after) in first.iter().zip(&again) {
        assert_eq!(before["run"], after["run"], "it was adopted");
        assert_eq!(gpus(before), gpus(after));
    }
    // None is left for a run more, until one ends.
    let other = "name: other\ngpus: 1\nbash: 'echo \"has $LOOM_GPUS\"; exec sleep 1000'\n";
    server.run(other, &["--detach"]).expect_code(0);
    let says = |arguments: &[&str], words: &str| {
        until(words, || {
            let said = server.ctl(arguments).out;
            if said.contains(words) {
                Ok(())
            } else {
                Err(said)
            }
        });
    };
    says(&["status", "other"], "no node fits: 1 not enough gpus");
    server.ctl(&["scale", "train=1"]).expect_code(0);
    says(&["logs", "other"], "has ");
    server.ctl(&["stop", "train"]).expect_code(0);
    server.ctl(&["stop", "other"]).expect_code(0);
    says(&["node", "status", "n1"], "; 0 reserved");
}
