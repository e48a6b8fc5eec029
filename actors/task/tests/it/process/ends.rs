//! How runs go and how they end.

use std::fs;
use std::os::unix::fs::MetadataExt;

use loom_task::driver::{Adopted, Driver, DriverError};
use loom_task::launch::LaunchFile;
use nix::sys::signal::Signal;

use super::rig::{Rig, is_alive, is_root, kill, number, pids, sh, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_the_programs() {
    let rig = Rig::new();
    let wanted = sh("echo hello; exit 7");
    let started = rig.start(&wanted).await;
    assert!(started.pid.is_some());
    let ended = rig.end(wanted.run).await;
    assert_eq!(
        (ended.exit.code, ended.exit.signal, ended.reason),
        (Some(7), None, None)
    );
    assert!(ended.at >= started.at);
    assert_eq!(rig.text(wanted.run).await, ["hello"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn death_by_signal_is_said_so() {
    let rig = Rig::new();
    let wanted = sh("kill -USR1 $$; sleep 60");
    let ended = rig.run(&wanted).await;
    assert_eq!(
        (ended.exit.code, ended.exit.signal),
        (Some(128 + 10), Some(10))
    );
    assert!(!ended.exit.out_of_memory);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_may_be_repeated() {
    let rig = Rig::new();
    let wanted = sh("sleep 60");
    let first = rig.start(&wanted).await;
    assert_eq!(rig.start(&wanted).await, first);
    assert!(
        rig.driver.remove(wanted.run, true).await.is_err(),
        "it runs"
    );
    for _ in 0..2 {
        rig.driver.pause(wanted.run).await.unwrap();
    }
    for _ in 0..2 {
        rig.driver.resume(wanted.run).await.unwrap();
    }
    rig.driver
        .signal(wanted.run, Signal::SIGKILL, true)
        .await
        .unwrap();
    let ended = rig.end(wanted.run).await;
    assert_eq!(rig.end(wanted.run).await, ended);
    let late = rig.driver.signal(wanted.run, Signal::SIGTERM, false).await;
    assert!(matches!(late, Err(DriverError::Ended(_))), "{late:?}");
    assert!(matches!(
        rig.driver.pause(wanted.run).await,
        Err(DriverError::Ended(_))
    ));
    assert_eq!(
        rig.start(&wanted).await,
        first,
        "an ended run is not started again"
    );
    for _ in 0..2 {
        rig.driver.remove(wanted.run, true).await.unwrap();
    }
    assert!(!rig.directory_of(wanted.run).exists());
    assert_eq!(rig.driver.adopt(wanted.run).await.unwrap(), Adopted::Gone);
    let gone = rig.driver.wait(wanted.run).await;
    assert!(matches!(gone, Err(DriverError::NotFound(_))), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_its_own_surroundings() {
    let rig = Rig::new();
    let mut wanted = sh(
        "cat data; pwd; env | cut -d= -f1 | sort | tr '\\n' ' '; echo; \
                         grep -E 'SigBlk|SigIgn' /proc/self/status; ls -l /proc/self/fd;\
                         readlink /proc/self/fd/0",
    );
    wanted.env.insert("A".into(), "multi\nline".into());
    wanted.env.remove("LOOM_RUN");
    let data = LaunchFile {
        name: "data".into(),
        contents: b"in a file\n".to_vec(),
        mode: 0o600,
    };
    wanted.files.push(data);
    rig.run(&wanted).await;
    let text = rig.text(wanted.run).await;
    let work = rig
        .directory_of(wanted.run)
        .canonicalize()
        .unwrap()
        .join("work");
    assert_eq!(
        text[..2],
        ["in a file".to_owned(), work.display().to_string()]
    );
    assert!(text[2].contains("A ") && text[2].contains("HOME ") && text[2].contains("PATH "));
    assert!(
        !text.iter().any(|line| line.contains("CARGO")),
        "the agent's own is kept from it"
    );
    assert!(
        text.contains(&"SigBlk:\t0000000000000000".into()),
        "{text:?}"
    );
    let ignored = |line: &str| {
        let mask = u64::from_str_radix(line.strip_prefix("SigIgn:\t")?, 16).ok()?;
        // Above are the C library's own.
        Some(mask & 0x7fff_ffff)
    };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    // This runtime ignores SIGPIPE, which no program expects.
    let own = status.lines().find_map(ignored).unwrap() & !(1 << 12);
    assert_eq!(text.iter().find_map(|line| ignored(line)), Some(own));
    // Of the shim's own files none comes through; what the test was started with may.
    let own = |line: &&String| line.contains("/runs/") || line.contains("anon_inode");
    let links = text.iter().filter(|line| line.contains(" -> "));
    assert_eq!(links.filter(own).count(), 0, "{text:?}");
    assert_eq!(text[text.len() - 1], "/dev/null");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_owns_what_it_is_given() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    let mut wanted = sh("id -u; id -g; id -G; touch mine; cat data");
    wanted.user = Some("12345:54321".into());
    let data = LaunchFile {
        name: "data".into(),
        contents: b"x\n".to_vec(),
        mode: 0o600,
    };
    wanted.files.push(data);
    // The directory above is the test's own; a real data directory may be entered by all.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(rig.directory.path(), open).unwrap();
    let ended = rig.run(&wanted).await;
    let text = rig.text(wanted.run).await;
    assert_eq!(
        (ended.exit.code, text),
        (
            Some(0),
            ["12345", "54321", "54321", "x"].map(Into::into).into()
        )
    );
    let mine = rig
        .directory_of(wanted.run)
        .join("work/mine")
        .metadata()
        .unwrap();
    assert_eq!((mine.uid(), mine.gid()), (12345, 54321));
}

/// With control groups, and without them.
async fn the_tree_dies_with_its_main(cgroups: bool) {
    let rig = Rig::with(cgroups);
    // A child, a daemon that forked twice, and one in a session of its own with no environment.
    let wanted = sh("sleep 300 & echo $! > child
        (sleep 300 & echo $! > orphan)
        setsid env -i sh -c 'trap \"\" TERM HUP; echo $$ > escapee; sleep 300; sleep 300' &
        while ! [ -s escapee ]; do sleep 0.01; done
        echo ready; exit 3");
    rig.start(&wanted).await;
    let work = rig.directory_of(wanted.run).join("work");
    let ended = rig.end(wanted.run).await;
    assert_eq!(ended.exit.code, Some(3));
    for name in ["child", "orphan", "escapee"] {
        assert!(!is_alive(number(&work.join(name)).await), "{name}");
    }
    assert_eq!(rig.text(wanted.run).await, ["ready"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_tree_dies_with_its_main_process() {
    the_tree_dies_with_its_main(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_tree_dies_with_its_main_process_without_cgroups() {
    the_tree_dies_with_its_main(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_go_to_the_main_process_or_to_all() {
    for cgroups in [true, false] {
        let rig = Rig::with(cgroups);
        let wanted = sh("trap 'echo main' USR1
            sh -c 'trap \"echo child\" USR1; echo x > ready; while :; do sleep 0.01; done' &
            while :; do sleep 0.01; done");
        rig.start(&wanted).await;
        let directory = rig.directory_of(wanted.run);
        until("ready", || directory.join("work/ready").exists()).await;
        let lines = || loom_task::output::tail(&directory, 100).unwrap();
        rig.driver
            .signal(wanted.run, Signal::SIGUSR1, false)
            .await
            .unwrap();
        until("the main process's answer", || lines().len() == 1).await;
        rig.driver
            .signal(wanted.run, Signal::SIGUSR1, true)
            .await
            .unwrap();
        // The sleeps of both have no handler and die, which is no matter to the shells.
        until("both answers", || {
            let texts: Vec<_> = lines().into_iter().map(|line| line.text).collect();
            texts.iter().filter(|text| *text == "main").count() == 2
                && texts.iter().any(|text| text == "child")
        })
        .await;
        rig.driver
            .signal(wanted.run, Signal::SIGKILL, true)
            .await
            .unwrap();
        assert_eq!(rig.end(wanted.run).await.exit.signal, Some(9));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ignores_sigterm_dies_of_sigkill() {
    let rig = Rig::new();
    let wanted = sh("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    rig.start(&wanted).await;
    let directory = rig.directory_of(wanted.run);
    until("ready", || {
        !loom_task::output::tail(&directory, 1).unwrap().is_empty()
    })
    .await;
    rig.driver
        .signal(wanted.run, Signal::SIGTERM, false)
        .await
        .unwrap();
    let (_, main) = pids(&directory).unwrap();
    assert!(is_alive(main));
    rig.driver
        .signal(wanted.run, Signal::SIGKILL, false)
        .await
        .unwrap();
    assert_eq!(rig.end(wanted.run).await.exit.code, Some(137));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shim_obeys_no_signal_but_one() {
    let rig = Rig::new();
    let wanted = sh("sleep 0.3; exit 5");
    rig.start(&wanted).await;
    let (shim, _) = pids(&rig.directory_of(wanted.run)).unwrap();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGPIPE,
    ] {
        kill(shim, signal);
    }
    assert_eq!(rig.end(wanted.run).await.exit.code, Some(5));
}

/// With control groups, and without them.
async fn a_killed_shim_takes_its_tree_along(cgroups: bool) {
    let rig = Rig::with(cgroups);
    let wanted = sh("setsid sleep 300 & echo $! > other; echo x; sleep 300");
    rig.start(&wanted).await;
    let directory = rig.directory_of(wanted.run);
    let other = number(&directory.join("work/other")).await;
    let (shim, main) = pids(&directory).unwrap();
    kill(shim, Signal::SIGKILL);
    let ended = rig.end(wanted.run).await;
    assert_eq!(ended.exit.code, None);
    assert!(ended.reason.unwrap().contains("its shim was killed"));
    until("the tree is gone", || !is_alive(main) && !is_alive(other)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_shim_is_killed_the_run_ends() {
    a_killed_shim_takes_its_tree_along(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_shim_is_killed_the_run_ends_without_cgroups() {
    a_killed_shim_takes_its_tree_along(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_short_runs_at_once() {
    let rig = Rig::new();
    let runs: Vec<_> = (0..40)
        .map(|number| sh(&format!("exit {number}")))
        .collect();
    let started = runs.iter().map(|wanted| rig.start(wanted));
    futures::future::join_all(started).await;
    for (number, wanted) in runs.iter().enumerate() {
        let code = i32::try_from(number).unwrap();
        assert_eq!(rig.end(wanted.run).await.exit.code, Some(code));
        rig.driver.remove(wanted.run, true).await.unwrap();
    }
    assert_eq!(rig.driver.inventory().await.unwrap(), []);
}
