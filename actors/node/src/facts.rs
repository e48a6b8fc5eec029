//! What a node says of itself: its host, and what it offers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use loom_schemas::record::{Capacity, NodeInfo};
use loom_schemas::wire::FORMAT;
use loom_schemas::words::DriverKind;
use tokio::net::{UdpSocket, lookup_host};

use crate::options::{BusAccess, NodeOptions};
use crate::usage::host_capacity;

/// The port of a NATS server whose URL names none.
const BUS_PORT: u16 = 4222;

/// Gathers everything a node says of itself.
pub(crate) async fn gather(options: &NodeOptions, drivers: Vec<DriverKind>) -> NodeInfo {
    let address = match &options.address {
        Some(address) => address.clone(),
        None => own_address(&options.bus).await.to_string(),
    };
    NodeInfo {
        hostname: of_proc("hostname"),
        address,
        arch: arch(std::env::consts::ARCH).to_owned(),
        os: os(&std::fs::read_to_string("/etc/os-release").unwrap_or_default()),
        kernel: of_proc("osrelease"),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        datacenter: options.datacenter.clone(),
        labels: options.labels.clone(),
        capacity: capacity(options),
        drivers,
        attributes: BTreeMap::new(),
        format: FORMAT,
    }
}

fn capacity(options: &NodeOptions) -> Capacity {
    let told = options.capacity;
    let measured = host_capacity(&options.data_dir);
    Capacity {
        cpu: told.cpu.unwrap_or(measured.cpu),
        memory: told.memory.unwrap_or(measured.memory),
        disk: told.disk.unwrap_or(measured.disk),
        ports_from: *options.ports.start(),
        ports_to: *options.ports.end(),
    }
}

fn of_proc(name: &str) -> String {
    let text = std::fs::read_to_string(Path::new("/proc/sys/kernel").join(name));
    text.unwrap_or_default().trim().to_owned()
}

/// The architecture as images and job files name it.
fn arch(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Name and version from the text of `/etc/os-release`.
fn os(release: &str) -> String {
    let field = |name: &str| {
        let line = release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        let value = line.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then_some(value)
    };
    match (field("NAME"), field("VERSION_ID")) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        (Some(name), None) => name.to_owned(),
        (None, _) => std::env::consts::OS.to_owned(),
    }
}

/// The address this host uses towards the bus; nothing is sent to find out.
async fn own_address(bus: &BusAccess) -> IpAddr {
    let fallback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let BusAccess::Connect(options) = bus else {
        return fallback;
    };
    let first = options.url.split(',').next().unwrap_or_default();
    let Ok(mut found) = lookup_host(authority(first)).await else {
        return fallback;
    };
    let Some(server) = found.next() else {
        return fallback;
    };
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let Ok(socket) = UdpSocket::bind((any, 0)).await else {
        return fallback;
    };
    if socket.connect(server).await.is_err() {
        return fallback;
    }
    socket.local_addr().map_or(fallback, |own| own.ip())
}

/// Host and port of a server's URL.
fn authority(url: &str) -> String {
    let rest = url
        .trim()
        .split_once("://")
        .map_or(url.trim(), |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or_default();
    let has_port = rest.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
    });
    if has_port {
        rest.to_owned()
    } else {
        format!("{rest}:{BUS_PORT}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operating_system_is_a_name_and_a_version() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\n\
                      VERSION_ID=\"12\"\n";
        assert_eq!(os(debian), "Debian GNU/Linux 12");
        assert_eq!(os("NAME=Arch\n"), "Arch");
        assert_eq!(os(""), "linux");
    }

    #[test]
    fn the_server_is_found_in_any_url() {
        for (url, authority_of) in [
            ("nats://10.0.0.1:4333", "10.0.0.1:4333"),
            ("tls://ada:secret@bus.example", "bus.example:4222"),
            ("127.0.0.1", "127.0.0.1:4222"),
            ("nats://[::1]:4222", "[::1]:4222"),
            ("nats://[::1]", "[::1]:4222"),
        ] {
            assert_eq!(authority(url), authority_of, "{url}");
        }
    }

    #[test]
    fn architectures_have_the_names_that_images_use() {
        assert_eq!(arch("x86_64"), "amd64");
        assert_eq!(arch("aarch64"), "arm64");
        assert_eq!(arch("riscv64"), "riscv64");
    }
}
