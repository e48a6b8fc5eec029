//! Gangs among runs of limited and unlimited time, whatever comes and ends: laws over generated
//! histories.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{Order, RunRecord, SlotRecord};
use loom_schemas::spec::TaskSpec;
use loom_schemas::words::{Kind, RunState};
use proptest::prelude::{any, prop, proptest};

use super::gangs::{batch, gang, timed};
use super::line::{Leader, asking, service};
use crate::decide;
use crate::state::fixture::{at, cases, name, report_of};
use crate::state::live_runs;

/// Nodes of so many cores.
const CORES: [u32; 3] = [4, 4, 2];

/// A cluster whose nodes start at once what they are told, and end it when its time is up.
struct Trace {
    leader: Leader,
    jobs: usize,
    /// When each gang for which room was kept was to start at the latest.
    promised: BTreeMap<Name, Timestamp>,
    /// When nothing was left to be done last: what ended since did so unseen.
    rested: Timestamp,
}

impl Trace {
    fn new() -> Self {
        Self {
            leader: Leader::new(&CORES.map(|cores| (cores, 64))),
            jobs: 0,
            promised: BTreeMap::new(),
            rested: at(0),
        }
    }

    fn now(&self) -> Timestamp {
        at(self.leader.seconds)
    }

    fn task_of(&self, slot: &Slot) -> &TaskSpec {
        let job = self.leader.state.job(&slot.job).unwrap();
        &self.leader.state.spec(job).unwrap().tasks[&slot.task]
    }

    /// The time of a live run is up then; never where it has no limit.
    fn end_of(&self, slot: &Slot, run: &RunRecord) -> Option<Timestamp> {
        let timeout = self.task_of(slot).timeout.as_ref()?;
        let lasts = i64::try_from(timeout.after.0 / 1000).unwrap() + 10;
        Some(run.created_at + SignedDuration::from_secs(lasts))
    }

    fn live(&self) -> Vec<(Slot, RunRecord)> {
        let slots = self.leader.state.slots();
        let live = slots.flat_map(|record| {
            let runs = live_runs(record).cloned();
            runs.map(|run| (record.slot.clone(), run))
        });
        live.collect()
    }

    fn says(&mut self, slot: &Slot, run: &RunRecord, state: RunState) {
        let now = self.now();
        let report = loom_schemas::wire::RunReport {
            started_at: Some(run.started_at.unwrap_or(now)),
            ended_at: state.is_terminal().then_some(now),
            version: run.version,
            ..report_of(slot, run.run, state)
        };
        let node = run.node.clone().unwrap();
        let edit = |draft: &mut crate::state::Draft| {
            decide::report(draft, &node, &[report], false, now);
        };
        self.leader.edit(edit);
    }

    /// Plans; the nodes obey; until nothing is left to be done.
    fn go_on(&mut self, slots: usize) {
        for _ in 0..50 {
            let before = self.released();
            self.leader.plan_by(slots);
            self.check_whole(&before);
            let live = self.live();
            let mut quiet = true;
            for (slot, run) in live {
                let over = self
                    .end_of(&slot, &run)
                    .is_some_and(|end| end <= self.now());
                let state = match (&run.order, run.state) {
                    (Order::Stop { .. }, _) => RunState::Killed,
                    _ if over => RunState::Completed,
                    (_, RunState::Scheduled) => RunState::Running,
                    _ => continue,
                };
                quiet = false;
                self.says(&slot, &run, state);
            }
            if quiet {
                self.check_reserved();
                // Looked at once more, one that waits may find that it can start before the first.
                let starts = |(_, run): &(Slot, RunRecord)| run.state == RunState::Scheduled;
                if self.live().iter().any(starts) {
                    continue;
                }
                self.rested = self.now();
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// How many runs each job has that nodes may start.
    fn released(&self) -> BTreeMap<Name, usize> {
        let mut released: BTreeMap<Name, usize> = BTreeMap::new();
        for (slot, run) in self.live() {
            if run.order == Order::Run && !self.leader.state.is_held(&slot) {
                *released.entry(slot.job).or_default() += 1;
            }
        }
        released
    }

    /// Of a gang that has started since, all have; none of what is held was left.
    fn check_whole(&mut self, before: &BTreeMap<Name, usize>) {
        let now = self.released();
        // One that came before has gone first, as soon as it could.
        let came = |job: &Name| self.leader.state.job(job).unwrap().submitted_at;
        let started = now.keys().filter(|job| !before.contains_key(*job));
        if let Some(first) = started.map(came).min() {
            self.promised.retain(|job, _| came(job) <= first);
        }
        for job in self.leader.state.jobs() {
            assert!(job.held.is_empty(), "{} is held for good", job.name);
            let spec = self.leader.state.spec(job).unwrap();
            let task = &spec.tasks[&Name::main()];
            let started = now.get(&job.name).copied().unwrap_or(0);
            if task.gang && !before.contains_key(&job.name) && started > 0 {
                assert_eq!(
                    started, task.replicas as usize,
                    "{} starts in part",
                    job.name
                );
                if let Some(promised) = self.promised.get(&job.name) {
                    assert!(
                        self.now() <= *promised || self.rested < *promised,
                        "{} starts later than promised",
                        job.name
                    );
                }
            }
        }
    }

    /// Room is kept for at most one gang, from the earliest time at which all of it fits; that never
    /// gets later, and planning again changes nothing.
    fn check_reserved(&mut self) {
        let holders = |trace: &Self| -> Vec<SlotRecord> {
            let slots = trace.leader.state.slots();
            let held = slots.filter(|slot| slot.reservation.is_some());
            held.map(|slot| SlotRecord::clone(slot)).collect()
        };
        self.leader.state.mark_all_dirty();
        self.leader.plan();
        let settled = self.leader.state.clone();
        self.leader.state.mark_all_dirty();
        self.leader.plan();
        assert!(
            settled.same_records(&self.leader.state),
            "planning again changes something"
        );
        let holders = holders(self);
        assert!(holders.len() <= 1);
        let Some(holder) = holders.first() else {
            return;
        };
        let kept = holder.reservation.as_ref().unwrap();
        let task = self.task_of(&holder.slot);
        let until = kept[0].at.unwrap();
        assert_eq!(Some(until), self.earliest(task), "{}", holder.slot);
        let reserved: u32 = kept.iter().map(|claim| claim.reserved.cpu.0).sum();
        assert_eq!(reserved, task.resources.cpu.0 * task.replicas);
        // One that came before, and of which it is known only now, takes it over.
        let came = |job: &Name| self.leader.state.job(job).unwrap().submitted_at;
        let first = came(&holder.slot.job);
        self.promised.retain(|job, _| came(job) <= first);
        let promised = self
            .promised
            .entry(holder.slot.job.clone())
            .or_insert(until);
        assert!(
            until <= *promised,
            "{} was promised {promised}, now {until}",
            holder.slot
        );
        *promised = until;
    }

    /// The oracle: the first end of a run at which all of a task fit what is left then.
    fn earliest(&self, task: &TaskSpec) -> Option<Timestamp> {
        let live = self.live();
        let mut ends: Vec<Timestamp> = live
            .iter()
            .filter_map(|(slot, run)| self.end_of(slot, run))
            .collect();
        ends.sort();
        ends.into_iter().find(|time| {
            let fit = CORES.iter().enumerate().map(|(number, cores)| {
                let node = name(&format!("node-{}", number + 1));
                let stays = live.iter().filter(|(slot, run)| {
                    let ended = self.end_of(slot, run).is_some_and(|end| end <= *time);
                    run.node.as_ref() == Some(&node) && !ended
                });
                let used: u32 = stays.map(|(_, run)| run.reserved.cpu.0).sum();
                (cores * 1000 - used) / task.resources.cpu.0
            });
            fit.sum::<u32>() >= task.replicas
        })
    }

    fn happen(&mut self, what: u8, much: u8, more: u8) {
        self.jobs += 1;
        let named = format!("job-{}", self.jobs);
        let owner = if more.is_multiple_of(2) {
            "anna"
        } else {
            "bert"
        };
        let cpu = 500 * (u32::from(much % 4) + 1);
        let seconds = 20 + u64::from(more) * 4;
        match what % 8 {
            0 | 1 => {
                // Never more than the nodes have room for.
                let most: u32 = CORES.iter().map(|cores| cores * 1000 / cpu).sum();
                let mut spec = gang(&named, cpu, u32::from(more) % most + 1);
                spec.kind = Kind::Batch;
                let main = spec.tasks.values_mut().next().unwrap();
                *main = timed(main.clone(), seconds);
                self.leader.submit(owner, &spec);
            }
            2 | 3 => {
                let spec = batch(&named, cpu, u32::from(more) % 3 + 1, seconds);
                self.leader.submit(owner, &spec);
            }
            4 => {
                let spec = service(&named, 50, asking(cpu, 64, u32::from(more) % 2 + 1));
                self.leader.submit(owner, &spec);
            }
            5 => {
                // A run ends before its time.
                let mut live = self.live();
                live.retain(|(slot, _)| self.task_of(slot).timeout.is_some());
                if !live.is_empty() {
                    let (slot, run) = live[usize::from(much) % live.len()].clone();
                    self.says(&slot, &run, RunState::Completed);
                }
            }
            6 => self.stop_services(),
            _ => self.wait(),
        }
    }

    fn stop_services(&mut self) {
        let jobs = self.leader.state.jobs().cloned().collect::<Vec<_>>();
        for job in jobs {
            let spec = self.leader.state.spec(&job).unwrap().clone();
            if spec.kind == Kind::Service {
                let mut gone = spec;
                gone.tasks.values_mut().next().unwrap().replicas = 0;
                self.leader.submit(&job.owner, &gone);
            }
        }
    }

    /// Time passes until the next run has to have ended.
    fn wait(&mut self) {
        let live = self.live();
        let ends = live.iter().filter_map(|(slot, run)| self.end_of(slot, run));
        let next = ends.filter(|end| *end > self.now()).min();
        if let Some(next) = next {
            self.leader.seconds = next.as_second() - at(0).as_second();
        }
    }
}

/// Lets a story happen, so many slots a pass, with all that has to hold on the way and in the end.
fn live(story: &[(u8, u8, u8)], slots: usize) {
    let mut trace = Trace::new();
    for (what, much, more) in story {
        trace.happen(*what, *much, *more);
        trace.go_on(slots);
    }
    trace.stop_services();
    trace.go_on(slots);
    for _ in 0..200 {
        trace.wait();
        trace.go_on(slots);
        if trace.leader.state.waiting().next().is_none() {
            break;
        }
    }
    let waiting: Vec<&Slot> = trace.leader.state.waiting().collect();
    assert!(waiting.is_empty(), "{waiting:?} never start");
}

proptest! {
    #![proptest_config(cases(256))]

    /// A gang starts whole or not at all; room is kept for one, from the earliest time at which all of
    /// it fits by an oracle; nobody who is let before it delays that; and in the end, once what has no
    /// limit is stopped, every gang has had its start.
    #[test]
    fn a_gang_starts_whole_and_no_later_than_it_was_promised(
        story in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..30),
        slots in prop::sample::select(vec![1_usize, 3, 256]),
    ) {
        live(&story, slots);
    }
}
