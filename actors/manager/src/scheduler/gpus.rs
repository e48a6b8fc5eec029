//! The gpus of a node: which are free, and which of them a run is given.

use std::collections::BTreeMap;

use imbl::OrdMap;
use loom_schemas::ids::Name;
use loom_schemas::record::Gpu;
use loom_schemas::spec::Gpus;

use super::fits::Room;
use super::request::Request;
use super::why::Cause;

/// The gpus of a node that are taken, by their ids, with the number of placements that hold each
/// (more than one only where two records of a rewound log overlap).
pub(crate) type TakenGpus = OrdMap<String, u32>;

/// A run has them from now on.
pub(crate) fn take(taken: &mut TakenGpus, gpus: &[Gpu]) {
    for gpu in gpus {
        *taken.entry(gpu.id.clone()).or_insert(0) += 1;
    }
}

/// It has them no more.
pub(crate) fn give_back(taken: &mut TakenGpus, gpus: &[Gpu]) {
    for gpu in gpus {
        match taken.get(&gpu.id) {
            Some(&count) if count > 1 => taken.insert(gpu.id.clone(), count - 1),
            _ => taken.remove(&gpu.id),
        };
    }
}

/// What is left of some gpus once others are taken away from them.
pub(crate) fn less(gpus: &Gpus, others: &Gpus) -> Gpus {
    let count = gpus.count().saturating_sub(others.count());
    let of = |name: &Name| others.named.get(name).copied().unwrap_or(0);
    let named = gpus.named.iter();
    let named = named.map(|(name, count)| (name.clone(), count.saturating_sub(of(name))));
    let named: BTreeMap<Name, u32> = named.filter(|(_, count)| *count > 0).collect();
    let of_names = named.values().sum::<u32>();
    Gpus {
        any: count.saturating_sub(of_names),
        named,
    }
}

impl Room {
    /// The gpus that nobody has; some of them may be kept for those that wait.
    fn idle_gpus(&self) -> impl Iterator<Item = &Gpu> {
        let gpus = self.capacity.gpus.iter();
        gpus.filter(|gpu| !self.gpus.contains_key(&gpu.id))
    }

    /// How many gpus are taken or kept for those that wait.
    pub(super) fn held_gpus(&self) -> u64 {
        if self.capacity.gpus.is_empty() {
            return 0;
        }
        let taken = self.capacity.gpus.len() - self.idle_gpus().count();
        taken as u64 + u64::from(self.kept_gpus.count())
    }

    /// How many gpus of a name are to be had.
    pub(super) fn free_gpus_of(&self, name: &Name) -> u32 {
        let idle = self.idle_gpus().filter(|gpu| gpu.name == *name).count();
        let kept = self.kept_gpus.named.get(name).copied().unwrap_or(0);
        u32::try_from(idle).unwrap_or(u32::MAX).saturating_sub(kept)
    }

    /// Whether the node has gpus left as the request needs them.
    pub(super) fn has_gpus(&self, request: &Request) -> Result<(), Cause> {
        let asked = &request.gpus;
        let short = |(name, count): &(&Name, &u32)| self.free_gpus_of(name) < **count;
        if let Some((name, _)) = asked.named.iter().find(short) {
            return Err(Cause::Gpus(Some(name.clone())));
        }
        let (held, all) = (self.held_gpus(), self.capacity.gpus.len() as u64);
        if !asked.is_none() && held.saturating_add(u64::from(asked.count())) > all {
            return Err(Cause::Gpus(None));
        }
        Ok(())
    }
}

/// The gpus of a run on a node that it fits: of each name the first that are free, and where the
/// name does not matter all of one name if that can be, of the name that has the fewest to spare.
pub(crate) fn choose_gpus(room: &Room, asked: &Gpus) -> Option<Vec<Gpu>> {
    if asked.is_none() {
        return Some(Vec::new());
    }
    let mut wanted = asked.named.clone();
    let mut spare: BTreeMap<&Name, u32> = BTreeMap::new();
    for gpu in room.idle_gpus() {
        spare.insert(&gpu.name, 0);
    }
    for (name, spare) in &mut spare {
        let own = asked.named.get(*name).copied().unwrap_or(0);
        *spare = room.free_gpus_of(name).saturating_sub(own);
    }
    let mut left = asked.any;
    let enough = spare.iter().filter(|(_, spare)| **spare >= left);
    let best = enough.min_by_key(|(name, spare)| (**spare, *name));
    let mut order: Vec<(&Name, u32)> = match best {
        Some((name, spare)) => vec![(name, *spare)],
        None => spare.into_iter().collect(),
    };
    order.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    for (name, spare) in order {
        let taken = spare.min(left);
        if taken > 0 {
            *wanted.entry(name.clone()).or_insert(0) += taken;
            left -= taken;
        }
    }
    let mut chosen = Vec::new();
    for gpu in room.idle_gpus() {
        if let Some(count) = wanted.get_mut(&gpu.name).filter(|count| **count > 0) {
            *count -= 1;
            chosen.push(gpu.clone());
        }
    }
    (left == 0 && wanted.values().all(|count| *count == 0)).then_some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fits;
    use crate::state::fixture::{name, task, with_nodes};

    fn gpu(of: &str, id: u32) -> Gpu {
        Gpu {
            name: name(of),
            id: id.to_string(),
        }
    }

    fn asking(any: u32, named: &[(&str, u32)]) -> Gpus {
        let named = named.iter().map(|(of, count)| (name(of), *count));
        Gpus {
            any,
            named: named.collect(),
        }
    }

    /// Two of one name and three of another, some of them taken.
    fn room(taken: &[u32]) -> Room {
        let state = with_nodes(1, 4);
        let mut room = Room::of(state.node(&name("node-1")).unwrap(), None);
        let a100 = (0..2).map(|id| gpu("a100", id));
        room.capacity.gpus = a100.chain((2..5).map(|id| gpu("t4", id))).collect();
        let taken: Vec<Gpu> = taken.iter().map(|id| gpu("x", *id)).collect();
        take(&mut room.gpus, &taken);
        room
    }

    fn tried(room: &Room, asked: &Gpus) -> Result<String, String> {
        let mut task = task(1);
        task.resources.gpus = Some(Box::new(asked.clone()));
        fits(room, &Request::of(&task)).map_err(|cause| cause.to_string())?;
        let chosen = choose_gpus(room, asked).unwrap();
        let ids: Vec<&str> = chosen.iter().map(|gpu| gpu.id.as_str()).collect();
        Ok(ids.join(" "))
    }

    #[test]
    fn gpus_fit_by_name_and_by_count_and_are_of_one_name_where_that_can_be() {
        let ok = |ids: &str| Ok(ids.to_owned());
        let none = |why: &str| Err(why.to_owned());
        let empty = room(&[]);
        for (asked, expected) in [
            (asking(0, &[]), ok("")),
            // The name with the fewest to spare that has enough.
            (asking(1, &[]), ok("0")),
            (asking(3, &[]), ok("2 3 4")),
            // No name has four.
            (asking(4, &[]), ok("0 2 3 4")),
            (asking(6, &[]), none("not enough gpus")),
            (asking(0, &[("a100", 2), ("t4", 1)]), ok("0 1 2")),
            (asking(0, &[("a100", 3)]), none("not enough a100 gpus")),
            (asking(0, &[("h100", 1)]), none("not enough h100 gpus")),
            (asking(2, &[("t4", 3)]), ok("0 1 2 3 4")),
        ] {
            assert_eq!(tried(&empty, &asked), expected, "{asked}");
        }
        let half = room(&[0, 3]);
        assert_eq!(tried(&half, &asking(0, &[("a100", 1)])), ok("1"));
        assert_eq!(tried(&half, &asking(2, &[])), ok("2 4"));
        assert_eq!(
            tried(&half, &asking(0, &[("a100", 2)])),
            none("not enough a100 gpus")
        );
        // An id that the node no longer has is nobody's.
        assert_eq!(tried(&room(&[9]), &asking(5, &[])), ok("0 1 2 3 4"));
    }

    #[test]
    fn what_is_kept_for_those_that_wait_is_given_to_nobody_else() {
        let mut kept = room(&[]);
        kept.kept_gpus = asking(0, &[("a100", 2)]);
        assert_eq!(tried(&kept, &asking(1, &[])), Ok("2".to_owned()));
        assert!(tried(&kept, &asking(0, &[("a100", 1)])).is_err());
        assert!(tried(&kept, &asking(4, &[])).is_err());
        // Of any name: as many have to be left, whichever they are.
        kept.kept_gpus = asking(4, &[]);
        assert_eq!(tried(&kept, &asking(0, &[("t4", 1)])), Ok("2".to_owned()));
        assert!(tried(&kept, &asking(0, &[("t4", 2)])).is_err());
    }

    #[test]
    fn what_others_still_hold_is_taken_away_by_name() {
        let wanted = asking(2, &[("a100", 2)]);
        assert_eq!(less(&wanted, Gpus::NONE), wanted);
        let held = asking(0, &[("a100", 1), ("t4", 2)]);
        assert_eq!(less(&wanted, &held), asking(0, &[("a100", 1)]));
    }
}
