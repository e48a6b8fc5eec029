//! What is kept of a task's output, and where.

use std::fs;
use std::path::Path;

use loom_tests::cluster::Dev;
use loom_tests::wait::until;

use super::wait_for_output;

/// The files of a log, with their sizes, by name.
fn files(place: &Path) -> Vec<(String, u64)> {
    let name = place.file_name().unwrap().to_str().unwrap();
    let mut found: Vec<(String, u64)> = fs::read_dir(place.parent().unwrap())
        .unwrap()
        .flatten()
        .map(|entry| {
            let size = entry.metadata().map_or(0, |data| data.len());
            (entry.file_name().into_string().unwrap(), size)
        })
        .filter(|(file, _)| file.starts_with(name))
        .collect();
    found.sort();
    found
}

#[test]
fn output_is_kept_in_files_of_the_size_number_and_place_the_task_says() {
    let dev = Dev::start(&[]);
    let logs = dev.data_dir().join("logs");
    let job = |name: &str, keep: &str| {
        format!(
            "name: {name}\nkind: batch\n\
             logs: {{max_size: 16KiB{keep}, to: '{}/${{job.name}}-${{task.index}}.log'}}\n\
             bash: seq 100000 110000\n",
            logs.display()
        )
    };
    dev.run(&job("few", ", keep: 2"), &[]).expect_code(0);
    dev.run(&job("usual", ""), &[]).expect_code(0);
    for (name, count) in [("few", 2), ("usual", 5)] {
        let place = logs.join(format!("{name}-0.log"));
        let kept = until("its last line is in the file", || {
            let text = fs::read_to_string(&place).map_err(|e| e.to_string())?;
            if text.ends_with(" 110000\n") {
                Ok(files(&place))
            } else {
                Err(text)
            }
        });
        assert_eq!(kept.len(), count, "{kept:?}");
        // One is closed by the line that takes it past its size.
        assert!(
            kept.iter().all(|(_, size)| *size < (16 << 10) + 100),
            "{kept:?}"
        );
    }
}

#[test]
fn output_goes_nowhere_that_a_node_does_not_let_it() {
    let dev = Dev::start(&[]);
    let elsewhere = dev.path("elsewhere");
    let job = |name: &str, to: &str| {
        format!("name: {name}\nkind: batch\nlogs: {{to: '{to}'}}\nbash: echo said\n")
    };
    let to = elsewhere.join("a.log").display().to_string();
    dev.run(&job("out", &to), &["--detach"]).expect_code(0);
    let words = format!("no node fits: 1 no --log-dir for {to}");
    until("it says why it waits", || {
        let said = dev.ctl(&["status", "out"]).out;
        if said.contains(&words) {
            Ok(())
        } else {
            Err(said)
        }
    });
    // A var may say anything: what it comes to is looked at on the node.
    let wanted = format!(
        "{}/${{var.up}}/a.log",
        dev.data_dir().join("logs").display()
    );
    let job = format!("{}restart: never\nvars: {{up: '..'}}\n", job("up", &wanted));
    dev.run(&job, &[]).expect_code(1);
    let said = dev.ctl(&["status", "up"]).out;
    assert!(said.contains("lets no output go to `"), "{said}");
    assert!(!elsewhere.exists() && !dev.data_dir().join("a.log").exists());
    let node = dev.ctl(&["node", "status", "node-1"]).expect_code(0).out;
    let logs = dev.data_dir().join("logs").display().to_string();
    assert!(node.contains(&logs), "{node}");
    dev.ctl(&["stop", "out"]).expect_code(0);
}

#[test]
fn output_goes_where_log_dir_lets_it() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("made");
    let dev = Dev::start(&["--log-dir", directory.to_str().unwrap()]);
    let file = directory.join("below/a.log");
    let job = format!(
        "name: out\nkind: batch\nlogs: {{to: '{}'}}\nbash: echo said\n",
        file.display()
    );
    dev.run(&job, &[]).expect_code(0);
    until("the line is there", || {
        let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        if text.ends_with(" stdout F said\n") {
            Ok(())
        } else {
            Err(text)
        }
    });
}

#[test]
fn output_is_on_the_bus_only_where_the_task_ships_it() {
    let dev = Dev::start(&[]);
    for ship in ["true", "false"] {
        let job =
            format!("name: is-{ship}\nkind: batch\nlogs: {{ship: {ship}}}\nbash: echo here\n");
        dev.run(&job, &[]).expect_code(0);
    }
    wait_for_output(&dev, "is-true", "here\n");
    let said = dev.ctl(&["logs", "is-false"]);
    assert_eq!(said.out, "", "{said:?}");
}
