//! What the engine says, as it says it, and what the user is told.

use loom_schemas::ids::Name;
use loom_schemas::spec::{ImageSpec, Network, Protocol, Pull};

use super::*;
use crate::launch::PublishedPort;

const IMAGE: &str = "r.example:5000/team/web:2";

fn pulled(status: Option<u16>, said: &str) -> (bool, String) {
    told(pull(IMAGE, &ImageName::parse(IMAGE).unwrap(), status, said))
}

fn told(error: DriverError) -> (bool, String) {
    match error {
        DriverError::Rejected(text) => (true, text),
        DriverError::Unavailable(text) => (false, text),
        other => panic!("{other:?}"),
    }
}

fn started(status: Option<u16>, said: &str) -> (bool, String) {
    let container = Container {
        image: ImageSpec {
            name: IMAGE.into(),
            pull: Pull::Missing,
        },
        entrypoint: None,
        network: Network::Bridge,
        ports: vec![PublishedPort {
            name: Name::new("http").unwrap(),
            port: 80,
            host: 8080,
            protocol: Protocol::Tcp,
        }],
        gpus: vec!["GPU-1".into()],
    };
    told(start(&container, status, said))
}

#[test]
fn what_a_registry_says_is_told_with_image_registry_and_advice() {
    for (status, said, hopeless, expected) in [
        (
            Some(404),
            "manifest for r.example:5000/team/web:2 not found: manifest unknown: manifest unknown",
            true,
            "has no `2` of `r.example:5000/team/web`: check name and tag",
        ),
        (
            Some(404),
            "pull access denied for team/web, repository does not exist or may require 'docker \
             login': denied: requested access to the resource is denied",
            true,
            "run `docker login r.example:5000`",
        ),
        (
            Some(500),
            "Get \"http://r.example:5000/v2/\": no basic auth credentials",
            true,
            "run `docker login r.example:5000`",
        ),
        (
            Some(500),
            "Get \"http://r.example:5000/v2/\": dial tcp 127.0.0.1:5000: connect: connection refused",
            false,
            "registry r.example:5000 cannot be reached from this node (connection refused)",
        ),
        (
            Some(500),
            "Get \"https://r.example:5000/v2/\": http: server gave HTTP response to HTTPS client",
            true,
            "insecure-registries",
        ),
        (
            None,
            "failed to register layer: Error processing tar file(exit status 1): write /x: no space \
             left on device",
            false,
            "no space left for it on this node",
        ),
        (None, "unexpected EOF", false, "broke off (unexpected EOF)"),
        (
            None,
            "filesystem layer verification failed for digest sha256:12",
            false,
            "broke off",
        ),
        (
            None,
            "no matching manifest for linux/amd64 in the manifest list entries",
            true,
            "for other machines only",
        ),
        (
            Some(404),
            "no match for platform in manifest: not found",
            true,
            "for other machines only",
        ),
        (Some(500), "something new", false, "failed: something new"),
    ] {
        let (rejected, text) = pulled(status, said);
        assert!(text.starts_with(&format!("image `{IMAGE}`: ")), "{text}");
        assert!(text.contains(expected), "{text}");
        assert_eq!(rejected, hopeless, "{text}");
    }
}

#[test]
fn what_keeps_a_container_from_starting_is_told_with_advice() {
    const RUNC: &str = "OCI runtime create failed: container_linux.go:380: starting container process \
                        caused: ";
    for (status, said, hopeless, expected) in [
        (
            400,
            format!("{RUNC}exec: \"bash\": executable file not found in $PATH: unknown"),
            true,
            "program `bash` was not found in image",
        ),
        (
            400,
            format!("{RUNC}exec: \"/etc\": permission denied: unknown"),
            true,
            "program `/etc` of image",
        ),
        (
            500,
            "driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:8080 \
             failed: port is already allocated"
                .to_owned(),
            false,
            "port `http`: the node's port 8080 is taken",
        ),
        (
            500,
            "Error starting userland proxy: listen tcp4 0.0.0.0:8080: bind: address already in use"
                .to_owned(),
            false,
            "port `http`: the node's port 8080 is taken",
        ),
        (
            400,
            "unable to find user nobodyhere: no matching entries in passwd file".to_owned(),
            true,
            "unable to find user nobodyhere: no matching entries in passwd file: name a user",
        ),
        (
            400,
            "No command specified".to_owned(),
            true,
            "set `command`",
        ),
        (
            500,
            "could not select device driver \"\" with capabilities: [[gpu]]".to_owned(),
            true,
            "gpus GPU-1: the Docker Engine of this node cannot put them into a container: install",
        ),
        (500, "it hurts".to_owned(), false, "it hurts"),
    ] {
        let (rejected, text) = started(Some(status), &said);
        assert!(text.contains(expected), "{text}");
        assert_eq!(rejected, hopeless, "{text}");
    }
    let (_, text) = started(
        Some(500),
        "listen tcp4 0.0.0.0:80801: address already in use",
    );
    assert_eq!(text, "a port of the node is taken by another program");
}

#[test]
fn an_engine_that_is_not_there_is_told_with_what_to_do() {
    let socket = Path::new("/run/d.sock");
    let of = |kind: io::ErrorKind| told(away(socket, &kind.into())).1;
    assert!(of(io::ErrorKind::NotFound).contains("no Docker Engine at /run/d.sock: install it"));
    assert!(of(io::ErrorKind::PermissionDenied).contains("group `docker`"));
    assert!(of(io::ErrorKind::TimedOut).contains("does not answer"));
}

#[test]
fn what_the_engine_says_is_one_line_and_not_too_long() {
    let long = format!("a\n  b\t{}", "x".repeat(1000));
    let told = one_line(&long);
    assert!(told.starts_with("a b xxx") && told.ends_with("..."));
    assert_eq!(told.chars().count(), TEXT_MAX + 3);
}
