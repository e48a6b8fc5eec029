//! The runs of a slot.

use super::{Order, RunRecord, SlotRecord};
use crate::ids::RunId;

impl SlotRecord {
    /// The run of a placement, if it is in the slot and not among those that ended.
    pub fn placed(&self, placement: RunId) -> Option<&RunRecord> {
        let runs = self.current.iter().chain(&self.incoming);
        runs.into_iter().find(|run| run.placement == placement)
    }

    /// The same, to be changed.
    pub fn placed_mut(&mut self, placement: RunId) -> Option<&mut RunRecord> {
        let runs = self.current.iter_mut().chain(&mut self.incoming);
        runs.into_iter().find(|run| run.placement == placement)
    }

    /// The run that answers on the slot's address: the one that takes over, once the other has
    /// ended or was told to end.
    pub fn holder(&self) -> Option<&RunRecord> {
        let stays = |run: &&RunRecord| {
            let ended = run.state.is_terminal() && !run.will_restart;
            !ended && run.order == Order::Run
        };
        let current = self.current.as_ref();
        let incoming = self.incoming.as_ref();
        current.filter(stays).or(incoming.filter(stays)).or(current)
    }
}
