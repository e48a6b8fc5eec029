//! One job's turn in a pass: opened, carried out step by step, closed; so that the steps of several
//! jobs can take turns.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use loom_schemas::event::Event;
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::{
    JobRecord, RunRecord, Seldom, SlotRecord, UpdatePhase, UpdateState, VersionRecord,
};
use loom_schemas::spec::TaskSpec;
use loom_schemas::words::RunState;

use super::settle::settle_job;
use super::task_turn::{TaskTurn, empty_slot};
use super::{Pass, leaving, node_standing, rebalance, update};
use crate::depend::{Gates, decided_by};
use crate::reconcile::{Action, Facts, Gang, Step, apply, grows, leave_of, reconcile};
use crate::schedule;
use crate::scheduler::Room;
use crate::state::{Draft, Key, State, is_live, run_event};
use crate::subjob;
use crate::system::{self, may_run_on};

/// The slots of one task at one version while they are placed.
type TaskTurns = BTreeMap<(Name, u32), TaskTurn>;

/// What is still to be done for a job in this pass.
pub(super) struct JobTurn {
    read: Read,
    job: JobRecord,
    steps: std::vec::IntoIter<Step>,
    gangs: VecDeque<Gang>,
    tasks: TaskTurns,
    limit: usize,
    changed: usize,
    /// Whether runs came, went or turned; not so where only the words changed in which a slot waits.
    moved: bool,
    more: bool,
}

/// What the steps of a turn were decided from.
struct Read {
    before: State,
    /// As the turn left it when it was opened.
    opened: Option<Arc<JobRecord>>,
    job: Arc<JobRecord>,
    version: Arc<VersionRecord>,
    gates: Gates,
}

impl Read {
    fn with_facts<R>(
        &self,
        now: Timestamp,
        lost_at: &BTreeMap<Name, Timestamp>,
        act: impl FnOnce(&Facts<'_>) -> R,
    ) -> R {
        let (before, name) = (&self.before, &self.job.name);
        let spec = &self.version.spec;
        let standing = |node: &Name| node_standing(before, node, lost_at, now);
        let kept = |version: u32| Some(&before.version(name, version)?.spec);
        let belongs = |node: &Name| may_run_on(before, spec, node);
        let leave = |node: &Name, task: &TaskSpec| leave_of(before.node(node)?, task);
        let moves = |slot: &Slot, run: &RunRecord| rebalance::leave(before, slot, run);
        let waits = |task: &Name| self.gates.is_closed(task);
        act(&Facts {
            job: &self.job,
            spec,
            version: &kept,
            node: &standing,
            belongs: &belongs,
            room: &|node| room(before, node),
            leave: &leave,
            moves: &moves,
            waits: &waits,
            now,
        })
    }
}

impl Pass<'_> {
    /// Looks at what a job needs, at most `limit` changes of slots; none if there is nothing to be
    /// carried out, with whether more is to be done for it than was allowed.
    pub(super) fn open(
        &mut self,
        draft: &mut Draft,
        name: &Name,
        limit: usize,
    ) -> Result<JobTurn, bool> {
        self.jobs += 1;
        schedule::settle(draft, name, self.now);
        subjob::mirror(draft, name, self.now);
        let more = system::follow(draft, name, limit, self.now) > limit;
        if self.give_back(draft, name, &[], limit) {
            return Err(true);
        }
        let before = draft.state().clone();
        let found = before.job(name).cloned();
        let found = found.and_then(|job| Some((before.version(name, job.version)?.clone(), job)));
        let (version, job) = found.ok_or(false)?;
        let gates = Gates::of(&before, &job, &version.spec);
        let mut read = Read {
            before,
            opened: None,
            job,
            version,
            gates,
        };
        let found = read.with_facts(self.now, self.lost_at, |facts| {
            let slots = read.before.slots_of(name).map(AsRef::as_ref);
            reconcile(facts, slots, limit)
        });
        if !found.broken.is_empty() {
            self.give_back(draft, name, &found.broken, limit);
            return Err(true);
        }
        let due = leaving::due(&read.before, name, &read.version.spec, self.now);
        let due = found.due.into_iter().chain(due).min();
        draft.state_mut().set_due(name, due);
        let mut job = JobRecord::clone(&read.job);
        if found.healthy {
            job.healthy.insert(job.version);
        }
        if let Some(change) = &found.update
            && update::carry_out(draft, &mut job, change, self.now)
        {
            // Another version is wanted now.
            return Err(true);
        }
        read.opened = draft.state().job(name).cloned();
        Ok(JobTurn {
            read,
            job,
            steps: found.steps.into_iter(),
            gangs: found.gangs.into(),
            tasks: TaskTurns::new(),
            limit,
            changed: 0,
            moved: false,
            more: more || found.more,
        })
    }

    /// Carries out the next step of a job's turn; false if there is none.
    pub(super) fn step(&mut self, draft: &mut Draft, turn: &mut JobTurn) -> bool {
        if turn.changed == turn.limit && turn.is_open() {
            turn.more = true;
            return false;
        }
        let Some(step) = turn.steps.next() else {
            return self.step_of_gang(draft, turn);
        };
        if self.waits_on(draft.state(), turn, &step) {
            return true;
        }
        let slot = step.slot.clone();
        let earlier = draft.state().slot(&slot).cloned();
        let (now, lost_at) = (self.now, self.lost_at);
        let (read, tasks) = (&turn.read, &mut turn.tasks);
        turn.more |= read.with_facts(now, lost_at, |facts| {
            self.carry_out(draft, facts, step, tasks)
        });
        let later = draft.state().slot(&slot);
        let changed = later != earlier.as_ref();
        turn.moved |= runs_of(later) != runs_of(earlier.as_ref());
        // What waits at this version too leaves its place in the update to another.
        let versions = later.zip(earlier.as_ref());
        let versions = versions.filter(|(later, _)| later.waiting.is_some());
        turn.more |= versions.is_some_and(|(later, earlier)| later.version != earlier.version);
        turn.changed += usize::from(changed);
        self.left -= usize::from(changed).min(self.left);
        true
    }

    /// Whether a slot that waits has nothing to hope for: one that asks for the same was refused in this
    /// turn, and nothing about it changes. Of many that wait one is tried.
    fn waits_on(&mut self, state: &State, turn: &JobTurn, step: &Step) -> bool {
        let [Action::Place] = step.actions.as_slice() else {
            return false;
        };
        let Some(record) = state.slot(&step.slot) else {
            return false;
        };
        // Only the first of them says why.
        let is_like_others = record.waiting.as_deref() == Some("")
            && record.current.is_none()
            && record.claim.is_none()
            && record.reservation.is_none();
        if !is_like_others {
            return false;
        }
        let task = (record.slot.task.clone(), record.version);
        let refused = turn.tasks.get(&task).and_then(|turn| turn.refused_until);
        let wanted = &turn.read.version;
        let own = |it: &TaskSpec| it.has_own(&record.slot.index);
        refused == Some(self.looks)
            && record.version == wanted.version
            && !wanted.spec.tasks.get(&task.0).is_none_or(own)
            && self.cluster.queue().has(&record.slot, wanted.spec.priority)
    }

    /// Places the next gang of a job's turn; false if there is none.
    fn step_of_gang(&mut self, draft: &mut Draft, turn: &mut JobTurn) -> bool {
        let allowed = (turn.limit - turn.changed).min(self.left);
        let Some(gang) = turn.gangs.front().cloned().filter(|_| allowed > 0) else {
            return false;
        };
        turn.gangs.pop_front();
        let (now, lost_at) = (self.now, self.lost_at);
        let done = turn.read.with_facts(now, lost_at, |facts| {
            self.place_gang(draft, facts, gang, allowed)
        });
        turn.changed += done.changed;
        turn.moved |= done.moved;
        turn.more |= done.more;
        self.left -= done.changed.min(self.left);
        true
    }

    /// Whether more is to be done for the job than was carried out.
    pub(super) fn close(&mut self, draft: &mut Draft, turn: &JobTurn) -> bool {
        let name = &turn.job.name;
        let is_as_read = |now: &Arc<JobRecord>| {
            let opened = turn.read.opened.as_ref();
            opened.is_some_and(|opened| Arc::ptr_eq(opened, now))
        };
        if !draft.state().job(name).is_some_and(is_as_read) {
            // Another job's turn has changed what is wanted of it.
            return true;
        }
        // What was ordered to end just now ends with its job.
        subjob::mirror(draft, name, self.now);
        let Read { version, gates, .. } = &turn.read;
        // What has nothing left that has started waits again for what it waited for.
        let moved = turn
            .moved
            .then(|| Gates::of(draft.state(), &turn.job, &version.spec));
        let gates = moved.as_ref().unwrap_or(gates);
        settle_job(draft, &turn.job, version, gates, self.now);
        for waiting in decided_by(draft.state(), name) {
            draft.state_mut().mark_dirty(&waiting);
        }
        // What was changed just now may be what the clock counts from in an update.
        let is_counted = |update: &UpdateState| {
            matches!(update.phase, UpdatePhase::Rolling | UpdatePhase::Canary)
        };
        let counts = turn.moved && turn.job.update.as_ref().is_some_and(is_counted);
        // A run that was given up just now leaves a slot that its node does not need.
        turn.more
            || counts
            || turn.is_open()
            || system::follow(draft, name, turn.limit, self.now) > 0
    }

    /// A job's whole turn; whether more is to be done for it than was allowed.
    pub(super) fn plan_job(&mut self, draft: &mut Draft, name: &Name, limit: usize) -> bool {
        let mut turn = match self.open(draft, name, limit) {
            Ok(turn) => turn,
            Err(more) => return more,
        };
        while self.step(draft, &mut turn) {}
        self.close(draft, &turn)
    }

    /// True if the job has to be looked at once more: the slot waits for a node and did not before,
    /// its run has ended already, or has no room any more for other limits.
    fn carry_out(
        &mut self,
        draft: &mut Draft,
        facts: &Facts<'_>,
        step: Step,
        turns: &mut TaskTurns,
    ) -> bool {
        let slot = step.slot;
        let earlier = draft.state().slot(&slot).cloned();
        let mut record = match &earlier {
            Some(record) => SlotRecord::clone(record),
            None => empty_slot(slot),
        };
        let waited = record.waiting.is_some();
        let mut is_over = false;
        let (mut missed, mut resizes) = (false, false);
        for action in &step.actions {
            match action {
                Action::Remove => {
                    draft.delete(Key::Slot(record.slot));
                    return false;
                }
                Action::Place | Action::PlaceIncoming => {
                    if let Some(run) = self.place(draft, facts, &mut record, turns) {
                        is_over = !is_live(&run);
                        match action {
                            Action::Place => record.current = Some(run),
                            _ => record.incoming = Some(run).into(),
                        }
                    }
                }
                // Others of this turn may have taken the room.
                Action::Resize(placement)
                    if !has_room(draft.state(), facts, &record, *placement) =>
                {
                    missed = true;
                }
                _ => {
                    apply(action, &mut record, facts);
                    if matches!(action, Action::Stop { .. }) {
                        // Who is told to end counts as gone.
                        self.ways.clear();
                    }
                    resizes |= matches!(action, Action::Resize(_));
                    if let Some(event) = event_of(action, &record, facts.now) {
                        draft.event(event);
                    }
                }
            }
        }
        if record.waiting.is_none() {
            record.claim = record.claim.take().filter(|it| it.moves.is_some()).into();
            record.reservation = Seldom::NONE;
        }
        let waits = record.waiting.is_some() && !waited;
        if earlier.is_none_or(|earlier| *earlier != record) {
            draft.put_slot(record);
        }
        if resizes {
            // It reserves more from now on.
            self.look_anew();
        }
        waits || is_over || missed
    }
}

impl JobTurn {
    /// Whether something is still to be done.
    fn is_open(&self) -> bool {
        self.steps.len() > 0 || !self.gangs.is_empty()
    }
}

/// What is in a slot.
fn runs_of(slot: Option<&Arc<SlotRecord>>) -> Option<(u32, [Option<&RunRecord>; 2])> {
    slot.map(|slot| {
        (
            slot.version,
            [slot.current.as_ref(), slot.incoming.as_ref()],
        )
    })
}

/// What a node has left; none if it is not known.
pub(super) fn room(state: &State, node: &Name) -> Option<Room> {
    let record = state.node(node)?;
    Some(Room::of(record, state.load(node)))
}

/// Whether a run of a slot has room for what it is to hold as the wanted version says.
fn has_room(state: &State, facts: &Facts<'_>, record: &SlotRecord, placement: RunId) -> bool {
    let run = record.placed(placement);
    let room = run.and_then(|run| room(state, run.node.as_ref()?));
    let task = facts.spec.tasks.get(&record.slot.task);
    let (Some(run), Some(room), Some(task)) = (run, room, task) else {
        return false;
    };
    // Only about room: what goes back to limits it had needs none, also where its node is down.
    let room = Room { up: true, ..room };
    let wanted = task.resources_of(&record.slot.index);
    grows(&room, &run.reserved, &wanted).is_ok()
}

/// What an action tells of a slot.
pub(super) fn event_of(action: &Action, record: &SlotRecord, now: Timestamp) -> Option<Event> {
    match action {
        Action::MarkUnknown(placement) => {
            let run = record.placed(*placement)?;
            let mut event = run_event(now, &record.slot, run, "unknown");
            event.reason = Some("its node is silent".to_owned());
            Some(event)
        }
        Action::Lose { placement, .. } => {
            let run = record.placed(*placement)?;
            let lost = RunState::Lost.as_str();
            Some(run_event(now, &record.slot, run, lost))
        }
        _ => None,
    }
}
