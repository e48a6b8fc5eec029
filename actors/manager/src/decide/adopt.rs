//! Runs that the state has lost and a node still has.

use jiff::Timestamp;
use loom_schemas::ids::Name;
use loom_schemas::record::{PendingResize, Resize, RunRecord, SlotRecord};
use loom_schemas::wire::{Holding, RunReport};
use loom_schemas::words::RunState;

use super::merge::merge;
use super::report::tell;
use crate::plan::new_run;
use crate::reconcile::unwanted_reason;
use crate::state::{Draft, live_runs};

/// After a rewound log: a run that the state has lost is taken up, if its slot is wanted and empty.
pub(super) fn adopt(
    draft: &mut Draft,
    node: &Name,
    report: &RunReport,
    held: Option<&Holding>,
    now: Timestamp,
) {
    let state = draft.state();
    let Some(job) = state.job(&report.slot.job).cloned() else {
        return;
    };
    let Some(version) = state.version(&job.name, report.version) else {
        return;
    };
    let Some(task) = version.spec.tasks.get(&report.slot.task) else {
        return;
    };
    let resources = task.resources_of(&report.slot.index);
    let mut record = match state.slot(&report.slot) {
        Some(record) => SlotRecord::clone(record),
        None => crate::plan::empty_slot(report.slot.clone()),
    };
    let Some(spec) = state.spec(&job) else { return };
    let taken = live_runs(&record).next().is_some();
    if taken || unwanted_reason(&job, spec, &record).is_some() {
        return;
    }
    if record.current.is_some() {
        crate::reconcile::retire(&mut record);
    }
    record.waiting = None;
    record.not_before = None;
    record.version = report.version;
    // What it is held to by now nobody knows: its node says when it is these.
    let pending = (!report.limits.hold()).then(|| PendingResize {
        version: report.version,
        wanted: resources.clone(),
        since: now,
        refused: None,
    });
    let mut run = RunRecord {
        resize: pending.map(|pending| {
            Box::new(Resize {
                pending: Some(pending),
                ..Resize::default()
            })
        }),
        placement: report.placement,
        node: Some(node.clone()),
        version: report.version,
        restarts: report.restarts,
        state: RunState::Pending,
        ports: held.map(|held| held.ports.clone()).unwrap_or_default(),
        gpus: held
            .map(|held| held.gpus.clone())
            .filter(|gpus| !gpus.is_empty())
            .into(),
        restart_orders: held.map_or(0, |held| held.restart),
        ..new_run(&job, report.run, resources, now)
    };
    merge(&mut run, report, true, now);
    tell(draft, &report.slot, None, &run, report, now);
    record.current = Some(run);
    draft.put_slot(record);
}
