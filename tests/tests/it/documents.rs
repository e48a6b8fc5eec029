//! Every command in a document is run, in order, on a fresh cluster.

use std::fs;
use std::time::Duration;

use loom_tests::cluster::{Dev, checkout};
use loom_tests::wait::until;

/// Commands that another test runs, or that are the test run itself.
const ELSEWHERE: &[&str] = &[
    "make ",
    "loomctl dev",
    "loomctl manager start",
    "loomctl node start",
    "nats-server ",
    "docker-compose ",
    "export ",
    "cargo ",
];

/// One line of a console block, without its comment.
#[derive(Debug)]
struct Typed {
    command: String,
    code: i32,
    error: bool,
}

/// The `$` lines of the `console` blocks of a document; `# exit N` says what code is expected, `# error` an
/// error as the answer.
fn typed(document: &str) -> Vec<Typed> {
    let text = fs::read_to_string(checkout().join(document)).unwrap();
    let mut commands = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(fence) = line.strip_prefix("```") {
            inside = fence == "console";
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            let (command, comment) = command.split_once(" # ").unwrap_or((command, ""));
            let code = comment
                .split("exit ")
                .nth(1)
                .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
                .and_then(|digits| digits.parse().ok());
            commands.push(Typed {
                command: command.trim().to_owned(),
                code: code.unwrap_or(0),
                error: comment.contains("error"),
            });
        }
    }
    commands
}

fn run_document(document: &str) {
    let commands = typed(document);
    assert!(!commands.is_empty(), "{document} shows no command");
    let dev = Dev::start(&[]);
    for typed in commands {
        if ELSEWHERE
            .iter()
            .any(|prefix| typed.command.starts_with(prefix))
        {
            continue;
        }
        if typed.command.starts_with("nats ") {
            plain_nats(&dev, &typed);
        } else {
            shell(&dev, &typed);
        }
    }
}

/// Through a shell, as a user does, with `loomctl` on the path; what follows is ended after a while.
fn shell(dev: &Dev, typed: &Typed) {
    let follows = typed.command.split_whitespace().any(|word| word == "-f");
    let path = loom_tests::cluster::loomctl();
    let run = |line: &str| {
        std::process::Command::new("bash")
            .args(["-c", line])
            .current_dir(checkout())
            .env(
                "PATH",
                format!("{}:{}", path.parent().unwrap().display(), env!("PATH")),
            )
            .env("LOOM_BUS", &dev.bus)
            .env("HOME", dev.path("home"))
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .output()
            .unwrap()
    };
    if follows {
        let output = run(&format!("timeout --signal=INT 2 {}", typed.command));
        assert_eq!(output.status.code(), Some(124), "{typed:?}: {output:?}");
        return;
    }
    // A doc does not say what to wait for between its lines; a reader is slower than a test.
    until(&format!("{typed:?} ends as the document says"), || {
        let output = run(&typed.command);
        if output.status.code() == Some(typed.code) {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    });
}

/// What the `nats` command line would send, from a client that shares no code with Loom.
fn plain_nats(dev: &Dev, typed: &Typed) {
    let line = typed.command.replace("nats ", "set -- ");
    let output = std::process::Command::new("bash")
        .args(["-c", &format!("{line}; printf '%s\\0' \"$@\"")])
        .current_dir(checkout())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words: Vec<&str> = text.split_terminator('\0').collect();
    let mut headers = String::new();
    while let Some(at) = words
        .iter()
        .position(|word| *word == "-H" || *word == "--header")
    {
        let (name, value) = words[at + 1].split_once(':').unwrap();
        headers = format!("{headers}{}: {}\r\n", name.trim(), value.trim());
        words.drain(at..=at + 1);
    }
    let mut nats = dev.nats();
    match words.as_slice() {
        ["sub", subject] => {
            nats.subscribe(subject).unwrap();
            nats.flush_round_trip().unwrap();
        }
        ["pub", subject, payload] => {
            let ack = nats.request(subject, payload.as_bytes()).unwrap();
            assert!(!ack.is_no_responders(), "{typed:?}");
        }
        ["req" | "request", subject, payload @ ..] => {
            let payload = payload.first().unwrap_or(&"");
            until(
                &format!("{typed:?} is answered as the document says"),
                || {
                    let answer = nats
                        .request_with(subject, &headers, payload.as_bytes())
                        .unwrap();
                    let error = answer.headers.contains("Service-Error");
                    let right = !answer.is_no_responders() && error == typed.error;
                    if right {
                        Ok(())
                    } else {
                        Err(format!("{answer:?}"))
                    }
                },
            );
        }
        _ => panic!("{typed:?}: not a form this test knows: {words:?}"),
    }
    assert!(nats.errors().is_empty(), "{typed:?}: {:?}", nats.errors());
    let _ = nats.next(Duration::from_millis(1));
}

#[test]
fn the_readme_is_true() {
    run_document("README.md");
}

#[test]
fn the_guide_to_loomctl_is_true() {
    run_document("docs/loomctl.md");
}

#[test]
fn the_guide_to_nodes_is_true() {
    run_document("docs/nodes.md");
}

#[test]
fn the_guide_to_the_bus_is_true() {
    run_document("docs/bus.md");
}

#[test]
fn the_guide_to_several_hosts_is_true() {
    run_document("docs/hosts.md");
}

#[test]
fn the_guide_to_jobs_is_true() {
    let commands = typed("docs/jobs.md");
    if !commands.is_empty() {
        run_document("docs/jobs.md");
    }
}
