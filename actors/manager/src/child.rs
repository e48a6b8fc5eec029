//! Child jobs: what a firing, a dispatch or a task makes of a job, pure.
//!
//! A child is a job like any other, with a name of its own: its parent's and a time, in UTC, so that
//! no two firings of a schedule are called the same on the day the clocks are set back. Its version
//! is the parent's spec as it was, without the schedule.

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use loom_schemas::error::WireError;
use loom_schemas::ids::{NAME_MAX, Name};
use loom_schemas::record::{JobRecord, MadeBy, Parent, VersionRecord};
use loom_schemas::spec::JobSpec;

use crate::decide::fresh_job;
use crate::state::{Draft, Key, State, job_event};

/// How many ended children of a job are kept of each sort.
pub const CHILDREN_KEPT: usize = 10;

/// How many children of a job may live at once, of each sort.
pub const CHILDREN_LIVE_MAX: usize = 100;

/// What a time adds to a name: `-20261122t123000z`.
const STAMP: usize = 17;

/// What tells apart those of one second adds: `-2` to `-9999`.
const NUMBER: usize = 5;

/// The longest name that fits before both; of a longer one children have the beginning and a hash.
const WHOLE_MAX: usize = NAME_MAX - STAMP - NUMBER;

/// Characters of that hash.
const HASH: usize = 8;

/// The sorts of children, each kept and bounded for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Firings.
    Schedule,
    /// Dispatches.
    Dispatch,
    /// Runs of tasks.
    Task,
}

impl Sort {
    /// Of which sort a child is.
    pub fn of(made_by: &MadeBy) -> Self {
        match made_by {
            MadeBy::Schedule { .. } => Self::Schedule,
            MadeBy::Dispatch { .. } => Self::Dispatch,
            MadeBy::Task { .. } => Self::Task,
        }
    }
}

/// The children of a job of one sort, by name.
pub fn of_sort<'a>(
    state: &'a State,
    job: &'a Name,
    sort: Sort,
) -> impl Iterator<Item = &'a JobRecord> {
    let children = state.children(job).map(AsRef::as_ref);
    children.filter(move |child: &&JobRecord| {
        let made_by = child
            .parent
            .as_ref()
            .map(|parent| Sort::of(&parent.made_by));
        made_by == Some(sort)
    })
}

/// The name of a child that is made for a time.
pub fn name_at(parent: &Name, at: Timestamp) -> Result<Name, WireError> {
    named(&format!(
        "{}-{}",
        called(parent),
        at.strftime("%Y%m%dt%H%M%Sz")
    ))
}

/// What the children of a job are called: its name, or as much of it as fits.
fn called(parent: &Name) -> String {
    let name = parent.as_str();
    if name.len() <= WHOLE_MAX {
        return name.to_owned();
    }
    // Two long names that begin the same have children of different names.
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let head = name[..WHOLE_MAX - HASH - 1].trim_end_matches('-');
    format!("{head}-{}", &hash[..HASH])
}

fn named(text: &str) -> Result<Name, WireError> {
    Name::new(text).map_err(|error| WireError::invalid(format!("the name of a child: {error}")))
}

/// A name like it that no job has: with `-2`, `-3` behind it.
pub fn free_name(state: &State, name: Name) -> Result<Name, WireError> {
    if state.job(&name).is_none() {
        return Ok(name);
    }
    for number in 2..10_000 {
        let other = named(&format!("{name}-{number}"))?;
        if state.job(&other).is_none() {
            return Ok(other);
        }
    }
    Err(WireError::unavailable(format!(
        "too many jobs are called {name}-N: ask again in a second"
    )))
}

/// What is made of a job.
#[derive(Clone, Debug)]
pub struct Birth<'a> {
    /// The parent.
    pub parent: &'a JobRecord,
    /// Its version that the child is made of.
    pub version: &'a VersionRecord,
    /// The name of the child.
    pub name: Name,
    /// What the child says, but for its name and schedule.
    pub spec: JobSpec,
    /// How it comes to be.
    pub made_by: MadeBy,
    /// Why, for its first event.
    pub reason: String,
    /// Who asked for it, and under which id, if somebody did.
    pub by: Option<(&'a str, Option<&'a str>)>,
}

/// Makes a child job, which is planned like any other.
pub fn create(draft: &mut Draft, birth: Birth<'_>, now: Timestamp) {
    let Birth {
        parent,
        version,
        name,
        spec,
        made_by,
        reason,
        by,
    } = birth;
    let spec = JobSpec {
        name: name.clone(),
        schedule: None,
        ..spec
    };
    let sort = Sort::of(&made_by);
    let job = JobRecord {
        parent: Some(Parent {
            job: parent.name.clone(),
            made_by,
        }),
        ..fresh_job(name.clone(), parent.owner.clone(), 1, now)
    };
    draft.put_version(VersionRecord {
        job: name,
        version: 1,
        spec,
        text: version.text.clone(),
        sets: version.sets.clone(),
        at: now,
        by: by.map_or_else(|| version.by.clone(), |(user, _)| user.to_owned()),
        reason: Some(reason.clone()),
    });
    let mut event = job_event(now, &job, "accepted");
    event.reason = Some(reason);
    if let Some((user, request)) = by {
        event.by = Some(user.to_owned());
        event.request = request.map(str::to_owned);
    }
    draft.event(event);
    draft.put_job(job);
    prune(draft, &parent.name, sort);
}

/// A child stands otherwise than before: what follows from that is planned, for its parent and for
/// its next firing.
pub fn turned(draft: &mut Draft, child: &JobRecord) {
    let Some(parent) = &child.parent else { return };
    let state = draft.state_mut();
    let siblings = state
        .children(&parent.job)
        .filter(|job| !job.status.is_terminal());
    let siblings: Vec<Name> = siblings.map(|job| job.name.clone()).collect();
    state.mark_dirty(&parent.job);
    for sibling in &siblings {
        state.mark_dirty(sibling);
    }
}

/// Takes away the oldest children that ended, but the last [`CHILDREN_KEPT`]. One that others wait
/// for stays, and one that is still what a task has come to.
fn prune(draft: &mut Draft, parent: &Name, sort: Sort) {
    let state = draft.state();
    let mut ended: Vec<(Option<Timestamp>, Name)> = of_sort(state, parent, sort)
        .filter(|child| child.status.is_terminal())
        .filter(|child| state.dependants(&child.name).next().is_none() && !is_run(state, child))
        .map(|child| (child.ended_at, child.name.clone()))
        .collect();
    ended.sort();
    let over = ended.len().saturating_sub(CHILDREN_KEPT);
    for (_, child) in ended.into_iter().take(over) {
        remove(draft, &child);
    }
}

/// Whether a child is what stands in a slot of its parent.
fn is_run(state: &State, child: &JobRecord) -> bool {
    let made_by = child.parent.as_ref().map(|parent| &parent.made_by);
    let Some(MadeBy::Task { slot, run }) = made_by else {
        return false;
    };
    let current = state.slot(slot).and_then(|record| record.current.as_ref());
    current.is_some_and(|current| current.run == *run)
}

/// Takes a job away that has ended, with all that is kept of it but its events and output.
fn remove(draft: &mut Draft, job: &Name) {
    let state = draft.state();
    let slots = state
        .slots_of(job)
        .map(|record| Key::Slot(record.slot.clone()));
    let versions = state
        .versions(job)
        .map(|record| Key::Version(job.clone(), record.version));
    let keys: Vec<Key> = slots
        .chain(versions)
        .chain([Key::Job(job.clone())])
        .collect();
    for key in keys {
        draft.delete(key);
    }
}
