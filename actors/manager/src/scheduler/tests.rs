use std::collections::BTreeMap;
use std::sync::Arc;

use loom_schemas::ids::Name;
use loom_schemas::spec::{Gpus, PortSpec, Protocol, SimScript, TaskSpec};
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::words::{DriverKind, Strategy};
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::state::fixture::{info, name, run_id, task, with_nodes};
use crate::state::{Held, State};

const GIB: u64 = 1024 * 1024 * 1024;

/// cpu capacity and use in cores, memory capacity and use in GiB.
fn room(cpu: (u32, f64), memory: (u64, u64)) -> Room {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small numbers"
    )]
    let used = (cpu.1 * 1000.0) as u64;
    Room {
        datacenter: None,
        attributes: Attributes::default(),
        up: true,
        drivers: vec![DriverKind::Process],
        capacity: info(cpu.0, memory.0).capacity,
        held: Held {
            cpu: used,
            memory: memory.1 * GIB,
            ..Held::default()
        },
        measured_cpu: 0,
        ports: imbl::OrdMap::new(),
        gpus: imbl::OrdMap::new(),
        kept_gpus: Gpus::default(),
    }
}

fn place(cluster: &mut Cluster, task: &TaskSpec, number: u64) -> Result<Name, WhyNot> {
    let request = Request::of(task);
    let placed = cluster.place(task, &request, run_id(number), &mut Preferences::default());
    placed.map(|placement| placement.node)
}

/// The cost as the paper has it, apart from how the scheduler counts.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn epvm(machines: usize, room: &Room, request: &Request) -> f64 {
    let n = machines.max(2) as f64;
    let dimensions = [
        (
            room.held.cpu,
            request.amounts.cpu,
            u64::from(room.capacity.cpu.0),
        ),
        (
            room.held.memory,
            request.amounts.memory,
            room.capacity.memory.0,
        ),
    ];
    let cost = |(used, asked, all): (u64, u64, u64)| {
        let (used, asked, all) = (used as f64, asked as f64, all as f64);
        n.powf((used + asked) / all) - n.powf(used / all)
    };
    dimensions.into_iter().map(cost).sum()
}

#[test]
fn epvm_costs_what_its_authors_say() {
    let rooms = [
        room((4, 1.0), (8, 2)),
        room((8, 6.0), (16, 4)),
        room((4, 0.5), (8, 6)),
    ];
    let request = Request::of(&task(1));
    for (machines, expected) in [
        (3, [0.609_706, 0.429_090, 0.698_151]),
        (100, [9.298_858, 25.666_043, 28.456_490]),
    ] {
        for (room, expected) in rooms.iter().zip(expected) {
            let ln_n = score::ln(machines);
            let standing = score::Standing::of(ln_n, room);
            let terms = score::Terms::of(ln_n, &request, &room.all());
            for cost in [
                score::cost(Strategy::Epvm, &standing, &terms),
                epvm(machines, room, &request),
            ] {
                assert!((cost - expected).abs() < 1e-6, "{cost} {expected}");
            }
        }
    }
}

#[test]
fn each_strategy_picks_its_own_node() {
    let nodes = || {
        [
            (name("a"), room((4, 1.0), (8, 2))),
            (name("b"), room((8, 6.0), (16, 12))),
            (name("c"), room((4, 0.5), (8, 1))),
        ]
    };
    let picks = |strategy| {
        let mut cluster = Cluster::new(nodes(), strategy, Some(name("b")));
        place(&mut cluster, &task(1), 1).unwrap()
    };
    assert_eq!(picks(Strategy::Binpack), name("b"));
    assert_eq!(picks(Strategy::Spread), name("c"));
    assert_eq!(picks(Strategy::Epvm), name("b"));
    assert_eq!(picks(Strategy::RoundRobin), name("c"));
}

#[test]
fn round_robin_goes_on_after_the_last_and_begins_again() {
    let state = with_nodes(3, 4);
    let mut cluster = Cluster::of(&state, Strategy::RoundRobin);
    let picks: Vec<_> = (0..4)
        .map(|n| place(&mut cluster, &task(1), n).unwrap().to_string())
        .collect();
    assert_eq!(picks, ["node-1", "node-2", "node-3", "node-1"]);
}

#[test]
fn replicas_keep_apart_and_a_failed_node_is_the_last_choice() {
    let state = with_nodes(2, 8);
    let task = task(2);
    let request = Request::of(&task);
    let replicas = name("node-1");
    for strategy in [Strategy::Epvm, Strategy::Binpack, Strategy::Spread] {
        for (failed, expected) in [(vec![], "node-2"), (vec![(name("node-2"), 1)], "node-1")] {
            let mut cluster = Cluster::of(&state, strategy);
            let mut siblings: Siblings = [&replicas].into_iter().collect();
            let mut preferences = Preferences {
                siblings: Some(&mut siblings),
                failed: &failed,
                ..Preferences::default()
            };
            let placed = cluster.place(&task, &request, run_id(1), &mut preferences);
            assert_eq!(placed.unwrap().node, name(expected), "{strategy}");
        }
    }
}

#[test]
fn refusals_are_counted_by_cause_and_add_up() {
    let mut down = room((4, 0.0), (8, 0));
    down.up = false;
    let nodes = [
        (name("a"), room((4, 0.0), (8, 8))),
        (name("b"), room((4, 0.0), (8, 8))),
        (name("c"), down),
        (name("d"), room((4, 4.0), (8, 0))),
    ];
    let mut cluster = Cluster::new(nodes, Strategy::Epvm, None);
    let why = place(&mut cluster, &task(1), 1).unwrap_err();
    assert_eq!(
        why.to_string(),
        "no node fits: 2 not enough memory, 1 down, 1 not enough cpu"
    );
    let mut nothing = Cluster::of(&State::default(), Strategy::Epvm);
    let why = place(&mut nothing, &task(1), 1).unwrap_err();
    assert_eq!(why.to_string(), "no node fits: there are no nodes");
    let mut sim = task(1);
    sim.sim = Some(loom_schemas::spec::SimScript::default());
    let mut cluster = Cluster::of(&with_nodes(1, 4), Strategy::Epvm);
    let why = place(&mut cluster, &sim, 1).unwrap_err();
    assert_eq!(why.to_string(), "no node fits: 1 no sim driver");
}

fn with_ports(fixed: &[u16], free: usize) -> TaskSpec {
    let mut task = task(1);
    task.resources.cpu = MilliCores(1);
    task.resources.memory = Bytes(1);
    let hosts = fixed
        .iter()
        .map(|port| Some(*port))
        .chain(std::iter::repeat_n(None, free));
    for (at, host) in hosts.enumerate() {
        let port = PortSpec {
            port: None,
            host,
            protocol: Protocol::Tcp,
        };
        task.ports.insert(name(&format!("p{at}")), port);
    }
    task
}

#[test]
fn ports_are_a_resource() {
    let mut cluster = Cluster::of(&with_nodes(1, 4), Strategy::Epvm);
    let fixed = with_ports(&[80, 20003], 0);
    assert!(place(&mut cluster, &fixed, 1).is_ok());
    let why = place(&mut cluster, &fixed, 2).unwrap_err();
    assert_eq!(why.to_string(), "no node fits: 1 port 80 taken");
    // Of the ten ports of the range one is fixed by now.
    assert!(place(&mut cluster, &with_ports(&[], 9), 3).is_ok());
    let why = place(&mut cluster, &with_ports(&[], 1), 4).unwrap_err();
    assert_eq!(why.to_string(), "no node fits: 1 no free ports");
    let why = place(&mut cluster, &with_ports(&[20001], 0), 5).unwrap_err();
    assert_eq!(why.to_string(), "no node fits: 1 port 20001 taken");
}

#[test]
fn ports_of_a_run_are_its_own() {
    let room = room((4, 0.0), (8, 0));
    for number in [0, 7, 9, u64::from(u32::MAX)] {
        let task = with_ports(&[20004], 9);
        let ports = choose_ports(&room, &task, run_id(number)).unwrap();
        let different: std::collections::BTreeSet<u16> = ports.values().copied().collect();
        assert_eq!(different, (20000..=20009).collect());
    }
}

proptest! {
    #![proptest_config(crate::state::fixture::cases(256))]

    /// The pick fits, none is cheaper by an oracle that looks at every node afresh, and the order
    /// in which nodes are named makes no difference.
    #[test]
    fn the_pick_fits_and_none_is_better(
        shapes in prop::collection::vec((1..9u32, 0..9u32, 1..17u64, 0..17u64), 1..8),
        asks in prop::collection::vec((1..3000u32, 1..4u64), 1..12),
        turn in any::<prop::sample::Index>(),
    ) {
        let nodes: Vec<_> = shapes.iter().enumerate().map(|(at, (cores, used, gib, held))| {
            let used = (*used).min(*cores);
            (name(&format!("n{at}")), room((*cores, f64::from(used)), (*gib, *held.min(gib))))
        }).collect();
        let mut turned = nodes.clone();
        turned.rotate_left(turn.index(nodes.len()));
        let mut cluster = Cluster::new(nodes.clone(), Strategy::Epvm, None);
        let mut other = Cluster::new(turned, Strategy::Epvm, None);
        let mut rooms: BTreeMap<Name, Room> = nodes.into_iter().collect();
        for (number, (cpu, gib)) in asks.into_iter().enumerate() {
            let mut task = task(1);
            task.resources.cpu = MilliCores(cpu);
            task.resources.memory = Bytes(gib * GIB);
            let request = Request::of(&task);
            let costs: BTreeMap<Name, f64> = rooms
                .iter()
                .filter(|(_, room)| {
                    room.held.cpu + request.amounts.cpu <= u64::from(room.capacity.cpu.0)
                        && room.held.memory + request.amounts.memory <= room.capacity.memory.0
                })
                .map(|(name, room)| (name.clone(), epvm(rooms.len(), room, &request)))
                .collect();
            let least = costs.values().copied().reduce(f64::min);
            let number = u64::try_from(number).unwrap();
            let picked = place(&mut cluster, &task, number);
            prop_assert_eq!(&picked, &place(&mut other, &task, number));
            match (picked, least) {
                (Ok(node), Some(least)) => {
                    // The oracle counts otherwise, so its last digits are others.
                    prop_assert!(costs[&node] <= least * (1.0 + 1e-9), "{costs:?} {node}");
                    let room = rooms.get_mut(&node).unwrap();
                    room.held.cpu += request.amounts.cpu;
                    room.held.memory += request.amounts.memory;
                }
                (Err(why), None) => prop_assert_eq!(why.counts.values().sum::<usize>(), rooms.len()),
                (picked, least) => panic!("{picked:?} {least:?}"),
            }
        }
    }
}

#[test]
fn a_task_goes_only_where_its_output_may_go() {
    let mut task = task(1);
    task.logs.to = Some("/var/log/app/web-${task.index}.log".to_owned());
    let request = Request::of(&task);
    let lets = |dirs: &[&str]| {
        let mut node = (**with_nodes(1, 8).nodes().next().unwrap()).clone();
        node.info.log_dirs = dirs.iter().map(ToString::to_string).collect();
        fits(&Room::of(&Arc::new(node), None), &request)
    };
    for dirs in [&["/var/log"][..], &["/srv", "/var/log/app/"], &["/"]] {
        assert_eq!(lets(dirs), Ok(()), "{dirs:?}");
    }
    for dirs in [&[][..], &["/var/log/other", "/var/lo"]] {
        let why = lets(dirs).unwrap_err().to_string();
        assert_eq!(why, "no --log-dir for /var/log/app/web-${task.index}.log");
    }
    // A task that only plays has no output.
    task.sim = Some(SimScript::default());
    assert_eq!(Request::of(&task).output, None);
}
