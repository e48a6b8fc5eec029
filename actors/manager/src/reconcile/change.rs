//! What a change of a task's spec means for its runs: whether they go on under it.

use loom_schemas::ids::Index;
use loom_schemas::spec::{Resources, TaskSpec};

/// What a change of a task's spec means for a run; the later, the more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It goes on: only what the manager and the task actor read anew differs, if anything.
    Adopt,
    /// It goes on, held to other limits.
    Resize,
    /// Another takes its place.
    Replace,
}

/// What a change means for the runs of a task, those for which it means most.
pub fn change(old: &TaskSpec, new: &TaskSpec) -> Change {
    let keys = old.per_index.keys().chain(new.per_index.keys());
    let own = keys.map(|index| change_at(old, new, &Index::Number(*index)));
    own.max().unwrap_or(Change::Adopt).max(apart(old, new))
}

/// What it means for the run of one index, which may have something of its own.
pub fn change_at(old: &TaskSpec, new: &TaskSpec, index: &Index) -> Change {
    if old.per_index.is_empty() && new.per_index.is_empty() {
        apart(old, new)
    } else {
        apart(&old.of_index(index), &new.of_index(index))
    }
}

/// Whether runs of the first spec go on under the second as they are.
pub fn same_in_place(old: &TaskSpec, new: &TaskSpec) -> bool {
    change(old, new) == Change::Adopt
}

/// What it means apart from what single indexes have of their own.
fn apart(old: &TaskSpec, new: &TaskSpec) -> Change {
    // Taken apart so that a new field has to be thought of here.
    let TaskSpec {
        operator,
        image,
        network,
        command,
        args,
        replicas: _,
        per_index: _,
        gang: _,
        env,
        params,
        vars,
        result,
        results,
        workdir,
        user,
        resources,
        ports,
        constraints,
        affinities,
        spread,
        tolerations,
        restart: _,
        stop,
        timeout: _,
        after,
        health: _,
        logs,
        sim,
    } = old;
    let same = *operator == new.operator
        && *image == new.image
        && *network == new.network
        && *command == new.command
        && *args == new.args
        && *env == new.env
        && *params == new.params
        && *vars == new.vars
        && *result == new.result
        && *results == new.results
        && *workdir == new.workdir
        && *user == new.user
        && *ports == new.ports
        && *constraints == new.constraints
        && *affinities == new.affinities
        && *spread == new.spread
        && *tolerations == new.tolerations
        && *stop == new.stop
        && *after == new.after
        && *logs == new.logs
        && *sim == new.sim;
    if same {
        limits(resources, &new.resources)
    } else {
        Change::Replace
    }
}

fn limits(old: &Resources, new: &Resources) -> Change {
    let Resources {
        cpu: _,
        cpu_limit: _,
        memory: _,
        disk,
        disk_rate: _,
        pids: _,
        gpus,
    } = old;
    if old == new {
        Change::Adopt
    } else if *disk == new.disk && *gpus == new.gpus {
        Change::Resize
    } else {
        Change::Replace
    }
}

#[cfg(test)]
mod tests {
    use loom_schemas::spec::{IndexSpec, ResourceChange};
    use loom_schemas::units::{Bytes, MilliCores};

    use super::*;
    use crate::state::fixture::task;

    fn edited(edit: impl FnOnce(&mut TaskSpec)) -> TaskSpec {
        let mut task = task(3);
        edit(&mut task);
        task
    }

    #[test]
    fn limits_change_in_place_and_all_that_a_run_sees_replaces_it() {
        type Edit = fn(&mut TaskSpec);
        let table: [(&str, Edit, Change); 15] = [
            ("nothing", |_| {}, Change::Adopt),
            ("replicas", |t| t.replicas = 9, Change::Adopt),
            ("restart", |t| t.restart.attempts = 9, Change::Adopt),
            ("health", |t| t.health = None, Change::Adopt),
            ("cpu", |t| t.resources.cpu = MilliCores(1), Change::Resize),
            (
                "cpu_limit",
                |t| t.resources.cpu_limit = Some(MilliCores(9)),
                Change::Resize,
            ),
            ("memory", |t| t.resources.memory = Bytes(1), Change::Resize),
            ("pids", |t| t.resources.pids = Some(1), Change::Resize),
            (
                "disk_rate",
                |t| t.resources.disk_rate = Some(Bytes(1)),
                Change::Resize,
            ),
            (
                "two of them and a field that is read anew",
                |t| {
                    t.resources.pids = Some(1);
                    t.resources.memory = Bytes(1);
                    t.restart.attempts = 9;
                },
                Change::Resize,
            ),
            ("disk", |t| t.resources.disk = Bytes(1), Change::Replace),
            (
                "gpus",
                |t| t.resources.gpus = Some(Box::default()),
                Change::Replace,
            ),
            (
                "env",
                |t| drop(t.env.insert("A".into(), "b".into())),
                Change::Replace,
            ),
            ("stop", |t| t.stop.signal = "SIGINT".into(), Change::Replace),
            (
                "a limit and an argument",
                |t| {
                    t.resources.pids = Some(1);
                    t.args.push("x".into());
                },
                Change::Replace,
            ),
        ];
        for (what, edit, expected) in table {
            let new = edited(edit);
            assert_eq!(change(&task(3), &new), expected, "{what}");
            assert_eq!(change(&new, &task(3)), expected, "{what}, back");
        }
    }

    #[test]
    fn what_one_index_has_of_its_own_is_its_own_change() {
        let own = |resources| IndexSpec {
            resources,
            ..IndexSpec::default()
        };
        let more = edited(|task| {
            let cpu = Some(MilliCores(2000));
            let change = ResourceChange {
                cpu,
                ..ResourceChange::default()
            };
            task.per_index.insert(1, own(change));
        });
        let at = |index: u32| change_at(&task(3), &more, &index.into());
        assert_eq!((at(0), at(1)), (Change::Adopt, Change::Resize));
        assert_eq!(change(&task(3), &more), Change::Resize);
        let the_same = edited(|task| {
            let memory = Some(task.resources.memory);
            let change = ResourceChange {
                memory,
                ..ResourceChange::default()
            };
            task.per_index.insert(1, own(change));
        });
        assert_eq!(change(&task(3), &the_same), Change::Adopt);
        let args = edited(|task| {
            let args = Some(vec!["x".to_owned()]);
            task.per_index.insert(
                2,
                IndexSpec {
                    args,
                    ..IndexSpec::default()
                },
            );
        });
        assert_eq!(change(&task(3), &args), Change::Replace);
        assert_eq!(change_at(&task(3), &args, &0.into()), Change::Adopt);
    }
}
