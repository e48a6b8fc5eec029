//! Runs that are moved to nodes where they cost less: which, and a few at a time.
//!
//! The moves that were found are a record of their own, and how far they are is kept with the cluster's. One that is begun has its run leave
//! its node as from a node that is drained, and what takes over goes where the move says: room is kept
//! for it there from before anything ends. It is done once a run of the slot serves there, and given up
//! where it turns out that none can, or that none does in time.

mod find;
#[cfg(test)]
mod rounds;
mod standing;
mod stay;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use loom_schemas::event::{About, Event};
use loom_schemas::ids::Slot;
use loom_schemas::record::{
    ClusterRecord, MovesRecord, Order, Rebalance, Relocation, RunRecord, SlotRecord,
};
use loom_schemas::wire::RebalanceProgress;

pub use find::{Found, LOOKS, Search, find};
use standing::{Standing, claim, is_open, standing};

use crate::reconcile::Leave;
use crate::state::{Draft, Key, State, is_live};

/// Has moves begin, a few at a time; what an earlier rebalance has begun is brought to its end, and
/// nothing else of it. How many moves are kept.
pub fn begin(
    draft: &mut Draft,
    mut moves: Vec<Relocation>,
    at_once: u32,
    by: &str,
    now: Timestamp,
) -> usize {
    let before = under_way(draft.state()).cloned();
    let begun = before.map(|before| before.under_way).unwrap_or_default();
    let is_begun = |it: &Relocation| begun.iter().any(|other| other.placement == it.placement);
    moves.retain(|it| !is_begun(it));
    let count = moves.len();
    if count == 0 {
        // It takes the place of what is not begun all the same.
        stop(draft, by, now);
        return 0;
    }
    let why = match count {
        1 => "a run is to be moved to where it costs less".to_owned(),
        count => format!("{count} runs are to be moved to where they cost less"),
    };
    tell(draft, "rebalancing", why, by, now);
    draft.put_moves(MovesRecord { moves });
    put(
        draft,
        Rebalance {
            by: by.to_owned(),
            at: now,
            at_once,
            left: u32::try_from(count).unwrap_or(u32::MAX),
            under_way: begun,
            moved: 0,
            dropped: 0,
            done_at: None,
        },
    );
    go_on(draft, now);
    count
}

/// Begins no further move; true if there was one to begin.
pub fn stop(draft: &mut Draft, by: &str, now: Timestamp) -> bool {
    let Some(mut rebalance) = under_way(draft.state()).cloned() else {
        return false;
    };
    let left = std::mem::take(&mut rebalance.left);
    if left == 0 {
        return false;
    }
    let why = match left {
        1 => "1 move is not begun any more".to_owned(),
        left => format!("{left} moves are not begun any more"),
    };
    tell(draft, "rebalancing", why, by, now);
    rebalance.dropped += left;
    put(draft, rebalance);
    go_on(draft, now);
    true
}

/// How far the rebalance is that is under way, or came in the end.
pub fn progress(state: &State) -> Option<RebalanceProgress> {
    let rebalance = state.cluster()?.rebalance.as_ref()?;
    Some(RebalanceProgress {
        by: rebalance.by.clone(),
        at: rebalance.at,
        at_once: rebalance.at_once,
        pending: rebalance.left,
        under_way: rebalance.under_way.clone(),
        moved: rebalance.moved,
        dropped: rebalance.dropped,
        done_at: rebalance.done_at,
    })
}

/// Looks what has become of the moves that are begun, and begins others.
pub(super) fn go_on(draft: &mut Draft, now: Timestamp) {
    let Some(before) = under_way(draft.state()).cloned() else {
        return;
    };
    let mut rebalance = before.clone();
    for mut it in std::mem::take(&mut rebalance.under_way) {
        let standing = standing(draft.state(), &it, now);
        if let Standing::Moves { tried } = standing {
            it.tried |= tried;
            rebalance.under_way.push(it);
            continue;
        }
        if standing == Standing::Moved {
            rebalance.moved += 1;
        } else {
            rebalance.dropped += 1;
        }
        put_down(draft, &it, standing == Standing::Late, &rebalance.by);
    }
    while rebalance.under_way.len() < rebalance.at_once.max(1) as usize && rebalance.left > 0 {
        let of_last = |moves: &[Relocation]| {
            let at = moves.len().checked_sub(rebalance.left as usize)?;
            moves.get(at).cloned()
        };
        let next = of_last(draft.state().moves());
        rebalance.left -= 1;
        match next.and_then(|it| begun(draft, &it, now)) {
            Some(it) => rebalance.under_way.push(it),
            None => rebalance.dropped += 1,
        }
    }
    if rebalance.left == 0 && !draft.state().moves().is_empty() {
        draft.delete(Key::Moves);
    }
    if rebalance.under_way.is_empty() {
        let Rebalance { moved, dropped, .. } = rebalance;
        let why = match dropped {
            0 => runs_moved(moved),
            dropped => format!("{}, {dropped} not", runs_moved(moved)),
        };
        tell(draft, "rebalanced", why, &rebalance.by, now);
        rebalance.done_at = Some(now);
    }
    if rebalance != before {
        put(draft, rebalance);
    }
}

/// Why a run leaves its node, where it is being moved.
pub(super) fn leave(state: &State, slot: &Slot, run: &RunRecord) -> Option<Leave> {
    let rebalance = under_way(state)?;
    let mut begun = rebalance.under_way.iter();
    let it = begun.find(|it| it.placement == run.placement && it.slot == *slot)?;
    // It is not told to end unless there is a place where it goes.
    if !is_open(state, it, state.slot(slot)?) {
        return None;
    }
    let (from, to, by) = (&it.from, &it.to, &rebalance.by);
    let why = if it.avoids {
        format!("node {from} is to be avoided (prefer-not) and node {to} is not")
    } else {
        format!("it costs less on node {to} than on {from}")
    };
    Some(Leave {
        reason: format!("{why}: rebalanced by {by}"),
        from: rebalance.at,
        // Past its own deadline a move is given up, and the run stays.
        deadline: None,
    })
}

/// The move by which a run is to be placed that takes the place of another, and who wants it so.
pub(super) fn target<'a>(
    state: &'a State,
    record: &SlotRecord,
    version: u32,
) -> Option<(&'a Relocation, &'a str)> {
    let rebalance = under_way(state)?;
    let last = record.current.as_ref().or(record.ended.last())?;
    let is_it = |it: &&Relocation| it.placement == last.placement && it.slot == record.slot;
    let it = rebalance.under_way.iter().find(is_it)?;
    (last.version == version).then_some((it, &*rebalance.by))
}

/// A run stays where it is after all.
pub(super) fn give_up(draft: &mut Draft, slot: &Slot) {
    if let Some(mut rebalance) = under_way(draft.state()).cloned() {
        let before = rebalance.under_way.len();
        rebalance.under_way.retain(|it| it.slot != *slot);
        let gone = before - rebalance.under_way.len();
        rebalance.dropped += u32::try_from(gone).unwrap_or(u32::MAX);
        put(draft, rebalance);
    }
}

/// When a move is to be given up that is not done by then.
pub(super) fn due(state: &State, now: Timestamp) -> Option<Timestamp> {
    let begun = under_way(state)?.under_way.iter();
    let deadlines = begun.filter_map(|it| it.deadline);
    deadlines.filter(|at| *at > now).min()
}

/// A move as it is begun, with room kept for its run; none if that may not move, or not there.
fn begun(draft: &mut Draft, it: &Relocation, now: Timestamp) -> Option<Relocation> {
    let (claim, within) = claim(draft.state(), it)?;
    let mut record = SlotRecord::clone(draft.state().slot(&it.slot)?);
    record.claim = Some(claim).into();
    draft.put_slot(record);
    draft.state_mut().mark_dirty(&it.slot.job);
    Some(Relocation {
        deadline: now.checked_add(within).ok(),
        ..it.clone()
    })
}

/// Nothing is kept any more for a move that is over; where it is given up late, what was to take over
/// is told to end.
fn put_down(draft: &mut Draft, it: &Relocation, is_late: bool, by: &str) {
    let Some(before) = draft.state().slot(&it.slot).cloned() else {
        return;
    };
    let mut record = SlotRecord::clone(&before);
    record
        .claim
        .take_if(|claim| claim.moves == Some(it.placement));
    let incoming = record.incoming.as_mut().filter(|run| is_live(run));
    if let Some(run) = incoming.filter(|run| is_late && run.order == Order::Run) {
        let (to, within) = (
            &it.to,
            it.deadline.map(|at| at.duration_since(run.placed_at)),
        );
        let within = within.unwrap_or_default();
        let reason = format!("did not serve on node {to} within {within:#}: rebalanced by {by}");
        run.order = Order::Stop { reason };
    }
    if record != *before {
        draft.put_slot(record);
    }
}

fn runs_moved(count: u32) -> String {
    match count {
        1 => "1 run was moved".to_owned(),
        count => format!("{count} runs were moved"),
    }
}

fn under_way(state: &State) -> Option<&Rebalance> {
    let rebalance = state.cluster()?.rebalance.as_ref()?;
    rebalance.done_at.is_none().then_some(rebalance)
}

fn put(draft: &mut Draft, rebalance: Rebalance) {
    let record = draft.state().cluster().cloned().unwrap_or_default();
    draft.put_cluster(ClusterRecord {
        rebalance: Some(rebalance),
        ..record
    });
}

fn tell(draft: &mut Draft, what: &str, why: String, by: &str, now: Timestamp) {
    let mut event = Event::new(now, About::Cluster, what);
    event.reason = Some(why);
    event.by = Some(by.to_owned());
    draft.event(event);
}
