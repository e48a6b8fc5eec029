//! Right job files: defaults, the effect of every field, the three syntaxes.

use super::*;
use crate::units::MilliCores;

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn all_defaults_are_filled_in() {
    let job = good("name: web\nexec: [serve]", Syntax::Yaml);
    let expected = TaskSpec {
        operator: Operator::Exec(texts(&["serve"])),
        image: None,
        network: Network::default(),
        command: vec![],
        args: vec![],
        replicas: 1,
        per_index: BTreeMap::new(),
        gang: false,
        env: BTreeMap::new(),
        params: BTreeMap::new(),
        vars: BTreeMap::new(),
        result: false,
        results: std::collections::BTreeSet::new(),
        workdir: None,
        user: None,
        resources: Resources {
            cpu: MilliCores(100),
            cpu_limit: None,
            memory: Bytes::mib(128),
            disk: Bytes(0),
            disk_rate: None,
            pids: None,
            gpus: None,
        },
        ports: BTreeMap::new(),
        constraints: vec![],
        affinities: vec![],
        spread: vec![],
        tolerations: vec![],
        restart: RestartSpec {
            on: RestartOn::Any,
            attempts: 3,
            delay: Millis::secs(1),
            max_delay: Millis::secs(60),
            window: Some(Millis::secs(300)),
        },
        stop: StopSpec {
            signal: "SIGTERM".into(),
            grace: Millis::secs(10),
        },
        timeout: None,
        after: vec![],
        health: None,
        logs: LogSpec {
            max_size: Bytes::mib(10),
            keep: 5,
            ship: true,
            to: None,
        },
        sim: None,
    };
    assert_eq!(
        job,
        JobSpec {
            name: name("web"),
            owner: None,
            kind: Kind::Service,
            priority: PRIORITY,
            datacenters: vec![],
            strategy: None,
            schedule: None,
            depends_on: vec![],
            vars: BTreeMap::new(),
            update: UpdateSpec::default(),
            labels: BTreeMap::new(),
            tasks: BTreeMap::from([(Name::main(), expected)]),
        }
    );
}

#[test]
fn a_batch_is_restarted_after_failures_without_a_window() {
    let restart = task("kind: batch\nbash: x").restart;
    assert_eq!(restart.on, RestartOn::Failure);
    assert_eq!((restart.attempts, restart.window), (3, None));
}

#[test]
fn every_field_of_a_job_arrives() {
    let job = good(
        "name: web\nowner: ann\nkind: batch\nlabels: {tier: front, n: 1}\n\
         tasks: {api: {bash: a}, db: {go: b}}",
        Syntax::Yaml,
    );
    assert_eq!(job.owner.as_deref(), Some("ann"));
    assert_eq!(job.kind, Kind::Batch);
    assert_eq!(job.labels["tier"], "front");
    assert_eq!(job.labels["n"], "1");
    let tasks: Vec<&str> = job.tasks.keys().map(Name::as_str).collect();
    assert_eq!(tasks, ["api", "db"]);
}

#[test]
fn every_operator_arrives() {
    let script = |text: &str| Script {
        text: text.into(),
        file: None,
    };
    assert_eq!(
        task("bash: |\n  a\n  b").operator,
        Operator::Bash(script("a\nb\n"))
    );
    assert_eq!(task("python: a").operator, Operator::Python(script("a")));
    assert_eq!(task("go: a").operator, Operator::Go(script("a")));
    assert_eq!(
        task("exec: [a, 1, true, 0.5]").operator,
        Operator::Exec(texts(&["a", "1", "true", "0.5"]))
    );
    let with_text = Script {
        text: "x".into(),
        file: Some("a.sh".into()),
    };
    assert_eq!(
        task("bash: {file: a.sh, text: x}").operator,
        Operator::Bash(with_text)
    );
}

#[test]
fn every_field_of_a_task_arrives() {
    let task = task(
        "bash: x\ncommand: [bash, -eu]\nargs: [a, \"${task.index}\"]\nreplicas: 3\n\
         env: {A: b, LOOM_BUS: c}\nworkdir: /srv\nuser: 1000\n\
         cpu: 0.5\ncpu_limit: 2\nmemory: 1GiB\npids: 10\n\
         ports: {http: 80, dns: {host: 53, protocol: udp}, any: {}}\n\
         stop: {signal: INT, grace: 1m}\nlogs: {max_size: 1MiB, keep: 2, ship: false}\n\
         sim: {start: 1s, run: 2s, exit: 3, start_error: no, ignore_stop: true,\n  \
         healthy_after: 4s, unhealthy_after: 5s}",
    );
    assert_eq!(task.command, texts(&["bash", "-eu"]));
    assert_eq!(task.args, texts(&["a", "${task.index}"]));
    assert_eq!(task.replicas, 3);
    assert_eq!((&*task.env["A"], &*task.env["LOOM_BUS"]), ("b", "c"));
    assert_eq!(task.workdir.as_deref(), Some("/srv"));
    assert_eq!(task.user.as_deref(), Some("1000"));
    assert_eq!(
        task.resources,
        Resources {
            cpu: MilliCores(500),
            cpu_limit: Some(MilliCores(2000)),
            memory: Bytes(1 << 30),
            disk: Bytes(0),
            disk_rate: None,
            pids: Some(10),
            gpus: None,
        }
    );
    let port = |port, host, protocol| PortSpec {
        port,
        host,
        protocol,
    };
    assert_eq!(task.ports["http"], port(Some(80), None, Protocol::Tcp));
    assert_eq!(task.ports["dns"], port(None, Some(53), Protocol::Udp));
    assert_eq!(task.ports["any"], port(None, None, Protocol::Tcp));
    assert_eq!(
        (&*task.stop.signal, task.stop.grace),
        ("SIGINT", Millis::secs(60))
    );
    let logs = &task.logs;
    assert_eq!(
        (logs.max_size, logs.keep, logs.ship),
        (Bytes::mib(1), 2, false)
    );
    assert_eq!(
        task.sim,
        Some(SimScript {
            start: Millis::secs(1),
            run: Some(Millis::secs(2)),
            exit: 3,
            start_error: Some("no".into()),
            ignore_stop: true,
            healthy_after: Millis::secs(4),
            unhealthy_after: Some(Millis::secs(5)),
        })
    );
    let to = super::task("bash: x\nlogs: {to: /a}").logs.to;
    assert_eq!(to.as_deref(), Some("/a"));
}

#[test]
fn output_can_lie_beneath_a_directory_as_far_as_its_path_says() {
    let directories = ["/var/log".to_owned(), "/srv/logs/".to_owned()];
    for (to, can) in [
        ("/var/log/a", true),
        ("/srv/logs/${job.name}.log", true),
        ("/var/${var.where}/a", true),
        ("/srv/${var.where}", true),
        ("/var/log", false),
        ("/var/logs/a", false),
        ("/etc/passwd", false),
        ("/etc/${var.where}", false),
    ] {
        assert_eq!(may_lie_beneath(to, &directories), can, "{to}");
    }
    assert!(!may_lie_beneath("/a", &[]));
}

#[test]
fn restarts_and_limits_arrive_in_short_and_in_full() {
    assert_eq!(task("bash: x\nrestart: never").restart.on, RestartOn::Never);
    let restart =
        task("bash: x\nrestart: {on: failure, attempts: 9, delay: 2s, max_delay: 3s, window: 4s}");
    assert_eq!(
        restart.restart,
        RestartSpec {
            on: RestartOn::Failure,
            attempts: 9,
            delay: Millis::secs(2),
            max_delay: Millis::secs(3),
            window: Some(Millis::secs(4)),
        }
    );
    let long = task("bash: x\nrestart: {delay: 2m}").restart;
    assert_eq!(long.max_delay, Millis::secs(120));
    let limit = |warn| {
        Some(TimeoutSpec {
            after: Millis::secs(10),
            warn,
        })
    };
    assert_eq!(task("bash: x\ntimeout: 10s").timeout, limit(None));
    assert_eq!(task("bash: x\ntimeout: {after: 10s}").timeout, limit(None));
    let warn = TimeoutWarning {
        signal: "SIGUSR1".into(),
        before: Millis::secs(2),
    };
    let full = task("bash: x\ntimeout: {after: 10s, warn: {signal: USR1, before: 2s}}");
    assert_eq!(full.timeout, limit(Some(warn)));
}

#[test]
fn every_health_check_arrives() {
    let port = || name("http");
    let health = |lines: &str| {
        let text = format!("bash: x\nports: {{http: 80, dns: {{protocol: udp}}}}\nhealth: {lines}");
        task(&text).health.unwrap()
    };
    let http = health("{http: /}");
    assert_eq!(
        http,
        HealthSpec {
            check: HealthCheck::Http {
                path: "/".into(),
                port: port(),
            },
            interval: Millis::secs(10),
            timeout: Millis::secs(2),
            retries: 3,
            start_period: Millis::secs(10),
        }
    );
    let full = health(
        "{http: '/up?index=${task.index}', port: http, interval: 1s, timeout: 500ms, retries: 5, \
         start_period: 1m}",
    );
    let path = "/up?index=${task.index}".into();
    assert_eq!(full.check, HealthCheck::Http { path, port: port() });
    assert_eq!(
        (full.interval, full.timeout),
        (Millis::secs(1), Millis(500))
    );
    assert_eq!((full.retries, full.start_period), (5, Millis::secs(60)));
    assert_eq!(
        health("{tcp: http}").check,
        HealthCheck::Tcp { port: port() }
    );
    assert_eq!(
        health("{exec: [check, 1, \"${port.http}\"]}").check,
        HealthCheck::Exec(texts(&["check", "1", "${port.http}"]))
    );
    // One that is looked at seldom is given as long to begin.
    let rare = health("{tcp: http, interval: 30s}");
    assert_eq!(rare.start_period, Millis::secs(30));
    let often = health("{tcp: http, interval: 1s}");
    assert_eq!(often.start_period, Millis::secs(10));
    let eager = health("{tcp: http, start_period: 0s}");
    assert_eq!(eager.start_period, Millis(0));
}

#[test]
fn the_syntaxes_say_the_same() {
    let yaml = "name: web\nlabels: {a: b}\ntasks:\n  api:\n    exec: [a, 1]\n    cpu: 0.25\n    \
                replicas: 2\n    ports: {http: 80}\n    stop: {grace: 1s}\n";
    let toml = "name = \"web\"\nlabels.a = \"b\"\n[tasks.api]\nexec = [\"a\", 1]\ncpu = 0.25\n\
                replicas = 2\nports = {http = 80}\n[tasks.api.stop]\ngrace = \"1s\"\n";
    let json = r#"{"name": "web", "labels": {"a": "b"}, "tasks": {"api": {"exec": ["a", 1],
                "cpu": 0.25, "replicas": 2, "ports": {"http": 80}, "stop": {"grace": "1s"}}}}"#;
    let expected = good(yaml, Syntax::Yaml);
    assert_eq!(good(toml, Syntax::Toml), expected);
    assert_eq!(good(json, Syntax::Json), expected);
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    let packed = rmp_serde::to_vec_named(&value).unwrap();
    assert_eq!(read(&packed, Syntax::MessagePack, "job").unwrap(), expected);
    for text in [yaml, toml, json] {
        let guessed = Syntax::guess(text.as_bytes());
        assert_eq!(good(text, guessed), expected);
    }
    let marked = format!("\u{feff}{}", yaml.replace('\n', "\r\n"));
    assert_eq!(good(&marked, Syntax::Yaml), expected);
}

#[test]
fn script_files_are_put_in() {
    let text = "name: a\nlabels: {x: true}\ntasks:\n  b:\n    python: {file: b.py}\n    cpu: 0x1\n  \
                c: {bash: {file: c.sh}}\n";
    let mut files = |path: &str| match path {
        "b.py" => Ok("print(1)".to_owned()),
        "c.sh" => Ok("echo \"${job.name}\"".to_owned()),
        _ => Err("no such file".to_owned()),
    };
    let spec = read_with_files(
        text.as_bytes(),
        Syntax::Yaml,
        "job",
        &Sets::new(),
        &mut files,
    )
    .unwrap();
    let Operator::Python(script) = &spec.tasks["b"].operator else {
        panic!("{spec:?}");
    };
    assert_eq!(
        (&*script.text, script.file.as_deref()),
        ("print(1)", Some("b.py"))
    );
    let embedded = embed_files(
        text.as_bytes(),
        Syntax::Yaml,
        "job",
        &Sets::new(),
        &mut files,
    )
    .unwrap();
    assert_eq!(Syntax::guess(&embedded), Syntax::Json);
    assert_eq!(read(&embedded, Syntax::Json, "job").unwrap(), spec);
    // Without files the text stays as it is, byte for byte.
    let plain = b"# mine\nname:   a\nbash: x";
    assert_eq!(
        embed_files(plain, Syntax::Yaml, "job", &Sets::new(), &mut files).unwrap(),
        plain
    );
}

#[test]
fn a_script_file_that_cannot_be_read_has_its_place() {
    let read = |files: &mut dyn FnMut(&str) -> Result<String, String>| {
        let text = b"name: a\nbash: {file: x.sh}";
        read_with_files(text, Syntax::Yaml, "job", &Sets::new(), files)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        read(&mut |path| Err(format!("{path}: not found"))),
        "job:2:14: bash.file: the script cannot be read: x.sh: not found"
    );
    assert_eq!(
        read(&mut |_| Ok("x".repeat(JOB_MAX))),
        "job:2:14: bash.file: the job with its scripts is larger than 2MiB"
    );
    assert_eq!(
        read(&mut |_| Ok("echo ${job.nme}".into())),
        "job:2:7: bash: unknown reference `${job.nme}`; did you mean `${job.name}`?"
    );
}

#[test]
fn scripts_keep_what_is_their_own() {
    task("bash: 'echo ${HOME} ${x:-${y}} $${job.nope}'");
    task("python: 'print(f\"${job.nope}\")'");
    task("go: '// ${task.nope}'");
}
