//! Connecting with TLS: what is accepted, and what is refused in which words.

use std::path::{Path, PathBuf};

use loom_bus::connection::{Bus, ConnectError, ConnectOptions, Login, Tls};
use loom_bus::server::deploy::Deployment;

use crate::support::Server;

/// Certificates for one server on loopback, and where they are.
struct Certificates {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

fn certificates(dir: &Path) -> Certificates {
    let members = ["n1=127.0.0.1".parse().unwrap()];
    let made = Deployment::init(dir, &members).unwrap();
    let own = dir.join("servers").join("n1");
    Certificates {
        ca: made.authority(),
        cert: own.join("server.crt"),
        key: own.join("server.key"),
    }
}

/// A server with TLS and the user `ada`; `more` goes into its TLS block.
async fn server(dir: &Path, files: &Certificates, more: &str) -> Server {
    let text = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", {more} }}\n\
         authorization {{ users: [{{user: ada, password: s3cret}}] }}",
        files.cert.display(),
        files.key.display()
    );
    Server::start_with(dir, &text).await
}

fn to(url: &str, tls: Tls) -> ConnectOptions {
    ConnectOptions {
        url: url.to_owned(),
        login: Login::User {
            name: "ada".to_owned(),
            password: "s3cret".to_owned(),
        },
        tls,
        require_jetstream: true,
        ..ConnectOptions::default()
    }
}

fn with_ca(ca: &Path) -> Tls {
    Tls {
        ca: Some(ca.to_owned()),
        ..Tls::default()
    }
}

async fn refusal(options: ConnectOptions) -> ConnectError {
    let error = Bus::connect(options).await.unwrap_err();
    assert!(!error.may_pass(), "{error}");
    let line = error.to_string();
    assert!(!line.contains('\n') && !line.contains("s3cret"), "{line}");
    error
}

#[tokio::test]
async fn a_user_and_password_go_over_tls_to_a_server_its_authority_has_signed() {
    let dir = tempfile::tempdir().unwrap();
    let files = certificates(&dir.path().join("files"));
    let server = server(dir.path(), &files, "").await;
    for url in [server.url.clone(), server.url.replace("nats:", "tls:")] {
        let bus = Bus::connect(to(&url, with_ca(&files.ca))).await.unwrap();
        assert!(bus.server().tls);
        bus.round_trip().await.unwrap();
    }
    let mut wrong = to(&server.url, with_ca(&files.ca));
    wrong.login = Login::User {
        name: "ada".to_owned(),
        password: "wr0ng".to_owned(),
    };
    let error = refusal(wrong).await;
    assert!(matches!(error, ConnectError::Denied { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_of_another_authority_or_name_is_not_spoken_to() {
    let dir = tempfile::tempdir().unwrap();
    let files = certificates(&dir.path().join("files"));
    let others = certificates(&dir.path().join("others"));
    let server = server(dir.path(), &files, "").await;
    for tls in [Tls::default(), with_ca(&others.ca)] {
        let error = refusal(to(&server.url, tls)).await;
        assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains("--tls-ca"), "{error}");
    }
    let elsewhere = server.url.replace("127.0.0.1", "localhost");
    let error = refusal(to(&elsewhere, with_ca(&files.ca))).await;
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_one_or_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let files = certificates(&dir.path().join("files"));
    let others = certificates(&dir.path().join("others"));
    let verify = format!("verify: true, ca_file: \"{}\"", files.ca.display());
    let server = server(dir.path(), &files, &verify).await;
    let own = |files: &Certificates, ca: &Path| Tls {
        ca: Some(ca.to_owned()),
        cert: Some(files.cert.clone()),
        key: Some(files.key.clone()),
    };
    let bus = Bus::connect(to(&server.url, own(&files, &files.ca))).await;
    bus.unwrap().round_trip().await.unwrap();
    let error = refusal(to(&server.url, with_ca(&files.ca))).await;
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("--tls-cert"), "{error}");
    let error = refusal(to(&server.url, own(&others, &files.ca))).await;
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn tls_that_is_asked_for_is_never_done_without() {
    let dir = tempfile::tempdir().unwrap();
    let files = certificates(&dir.path().join("files"));
    let plain = Server::start(dir.path()).await;
    let tls = plain.url.replace("nats:", "tls:");
    for (url, files) in [(&tls, Tls::default()), (&plain.url, with_ca(&files.ca))] {
        let error = refusal(to(url, files)).await;
        assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains("does not speak it"), "{error}");
    }
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let files = certificates(&dir.path().join("files"));
    let nowhere = "tls://127.0.0.1:1";
    let missing = dir.path().join("missing.crt");
    let cases = [
        (with_ca(&missing), &missing),
        (with_ca(&files.key), &files.key),
        (
            Tls {
                cert: Some(files.cert.clone()),
                ..Tls::default()
            },
            &files.cert,
        ),
        (
            Tls {
                cert: Some(files.cert.clone()),
                key: Some(files.ca.clone()),
                ..Tls::default()
            },
            &files.ca,
        ),
    ];
    for (tls, named) in cases {
        let error = refusal(to(nowhere, tls)).await;
        assert!(matches!(error, ConnectError::TlsFile { .. }), "{error:?}");
        assert!(
            error.to_string().contains(named.to_str().unwrap()),
            "{error}"
        );
    }
}
