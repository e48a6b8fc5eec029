//! Files and flags that are wrong, and those that are right, without any cluster.

use std::fs;

use loom_tests::cluster::{checkout, run_alone};

#[test]
fn every_example_is_valid() {
    let mut files: Vec<String> = fs::read_dir(checkout().join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|e| ["yaml", "toml", "json"].iter().any(|x| e == *x))
        })
        .map(|path| path.display().to_string())
        .collect();
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    let mut arguments = vec!["validate"];
    arguments.extend(files.iter().map(String::as_str));
    let said = run_alone(&arguments).expect_code(0);
    assert_eq!(said.out.lines().count(), files.len());
}

#[test]
fn a_wrong_file_is_told_with_line_and_column() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("job.yaml");
    fs::write(&path, "name: web\nreplicsa: 3\nbash: echo\n").unwrap();
    let said = run_alone(&["validate", path.to_str().unwrap()]).expect_code(1);
    let place = format!("{}:2:1", path.display());
    assert!(said.err.contains(&place), "{}", said.err);
    assert!(said.err.contains("replicas"), "{}", said.err);

    let said = run_alone(&["validate", "/no/such/file.yaml"]).expect_code(1);
    assert!(said.err.contains("/no/such/file.yaml"), "{}", said.err);
    let said = run_alone(&["validate", "job.xml"]).expect_code(64);
    assert!(
        said.err.contains(".yaml, .yml, .toml or .json"),
        "{}",
        said.err
    );
}

#[test]
fn the_schema_is_json_schema() {
    let said = run_alone(&["schema"]).expect_code(0);
    assert!(
        said.json()["$schema"]
            .as_str()
            .unwrap()
            .contains("json-schema.org")
    );
}

#[test]
fn bad_usage_is_64_and_later_verbs_say_not_yet() {
    run_alone(&["no-such-verb"]).expect_code(64);
    run_alone(&["signal"]).expect_code(64);
    run_alone(&["status", "Web"]).expect_code(64);
    let said = run_alone(&["exec", "job.yaml"]).expect_code(64);
    assert!(said.err.contains("not supported yet"), "{}", said.err);
    let said = run_alone(&["node", "start", "--allow-host-volumes"]).expect_code(64);
    assert!(said.err.contains("not supported yet"), "{}", said.err);
    run_alone(&["--help"]).expect_code(0);
    let version = run_alone(&["version", "-o", "json"]).expect_code(0);
    assert_eq!(
        version.out.matches("\"format\"").count(),
        1,
        "{}",
        version.out
    );
}

#[test]
fn every_shell_gets_a_completion() {
    for shell in ["bash", "zsh", "fish"] {
        let said = run_alone(&["completion", shell]).expect_code(0);
        assert!(said.out.contains("loomctl"), "{shell}");
    }
}

#[test]
fn without_a_bus_there_is_one_clear_line() {
    let said = run_alone(&["--bus", "nats://127.0.0.1:1", "status"]).expect_code(7);
    assert!(said.err.contains("127.0.0.1:1"), "{}", said.err);
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
}
