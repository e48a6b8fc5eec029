//! What of a job finds no node as things stand, also of what would be placed only later: tasks that
//! wait for others, and slots whose turn in an update has not come.
//!
//! Everything is tried on a copy, by the same rules as placing. Whoever waits is tried with the room
//! that the tasks before it leave once they have completed; a slot that is replaced, with that of its
//! old run where the old one ends first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use loom_schemas::ids::{Index, Name, RunId, Slot};
use loom_schemas::record::{JobRecord, SlotRecord, Wanted};
use loom_schemas::spec::{DependOn, JobSpec, TaskSpec};
use loom_schemas::words::Kind;

use super::crowded::crowded;
use super::job_turn::room;
use super::{Pass, PlanOptions, deadlines, empty_slot, node_standing};
use crate::depend::{Gate, Gates};
use crate::reconcile::{Change, Facts, Stand, change_at, replicas, stand, unwanted_reason};
use crate::scheduler::Cluster;
use crate::state::{Draft, Key, State, is_live, live_runs};
use crate::system::may_run_on;

/// At most so many lines say what finds no node.
const LINES_MAX: usize = 20;

/// At most so many slots of running tasks are tried, each with the room its old run gives back.
const REPLACED_MAX: usize = 200;

/// What of a job that was planned finds no node, a line a task and reason, and what is never started;
/// and who would be evicted for the rest, a line each.
pub(super) fn blocked(
    draft: &Draft,
    name: &Name,
    now: Timestamp,
    options: &PlanOptions,
    ids: &mut dyn FnMut() -> RunId,
) -> (Vec<String>, Vec<String>) {
    let state = draft.state();
    let Some((job, spec)) = state
        .job(name)
        .and_then(|job| Some((job, state.spec(job)?)))
    else {
        return Default::default();
    };
    let gates = Gates::of(state, job, spec);
    if let Gate::Never(why) = gates.of_whole() {
        return (vec![format!("{name} never starts: {why}")], Vec::new());
    }
    if job.wanted != Wanted::Run || job.status.is_terminal() {
        return Default::default();
    }
    // Of a job with a schedule what it starts is tried: the same without one.
    let started = spec.schedule.is_some().then(|| JobSpec {
        schedule: None,
        ..spec.clone()
    });
    let (spec, is_scheduled) = (started.as_ref().unwrap_or(spec), started.is_some());
    let mut found = Blocked::default();
    for task in spec.tasks.keys() {
        if let Gate::Never(why) = gates.of_task(task) {
            found.never(name, task, why);
        }
    }
    let mut trial = Trial {
        state,
        job,
        spec,
        now,
        options,
        ids,
        cluster: Cluster::empty(options.strategy),
        found,
    };
    if is_scheduled {
        trial.waiting_for_others(&gates, true);
    } else {
        trial.waiting_for_a_node();
        trial.waiting_for_others(&gates, false);
        trial.waiting_for_their_turn();
    }
    let evicts = std::mem::take(&mut trial.found.evicts);
    (trial.found.lines(), evicts)
}

/// Slots that find no node, by task and reason.
#[derive(Default)]
struct Blocked {
    never: Vec<String>,
    evicts: Vec<String>,
    slots: BTreeMap<Name, Vec<(String, Vec<Slot>)>>,
}

impl Blocked {
    fn never(&mut self, job: &Name, task: &Name, why: &str) {
        self.never.push(format!("{job}/{task} never starts: {why}"));
    }

    fn add(&mut self, slot: Slot, why: &str) {
        let reasons = self.slots.entry(slot.task.clone()).or_default();
        match reasons.iter_mut().find(|(reason, _)| reason == why) {
            Some((_, slots)) => slots.push(slot),
            None => reasons.push((why.to_owned(), vec![slot])),
        }
    }

    /// Notes why a slot that was tried has found no node; of those after it that find none for the
    /// same reason nothing is said.
    fn add_if_blocked(&mut self, record: &SlotRecord) {
        let Some(why) = record.waiting.as_deref() else {
            return;
        };
        if let Some(claim) = record.claim.as_ref() {
            let (node, slot) = (&claim.node, &record.slot);
            let gone = claim.evicted.iter();
            let lines = gone.map(|gone| format!("{gone} on {node}, for {slot}"));
            self.evicts.extend(lines);
            return;
        }
        let before = self
            .slots
            .get(&record.slot.task)
            .and_then(|reasons| reasons.last());
        let before = before.map(|(why, _)| why.clone());
        let why = Some(why).filter(|why| !why.is_empty()).map(str::to_owned);
        self.add(record.slot.clone(), &why.or(before).unwrap_or_default());
    }

    fn lines(self) -> Vec<String> {
        let of_task = |(why, slots): (String, Vec<Slot>)| match slots.as_slice() {
            [first] => format!("{first}: {why}"),
            [first, rest @ ..] => format!("{first} and {} more: {why}", rest.len()),
            [] => why,
        };
        let slots = self.slots.into_values().flatten().map(of_task);
        let mut lines: Vec<String> = self.never.into_iter().chain(slots).collect();
        let more = lines.len().saturating_sub(LINES_MAX);
        if more > 0 {
            lines.truncate(LINES_MAX);
            lines.push(format!("and {more} more tasks"));
        }
        lines
    }
}

/// A job that is placed on copies of the state.
struct Trial<'a> {
    state: &'a State,
    job: &'a JobRecord,
    spec: &'a JobSpec,
    now: Timestamp,
    options: &'a PlanOptions,
    ids: &'a mut dyn FnMut() -> RunId,
    /// The nodes, as the copy tried last has them.
    cluster: Cluster,
    found: Blocked,
}

impl Trial<'_> {
    /// What was tried and found no node.
    fn waiting_for_a_node(&mut self) {
        for record in self.state.slots_of(&self.job.name) {
            self.found.add_if_blocked(record);
        }
    }

    /// Tasks that wait for others: each with what runs by the time it starts; or all tasks.
    fn waiting_for_others(&mut self, gates: &Gates, all: bool) {
        if !all && !self.spec.tasks.keys().any(|name| gates.is_closed(name)) {
            return;
        }
        let gone = gone_by_start(self.state, &self.job.name, &self.spec.tasks);
        let mut at_once = Vec::new();
        for name in self.spec.tasks.keys() {
            match gates.of_task(name) {
                Gate::Waits(_) => self.place_together(&[name], &gone[name]),
                Gate::Open if all || gates.is_closed(name) => at_once.push(name),
                Gate::Open | Gate::Never(_) => {}
            }
        }
        // The whole job waits: what waits for nothing else starts together.
        self.place_together(&at_once, &BTreeSet::new());
    }

    /// Places the slots of these tasks that have nothing, once those that are gone have completed.
    fn place_together(&mut self, tasks: &[&Name], gone: &BTreeSet<&Name>) {
        let is_gang = |name: &&Name| self.spec.tasks[*name].gang;
        let (gangs, others): (Vec<&Name>, Vec<&Name>) =
            tasks.iter().copied().partition(|name| is_gang(name));
        let slots_of = |name: &Name| self.empty_slots(name);
        let gangs: Vec<(&Name, Vec<Slot>)> = gangs
            .into_iter()
            .map(|name| (name, slots_of(name)))
            .collect();
        let slots: Vec<Slot> = others.into_iter().flat_map(slots_of).collect();
        let mut draft = Draft::new(self.state.clone());
        for task in gone {
            for record in self.state.slots_of_task(&self.job.name, task) {
                draft.delete(Key::Slot(record.slot.clone()));
            }
        }
        self.with_pass(|pass, facts, found| {
            for (name, slots) in gangs.into_iter().filter(|(_, slots)| !slots.is_empty()) {
                if let Err(why) = pass.place_whole(&mut draft, facts, name, slots.clone()) {
                    for slot in slots {
                        found.add(slot, &why);
                    }
                }
            }
            let mut turns = BTreeMap::new();
            for slot in slots {
                let mut record = empty_slot(slot);
                record.current = pass.place(&mut draft, facts, &mut record, &mut turns);
                found.add_if_blocked(&record);
                draft.put_slot(record);
            }
        });
    }

    /// Slots that are still to be replaced, one after the other, as an update does it.
    fn waiting_for_their_turn(&mut self) {
        let tasks = self.spec.tasks.iter();
        let moving: BTreeSet<Slot> = tasks
            .flat_map(|(name, task)| crowded(self.state, self.job, name, task).into_keys())
            .collect();
        let slots = self.state.slots_of(&self.job.name);
        let slots = slots.filter(|record| self.is_replaced(record, &moving));
        let slots: Vec<&Arc<SlotRecord>> = slots.take(REPLACED_MAX).collect();
        if slots.is_empty() {
            return;
        }
        let mut draft = Draft::new(self.state.clone());
        // Those on their way leave the room of their old run before the next one's turn comes.
        for record in self.state.slots_of(&self.job.name) {
            if let Some(incoming) = record.incoming.as_ref().filter(|run| is_live(run)) {
                let mut taken_over = empty_slot(record.slot.clone());
                taken_over.current = Some(incoming.clone());
                draft.put_slot(taken_over);
            }
        }
        self.with_pass(|pass, facts, found| {
            for old in slots {
                let mut record = empty_slot(old.slot.clone());
                let task = facts.spec.tasks.get(&old.slot.task);
                if task.is_some_and(|task| facts.is_stop_first(task)) {
                    draft.put_slot(record.clone());
                }
                // Each finds the room that the one before it gave back.
                pass.look_anew();
                let mut turns = BTreeMap::new();
                record.current = pass.place(&mut draft, facts, &mut record, &mut turns);
                found.add_if_blocked(&record);
                draft.put_slot(match record.current {
                    Some(_) => record,
                    None => SlotRecord::clone(old),
                });
            }
        });
    }

    /// The wanted slots of a task in which nothing is and nothing was tried.
    fn empty_slots(&self, name: &Name) -> Vec<Slot> {
        let Some(task) = self.spec.tasks.get(name) else {
            return Vec::new();
        };
        let job = &self.job.name;
        let indexes: Vec<Index> = match self.spec.kind {
            Kind::System => {
                let slots = self.state.slots_of_task(job, name);
                slots.map(|record| record.slot.index.clone()).collect()
            }
            _ => (0..replicas(self.job, name, task))
                .map(Index::Number)
                .collect(),
        };
        let slots = indexes
            .into_iter()
            .map(|index| Slot::at(job.clone(), name.clone(), index));
        slots.filter(|slot| self.is_empty(slot, task)).collect()
    }

    fn is_empty(&self, slot: &Slot, task: &TaskSpec) -> bool {
        let stopped = (slot.task.clone(), slot.index.clone());
        if self.job.stopped_slots.contains(&stopped) {
            return false;
        }
        let Some(record) = self.state.slot(slot) else {
            return true;
        };
        let stands = stand(self.job, self.spec.kind, task, record);
        record.waiting.is_none() && matches!(stands, Stand::Empty | Stand::Again(_))
    }

    /// Whether a run of another version is in a slot that does not go on, as those that have to move
    /// for room do not, and nothing has yet been placed for it.
    fn is_replaced(&self, record: &SlotRecord, moving: &BTreeSet<Slot>) -> bool {
        let Some(task) = self.spec.tasks.get(&record.slot.task) else {
            return false;
        };
        let Some(run) = record.current.as_ref().filter(|run| is_live(run)) else {
            return false;
        };
        let wanted = unwanted_reason(self.job, self.spec, record).is_none();
        if !wanted || record.incoming.is_some() || record.waiting.is_some() {
            return false;
        }
        let old = self.state.version(&self.job.name, run.version);
        let old = old.and_then(|version| version.spec.tasks.get(&record.slot.task));
        let other = run.version != self.job.version || run.round != self.job.round;
        let goes_on = old.is_some_and(|old| match change_at(old, task, &record.slot.index) {
            Change::Adopt => true,
            Change::Resize => !moving.contains(&record.slot),
            Change::Replace => false,
        });
        let belongs = |node: &Name| may_run_on(self.state, self.spec, node);
        other && !(goes_on && run.node.as_ref().is_none_or(belongs))
    }

    /// Has slots placed by a pass of their own.
    fn with_pass(&mut self, act: impl FnOnce(&mut Pass<'_>, &Facts<'_>, &mut Blocked)) {
        let (state, job, name) = (self.state, self.job, &self.job.name);
        let lost_at = deadlines(state, self.options.lost_after);
        let standing = |node: &Name| node_standing(state, node, &lost_at, self.now);
        let kept = |version: u32| Some(&state.version(name, version)?.spec);
        let spec = self.spec;
        let belongs = |node: &Name| may_run_on(state, spec, node);
        let facts = Facts {
            job,
            spec,
            version: &kept,
            node: &standing,
            belongs: &belongs,
            room: &|node| room(state, node),
            leave: &|_, _| None,
            moves: &|_, _| None,
            waits: &|_| false,
            now: self.now,
        };
        let (cluster, ids) = (&mut self.cluster, &mut *self.ids);
        let mut pass = Pass::new(cluster, self.now, self.options, &lost_at, ids);
        act(&mut pass, &facts, &mut self.found);
    }
}

/// The tasks that hold room now and have completed by the time each task starts.
fn gone_by_start<'a>(
    state: &State,
    job: &Name,
    tasks: &'a BTreeMap<Name, TaskSpec>,
) -> BTreeMap<&'a Name, BTreeSet<&'a Name>> {
    let holds = |task: &Name| {
        let mut slots = state.slots_of_task(job, task);
        slots.any(|record| live_runs(record).next().is_some())
    };
    let mut waits: BTreeMap<&Name, usize> = BTreeMap::new();
    let mut waited: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
    for (name, task) in tasks {
        waits.insert(name, task.after.len());
        for after in &task.after {
            waited.entry(&after.task).or_default().push(name);
        }
    }
    let mut gone: BTreeMap<&Name, BTreeSet<&Name>> = BTreeMap::new();
    let mut next: Vec<&Name> = tasks.keys().filter(|name| waits[name] == 0).collect();
    while let Some(name) = next.pop() {
        let mut before = BTreeSet::new();
        for after in &tasks[name].after {
            before.extend(gone.get(&after.task).into_iter().flatten().copied());
            if after.on == DependOn::Completed && holds(&after.task) {
                before.insert(&after.task);
            }
        }
        gone.insert(name, before);
        for other in waited.get(name).into_iter().flatten() {
            let left = waits.entry(other).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                next.push(other);
            }
        }
    }
    // Every task is reached: a circle is refused when a job is read.
    tasks
        .keys()
        .map(|name| (name, gone.remove(name).unwrap_or_default()))
        .collect()
}
