//! What each node of several in one process gets of this machine, and the size of sim nodes.

use std::path::Path;

use loom_node::CapacityOverride;
use loom_schemas::record::Gpu;
use loom_schemas::units::{Bytes, MilliCores};

use crate::start::gpus::{numbered, parse};

/// Host ports are shared out between the nodes of one process.
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=29_999;

/// The most processes and threads that a kernel of 64 bits allows.
const PIDS_MAX: u32 = 4_194_304;

/// What node `number` of `nodes`, from 1, has of this machine.
pub(super) fn share(number: u16, nodes: u16, data_dir: &Path) -> CapacityOverride {
    let host = loom_node::host_capacity(data_dir);
    CapacityOverride {
        cpu: Some(MilliCores(host.cpu.0 / u32::from(nodes))),
        memory: Some(Bytes(host.memory.0 / u64::from(nodes))),
        disk: Some(Bytes(host.disk.0 / u64::from(nodes))),
        disk_rate: host.disk_rate,
        pids: host.pids.map(|pids| pids / u32::from(nodes)),
        gpus: Some(gpu_share(host.gpus, number, nodes)),
    }
}

/// Every gpu is of one of the nodes.
fn gpu_share(gpus: Vec<Gpu>, number: u16, nodes: u16) -> Vec<Gpu> {
    let from = usize::from(number.saturating_sub(1));
    gpus.into_iter()
        .skip(from)
        .step_by(usize::from(nodes))
        .collect()
}

/// The host ports of node `number` of `nodes`, from 1.
pub(super) fn port_share(number: u16, nodes: u16) -> std::ops::RangeInclusive<u16> {
    let each = (PORTS.end() - PORTS.start() + 1) / nodes;
    let first = PORTS.start() + each * (number - 1);
    first..=first + each - 1
}

/// Reads `cpu=16,memory=64GiB,gpus=a100:4`.
pub(super) fn parse_shape(text: &str) -> Result<CapacityOverride, String> {
    let mut shape = CapacityOverride {
        disk: Some(Bytes::mib(1024 * 1024)),
        pids: Some(PIDS_MAX),
        gpus: Some(Vec::new()),
        ..Default::default()
    };
    let mut gpus = Vec::new();
    for part in text.split(',') {
        let (key, value) = crate::address::parse_pair(part)?;
        match key.as_str() {
            "cpu" => shape.cpu = Some(quantity(&value)?),
            "memory" => shape.memory = Some(quantity(&value)?),
            "disk" => shape.disk = Some(quantity(&value)?),
            "disk_rate" => {
                let rate = Bytes::parse_rate(&value).map_err(|error| error.to_string())?;
                shape.disk_rate = Some(rate);
            }
            "pids" => shape.pids = Some(quantity(&value)?),
            "gpus" => {
                let (name, count) = value.split_once(':').unwrap_or((&value, ""));
                gpus.push(parse(name, count).map_err(|why| {
                    format!("`{value}`: {why}; write a name and a count, as in gpus=a100:4")
                })?);
            }
            _ => {
                let expected = "expected cpu, memory, disk, disk_rate, pids or gpus";
                return Err(format!("`{key}`: {expected}"));
            }
        }
    }
    shape.gpus = Some(numbered(&gpus));
    Ok(shape)
}

fn quantity<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_share_the_ports_without_overlap() {
        let shares: Vec<_> = (1..=3).map(|number| port_share(number, 3)).collect();
        for pair in shares.windows(2) {
            assert!(pair[0].end() < pair[1].start());
        }
        assert!(*shares[2].end() <= *PORTS.end());
    }

    #[test]
    fn a_shape_has_units() {
        let shape = parse_shape("cpu=16,memory=64GiB").unwrap();
        assert_eq!(shape.cpu, Some(MilliCores(16_000)));
        assert_eq!(shape.memory, Some(Bytes::mib(64 * 1024)));
        assert_eq!(
            shape.gpus,
            Some(Vec::new()),
            "those of this machine are not played"
        );
        assert_eq!((shape.disk_rate, shape.pids), (None, Some(PIDS_MAX)));
        let shape = parse_shape("cpu=16,disk_rate=200MiB/s,pids=9000").unwrap();
        let told = (shape.disk_rate, shape.pids);
        assert_eq!(told, (Some(Bytes::mib(200)), Some(9000)));
        let shape = parse_shape("cpu=16,gpus=a100:2,gpus=t4:1").unwrap();
        let gpus = shape.gpus.unwrap();
        let ids: Vec<String> = gpus.iter().map(ToString::to_string).collect();
        assert_eq!(ids, ["a100:0", "a100:1", "t4:2"]);
        let shares: Vec<Vec<Gpu>> = (1..=2)
            .map(|number| gpu_share(gpus.clone(), number, 2))
            .collect();
        assert_eq!((shares[0].len(), shares[1].len()), (2, 1));
        assert!(!shares[0].contains(&shares[1][0]), "{shares:?}");
        for bad in [
            "",
            "cpu",
            "cpu=x",
            "memory=64",
            "gpu=1",
            "gpus=4",
            "gpus=a100:x",
            "disk_rate=200MiB",
            "pids=many",
        ] {
            assert!(parse_shape(bad).is_err(), "{bad}");
        }
    }
}
