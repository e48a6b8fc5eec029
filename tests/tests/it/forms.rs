//! What programs read: forms of output, exit codes, and what is refused before anything is done.

use std::fs;

use loom_tests::cluster::{Dev, run_alone};
use loom_tests::wait::until;
use serde_json::Value;

const WEB: &str = "name: web\nreplicas: 2\nstop: {grace: 1s}\nlabels: {tier: front}\n\
                   bash: trap 'echo $LOOM_TASK_INDEX has it' USR1; echo up; \
                   while true; do sleep 0.05; done\n";

#[test]
fn every_write_has_a_form_for_programs() {
    let dev = Dev::start(&[]);
    dev.run(WEB, &[]).expect_code(0);
    let scaled = dev.ctl(&["scale", "web=3", "-o", "json"]).expect_code(0);
    let scaled = scaled.json();
    assert_eq!(scaled["format"], 1);
    assert_eq!(
        (&scaled["address"], &scaled["replicas"], &scaled["changed"]),
        (&"web".into(), &3.into(), &true.into())
    );
    let again = dev.ctl(&["scale", "web=3", "-o", "json"]).expect_code(0);
    assert_eq!(again.json()["changed"], false);
    let restarted = dev
        .ctl(&["restart", "web/0", "-o", "json"])
        .expect_code(0)
        .json();
    assert_eq!(
        (&restarted["address"], &restarted["job"]),
        (&"web/0".into(), &"web".into())
    );
    let name = dev.ctl(&["stop", "web/1", "-o", "name"]).expect_code(0);
    assert_eq!(name.out, "web/1\n");
    let stopped = dev.ctl(&["stop", "web", "-o", "jsonl"]).expect_code(0);
    assert_eq!(stopped.out.lines().count(), 1);
    assert_eq!(stopped.json()["changed"], true);
    let yaml = dev.ctl(&["stop", "web", "-o", "yaml"]).expect_code(0);
    assert!(yaml.out.contains("changed: false"), "{}", yaml.out);
    let plain = dev.ctl(&["stop", "web"]).expect_code(0);
    assert_eq!(plain.out, "web was stopped already\n");
}

#[test]
fn problems_of_a_file_are_a_list_for_programs() {
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good.yaml");
    let bad = directory.path().join("bad.yaml");
    fs::write(&good, "name: web\nbash: echo\n").unwrap();
    fs::write(&bad, "name: web\nreplicsa: 3\nbash: echo\nmemory: 5\n").unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    let said = run_alone(&["validate", good, bad, "/no/such.yaml", "-o", "json"]).expect_code(1);
    assert_eq!(said.err, "");
    let list = said.json();
    assert_eq!(list["format"], 1);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    assert_eq!(
        (&items[0]["valid"], &items[0]["job"]),
        (&true.into(), &"web".into())
    );
    assert_eq!(items[1]["valid"], false);
    let problems = items[1]["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{list}");
    let first = &problems[0];
    assert_eq!(
        (&first["line"], &first["column"], &first["path"]),
        (&2.into(), &1.into(), &"replicsa".into()),
        "{first}"
    );
    assert!(
        first["help"].as_str().unwrap().contains("replicas"),
        "{first}"
    );
    assert!(!first["message"].as_str().unwrap().is_empty());
    let missing = items[2]["problems"][0]["message"].as_str().unwrap();
    assert!(missing.contains("/no/such.yaml"), "{missing}");
}

#[test]
fn the_doctor_without_a_bus_says_so_with_its_code() {
    let said = run_alone(&["--bus", "nats://127.0.0.1:1", "doctor", "-o", "json"]).expect_code(7);
    let list = said.json();
    let checks = list["items"].as_array().unwrap();
    let bus = checks.iter().find(|check| check["check"] == "bus").unwrap();
    assert_eq!(bus["verdict"], "bad", "{list}");
}

#[test]
fn forms_that_make_no_sense_are_refused() {
    for arguments in [
        &["logs", "web", "-o", "name"] as &[&str],
        &["logs", "-f", "web", "-o", "json"],
        &["logs", "-f", "web", "-o", "yaml"],
        &["events", "-f", "-o", "json"],
        &["run", "--once", "-o", "json", "job.yaml"],
        &["dev", "-o", "json"],
        &["node", "start", "--allow-process", "-o", "json"],
        &["manager", "start", "-o", "yaml"],
        &["completion", "bash", "-o", "json"],
        &["schema", "-o", "name"],
    ] {
        let said = run_alone(arguments).expect_code(64);
        assert!(said.err.contains("-o"), "{arguments:?}: {}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{arguments:?}: {}", said.err);
    }
}

#[test]
fn output_and_events_are_documents_where_they_have_an_end() {
    let dev = Dev::start(&[]);
    dev.run("name: say\nkind: batch\nbash: echo one; echo two\n", &[])
        .expect_code(0);
    let lines = until("both lines are kept", || {
        let said = dev.ctl(&["logs", "say", "-o", "json"]).expect_code(0);
        let lines = said.json()["items"].as_array().cloned().unwrap_or_default();
        if lines.len() == 2 {
            Ok(lines)
        } else {
            Err(said.out)
        }
    });
    assert_eq!(lines[1]["text"], "two");
    let said = dev.ctl(&["logs", "say", "-o", "jsonl"]).expect_code(0);
    assert_eq!(said.out.lines().count(), 2);
    let first: Value = serde_json::from_str(said.out.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["format"], &first["text"]),
        (&1.into(), &"one".into())
    );
    let events = dev
        .ctl(&["events", "say", "-o", "json"])
        .expect_code(0)
        .json();
    let events = events["items"].as_array().unwrap();
    assert_eq!(events[0]["subject"], "orch.events.job.say.accepted");
}

#[test]
fn a_signal_that_does_not_exist_is_refused_before_it_is_sent() {
    for (name, near) in [
        ("HUPP", "SIGHUP"),
        ("sigtrem", "SIGTERM"),
        ("NOPE", "not a signal"),
    ] {
        let said = run_alone(&["signal", "web/0", name]).expect_code(64);
        assert!(said.err.contains(near), "{name}: {}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    }
}

#[test]
fn any_is_one_of_them() {
    let dev = Dev::start(&[]);
    dev.run(WEB, &[]).expect_code(0);
    let said = dev
        .ctl(&["signal", "web", "USR1", "--any", "-o", "json"])
        .expect_code(0)
        .json();
    assert_eq!(said["items"].as_array().map(Vec::len), Some(1), "{said}");
    assert_eq!(said["items"][0]["slot"]["index"], 0, "{said}");
    until("one has it", || {
        let said = dev.ctl(&["logs", "web"]);
        if said.out.contains("has it") {
            Ok(())
        } else {
            Err(said.out)
        }
    });
    let said = dev.ctl(&["logs", "web"]);
    assert_eq!(said.out.matches("has it").count(), 1, "{}", said.out);
    dev.ctl(&["pause", "nobody", "--any"]).expect_code(4);
    dev.ctl(&["pause", "web", "--any", "--min-ok", "2"])
        .expect_code(64);
}

#[test]
fn output_is_found_by_labels() {
    let dev = Dev::start(&[]);
    for (name, tier) in [("a", "front"), ("b", "front"), ("c", "back")] {
        let job = format!(
            "name: {name}\nkind: batch\nlabels: {{tier: {tier}}}\nbash: echo from $LOOM_JOB\n"
        );
        dev.run(&job, &[]).expect_code(0);
    }
    until("the output of both is there", || {
        let said = dev.ctl(&["logs", "-l", "tier=front"]).expect_code(0);
        if said.out == "a/0 | from a\nb/0 | from b\n" {
            Ok(())
        } else {
            Err(said.out)
        }
    });
    let said = dev.ctl(&["logs", "-l", "tier=none"]).expect_code(4);
    assert!(said.err.contains("tier=none"), "{}", said.err);
    dev.ctl(&["logs", "a", "-l", "tier=front"]).expect_code(64);
    dev.ctl(&["logs"]).expect_code(64);
}

#[test]
fn jobs_are_restarted_and_stopped_by_labels() {
    let dev = Dev::start(&[]);
    for (name, tier) in [("one", "front"), ("two", "front"), ("three", "back")] {
        let job = format!(
            "name: {name}\nlabels: {{tier: {tier}}}\nstop: {{grace: 1s}}\nexec: [sleep, '1000']\n"
        );
        dev.run(&job, &[]).expect_code(0);
    }
    let wants = |arguments: &[&str], code| dev.ctl(arguments).expect_code(code);
    let said = wants(&["restart", "-l", "tier=front"], 0);
    assert_eq!(said.out, "one is being restarted\ntwo is being restarted\n");
    let said = wants(&["stop", "-l", "tier=front", "-o", "json"], 0).json();
    assert_eq!(said["items"][0]["address"], "one", "{said}");
    assert_eq!(said["items"][1]["changed"], true, "{said}");
    let status = |job: &str| dev.job(job)["summary"]["status"].clone();
    assert_eq!(
        (status("one"), status("two")),
        ("killed".into(), "killed".into())
    );
    assert_eq!(status("three"), "running");
    let said = wants(&["stop", "-l", "tier=front", "-l", "no=such"], 4);
    assert!(said.err.contains("no job has the labels"), "{}", said.err);
    wants(&["stop", "-l", "tier=back", "three"], 64);
    wants(&["stop"], 64);
    let said = wants(&["stop", "-l", "tier=back"], 0);
    assert_eq!(said.out, "three is stopped\n");
}

#[test]
fn a_new_round_does_not_show_the_one_before() {
    let dev = Dev::start(&[]);
    let job = "name: again\nkind: batch\nrestart: {on: never}\n\
               bash: sleep 0.5; if [ -e FILE ]; then exit 0; fi; touch FILE; exit 3\n"
        .replace("FILE", dev.path("ran").to_str().unwrap());
    let first = dev.run(&job, &[]).expect_code(1);
    assert!(first.err.contains("exit code 3"), "{}", first.err);
    let second = dev.run(&job, &[]).expect_code(0);
    assert!(
        second.err.contains("again: started again"),
        "{}",
        second.err
    );
    assert!(!second.err.contains("failed"), "{}", second.err);
    assert!(!second.err.contains("exit code 3"), "{}", second.err);
}

/// `loomctl` and every verb of it, as `--help` lists them.
fn verbs(path: &[&str]) -> Vec<Vec<String>> {
    let mut arguments = path.to_vec();
    arguments.push("--help");
    let help = run_alone(&arguments).expect_code(0).out;
    let Some((_, list)) = help.split_once("\nCommands:\n") else {
        return vec![path.iter().map(ToString::to_string).collect()];
    };
    let mut all = Vec::new();
    for line in list.lines().take_while(|line| !line.is_empty()) {
        let verb = line.split_whitespace().next().unwrap();
        if line.starts_with("  ") && !line.starts_with("   ") && verb != "help" {
            let mut path = path.to_vec();
            path.push(verb);
            all.extend(verbs(&path));
        }
    }
    all
}

#[test]
fn every_help_shows_an_example() {
    let all = verbs(&[]);
    assert!(all.len() > 20, "{all:?}");
    for verb in all {
        let mut arguments: Vec<&str> = verb.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = run_alone(&arguments).expect_code(0).out;
        let example = format!("\n  loomctl {}", verb.join(" "));
        assert!(help.contains(&example), "{verb:?}: {help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{verb:?}: {line}");
        }
    }
}
