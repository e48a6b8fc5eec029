//! In which order jobs are planned: strictly by priority, then fair between owners, then first come.
//!
//! Fair is by what an owner's runs have reserved: the next slot goes to the owner with the least
//! dominant share (Ghodsi et al., "Dominant Resource Fairness", NSDI 2011), counted anew with each
//! slot that was placed. Of one owner the job that was submitted first has its turn first, whole.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use loom_schemas::ids::Name;
use loom_schemas::record::Wanted;
use loom_schemas::spec::PRIORITY;

use super::Pass;
use super::job_turn::JobTurn;
use crate::state::{Draft, State};

/// Jobs of one priority that wait for their turn, by owner.
pub(super) type Owners = BTreeMap<String, VecDeque<(Timestamp, Name)>>;

/// The jobs of which something changed.
#[derive(Default)]
pub(super) struct Order {
    /// Those that are not wanted any more: what they give back the others may need.
    pub(super) unwanted: Vec<Name>,
    /// Those of which a gang is being placed: nobody comes between.
    pub(super) begun: Vec<Name>,
    /// The others, the highest priority first.
    pub(super) wanted: BTreeMap<Reverse<u8>, Owners>,
}

/// One owner's jobs of one priority.
struct OwnersTurn {
    owner: String,
    jobs: VecDeque<(Timestamp, Name)>,
    open: Option<JobTurn>,
}

impl Order {
    pub(super) fn of(state: &State) -> Self {
        let mut order = Self::default();
        for name in state.dirty() {
            let Some(job) = state.job(name) else {
                continue;
            };
            if job.wanted != Wanted::Run {
                order.unwanted.push(name.clone());
                continue;
            }
            if !job.held.is_empty() {
                order.begun.push(name.clone());
                continue;
            }
            let priority = priority_of(state, name);
            let owners = order.wanted.entry(Reverse(priority)).or_default();
            let jobs = owners.entry(job.owner.clone()).or_default();
            jobs.push_back((job.submitted_at, name.clone()));
        }
        for jobs in order.wanted.values_mut().flat_map(BTreeMap::values_mut) {
            // Equals stay in the order of their names.
            jobs.make_contiguous().sort();
        }
        order
    }
}

/// The priority of a job, as its wanted version says.
pub(super) fn priority_of(state: &State, job: &Name) -> u8 {
    let spec = state.job(job).and_then(|job| state.spec(job));
    spec.map_or(PRIORITY, |spec| spec.priority)
}

impl Pass<'_> {
    /// Plans the jobs of one priority; whether something is left to be done for them.
    pub(super) fn plan_equals(&mut self, draft: &mut Draft, owners: Owners) -> bool {
        let alone = owners.len() == 1;
        let mut turns: Vec<OwnersTurn> = owners
            .into_iter()
            .map(|(owner, jobs)| OwnersTurn {
                owner,
                jobs,
                open: None,
            })
            .collect();
        let mut unfinished = false;
        let mut next: BTreeSet<(u64, Timestamp, usize)> = BTreeSet::new();
        for (at, turn) in turns.iter().enumerate() {
            next.extend(turn.key(draft.state(), at, alone));
        }
        while let Some((_, _, at)) = next.pop_first() {
            if self.left == 0 {
                unfinished = true;
                break;
            }
            let turn = &mut turns[at];
            unfinished |= self.go_on(draft, turn);
            next.extend(turn.key(draft.state(), at, alone));
        }
        for turn in turns.iter_mut().filter_map(|turn| turn.open.take()) {
            // It stays marked: it goes on in the next pass.
            unfinished |= self.close(draft, &turn);
        }
        unfinished
    }

    /// One step of an owner's first job; whether something is left of a job that is through.
    fn go_on(&mut self, draft: &mut Draft, turn: &mut OwnersTurn) -> bool {
        let mut open = if let Some(open) = turn.open.take() {
            open
        } else {
            let Some((_, name)) = turn.jobs.front().cloned() else {
                return false;
            };
            match self.open(draft, &name, self.left) {
                Ok(open) => open,
                Err(more) => return turn.through(draft, more),
            }
        };
        if self.step(draft, &mut open) {
            turn.open = Some(open);
            return false;
        }
        let more = self.close(draft, &open);
        turn.through(draft, more)
    }
}

impl OwnersTurn {
    /// When its turn is: none if nothing is left. Of equal shares the one that came first is first.
    fn key(&self, state: &State, at: usize, alone: bool) -> Option<(u64, Timestamp, usize)> {
        let (came, _) = self.jobs.front()?;
        let share = if alone {
            0.0
        } else {
            state.held_by(&self.owner).dominant_share(&state.capacity())
        };
        // Of numbers that are not negative the bits are in the same order.
        Some((share.to_bits(), *came, at))
    }

    /// The first job has had its turn.
    fn through(&mut self, draft: &mut Draft, more: bool) -> bool {
        if let Some((_, name)) = self.jobs.pop_front()
            && !more
        {
            draft.state_mut().mark_clean(&name);
        }
        more
    }
}
