//! Who is evicted on a node so that a request fits it: as few as can be, and of those the lowest and
//! the youngest.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use loom_schemas::ids::{RunId, Slot};
use loom_schemas::record::{Gpu, RunRecord};
use loom_schemas::spec::GPU_NAMES_MAX;

use super::fits::{DIMENSIONS, Room, suits};
use super::request::Request;
use crate::state::Held;

/// What can be short on a node: the resources, ports of its range, and gpus of each name asked for.
const NEEDS: usize = DIMENSIONS + 1 + GPU_NAMES_MAX;

/// So many choices are looked at for one node; past that the evicted are enough and none too many,
/// but fewer might do.
const CHOICES: usize = 20_000;

/// A run that may be evicted.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Where it is.
    pub slot: Arc<Slot>,
    /// Its placement.
    pub placement: RunId,
    /// That of its job.
    pub priority: u8,
    /// The younger goes first.
    pub placed_at: Timestamp,
    held: [u64; DIMENSIONS],
    ports: Vec<u16>,
    gpus: Vec<Gpu>,
}

/// How much is given up: the fewest runs first, then the lowest, then the youngest; the worst of
/// them counts first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sacrifice(usize, Vec<(u8, Reverse<Timestamp>)>);

impl Candidate {
    /// A run of a job of this priority.
    pub fn of(slot: Arc<Slot>, run: &RunRecord, priority: u8) -> Self {
        Self {
            slot,
            placement: run.placement,
            priority,
            placed_at: run.placed_at,
            held: Held::of(&run.reserved).by_dimension(),
            ports: run.ports.values().copied().collect(),
            gpus: run.own_gpus().to_vec(),
        }
    }

    /// The lowest and the youngest first.
    pub fn rank(&self) -> (u8, Reverse<Timestamp>, Reverse<RunId>) {
        (
            self.priority,
            Reverse(self.placed_at),
            Reverse(self.placement),
        )
    }

    fn frees(&self, room: &Room, request: &Request) -> [u64; NEEDS] {
        let range = room.capacity.ports_from..=room.capacity.ports_to;
        let ports = self.ports.iter().filter(|port| range.contains(port));
        let mut frees = [0; NEEDS];
        frees[..DIMENSIONS].copy_from_slice(&self.held);
        frees[DIMENSIONS] = ports.count() as u64;
        for (need, name) in frees[DIMENSIONS + 1..]
            .iter_mut()
            .zip(request.gpus.named.keys())
        {
            let of_name = self.gpus.iter().filter(|gpu| gpu.name == *name);
            *need = of_name.count() as u64;
        }
        frees
    }
}

impl Sacrifice {
    /// What it comes to if these are evicted.
    pub fn of<'a>(evicted: impl IntoIterator<Item = &'a Candidate>) -> Self {
        let worth = |run: &Candidate| (run.priority, Reverse(run.placed_at));
        let mut worth: Vec<_> = evicted.into_iter().map(worth).collect();
        worth.sort_unstable_by(|a, b| b.cmp(a));
        Self(worth.len(), worth)
    }
}

/// Which of the candidates, in the order of their rank, have to go so that a request fits a node that
/// has so much left; none if it fits in no case.
pub fn least_evicted(
    room: &Room,
    request: &Request,
    candidates: &[Candidate],
) -> Option<Vec<usize>> {
    suits(room, request).ok()?;
    let mut lacks = lacks(room, request);
    // Whoever holds a port that is fixed has to go in any case.
    let mut forced = Vec::new();
    for port in &request.fixed_ports {
        if room.ports.contains_key(port) {
            let holds = |run: &Candidate| run.ports.contains(port);
            forced.push(candidates.iter().position(holds)?);
        }
    }
    forced.sort_unstable();
    forced.dedup();
    for at in &forced {
        lacks = less(lacks, candidates[*at].frees(room, request));
    }
    let others = (0..candidates.len()).filter(|at| !forced.contains(at));
    let others: Vec<(usize, [u64; NEEDS])> = others
        .map(|at| (at, candidates[at].frees(room, request)))
        .collect();
    let mut search = Search::of(&others);
    let chosen = search.fewest(lacks)?;
    let mut evicted: Vec<usize> = chosen.into_iter().map(|at| others[at].0).collect();
    evicted.extend(forced);
    evicted.sort_unstable();
    Some(evicted)
}

/// How much is missing of each.
fn lacks(room: &Room, request: &Request) -> [u64; NEEDS] {
    let (held, asked, all) = (room.held(), request.asked(), room.all());
    let in_range =
        |port: &&u16| (room.capacity.ports_from..=room.capacity.ports_to).contains(*port);
    let of_range = match request.free_ports {
        0 => 0,
        free => free + request.fixed_ports.iter().filter(in_range).count(),
    };
    let mut lacks = [0; NEEDS];
    for d in 0..DIMENSIONS {
        if asked[d] > 0 {
            lacks[d] = held[d].saturating_add(asked[d]).saturating_sub(all[d]);
        }
    }
    lacks[DIMENSIONS] = of_range.saturating_sub(room.free_ports()) as u64;
    for (lack, (name, count)) in lacks[DIMENSIONS + 1..].iter_mut().zip(&request.gpus.named) {
        *lack = u64::from(count.saturating_sub(room.free_gpus_of(name)));
    }
    lacks
}

fn less(lacks: [u64; NEEDS], by: [u64; NEEDS]) -> [u64; NEEDS] {
    std::array::from_fn(|d| lacks[d].saturating_sub(by[d]))
}

/// The search for the fewest, among runs in the order of their rank.
struct Search<'a> {
    runs: &'a [(usize, [u64; NEEDS])],
    /// The most that any one run up to each frees.
    most: Vec<[u64; NEEDS]>,
    choices: usize,
}

impl<'a> Search<'a> {
    fn of(runs: &'a [(usize, [u64; NEEDS])]) -> Self {
        let mut most = vec![[0; NEEDS]];
        for (_, frees) in runs {
            let last = most[most.len() - 1];
            most.push(std::array::from_fn(|d| last[d].max(frees[d])));
        }
        Self {
            runs,
            most,
            choices: CHOICES,
        }
    }

    /// The fewest that free what is missing; of those, the ones whose last in rank comes first.
    fn fewest(&mut self, lacks: [u64; NEEDS]) -> Option<Vec<usize>> {
        let all = self.runs.iter();
        let rest = all.fold(lacks, |rest, (_, frees)| less(rest, *frees));
        if rest != [0; NEEDS] {
            return None;
        }
        for count in 0..=self.runs.len() {
            let found = self.exactly(count, self.runs.len(), lacks);
            if found.is_some() {
                return found;
            }
            if self.choices == 0 {
                break;
            }
        }
        Some(self.enough(lacks))
    }

    /// So many of the first `of` runs that free what is missing, the last of them as early as can be.
    fn exactly(&mut self, count: usize, of: usize, lacks: [u64; NEEDS]) -> Option<Vec<usize>> {
        if lacks == [0; NEEDS] {
            return (count == 0).then(Vec::new);
        }
        let most = self.most[of];
        if (0..NEEDS).any(|d| most[d].saturating_mul(count as u64) < lacks[d]) {
            return None;
        }
        for last in count.saturating_sub(1)..of {
            self.choices = self.choices.checked_sub(1)?;
            let rest = less(lacks, self.runs[last].1);
            if let Some(mut found) = self.exactly(count - 1, last, rest) {
                found.push(last);
                return Some(found);
            }
        }
        None
    }

    /// Enough of them in the order of their rank, without those that need not go.
    fn enough(&self, lacks: [u64; NEEDS]) -> Vec<usize> {
        let mut chosen = Vec::new();
        let mut rest = lacks;
        for (at, (_, frees)) in self.runs.iter().enumerate() {
            if rest == [0; NEEDS] {
                break;
            }
            rest = less(rest, *frees);
            chosen.push(at);
        }
        for at in (0..chosen.len()).rev() {
            let others = chosen.iter().enumerate().filter(|(other, _)| *other != at);
            let without = others.fold(lacks, |rest, (_, run)| less(rest, self.runs[*run].1));
            if without == [0; NEEDS] {
                chosen.remove(at);
            }
        }
        chosen
    }
}
