//! What a node says of itself: its host, and what it offers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use loom_schemas::record::{Capacity, NodeInfo};
use loom_schemas::wire::FORMAT;
use loom_schemas::words::DriverKind;
use tokio::net::{UdpSocket, lookup_host};
use tracing::warn;

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
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    NodeInfo {
        hostname: of_proc("hostname"),
        address,
        arch: arch(std::env::consts::ARCH).to_owned(),
        os: os(&release),
        kernel: of_proc("osrelease"),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        datacenter: options.datacenter.clone(),
        labels: options.labels.clone(),
        capacity: capacity(options),
        drivers,
        attributes: attributes(&release),
        log_dirs: Vec::new(),
        format: FORMAT,
    }
}

fn capacity(options: &NodeOptions) -> Capacity {
    let told = &options.capacity;
    let measured = host_capacity(&options.data_dir);
    Capacity {
        cpu: told.cpu.unwrap_or(measured.cpu),
        memory: told.memory.unwrap_or(measured.memory),
        disk: told.disk.unwrap_or(measured.disk),
        disk_rate: told.disk_rate,
        pids: told.pids.or(measured.pids),
        ports_from: *options.ports.start(),
        ports_to: *options.ports.end(),
        gpus: told.gpus.clone().unwrap_or(measured.gpus),
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

/// What there is to know of the host beside that, by the names it has in constraints.
fn attributes(release: &str) -> BTreeMap<String, String> {
    let os = field(release, "ID").unwrap_or(std::env::consts::OS);
    let version = field(release, "VERSION_ID").map(str::to_owned);
    let networks = sysinfo::Networks::new_with_refreshed_list().ok();
    let mut addresses: Vec<IpAddr> = networks
        .iter()
        .flat_map(|networks| networks.values())
        .flat_map(|network| network.ip_networks().iter().map(|network| network.addr))
        .filter(is_external)
        .collect();
    // The same one at every start: IPv4 before IPv6, the lowest first.
    addresses.sort_unstable();
    let external = addresses.first().map(ToString::to_string);
    let known = [
        ("os", Some(os.to_owned())),
        ("os.version", version),
        ("ip.external", external),
    ];
    let known = known
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    known.collect()
}

/// Whether the internet routes to an address; the standard library does not tell yet.
fn is_external(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let carrier = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && (b & 0xfe) == 18;
            let reserved = a == 0 || a >= 240;
            let local = v4.is_private() || v4.is_loopback() || v4.is_link_local();
            let special = v4.is_documentation() || v4.is_multicast() || v4.is_broadcast();
            !(carrier || benchmark || reserved || local || special)
        }
        // Of IPv6 only 2000::/3 is given out; 2001:db8::/32 is for documents.
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            first & 0xe000 == 0x2000 && (first, second) != (0x2001, 0xdb8)
        }
    }
}

/// The labels of a node: its agent's, and in their place those that people gave it.
pub(crate) fn merged_labels(
    info: &NodeInfo,
    given: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut labels = info.labels.clone();
    labels.extend(given.clone());
    labels
}

/// A field of `/etc/os-release`.
fn field<'a>(release: &'a str, name: &str) -> Option<&'a str> {
    let line = release
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    let value = line.trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then_some(value)
}

/// Name and version from the text of `/etc/os-release`.
fn os(release: &str) -> String {
    match (field(release, "NAME"), field(release, "VERSION_ID")) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        (Some(name), None) => name.to_owned(),
        (None, _) => std::env::consts::OS.to_owned(),
    }
}

/// The address this host uses towards the bus; nothing is sent to find out.
async fn own_address(bus: &BusAccess) -> IpAddr {
    let BusAccess::Connect(options) = bus else {
        return IpAddr::V4(Ipv4Addr::LOCALHOST);
    };
    let mut found = Vec::new();
    let mut is_elsewhere = false;
    for server in options.url.split(',') {
        let authority = authority(server);
        is_elsewhere |= !is_this_machine(&authority);
        found.extend(address_towards(&authority).await);
    }
    let own = best(&found);
    if own.is_loopback() && is_elsewhere {
        warn!(address = %own, "tasks on other hosts cannot reach this: give --address");
    }
    own
}

/// The first that others reach as well: a host's own name is a loopback address on many systems.
fn best(found: &[IpAddr]) -> IpAddr {
    let reachable = found.iter().find(|address| !address.is_loopback());
    let own = reachable.or(found.first());
    own.copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Whether somebody who wrote this server's host and port meant this machine alone.
fn is_this_machine(authority: &str) -> bool {
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let literal = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || literal.is_ok_and(|address| address.is_loopback())
}

/// The address of the interface that packets to a server leave by.
async fn address_towards(authority: &str) -> Option<IpAddr> {
    let server = lookup_host(authority).await.ok()?.next()?;
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect(server).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
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
    fn the_address_announced_is_one_that_others_reach() {
        let all = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let ours = |texts: &[&str]| best(&all(texts)).to_string();
        assert_eq!(ours(&["127.0.0.1", "10.0.0.7", "10.0.1.7"]), "10.0.0.7");
        assert_eq!(ours(&["fd00::7", "10.0.1.7"]), "fd00::7");
        assert_eq!(ours(&["127.0.0.1"]), "127.0.0.1");
        assert_eq!(ours(&[]), "127.0.0.1");
        assert!(is_this_machine("127.0.0.1:4222") && is_this_machine("[::1]:4222"));
        assert!(is_this_machine("localhost:4222"));
        assert!(!is_this_machine("n1:4222") && !is_this_machine("[fd00::7]:4222"));
    }

    #[test]
    fn the_operating_system_is_a_name_and_a_version() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\n\
                      VERSION_ID=\"12\"\n";
        assert_eq!(os(debian), "Debian GNU/Linux 12");
        assert_eq!(os("NAME=Arch\n"), "Arch");
        assert_eq!(os(""), "linux");
    }

    #[test]
    fn the_system_is_told_by_the_names_of_constraints() {
        let told = attributes("NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n");
        assert_eq!((&*told["os"], &*told["os.version"]), ("debian", "12"));
        // A distribution without versions has none.
        let told = attributes("ID=arch\n");
        assert_eq!(told["os"], "arch");
        assert!(!told.contains_key("os.version"));
    }

    #[test]
    fn an_external_address_is_one_that_the_internet_routes_to() {
        let is = |text: &str| is_external(&text.parse().unwrap());
        for inside in [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "203.0.113.7",
            "224.0.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(!is(inside), "{inside}");
        }
        for outside in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2a00:1450::1"] {
            assert!(is(outside), "{outside}");
        }
    }

    #[test]
    fn labels_of_people_stand_in_place_of_the_agents() {
        let pairs = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            let own = list
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            own.collect()
        };
        let mut info = crate::testing::info();
        info.labels = pairs(&[("disk", "hdd"), ("rack", "7")]);
        let merged = merged_labels(&info, &pairs(&[("disk", "ssd"), ("new", "")]));
        assert_eq!(
            merged,
            pairs(&[("disk", "ssd"), ("new", ""), ("rack", "7")])
        );
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
