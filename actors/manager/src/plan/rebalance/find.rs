//! Which runs would cost less elsewhere: a list of moves, each of which lowers what all nodes cost.
//!
//! Of the runs on the dearest node the one is moved that gains the most, if one gains enough, and then
//! the dearest is looked for again; a node from which nothing is to be gained is passed over until all
//! the others have had their turn.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::{Relocation, RunRecord, Score};
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
    /// At most so many times a run is compared with a node.
    pub looks: usize,
    /// The time.
    pub now: Timestamp,
}

/// What a search may look at where nobody says: about a second's work.
pub const LOOKS: usize = 100_000_000;

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
        left: search.looks,
        seen: BTreeSet::new(),
        found: Found::default(),
    };
    finder.count();
    finder.found.view.margin_percent = search.margin_percent;
    finder.found.view.cost_before = Score(finder.cluster.total());
    while finder.sweep() {}
    let view = &mut finder.found.view;
    view.looked = u32::try_from(finder.seen.len()).unwrap_or(u32::MAX);
    let is_over = finder.left < state.nodes().count();
    view.more |= view.looked < view.movable || is_over;
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
    /// How often a run is still compared with a node.
    left: usize,
    /// Placements that were compared, or are like one that was.
    seen: BTreeSet<RunId>,
    found: Found,
}

/// A node with what it costs: the dearest is the greatest, of equals the first by name.
#[derive(Clone, Debug)]
struct Dear {
    cost: f64,
    node: Name,
}

impl Ord for Dear {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_cost = self.cost.total_cmp(&other.cost);
        by_cost.then_with(|| other.node.cmp(&self.node))
    }
}

impl PartialOrd for Dear {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Dear {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Dear {}

/// How long a run stays that a rebalance has moved: jobs by strategies that want the opposite would
/// follow each other around.
const STAYS: Duration = Duration::from_mins(10);

fn was_moved(run: &RunRecord, now: Timestamp) -> bool {
    let moved = run.decision.as_ref().is_some_and(|it| it.moved.is_some());
    let age = now.duration_since(run.placed_at);
    moved && age < SignedDuration::try_from(STAYS).unwrap_or_default()
}

/// The runs on a node that may be moved, in the order of their slots, or why they stay; the nodes are
/// ranked by a strategy where a job does not say.
fn runs_on<'a>(
    state: &'a State,
    (strategy, now): (Strategy, Timestamp),
    node: &Name,
) -> Vec<(&'a Arc<Slot>, Result<Movable<'a>, Stay>)> {
    let Some((node, load)) = state.node(node).zip(state.load(node)) else {
        return Vec::new();
    };
    let found = load.placements.iter().filter_map(|(placement, slot)| {
        let (record, job) = state.slot(slot).zip(state.job(&slot.job))?;
        let found = movable(state, job, record, node);
        // Of two runs of a slot only the one that fills it is asked for.
        let is_it = |found: &Movable<'_>| found.run.placement == *placement;
        let is_other = found.as_ref().is_ok_and(|it| !is_it(it));
        // Whose turn it is says nothing of what costs less.
        let by_turns =
            |it: &Movable<'_>| it.spec.strategy.unwrap_or(strategy) == Strategy::RoundRobin;
        let found = match found {
            Ok(it) if was_moved(it.run, now) => Err(Stay::Moved),
            Ok(it) if by_turns(&it) => Err(Stay::Turns),
            found => found,
        };
        (!is_other).then_some((slot, found))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(slot, _)| *slot);
    found
}

impl<'a> Finder<'a> {
    fn runs_on(&self, node: &Name) -> Vec<(&'a Arc<Slot>, Result<Movable<'a>, Stay>)> {
        let Search { strategy, now, .. } = *self.search;
        runs_on(self.state, (strategy, now), node)
    }

    /// Counts what may be moved, and what stays.
    fn count(&mut self) {
        for node in self.state.nodes() {
            for (_, found) in self.runs_on(&node.name) {
                let view = &mut self.found.view;
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
        let dear = |(node, cost): (&Name, f64)| Dear {
            cost,
            node: node.clone(),
        };
        let mut heap: BinaryHeap<Dear> = self.cluster.costs().map(dear).collect();
        // Those from which nothing is to be gained.
        let mut done: HashSet<Name> = HashSet::new();
        let nodes = heap.len();
        while let Some(Dear { cost, node }) = heap.pop() {
            let is_so = self.cluster.cost_of(&node).map(f64::to_bits) == Some(cost.to_bits());
            // What costs otherwise now is in the heap again.
            if !is_so || done.contains(&node) {
                continue;
            }
            let Some((candidate, best)) = self.best_of(&node, (nodes, nodes - done.len())) else {
                done.insert(node);
                continue;
            };
            if self.found.moves.len() >= self.search.most {
                self.found.view.more = true;
                return false;
            }
            self.relocate(&node, &candidate, &best);
            let costs = [node, best.to].into_iter().filter_map(|node| {
                let cost = self.cluster.cost_of(&node)?;
                Some(Dear { cost, node })
            });
            heap.extend(costs);
        }
        self.left > 0 && self.found.moves.len() > before
    }

    /// The run on a node that gains the most elsewhere, if any gains enough. Of what may still be
    /// looked at it takes the part of one of the nodes that are left, and where that is not enough for
    /// all of its runs it begins each time with another.
    fn best_of(
        &mut self,
        node: &Name,
        (nodes, left): (usize, usize),
    ) -> Option<(Candidate<'a>, Compared)> {
        let mut part = (self.left / nodes.max(1) / left.max(1)).max(1);
        let mut best: Option<(Candidate<'a>, Compared)> = None;
        let mut last: Option<(&Slot, Movable<'a>)> = None;
        let mut runs = self.runs_on(node);
        runs.retain(|(_, found)| {
            let stays = |it: &Movable<'_>| self.gone.contains(&it.run.placement);
            found.as_ref().is_ok_and(|it| !stays(it))
        });
        if runs.len() > part {
            let from = usize::try_from(self.search.now.as_second()).unwrap_or_default();
            let from = from.wrapping_mul(part) % runs.len();
            runs.rotate_left(from);
        }
        for (slot, found) in runs {
            let Ok(movable) = found else { continue };
            // Replicas that are alike gain alike; they stand beside each other.
            let is_alike = last.is_some_and(|last| are_alike(last, (slot, movable)));
            if !is_alike && (part == 0 || self.left < nodes) {
                break;
            }
            last = Some((slot, movable));
            self.seen.insert(movable.run.placement);
            if is_alike {
                continue;
            }
            part -= 1;
            self.left -= nodes;
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
        let pair = |cluster: &Cluster| {
            let costs = [node, &best.to].map(|node| cluster.cost_of(node).unwrap_or_default());
            costs[0] + costs[1]
        };
        let before = pair(&self.cluster);
        let measured = self.cluster.lift(node, candidate.holding());
        let held = &candidate.held;
        let placed = self.cluster.place_on(&best.to, task, held, run.placement);
        let Ok(placed) = placed else {
            // Only ports and gpus by name are counted otherwise than they are chosen.
            self.cluster.put_back(node, candidate.holding(), measured);
            return;
        };
        let there = self.cluster.add_measured(&best.to, measured);
        let lowers = best.avoids || best.strategy != Strategy::Epvm || pair(&self.cluster) < before;
        if !lowers {
            // What was measured counts otherwise than what is reserved.
            self.cluster
                .give_back(&best.to, held, &placed.ports, &placed.gpus);
            self.cluster.measure(&best.to, there);
            self.cluster.put_back(node, candidate.holding(), measured);
            return;
        }
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
            strategy: best.strategy,
            here: Score(best.here),
            there: Score(best.there),
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
