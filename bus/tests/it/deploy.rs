//! A bus of three servers exactly as `bus init` makes it: encrypted, with users it can tell apart.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use loom_bus::call::CallError;
use loom_bus::connection::{Bus, ConnectError, ConnectOptions, Login, Tls};
use loom_bus::facts::{system_facts, user_facts};
use loom_bus::log::{Log, LogOptions};
use loom_bus::serve::ServeLimits;
use loom_bus::server::deploy::{Deployment, Member, Role, url};
use loom_bus::{caller, header};
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::Name;
use serde_json::{Value, json};

use crate::support::{binary, free_port, until};

const LONG: Duration = Duration::from_secs(20);

/// Three servers on loopback; killed when dropped.
struct Three {
    dir: tempfile::TempDir,
    made: Deployment,
    members: Vec<Member>,
    servers: Vec<Child>,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn spawn(dir: &Path) -> Child {
    let log = File::create(dir.join("log")).unwrap();
    Command::new(binary())
        .args(["-c", "nats-server.conf"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Three {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let members: Vec<Member> = (1..=3)
            .map(|n| {
                let (port, routes) = (free_port(), free_port());
                format!("n{n}=127.0.0.1:{port}:{routes}").parse().unwrap()
            })
            .collect();
        let made = Deployment::init(&dir.path().join("bus"), &members).unwrap();
        for user in ["ada", "bob"] {
            made.add(Role::User, &name(user)).unwrap();
        }
        for node in ["n1", "n2"] {
            made.add(Role::Node, &name(node)).unwrap();
        }
        let servers = members
            .iter()
            .map(|member| spawn(&dir.path().join("bus/servers").join(member.name.as_str())))
            .collect();
        Self {
            dir,
            made,
            members,
            servers,
        }
    }

    fn options(&self, user: &str) -> ConnectOptions {
        ConnectOptions {
            url: url(&self.members),
            login: Login::CredentialsFile(self.made.credentials_path(user)),
            tls: Tls {
                ca: Some(self.made.authority()),
                ..Tls::default()
            },
            name: format!("test {user}"),
            require_jetstream: user == "loom",
            ..ConnectOptions::default()
        }
    }

    /// Has the servers read their configuration again.
    fn reload(&self) {
        for server in &self.servers {
            let mut reload = Command::new("kill");
            let reload = reload.arg("-HUP").arg(server.id().to_string());
            assert!(reload.status().unwrap().success());
        }
    }

    async fn connect(&self, user: &str) -> Bus {
        Bus::connect_patiently(self.options(user), Some(LONG))
            .await
            .unwrap()
    }
}

impl Drop for Three {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            for member in &self.members {
                let own = self
                    .dir
                    .path()
                    .join("bus/servers")
                    .join(member.name.as_str());
                let log = std::fs::read_to_string(own.join("log")).unwrap_or_default();
                eprintln!("--- {}\n{log}", member.name);
            }
        }
    }
}

/// Answers with who called, as the servers know them.
async fn say_caller(bus: &Bus, subject: &str) {
    let limits = ServeLimits::default();
    let mut requests = bus.serve(subject, None, limits).await.unwrap();
    bus.round_trip().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let caller = request.caller.clone();
            request.reply(&caller).await;
        }
    });
}

/// Calls until somebody is there: interest takes a moment from one server to another.
async fn call(bus: &Bus, subject: &str, headers: &[(&str, String)]) -> Value {
    let begun = std::time::Instant::now();
    loop {
        match bus.call_with(subject, &json!({}), LONG, headers).await {
            Ok(answer) => return answer,
            Err(CallError::NoResponders) if begun.elapsed() < LONG => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{subject}: {error}"),
        }
    }
}

#[tokio::test]
async fn users_are_who_their_files_say_and_cannot_be_others() {
    let three = Three::start();
    let orch = three.connect("loom").await;
    let (ada, bob) = (three.connect("ada").await, three.connect("bob").await);
    assert!(ada.server().tls && ada.server().auth_required);
    for subject in ["orch.job.submit", "orch.task.web.main.0.signal"] {
        say_caller(&orch, subject).await;
        for (bus, user) in [(&ada, "ada"), (&bob, "bob")] {
            assert_eq!(call(bus, subject, &[]).await["user"], user, "{subject}");
            let forged = json!({"acc": "ORCH", "user": "loom", "name_tag": "ada"});
            let forged = [(header::REQUEST_INFO, forged.to_string())];
            assert_eq!(call(bus, subject, &forged).await["user"], user, "{subject}");
        }
        assert_eq!(call(&orch, subject, &[]).await["user"], caller::OWN);
    }
    for subject in [
        "orch.assign.n1",
        "orch.ctl.n1.hello",
        "orch.log",
        "orch.heartbeat.n1",
        "orch.events.job.web.completed",
        "orch.logs.web.main.0.n1.stdout",
        "$JS.API.STREAM.LIST",
    ] {
        let answer = bob.call::<_, Value>(subject, &json!({}), LONG).await;
        let denied = matches!(
            &answer,
            Err(CallError::Refused(WireError { code, .. })) if *code == ErrorCode::Denied
        );
        assert!(denied, "{subject}: {answer:?}");
    }
    let facts = user_facts(&ada, LONG).await.unwrap();
    assert_eq!(facts.user.as_deref(), Some("ada"));
    assert_eq!(facts.account.as_deref(), Some("USERS"));
}

#[tokio::test]
async fn a_user_added_later_is_taken_and_one_of_another_bus_is_not() {
    let three = Three::start();
    drop(three.connect("loom").await);
    let later = Deployment::open(&three.dir.path().join("bus")).unwrap();
    later.add(Role::User, &name("eve")).unwrap();
    let eve = three.connect("eve").await;
    eve.round_trip().await.unwrap();

    let elsewhere = three.dir.path().join("elsewhere");
    let other = Deployment::init(&elsewhere, &three.members).unwrap();
    other.add(Role::User, &name("mal")).unwrap();
    for user in ["mal", "loom", "system"] {
        let mut options = three.options(user);
        options.login = Login::CredentialsFile(other.credentials_path(user));
        let error = Bus::connect(options).await.unwrap_err();
        assert!(matches!(error, ConnectError::Denied { .. }), "{error:?}");
    }
    let mut nobody = three.options("loom");
    nobody.login = Login::None;
    let error = Bus::connect(nobody).await.unwrap_err();
    assert!(matches!(error, ConnectError::Denied { .. }), "{error:?}");
    let mut stranger = three.options("loom");
    stranger.tls.ca = Some(other.authority());
    let error = Bus::connect(stranger).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_user_taken_back_is_let_in_no_more_and_the_others_are() {
    let three = Three::start();
    let (ada, bob) = (three.connect("ada").await, three.connect("bob").await);
    let options = three.options("bob");
    let Login::CredentialsFile(file) = &options.login else {
        panic!("a file");
    };
    let kept = three.dir.path().join("kept.creds");
    std::fs::copy(file, &kept).unwrap();
    let changed = three
        .made
        .revoke(Role::User, &name("bob"), Timestamp::now());
    assert_eq!(changed.unwrap().len(), 3);
    assert!(!file.exists());
    three.reload();
    let stolen = ConnectOptions {
        login: Login::CredentialsFile(kept),
        ..three.options("bob")
    };
    until("bob is not let in", || async {
        let tried = Bus::connect(stolen.clone()).await;
        matches!(tried, Err(ConnectError::Denied { .. }))
    })
    .await;
    until("his connection is ended", || async { !bob.is_connected() }).await;
    ada.round_trip().await.unwrap();
    // Made anew the servers' files still know, and the name is free.
    Deployment::init(&three.dir.path().join("bus"), &three.members).unwrap();
    let config = three.dir.path().join("bus/servers/n1/nats-server.conf");
    let config = std::fs::read_to_string(config).unwrap();
    assert!(claims(&config).contains("revocations"), "{config}");
    three.made.add(Role::User, &name("bob")).unwrap();
    three.connect("bob").await.round_trip().await.unwrap();
    let nobody = three
        .made
        .revoke(Role::User, &name("nobody"), Timestamp::now());
    assert!(nobody.unwrap_err().to_string().contains("nobody"));
}

/// What all tokens of a configuration say.
fn claims(config: &str) -> String {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let tokens = config
        .split_whitespace()
        .filter(|word| word.starts_with("ey"));
    let claims = tokens.filter_map(|token| engine.decode(token.split('.').nth(1)?).ok());
    claims
        .map(|claims| String::from_utf8_lossy(&claims).into_owned())
        .collect()
}

#[tokio::test]
async fn a_node_may_say_what_a_node_says_and_nothing_else() {
    let three = Three::start();
    let (orch, node) = (three.connect("loom").await, three.connect("nodes/n1").await);
    let ada = three.connect("ada").await;
    for subject in [
        "orch.log",
        "orch.assign.n1",
        "orch.job.submit",
        "orch.job.queue",
        "orch.admin.node.drain",
        "orch.events.job.web.completed",
        "orch.events.task.web.main.0.completed",
        "orch.manager.m1.bye",
        "orch.task.web.main.0.signal",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.PURGE.ORCH_LOG",
    ] {
        assert!(is_denied(&node, subject).await, "{subject}");
    }
    // In the name of another node it says nothing.
    for subject in [
        "orch.ctl.n2.hello",
        "orch.heartbeat.n2",
        "orch.inventory.n2",
        "orch.logs.web.main.0.n2.stdout",
        "orch.metrics.node.n2",
    ] {
        assert!(is_denied(&node, subject).await, "{subject}");
    }
    for subject in ["orch.ctl.n1.hello", "orch.ctl.n1.status"] {
        say_caller(&orch, subject).await;
        assert_eq!(call(&node, subject, &[]).await["user"], caller::OWN);
    }
    // It answers managers and users, whoever asked.
    for (subject, asks, user) in [
        ("orch.assign.n1", &orch, caller::OWN),
        ("orch.task.web.main.0.signal", &ada, "ada"),
        ("orch.find.signal", &ada, "ada"),
        ("orch.run.0198c0de.pause", &ada, "ada"),
    ] {
        say_caller(&node, subject).await;
        for _ in 0..3 {
            assert_eq!(call(asks, subject, &[]).await["user"], user, "{subject}");
        }
    }
}

async fn is_denied(bus: &Bus, subject: &str) -> bool {
    let answer = bus.call::<_, Value>(subject, &json!({}), LONG).await;
    matches!(
        &answer,
        Err(CallError::Refused(WireError { code, .. })) if *code == ErrorCode::Denied
    )
}

#[tokio::test]
async fn a_node_hears_neither_what_others_are_told_nor_what_they_are_answered() {
    let three = Three::start();
    let (orch, other) = (three.connect("loom").await, three.connect("nodes/n2").await);
    say_caller(&orch, "orch.ctl.n2.hello").await;
    let spy = async_nats::ConnectOptions::with_credentials_file(
        three.made.credentials_of(Role::Node, &name("n1")),
    )
    .await
    .unwrap()
    .add_root_certificates(three.made.authority());
    let (refused, mut refusals) = tokio::sync::mpsc::unbounded_channel();
    let spy = spy
        .event_callback(move |event| {
            if event.to_string().contains("Permissions Violation") {
                let _ = refused.send(event.to_string());
            }
            async {}
        })
        .connect(url(&three.members).split(',').collect::<Vec<_>>())
        .await
        .unwrap();
    let mut heard = Vec::new();
    for subject in [
        "_INBOX.>",
        "_INBOX.n2.>",
        "orch.assign.*",
        "orch.assign.n2",
        "orch.log",
    ] {
        heard.push(spy.subscribe(subject).await.unwrap());
    }
    for _ in 0..heard.len() {
        let refusal = tokio::time::timeout(LONG, refusals.recv()).await;
        assert!(refusal.is_ok(), "a subscription was taken");
    }
    // The other one hears its own answers.
    assert_eq!(
        call(&other, "orch.ctl.n2.hello", &[]).await["user"],
        caller::OWN
    );
}

#[tokio::test]
async fn a_node_taken_back_is_let_in_no_more() {
    let three = Three::start();
    let node = three.connect("nodes/n1").await;
    let kept = three.dir.path().join("kept.creds");
    let file = three.made.credentials_of(Role::Node, &name("n1"));
    std::fs::copy(&file, &kept).unwrap();
    three
        .made
        .revoke(Role::Node, &name("n1"), Timestamp::now())
        .unwrap();
    assert!(!file.exists());
    three.reload();
    let stolen = ConnectOptions {
        login: Login::CredentialsFile(kept),
        ..three.options("ada")
    };
    until("n1 is not let in", || async {
        let tried = Bus::connect(stolen.clone()).await;
        matches!(tried, Err(ConnectError::Denied { .. }))
    })
    .await;
    until("its connection is ended", || async { !node.is_connected() }).await;
    three.connect("nodes/n2").await.round_trip().await.unwrap();
    three.made.add(Role::Node, &name("n1")).unwrap();
    three.connect("nodes/n1").await.round_trip().await.unwrap();
}

#[tokio::test]
async fn the_log_lies_on_all_three_and_every_write_on_the_disk() {
    let mut three = Three::start();
    let orch = three.connect("loom").await;
    let options = LogOptions {
        replicas: 3,
        ..LogOptions::default()
    };
    until("the log is made", || async {
        Log::open(&orch, options.clone()).await.is_ok()
    })
    .await;
    let system = three.connect("system").await;
    until("every server answers", || async {
        let patience = Duration::from_millis(500);
        let facts = system_facts(&system, patience).await.unwrap_or_default();
        facts.len() == 3 && facts.iter().all(|server| server.sync_always)
    })
    .await;
    until("the client knows all three", || async {
        orch.server().servers == 3
    })
    .await;

    // The connection's own server dies: another one serves on, under the same terms.
    let port = |bus: &Bus| {
        let name = bus.server().name;
        three
            .members
            .iter()
            .position(|m| m.name.as_str() == name)
            .unwrap()
    };
    let at = port(&orch);
    let address = SocketAddr::from(([127, 0, 0, 1], three.members[at].port));
    three.servers[at].kill().unwrap();
    three.servers[at].wait().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
    until("it is connected to another one", || async {
        orch.is_connected() && orch.round_trip().await.is_ok()
    })
    .await;
    assert!(orch.server().tls);
    until("the log is still there", || async {
        Log::open(&orch, options.clone()).await.is_ok()
    })
    .await;
}
