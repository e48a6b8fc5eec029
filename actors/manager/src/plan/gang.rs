//! Gangs: all slots of a task get a place at once, or none.
//!
//! A gang that is larger than what a pass may change is placed in several: those that are placed are
//! held, which their nodes are not told of, until the last one is. Whatever becomes of the leader
//! meanwhile, the next one goes on from the records, or gives the places back.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{HeldGang, JobRecord, RunRecord, Seldom, SlotRecord};
use loom_schemas::words::RunState;

use super::Pass;
use super::backfill::{Borrows, borrows, lend, unreserved};
use super::ends::OVERDUE;
use super::job_turn::event_of;
use super::reserve::{When, is_before};
use super::task_turn::{TaskTurn, empty_slot};
use crate::reconcile::{Action, Facts, Gang, Step, apply, version_of};
use crate::scheduler::{GangKey, Rank, Request, WhyNot};
use crate::state::{Draft, job_event, live_runs, run_event};

/// A slot of a gang that needs a place.
pub(super) struct Member {
    pub(super) record: SlotRecord,
    pub(super) version: u32,
    pub(super) request: Request,
}

/// What came of a gang's step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GangStep {
    /// How many slots were changed.
    pub(super) changed: usize,
    /// Whether the job has to be looked at once more.
    pub(super) more: bool,
    /// Whether runs came.
    pub(super) moved: bool,
}

/// Why a gang is not placed: so many of it fit, and no node fits one more.
struct Refused {
    fit: usize,
    why: String,
}

impl Refused {
    fn why(&self) -> String {
        let why = self.why.strip_prefix(WhyNot::WORDS).unwrap_or(&self.why);
        format!("no node one more: {why}")
    }
}

impl Pass<'_> {
    /// Places a gang whole, or has it wait; at most so many slots are changed.
    pub(super) fn place_gang(
        &mut self,
        draft: &mut Draft,
        facts: &Facts<'_>,
        gang: Gang,
        allowed: usize,
    ) -> GangStep {
        let name = gang.task;
        let mut members = members(draft, facts, &name, gang.steps);
        // What is largest has the fewest places to go to.
        members.sort_by_key(|member| Reverse(member.request.amounts));
        self.write_use(draft);
        let turn = self.turn.clone();
        let refused = self.try_gang(draft, facts, &name, &mut members);
        if refused.is_err() {
            self.turn = turn;
        }
        // Nothing of what was tried is so in the state.
        self.follows = false;
        match refused {
            // In the order of the trial: what is left goes on from where this much of it was.
            Ok(how) => keep(draft, facts, &name, members, how, allowed),
            Err(_) if facts.job.held.contains_key(&name) => {
                mark(draft, facts.job, &name, Some(HeldGang::GivesBack));
                let more = true;
                GangStep {
                    more,
                    ..GangStep::default()
                }
            }
            Err(refused) => {
                members.sort_by(|a, b| a.record.slot.cmp(&b.record.slot));
                self.gang_waits(draft, facts, &name, members, &refused, allowed)
            }
        }
    }

    /// Places these slots of a gang, all or none, and evicts nobody for them; why not all fit.
    pub(super) fn place_whole(
        &mut self,
        draft: &mut Draft,
        facts: &Facts<'_>,
        name: &Name,
        slots: Vec<Slot>,
    ) -> Result<(), String> {
        let actions = vec![Action::Place];
        let step = |slot| Step {
            slot,
            actions: actions.clone(),
        };
        let mut members = members(draft, facts, name, slots.into_iter().map(step).collect());
        members.sort_by_key(|member| Reverse(member.request.amounts));
        let found = self.try_gang(draft, facts, name, &mut members);
        self.follows = false;
        let of = members.len();
        found.map_err(|refused| format!("{} of {of} fit, {}", refused.fit, refused.why()))?;
        for member in members {
            draft.put_slot(member.record);
        }
        Ok(())
    }

    /// Finds a place for every member; how they use room that is kept for another gang, if they do.
    fn try_gang(
        &mut self,
        draft: &Draft,
        facts: &Facts<'_>,
        name: &Name,
        members: &mut [Member],
    ) -> Result<Option<Borrows>, Refused> {
        let mut state = draft.state().clone();
        let mut how = None;
        if let Some(holder) = state.reserved().cloned() {
            let is_own = is_of(&holder.slot, facts.job, name);
            if !is_own {
                how = may_borrow(facts, name, members, draft, &holder);
            }
            if is_own || how.is_some() {
                state = unreserved(&state, &holder);
            }
        }
        self.follows = false;
        self.follow(&state);
        if let Some(request) = same_request(members) {
            let (fit, why) = self.cluster.together(request, members.len());
            if fit < members.len() {
                let why = why.to_string();
                return Err(Refused { fit, why });
            }
        }
        let mut trial = Draft::new(state);
        let mut turns = BTreeMap::new();
        let mut placed: Vec<SlotRecord> = Vec::new();
        for (fit, member) in members.iter().enumerate() {
            let refused = |why| Refused { fit, why };
            let task = facts.task_at(name, member.version);
            let task = task.ok_or_else(|| refused("its version is not kept".to_owned()))?;
            let turn = turns
                .entry((name.clone(), member.version))
                .or_insert_with(|| TaskTurn::of(trial.state(), facts.job, name, facts.now));
            let run = (self.ids)();
            let mut record = member.record.clone();
            let found = self.find_node(trial.state(), task, &member.request, turn, &record, run);
            let placement = found.map_err(refused)?;
            let run = (member.version, run);
            let new = self.scheduled(facts, &mut record, task, run, placement, &mut turns);
            record.current = Some(new);
            trial.put_slot(record.clone());
            placed.push(record);
        }
        // Those that wait after all are as they were.
        for (member, record) in members.iter_mut().zip(placed) {
            member.record = record;
        }
        Ok(how)
    }

    /// Has the members wait, and keeps room for them if they are the first that wait.
    fn gang_waits(
        &mut self,
        draft: &mut Draft,
        facts: &Facts<'_>,
        name: &Name,
        members: Vec<Member>,
        refused: &Refused,
        allowed: usize,
    ) -> GangStep {
        let queue = self.cluster.queue();
        let rank = Rank {
            priority: facts.spec.priority,
            borrows: true,
            gang: true,
        };
        for member in &members {
            queue.note(&member.record.slot, &member.request, rank);
        }
        queue.note_gang(key_of(facts.job, facts.spec.priority, name));
        let mut members: Vec<Member> = members.into_iter().map(Member::unclaimed).collect();
        let when = self.reserve(draft, facts, name, &members);
        let why = words(refused, members.len(), &when);
        if let Some(first) = members.first_mut() {
            first.record.reservation = when.claims().into();
        }
        if let When::At(at, _) = when {
            let due = if at > facts.now {
                Some(at)
            } else {
                at.checked_add(OVERDUE).ok()
            };
            let due = due.unwrap_or(Timestamp::MAX);
            draft.state_mut().bring_due(&facts.job.name, due);
        }
        let mut turn = TaskTurn::of(draft.state(), facts.job, name, facts.now);
        let mut step = GangStep::default();
        for Member { mut record, .. } in members {
            let before = draft.state().slot(&record.slot).cloned();
            turn.wait(draft, facts.now, &mut record, why.clone());
            if before.as_deref() == Some(&record) {
                continue;
            }
            if step.changed == allowed {
                step.more = true;
                break;
            }
            step.changed += 1;
            // One that waits at this version too leaves its place in the update to another.
            let waited =
                |before: &SlotRecord| before.waiting.is_some() && before.version == record.version;
            step.more |= !before.as_deref().is_some_and(waited);
            draft.put_slot(record);
        }
        step
    }

    /// Gives back the places of a job's gangs that are held and do not come to be, of those that are
    /// broken as well, at most so many; whether anything was changed.
    pub(super) fn give_back(
        &mut self,
        draft: &mut Draft,
        job: &Name,
        broken: &[Name],
        limit: usize,
    ) -> bool {
        let Some(job) = draft.state().job(job).cloned() else {
            return false;
        };
        let mut next = JobRecord::clone(&job);
        let broken = broken.iter().cloned();
        next.held
            .extend(broken.map(|task| (task, HeldGang::GivesBack)));
        let mut left = limit.min(self.left);
        let given_back = |(_, how): &(&Name, &HeldGang)| **how == HeldGang::GivesBack;
        let tasks: Vec<Name> = next
            .held
            .iter()
            .filter(given_back)
            .map(|(task, _)| task.clone())
            .collect();
        for task in &tasks {
            let slots = draft.state().slots_of_task(&job.name, task);
            let held = slots.filter(|slot| live_runs(slot).next().is_some());
            let held: Vec<SlotRecord> = held.map(|slot| SlotRecord::clone(slot)).collect();
            if held.len() <= left {
                next.held.remove(task);
            }
            for mut record in held.into_iter().take(left) {
                left -= 1;
                self.left = self.left.saturating_sub(1);
                if let Some(run) = record.current.take() {
                    let pending = RunState::Pending.as_str();
                    let mut event = run_event(self.now, &record.slot, &run, pending);
                    event.reason =
                        Some("its place is given back: its gang does not start".to_owned());
                    draft.event(event);
                }
                draft.put_slot(record);
            }
        }
        let changed = !tasks.is_empty();
        if next != *job {
            draft.put_job(next);
        }
        if changed {
            self.look_anew();
        }
        changed
    }
}

impl Member {
    /// Without the room that was made or kept for it.
    fn unclaimed(mut self) -> Self {
        (self.record.claim, self.record.reservation) = (Seldom::NONE, Seldom::NONE);
        self
    }
}

/// The members of a gang that need a place, with all done to their slots but that.
fn members(draft: &mut Draft, facts: &Facts<'_>, name: &Name, steps: Vec<Step>) -> Vec<Member> {
    let mut turns: BTreeMap<u32, TaskTurn> = BTreeMap::new();
    let member = |step: Step| {
        let earlier = draft.state().slot(&step.slot);
        let mut record = match earlier {
            Some(record) => SlotRecord::clone(record),
            None => empty_slot(step.slot.clone()),
        };
        let actions = step
            .actions
            .iter()
            .filter(|action| **action != Action::Place);
        for action in actions {
            apply(action, &mut record, facts);
            if let Some(event) = event_of(action, &record, facts.now) {
                draft.event(event);
            }
        }
        record.not_before = None;
        let version = match record.version {
            0 => version_of(&record, facts.job),
            version => version,
        };
        let task = facts.task_at(name, version)?;
        let turn = turns
            .entry(version)
            .or_insert_with(|| TaskTurn::of(draft.state(), facts.job, name, facts.now));
        let request = turn.request_of(facts.spec, task, &record.slot.index);
        Some(Member {
            record,
            version,
            request,
        })
    };
    steps.into_iter().filter_map(member).collect()
}

/// What all ask for, where it is the same for all and none has to be apart from another.
pub(super) fn same_request(members: &[Member]) -> Option<&Request> {
    let first = &members.first()?.request;
    let same = members.iter().all(|member| member.request == *first);
    (same && first.apart.is_empty()).then_some(first)
}

/// How all of a gang may use room that is kept for another.
fn may_borrow(
    facts: &Facts<'_>,
    name: &Name,
    members: &[Member],
    draft: &Draft,
    holder: &SlotRecord,
) -> Option<Borrows> {
    if !is_before(draft.state(), &holder.slot, facts, name) {
        return Some(Borrows::GoesFirst);
    }
    let mut how = None;
    for member in members {
        let task = facts.task_at(name, member.version)?;
        let spent = member.record.failed_placements;
        how = Some(borrows(facts, task, spent, draft.state(), holder)?);
    }
    how
}

/// Writes down as many of the places of a gang as may be; the last of them releases all.
fn keep(
    draft: &mut Draft,
    facts: &Facts<'_>,
    name: &Name,
    members: Vec<Member>,
    how: Option<Borrows>,
    allowed: usize,
) -> GangStep {
    let holder = draft.state().reserved().cloned();
    let is_whole = members.len() <= allowed;
    let mut kept: Vec<RunRecord> = Vec::new();
    let mut step = GangStep {
        moved: true,
        more: !is_whole,
        ..GangStep::default()
    };
    for Member { record, .. } in members.into_iter().take(allowed) {
        if let Some(run) = &record.current {
            let mut event = run_event(facts.now, &record.slot, run, "scheduled");
            if !is_whole {
                event.reason = Some("held until all of its gang have a place".to_owned());
            }
            draft.event(event);
            kept.push(run.clone());
        }
        draft.put_slot(record);
        step.changed += 1;
    }
    if let Some((holder, how)) = holder.zip(how) {
        lend(draft, &holder, how, &kept);
    }
    mark(
        draft,
        facts.job,
        name,
        (!is_whole).then_some(HeldGang::Gathers),
    );
    if is_whole {
        let mut event = job_event(facts.now, facts.job, "gang-released");
        event.reason = Some(format!("all of task {name} have a place"));
        draft.event(event);
    }
    step
}

/// Writes down how far a gang of a job is that is held.
fn mark(draft: &mut Draft, job: &JobRecord, name: &Name, how: Option<HeldGang>) {
    let Some(job) = draft.state().job(&job.name).cloned() else {
        return;
    };
    let mut next = JobRecord::clone(&job);
    match how {
        Some(how) => next.held.insert(name.clone(), how),
        None => next.held.remove(name),
    };
    if next != *job {
        draft.put_job(next);
    }
}

/// Whether a slot is of a task.
pub(super) fn is_of(slot: &Slot, job: &JobRecord, task: &Name) -> bool {
    slot.job == job.name && slot.task == *task
}

/// The place of a gang in the order of the queue.
pub(super) fn key_of(job: &JobRecord, priority: u8, task: &Name) -> GangKey {
    let (at, name) = (job.submitted_at, job.name.clone());
    (Reverse(priority), at, name, task.clone())
}

/// Why a gang waits, in words.
fn words(refused: &Refused, of: usize, when: &When) -> String {
    format!("{} of {of} fit now, {}; {when}", refused.fit, refused.why())
}
