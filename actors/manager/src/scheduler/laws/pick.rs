//! Of one choice after the other: whatever was placed and ended before, it is the oracle's.

use std::collections::BTreeMap;
use std::sync::Arc;

use loom_schemas::ids::Name;
use loom_schemas::record::{Bias, Drain, Gpu, NodeStatus, Score, Taint};
use loom_schemas::spec::{Affinity, Attribute, Constraint, Gpus, SpreadOver, TaskSpec, Toleration};
use loom_schemas::units::Millis;
use loom_schemas::words::{Strategy, TaintEffect};
use proptest::prelude::{Just, Strategy as _, any, prop, prop_assert, prop_assert_eq, prop_oneof};
use proptest::proptest;

use super::asking;
use super::oracle::{
    GPU_NAMES, GpuTaint, LARGE, MIB, Machine, Place, Standing, Wish, Worth, judge,
};
use crate::scheduler::{
    Affinities, Cluster, Placement, Preferences, Request, Room, Siblings, WhyNot,
};
use crate::state::fixture::{at, cases, info, name, node_record, run_id};

const STRATEGIES: [Strategy; 5] = [
    Strategy::Epvm,
    Strategy::Binpack,
    Strategy::Spread,
    Strategy::Balanced,
    Strategy::RoundRobin,
];

fn machines() -> impl proptest::strategy::Strategy<Value = Vec<Machine>> {
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
    let size = (1..9u32, 1..17u64, gpus);
    let machine = (size, rack, any::<bool>(), taint, standing, busy);
    let machine = machine.prop_map(|(size, rack, ssd, taint, standing, busy)| Machine {
        cores: size.0,
        gib: size.1,
        gpus: size.2,
        rack,
        ssd,
        taint,
        standing,
        busy,
        used: [0; 2],
        used_gpus: [0; 2],
    });
    // Sets of nodes are kept 64 by 64.
    let few = prop::collection::vec(machine.clone(), 1..40);
    prop_oneof![6 => few, 1 => prop::collection::vec(machine, 60..140)]
}

fn wishes() -> impl proptest::strategy::Strategy<Value = Vec<Wish>> {
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
    let wish = (1..3000u32, 1..4000u64, gpus, hard, soft).prop_map(
        |(millicores, mib, gpus, hard, soft)| Wish {
            millicores,
            mib,
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

/// A run of one of a few kinds is placed, or one that was placed ends.
#[derive(Clone, Debug)]
enum Step {
    Place {
        kind: usize,
        /// Where the slot failed lately, once for each time.
        failed: Vec<usize>,
        /// It takes over from a run of this kind that is still there.
        replaces: Option<prop::sample::Index>,
    },
    End(prop::sample::Index),
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let failed = prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(0..40usize, 1..4)];
    let replaces = prop::option::weighted(0.2, any::<prop::sample::Index>());
    let place = (0..3usize, failed, replaces).prop_map(|(kind, failed, replaces)| Step::Place {
        kind,
        failed,
        replaces,
    });
    let end = any::<prop::sample::Index>().prop_map(Step::End);
    prop::collection::vec(prop_oneof![4 => place, 1 => end], 1..60)
}

fn node(number: usize) -> Name {
    name(&format!("n{number:03}"))
}

/// The machine as the scheduler sees it.
fn room(number: usize, machine: &Machine) -> Room {
    let mut record = node_record(node(number), info(machine.cores, machine.gib));
    let mut label = |key: &str, value: &str| {
        record.info.labels.insert(key.to_owned(), value.to_owned());
    };
    label("disk", if machine.ssd { "ssd" } else { "hdd" });
    if let Some(rack) = machine.rack {
        label("rack", rack);
    }
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

/// The wish as a job file says it.
fn task(wish: &Wish) -> TaskSpec {
    let mut task = asking(wish.millicores, wish.mib);
    let named = wish.gpus_of.map(|kind| (name(GPU_NAMES[kind]), wish.gpus));
    task.resources.gpus = (wish.gpus > 0).then(|| {
        Box::new(Gpus {
            any: if named.is_some() { 0 } else { wish.gpus },
            named: named.into_iter().collect(),
        })
    });
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

/// What happened so far, by the oracle's books and in two clusters that were told the same.
struct World {
    strategy: Strategy,
    machines: Vec<Machine>,
    wishes: Vec<Wish>,
    tasks: Vec<TaskSpec>,
    /// Node, kind and gpus of each live run.
    live: Vec<(usize, usize, Vec<Gpu>)>,
    /// The second had its nodes named in another order.
    clusters: [Cluster; 2],
    /// By kind, for each of the clusters.
    siblings: Vec<[Siblings; 2]>,
    placed: u64,
}

impl World {
    fn of(strategy: Strategy, machines: Vec<Machine>, wishes: Vec<Wish>, turn: usize) -> Self {
        let rooms = machines.iter().enumerate();
        let rooms = rooms.map(|(number, machine)| (node(number), room(number, machine)));
        let rooms: Vec<(Name, Room)> = rooms.collect();
        let mut turned = rooms.clone();
        turned.rotate_left(turn);
        Self {
            strategy,
            clusters: [rooms, turned].map(|rooms| Cluster::new(rooms, strategy, None)),
            siblings: wishes.iter().map(|_| Default::default()).collect(),
            tasks: wishes.iter().map(task).collect(),
            wishes,
            machines,
            live: Vec::new(),
            placed: 0,
        }
    }

    fn count(&mut self, number: usize, kind: usize, gpus: &[Gpu], comes: bool) {
        let wish = &self.wishes[kind];
        let asked = [u64::from(wish.millicores), wish.mib * MIB];
        for (used, asked) in self.machines[number].used.iter_mut().zip(asked) {
            *used = if comes { *used + asked } else { *used - asked };
        }
        for gpu in gpus {
            let kind = GPU_NAMES
                .iter()
                .position(|known| gpu.name.as_str() == *known);
            let used = &mut self.machines[number].used_gpus[kind.unwrap()];
            *used = if comes { *used + 1 } else { *used - 1 };
        }
    }

    fn end(&mut self, which: usize) {
        let (number, kind, gpus) = self.live.swap_remove(which);
        let request = Request::of(&self.tasks[kind]);
        for cluster in &mut self.clusters {
            cluster.give_back(&node(number), &request, &BTreeMap::new(), &gpus);
        }
        self.count(number, kind, &gpus, false);
        // The next pass counts the replicas afresh.
        let left = self.live.iter().filter(|(_, of, _)| *of == kind);
        let left: Vec<Name> = left.map(|(number, ..)| node(*number)).collect();
        self.siblings[kind] = [(); 2].map(|()| left.iter().collect());
    }

    /// What each of the clusters says.
    fn place(
        &mut self,
        kind: usize,
        failed: &[usize],
        own: Option<usize>,
    ) -> [Result<Placement, WhyNot>; 2] {
        self.placed += 1;
        let failed: Vec<Name> = failed.iter().map(|number| node(*number)).collect();
        let own = own.map(node);
        let task = &self.tasks[kind];
        let (request, affinities) = (Request::of(task), Affinities::of(task));
        let both = self.clusters.iter_mut().zip(&mut self.siblings[kind]);
        let said = both.map(|(cluster, siblings)| {
            let mut preferences = Preferences {
                siblings: Some(siblings),
                failed: &failed,
                affinities: affinities.clone(),
                spread: &task.spread,
                own: own.as_ref(),
                ..Preferences::default()
            };
            cluster.place(task, &request, run_id(self.placed), &mut preferences)
        });
        let said: Vec<_> = said.collect();
        said.try_into().unwrap()
    }

    fn judge(
        &self,
        kind: usize,
        failed: &[usize],
        own: Option<usize>,
    ) -> Vec<Result<Worth, String>> {
        let places = self.machines.iter().enumerate().map(|(number, machine)| {
            let here = self
                .live
                .iter()
                .filter(|run| (run.0, run.1) == (number, kind));
            let failures = failed.iter().filter(|failed| **failed == number);
            Place {
                machine,
                replicas: u32::try_from(here.count()).unwrap(),
                own: own == Some(number),
                failures: u8::try_from(failures.count()).unwrap(),
            }
        });
        judge(
            self.strategy,
            &self.wishes[kind],
            &places.collect::<Vec<_>>(),
        )
    }
}

proptest! {
    #![proptest_config(cases(256))]

    /// The pick fits; no node is better by the oracle; the runners-up are the next best, with their
    /// costs and why; an error only if none fits, and its counts are the oracle's, cause by cause,
    /// and add up; shuffled nodes give the same. For every strategy, on nodes with labels, taints,
    /// drains and other programs, with constraints, affinities, spreads, replicas and failures.
    #[test]
    fn the_pick_is_the_best_that_fits(
        strategy in prop::sample::select(&STRATEGIES[..]),
        machines in machines(),
        wishes in wishes(),
        steps in steps(),
        turn in any::<prop::sample::Index>(),
    ) {
        let turn = turn.index(machines.len());
        let mut world = World::of(strategy, machines, wishes, turn);
        for step in steps {
            let (kind, failed, replaces) = match step {
                Step::Place { kind, failed, replaces } => (kind, failed, replaces),
                Step::End(which) => {
                    if !world.live.is_empty() {
                        world.end(which.index(world.live.len()));
                    }
                    continue;
                }
            };
            let of_kind = world.live.iter().filter(|(_, of, _)| *of == kind);
            let of_kind: Vec<usize> = of_kind.map(|(number, ..)| *number).collect();
            let own = replaces.filter(|_| !of_kind.is_empty());
            let own = own.map(|which| of_kind[which.index(of_kind.len())]);
            let judged = world.judge(kind, &failed, own);
            let [placed, shuffled] = world.place(kind, &failed, own);
            prop_assert_eq!(&placed, &shuffled, "shuffled");
            let mut order: Vec<(Name, &Worth)> = Vec::new();
            let mut refused: BTreeMap<String, usize> = BTreeMap::new();
            for (number, worth) in judged.iter().enumerate() {
                match worth {
                    Ok(worth) => order.push((node(number), worth)),
                    Err(cause) => *refused.entry(cause.clone()).or_default() += 1,
                }
            }
            let rank = |worth: &Worth| (worth.failures, worth.shunned);
            order.sort_by(|(a, x), (b, y)| {
                rank(x).cmp(&rank(y)).then(x.cost.total_cmp(&y.cost)).then(a.cmp(b))
            });
            let placed = match placed {
                Ok(placed) => placed,
                Err(why) => {
                    prop_assert!(order.is_empty(), "{} fit: {why}", order.len());
                    let said = why.counts.iter().map(|(cause, count)| (cause.to_string(), *count));
                    prop_assert_eq!(said.collect::<BTreeMap<_, _>>(), refused);
                    continue;
                }
            };
            let told = [(&placed.node, placed.score, placed.bias)];
            let next = placed.runners_up.iter().map(|next| (&next.node, next.score, next.bias));
            let told: Vec<(&Name, Score, Bias)> = told.into_iter().chain(next).collect();
            if strategy != Strategy::RoundRobin {
                prop_assert_eq!(told.len(), order.len().min(3), "all there are, up to three");
            }
            for (place, (chosen, score, bias)) in told.into_iter().enumerate() {
                let found = order.iter().find(|(other, _)| other == chosen);
                let (_, worth) = found.expect("it fits");
                let best = order[place].1;
                prop_assert_eq!(rank(worth), rank(best), "{} in {:?}", chosen, order);
                // The oracle counts its own way, so last digits differ.
                let near = |a: f64, b: f64| (a - b).abs() <= b.abs() * 1e-9 + 1e-11;
                prop_assert!(near(worth.cost, best.cost), "{chosen} {worth:?}, not {order:?}");
                prop_assert!(near(score.0, worth.cost), "{score:?} is told, {worth:?} meant");
                prop_assert_eq!((bias.failures, bias.shunned), rank(worth));
                prop_assert_eq!(i32::from(bias.points), worth.points, "{} {:?}", chosen, worth);
            }
            let number: usize = placed.node.as_str()[1..].parse().unwrap();
            let wish = &world.wishes[kind];
            prop_assert_eq!(placed.gpus.len(), wish.gpus as usize, "as many as asked for");
            for gpu in &placed.gpus {
                let of_name = wish.gpus_of.is_none_or(|of| gpu.name.as_str() == GPU_NAMES[of]);
                let here = world.live.iter().filter(|run| run.0 == number);
                let held = here.flat_map(|run| &run.2).any(|held| held == gpu);
                let listed = placed.gpus.iter().filter(|other| *other == gpu).count();
                prop_assert!(of_name && !held && listed == 1, "{gpu} of {:?}", placed.gpus);
            }
            world.count(number, kind, &placed.gpus, true);
            world.live.push((number, kind, placed.gpus));
        }
    }
}
