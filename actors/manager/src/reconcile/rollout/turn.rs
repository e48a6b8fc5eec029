//! Which slots take a version over next.

use loom_schemas::ids::Name;
use loom_schemas::record::{Order, SlotRecord};
use loom_schemas::spec::TaskSpec;
use loom_schemas::words::RunState;

use super::look::{is_unhealthy, serves};
use super::{Rollout, gate};
use crate::reconcile::Facts;
use crate::reconcile::turn::Entry;
use crate::reconcile::verdict::{Stand, is_fresh, stand, unwanted, version_of};
use crate::state::live_runs;

impl Rollout {
    /// Has slots take the version over, as many as may.
    pub(in crate::reconcile) fn turn(&mut self, facts: &Facts<'_>, entries: &mut [Entry<'_>]) {
        let mut from = 0;
        while let Some(first) = entries.get(from) {
            let name = first.record.slot.task.clone();
            let same = |entry: &&Entry<'_>| entry.record.slot.task == name;
            let count = entries[from..].iter().take_while(same).count();
            self.turn_task(facts, &name, &mut entries[from..from + count]);
            from += count;
        }
    }

    fn turn_task(&mut self, facts: &Facts<'_>, name: &Name, entries: &mut [Entry<'_>]) {
        let (Some(task), Some(progress)) = (facts.spec.tasks.get(name), self.tasks.get_mut(name))
        else {
            return;
        };
        let begin = progress.may_begin.min(progress.fresh + progress.missing);
        let mut gate = gate(facts).saturating_sub(progress.turned.saturating_add(begin));
        let parallel = facts.spec.update.parallel.max(1);
        let mut budget = parallel.saturating_sub(progress.on_their_way);
        // What waits for a node comes as the version before where a canary is taken from it.
        let waiting = match progress.may_begin {
            u32::MAX => 0,
            _ => progress.waiting,
        };
        let mut idle = progress.idle + waiting;
        let mut candidates: Vec<(Rank, &mut Entry<'_>)> = entries
            .iter_mut()
            .filter_map(|entry| Some((rank(facts, task, &entry.record)?, entry)))
            .collect();
        // Of equals the first index goes first: the sort is stable.
        candidates.sort_by_key(|(rank, _)| *rank);
        for (rank, entry) in candidates {
            if gate == 0 {
                break;
            }
            // With stop-first, what serves goes only while enough others do.
            let spare = match rank {
                Rank::Serving if facts.is_stop_first(task) => budget.saturating_sub(idle),
                _ => budget,
            };
            if rank > Rank::Free && spare == 0 {
                break;
            }
            // One that is on its way already was counted; one that is down is so from now on, and
            // idle no more.
            if !is_on_its_way(&entry.record) {
                budget = budget.saturating_sub(1);
                if rank < Rank::Serving {
                    idle = idle.saturating_sub(1);
                }
            }
            gate -= 1;
            entry.turn(facts, facts.job.version);
        }
        if progress.may_begin != u32::MAX {
            // What waits for a node has no claim on the place of a canary, but may have what is left.
            progress.may_begin = begin.saturating_add(gate);
        }
    }
}

fn is_on_its_way(record: &SlotRecord) -> bool {
    is_doubled(record) || live_runs(record).any(|run| run.order != Order::Run)
}

/// Whether a run of another version is to take over; one of the same only moves to another node.
fn is_doubled(record: &SlotRecord) -> bool {
    let current = record.current.as_ref().map(|run| run.version);
    let incoming = record.incoming.as_ref();
    incoming.is_some_and(|incoming| Some(incoming.version) != current)
}

/// Who takes the version over first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It has nothing to lose, or is on its way already: it waits for nobody.
    Free,
    /// It is down.
    Down,
    /// It is on its way to running.
    Starting,
    /// It runs, and does not serve as far as anybody knows.
    Running,
    /// It serves.
    Serving,
    /// Its node is silent and would not hear of it.
    Unknown,
}

/// The place of a slot among those that take the version over; none if it is not to.
fn rank(facts: &Facts<'_>, task: &TaskSpec, record: &SlotRecord) -> Option<Rank> {
    let (job, name) = (facts.job, &record.slot.task);
    let wanted = unwanted(job, facts.spec, record).is_none();
    if !wanted || is_fresh(record, job) || version_of(record, job) == job.version {
        return None;
    }
    let old = facts.task_at(name, version_of(record, job)).unwrap_or(task);
    if matches!(stand(job, facts.spec.kind, old, record), Stand::Done) {
        return None;
    }
    let stays = live_runs(record).find(|run| run.order == Order::Run);
    let leaves = stays.is_none() && live_runs(record).next().is_some();
    if facts.is_stop_first(task) && stays.is_some() {
        // Turned while a run beside it leaves, it would end later than was decided.
        if live_runs(record).count() > 1 {
            return None;
        }
    } else if leaves || is_doubled(record) {
        return Some(Rank::Free);
    }
    let healthy = job.update.as_ref().and_then(|update| update.from);
    let down = match stays {
        None => true,
        Some(run) => run.state.is_terminal() || is_unhealthy(run),
    };
    Some(match stays {
        _ if down && healthy != Some(version_of(record, job)) => Rank::Free,
        None => Rank::Down,
        Some(_) if down => Rank::Down,
        Some(run) if run.marks.unknown => Rank::Unknown,
        Some(run) if run.state != RunState::Running => Rank::Starting,
        Some(run) if serves(facts, name, run) => Rank::Serving,
        Some(_) => Rank::Running,
    })
}
