use std::path::Path;

use loom_schemas::record::Gpu;
use loom_schemas::spec::{ImageSpec, IndexSpec, Pull, ResourceChange, SimScript};

use super::*;
use crate::machine::samples::{assigned, id};

fn script(text: &str) -> Script {
    Script {
        text: text.into(),
        file: None,
    }
}

fn launched(assigned: &Assigned) -> Result<Launch, OperatorError> {
    launched_with(assigned, &LogDirs::default())
}

fn launched_with(assigned: &Assigned, log_dirs: &LogDirs) -> Result<Launch, OperatorError> {
    let node = Name::new("node-1").unwrap();
    let address = "10.0.0.7";
    let place = Place {
        node: &node,
        address,
        labels: &BTreeMap::from([("disk.type".to_owned(), "ssd".to_owned())]),
        log_dirs,
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
fn output_goes_only_where_the_node_lets_it() {
    let place = tempfile::tempdir().unwrap();
    let there = place.path().canonicalize().unwrap();
    let dirs = LogDirs::open(std::slice::from_ref(&there)).unwrap();
    let mut task = assigned();
    let within = there.join("a-${task.index}.log");
    task.task.logs.to = Some(within.display().to_string());
    let to = launched_with(&task, &dirs).unwrap().logs.to.unwrap();
    assert_eq!(Path::new(&to), there.join("a-0.log"));
    let why = launched(&task).unwrap_err().to_string();
    assert_eq!(
        why,
        format!(
            "logs.to: node node-1 lets no output go to `{to}`: to none but its own directories; start \
             it with `--log-dir` and a directory above that"
        )
    );
    task.task.logs.to = Some(format!("{}/../x", there.display()));
    let why = launched_with(&task, &dirs).unwrap_err().to_string();
    let only = format!("only beneath {}; start", there.display());
    assert!(why.contains(&only), "{why}");
    // What only plays writes nothing.
    task.task.sim = Some(SimScript::default());
    task.task.operator = Operator::Exec(vec!["true".into()]);
    launched(&task).unwrap();
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

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn values_are_handed_on_and_what_was_filled_in_is_told() {
    let mut task = assigned();
    task.task.vars.insert(name("tag"), "a $(b) 'c'".into());
    let of = ResultUse {
        task: name("build"),
        key: "images.0".into(),
    };
    task.results.insert(of.to_string(), "web:7".into());
    let params = [
        ("day", "${var.tag}"),
        ("from-image", "${task.build.result.images.0}"),
    ];
    task.task.params = params.map(|(key, text)| (name(key), text.into())).into();
    task.task.args = vec!["${node.label.disk.type}".into()];
    task.task.operator = Operator::Bash(script(
        "echo ${var.tag} ${task.build.result.images.0} ${node.label.disk.type}",
    ));
    let launch = launched(&task).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&launch.files[0].contents),
        "echo \"${LOOM_VAR_TAG}\" \"${LOOM_RESULT_OF_BUILD__images_2E0}\" \
         \"${LOOM_NODE_LABEL_disk_2Etype}\""
    );
    for (key, value) in [
        ("LOOM_VAR_TAG", "a $(b) 'c'"),
        ("LOOM_RESULT_OF_BUILD__images_2E0", "web:7"),
        ("LOOM_NODE_LABEL_disk_2Etype", "ssd"),
        ("LOOM_PARAM_DAY", "a $(b) 'c'"),
        ("LOOM_PARAM_FROM_IMAGE", "web:7"),
    ] {
        assert_eq!(
            launch.env.get(key).map(String::as_str),
            Some(value),
            "{key}"
        );
    }
    let filled = [
        ("node.label.disk.type", "ssd"),
        ("task.build.result.images.0", "web:7"),
        ("var.tag", "a $(b) 'c'"),
    ];
    assert_eq!(
        launch.filled,
        filled.map(|(k, v)| (k.into(), v.into())).into()
    );
    task.task.vars.insert(name("tag"), "ä".repeat(300));
    let shown = &launched(&task).unwrap().filled["var.tag"];
    assert_eq!(shown.chars().count(), 259);
}

#[test]
fn a_value_that_is_not_there_is_said_to_be_missing() {
    let mut task = assigned();
    for (word, message) in [
        (
            "${node.label.gpu}",
            "exec[0]: node node-1 has no label `gpu`; start it with `--label gpu=...`",
        ),
        (
            "${task.build.result.tag}",
            "exec[0]: `${task.build.result.tag}` has no value: task `build` left no `tag` in its \
             result",
        ),
        ("${var.tag}", "exec[0]: `${var.tag}` has no value"),
    ] {
        task.task.operator = Operator::Exec(vec![word.into()]);
        assert_eq!(launched(&task).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_slot_is_launched_as_its_index_says() {
    let mut task = assigned();
    task.task.operator = Operator::Exec(vec!["srv".into()]);
    task.task.args = vec!["all".into()];
    let own = IndexSpec {
        args: Some(vec!["own".into()]),
        env: BTreeMap::from([("A".into(), "${task.index}".into())]),
        resources: ResourceChange {
            pids: Some(7),
            ..ResourceChange::default()
        },
    };
    task.task.per_index.insert(2, own);
    assert_eq!(argv(&task), ["srv", "all"]);
    task.slot.index = 2.into();
    let launch = launched(&task).unwrap();
    assert_eq!(argv(&task), ["srv", "own"]);
    assert_eq!((&*launch.env["A"], launch.resources.pids), ("2", Some(7)));
}
#[test]
fn a_task_is_told_which_gpus_are_its_own() {
    let of = |task: &Assigned| -> Vec<(String, String)> {
        let env = launched(task).unwrap().env.into_iter();
        let about = ["GPUS", "VISIBLE_DEVICES", "CUDA"];
        env.filter(|(name, _)| about.iter().any(|word| name.contains(word)))
            .collect()
    };
    let mut task = assigned();
    task.task.operator = Operator::Exec(vec!["srv".into()]);
    assert_eq!(of(&task), [], "no gpus, no word of them");
    let gpu = |id: &str| Gpu {
        name: Name::new("a100").unwrap(),
        id: id.to_owned(),
    };
    task.gpus = vec![gpu("GPU-a"), gpu("3")];
    // Which it has is not for the job file to say.
    let own = ("CUDA_VISIBLE_DEVICES".to_owned(), "0,1,2,3".to_owned());
    task.task.env.extend([own]);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        of(&task),
        [
            pair("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
            pair("CUDA_VISIBLE_DEVICES", "GPU-a,3"),
            pair("LOOM_GPUS", "GPU-a,3"),
            pair("NVIDIA_VISIBLE_DEVICES", "GPU-a,3"),
        ]
    );
    task.task.image = Some(ImageSpec {
        name: "cuda:1".into(),
        pull: Pull::Missing,
    });
    task.task.env.clear();
    let expected = [
        pair("LOOM_GPUS", "GPU-a,3"),
        pair("NVIDIA_VISIBLE_DEVICES", "GPU-a,3"),
    ];
    assert_eq!(of(&task), expected, "in a container numbers are others");
    assert_eq!(
        launched(&task).unwrap().container.unwrap().gpus,
        ["GPU-a", "3"]
    );
}

/// What bash itself makes of scripts whose references were replaced.
#[test]
fn bash_prints_what_the_references_say() {
    for (script, expected) in [
        (
            r#"x="$(case a in a) echo '<@>' ;; esac)"; echo "$x""#,
            "<a b>",
        ),
        ("echo \\${job.name} @", "${job.name} a b"),
        ("y='a #b'; echo ${y/ #/} '@'", "ab a b"),
        (r#"echo "`echo '@'`" "${x:-'} @'}""#, "a b '} a b'"),
        ("cat <<E\n@E\nE", "a bE"),
    ] {
        let script = shell::with_variables(&script.replace('@', "${job.name}")).unwrap();
        let mut bash = std::process::Command::new("bash");
        let ran = bash.args(["-c", &script]).env("LOOM_JOB", "a b").output();
        let printed = String::from_utf8(ran.unwrap().stdout).unwrap();
        assert_eq!(printed.trim_end(), expected, "{script}");
    }
}
