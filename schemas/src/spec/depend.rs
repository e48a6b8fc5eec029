//! What waits for what: `depends_on` between jobs, `after` between the tasks of one.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Field, Form};
use super::lower::{Lowering, TaskPlace};
use super::problem::{Problem, ProblemKind, nearest, shown};
use super::{RestartOn, TaskSpec};
use crate::ids::Name;

/// The most dependencies of a job, and of a task.
pub const DEPENDENCIES_MAX: usize = 1000;

/// Another job that this one waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependsOn {
    /// The job.
    pub job: Name,
    /// One of its tasks; the job as a whole if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Name>,
    /// What it has to have come to.
    #[serde(default)]
    pub on: DependOn,
}

/// A task of the same job that this one waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// The task.
    pub task: Name,
    /// What it has to have come to.
    #[serde(default)]
    pub on: DependOn,
}

/// What a job or task that is waited for has to have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DependOn {
    /// All of it completed.
    #[default]
    Completed,
    /// All of it runs.
    Running,
    /// All of it is healthy.
    Healthy,
}

impl DependOn {
    /// The word as it stands in files and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Running => "running",
            Self::Healthy => "healthy",
        }
    }
}

/// A task whose run is a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubJob {
    /// The job that is dispatched with the task's params.
    pub job: Name,
}

/// Another job that this one waits for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "DependsOn")]
pub(crate) struct DependsOnFile {
    /// Its name. Required.
    job: Field<Name>,
    /// One of its tasks. Default: the job as a whole.
    task: Field<Name>,
    /// What it has to have come to: `completed`, `running` or `healthy`. Default: `completed`.
    on: Field<DependOn>,
}

/// A task of the same job that this one waits for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "After")]
pub(crate) struct AfterFile {
    /// Its name. Required.
    task: Field<Name>,
    /// What it has to have come to: `completed`, `running` or `healthy`. Default: `completed`.
    on: Field<DependOn>,
}

/// Where a dependency stands, to be checked once all tasks are known.
pub(super) struct AfterPlace {
    of: Name,
    after: After,
    place: Field<()>,
}

impl Lowering<'_> {
    /// The jobs that a job of this name waits for.
    pub(super) fn depends_on(
        &mut self,
        field: Field<Vec<Field<Form<Name, DependsOnFile>>>>,
        own: Option<&Name>,
    ) -> Vec<DependsOn> {
        self.dependencies(&field);
        let mut all: Vec<DependsOn> = Vec::new();
        for field in field.value.unwrap_or_default() {
            let place = field.as_place();
            let file = match field.value {
                Some(Form::Short(job)) => DependsOnFile {
                    job: place.clone_with(job),
                    ..DependsOnFile::default()
                },
                Some(Form::Full(file)) => file,
                None => continue,
            };
            if !file.job.present {
                let help = "name the job that is waited for: `job: db`";
                self.push(place.problem("`job` is missing", help));
            }
            let Some(job) = file.job.value else { continue };
            let task = file.task.value;
            if Some(&job) == own {
                let help = "`after` orders the tasks of one job";
                self.push(place.problem("a job cannot wait for itself", help));
            }
            let before = |other: &DependsOn| other.job == job && other.task == task;
            if all.iter().any(before) {
                let of = task.map(|task| format!("task `{task}` of "));
                let message = format!("{}`{job}` is there twice", of.unwrap_or_default());
                self.push(place.problem(message, "remove one of the two"));
                continue;
            }
            all.push(DependsOn {
                job,
                task,
                on: file.on.value.unwrap_or_default(),
            });
        }
        all
    }

    /// The tasks that a task waits for; they are checked by [`check_after`](Self::check_after).
    pub(super) fn after(
        &mut self,
        field: Field<Vec<Field<Form<Name, AfterFile>>>>,
        of: &TaskPlace,
    ) -> Vec<After> {
        self.dependencies(&field);
        let mut all: BTreeMap<Name, After> = BTreeMap::new();
        for field in field.value.unwrap_or_default() {
            let place = field.as_place();
            let file = match field.value {
                Some(Form::Short(task)) => AfterFile {
                    task: place.clone_with(task),
                    ..AfterFile::default()
                },
                Some(Form::Full(file)) => file,
                None => continue,
            };
            if !file.task.present {
                let help = "name the task that is waited for: `task: build`";
                self.push(place.problem("`task` is missing", help));
            }
            let Some(task) = file.task.value else {
                continue;
            };
            let on = file.on.value.unwrap_or_default();
            let after = After {
                task: task.clone(),
                on,
            };
            if let Some(of) = &of.name {
                self.after.push(AfterPlace {
                    of: of.clone(),
                    after: after.clone(),
                    place: place.clone_with(()),
                });
            }
            if all.insert(task.clone(), after).is_some() {
                let message = format!("`{task}` is there twice");
                self.push(place.problem(message, "remove one of the two"));
            }
        }
        all.into_values().collect()
    }

    fn dependencies<T>(&mut self, field: &Field<Vec<T>>) {
        let count = field.value.as_ref().map_or(0, Vec::len);
        if count > DEPENDENCIES_MAX {
            let help = format!("at most {DEPENDENCIES_MAX}");
            let problem = field.problem(format!("{count} dependencies"), help);
            self.push(problem.of(ProblemKind::TooLarge));
        }
    }

    /// Whether the tasks that others wait for are there, can come to what is waited for, and do not
    /// wait for each other.
    pub(super) fn check_after(&mut self, tasks: &BTreeMap<Name, TaskSpec>) {
        let places = std::mem::take(&mut self.after);
        let mut wrong = Vec::new();
        for AfterPlace { of, after, place } in &places {
            let task = &after.task;
            let problem = match tasks.get(task) {
                _ if task == of => place.problem("a task cannot wait for itself", "remove it"),
                None => place.problem(
                    format!("the job has no task `{task}`"),
                    task_help(task, of, tasks),
                ),
                Some(other) => match never(task, other, after.on) {
                    Some((message, help)) => place.problem(message, help),
                    None => continue,
                },
            };
            wrong.push(problem);
        }
        if wrong.is_empty() {
            wrong.extend(cycle(&places));
        }
        for problem in wrong {
            self.push(problem);
        }
    }
}

fn task_help(task: &Name, of: &Name, tasks: &BTreeMap<Name, TaskSpec>) -> String {
    let names = || tasks.keys().filter(|name| *name != of).map(Name::as_str);
    nearest(task.as_str(), names()).unwrap_or_else(|| {
        let names: Vec<&str> = names().take(20).collect();
        match names.as_slice() {
            [] => "it has no other task".to_owned(),
            names => shown(&format!("its others: {}", names.join(", "))),
        }
    })
}

/// Why a task never comes to what is waited for.
fn never(name: &Name, task: &TaskSpec, on: DependOn) -> Option<(String, String)> {
    match on {
        DependOn::Completed if task.restart.on == RestartOn::Any => Some((
            format!("`{name}` never completes: it is started again after every end"),
            format!("write `{{task: {name}, on: running}}`, or give it `restart: failure`"),
        )),
        DependOn::Healthy if task.health.is_none() => Some((
            format!("`{name}` is never healthy: nothing checks it"),
            format!("give it a `health`, or write `{{task: {name}, on: running}}`"),
        )),
        _ => None,
    }
}

/// The first tasks in the file that wait for each other.
fn cycle(places: &[AfterPlace]) -> Option<Problem> {
    let mut waits: BTreeMap<&Name, Vec<&AfterPlace>> = BTreeMap::new();
    let mut waited: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
    for place in places {
        waits.entry(&place.of).or_default().push(place);
        waited.entry(&place.after.task).or_default().push(&place.of);
    }
    // Whoever waits for nobody is taken out, until only those are left that wait for each other,
    // and those that wait for them.
    let mut left: BTreeMap<&Name, usize> = waits
        .iter()
        .map(|(name, list)| (*name, list.len()))
        .collect();
    let mut free: Vec<&Name> = waited
        .keys()
        .filter(|name| !waits.contains_key(**name))
        .copied()
        .collect();
    while let Some(done) = free.pop() {
        for of in waited.get(done).into_iter().flatten() {
            if let Some(count) = left.get_mut(of) {
                *count -= 1;
                if *count == 0 {
                    left.remove(of);
                    free.push(of);
                }
            }
        }
    }
    let first = places.iter().find(|place| left.contains_key(&place.of))?;
    let mut way = vec![&first.of];
    let mut seen = BTreeSet::from([&first.of]);
    loop {
        let last = way.last()?;
        let next = waits.get(last)?.iter();
        let next = &next
            .map(|place| &place.after.task)
            .find(|t| left.contains_key(t))?;
        if !seen.insert(next) {
            let start = way.iter().position(|name| name == next)?;
            way.drain(..start);
            way.push(next);
            break;
        }
        way.push(next);
    }
    let on_it = |place: &&AfterPlace| {
        way.windows(2)
            .any(|w| *w[0] == place.of && *w[1] == place.after.task)
    };
    let place = places.iter().find(on_it)?;
    Some(place.place.problem(
        format!("the tasks wait for each other: {}", way_of(&way)),
        "remove one of these",
    ))
}

/// `a -> b -> a`, cut where it is long.
fn way_of(way: &[&Name]) -> String {
    let names: Vec<&str> = way.iter().map(|name| name.as_str()).collect();
    match names.as_slice() {
        [first @ .., last] if first.len() > 8 => {
            let more = first.len() - 7;
            format!("{} -> ({more} more) -> {last}", first[..7].join(" -> "))
        }
        names => names.join(" -> "),
    }
}
