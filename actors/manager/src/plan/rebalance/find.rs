//! Which runs would cost less elsewhere: a list of moves, each of which lowers what all nodes cost.
//!
//! The dearest node comes first. Of its runs the one is moved that gains the most, as long as one
//! gains enough; then comes the next node, and all of them again until nothing is left to gain.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{Relocation, RunRecord, Score};
use loom_schemas::spec::TaskSpec;
use loom_schemas::wire::{MoveView, RebalanceView};
use loom_schemas::words::Strategy;

use super::super::place::failed_lately;
use super::stay::{Movable, movable};
use crate::scheduler::{Affinities, Cluster, Compared, Holding, Preferences, Request, Siblings};
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
        runs: BTreeMap::new(),
        siblings: BTreeMap::new(),
        left: COMPARED_MAX,
        found: Found::default(),
    };
    finder.gather();
    finder.found.view.margin_percent = search.margin_percent;
    finder.found.view.cost_before = Score(finder.cluster.total());
    while finder.sweep() {}
    finder.found.view.cost_after = Score(finder.cluster.total());
    finder.found
}

/// A run that may be moved.
#[derive(Clone, Debug)]
struct Candidate<'a> {
    slot: Arc<Slot>,
    run: &'a RunRecord,
    task: &'a TaskSpec,
    strategy: Option<Strategy>,
    /// What it holds where it is.
    held: Request,
    affinities: Affinities,
}

struct Finder<'a> {
    state: &'a State,
    search: &'a Search,
    cluster: Cluster,
    /// The runs that may be moved, by node.
    runs: BTreeMap<Name, Vec<Candidate<'a>>>,
    /// Where the replicas of each task are.
    siblings: BTreeMap<(Name, Name), Siblings>,
    /// How many more are compared.
    left: usize,
    found: Found,
}

impl<'a> Finder<'a> {
    fn gather(&mut self) {
        let state = self.state;
        for node in state.nodes() {
            let load = state.load(&node.name);
            let slots = load.into_iter().flat_map(|load| &load.placements);
            let mut candidates = Vec::new();
            for (placement, slot) in slots {
                let record = state.slot(slot).zip(state.job(&slot.job));
                let Some((record, job)) = record else {
                    continue;
                };
                match movable(state, job, record, node) {
                    // Of two runs of a slot only the one that fills it is asked for.
                    Ok(found) if found.run.placement == *placement => {
                        candidates.push(Candidate::of(slot, found));
                    }
                    Ok(_) => {}
                    Err(why) => {
                        let stay = &mut self.found.view.stay;
                        *stay.entry(why.as_str().to_owned()).or_default() += 1;
                    }
                }
            }
            candidates.sort_by(|a, b| a.slot.cmp(&b.slot));
            let count = u32::try_from(candidates.len()).unwrap_or(u32::MAX);
            self.found.view.movable += count;
            if count > 0 {
                self.runs.insert(node.name.clone(), candidates);
            }
        }
    }

    /// Looks at every node once; whether something was moved and more may be.
    fn sweep(&mut self) -> bool {
        let before = self.found.moves.len();
        for (node, _) in self.cluster.dearest() {
            while let Some((at, best)) = self.best_of(&node) {
                if self.found.moves.len() >= self.search.most || self.left == 0 {
                    self.found.view.more = true;
                    return false;
                }
                self.relocate(&node, at, &best);
            }
        }
        self.left > 0 && self.found.moves.len() > before
    }

    /// The run on a node that gains the most elsewhere, if any gains enough.
    fn best_of(&mut self, node: &Name) -> Option<(usize, Compared)> {
        let candidates = self.runs.remove(node)?;
        let mut best: Option<(usize, Compared)> = None;
        let mut last: Option<&Candidate<'_>> = None;
        for (at, candidate) in candidates.iter().enumerate() {
            // Replicas that are alike gain alike; they stand beside each other.
            let is_alike = last.is_some_and(|last| last.is_like(candidate));
            last = Some(candidate);
            if is_alike || self.left == 0 {
                continue;
            }
            self.left -= 1;
            let compared = self.compared(node, candidate);
            let compared = compared.filter(|it| it.is_worth(self.search.margin_percent));
            if let Some(compared) = compared
                && best
                    .as_ref()
                    .is_none_or(|(_, b)| compared.gain() > b.gain())
            {
                best = Some((at, compared));
            }
        }
        self.runs.insert(node.clone(), candidates);
        best
    }

    fn compared(&mut self, node: &Name, candidate: &Candidate<'a>) -> Option<Compared> {
        let key = (candidate.slot.job.clone(), candidate.slot.task.clone());
        let state = self.state;
        let siblings = self.siblings.entry(key).or_insert_with_key(|(job, task)| {
            let slots = state.slots_of_task(job, task);
            let nodes = slots.flat_map(|record| live_runs(record).filter_map(|r| r.node.as_ref()));
            nodes.collect()
        });
        let record = state.slot(&candidate.slot)?;
        let failed = failed_lately(record, self.search.now);
        let measured = self.cluster.lift(node, candidate.holding());
        siblings.remove(node);
        let mut preferences = Preferences {
            strategy: candidate.strategy,
            siblings: Some(siblings),
            failed: &failed,
            affinities: candidate.affinities.clone(),
            spread: &candidate.task.spread,
            own: None,
        };
        let compared = self
            .cluster
            .compare(node, &candidate.held, &mut preferences);
        self.cluster.put_back(node, candidate.holding(), measured);
        siblings.add(node);
        compared
    }

    /// Notes a move, and has what follows see it as done.
    fn relocate(&mut self, node: &Name, at: usize, best: &Compared) {
        let Some(candidates) = self.runs.get_mut(node) else {
            return;
        };
        // It is moved once at most.
        let candidate = candidates.remove(at);
        let measured = self.cluster.lift(node, candidate.holding());
        let (task, held) = (candidate.task, &candidate.held);
        let placed = self
            .cluster
            .place_on(&best.to, task, held, candidate.run.placement);
        if placed.is_err() {
            // Only ports and gpus by name are counted otherwise than they are chosen.
            self.cluster.put_back(node, candidate.holding(), measured);
            return;
        }
        self.cluster.add_measured(&best.to, measured);
        let slot = Slot::clone(&candidate.slot);
        let key = (slot.job.clone(), slot.task.clone());
        if let Some(siblings) = self.siblings.get_mut(&key) {
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
        });
        self.found.moves.push(Relocation {
            slot,
            placement: candidate.run.placement,
            from: node.clone(),
            to: best.to.clone(),
            tried: false,
        });
    }
}

impl<'a> Candidate<'a> {
    fn of(slot: &Arc<Slot>, Movable { run, task, spec }: Movable<'a>) -> Self {
        let request = Request::of_slot(spec, task, &slot.index);
        Self {
            slot: Arc::clone(slot),
            run,
            task,
            strategy: spec.strategy,
            held: Request {
                amounts: Held::of(&run.reserved),
                ..request
            },
            affinities: Affinities::of(task),
        }
    }

    fn holding(&self) -> Holding<'_> {
        Holding {
            request: &self.held,
            ports: &self.run.ports,
            gpus: self.run.own_gpus(),
        }
    }

    /// Whether it gains where the other does.
    fn is_like(&self, other: &Self) -> bool {
        let of = |it: &Self| (it.slot.job.clone(), it.slot.task.clone(), it.run.version);
        of(self) == of(other) && self.held == other.held
    }
}
