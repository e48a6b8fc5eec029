//! What a container does from its start to its end, and under the next agent.

use std::fs;

use loom_schemas::ids::Name;
use loom_schemas::spec::{Network, Protocol};
use loom_schemas::units::Bytes;
use loom_task::driver::{Adopted, Driver, DriverError};
use loom_task::launch::{LaunchFile, PublishedPort, Word};
use loom_tests::docker::{IMAGE, docker};
use nix::sys::signal::Signal;

use super::rig::{PATIENCE, Rig, launch, sh, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_ends_and_leaves_its_output() {
    let Some(rig) = Rig::new() else { return };
    let mut wanted = sh("echo $COLOUR; echo problem >&2; exit 3");
    wanted.env.insert("COLOUR".into(), "red".into());
    let started = rig.start(&wanted).await;
    let container = started.container.clone().unwrap();
    assert!(container.image.starts_with("sha256:"), "{container:?}");
    let ended = rig.end(wanted.run).await;
    assert_eq!((ended.exit.code, ended.exit.signal), (Some(3), None));
    assert!(ended.at >= started.at);
    let mut text = rig.text(wanted.run).await;
    text.sort();
    assert_eq!(text, ["problem", "red"]);
    rig.driver.remove(wanted.run, false).await.unwrap();
    let label = format!("label=loom.run={}", wanted.run);
    assert_eq!(docker(&["ps", "-aq", "--filter", &label]), "");
    // What is on disk is enough to say it again.
    let adopted = rig.driver.adopt(wanted.run).await.unwrap();
    let Adopted::Ended {
        started: Some(_),
        ended: again,
    } = adopted
    else {
        panic!("{adopted:?}");
    };
    assert_eq!(again.exit, ended.exit);
    assert_eq!(rig.driver.inventory().await.unwrap(), [wanted.run]);
    rig.driver.remove(wanted.run, true).await.unwrap();
    assert!(!rig.directory_of(wanted.run).exists());
    assert!(matches!(
        rig.driver.adopt(wanted.run).await,
        Ok(Adopted::Gone)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn its_output_takes_the_place_of_no_other_file() {
    let Some(rig) = Rig::new() else { return };
    let there = rig.directory.path().canonicalize().unwrap();
    let secret = there.join("passwd");
    fs::write(&secret, "root:x:0:0\n").unwrap();
    fs::create_dir(there.join("logs")).unwrap();
    std::os::unix::fs::symlink(&secret, there.join("logs/link.log")).unwrap();
    for to in ["passwd", "logs/link.log"] {
        let mut wanted = sh("echo said; yes | head -c 20000");
        wanted.logs.to = Some(format!("{}/{to}", there.display()));
        wanted.logs.max_size = Bytes(4096);
        wanted.logs.keep = 1;
        let started = rig.start(&wanted).await;
        let note = started.unenforced.iter().find(|note| note.contains(to));
        assert!(note.is_some(), "{to}: {:?}", started.unenforced);
        rig.end(wanted.run).await;
        assert_eq!(rig.text(wanted.run).await.last().unwrap(), "y", "{to}");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "root:x:0:0\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_no_rights_it_need_not_have_and_is_labelled() {
    let Some(rig) = Rig::new() else { return };
    let wanted = sh("grep -E 'CapEff|NoNewPrivs' /proc/self/status; ls /sys/class/net");
    rig.start(&wanted).await;
    let name = format!("loom-{}", wanted.run);
    let shown = |format: &str| docker(&["inspect", "--format", format, &name]);
    assert_eq!(
        shown("{{index .Config.Labels \"loom.cluster\"}}"),
        rig.cluster
    );
    assert_eq!(shown("{{index .Config.Labels \"loom.node\"}}"), "node-1");
    let host = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.Privileged}} \
                {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{len .Mounts}}";
    assert_eq!(
        shown(host),
        "33554432 64 false [NET_RAW] [no-new-privileges] 0"
    );
    rig.end(wanted.run).await;
    let text = rig.text(wanted.run).await.join("\n");
    assert!(
        text.contains("NoNewPrivs:\t1") && text.ends_with("lo"),
        "{text}"
    );
    // NET_RAW is bit 13.
    let caps = text.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    let caps = u64::from_str_radix(caps.unwrap(), 16).unwrap();
    assert_eq!(caps & (1 << 13), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_may_be_repeated() {
    let Some(mut rig) = Rig::new() else { return };
    let wanted = sh("sleep 300");
    let started = rig.start(&wanted).await;
    assert_eq!(rig.start(&wanted).await, started);
    rig.next_agent();
    let again = rig.start(&wanted).await;
    assert_eq!((again.pid, again.at), (started.pid, started.at));
    rig.driver
        .signal(wanted.run, Signal::SIGKILL, true)
        .await
        .unwrap();
    assert_eq!(rig.end(wanted.run).await.exit.signal, Some(9));
    let late = rig.driver.start(wanted.clone()).await;
    assert!(matches!(late, Err(DriverError::Ended(_))), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_main_process_or_all() {
    let Some(rig) = Rig::new() else { return };
    let child = "trap 'echo child' USR1; while :; do sleep 0.05; done";
    let script = format!(
        "trap 'echo main' USR1; trap 'exit 7' TERM; sh -c \"{child}\" & echo ready; \
         while :; do sleep 0.05; done"
    );
    let wanted = sh(&script);
    rig.start(&wanted).await;
    rig.until_said(wanted.run, "ready").await;
    rig.driver
        .signal(wanted.run, Signal::SIGUSR1, false)
        .await
        .unwrap();
    rig.until_said(wanted.run, "main").await;
    assert!(!rig.so_far(wanted.run).contains(&"child".to_owned()));
    rig.driver
        .signal(wanted.run, Signal::SIGWINCH, true)
        .await
        .unwrap();
    rig.driver
        .signal(wanted.run, Signal::SIGUSR1, true)
        .await
        .unwrap();
    rig.until_said(wanted.run, "child").await;
    rig.driver
        .signal(wanted.run, Signal::SIGTERM, false)
        .await
        .unwrap();
    assert_eq!(rig.end(wanted.run).await.exit.code, Some(7));
    let late = rig.driver.signal(wanted.run, Signal::SIGTERM, false).await;
    assert!(matches!(late, Err(DriverError::Ended(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_paused_resumed_and_killed_while_paused() {
    let Some(rig) = Rig::new() else { return };
    let wanted = sh("while :; do echo beat; sleep 0.02; done");
    rig.start(&wanted).await;
    rig.until_said(wanted.run, "beat").await;
    rig.driver.pause(wanted.run).await.unwrap();
    rig.driver.pause(wanted.run).await.unwrap();
    let name = format!("loom-{}", wanted.run);
    let state = || docker(&["inspect", "--format", "{{.State.Status}}", &name]);
    assert_eq!(state(), "paused");
    let refused = rig
        .driver
        .exec(wanted.run, vec!["true".into()], PATIENCE)
        .await;
    assert!(refused.is_err());
    rig.driver.resume(wanted.run).await.unwrap();
    rig.driver.resume(wanted.run).await.unwrap();
    assert_eq!(state(), "running");
    rig.driver.pause(wanted.run).await.unwrap();
    rig.driver
        .signal(wanted.run, Signal::SIGKILL, true)
        .await
        .unwrap();
    assert_eq!(rig.end(wanted.run).await.exit.signal, Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_run_beside_it_and_its_use_is_measured() {
    let Some(rig) = Rig::new() else { return };
    let mut wanted = sh("while :; do :; done");
    wanted.env.insert("COLOUR".into(), "red".into());
    wanted.user = Some("worker".into());
    rig.start(&wanted).await;
    let run = async |argv: &[&str]| {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        rig.driver.exec(wanted.run, argv, PATIENCE).await.unwrap()
    };
    let said = run(&["sh", "-c", "echo $COLOUR; id -u; exit 3"]).await;
    assert_eq!(
        (said.code, said.output.as_slice()),
        (Some(3), &b"red\n1000\n"[..])
    );
    let said = run(&["no-such-program"]).await;
    assert!(matches!(said.code, Some(126 | 127)), "{said:?}");
    let limit = std::time::Duration::from_millis(300);
    let argv = ["sh", "-c", "echo begun; sleep 300; true"]
        .map(str::to_owned)
        .to_vec();
    let late = rig.driver.exec(wanted.run, argv, limit).await.unwrap();
    assert!(late.timed_out && late.output == b"begun\n", "{late:?}");
    // What it had begun is ended with it.
    let left = run(&["sh", "-c", "ps -o args | grep -c '^sleep 300' || true"]).await;
    assert_eq!(left.output, b"0\n", "{left:?}");
    let usage = rig.driver.usage(wanted.run).await.unwrap();
    assert!(usage.cpu_us.unwrap() > 0, "{usage:?}");
    assert!(usage.memory.unwrap() > 0, "{usage:?}");
    assert_eq!(usage.memory_limit, Some(32 << 20));
    assert!(usage.pids.unwrap() >= 1, "{usage:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_and_its_user_need_no_mount() {
    let Some(rig) = Rig::new() else { return };
    let mut wanted = launch(IMAGE, &[]);
    wanted.files = vec![LaunchFile {
        name: "script.sh".into(),
        contents: b"echo \"$0 $1\"; id -u; pwd".to_vec(),
        mode: 0o755,
    }];
    let container = wanted.container.as_mut().unwrap();
    container.entrypoint = Some(vec![
        Word::Text("sh".into()),
        Word::File("script.sh".into()),
    ]);
    wanted.argv = vec![Word::Text("first".into())];
    wanted.user = Some("1000:1000".into());
    wanted.workdir = Some("/tmp".into());
    assert_eq!(rig.run(&wanted).await.exit.code, Some(0));
    let text = rig.text(wanted.run).await;
    assert_eq!(text, ["/loom/script.sh first", "1000", "/tmp"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_the_node_leads_into_it_and_a_taken_one_is_named() {
    let Some(rig) = Rig::new() else { return };
    let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let host = free.local_addr().unwrap().port();
    let mut wanted = sh("echo hello > /tmp/index.html; httpd -f -p 80 -h /tmp");
    let container = wanted.container.as_mut().unwrap();
    container.network = Network::Bridge;
    container.ports = vec![PublishedPort {
        name: Name::new("http").unwrap(),
        port: 80,
        host,
        protocol: Protocol::Tcp,
    }];
    let (hopeless, why) = rig.refusal(&wanted).await;
    assert!(!hopeless && why.contains("port `http`"), "{why}");
    assert!(
        why.contains(&host.to_string()) && why.contains("taken"),
        "{why}"
    );
    drop(free);
    // A start that failed half-way left a container, which the next try takes.
    rig.start(&wanted).await;
    until("its server answers", || {
        use std::io::{Read, Write};
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", host)) else {
            return false;
        };
        let mut answer = String::new();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains("hello")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_agent_takes_over_without_losing_or_doubling_a_line() {
    let Some(mut rig) = Rig::new() else { return };
    let script = "i=0; while [ $i -lt 400 ]; do echo line $i; echo other $i >&2; i=$((i+1)); \
                  sleep 0.01; done; exit 5";
    let mut wanted = sh(script);
    wanted.resources.cpu = loom_schemas::units::MilliCores(1000);
    let started = rig.start(&wanted).await;
    for round in 1..4 {
        rig.until_said(wanted.run, &format!("line {}", round * 50))
            .await;
        rig.next_agent();
        assert_eq!(rig.driver.inventory().await.unwrap(), [wanted.run]);
        let adopted = rig.driver.adopt(wanted.run).await.unwrap();
        let Adopted::Running {
            started: again,
            paused: false,
        } = adopted
        else {
            panic!("{adopted:?}");
        };
        assert_eq!((again.pid, again.at), (started.pid, started.at));
        assert_eq!(again.container, started.container);
    }
    assert_eq!(rig.end(wanted.run).await.exit.code, Some(5));
    let text = rig.text(wanted.run).await;
    for stream in ["line", "other"] {
        let of: Vec<_> = text
            .iter()
            .filter(|line| line.starts_with(stream))
            .collect();
        let expected: Vec<_> = (0..400)
            .map(|number| format!("{stream} {number}"))
            .collect();
        assert_eq!(of, expected.iter().collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_while_no_agent_was_there_is_told_with_all_its_output() {
    let Some(mut rig) = Rig::new() else { return };
    let wanted = sh("echo first; sleep 0.5; echo last; exit 4");
    rig.start(&wanted).await;
    rig.driver = Rig::at(None).driver.clone();
    let name = format!("loom-{}", wanted.run);
    docker(&["wait", &name]);
    rig.next_agent();
    let adopted = rig.driver.adopt(wanted.run).await.unwrap();
    let Adopted::Ended {
        started: Some(_),
        ended,
    } = adopted
    else {
        panic!("{adopted:?}");
    };
    assert_eq!(ended.exit.code, Some(4));
    assert_eq!(rig.text(wanted.run).await, ["first", "last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_containers_are_touched() {
    let Some(rig) = Rig::new() else { return };
    let other = Rig::new().unwrap();
    let wanted = sh("sleep 300");
    rig.start(&wanted).await;
    assert_eq!(other.driver.inventory().await.unwrap(), []);
    assert!(matches!(
        other.driver.adopt(wanted.run).await,
        Ok(Adopted::Gone)
    ));
    let signal = other.driver.signal(wanted.run, Signal::SIGKILL, true).await;
    assert!(
        matches!(signal, Err(DriverError::NotFound(_))),
        "{signal:?}"
    );
    other.driver.remove(wanted.run, true).await.unwrap();
    let started = other.driver.start(wanted.clone()).await;
    let why = started.unwrap_err().to_string();
    assert!(why.contains("none of this node's"), "{why}");
    let state = docker(&[
        "inspect",
        "--format",
        "{{.State.Running}}",
        &format!("loom-{}", wanted.run),
    ]);
    assert_eq!(state, "true");
}
