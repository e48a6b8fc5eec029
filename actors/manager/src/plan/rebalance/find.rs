//! Which runs would cost less elsewhere: a list of moves, each of which lowers what all nodes cost.
//!
//! Of the runs on the dearest node the one is moved that gains the most, if one gains enough, and then
//! the dearest is looked for again; a node from which nothing is to be gained is passed over until all
//! the others have had their turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::{Relocation, Score};
use loom_schemas::wire::{MoveView, RebalanceView};
use loom_schemas::words::Strategy;

use super::super::failures;
use super::stay::{Movable, Stay, movable};
use crate::scheduler::{
    Affinities, Cluster, Compared, Holding, Margin, Preferences, Request, Siblings,
};
use crate::state::{Held, State, live_runs};

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// How nodes are ranked where a job does not say.
    pub strategy: Strategy,
    /// By how much a move has to lower the cost, in percent.
    pub margin_percent: u8,
    /// At most so many moves.
    pub most: usize,
    /// The time.
    pub now: Timestamp,
}

/// At most so many runs are compared on all nodes in one search.
const COMPARED_MAX: usize = 20_000;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The moves, in the order in which they gain.
    pub moves: Vec<Relocation>,
    /// What is told of them.
    pub view: RebalanceView,
}

/// Looks for runs that would cost less on other nodes.
pub fn find(state: &State, search: &Search) -> Found {
    let mut finder = Finder {
        state,
        search,
        cluster: Cluster::of(state, search.strategy),
        tasks: BTreeMap::new(),
        gone: BTreeSet::new(),
        left: COMPARED_MAX,
        found: Found::default(),
    };
    finder.count();
    finder.found.view.margin_percent = search.margin_percent;
    finder.found.view.cost_before = Score(finder.cluster.total());
    while finder.sweep() {}
    finder.found.view.cost_after = Score(finder.cluster.total());
    finder.found
}

/// A run that may be moved, and what it holds where it is.
#[derive(Clone, Debug)]
struct Candidate<'a> {
    slot: &'a Arc<Slot>,
    movable: Movable<'a>,
    held: Request,
}

/// The replicas of a task.
struct Replicas {
    siblings: Siblings,
    /// Where it failed lately, and how often.
    failed: Vec<(Name, u8)>,
}

struct Finder<'a> {
    state: &'a State,
    search: &'a Search,
    cluster: Cluster,
    /// By job and task.
    tasks: BTreeMap<(Name, Name), Replicas>,
    /// Placements that are moved: each is once at most.
    gone: BTreeSet<RunId>,
    /// How many more are compared.
    left: usize,
    found: Found,
}

/// The runs on a node that may be moved, in the order of their slots, or why they stay.
fn runs_on<'a>(state: &'a State, node: &Name) -> Vec<(&'a Arc<Slot>, Result<Movable<'a>, Stay>)> {
    let Some((node, load)) = state.node(node).zip(state.load(node)) else {
        return Vec::new();
    };
    let found = load.placements.iter().filter_map(|(placement, slot)| {
        let (record, job) = state.slot(slot).zip(state.job(&slot.job))?;
        let found = movable(state, job, record, node);
        // Of two runs of a slot only the one that fills it is asked for.
        let is_it = |found: &Movable<'_>| found.run.placement == *placement;
        (!found.as_ref().is_ok_and(|it| !is_it(it))).then_some((slot, found))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(slot, _)| *slot);
    found
}

impl<'a> Finder<'a> {
    /// Counts what may be moved, and what stays.
    fn count(&mut self) {
        let view = &mut self.found.view;
        for node in self.state.nodes() {
            for (_, found) in runs_on(self.state, &node.name) {
                match found {
                    Ok(_) => view.movable += 1,
                    Err(why) => *view.stay.entry(why.as_str().to_owned()).or_default() += 1,
                }
            }
        }
    }

    /// Looks at every node, the dearest of all first; whether something was moved and more may be.
    fn sweep(&mut self) -> bool {
        let before = self.found.moves.len();
        // Those from which something may be gained.
        let nodes = self.state.nodes().map(|node| node.name.clone());
        let mut left: BTreeSet<Name> = nodes.collect();
        while let Some(node) = self.cluster.dearest(|node| left.contains(node)).cloned() {
            let Some((candidate, best)) = self.best_of(&node) else {
                left.remove(&node);
                continue;
            };
            if self.found.moves.len() >= self.search.most || self.left == 0 {
                self.found.view.more = true;
                return false;
            }
            self.relocate(&node, &candidate, &best);
        }
        self.left > 0 && self.found.moves.len() > before
    }

    /// The run on a node that gains the most elsewhere, if any gains enough.
    fn best_of(&mut self, node: &Name) -> Option<(Candidate<'a>, Compared)> {
        let mut best: Option<(Candidate<'a>, Compared)> = None;
        let mut last: Option<(&Slot, Movable<'a>)> = None;
        for (slot, found) in runs_on(self.state, node) {
            let Some(movable) = found
                .ok()
                .filter(|it| !self.gone.contains(&it.run.placement))
            else {
                continue;
            };
            // Replicas that are alike gain alike; they stand beside each other.
            let is_alike = last.is_some_and(|last| are_alike(last, (slot, movable)));
            last = Some((slot, movable));
            if is_alike || self.left == 0 {
                continue;
            }
            self.left -= 1;
            let candidate = Candidate::of(slot, movable);
            let compared = self.compared(node, &candidate);
            if let Some(compared) = compared
                && best
                    .as_ref()
                    .is_none_or(|(_, b)| compared.cmp_gain(b).is_gt())
            {
                best = Some((candidate, compared));
            }
        }
        best
    }

    fn compared(&mut self, node: &Name, candidate: &Candidate<'a>) -> Option<Compared> {
        let key = (candidate.slot.job.clone(), candidate.slot.task.clone());
        let Movable { task, spec, .. } = candidate.movable;
        let state = self.state;
        let now = self.search.now;
        let margin = Margin {
            percent: self.search.margin_percent,
        };
        let Replicas { siblings, failed } =
            self.tasks.entry(key).or_insert_with_key(|(job, task)| {
                let slots = || state.slots_of_task(job, task).map(AsRef::as_ref);
                let nodes = slots().flat_map(live_runs);
                let nodes = nodes.filter_map(|run| run.node.as_ref());
                Replicas {
                    siblings: nodes.collect(),
                    failed: failures::of_task(slots(), now),
                }
            });
        let measured = self.cluster.lift(node, candidate.holding());
        siblings.remove(node);
        let mut preferences = Preferences {
            strategy: spec.strategy,
            siblings: Some(siblings),
            failed,
            affinities: Affinities::of(task),
            spread: &task.spread,
            own: None,
        };
        let compared = self
            .cluster
            .compare(node, &candidate.held, &mut preferences, margin);
        self.cluster.put_back(node, candidate.holding(), measured);
        siblings.add(node);
        compared
    }

    /// Notes a move, and has what follows see it as done.
    fn relocate(&mut self, node: &Name, candidate: &Candidate<'a>, best: &Compared) {
        let Movable { run, task, .. } = candidate.movable;
        self.gone.insert(run.placement);
        let measured = self.cluster.lift(node, candidate.holding());
        let held = &candidate.held;
        if self
            .cluster
            .place_on(&best.to, task, held, run.placement)
            .is_err()
        {
            // Only ports and gpus by name are counted otherwise than they are chosen.
            self.cluster.put_back(node, candidate.holding(), measured);
            return;
        }
        self.cluster.add_measured(&best.to, measured);
        let slot = Slot::clone(candidate.slot);
        let key = (slot.job.clone(), slot.task.clone());
        if let Some(Replicas { siblings, .. }) = self.tasks.get_mut(&key) {
            siblings.remove(node);
            siblings.add(&best.to);
        }
        self.found.view.moves.push(MoveView {
            slot: slot.clone(),
            from: node.clone(),
            to: best.to.clone(),
            strategy: best.strategy,
            here: Score(best.here),
            there: Score(best.there),
            avoids: best.avoids,
        });
        self.found.moves.push(Relocation {
            slot,
            placement: run.placement,
            from: node.clone(),
            to: best.to.clone(),
            avoids: best.avoids,
            deadline: None,
            tried: false,
        });
    }
}

impl<'a> Candidate<'a> {
    fn of(slot: &'a Arc<Slot>, movable: Movable<'a>) -> Self {
        let request = Request::of_slot(movable.spec, movable.task, &slot.index);
        Self {
            slot,
            movable,
            held: Request {
                amounts: Held::of(&movable.run.reserved),
                ..request
            },
        }
    }

    fn holding(&self) -> Holding<'_> {
        let run = self.movable.run;
        Holding {
            request: &self.held,
            ports: &run.ports,
            gpus: run.own_gpus(),
        }
    }
}

/// Whether what one run gains the other does as well: replicas of a task that hold the same.
fn are_alike((a, one): (&Slot, Movable<'_>), (b, other): (&Slot, Movable<'_>)) -> bool {
    (&a.job, &a.task, one.run.version) == (&b.job, &b.task, other.run.version)
        && one.run.reserved == other.run.reserved
        && !one.task.has_own(&a.index)
        && !other.task.has_own(&b.index)
}
