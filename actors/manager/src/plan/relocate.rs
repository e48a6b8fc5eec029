//! Where a run goes whose slot is being moved to another node.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{Bias, Relocation, RunRecord, RunnerUp, SlotRecord};
use loom_schemas::spec::TaskSpec;

use super::place::{own_node, recheck};
use super::task_turn::TaskTurn;
use super::{Pass, evict, rebalance};
use crate::reconcile::Facts;
use crate::scheduler::{Placement, Request};
use crate::state::{Draft, State, run_event};

impl Pass<'_> {
    /// Places a run where its slot is moved to, or gives the move up; goes on where it is placed like
    /// any other.
    pub(super) fn relocate(
        &mut self,
        draft: &mut Draft,
        facts: &Facts<'_>,
        record: &mut SlotRecord,
        (task, version, request): (&TaskSpec, u32, &Request),
        turns: &mut BTreeMap<(Name, u32), TaskTurn>,
    ) -> ControlFlow<Option<RunRecord>> {
        let Some((it, by)) = rebalance::target(draft.state(), record, version) else {
            return ControlFlow::Continue(());
        };
        let (it, by) = (it.clone(), by.to_owned());
        let run = (self.ids)();
        // The cluster as it is now is written down before the first run is placed in it.
        self.write_use(draft);
        let to = (&it, &*record);
        let Some(placement) = self.place_there(draft.state(), task, request, to, run) else {
            if own_node(record).is_none() {
                // It has ended there already.
                return ControlFlow::Continue(());
            }
            record.claim.take_if(|claim| claim.moves.is_some());
            rebalance::give_up(draft, &record.slot);
            return ControlFlow::Break(None);
        };
        if let Some(turn) = turns.get_mut(&(record.slot.task.clone(), version)) {
            turn.siblings.add(&placement.node);
        }
        let mut new = self.scheduled(facts, record, task, (version, run), placement, turns);
        if let Some(decision) = &mut new.decision {
            decision.moved = Some(by);
        }
        draft.event(run_event(facts.now, &record.slot, &new, "scheduled"));
        ControlFlow::Break(Some(new))
    }

    /// The place of a run on the node that it is moved to, if it still fits there.
    fn place_there(
        &mut self,
        state: &State,
        task: &TaskSpec,
        request: &Request,
        (it, record): (&Relocation, &SlotRecord),
        run: RunId,
    ) -> Option<Placement> {
        if !request.apart.is_empty() {
            let others = evict::others(state, &record.slot);
            state
                .node(&it.to)
                .filter(|node| request.is_apart(node, &others))?;
        }
        self.follow(state);
        if let Some(claim) = record.claim.as_ref()
            && let Some(load) = state.load(&claim.node)
        {
            self.cluster.open_claim(load, claim);
        }
        let placed = self.cluster.place_on(&it.to, task, request, run).ok()?;
        // It was chosen when it was looked for, and by what it cost then.
        let placed = Placement {
            strategy: it.strategy,
            score: it.there,
            runners_up: vec![RunnerUp {
                node: it.from.clone(),
                score: it.here,
                bias: Bias {
                    shunned: it.avoids,
                    ..Bias::default()
                },
            }],
            ..placed
        };
        recheck(state, placed, request, &record.slot).ok()
    }
}
