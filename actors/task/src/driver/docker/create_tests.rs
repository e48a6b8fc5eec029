//! What the engine is asked for.

use std::collections::BTreeMap;

use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::spec::{ImageSpec, Pull};
use loom_schemas::units::{Bytes, MilliCores};
use uuid::Uuid;

use super::*;
use crate::launch::LaunchFile;

fn owner() -> Owner {
    Owner {
        cluster: "c".into(),
        node: "node-1".into(),
    }
}

fn launch() -> Launch {
    Launch {
        run: RunId(Uuid::from_u128(7)),
        slot: Slot::new(Name::new("web").unwrap(), Name::main(), 3),
        argv: vec![Word::Text("-v".into())],
        needs: Vec::new(),
        env: BTreeMap::from([("A".into(), "b=c".into())]),
        container: Some(Container {
            image: ImageSpec {
                name: "nginx:1".into(),
                pull: Pull::Missing,
            },
            entrypoint: None,
            network: Network::Bridge,
            ports: Vec::new(),
            gpus: Vec::new(),
        }),
        files: Vec::new(),
        workdir: None,
        user: None,
        resources: Resources {
            cpu: MilliCores(500),
            cpu_limit: Some(MilliCores(1500)),
            memory: Bytes::mib(64),
            disk: Bytes(0),
            disk_rate: None,
            pids: Some(99),
            gpus: None,
        },
        logs: LogSpec {
            max_size: Bytes(4096),
            keep: 1,
            ship: true,
            to: None,
        },
        result: false,
        filled: BTreeMap::new(),
        sim: None,
    }
}

fn made(launch: &Launch) -> ContainerCreateBody {
    body(launch, launch.container.as_ref().unwrap(), &owner())
}

#[test]
fn a_container_is_held_to_its_limits_and_has_no_rights_it_need_not_have() {
    let body = made(&launch());
    let host = body.host_config.unwrap();
    assert_eq!(
        (host.memory, host.memory_swap),
        (Some(64 << 20), Some(64 << 20))
    );
    assert_eq!((host.cpu_shares, host.pids_limit), (Some(512), Some(99)));
    assert_eq!(
        (host.cpu_period, host.cpu_quota),
        (Some(100_000), Some(150_000))
    );
    assert_eq!(host.cap_drop.unwrap(), ["NET_RAW"]);
    assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
    assert_eq!(host.privileged, Some(false));
    assert!(host.binds.is_none() && host.mounts.is_none() && host.cap_add.is_none());
    let log = host.log_config.unwrap();
    assert_eq!(log.config.unwrap()["max-size"], "4096");
    let labels = body.labels.unwrap();
    assert_eq!(
        (labels[CLUSTER].as_str(), labels[NODE].as_str()),
        ("c", "node-1")
    );
    assert_eq!(labels[RUN], launch().run.to_string());
    assert_eq!(labels["loom.index"], "3");
}

#[test]
fn gpus_are_put_into_a_container_by_their_ids() {
    let mut launch = launch();
    assert_eq!(made(&launch).host_config.unwrap().device_requests, None);
    launch.container.as_mut().unwrap().gpus = vec!["GPU-a".into(), "3".into()];
    let requests = made(&launch).host_config.unwrap().device_requests;
    let [request] = requests.unwrap().try_into().unwrap();
    assert_eq!(request.device_ids.unwrap(), ["GPU-a", "3"]);
    assert_eq!(request.capabilities.unwrap(), [["gpu"]]);
    assert_eq!((request.driver, request.count), (None, None));
}

#[test]
fn without_command_and_args_the_image_runs_its_own() {
    let mut launch = launch();
    let body = made(&launch);
    assert_eq!(
        (body.entrypoint, body.cmd),
        (None, Some(vec!["-v".to_owned()]))
    );
    assert_eq!(body.env.unwrap(), ["A=b=c"]);
    launch.argv.clear();
    let container = launch.container.as_mut().unwrap();
    container.entrypoint = Some(vec![
        Word::Text("sh".into()),
        Word::File("script.sh".into()),
    ]);
    let body = made(&launch);
    assert_eq!(body.entrypoint.unwrap(), ["sh", "/loom/script.sh"]);
    assert_eq!(body.cmd, None);
}

#[test]
fn ports_lead_in_and_networks_are_the_engines() {
    let mut launch = launch();
    let container = launch.container.as_mut().unwrap();
    let port = |name: &str, host, protocol| PublishedPort {
        name: Name::new(name).unwrap(),
        port: 53,
        host,
        protocol,
    };
    container.ports = vec![
        port("a", 20_001, Protocol::Udp),
        port("b", 20_002, Protocol::Udp),
        port("c", 20_003, Protocol::Tcp),
    ];
    let body = made(&launch);
    let host = body.host_config.unwrap();
    let bindings = host.port_bindings.unwrap();
    let udp = bindings["53/udp"].as_ref().unwrap();
    let ports: Vec<_> = udp
        .iter()
        .map(|port| port.host_port.as_deref().unwrap())
        .collect();
    assert_eq!(ports, ["20001", "20002"]);
    assert_eq!(bindings["53/tcp"].as_ref().unwrap().len(), 1);
    assert_eq!(host.network_mode.as_deref(), Some("bridge"));
    launch.container.as_mut().unwrap().network = Network::None;
    let body = made(&launch);
    assert_eq!(body.network_disabled, Some(true));
    launch.container.as_mut().unwrap().network = Network::Host;
    let body = made(&launch);
    assert_eq!(
        body.host_config.unwrap().network_mode.as_deref(),
        Some("host")
    );
}

#[test]
fn files_are_packed_below_their_directory() {
    let mut launch = launch();
    assert_eq!(files(&launch).unwrap(), None);
    launch.files = vec![LaunchFile {
        name: "script.sh".into(),
        contents: b"true".to_vec(),
        mode: 0o755,
    }];
    let bytes = files(&launch).unwrap().unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut entries = archive.entries().unwrap();
    let entry = entries.next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap(), Path::new("loom/script.sh"));
    assert_eq!(entry.header().mode().unwrap(), 0o755);
}
