//! How a version takes over the slots of a job.
//!
//! - A run *counts* once it has run, and been healthy where it is checked, for `healthy_for`.
//! - A slot is *turned* when what is placed in it runs the wanted version. At most `parallel` slots
//!   of a task are on their way: turned, and their run does not count yet. With start-first the old
//!   run goes on until the new one counts, with stop-first it ends before the new one is placed.
//! - What is not turned and goes down comes back as the last version that was healthy. What is down
//!   and runs another one than that has nothing to lose: it is turned at once.
//! - Beyond its canaries an update goes on once somebody promotes it.
//! - An update has failed when a run of it ends for good by itself before all count, or when no
//!   further slot counts for `deadline`, which the time does not count for that an old run takes to
//!   end. Then the last healthy version comes back as a version of its own, or the update pauses or
//!   goes on, as `on_failure` says. One that has nothing to go back to stays failed.
//! - A version is healthy once all of its slots count together, or their work is done.
//! - What a version changes in place is no update: runs go on under it. Where that is their limits,
//!   slots take it over like any other, but their runs are held to the new limits and go on; they
//!   count once those hold.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::Name;
use loom_schemas::record::{SlotRecord, UpdatePhase, UpdateState};
use loom_schemas::spec::{OnUpdateFailure, TaskSpec, UpdateOrder};
use loom_schemas::words::Kind;

use super::turn::Entry;
use super::verdict::{is_fresh, unstopped, unwanted};
use super::{Facts, same_in_place};
use crate::state::live_runs;

mod look;
mod turn;

pub use look::serves;
pub(super) use look::{counts, counts_at, is_done, is_unhealthy};

use look::{Look, Way, failure, how_it_stands, look, waits_since};

/// What becomes of a job's update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateChange {
    /// So many slots count now; the deadline begins anew if there were never more.
    Counted(u32),
    /// Its canaries count, so many: somebody has to promote it.
    AwaitsPromotion(u32),
    /// Every slot has taken the version over.
    Done,
    /// It failed, or nobody knows how to go on.
    Paused(String),
    /// It failed and goes on, as it was told to.
    GoesOn(String),
    /// It failed, and there is nothing to go back to.
    Failed(String),
    /// It failed: this version comes back.
    GoBack {
        /// The last that was healthy.
        to: u32,
        /// In words.
        reason: String,
    },
}

impl UpdateChange {
    /// Whether it changes what becomes of slots, so that it is written down before they are looked
    /// at.
    pub(super) fn is_first(&self) -> bool {
        matches!(
            self,
            Self::Paused(_) | Self::Failed(_) | Self::GoBack { .. }
        )
    }
}

/// How far the slots of a job have taken its version over.
pub(super) struct Rollout {
    tasks: BTreeMap<Name, Progress>,
    /// The first failure of a run of the update.
    failure: Option<(Option<Timestamp>, String)>,
    /// The first slot that holds the update up, in words.
    held_up: Option<String>,
    /// Whether an old run is waited for to end.
    leaves: bool,
    /// When the first of the slots on their way began to be waited for.
    waits_since: Option<Timestamp>,
    due: Option<Timestamp>,
}

/// The same of one task.
#[derive(Default)]
struct Progress {
    /// Wanted slots that had a run in this round.
    slots: u32,
    /// Wanted slots that have no record yet.
    missing: u32,
    /// Wanted slots that had no run in this round, and do not wait for a node.
    fresh: u32,
    /// The same that wait for a node.
    waiting: u32,
    /// So many of those that do not wait take the wanted version at once.
    may_begin: u32,
    /// Slots that are neither turned nor on their way, and serve nobody.
    idle: u32,
    /// Those that are turned.
    turned: u32,
    /// Slots on their way.
    on_their_way: u32,
    /// Slots with two live runs.
    doubled: u32,
    /// Turned slots that speak for the version: their run counts, or their work is done.
    counted: u32,
    /// Turned slots that failed and are not waited for.
    given_up: u32,
    /// Slots that are not to be waited for.
    settled: u32,
    /// Whether the update is about this task.
    changed: bool,
}

impl Rollout {
    pub(super) fn of(facts: &Facts<'_>, entries: &[Entry<'_>]) -> Self {
        let mut rollout = Self {
            tasks: BTreeMap::new(),
            failure: None,
            held_up: None,
            leaves: false,
            waits_since: None,
            due: None,
        };
        for (name, task) in &facts.spec.tasks {
            let progress = Progress {
                missing: wanted_slots(facts, name, task),
                changed: is_changed(facts, name, task),
                ..Progress::default()
            };
            rollout.tasks.insert(name.clone(), progress);
        }
        for Entry { record, .. } in entries {
            let at = &record.slot.task;
            let Some(task) = facts.spec.tasks.get(at) else {
                continue;
            };
            rollout.count_doubled(record);
            if unwanted(facts.job, facts.spec, record).is_none() {
                rollout.add(facts, task, record);
            }
        }
        for (name, progress) in &mut rollout.tasks {
            // What had no run yet is on its way, but for what canaries keep at the version before.
            let fresh = progress.fresh + progress.missing;
            progress.may_begin = match gate(facts) {
                u32::MAX => u32::MAX,
                // They make the better canaries: they serve nobody yet.
                gate => gate.saturating_sub(progress.turned),
            };
            let healthy = facts.healthy_version(name);
            if healthy.is_none_or(|version| version == facts.job.version) {
                progress.may_begin = u32::MAX;
            }
            let begins = fresh.min(progress.may_begin);
            progress.on_their_way += begins;
            progress.idle += fresh - begins;
        }
        let deadline = rollout.deadline(facts).filter(|at| *at > facts.now);
        rollout.due = rollout.due.into_iter().chain(deadline).min();
        rollout
    }

    /// Two runs are two runs, whether their slot is still wanted or not.
    fn count_doubled(&mut self, record: &SlotRecord) {
        if let Some(progress) = self.tasks.get_mut(&record.slot.task) {
            progress.doubled += u32::from(live_runs(record).count() > 1);
        }
    }

    fn add(&mut self, facts: &Facts<'_>, task: &TaskSpec, record: &SlotRecord) {
        let Look { turned, way } = look(facts, task, record);
        if turned && !way.is_settled() && facts.spec.kind != Kind::Batch {
            let runs = live_runs(record).filter(|run| run.told_version() == facts.job.version);
            let next = runs.filter_map(|run| counts_at(facts, task, run)).min();
            let next = next.filter(|at| *at > facts.now);
            self.due = self.due.into_iter().chain(next).min();
        }
        let Some(progress) = self.tasks.get_mut(&record.slot.task) else {
            return;
        };
        progress.missing = progress.missing.saturating_sub(1);
        progress.on_their_way += u32::from(way == Way::Moves);
        if is_fresh(record, facts.job) {
            // For what was tried at another version there may be room now: it is on its way until it
            // was tried at this one.
            let tried = record.version == facts.job.version || gate(facts) != u32::MAX;
            let waits = record.waiting.is_some() && tried;
            progress.fresh += u32::from(!waits);
            progress.waiting += u32::from(waits);
            return;
        }
        let name = &record.slot.task;
        let stays = !turned && way == Way::Rests;
        let idle = stays && !live_runs(record).any(|run| serves(facts, name, run));
        progress.idle += u32::from(idle);
        progress.slots += 1;
        progress.turned += u32::from(turned);
        progress.counted += u32::from(turned && way.proves());
        progress.given_up += u32::from(way == Way::GivenUp);
        let settled = way.is_settled() || (turned && !progress.changed);
        progress.settled += u32::from(settled);
        if !progress.changed {
            return;
        }
        if turned && !settled {
            match waits_since(facts, task, record) {
                Some(since) => {
                    self.waits_since = self.waits_since.into_iter().chain([since]).min();
                    let held_up = || format!("{} {}", record.slot, how_it_stands(record, facts));
                    self.held_up.get_or_insert_with(held_up);
                }
                None => self.leaves = true,
            }
        }
        if let Some(this) = failure(facts, task, record) {
            let first = self.failure.take();
            self.failure = Some(first.map_or(this.clone(), |first| first.min(this)));
        }
    }

    /// When the clock alone brings something.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// What becomes of the update.
    pub(super) fn change(&self, facts: &Facts<'_>) -> Option<UpdateChange> {
        let update = facts.job.update.as_ref()?;
        let under_way = matches!(update.phase, UpdatePhase::Rolling | UpdatePhase::Canary);
        if !under_way || !is_wanted(facts) {
            return None;
        }
        // One that goes on after its failure has said so.
        let goes_on = facts.spec.update.on_failure == OnUpdateFailure::Continue;
        let told = goes_on && update.reason.is_some();
        if let Some((_, how)) = self.failure.as_ref().filter(|_| !told) {
            return Some(fail(facts, update, how.clone()));
        }
        let all = |is: &dyn Fn(&Progress) -> bool| self.tasks.values().all(is);
        let is_done = |task: &Progress| {
            task.settled == task.slots && task.on_their_way == 0 && task.missing == 0
        };
        if all(&is_done) {
            return Some(UpdateChange::Done);
        }
        let changed = self.tasks.values().filter(|task| task.changed);
        let counted: u32 = changed.map(|task| task.counted).sum();
        if update.phase == UpdatePhase::Rolling && self.is_at_gate(facts, update) {
            return Some(UpdateChange::AwaitsPromotion(counted));
        }
        if counted > update.settled {
            return Some(UpdateChange::Counted(counted));
        }
        let late = self.is_late(facts).filter(|_| !told);
        late.map(|reason| fail(facts, update, reason))
    }

    /// Whether every canary counts and somebody has to promote the update.
    fn is_at_gate(&self, facts: &Facts<'_>, update: &UpdateState) -> bool {
        let canaries = facts.spec.update.canary;
        let waits = |task: &Progress| {
            let enough = task.turned >= canaries.min(task.slots);
            let quiet = task.on_their_way == 0 && task.missing == 0;
            enough && task.settled == task.turned && quiet
        };
        canaries > 0 && !update.promoted && self.tasks.values().all(waits)
    }

    /// Whether every slot of the wanted version speaks for it: it is one to go back to.
    pub(super) fn is_proved(&self, facts: &Facts<'_>) -> bool {
        let phase = facts.job.update.as_ref().map(|update| update.phase);
        let stands = phase.is_none_or(|phase| phase == UpdatePhase::Done);
        let done = self.change(facts) == Some(UpdateChange::Done);
        if facts.spec.kind == Kind::Batch || !is_wanted(facts) || !(stands || done) {
            return false;
        }
        let proved = |task: &Progress| {
            let quiet = task.on_their_way == 0 && task.missing == 0 && task.given_up == 0;
            quiet && task.counted > 0 && task.settled == task.slots
        };
        let wanted = |name: &Name| match facts.spec.kind {
            Kind::System => true,
            _ => unstopped(facts.job, name, &facts.spec.tasks[name]) > 0,
        };
        let mut tasks = self
            .tasks
            .iter()
            .filter(|(name, _)| wanted(name))
            .peekable();
        tasks.peek().is_some() && tasks.all(|(_, task)| proved(task))
    }

    /// When the update is late if no further slot counts before; never while it waits for nothing
    /// but the end of old runs.
    fn deadline(&self, facts: &Facts<'_>) -> Option<Timestamp> {
        let update = facts.job.update.as_ref()?;
        if update.phase != UpdatePhase::Rolling || !is_wanted(facts) {
            return None;
        }
        let since = match self.waits_since {
            Some(since) => since.max(update.settled_at),
            None if self.leaves => return None,
            None => update.settled_at,
        };
        let after = Duration::from(facts.spec.update.deadline);
        since.checked_add(after).ok()
    }

    fn is_late(&self, facts: &Facts<'_>) -> Option<String> {
        let late = self.deadline(facts)? <= facts.now;
        late.then(|| {
            let after = facts.spec.update.deadline;
            let what = self.held_up.as_deref().unwrap_or("nothing holds it up");
            format!("no further slot was healthy within {after}: {what}")
        })
    }

    /// The version that a slot takes which had no run in this round: the wanted one, unless only
    /// canaries may.
    pub(super) fn fresh_version(&mut self, facts: &Facts<'_>, task: &Name) -> u32 {
        let Some(progress) = self.tasks.get_mut(task) else {
            return facts.job.version;
        };
        if progress.may_begin > 0 {
            progress.may_begin -= 1;
            return facts.job.version;
        }
        facts.healthy_version(task).unwrap_or(facts.job.version)
    }

    /// Whether one more slot of the task may have two live runs; it then has.
    pub(super) fn may_double(&mut self, facts: &Facts<'_>, task: &Name) -> bool {
        let Some(progress) = self.tasks.get_mut(task) else {
            return false;
        };
        let may = progress.doubled < facts.spec.update.parallel.max(1);
        progress.doubled += u32::from(may);
        may
    }
}

/// How many slots of a task may take the version over at all.
fn gate(facts: &Facts<'_>) -> u32 {
    match &facts.job.update {
        Some(update) if matches!(update.phase, UpdatePhase::Paused | UpdatePhase::Failed) => 0,
        Some(update) if update.phase == UpdatePhase::Done => u32::MAX,
        Some(update) if facts.spec.update.canary > 0 && !update.promoted => {
            facts.spec.update.canary
        }
        _ => u32::MAX,
    }
}

impl Facts<'_> {
    /// The last version that was healthy before an update under way, if it has the task.
    pub(super) fn healthy_version(&self, task: &Name) -> Option<u32> {
        let update = self.job.update.as_ref()?;
        let from = update.from.filter(|_| update.phase != UpdatePhase::Done)?;
        let (old, new) = (self.task_of(task, from)?, self.spec.tasks.get(task)?);
        // What is the same in place would only be adopted.
        let same = same_in_place(old, new);
        Some(if same { self.job.version } else { from })
    }

    /// Whether the old run of a slot of the task ends before the new one begins.
    pub fn is_stop_first(&self, task: &TaskSpec) -> bool {
        let order = self.spec.update.order_of(task);
        // What runs to completion must not do its work twice.
        self.spec.kind == Kind::Batch || order == UpdateOrder::StopFirst
    }
}

/// How many slots a task has that nobody stopped.
fn wanted_slots(facts: &Facts<'_>, name: &Name, task: &TaskSpec) -> u32 {
    // The slots of a system job are there if they are wanted; a task that waits has none yet.
    if facts.spec.kind == Kind::System || (facts.waits)(name) {
        return 0;
    }
    unstopped(facts.job, name, task)
}

fn is_wanted(facts: &Facts<'_>) -> bool {
    let runs = facts.job.wanted == loom_schemas::record::Wanted::Run;
    runs && !facts.job.status.is_terminal()
}

/// Whether an update is about a task: the versions it goes between say it otherwise.
fn is_changed(facts: &Facts<'_>, name: &Name, task: &TaskSpec) -> bool {
    let Some(update) = &facts.job.update else {
        return true;
    };
    let mut others = [update.from, update.undoes]
        .into_iter()
        .flatten()
        .peekable();
    let same = |version| {
        let old = (facts.version)(version);
        let placed = old.is_some_and(|old| old.datacenters == facts.spec.datacenters);
        let old = old.and_then(|old| old.tasks.get(name));
        placed && old.is_some_and(|old| same_in_place(old, task))
    };
    others.peek().is_none() || !others.all(same)
}

/// What an update does that has failed.
fn fail(facts: &Facts<'_>, update: &UpdateState, reason: String) -> UpdateChange {
    match (facts.spec.update.on_failure, update.from, update.undoes) {
        (OnUpdateFailure::Rollback, Some(to), None) => UpdateChange::GoBack { to, reason },
        (OnUpdateFailure::Rollback, Some(to), Some(_)) => UpdateChange::Failed(format!(
            "{reason}; it has gone back to version {to} already, so there is nothing to go back to"
        )),
        (OnUpdateFailure::Rollback, None, _) => UpdateChange::Failed(format!(
            "{reason}; there is no healthy version to go back to"
        )),
        (OnUpdateFailure::Pause, ..) => UpdateChange::Paused(reason),
        (OnUpdateFailure::Continue, ..) => UpdateChange::GoesOn(reason),
    }
}
