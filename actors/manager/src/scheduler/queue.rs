//! What waits for a node, by what it asks for: so that a node that has more room, or has changed,
//! wakes those alone whom it fits now.
//!
//! Whoever waits fitted nowhere when it was tried, so nothing but such a node can help it, and no
//! other is asked. The classes are in order of what they ask for: of those that ask for more than
//! the node has left, or would have if all were evicted who may be, none is looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use imbl::OrdSet;
use imbl::ordset::DiffItem;
use loom_schemas::ids::{Name, Slot};

use super::fits::{DIMENSIONS, Room, fits};
use super::request::Request;

type Classes = BTreeMap<[u64; DIMENSIONS], HashMap<Arc<Request>, BTreeSet<Slot>>>;

/// What waits, kept from pass to pass beside the nodes.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// The waiting slots of the state that was followed last.
    followed: OrdSet<Slot>,
    /// Slots noted since, which may not come to wait.
    noted: BTreeSet<Slot>,
    requests: HashMap<Slot, (Arc<Request>, u8)>,
    /// Slots that may go to any node, by priority and request, those with the same demands together.
    classes: BTreeMap<u8, Classes>,
    /// Slots of one node alone.
    pinned: HashMap<Name, BTreeSet<Slot>>,
    /// Slots of which nobody said what they ask for: any node may help.
    unknown: BTreeSet<Slot>,
    looked: u64,
}

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
        self.followed = waiting.clone();
    }

    /// A slot of this priority was refused what it asked for.
    pub fn note(&mut self, slot: &Slot, request: &Request, priority: u8) {
        let known = self.requests.get(slot);
        if known.is_some_and(|(known, at)| (&**known, *at) == (request, priority)) {
            return;
        }
        self.forget(slot);
        let request = Arc::new(request.clone());
        if let Some(node) = slot.index.node() {
            let slots = self.pinned.entry(node.clone()).or_default();
            slots.insert(slot.clone());
        } else {
            let classes = self.classes.entry(priority).or_default();
            let of_size = classes.entry(request.asked());
            let slots = of_size.or_default().entry(request.clone()).or_default();
            slots.insert(slot.clone());
        }
        self.requests.insert(slot.clone(), (request, priority));
        self.noted.insert(slot.clone());
    }

    /// The jobs of which a slot may fit a node that has so much for each priority now.
    pub fn woken_by(&mut self, node: &Name, room_for: &dyn Fn(u8) -> Room) -> HashSet<Name> {
        let mut jobs: HashSet<Name> = self.unknown.iter().map(|slot| slot.job.clone()).collect();
        for slot in self.pinned.get(node).into_iter().flatten() {
            self.looked += 1;
            let known = self.requests.get(slot);
            if known.is_some_and(|(request, priority)| fits(&room_for(*priority), request).is_ok())
            {
                jobs.insert(slot.job.clone());
            }
        }
        for (priority, classes) in &self.classes {
            let room = room_for(*priority);
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
                        jobs.extend(slots.iter().map(|slot| slot.job.clone()));
                    }
                }
            }
        }
        jobs
    }

    /// How many requests were compared with a node so far.
    pub fn looked(&self) -> u64 {
        self.looked
    }

    fn forget(&mut self, slot: &Slot) {
        self.unknown.remove(slot);
        let Some((request, priority)) = self.requests.remove(slot) else {
            return;
        };
        if let Some(node) = slot.index.node() {
            take(&mut self.pinned, node, slot);
            return;
        }
        let Some(classes) = self.classes.get_mut(&priority) else {
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
            self.classes.remove(&priority);
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
