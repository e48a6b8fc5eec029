//! Jobs that wait for each other, and those that run on every node, as a user sees them.

use loom_tests::cluster::Dev;
use loom_tests::wait::until;

#[test]
fn tasks_start_in_their_order_and_status_draws_them_as_a_tree() {
    let dev = Dev::start(&[]);
    let go = dev.path("go");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", go.display());
    let said = dev.run(
        &format!(
            "name: ci\nkind: batch\ntasks:\n  \
             build: {{bash: '{wait}'}}\n  \
             lint: {{bash: 'true'}}\n  \
             test: {{bash: 'echo tested', after: [build, lint]}}\n  \
             deploy: {{bash: 'echo deployed', after: [test]}}\n"
        ),
        &["--detach"],
    );
    said.expect_code(0);
    let said = dev.ctl(&["status", "ci"]).expect_code(0);
    assert!(
        said.out.contains("waiting for task test to complete"),
        "{}",
        said.out
    );
    std::fs::write(go, "").unwrap();
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
        "└─ test       completed  also after lint",
        "   └─ deploy  completed",
        "lint          completed",
    ];
    assert_eq!(tree, expected, "{}", said.out);
}

#[test]
fn a_failed_dependency_ends_its_dependants_and_they_never_start() {
    let dev = Dev::start(&[]);
    let go = dev.path("go");
    let db = format!(
        "name: db\nkind: batch\nrestart: {{on: never}}\n\
         bash: 'until [ -e {} ]; do sleep 0.05; done; exit 3'\n",
        go.display()
    );
    dev.run(&db, &["--detach"]).expect_code(0);
    for (job, before) in [("api", "db"), ("web", "api")] {
        let job = format!("name: {job}\nkind: batch\ndepends_on: [{before}]\nbash: echo no\n");
        dev.run(&job, &["--detach"]).expect_code(0);
    }
    let said = dev.ctl(&["status", "web"]).expect_code(0);
    assert!(
        said.out.contains("waiting for job api to complete"),
        "{}",
        said.out
    );
    let tree = "\
DEPENDS ON  UNTIL      STATE    REASON
api         completed  waiting  waiting for job db to complete
└─ db       completed  running
";
    assert!(said.out.contains(tree), "{}", said.out);
    let page = dev.path("page.yaml");
    std::fs::write(
        &page,
        "name: page\nkind: batch\ndepends_on: [web]\ntasks:\n  \
         build: {bash: 'true'}\n  test: {bash: 'true', after: [build], cpu: 4000}\n",
    )
    .unwrap();
    let page = page.to_str().unwrap();
    let said = dev.ctl(&["plan", page]).expect_code(2);
    let expected = "\
page would be new, at version 1
TASK   ACTION  REPLICAS  REASON
build  create  1         new
test   create  1         new

DEPENDS ON  UNTIL      STATE    REASON
web         completed  waiting  waiting for job api to complete
└─ api      completed  waiting  waiting for job db to complete
   └─ db    completed  running

TASK     STATE    REASON
build    pending
└─ test  waiting  waiting for task build to complete

finds no node as things stand, or is never started:
page/test/0: no node fits: 1 not enough cpu
";
    assert_eq!(said.out, expected);
    std::fs::write(go, "").unwrap();
    dev.wait_for_job("web", "failed");
    let said = dev.ctl(&["plan", page]).expect_code(2);
    let why = "page never starts: job web failed: job api failed: job db failed: db/0 failed";
    assert!(said.out.contains(why), "{}", said.out);
    let said = dev.ctl(&["status", "web"]).expect_code(0);
    let why = "job api failed: job db failed: db/0 failed: exit code 3";
    assert!(said.out.contains(why), "{}", said.out);
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

#[test]
fn a_schedule_fires_child_jobs_and_a_dispatch_makes_one_more() {
    let dev = Dev::start(&[]);
    let job = "name: tick\nschedule: {cron: '* * * * * *', overlap: allow}\nbash: echo tock\n";
    let said = dev.run(job, &[]).expect_code(0);
    assert!(said.err.contains("tick: fires next at "), "{}", said.err);
    let children = || {
        let job = dev.job("tick");
        let children = job["children"].as_array().cloned().unwrap_or_default();
        let ended = children
            .iter()
            .filter(|child| child["status"] == "completed");
        let names = ended.map(|child| child["job"]["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let fired = until("two firings completed", || {
        let ended = children();
        if ended.len() >= 2 {
            Ok(ended)
        } else {
            Err(dev.job("tick").to_string())
        }
    });
    assert!(fired[0].starts_with("tick-20"), "{fired:?}");
    let said = dev.ctl(&["status", "tick"]).expect_code(0);
    assert!(
        said.out
            .contains("Schedule:  * * * * * * (UTC, overlap allow)"),
        "{}",
        said.out
    );
    assert!(said.out.contains("Next:"), "{}", said.out);
    dev.ctl(&["stop", "tick"]).expect_code(0);
    assert_eq!(
        dev.job("tick")["summary"]["status"],
        "killed",
        "it waits for them"
    );
    let said = dev.run(job, &["--once"]).expect_code(64);
    assert!(said.err.contains("by its schedule"), "{}", said.err);

    dev.run("name: once\nkind: batch\nbash: echo again\n", &[])
        .expect_code(0);
    let said = dev.ctl(&["dispatch", "once"]).expect_code(0);
    assert!(said.err.contains("once-20"), "{}", said.err);
    let said = dev
        .ctl(&["dispatch", "once", "--param", "k=v"])
        .expect_code(1);
    assert!(said.err.contains("no param k"), "{}", said.err);
    dev.ctl(&["dispatch", "twice"]).expect_code(4);
}

#[test]
fn a_task_that_is_a_job_ends_as_it_does_and_is_stopped_with_it() {
    let dev = Dev::start(&[]);
    let go = dev.path("go");
    let render = format!(
        "name: render\nkind: batch\nrestart: {{on: never}}\n\
         bash: 'until [ -e {} ]; do sleep 0.05; done; exit 3'\n",
        go.display()
    );
    dev.run(&render, &["--detach"]).expect_code(0);
    let film = "name: film\nkind: batch\ntasks:\n  scene: {job: render}\n  \
                cut: {bash: echo no, after: [scene]}\n";
    dev.run(film, &["--detach"]).expect_code(0);
    let running = |job: &str| dev.wait_for_job(job, "running");
    let child = running("film")["slots"][0]["current"]["child"].clone();
    let child = child.as_str().unwrap().to_owned();
    assert!(child.starts_with("render-20"), "{child}");
    dev.ctl(&["stop", "film", "--reason", "enough"])
        .expect_code(0);
    let stopped = dev.wait_for_job(&child, "killed");
    let why = stopped["summary"]["job"]["reason"].as_str().unwrap();
    assert!(why.starts_with("stopped by job film: stopped by "), "{why}");
    dev.wait_for_job("film", "killed");

    dev.run(film, &["--detach"]).expect_code(0);
    running("film");
    std::fs::write(go, "").unwrap();
    let failed = dev.wait_for_job("film", "failed");
    let why = failed["summary"]["job"]["reason"].as_str().unwrap();
    assert!(
        why.starts_with("film/scene/0 failed: job render-20"),
        "{why}"
    );
    assert!(why.ends_with("/0 failed: exit code 3"), "{why}");
    assert_eq!(failed["summary"]["job"]["exit_code"], 3);
    let said = dev
        .run("name: a\nkind: batch\njob: x\n", &[])
        .expect_code(1);
    assert!(said.err.contains("there is no job x"), "{}", said.err);
}
