//! What people do to nodes, and what must hold of every placement because of it.

use std::collections::BTreeSet;

use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::NodeRecord;
use loom_schemas::spec::{Constraint, JobSpec, RestartOn, Toleration};
use loom_schemas::wire::{DrainRequest, LabelRequest, NodeRequest, TaintRequest};
use loom_schemas::words::{Kind, TaintEffect};

use super::world::World;
use crate::decide;
use crate::plan::{self, Search};
use crate::state::fixture::{ANNA, name, submission};
use crate::state::live_runs;

/// One thing that somebody does to a node, or asks of nodes.
#[derive(Clone, Copy, Debug)]
pub(super) enum People {
    Drain {
        node: u8,
        deadline: u8,
    },
    Undrain {
        node: u8,
    },
    Taint {
        node: u8,
        effect: u8,
        after: u8,
    },
    Untaint {
        node: u8,
    },
    Label {
        node: u8,
        value: u8,
    },
    /// Runs are to go where they cost less, or no further ones.
    Rebalance {
        margin: u8,
        at_once: u8,
        stop: bool,
    },
    /// A job that asks for nodes.
    Submit {
        job: u8,
        replicas: u8,
        variant: u8,
    },
}

impl People {
    pub(super) fn of(number: [u8; 4]) -> Self {
        let [kind, a, b, c] = number;
        let node = a % 3;
        match kind % 16 {
            0..=3 => Self::Drain {
                node,
                deadline: b % 120,
            },
            4 | 5 => Self::Undrain { node },
            6..=8 => Self::Taint {
                node,
                effect: b,
                after: c % 100,
            },
            9 => Self::Untaint { node },
            10 | 11 => Self::Label { node, value: b % 2 },
            12 => Self::Rebalance {
                margin: b % 40 + 1,
                at_once: c % 3 + 1,
                stop: a >= 224,
            },
            _ => Self::Submit {
                job: a % 2,
                // As many as wait and are tried again in one pass of these worlds.
                replicas: b % 3,
                variant: c,
            },
        }
    }
}

/// What a job of a variant asks of nodes.
fn choosy(mut spec: JobSpec, variant: u8) -> JobSpec {
    for task in spec.tasks.values_mut() {
        let mut ask = |line: &str| task.constraints.push(line.parse::<Constraint>().unwrap());
        match variant % 4 {
            0 => ask("node.label.disk == ssd"),
            1 => ask("distinct_hosts"),
            2 => ask("node.label.disk distinct_property 2"),
            _ => {}
        }
        if variant % 5 == 1 && spec.kind == Kind::Service {
            task.restart.on = RestartOn::Failure;
        }
        if variant.is_multiple_of(3) {
            task.tolerations.push(Toleration {
                key: Some("t".to_owned()),
                ..Toleration::default()
            });
        }
    }
    spec
}

impl World {
    pub(super) fn people(&mut self, what: People) {
        match what {
            People::Drain { node, deadline } => {
                let request = DrainRequest {
                    node: Self::node_name(node),
                    deadline_ms: Some(u64::from(deadline) * 1000),
                    no_deadline: deadline > 60,
                    reason: None,
                };
                self.forced |= deadline <= 60;
                self.decide(|d, now| decide::drain(d, &request, ANNA, now))
                    .unwrap();
            }
            People::Undrain { node } => {
                let request = NodeRequest {
                    node: Self::node_name(node),
                    reason: None,
                };
                self.decide(|d, now| decide::undrain(d, &request, ANNA, now))
                    .unwrap();
            }
            People::Taint {
                node,
                effect,
                after,
            } => {
                let effect = TaintEffect::ALL[usize::from(effect) % 3];
                let evicts = effect == TaintEffect::Evict;
                let request = TaintRequest {
                    node: Self::node_name(node),
                    set: vec![format!("t:{effect}")],
                    remove: Vec::new(),
                    after_ms: evicts.then_some(u64::from(after) * 1000),
                };
                self.forced |= evicts;
                self.decide(|d, now| decide::taint(d, &request, ANNA, now))
                    .unwrap();
            }
            People::Untaint { node } => {
                let request = TaintRequest {
                    node: Self::node_name(node),
                    set: Vec::new(),
                    remove: vec!["t".to_owned()],
                    after_ms: None,
                };
                drop(self.decide(|d, now| decide::taint(d, &request, ANNA, now)));
            }
            People::Label { node, value } => {
                let value = if value == 0 { "ssd" } else { "hdd" };
                let request = LabelRequest {
                    node: Self::node_name(node),
                    set: [("disk".to_owned(), value.to_owned())].into(),
                    remove: Vec::new(),
                };
                self.decide(|d, now| decide::label(d, &request, ANNA, now))
                    .unwrap();
            }
            People::Rebalance {
                margin,
                at_once,
                stop,
            } => self.rebalance(margin, at_once, stop),
            People::Submit {
                job,
                replicas,
                variant,
            } => self.submit(&choosy(Self::spec(job, replicas, variant), variant)),
        }
    }

    fn submit(&mut self, spec: &JobSpec) {
        let submission = submission(spec);
        self.decide(|d, now| decide::submit(d, submission, ANNA, now))
            .unwrap();
    }

    fn rebalance(&mut self, margin_percent: u8, at_once: u8, stop: bool) {
        let search = Search {
            strategy: self.options.strategy,
            margin_percent,
            most: 100,
            looks: plan::LOOKS,
            now: self.now,
        };
        let found = plan::find(&self.state, &search);
        self.decide(|draft, now| {
            if stop {
                plan::stop(draft, "anna", now);
            } else {
                plan::begin(draft, found.moves, u32::from(at_once), "anna", now);
            }
        });
    }

    /// The placements that there are.
    pub(super) fn placements(&self) -> BTreeSet<RunId> {
        let runs = self.state.slots().flat_map(|record| live_runs(record));
        runs.map(|run| run.placement).collect()
    }

    /// What was placed just now is where it may be, by a second reading of the rules.
    pub(super) fn check_placed(&self, before: &BTreeSet<RunId>) {
        for record in self.state.slots() {
            for run in live_runs(record).filter(|run| !before.contains(&run.placement)) {
                let node = self.state.node(run.node.as_ref().unwrap()).unwrap();
                assert!(
                    node.drain.is_none(),
                    "{} was placed on a drained node",
                    record.slot
                );
                let version = self.state.version(&record.slot.job, run.version).unwrap();
                let task = &version.spec.tasks[&record.slot.task];
                let keeps_away = |effect| effect != TaintEffect::PreferNot;
                let tainted = node.taints.iter().any(|taint| keeps_away(taint.effect));
                assert!(
                    !tainted || !task.tolerations.is_empty(),
                    "{} and a taint",
                    record.slot
                );
                let asks: Vec<String> = task.constraints.iter().map(ToString::to_string).collect();
                let asks = |line: &str| asks.iter().any(|ask| ask == line);
                let disk = node.labels.get("disk").map(String::as_str);
                assert!(!asks("node.label.disk == ssd") || disk == Some("ssd"));
                let others = self.others(&record.slot, run.version, before);
                if asks("distinct_hosts") {
                    assert!(
                        others.iter().all(|other| other.name != node.name),
                        "{}",
                        record.slot
                    );
                }
                if asks("node.label.disk distinct_property 2") {
                    let same = others
                        .iter()
                        .filter(|other| other.labels.get("disk") == node.labels.get("disk"));
                    assert!(disk.is_some() && same.count() < 2, "{}", record.slot);
                }
            }
        }
    }

    /// The nodes of the live runs of the other replicas of a task, but for those of other versions
    /// that came in the same pass: they may have come later, and may not ask to be apart.
    fn others(&self, slot: &Slot, version: u32, before: &BTreeSet<RunId>) -> Vec<NodeRecord> {
        let replicas = self.state.slots_of(&slot.job);
        let replicas = replicas.filter(|other| other.slot.task == slot.task && other.slot != *slot);
        let nodes = replicas.flat_map(|other| {
            live_runs(other)
                .filter(|run| run.version == version || before.contains(&run.placement))
                .filter_map(|run| run.node.clone())
                .collect::<Vec<Name>>()
        });
        nodes
            .filter_map(|node| Some(NodeRecord::clone(self.state.node(&node)?)))
            .collect()
    }
}

/// A drain that lets runs go where there is room for them comes to its end by itself.
#[test]
fn a_drained_node_is_empty_in_the_end() {
    let mut world = World::new(loom_schemas::words::Strategy::Epvm);
    for job in [0, 1] {
        world.happen(super::happens::Happens::Submit {
            job,
            replicas: 3,
            variant: 0b1000_0000,
            limits: 0,
        });
    }
    world.settle();
    world.people(People::Drain {
        node: 0,
        deadline: 100,
    });
    world.settle();
    let node = name("node-1");
    let services = world
        .state
        .load(&node)
        .into_iter()
        .flat_map(|load| load.placements.values());
    let left: Vec<String> = services
        .map(ToString::to_string)
        .filter(|slot| slot.starts_with("svc"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}
