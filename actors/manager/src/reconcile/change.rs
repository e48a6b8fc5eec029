//! What a change of a task's spec means for its runs: whether they go on under it.

use loom_schemas::ids::Index;
use loom_schemas::spec::TaskSpec;

/// Whether a run of the first spec can go on under the second: only what the manager and the task
/// actor read anew differs. A change of resources replaces the run, as drivers cannot resize yet.
pub fn same_in_place(old: &TaskSpec, new: &TaskSpec) -> bool {
    // Taken apart so that a new field has to be thought of here.
    let TaskSpec {
        operator,
        image,
        network,
        command,
        args,
        replicas: _,
        per_index,
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
    *operator == new.operator
        && *image == new.image
        && *network == new.network
        && *command == new.command
        && *args == new.args
        && *per_index == new.per_index
        && *env == new.env
        && *params == new.params
        && *vars == new.vars
        && *result == new.result
        && *results == new.results
        && *workdir == new.workdir
        && *user == new.user
        && *resources == new.resources
        && *ports == new.ports
        && *constraints == new.constraints
        && *affinities == new.affinities
        && *spread == new.spread
        && *tolerations == new.tolerations
        && *stop == new.stop
        && *after == new.after
        && *logs == new.logs
        && *sim == new.sim
}

/// The same for the run of one index, which may have something of its own.
pub fn same_at_index(old: &TaskSpec, new: &TaskSpec, index: &Index) -> bool {
    let own = !old.per_index.is_empty() || !new.per_index.is_empty();
    if own {
        same_in_place(&old.of_index(index), &new.of_index(index))
    } else {
        same_in_place(old, new)
    }
}
