//! Trouble with the machine: ports, directories, servers. A clear line, an exit code, nothing lost.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use loom_tests::cluster::{Dev, run_alone};
use loom_tests::nats::Client;
use loom_tests::parts::Server;
use loom_tests::wait::PATIENCE;
use serde_json::Value;

/// `loomctl dev` that cannot start: its code and its one line.
fn refused(arguments: &[&str]) -> String {
    let mut all = vec!["dev"];
    all.extend(arguments);
    let said = run_alone(&all);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(
        said.err.lines().any(|line| line.starts_with("loomctl: ")),
        "{}",
        said.err
    );
    said.err
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let line = refused(&["--listen", &address, "--data-dir", data]);
    assert!(line.contains(&address), "{line}");
}

#[test]
fn a_second_dev_on_the_same_directory_is_refused() {
    let dev = Dev::start(&[]);
    let data = dev.data_dir();
    let line = refused(&[
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    assert!(line.contains(data.to_str().unwrap()), "{line}");
    dev.run("name: still\nkind: batch\nbash: 'true'\n", &[])
        .expect_code(0);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let below = file.join("data");
    let line = refused(&[
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        below.to_str().unwrap(),
    ]);
    assert!(line.contains(file.to_str().unwrap()), "{line}");
}

#[test]
fn a_missing_nats_server_says_where_it_was_looked_for() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let line = refused(&[
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data,
        "--nats-server",
        "/no/such/nats-server",
    ]);
    assert!(line.contains("/no/such/nats-server"), "{line}");
}

/// A server that says it is older than what Loom was tried on.
#[test]
fn a_bus_that_is_too_old_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let info = format!(
                "INFO {{\"server_id\":\"X\",\"server_name\":\"old\",\"version\":\"2.9.10\",\
                 \"proto\":1,\"host\":\"127.0.0.1\",\"port\":{},\"headers\":true,\
                 \"max_payload\":1048576,\"jetstream\":true}}\r\n",
                address.port()
            );
            stream.write_all(info.as_bytes()).unwrap();
            thread::spawn(move || {
                use std::io::{BufRead, BufReader};
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                    if line.starts_with("PING") && stream.write_all(b"PONG\r\n").is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    let said = run_alone(&["--bus", &format!("nats://{address}"), "status"]).expect_code(7);
    assert!(
        said.err.contains("2.9.10") && said.err.contains("2.15.1"),
        "{}",
        said.err
    );
}

#[test]
fn programs_that_cannot_be_run_are_named_with_what_to_do() {
    let dev = Dev::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain.txt");
    fs::write(&plain, "text").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let orphan = directory.path().join("orphan");
    fs::write(&orphan, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&orphan, fs::Permissions::from_mode(0o755)).unwrap();
    let cases = [
        (
            "a",
            "exec: [no-such-program-anywhere]".to_owned(),
            "no-such-program-anywhere",
        ),
        ("b", format!("exec: ['{}']", plain.display()), "plain.txt"),
        ("c", format!("exec: ['{}']", orphan.display()), "orphan"),
        (
            "d",
            "exec: ['true']\nuser: nobody-of-that-name".to_owned(),
            "nobody-of-that-name",
        ),
        (
            "e",
            "exec: ['true']\nworkdir: /no/such/place".to_owned(),
            "/no/such/place",
        ),
        (
            "f",
            "bash: 'true'\ncommand: [no-such-shell]".to_owned(),
            "no-such-shell",
        ),
    ];
    for (name, what, named) in cases {
        let said = dev
            .run(&format!("name: {name}\nkind: batch\n{what}\n"), &[])
            .expect_code(1);
        assert!(said.err.contains(named), "{name}: {}", said.err);
        let job = dev.job(name);
        assert_eq!(job["summary"]["status"], "failed", "{job}");
    }
}

#[test]
fn later_fields_say_not_yet() {
    let dev = Dev::start(&[]);
    for field in ["volumes: []", "secrets: []", "on: []"] {
        let said = dev
            .run(&format!("name: later\n{field}\nbash: 'true'\n"), &[])
            .expect_code(1);
        assert!(
            said.err.contains("not supported yet"),
            "{field}: {}",
            said.err
        );
    }
}

/// A client that may write the log of a cluster.
fn managers_client(dev: &Dev) -> Client {
    let text = fs::read(dev.data_dir().join("bus/passwords.json")).unwrap();
    let passwords: Value = serde_json::from_slice(&text).unwrap();
    let password = passwords["orch"].as_str().unwrap();
    let address = dev.bus.strip_prefix("nats://").unwrap();
    Client::connect(&format!("nats://loom:{password}@{address}")).unwrap()
}

#[test]
fn a_log_of_a_newer_loomctl_is_refused_with_what_to_do() {
    let mut dev = Dev::start(&[]);
    let mut client = managers_client(&dev);
    client.subscribe("orch.log").unwrap();
    client.flush_round_trip().unwrap();
    dev.run("name: first\nkind: batch\nbash: 'true'\n", &[])
        .expect_code(0);
    let entry = client.next(PATIENCE).unwrap().unwrap();
    let mut raw = entry.payload;
    let key = b"\xa6format";
    let at = raw.windows(key.len()).position(|part| part == key).unwrap() + key.len();
    raw[at] += 1;
    // The answer says that it is stored.
    client.request("orch.log", &raw).unwrap();
    dev.kill();

    let data = dev.data_dir();
    let data = data.to_str().unwrap();
    let said = run_alone(&["dev", "--listen", "127.0.0.1:0", "--data-dir", data]).expect_code(1);
    let line = said.err.lines().last().unwrap();
    for words in [
        &format!("loomctl: the log in {data} cannot be read: entry "),
        " has format 2, this build reads up to 1; use the loomctl that wrote it, or another --data-dir",
    ] {
        assert!(line.contains(words), "{}", said.err);
    }
    // Nothing runs that another start would have to stop.
    fs::remove_dir_all(data).unwrap();
}

#[test]
fn a_log_with_a_foreign_entry_ends_a_manager_that_starts() {
    let server = Server::start();
    let mut manager = server.manager("m1");
    manager.kill();
    let mut client = Client::connect(&server.url).unwrap();
    // The answer says that it is stored.
    client.request("orch.log", b"no entry").unwrap();
    let data = server.path("m1");
    let data = data.to_str().unwrap();
    let said = server
        .ctl(&["manager", "start", "--name", "m1", "--data-dir", data])
        .expect_code(1);
    let line = said.err.lines().last().unwrap();
    assert!(
        line.starts_with("loomctl: the log on the bus cannot be read: entry ")
            && line.contains("not that of an entry")
            && line.ends_with("; put a copy of the store back"),
        "{}",
        said.err
    );
    assert!(!said.err.contains("is up"), "{}", said.err);
}
