//! Machines and wishes drawn by chance, and how the scheduler is told of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use loom_schemas::ids::Name;
use loom_schemas::record::{Drain, Gpu, NodeStatus, Taint};
use loom_schemas::spec::{
    Affinity, Attribute, Constraint, Gpus, PortSpec, Protocol, SpreadOver, TaskSpec, Toleration,
};
use loom_schemas::units::{Bytes, Millis};
use loom_schemas::words::{DriverKind, TaintEffect};
use proptest::prelude::{Just, Strategy as _, any, prop, prop_oneof};

use super::asking;
use super::oracle::{AMOUNTS, FIRST_PORT, GPU_NAMES, GpuTaint, LARGE, Machine, Standing, Wish};
use crate::scheduler::{Request, Room};
use crate::state::fixture::{at, info, name, node_record};

pub(super) fn machines() -> impl proptest::strategy::Strategy<Value = Vec<Machine>> {
    let rack = prop::sample::select(vec![None, Some("a"), Some("b"), Some("c")]);
    let taint = prop_oneof![
        6 => Just(GpuTaint::None),
        1 => Just(GpuTaint::PreferNot),
        1 => Just(GpuTaint::NoSchedule),
    ];
    let standing = prop_oneof![
        10 => Just(Standing::Up),
        1 => Just(Standing::Down),
        1 => Just(Standing::Draining),
    ];
    let busy = prop_oneof![3 => Just(0), 1 => 1..130u32];
    let gpus = prop_oneof![2 => Just([0; 2]), 1 => [0..4u32, 0..3u32]];
    let counted = |most: u64| prop::option::weighted(0.7, 1..most);
    let disks = (0..9u64, counted(200), counted(2000));
    let size = (1..9u32, 1..17u64, gpus, disks);
    let datacenter = prop::sample::select(vec![None, Some("x"), Some("x"), Some("y")]);
    let program = (datacenter, prop::bool::weighted(0.9), 0..6u16);
    let machine = (size, rack, any::<bool>(), taint, standing, busy, program);
    let machine = machine.prop_map(
        |(size, rack, ssd, taint, standing, busy, program)| Machine {
            datacenter: program.0,
            runs_processes: program.1,
            last_port: FIRST_PORT + program.2,
            used_ports: BTreeSet::new(),
            cores: size.0,
            gib: size.1,
            gpus: size.2,
            disk_gib: size.3.0,
            disk_rate: size.3.1,
            pids: size.3.2.map(|pids| u32::try_from(pids).unwrap()),
            rack,
            ssd,
            taint,
            standing,
            busy,
            used: [0; AMOUNTS],
            used_gpus: [0; 2],
        },
    );
    // Sets of nodes are kept 64 by 64.
    let few = prop::collection::vec(machine.clone(), 1..40);
    prop_oneof![6 => few, 1 => prop::collection::vec(machine, 60..140)]
}

pub(super) fn wishes() -> impl proptest::strategy::Strategy<Value = Vec<Wish>> {
    let seldom = || prop::bool::weighted(0.15);
    let weight = || prop_oneof![-100..0i8, 1..=100i8];
    let towards = || prop::option::weighted(0.4, weight());
    let targets = prop::option::of((1..=50u8, 1..=50u8));
    let over = (weight(), targets);
    // Targets mean nothing where replicas are kept together.
    let over = over.prop_map(|(weight, targets)| (weight, targets.filter(|_| weight > 0)));
    let hard = (
        seldom(),
        seldom(),
        any::<bool>(),
        seldom(),
        prop::option::weighted(0.15, 1..4u32),
    );
    let soft = (
        towards(),
        towards(),
        towards(),
        prop::option::weighted(0.4, over),
    );
    let gpus = prop_oneof![
        2 => Just((0, None)),
        1 => (1..4u32, prop::option::of(0..2usize)),
    ];
    let some = |most: u64| prop_oneof![2 => Just(0), 1 => 1..most];
    let disks = (some(4000), some(90), some(900));
    let fixed = prop::sample::select(vec![8080, FIRST_PORT + 1]);
    let fixed = prop::option::weighted(0.2, fixed);
    let ports = (fixed, prop_oneof![2 => Just(0), 1 => 1..4u16], seldom());
    let wish = (1..3000u32, 1..4000u64, disks, gpus, ports, hard, soft).prop_map(
        |(millicores, mib, disks, gpus, ports, hard, soft)| Wish {
            fixed_port: ports.0,
            free_ports: ports.1,
            in_datacenter_x: ports.2,
            millicores,
            mib,
            disk_mib: disks.0,
            disk_rate: disks.1,
            pids: u32::try_from(disks.2).unwrap(),
            gpus: gpus.0,
            gpus_of: gpus.1,
            on_ssd: hard.0,
            not_in_a: hard.1,
            tolerates_gpu: hard.2,
            distinct_hosts: hard.3,
            most_in_rack: hard.4,
            towards_ssd: soft.0,
            towards_rack_b: soft.1,
            towards_large: soft.2,
            spread: soft.3,
        },
    );
    prop::collection::vec(wish, 3)
}

pub(super) fn node(number: usize) -> Name {
    name(&format!("n{number:03}"))
}

/// The machine as the scheduler sees it.
pub(super) fn room(number: usize, machine: &Machine) -> Room {
    let mut record = node_record(node(number), info(machine.cores, machine.gib));
    let mut label = |key: &str, value: &str| {
        record.info.labels.insert(key.to_owned(), value.to_owned());
    };
    label("disk", if machine.ssd { "ssd" } else { "hdd" });
    if let Some(rack) = machine.rack {
        label("rack", rack);
    }
    record.info.datacenter = machine.datacenter.map(str::to_owned);
    if !machine.runs_processes {
        record.info.drivers = vec![DriverKind::Docker];
    }
    let capacity = &mut record.info.capacity;
    (capacity.ports_from, capacity.ports_to) = (FIRST_PORT, machine.last_port);
    capacity.disk = Bytes::mib(machine.disk_gib * 1024);
    capacity.disk_rate = machine.disk_rate.map(Bytes::mib);
    capacity.pids = machine.pids;
    for (kind, count) in machine.gpus.into_iter().enumerate() {
        record.info.capacity.gpus.extend((0..count).map(|id| Gpu {
            name: name(GPU_NAMES[kind]),
            id: format!("{kind}-{id}"),
        }));
    }
    let taint = |effect| Taint {
        key: "gpu".to_owned(),
        value: None,
        effect,
        after: Millis(0),
        by: "anna".to_owned(),
        at: at(0),
    };
    match machine.taint {
        GpuTaint::None => {}
        GpuTaint::PreferNot => record.taints.push(taint(TaintEffect::PreferNot)),
        GpuTaint::NoSchedule => record.taints.push(taint(TaintEffect::NoSchedule)),
    }
    match machine.standing {
        Standing::Up => {}
        Standing::Down => record.status = NodeStatus::Down,
        Standing::Draining => {
            record.drain = Some(Drain {
                by: "anna".to_owned(),
                reason: None,
                at: at(0),
                deadline: None,
                runs: 0,
                done_at: None,
            });
        }
    }
    Room {
        measured_cpu: u64::from(machine.cores) * 10 * u64::from(machine.busy),
        ..Room::of(&Arc::new(record), None)
    }
}

/// What the wish needs.
pub(super) fn request(wish: &Wish, task: &TaskSpec) -> Request {
    let datacenters = wish.in_datacenter_x.then(|| "x".to_owned());
    Request {
        datacenters: datacenters.into_iter().collect(),
        ..Request::of(task)
    }
}

/// The wish as a job file says it.
pub(super) fn task(wish: &Wish) -> TaskSpec {
    let mut task = asking(wish.millicores, wish.mib);
    task.resources.disk = Bytes::mib(wish.disk_mib);
    task.resources.disk_rate = (wish.disk_rate > 0).then(|| Bytes::mib(wish.disk_rate));
    task.resources.pids = (wish.pids > 0).then_some(wish.pids);
    let named = wish.gpus_of.map(|kind| (name(GPU_NAMES[kind]), wish.gpus));
    task.resources.gpus = (wish.gpus > 0).then(|| {
        Box::new(Gpus {
            any: if named.is_some() { 0 } else { wish.gpus },
            named: named.into_iter().collect(),
        })
    });
    let mut port = |called: String, host: Option<u16>| {
        let port = PortSpec {
            port: None,
            host,
            protocol: Protocol::Tcp,
        };
        task.ports.insert(name(&called), port);
    };
    if let Some(host) = wish.fixed_port {
        port("fixed".to_owned(), Some(host));
    }
    for number in 0..wish.free_ports {
        port(format!("free-{number}"), None);
    }
    let constraint = |line: &str| line.parse::<Constraint>().unwrap();
    let mut hard = |is_so: bool, line: &str| {
        task.constraints.extend(is_so.then(|| constraint(line)));
    };
    hard(wish.on_ssd, "node.label.disk == ssd");
    hard(wish.not_in_a, "node.label.rack != a");
    hard(wish.distinct_hosts, "distinct_hosts");
    let most = wish.most_in_rack.unwrap_or(1);
    let in_rack = format!("node.label.rack distinct_property {most}");
    hard(wish.most_in_rack.is_some(), &in_rack);
    let mut towards = |weight: Option<i8>, line: &str| {
        let Some(weight) = weight else { return };
        let predicate = line.parse().unwrap();
        task.affinities.push(Affinity { predicate, weight });
    };
    towards(wish.towards_ssd, "node.label.disk == ssd");
    towards(wish.towards_rack_b, "node.label.rack regexp ^b$");
    towards(wish.towards_large, &format!("cpu >= {LARGE}"));
    if let Some((weight, targets)) = wish.spread {
        let targets = targets.into_iter();
        let targets = targets.flat_map(|(a, b)| [("a".to_owned(), a), ("b".to_owned(), b)]);
        task.spread.push(SpreadOver {
            over: Attribute::Label("rack".to_owned()),
            weight,
            targets: targets.collect(),
        });
    }
    if wish.tolerates_gpu {
        task.tolerations.push(Toleration {
            key: Some("gpu".to_owned()),
            ..Toleration::default()
        });
    }
    task
}
