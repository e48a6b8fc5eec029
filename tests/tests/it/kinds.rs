//! Jobs that wait for each other, and those that run on every node, as a user sees them.

use loom_tests::cluster::Dev;
use loom_tests::wait::until;

#[test]
fn tasks_start_in_their_order_and_status_draws_them_as_a_tree() {
    let dev = Dev::start(&[]);
    let said = dev.run(
        "name: ci\nkind: batch\ntasks:\n  \
         build: {bash: sleep 0.5}\n  \
         lint: {bash: 'true'}\n  \
         test: {bash: 'echo tested', after: [build, lint]}\n  \
         deploy: {bash: 'echo deployed', after: [test]}\n",
        &["--detach"],
    );
    said.expect_code(0);
    let said = dev.ctl(&["status", "ci"]).expect_code(0);
    assert!(said.out.contains("waiting for task"), "{}", said.out);
    let job = dev.wait_for_job("ci", "completed");
    let times = |task: &str, field: &str| -> jiff::Timestamp {
        let slots = job["slots"].as_array().unwrap();
        let slot = slots
            .iter()
            .find(|slot| slot["slot"]["task"] == task)
            .unwrap();
        slot["current"][field].as_str().unwrap().parse().unwrap()
    };
    assert!(times("test", "created_at") >= times("build", "ended_at"));
    assert!(times("deploy", "created_at") >= times("test", "ended_at"));
    let said = dev.ctl(&["status", "ci"]).expect_code(0);
    let tree = said
        .out
        .lines()
        .skip_while(|line| !line.starts_with("TASK"))
        .take(5);
    let tree: Vec<&str> = tree.map(str::trim_end).collect();
    let expected = [
        "TASK          STATE      REASON",
        "build         completed",
        "lint          completed",
        "└─ test       completed  also after build",
        "   └─ deploy  completed",
    ];
    assert_eq!(tree, expected, "{}", said.out);
}

#[test]
fn a_failed_dependency_ends_its_dependants_and_they_never_start() {
    let dev = Dev::start(&[]);
    let never = "restart: {on: never}\n";
    dev.run(
        &format!("name: db\nkind: batch\n{never}bash: sleep 0.5; exit 3\n"),
        &["--detach"],
    )
    .expect_code(0);
    dev.run(
        "name: api\nkind: batch\ndepends_on: [db]\nbash: echo no\n",
        &["--detach"],
    )
    .expect_code(0);
    let said = dev.run(
        "name: web\nkind: batch\ndepends_on: [api]\nbash: echo no\n",
        &[],
    );
    let said = said.expect_code(1);
    let why = "web failed: job api failed: job db failed: db/0 failed: exit code 3";
    assert!(
        said.err.contains("waiting for job api to complete"),
        "{}",
        said.err
    );
    assert!(said.err.contains(why), "{}", said.err);
    for job in ["api", "web"] {
        let job = dev.job(job);
        assert!(job["slots"].as_array().is_none_or(Vec::is_empty), "{job}");
    }
    let circle = "name: db\nkind: batch\ndepends_on: [web]\nbash: 'true'\n";
    let said = dev.run(circle, &[]).expect_code(1);
    assert!(said.err.contains("db -> web -> api -> db"), "{}", said.err);
    let unknown = "name: x\nkind: batch\ndepends_on: [y]\nbash: 'true'\n";
    let said = dev.run(unknown, &[]).expect_code(1);
    assert!(said.err.contains("there is no job y"), "{}", said.err);
}

#[test]
fn a_system_job_runs_on_every_node_and_answers_to_its_name() {
    let dev = Dev::start(&["--nodes", "2"]);
    let job = "name: agent\nkind: system\nmemory: 16MiB\nstop: {grace: 2s}\nbash: |\n  \
               trap 'echo reloaded $LOOM_TASK_INDEX' HUP\n  trap 'exit 0' TERM\n  \
               echo here\n  while true; do sleep 0.05; done\n";
    let said = dev.run(job, &[]).expect_code(0);
    assert!(said.err.contains("agent: running, 2/2"), "{}", said.err);
    let said = dev.ctl(&["status", "agent"]).expect_code(0);
    for node in ["node-1", "node-2"] {
        let row = format!("agent/{node}");
        let row = said
            .out
            .lines()
            .find(|line| line.starts_with(&row))
            .unwrap();
        assert!(row.contains(&format!("running  {node}")), "{row}");
    }
    let said = dev.ctl(&["status", "agent/node-2"]).expect_code(0);
    assert!(said.out.contains("Task:      agent/node-2"), "{}", said.out);
    dev.ctl(&["status", "agent/node-3"]).expect_code(4);

    let said = dev.ctl(&["signal", "agent/node-2", "HUP"]).expect_code(0);
    assert!(
        said.out.contains("agent/node-2  node-2  ok"),
        "{}",
        said.out
    );
    until("the trap has run", || {
        let said = dev.ctl(&["logs", "agent/node-2", "--tail", "1"]);
        if said.out == "reloaded node-2\n" {
            Ok(())
        } else {
            Err(said.out + &said.err)
        }
    });
    let said = dev.ctl(&["logs", "agent/node-1"]).expect_code(0);
    assert_eq!(said.out, "here\n");
    let said = dev.ctl(&["signal", "agent", "HUP"]).expect_code(0);
    assert_eq!(said.out.lines().count(), 3, "{}", said.out);
    let said = dev.ctl(&["scale", "agent=3"]).expect_code(1);
    assert!(said.err.contains("one on every node"), "{}", said.err);

    dev.ctl(&["stop", "agent/node-1"]).expect_code(0);
    let job = dev.job("agent");
    assert_eq!(job["summary"]["running"], 1, "{job}");
    dev.ctl(&["restart", "agent/node-1"]).expect_code(0);
    until("it runs again", || {
        let job = dev.job("agent");
        if job["summary"]["running"] == 2 {
            Ok(())
        } else {
            Err(job["slots"].to_string())
        }
    });
    dev.ctl(&["stop", "agent"]).expect_code(0);
    dev.wait_for_job("agent", "killed");
}
