//! System jobs: a slot of each task on every node that matches, pure.
//!
//! What is wanted of a system job stands in its slots: a node that matches gets one as soon as it is
//! up, and loses it when it matches no more, or is gone and its run given up. So nothing else has to
//! know which nodes there are, and a slot that is there is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use loom_schemas::ids::{Index, Name, Slot};
use loom_schemas::record::{JobRecord, NodeRecord, NodeStatus, Order, SlotRecord, Wanted};
use loom_schemas::spec::{JobSpec, TaskSpec};
use loom_schemas::words::Kind;

use crate::plan::empty_slot;
use crate::reconcile::{Leave, leave_of};
use crate::scheduler::{Attributes, Request, Rule};
use crate::state::{Draft, Key, State, live_runs};

/// Brings the slots of a system job to the nodes there are, at most `limit` of them; how many were
/// to be changed.
pub fn follow(draft: &mut Draft, job: &Name, limit: usize, now: Timestamp) -> usize {
    let state = draft.state().clone();
    let found = state.job(job).and_then(|job| Some((job, state.spec(job)?)));
    let Some((job, spec)) = found.filter(|(_, spec)| spec.kind == Kind::System) else {
        return 0;
    };
    if job.status.is_terminal() || job.wanted != Wanted::Run {
        return 0;
    }
    let changes = changes(&state, job, spec, now);
    let count = changes.len();
    for change in changes.into_iter().take(limit) {
        match change {
            Change::Add(slot) => draft.put_slot(empty_slot(slot)),
            Change::Stop(record) => draft.put_slot(*record),
            Change::Remove(slot) => draft.delete(Key::Slot(slot)),
        }
    }
    count
}

enum Change {
    Add(Slot),
    /// Its run shall end.
    Stop(Box<SlotRecord>),
    Remove(Slot),
}

fn changes(state: &State, job: &JobRecord, spec: &JobSpec, now: Timestamp) -> Vec<Change> {
    let mut changes = Vec::new();
    let wanted: BTreeMap<&Name, Asked<'_>> = spec
        .tasks
        .iter()
        .map(|(name, task)| (name, Asked::of(spec, task)))
        .collect();
    for record in state.slots_of(&job.name) {
        let (Some(node), Some(asked)) = (record.slot.index.node(), wanted.get(&record.slot.task))
        else {
            continue;
        };
        let Some(why) = unwanted(state, asked, node, record, now) else {
            continue;
        };
        if live_runs(record).next().is_none() {
            changes.push(Change::Remove(record.slot.clone()));
        } else if let Some(stopped) = stopped(record, &why) {
            changes.push(Change::Stop(Box::new(stopped)));
        }
    }
    for (name, asked) in &wanted {
        for node in state.nodes() {
            let slot = Slot::at(
                job.name.clone(),
                (*name).clone(),
                Index::Node(node.name.clone()),
            );
            if asked.takes(node) && state.slot(&slot).is_none() {
                changes.push(Change::Add(slot));
            }
        }
    }
    changes
}

/// On how many nodes a task of a system job belongs and has no slot.
pub fn missing(state: &State, spec: &JobSpec, name: &Name) -> usize {
    let Some(task) = spec.tasks.get(name) else {
        return 0;
    };
    let asked = Asked::of(spec, task);
    let nodes = state.nodes();
    let lacks = |node: &&Arc<NodeRecord>| {
        let index = Index::Node(node.name.clone());
        let slot = Slot::at(spec.name.clone(), name.clone(), index);
        asked.takes(node) && state.slot(&slot).is_none()
    };
    nodes.filter(lacks).count()
}

/// What a task of a system job asks of nodes, made ready to be asked of many.
struct Asked<'a> {
    spec: &'a JobSpec,
    task: &'a TaskSpec,
    rules: Vec<Rule>,
}

/// Why a slot has no place any more, in words. One whose node is silent keeps it until its run is
/// given up.
fn unwanted(
    state: &State,
    asked: &Asked<'_>,
    node: &Name,
    record: &SlotRecord,
    now: Timestamp,
) -> Option<String> {
    let Some(node) = state.node(node) else {
        return Some(format!("node {node} is not known any more"));
    };
    let empty = live_runs(record).next().is_none();
    if node.status != NodeStatus::Up && empty {
        return Some(format!("node {} is down", node.name));
    }
    if let Some(why) = asked.mismatch(node) {
        return Some(why);
    }
    let leave = leave_of(node, asked.task);
    if empty {
        let refused = || asked.refused(node);
        return leave.map(|leave| leave.reason).or_else(refused);
    }
    // Others may need it for as long as they are there.
    let last = |leave: &Leave| {
        let drained = node.drain.is_some() && leave.from <= now && is_alone(state, &node.name);
        drained || leave.is_over(now)
    };
    leave.filter(last).map(|leave| leave.reason)
}

/// Whether a node is in one of these datacenters; every node is if there are none.
fn is_within(node: &NodeRecord, datacenters: &[String]) -> bool {
    let here = node.info.datacenter.as_ref();
    datacenters.is_empty() || here.is_some_and(|here| datacenters.contains(here))
}

/// Whether a job may run on a node, whatever room that has; one that is not known is for others to judge.
pub fn may_run_on(state: &State, spec: &JobSpec, node: &Name) -> bool {
    let node = state.node(node);
    node.is_none_or(|node| is_within(node, &spec.datacenters))
}

/// Whether nothing but runs of system jobs is left on a node.
pub fn is_alone(state: &State, node: &Name) -> bool {
    let is_system = |slot: &Arc<Slot>| {
        let spec = state.job(&slot.job).and_then(|job| state.spec(job));
        spec.is_some_and(|spec| spec.kind == Kind::System)
    };
    let load = state.load(node);
    load.is_none_or(|load| load.placements.values().all(is_system))
}

impl<'a> Asked<'a> {
    fn of(spec: &'a JobSpec, task: &'a TaskSpec) -> Self {
        Self {
            spec,
            task,
            rules: Request::of(task).rules,
        }
    }

    /// Whether a run of the task is to begin on a node, whatever room it has.
    fn takes(&self, node: &Arc<NodeRecord>) -> bool {
        let up = node.status == NodeStatus::Up && node.drain.is_none();
        up && self.mismatch(node).is_none() && self.refused(node).is_none()
    }

    /// Why the task does not belong on a node, whatever room it has; none if it does.
    fn mismatch(&self, node: &Arc<NodeRecord>) -> Option<String> {
        let (name, spec) = (&node.name, self.spec);
        if !is_within(node, &spec.datacenters) {
            return Some(format!(
                "node {name} is not in {}",
                spec.datacenters.join(", ")
            ));
        }
        let driver = self.task.driver();
        if !node.info.drivers.contains(&driver) {
            return Some(format!("node {name} has no {driver} driver"));
        }
        let attributes = Attributes::of(node);
        let unlike = self.rules.iter().find(|rule| !rule.holds(&attributes))?;
        Some(format!("node {name} is not {}", unlike.text()))
    }

    /// The taint for which no new run of the task goes to a node, in words.
    fn refused(&self, node: &Arc<NodeRecord>) -> Option<String> {
        let attributes = Attributes::of(node);
        let taint = attributes.refuses(&self.task.tolerations)?;
        Some(format!(
            "node {} is tainted {taint} by {}",
            node.name, taint.by
        ))
    }
}

/// The slot with its run ordered to end; none if it was before.
fn stopped(record: &SlotRecord, why: &str) -> Option<SlotRecord> {
    let mut next = record.clone();
    let runs = next.current.iter_mut().chain(&mut next.incoming);
    for run in runs.filter(|run| run.order == Order::Run) {
        run.order = Order::Stop {
            reason: why.to_owned(),
        };
    }
    (next != *record).then_some(next)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use loom_schemas::record::NodeInfo;
    use loom_schemas::words::{DriverKind, JobStatus, RunState};

    use super::*;
    use crate::decide;
    use crate::plan::{PlanOptions, plan};
    use crate::state::fixture::{
        ANNA, at, counter, decide as edit, hello_of, info, job, name, report_of, submission, task,
    };

    struct World {
        state: State,
        ids: Box<dyn FnMut() -> loom_schemas::ids::RunId>,
    }

    impl World {
        fn new(nodes: &[(&str, NodeInfo)]) -> Self {
            let mut world = Self {
                state: State::default(),
                ids: Box::new(counter()),
            };
            for (node, info) in nodes {
                world.hello(node, info.clone());
            }
            world
        }

        fn hello(&mut self, node: &str, info: NodeInfo) {
            let reports = self.reports(node);
            let hello = hello_of(info, reports);
            let decided = edit(&self.state, |draft| {
                decide::hello(draft, &name(node), &hello, false, at(1));
            });
            self.state = decided.state;
        }

        /// What a node says of its runs: all of them run.
        fn reports(&self, node: &str) -> Vec<loom_schemas::wire::RunReport> {
            let slots = self.state.slots().filter_map(|record| {
                let run = live_runs(record).find(|run| run.node == Some(name(node)))?;
                let mut report = report_of(&record.slot, run.run, RunState::Running);
                report.version = run.version;
                Some(report)
            });
            slots.collect()
        }

        fn submit(&mut self, spec: &JobSpec) {
            self.state = edit(&self.state, |draft| {
                decide::submit(draft, submission(spec), ANNA, at(2)).unwrap();
            })
            .state;
        }

        fn plan(&mut self, now: Timestamp) {
            let options = PlanOptions {
                lost_after: Duration::from_secs(30),
                ..PlanOptions::default()
            };
            for _ in 0..20 {
                let mut more = false;
                let ids = &mut self.ids;
                self.state = edit(&self.state, |draft| {
                    more = plan(draft, now, &options, ids).more;
                })
                .state;
                if !more {
                    return;
                }
            }
            panic!("planning does not settle");
        }

        /// The slots with what is wanted of their runs.
        fn slots(&self) -> Vec<String> {
            let slots = self.state.slots().map(|record| {
                let run = live_runs(record).next();
                let stands = match run.map(|run| &run.order) {
                    Some(Order::Run) => "run",
                    Some(Order::Stop { reason }) => reason,
                    None => record.waiting.as_deref().unwrap_or("nothing"),
                };
                format!("{} {stands}", record.slot)
            });
            slots.collect()
        }
    }

    fn spec() -> JobSpec {
        job("agent", Kind::System, task(1))
    }

    fn in_datacenter(datacenter: &str) -> NodeInfo {
        NodeInfo {
            datacenter: Some(datacenter.to_owned()),
            ..info(4, 8)
        }
    }

    #[test]
    fn it_runs_once_on_every_node_that_matches() {
        let sim = NodeInfo {
            drivers: vec![DriverKind::Sim],
            log_dirs: Vec::new(),
            ..info(4, 8)
        };
        let small = info(0, 8);
        let mut world = World::new(&[
            ("a", info(4, 8)),
            ("b", info(4, 8)),
            ("c", sim),
            ("d", small),
        ]);
        world.submit(&spec());
        world.plan(at(3));
        let expected = [
            "agent/a run",
            "agent/b run",
            "agent/d node d: not enough cpu",
        ];
        assert_eq!(world.slots(), expected);
        let run = live_runs(world.state.slots().next().unwrap())
            .next()
            .unwrap();
        assert_eq!(run.node, Some(name("a")), "the index is where it runs");
    }

    #[test]
    fn it_follows_nodes_that_come_change_and_go() {
        let mut world = World::new(&[("a", in_datacenter("east")), ("b", in_datacenter("west"))]);
        let mut spec = spec();
        spec.datacenters = vec!["east".to_owned()];
        world.submit(&spec);
        world.plan(at(3));
        assert_eq!(world.slots(), ["agent/a run"]);
        world.hello("c", in_datacenter("east"));
        world.plan(at(4));
        assert_eq!(world.slots(), ["agent/a run", "agent/c run"]);
        // Its agent comes back in another datacenter.
        world.hello("a", in_datacenter("west"));
        world.plan(at(5));
        assert_eq!(
            world.slots(),
            ["agent/a node a is not in east", "agent/c run"]
        );
        let slot = Slot::at(name("agent"), Name::main(), name("a").into());
        let mut ended = world.reports("a").remove(0);
        ended.state = RunState::Killed;
        world.state = edit(&world.state, |draft| {
            decide::report(draft, &name("a"), &[ended], false, at(6));
        })
        .state;
        world.plan(at(6));
        assert!(world.state.slot(&slot).is_none());
        assert_eq!(world.slots(), ["agent/c run"]);
    }

    #[test]
    fn a_silent_node_keeps_its_slot_until_its_run_is_given_up() {
        let mut world = World::new(&[("a", info(4, 8)), ("b", info(4, 8))]);
        world.submit(&spec());
        world.plan(at(3));
        world.state = edit(&world.state, |draft| {
            decide::node_down(draft, &name("a"), "silent", at(10));
        })
        .state;
        world.plan(at(20));
        assert_eq!(world.slots(), ["agent/a run", "agent/b run"]);
        world.plan(at(41));
        assert_eq!(world.slots(), ["agent/b run"]);
        let stands = world.state.job(&name("agent")).unwrap().status;
        assert!(!stands.is_terminal(), "{stands}");
        world.hello("a", info(4, 8));
        world.plan(at(50));
        assert_eq!(world.slots(), ["agent/a run", "agent/b run"]);
    }

    #[test]
    fn one_index_is_stopped_by_the_name_of_its_node_and_the_whole_ends_killed() {
        let mut world = World::new(&[("a", info(4, 8)), ("b", info(4, 8))]);
        world.submit(&spec());
        world.plan(at(3));
        let stop = |world: &mut World, address: &str| {
            let request = loom_schemas::wire::JobRequest {
                address: address.parse().unwrap(),
                reason: None,
            };
            world.state = edit(&world.state, |draft| {
                assert!(decide::stop(draft, &request, ANNA, at(1)).unwrap());
            })
            .state;
            world.plan(at(4));
        };
        stop(&mut world, "agent/b");
        assert_eq!(world.slots(), ["agent/a run", "agent/b stopped by anna"]);
        stop(&mut world, "agent");
        for node in ["a", "b"] {
            let mut ended = world.reports(node).remove(0);
            ended.state = RunState::Killed;
            world.state = edit(&world.state, |draft| {
                decide::report(draft, &name(node), &[ended], false, at(6));
            })
            .state;
        }
        world.plan(at(7));
        assert_eq!(
            world.state.job(&name("agent")).unwrap().status,
            JobStatus::Killed
        );
    }

    #[test]
    fn a_service_that_becomes_a_system_job_moves_onto_every_node() {
        let mut world = World::new(&[("a", info(4, 8)), ("b", info(4, 8))]);
        world.submit(&job("agent", Kind::Service, task(1)));
        world.plan(at(3));
        world.submit(&spec());
        world.plan(at(4));
        let slots = world.slots();
        assert_eq!(slots.len(), 3, "{slots:?}");
        assert!(
            slots[0].starts_with("agent/0 ") && !slots[0].ends_with(" run"),
            "{slots:?}"
        );
        assert_eq!(slots[1..], ["agent/a run", "agent/b run"]);
    }
}
