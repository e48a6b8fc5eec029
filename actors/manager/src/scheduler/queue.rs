//! What waits for a node, by what it asks for: so that a node that has more room, or has changed,
//! wakes those alone whom it fits now.
//!
//! Whoever waits fitted nowhere when it was tried, so nothing but such a node can help it, and no
//! other is asked. The classes are in order of what they ask for: of those that ask for more than
//! the node has left, or would have if all were evicted who may be, none is looked at.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdSet;
use imbl::ordset::DiffItem;
use jiff::Timestamp;
use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::NodeRecord;

use super::apartness::Apartness;
use super::fits::{DIMENSIONS, Room, fits};
use super::request::Request;

type Classes = BTreeMap<[u64; DIMENSIONS], HashMap<Arc<Request>, BTreeSet<Slot>>>;

/// What counts for a slot that waits beside what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// That of its job.
    pub priority: u8,
    /// Whether it may use room that is kept for a gang: it is of one, or its time is limited.
    pub borrows: bool,
    /// Whether it is of a gang, for which room may be kept as soon as it is known when all fit.
    pub gang: bool,
}

/// What waits, kept from pass to pass beside the nodes.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// The waiting slots of the state that was followed last.
    followed: OrdSet<Slot>,
    /// Slots noted since, which may not come to wait.
    noted: BTreeSet<Slot>,
    requests: HashMap<Slot, (Arc<Request>, Rank)>,
    /// Slots that may go to any node, by rank and request, those with the same demands together.
    classes: BTreeMap<Rank, Classes>,
    /// Slots of one node alone.
    pinned: HashMap<Name, BTreeSet<Slot>>,
    /// Slots of which nobody said what they ask for: any node may help.
    unknown: BTreeSet<Slot>,
    looked: u64,
    /// Gangs that waited when they were tried, the first in the order of the queue first.
    gangs: BTreeSet<GangKey>,
    /// Whether room was kept for a gang when that was looked at last.
    was_reserved: bool,
    /// Whether there may be another, since room is kept for none.
    looks: bool,
    /// The one that was looked at last, for which none could be kept.
    looked_at: Option<GangKey>,
}

/// A gang in the order of the queue: by priority, then by when its job came.
pub type GangKey = (Reverse<u8>, Timestamp, Name, Name);

impl Queue {
    /// Has the slots that wait be those of a state, whichever was followed before.
    pub fn follow(&mut self, waiting: &OrdSet<Slot>) {
        let mut gone = Vec::new();
        for item in self.followed.diff(waiting) {
            match item {
                DiffItem::Add(slot) if !self.requests.contains_key(slot) => {
                    self.unknown.insert(slot.clone());
                }
                DiffItem::Remove(slot) => gone.push(slot.clone()),
                DiffItem::Add(_) => {}
            }
        }
        let noted = std::mem::take(&mut self.noted);
        gone.extend(noted.into_iter().filter(|slot| !waiting.contains(slot)));
        for slot in &gone {
            self.forget(slot);
        }
        if !self.gangs.is_empty() {
            self.forget_gangs(&gone, waiting);
        }
        self.followed = waiting.clone();
    }

    /// A slot of this rank was refused what it asked for.
    pub fn note(&mut self, slot: &Slot, request: &Request, rank: Rank) {
        let known = self.requests.get(slot);
        if known.is_some_and(|(known, at)| (&**known, *at) == (request, rank)) {
            return;
        }
        self.forget(slot);
        let request = Arc::new(request.clone());
        if let Some(node) = slot.index.node() {
            let slots = self.pinned.entry(node.clone()).or_default();
            slots.insert(slot.clone());
        } else {
            let classes = self.classes.entry(rank).or_default();
            let of_size = classes.entry(request.asked());
            let slots = of_size.or_default().entry(request.clone()).or_default();
            slots.insert(slot.clone());
        }
        self.requests.insert(slot.clone(), (request, rank));
        self.noted.insert(slot.clone());
    }

    /// Whether it is known what a slot asks for, at this priority.
    pub fn has(&self, slot: &Slot, priority: u8) -> bool {
        let known = self.requests.get(slot);
        known.is_some_and(|(_, rank)| rank.priority == priority)
    }

    /// Whether any of those that wait is of a gang, or may be.
    pub fn has_gangs(&self) -> bool {
        !self.unknown.is_empty() || self.classes.keys().any(|rank| rank.gang)
    }

    /// A gang was tried and waits.
    pub fn note_gang(&mut self, gang: GangKey) {
        self.gangs.insert(gang);
    }

    /// A gang for which room can be kept now that it is kept for none: the first that still waits, then
    /// the next, each once, until room is kept again.
    pub fn next_gang(
        &mut self,
        is_reserved: bool,
        waits: impl Fn(&Name, &Name) -> bool,
    ) -> Option<Name> {
        let was_reserved = std::mem::replace(&mut self.was_reserved, is_reserved);
        if is_reserved || was_reserved {
            (self.looks, self.looked_at) = (!is_reserved, None);
        }
        if !std::mem::take(&mut self.looks) {
            return None;
        }
        let from = self.looked_at.take();
        let from = from.map_or(Bound::Unbounded, Bound::Excluded);
        let mut after = self.gangs.range((from, Bound::Unbounded));
        let next = after.find(|(.., job, task)| waits(job, task)).cloned()?;
        let job = next.2.clone();
        (self.looks, self.looked_at) = (true, Some(next));
        Some(job)
    }

    /// Whether there may be another gang for which room can be kept.
    pub fn looks_for_gang(&self) -> bool {
        self.looks
    }

    /// The jobs of slots of which nobody said what they ask for: any node may help.
    pub fn unknown(&self) -> impl Iterator<Item = Name> + '_ {
        self.unknown.iter().map(|slot| slot.job.clone())
    }

    /// Adds the jobs of which a slot may fit a node that has so much for each rank now, and is apart
    /// from where the other replicas are.
    pub fn woken_by(
        &mut self,
        node: &Arc<NodeRecord>,
        room_for: &dyn Fn(Rank) -> Room,
        apart: &mut Apartness<'_>,
        jobs: &mut BTreeSet<Name>,
    ) {
        for slot in self.pinned.get(&node.name).into_iter().flatten() {
            self.looked += 1;
            let known = self.requests.get(slot);
            if known.is_some_and(|(request, rank)| fits(&room_for(*rank), request).is_ok()) {
                jobs.insert(slot.job.clone());
            }
        }
        for (rank, classes) in &self.classes {
            let room = room_for(*rank);
            let free = room.free();
            let most: [u64; DIMENSIONS] =
                std::array::from_fn(|d| if d == 0 { free[0] } else { u64::MAX });
            for (asked, class) in classes.range(..=most) {
                if (0..DIMENSIONS).any(|d| asked[d] > free[d]) {
                    continue;
                }
                for (request, slots) in class {
                    self.looked += 1;
                    if fits(&room, request).is_ok() {
                        let may = |slot: &&Slot| apart.allows(request, slot, node);
                        jobs.extend(slots.iter().filter(may).map(|slot| slot.job.clone()));
                    }
                }
            }
        }
    }

    /// How many requests were compared with a node so far.
    pub fn looked(&self) -> u64 {
        self.looked
    }

    /// Forgets the gangs of slots that are gone, unless others of theirs wait.
    fn forget_gangs(&mut self, gone: &[Slot], waiting: &OrdSet<Slot>) {
        let tasks: BTreeSet<(&Name, &Name)> =
            gone.iter().map(|slot| (&slot.job, &slot.task)).collect();
        let waits = |(job, task): (&Name, &Name)| {
            let first = Slot::new(job.clone(), task.clone(), 0);
            let next = waiting.range(first..).next();
            next.is_some_and(|slot| (&slot.job, &slot.task) == (job, task))
        };
        if !tasks.is_empty() {
            self.gangs
                .retain(|(.., job, task)| !tasks.contains(&(job, task)) || waits((job, task)));
        }
    }

    fn forget(&mut self, slot: &Slot) {
        self.unknown.remove(slot);
        let Some((request, rank)) = self.requests.remove(slot) else {
            return;
        };
        if let Some(node) = slot.index.node() {
            take(&mut self.pinned, node, slot);
            return;
        }
        let Some(classes) = self.classes.get_mut(&rank) else {
            return;
        };
        let asked = request.asked();
        if let Some(class) = classes.get_mut(&asked) {
            take(class, &request, slot);
            if class.is_empty() {
                classes.remove(&asked);
            }
        }
        if classes.is_empty() {
            self.classes.remove(&rank);
        }
    }
}

/// Takes a slot out of a set; an empty set is not kept.
fn take<K: Eq + std::hash::Hash>(sets: &mut HashMap<K, BTreeSet<Slot>>, key: &K, slot: &Slot) {
    if let Some(slots) = sets.get_mut(key) {
        slots.remove(slot);
        if slots.is_empty() {
            sets.remove(key);
        }
    }
}
