//! When so many runs with the same request fit at once, as others come to their ends: kept from look to
//! look, so that a look costs what has changed since the last one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use jiff::Timestamp;
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{RunRecord, SlotRecord};

use super::fits::{Room, suits};
use super::request::Request;
use super::together::how_many;
use crate::state::{State, live_runs};

/// Of so many requests it is kept how many fit; the one not asked for longest is forgotten.
const REQUESTS_MAX: usize = 8;

/// When a run has ended at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The time.
    pub at: Timestamp,
    /// Whether it is counted from now, so that it is another one at every look.
    pub moves: bool,
}

/// A run of which it is known when it has ended.
#[derive(Clone, Debug)]
struct Ending {
    at: Timestamp,
    record: Arc<SlotRecord>,
    placement: RunId,
}

impl Ending {
    fn run(&self) -> Option<&RunRecord> {
        self.record.placed(self.placement)
    }
}

/// The known ends of the runs of all nodes, and how many runs of some requests fit when.
#[derive(Clone, Debug, Default)]
pub struct Outlooks {
    followed: Option<State>,
    /// The runs of each node of which any is known, in the order of their ends.
    nodes: HashMap<Name, Vec<Ending>>,
    /// Nodes on which an end is counted from now.
    moving: BTreeSet<Name>,
    /// The next end on each node.
    next: BTreeSet<(Timestamp, Name)>,
    fits: Vec<Fits>,
}

/// How many runs with a request fit, at most so many on a node.
#[derive(Clone, Debug)]
struct Fits {
    request: Request,
    most: usize,
    nodes: HashMap<Name, Steps>,
    /// On all nodes now.
    now: usize,
    /// How many more from each time on.
    more: BTreeMap<Timestamp, usize>,
    /// Whether they fit nodes on which nothing runs, once somebody asked.
    ever: Option<bool>,
}

/// How many fit a node now, and how many more from each time on.
#[derive(Clone, Debug, Default)]
struct Steps {
    now: usize,
    more: Vec<(Timestamp, usize)>,
}

impl Outlooks {
    /// Has the ends be those of a state, whichever was followed before; `end_of` says when a run that
    /// is live has ended, if that is known.
    pub fn follow(
        &mut self,
        state: &State,
        now: Timestamp,
        end_of: &dyn Fn(&SlotRecord, &RunRecord) -> Option<End>,
    ) {
        let mut changed = std::mem::take(&mut self.moving);
        while self.next.first().is_some_and(|(at, _)| *at <= now) {
            changed.extend(self.next.pop_first().map(|(_, node)| node));
        }
        match self.followed.replace(state.clone()) {
            None => changed.extend(state.nodes().map(|node| node.name.clone())),
            Some(before) => self.note_changes(&before, state, &mut changed),
        }
        for name in &changed {
            self.look_at(state, name, end_of);
        }
    }

    /// The nodes on which something is otherwise than before.
    fn note_changes(&mut self, before: &State, state: &State, changed: &mut BTreeSet<Name>) {
        let nodes = before.node_records().diff(state.node_records());
        for item in nodes {
            changed.insert(name_of(&item));
            self.fits.iter_mut().for_each(|fits| fits.ever = None);
        }
        let loads = before.node_loads().diff(state.node_loads());
        changed.extend(loads.map(|item| name_of(&item)));
        before.changed_slots(state, &mut |record| {
            changed.extend(live_runs(record).filter_map(|run| run.node.clone()));
        });
    }

    fn look_at(
        &mut self,
        state: &State,
        name: &Name,
        end_of: &dyn Fn(&SlotRecord, &RunRecord) -> Option<End>,
    ) {
        if let Some(first) = self
            .nodes
            .remove(name)
            .and_then(|ends| Some(ends.first()?.at))
        {
            self.next.remove(&(first, name.clone()));
        }
        let load = state.load(name);
        let mut ends = Vec::new();
        for (placement, slot) in load.into_iter().flat_map(|load| &load.placements) {
            let Some(record) = state.slot(slot) else {
                continue;
            };
            let run = live_runs(record).find(|run| run.placement == *placement);
            if let Some(end) = run.and_then(|run| end_of(record, run)) {
                if end.moves {
                    self.moving.insert(name.clone());
                }
                ends.push(Ending {
                    at: end.at,
                    record: Arc::clone(record),
                    placement: *placement,
                });
            }
        }
        ends.sort_by_key(|end| end.at);
        let room = state.node(name).map(|node| Room::of(node, load));
        for fits in &mut self.fits {
            fits.put(name, room.as_ref(), &ends);
        }
        if let Some(first) = ends.first() {
            self.next.insert((first.at, name.clone()));
            self.nodes.insert(name.clone(), ends);
        }
    }

    /// The earliest known end at which so many runs with a request fit at once.
    pub fn earliest(&mut self, request: &Request, all: usize) -> Option<Timestamp> {
        let fits = self.fits_of(request, all);
        let (mut fit, more) = (fits.now, &fits.more);
        let found = more.iter().find(|(_, count)| {
            fit += **count;
            fit >= all
        });
        match found {
            _ if fits.now >= all => self.next.first().map(|(at, _)| *at),
            found => found.map(|(at, _)| *at),
        }
    }

    /// Whether so many fit at once if nothing else ran, as `ask` says; asked once until a node changes.
    pub fn fit_ever(&mut self, request: &Request, all: usize, ask: impl FnOnce() -> bool) -> bool {
        *self.fits_of(request, all).ever.get_or_insert_with(ask)
    }

    /// The runs of a node that have ended at a time.
    pub fn ended(&self, node: &Name, at: Timestamp) -> impl Iterator<Item = &RunRecord> {
        let ends = self.nodes.get(node).into_iter().flatten();
        let ended = ends.take_while(move |end| end.at <= at);
        ended.filter_map(Ending::run)
    }

    /// All times at which a run has ended, in order.
    pub fn times(&self) -> Vec<Timestamp> {
        let ends = self.nodes.values().flatten().map(|end| end.at);
        let times: BTreeSet<Timestamp> = ends.collect();
        times.into_iter().collect()
    }

    fn fits_of(&mut self, request: &Request, most: usize) -> &mut Fits {
        let is_it = |fits: &Fits| fits.most == most && fits.request == *request;
        let fits = if let Some(at) = self.fits.iter().position(is_it) {
            self.fits.remove(at)
        } else {
            let mut fits = Fits::of(request, most);
            for node in self.followed.iter().flat_map(State::nodes) {
                let load = self
                    .followed
                    .as_ref()
                    .and_then(|state| state.load(&node.name));
                let ends = self.nodes.get(&node.name).map_or(&[][..], Vec::as_slice);
                fits.put(&node.name, Some(&Room::of(node, load)), ends);
            }
            self.fits.truncate(REQUESTS_MAX - 1);
            fits
        };
        self.fits.insert(0, fits);
        &mut self.fits[0]
    }
}

impl Fits {
    fn of(request: &Request, most: usize) -> Self {
        Self {
            request: request.clone(),
            most,
            nodes: HashMap::new(),
            now: 0,
            more: BTreeMap::new(),
            ever: None,
        }
    }

    /// Counts a node as it is now.
    fn put(&mut self, name: &Name, room: Option<&Room>, ends: &[Ending]) {
        if let Some(old) = self.nodes.remove(name) {
            self.now -= old.now;
            for (at, count) in old.more {
                if let Some(sum) = self.more.get_mut(&at) {
                    *sum -= count;
                    if *sum == 0 {
                        self.more.remove(&at);
                    }
                }
            }
        }
        let steps = room.and_then(|room| Steps::of(room, ends, &self.request, self.most));
        let Some(steps) = steps else { return };
        self.now += steps.now;
        for (at, count) in &steps.more {
            *self.more.entry(*at).or_default() += count;
        }
        self.nodes.insert(name.clone(), steps);
    }
}

impl Steps {
    /// Those of a node that could have a run with the request at any time.
    fn of(room: &Room, ends: &[Ending], request: &Request, most: usize) -> Option<Self> {
        suits(room, request).ok()?;
        let mut room = room.clone();
        let mut here = how_many(&room, request, most);
        let mut steps = Self {
            now: here,
            more: Vec::new(),
        };
        for end in ends {
            let Some(run) = end.run() else { continue };
            room.give_up(run);
            let then = how_many(&room, request, most);
            if then > here {
                steps.more.push((end.at, then - here));
                here = then;
            }
        }
        (here > 0).then_some(steps)
    }
}

fn name_of<V>(item: &DiffItem<'_, '_, Name, V>) -> Name {
    match item {
        DiffItem::Add(name, _)
        | DiffItem::Remove(name, _)
        | DiffItem::Update { new: (name, _), .. } => Name::clone(name),
    }
}
