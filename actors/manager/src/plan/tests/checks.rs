//! What must hold, at every moment and in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use loom_schemas::ids::{Index, Name, RunId, Slot};
use loom_schemas::record::{
    Health, JobRecord, NodeStatus, Order, RunRecord, SlotRecord, UpdatePhase, Wanted,
};
use loom_schemas::spec::{JobSpec, OnUpdateFailure};
use loom_schemas::wire::{Assigned, RunReport};
use loom_schemas::words::{HealthStatus, JobStatus, Kind, RunState};

use super::world::World;
use crate::depend::Gates;
use crate::plan::{PlanOptions, assignment, plan};
use crate::reconcile::{Stand, replicas, stand, version_of};
use crate::scheduler::{Request, Room, fits, together};
use crate::state::fixture::run_id;
use crate::state::{Draft, Key, State, is_live, live_runs};

impl World {
    pub(super) fn check(&mut self) {
        for record in self.state.slots() {
            let goes_on = |run: &&RunRecord| is_live(run) && run.order == Order::Run;
            let live = record.current.iter().filter(goes_on).count();
            let incoming = record.incoming.iter().filter(goes_on).count();
            assert!(live <= 1 && incoming <= 1, "{}", record.slot);
            let all = || {
                record
                    .current
                    .iter()
                    .chain(&record.incoming)
                    .chain(&record.ended)
            };
            for run in all() {
                let slot = self
                    .named
                    .entry(run.run)
                    .or_insert_with(|| record.slot.clone());
                assert_eq!(*slot, record.slot, "a run is in one slot");
            }
            let mut runs: Vec<RunId> = all().map(|run| run.run).collect();
            let all = runs.len();
            runs.sort();
            runs.dedup();
            assert_eq!(runs.len(), all, "a run is in {} twice", record.slot);
        }
        self.check_surge();
        for node in self.state.nodes() {
            let Some(load) = self.state.load(&node.name) else {
                continue;
            };
            let all = &node.info.capacity;
            for (what, held, all) in [
                ("cpu", load.held.cpu, Some(all.cpu.0.into())),
                ("memory", load.held.memory, Some(all.memory.0)),
                ("disk", load.held.disk, Some(all.disk.0)),
                (
                    "disk rate",
                    load.held.disk_rate,
                    all.disk_rate.map(|it| it.0),
                ),
                ("pids", load.held.pids, all.pids.map(u64::from)),
            ] {
                let within = all.is_none_or(|all| held <= all);
                assert!(within, "{what} of {}", node.name);
            }
            assert!(
                load.ports.values().all(|count| *count == 1),
                "a port is held twice"
            );
        }
    }

    /// Of a gang of which nothing went on, nothing does or all that has something left to do.
    pub(super) fn check_gangs(&self, before: &State) {
        for job in self.state.jobs() {
            let spec = self.state.spec(job).unwrap();
            let task = &spec.tasks[&Name::main()];
            let started = |state: &State| {
                let goes_on = |run: &RunRecord| run.order == Order::Run && run.round == job.round;
                let slots = state.slots_of(&job.name);
                let slots = slots.filter(|slot| !state.is_held(&slot.slot));
                slots.filter(|slot| live_runs(slot).any(goes_on)).count()
            };
            if !task.gang || started(before) > 0 || started(&self.state) == 0 {
                continue;
            }
            for index in 0..replicas(job, &Name::main(), task) {
                let slot = Slot::new(job.name.clone(), Name::main(), index);
                let at = (slot.task.clone(), slot.index.clone());
                let record = self.state.slot(&slot);
                let is_over = |slot: &Arc<SlotRecord>| {
                    let task = spec.tasks.get(&slot.slot.task);
                    let stands = task.map(|task| stand(job, spec.kind, task, slot));
                    matches!(stands, Some(Stand::Done | Stand::Failed | Stand::Live))
                };
                let stopped = job.stopped_slots.contains(&at);
                assert!(
                    stopped || record.is_some_and(is_over),
                    "{slot} does not start with its gang"
                );
            }
        }
    }

    /// Never more than the replicas and as many as are replaced at once: at most so many slots have
    /// two runs, or none more than another version had allowed before.
    fn check_surge(&mut self) {
        for job in self.state.jobs() {
            let spec = self.state.spec(job).unwrap();
            let slots = self.state.slots_of(&job.name);
            let doubled = slots.filter(|record| live_runs(record).count() > 1).count();
            let before = self.doubled.insert(job.name.clone(), doubled);
            let most = (spec.update.parallel as usize).max(before.unwrap_or(0));
            assert!(
                doubled <= most,
                "{} has two runs in {doubled} slots, at most {most} may have",
                job.name
            );
        }
    }

    /// The placements that serve now: they run on a node that answers, and are known to be healthy
    /// where their version has them checked; none that checks of any version say is not.
    pub(super) fn serving(&self) -> BTreeSet<RunId> {
        let mut serving = BTreeSet::new();
        for record in self.state.slots() {
            let job = &record.slot.job;
            let checked = |version: u32| {
                let spec = &self.state.version(job, version).unwrap().spec;
                spec.tasks[&record.slot.task].health.is_some()
            };
            let serves = |run: &&RunRecord| {
                let node = self.state.node(run.node.as_ref().unwrap());
                let up = node.is_some_and(|node| node.status == NodeStatus::Up);
                let runs = run.state == RunState::Running && !run.marks.unknown;
                let health = run.health.as_ref().map(|health| health.status);
                let healthy = match health {
                    Some(HealthStatus::Unhealthy) => false,
                    Some(HealthStatus::Healthy) => true,
                    _ => !checked(run.version),
                };
                up && runs && run.order == Order::Run && healthy
            };
            let runs = live_runs(record).filter(serves);
            serving.extend(runs.map(|run| run.placement));
        }
        serving
    }

    /// Planning stops no more of what `served` than leaves the replicas of a service less those
    /// that may be replaced at once; where fewer than that served, it stops none.
    pub(super) fn check_floor(&self, served: &BTreeSet<RunId>) {
        let serving = self.serving();
        for job in self.state.jobs() {
            let spec = self.state.spec(job).unwrap();
            let ends = job.wanted != Wanted::Run || job.status.is_terminal();
            if spec.kind == Kind::Batch || ends {
                continue;
            }
            let wanted = replicas(job, &Name::main(), &spec.tasks[&Name::main()]);
            let is_wanted = |record: &&Arc<SlotRecord>| {
                let at = (record.slot.task.clone(), record.slot.index.clone());
                record.slot.index.number() < Some(wanted) && !job.stopped_slots.contains(&at)
            };
            let slots: Vec<_> = self.state.slots_of(&job.name).filter(is_wanted).collect();
            // Those of an earlier round make room for this one, all together.
            let of_round = |run: &&RunRecord| run.round == job.round;
            let was = |run: &RunRecord| served.contains(&run.placement);
            let was_in = |slot: &SlotRecord| live_runs(slot).filter(of_round).any(was);
            // A version without checks that a run goes on under may be all that was missing.
            let works = |run: &RunRecord| was(run) || serving.contains(&run.placement);
            let stays = |run: &RunRecord| works(run) && run.order == Order::Run;
            let stays_in = |slot: &SlotRecord| live_runs(slot).filter(of_round).any(stays);
            let then = slots.iter().filter(|slot| was_in(slot)).count();
            let now = slots.iter().filter(|slot| stays_in(slot)).count();
            // What no node has room for, what somebody stopped, and what an update that goes on
            // after failures has given up cannot be waited for.
            let given_up = |slot: &SlotRecord| {
                slot.waiting.is_some() || (!was_in(slot) && self.is_given_up(job, spec, slot))
            };
            let there = slots.iter().filter(|slot| !given_up(slot)).count();
            let missing = (wanted as usize).saturating_sub(slots.len());
            let missing = missing.saturating_sub(job.stopped_slots.len());
            let least = (there + missing).saturating_sub(spec.update.parallel as usize);
            let least = least.min(then);
            assert!(
                now >= least,
                "{}: of {then} that served {now} are left, at least {least} have to be",
                job.name
            );
        }
    }

    /// Whether an update that goes on after failures does not wait for a slot any more.
    fn is_given_up(&self, job: &JobRecord, spec: &JobSpec, slot: &SlotRecord) -> bool {
        let late = |run: &RunRecord| {
            let deadline = run.created_at + Duration::from(spec.update.deadline);
            run.version == job.version && deadline <= self.now
        };
        let ended = slot.current.as_ref().is_some_and(|run| !is_live(run));
        let failed = slot.failed_placements > 0 || ended || live_runs(slot).any(late);
        spec.update.on_failure == OnUpdateFailure::Continue && failed
    }

    /// Plans once more over everything: nothing may change.
    pub(super) fn check_planned(&self) {
        let mut state = self.state.clone();
        state.mark_all_dirty();
        let mut draft = Draft::new(state);
        let options = PlanOptions {
            slots: 1000,
            ..self.options.clone()
        };
        let mut ids = || run_id(u64::MAX);
        // Whoever waits for another job is looked at once more after it.
        let mut passes = (0..3).map(|_| plan(&mut draft, self.now, &options, &mut ids));
        assert!(passes.any(|again| !again.more), "planning again goes on");
        let (decided, keys) = draft.finish_unwritten();
        let keys: Vec<Key> = keys
            .into_iter()
            .filter(|key| !only_words(&self.state, &decided.state, key))
            .collect();
        assert_eq!(keys, [], "planning again changes something");
        assert_eq!(decided.events, [], "planning again tells something");
    }

    /// Deltas add up to the whole assignment, beside orders to stop the unknown.
    pub(super) fn check_told(&self) {
        for (node, sim) in &self.nodes {
            let whole: BTreeMap<RunId, Assigned> = assignment(&self.state, node)
                .into_iter()
                .map(|assigned| (assigned.placement, assigned))
                .collect();
            for (placement, assigned) in &whole {
                assert_eq!(sim.told.get(placement), Some(assigned), "told to {node}");
            }
            for (placement, assigned) in &sim.told {
                let stops = assigned.order != Order::Run;
                assert!(
                    whole.contains_key(placement) || stops,
                    "{node} was not told to forget"
                );
            }
        }
    }

    pub(super) fn check_stopped(&self) {
        for job in self.state.jobs() {
            for record in self.state.slots_of(&job.name) {
                for run in live_runs(record) {
                    assert!(
                        !job.status.is_terminal(),
                        "{} runs after its end",
                        record.slot
                    );
                    if job.wanted != Wanted::Run {
                        assert_ne!(run.order, Order::Run, "{} of a stopped job", record.slot);
                    }
                    let wanted = self.wanted(job, &record.slot.task);
                    let is_wanted = record.slot.index.number() < Some(wanted);
                    let goes_on = run.order == Order::Run;
                    assert!(is_wanted || !goes_on, "{} of {wanted}", record.slot);
                }
            }
        }
    }

    /// How many replicas of a task of a job there are to be; none of one that it has no more.
    fn wanted(&self, job: &JobRecord, task: &Name) -> u32 {
        let spec = self.state.spec(job).unwrap();
        let of_task = spec.tasks.get(task);
        of_task.map_or(0, |of_task| replicas(job, task, of_task))
    }

    pub(super) fn quiet(&self) -> bool {
        self.nodes.values().all(|sim| {
            sim.told.iter().all(|(placement, told)| {
                let held = sim.held.get(placement).map(|held| &held.report);
                let checked = told.task.health.is_some();
                let healthy = |report: &RunReport| {
                    report.health.as_ref().is_some_and(Health::is_healthy) == checked
                };
                told.order == Order::Run
                    && held
                        .is_some_and(|report| report.state == RunState::Running && healthy(report))
                    && held.is_some_and(|report| report.limits.hold())
                    && held.is_some_and(|report| report.version == told.version)
            })
        })
    }

    /// Whether the gang that a job is waits, with not enough room for all of it.
    fn waits_whole(&self, job: &JobRecord, spec: &JobSpec) -> bool {
        let slots = || self.state.slots_of(&job.name);
        if !spec.tasks[&Name::main()].gang || slots().any(|slot| live_runs(slot).count() > 0) {
            return false;
        }
        let waiting: Vec<_> = slots().filter(|slot| slot.waiting.is_some()).collect();
        let requests = waiting.iter().map(|slot| {
            let version = match slot.version {
                0 => job.version,
                version => version,
            };
            let spec = &self.state.version(&job.name, version).unwrap().spec;
            Request::of(&spec.tasks[&Name::main()])
        });
        let mut requests: Vec<Request> = requests.collect();
        requests.dedup();
        let [request] = requests.as_slice() else {
            return !waiting.is_empty();
        };
        let rooms = self.state.nodes();
        let rooms: Vec<Room> = rooms
            .map(|node| Room::of(node, self.state.load(&node.name)))
            .collect();
        let (fit, _) = together(&rooms, request, waiting.len());
        assert!(
            fit < waiting.len() || !request.apart.is_empty(),
            "gang {} waits though all of it fits",
            job.name
        );
        true
    }

    /// Every replica that is to be has its slot, of the tasks that may start.
    fn check_there(&self, job: &JobRecord, spec: &JobSpec, gates: &Gates) {
        for task in spec.tasks.keys().filter(|task| !gates.is_closed(task)) {
            let slots = self.state.slots_of_task(&job.name, task);
            let known: BTreeSet<_> = slots.filter_map(|slot| slot.slot.index.number()).collect();
            let stopped = |index| {
                job.stopped_slots
                    .contains(&(task.clone(), Index::Number(index)))
            };
            for index in (0..self.wanted(job, task)).filter(|index| !stopped(*index)) {
                let there = known.contains(&index);
                assert!(there, "{}/{task}/{index} is not there", job.name);
            }
        }
    }

    /// A slot that could be placed is running or done.
    pub(super) fn check_settled(&self) {
        for job in self.state.jobs() {
            let spec = self.state.spec(job).unwrap();
            let wanted = job.wanted == Wanted::Run;
            assert!(
                wanted || job.status == JobStatus::Killed,
                "{} {:?}",
                job.name,
                job.status
            );
            if !wanted || job.status.is_terminal() {
                continue;
            }
            assert!(job.held.is_empty(), "{} is held for good", job.name);
            let gates = Gates::of(&self.state, job, spec);
            if gates.is_closed(&Name::main()) || self.waits_whole(job, spec) {
                continue;
            }
            self.check_there(job, spec, &gates);
            for record in self.state.slots_of(&job.name) {
                let at = (record.slot.task.clone(), record.slot.index.clone());
                let waits = gates.is_closed(&record.slot.task);
                if job.stopped_slots.contains(&at) || waits {
                    continue;
                }
                let run: Option<&RunRecord> = record.current.as_ref();
                let done = run.is_some_and(|run| {
                    run.state == RunState::Running || run.state == RunState::Completed
                });
                if !done {
                    // What has not begun yet waits at the version that it was last tried at.
                    let version = match record.version {
                        0 => version_of(record, job),
                        version => version,
                    };
                    let kept = self.state.version(&job.name, version);
                    let spec = kept.map_or(spec, |record| &record.spec);
                    let request = Request::of(&spec.tasks[&record.slot.task]);
                    let fits_somewhere = self.state.nodes().any(|node| {
                        fits(&Room::of(node, self.state.load(&node.name)), &request).is_ok()
                    });
                    assert!(record.waiting.is_some(), "{record:?}");
                    let apart = !request.apart.is_empty();
                    let why = format!("{} waits though it fits", record.slot);
                    assert!(!fits_somewhere || apart, "{why}");
                }
                let waits = job.update.as_ref().is_some_and(|update| {
                    use UpdatePhase::{Canary, Failed, Paused};
                    matches!(update.phase, Paused | Canary | Failed)
                });
                // One that no node has room for holds up those after it.
                let held_up = self
                    .state
                    .slots_of(&job.name)
                    .any(|slot| slot.waiting.is_some());
                let outdated = !waits
                    && !held_up
                    && run.is_some_and(|run| is_live(run) && run.version != job.version);
                assert!(
                    !outdated,
                    "{} is not of version {}",
                    record.slot, job.version
                );
            }
        }
    }
}

/// Whether all that differs in a slot is in which words it waits: those are of when it was tried.
fn only_words(before: &State, after: &State, key: &Key) -> bool {
    let Key::Slot(slot) = key else { return false };
    let wordless = |state: &State| {
        let mut record = SlotRecord::clone(state.slot(slot)?);
        record.waiting = record.waiting.map(|_| String::new());
        Some(record)
    };
    wordless(before) == wordless(after)
}
