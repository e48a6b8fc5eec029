use std::path::Path;

use super::*;
use crate::machine::samples::{assigned, id};

fn script(text: &str) -> Script {
    Script {
        text: text.into(),
        file: None,
    }
}

fn launched(assigned: &Assigned) -> Result<Launch, OperatorError> {
    let node = Name::new("node-1").unwrap();
    let address = "10.0.0.7";
    let place = Place {
        node: &node,
        address,
    };
    launch(assigned, id(5), place)
}

fn argv(assigned: &Assigned) -> Vec<String> {
    let argv = launched(assigned).unwrap().argv_in(Path::new("/run"));
    argv.into_iter()
        .map(|word| word.into_string().unwrap())
        .collect()
}

#[test]
fn a_script_is_a_file_run_by_its_interpreter() {
    let mut task = assigned();
    task.task.args = vec!["--index=${task.index}".into()];
    for (operator, expected) in [
        (
            Operator::Bash(script("true")),
            "bash /run/script.sh --index=0",
        ),
        (
            Operator::Python(script("pass")),
            "python3 /run/script.py --index=0",
        ),
        (
            Operator::Go(script("package main")),
            r#"sh -c go build -o "$0.bin" "$0" && exec "$0.bin" "$@" /run/main.go --index=0"#,
        ),
    ] {
        task.task.operator = operator;
        assert_eq!(argv(&task).join(" "), expected);
    }
    task.task.command = vec!["bash".into(), "-eu".into()];
    task.task.operator = Operator::Bash(script("echo ${job.name}"));
    assert_eq!(argv(&task).join(" "), "bash -eu /run/script.sh --index=0");
    let launch = launched(&task).unwrap();
    assert_eq!(launch.files[0].contents, b"echo \"${LOOM_JOB}\"");
}

#[test]
fn python_and_go_are_left_as_they_are() {
    let mut task = assigned();
    task.task.operator = Operator::Python(script("print('${job.name}')"));
    let launch = launched(&task).unwrap();
    assert_eq!(launch.files[0].contents, b"print('${job.name}')");
}

#[test]
fn an_exec_is_filled_word_by_word() {
    let mut task = assigned();
    task.ports.insert(Name::new("http").unwrap(), 20_001);
    let words = ["srv", "${node.ip}:${port.http}", "$${HOME}", "a b"];
    task.task.operator = Operator::Exec(words.map(String::from).to_vec());
    assert_eq!(argv(&task), ["srv", "10.0.0.7:20001", "${HOME}", "a b"]);
    task.task.operator = Operator::Exec(vec!["srv".into(), "${port.admin}".into()]);
    let error = launched(&task).unwrap_err().to_string();
    assert_eq!(error, "exec[1]: the task has no port `admin`");
    task.task.operator = Operator::Exec(Vec::new());
    assert!(matches!(launched(&task), Err(OperatorError::Empty)));
}

#[test]
fn a_script_may_not_ask_for_a_port_it_has_not() {
    let mut task = assigned();
    task.task.operator = Operator::Bash(Script {
        text: "echo ${port.http}".into(),
        file: Some("run.sh".into()),
    });
    let error = launched(&task).unwrap_err().to_string();
    assert_eq!(error, "bash (run.sh): the task has no port `http`");
}

#[test]
fn the_environment_says_which_run_it_is() {
    let mut task = assigned();
    task.ports.insert(Name::new("http-2").unwrap(), 20_001);
    task.task
        .env
        .insert("URL".into(), "http://${node.ip}:${port.http-2}".into());
    task.task.env.insert("LOOM_JOB".into(), "forged".into());
    let env = launched(&task).unwrap().env;
    for (key, value) in [
        ("LOOM_JOB", "web"),
        ("LOOM_TASK", "main"),
        ("LOOM_TASK_INDEX", "0"),
        ("LOOM_NODE", "node-1"),
        ("LOOM_VERSION", "7"),
        ("LOOM_PORT_HTTP_2", "20001"),
        ("LOOM_ADDR_HTTP_2", "10.0.0.7:20001"),
        ("URL", "http://10.0.0.7:20001"),
    ] {
        assert_eq!(env.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(env["LOOM_RUN"], id(5).to_string());
}
