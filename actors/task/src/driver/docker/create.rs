//! From a launch to what the engine is asked for. Pure.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, PortBinding, PortMap,
    RestartPolicy, RestartPolicyNameEnum,
};
use loom_schemas::spec::{LogSpec, Network, Protocol, Resources};

use super::Owner;
use crate::launch::{Container, Launch, PublishedPort, Word};

/// The label of every container of a cluster, with its id.
pub(super) const CLUSTER: &str = "loom.cluster";
/// The label with the name of its node.
pub(super) const NODE: &str = "loom.node";
/// The label with the id of its run.
pub(super) const RUN: &str = "loom.run";

/// Where a launch's files are in its container.
const FILES: &str = "/loom";

/// What `$LOOM_RESULT` names in a container.
pub(super) const RESULT_PATH: &str = "/loom/.loom-result.json";

/// The period of a cpu quota, in microseconds; the kernel's default.
const PERIOD_US: i64 = 100_000;

/// What is created for a launch.
pub(super) fn body(launch: &Launch, container: &Container, owner: &Owner) -> ContainerCreateBody {
    let argv = words(&launch.argv);
    let env = launch.env.iter();
    let result = launch.result.then(|| format!("LOOM_RESULT={RESULT_PATH}"));
    let exposed = container.ports.iter().map(inside).collect::<Vec<_>>();
    ContainerCreateBody {
        image: Some(container.image.name.clone()),
        entrypoint: container.entrypoint.as_deref().map(words),
        cmd: (!argv.is_empty()).then_some(argv),
        env: Some(
            env.map(|(key, value)| format!("{key}={value}"))
                .chain(result)
                .collect(),
        ),
        user: launch.user.clone(),
        working_dir: launch
            .workdir
            .as_ref()
            .map(|path| path.display().to_string()),
        labels: Some(labels(launch, owner)),
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        // Half the cost of the network mode `none`, and a loopback just the same.
        network_disabled: (container.network == Network::None).then_some(true),
        host_config: Some(host(launch, container)),
        ..ContainerCreateBody::default()
    }
}

fn host(launch: &Launch, container: &Container) -> HostConfig {
    let limits = limits(&launch.resources);
    HostConfig {
        network_mode: match container.network {
            Network::Bridge => Some("bridge".to_owned()),
            Network::Host => Some("host".to_owned()),
            Network::None => None,
        },
        port_bindings: Some(bindings(&container.ports)),
        device_requests: gpus(&container.gpus),
        cap_drop: Some(vec!["NET_RAW".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        privileged: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(log(&launch.logs)),
        ..limits
    }
}

pub(super) fn limits(wanted: &Resources) -> HostConfig {
    let memory = i64::try_from(wanted.memory.0)
        .ok()
        .filter(|memory| *memory > 0);
    let cap = wanted.cpu_limit;
    HostConfig {
        memory,
        // Swap would only make the limit later.
        memory_swap: memory,
        cpu_shares: Some((i64::from(wanted.cpu.0) * 1024 / 1000).clamp(2, 262_144)),
        cpu_period: cap.map(|_| PERIOD_US),
        cpu_quota: cap.map(|cap| (i64::from(cap.0) * PERIOD_US / 1000).max(1000)),
        pids_limit: Some(i64::from(wanted.most_pids())),
        ..HostConfig::default()
    }
}

/// The engine's own files, from which the run's are copied; they bound what is lost of a flood.
fn log(logs: &LogSpec) -> HostConfigLogConfig {
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(HashMap::from([
            ("max-size".to_owned(), logs.max_size.0.to_string()),
            ("max-file".to_owned(), logs.keep.max(2).to_string()),
        ])),
    }
}

/// What has the engine put gpus into a container, as `docker run --gpus` does.
fn gpus(ids: &[String]) -> Option<Vec<DeviceRequest>> {
    let request = DeviceRequest {
        device_ids: Some(ids.to_vec()),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    };
    (!ids.is_empty()).then(|| vec![request])
}

fn bindings(ports: &[PublishedPort]) -> PortMap {
    let mut map = PortMap::new();
    for port in ports {
        let binding = PortBinding {
            host_ip: None,
            host_port: Some(port.host.to_string()),
        };
        // Two of the node's ports may lead to one inside.
        let bindings = map.entry(inside(port)).or_default();
        bindings.get_or_insert_with(Vec::new).push(binding);
    }
    map
}

fn inside(port: &PublishedPort) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}/{protocol}", port.port)
}

fn labels(launch: &Launch, owner: &Owner) -> HashMap<String, String> {
    let slot = &launch.slot;
    [
        (CLUSTER, owner.cluster.clone()),
        (NODE, owner.node.clone()),
        (RUN, launch.run.to_string()),
        ("loom.job", slot.job.to_string()),
        ("loom.task", slot.task.to_string()),
        ("loom.index", slot.index.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn words(words: &[Word]) -> Vec<String> {
    let word = |word: &Word| word.within(Path::new(FILES)).to_string_lossy().into_owned();
    words.iter().map(word).collect()
}

/// The launch's files as an archive to be unpacked at the top of the container; none if it has none.
pub(super) fn files(launch: &Launch) -> io::Result<Option<Vec<u8>>> {
    if launch.files.is_empty() && !launch.result {
        return Ok(None);
    }
    let mut archive = tar::Builder::new(Vec::new());
    if launch.result {
        // Whoever runs in the container may leave a result.
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o1777);
        header.set_mtime(0);
        archive.append_data(&mut header, "loom/", io::empty())?;
    }
    for file in &launch.files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.contents.len() as u64);
        header.set_mode(file.mode);
        header.set_mtime(0);
        let path = Path::new(FILES).join(&file.name);
        let path = path.strip_prefix("/").unwrap_or(&path).to_path_buf();
        archive.append_data(&mut header, path, file.contents.as_slice())?;
    }
    archive.into_inner().map(Some)
}

#[cfg(test)]
#[path = "create_tests.rs"]
mod tests;
