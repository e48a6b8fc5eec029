//! Of one choice after the other: whatever was placed and ended before, it is the oracle's.

use std::collections::BTreeMap;

use loom_schemas::ids::Name;
use loom_schemas::record::{Bias, Gpu, Score};
use loom_schemas::spec::TaskSpec;
use loom_schemas::words::Strategy;
use proptest::prelude::{Just, Strategy as _, any, prop, prop_assert, prop_assert_eq, prop_oneof};
use proptest::proptest;

use super::drawn::{machines, node, request, room, task, wishes};
use super::oracle::{FIRST_PORT, GPU_NAMES, Machine, Place, Wish, Worth, judge};
use crate::scheduler::{Affinities, Cluster, Placement, Preferences, Room, Siblings, WhyNot};
use crate::state::fixture::{cases, run_id};

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

/// The gpus and ports of a run.
type Given = (Vec<Gpu>, BTreeMap<Name, u16>);

/// What happened so far, by the oracle's books and in two clusters that were told the same.
struct World {
    strategy: Strategy,
    machines: Vec<Machine>,
    wishes: Vec<Wish>,
    tasks: Vec<TaskSpec>,
    /// Node and kind of each live run, with what it was given.
    live: Vec<(usize, usize, Given)>,
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

    fn count(&mut self, number: usize, kind: usize, (gpus, ports): &Given, comes: bool) {
        for port in ports.values() {
            let used = &mut self.machines[number].used_ports;
            let is_so = if comes {
                used.insert(*port)
            } else {
                used.remove(port)
            };
            assert!(is_so, "port {port} of machine {number} is of two runs");
        }
        let wish = &self.wishes[kind];
        for (used, asked) in self.machines[number].used.iter_mut().zip(wish.amounts()) {
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
        let (number, kind, given) = self.live.swap_remove(which);
        let request = request(&self.wishes[kind], &self.tasks[kind]);
        for cluster in &mut self.clusters {
            cluster.give_back(&node(number), &request, &given.1, &given.0);
        }
        self.count(number, kind, &given, false);
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
        let failed: Vec<(Name, u8)> = failed.iter().map(|number| (node(*number), 1)).collect();
        let own = own.map(node);
        let task = &self.tasks[kind];
        let (request, affinities) = (request(&self.wishes[kind], task), Affinities::of(task));
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
        strategy in prop::sample::select(&Strategy::ALL[..]),
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
                let held = here.flat_map(|run| &run.2.0).any(|held| held == gpu);
                let listed = placed.gpus.iter().filter(|other| *other == gpu).count();
                prop_assert!(of_name && !held && listed == 1, "{gpu} of {:?}", placed.gpus);
            }
            let asked = usize::from(wish.free_ports) + usize::from(wish.fixed_port.is_some());
            prop_assert_eq!(placed.ports.len(), asked, "a port each");
            let last = world.machines[number].last_port;
            for (called, port) in &placed.ports {
                let is_meant = match called.as_str() {
                    "fixed" => Some(*port) == wish.fixed_port,
                    _ => (FIRST_PORT..=last).contains(port),
                };
                prop_assert!(is_meant, "{called} is {port}");
            }
            let given = (placed.gpus, placed.ports);
            world.count(number, kind, &given, true);
            world.live.push((number, kind, given));
        }
    }
}
