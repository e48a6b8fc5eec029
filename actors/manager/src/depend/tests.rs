use loom_schemas::ids::{RunId, Slot};
use loom_schemas::record::{Exit, Health, RunRecord};
use loom_schemas::spec::{Operator, Overlap, RestartOn, ScheduleSpec, SubJob, TaskSpec};
use loom_schemas::wire::{JobDependency, JobRequest, ScaleRequest, Standing, TaskStanding};
use loom_schemas::words::{HealthStatus, Kind, RunState};
use proptest::prelude::{any, prop, proptest};

use super::*;
use crate::decide;
use crate::plan::{PlanOptions, plan};
use crate::state::fixture::{
    ANNA, at, cases, counter, decide as edit, health, job, name, report_of, submission, task,
    with_nodes,
};

/// One node with room for everything, and what is decided.
struct World {
    state: State,
    ids: Box<dyn FnMut() -> RunId>,
    now: i64,
    /// Plans that were made in all.
    passes: usize,
}

impl World {
    fn new() -> Self {
        Self {
            state: with_nodes(1, 4000),
            ids: Box::new(counter()),
            now: 1,
            passes: 0,
        }
    }

    fn try_submit(&mut self, spec: &JobSpec) -> Result<(), String> {
        let mut result = Ok(());
        let now = at(self.now);
        self.state = edit(&self.state, |draft| {
            result = decide::submit(draft, submission(spec), ANNA, now).map(drop);
        })
        .state;
        self.plan();
        result.map_err(|error| error.message)
    }

    fn submit(&mut self, spec: &JobSpec) {
        self.try_submit(spec).unwrap();
    }

    fn plan(&mut self) {
        let now = at(self.now);
        for _ in 0..200 {
            let mut more = false;
            let ids = &mut self.ids;
            self.state = edit(&self.state, |draft| {
                more = plan(draft, now, &PlanOptions::default(), ids).more;
            })
            .state;
            self.passes += 1;
            if !more {
                return;
            }
        }
        panic!("planning does not settle");
    }

    /// A node says that the run of a slot is in this state by now.
    fn says(&mut self, slot: &Slot, state: RunState, health: Option<HealthStatus>) {
        self.now += 1;
        let now = at(self.now);
        let run = self.run(slot).unwrap().clone();
        let mut report = report_of(slot, run.run, state);
        report.version = run.version;
        report.started_at = run.started_at.or(Some(now));
        if state.is_terminal() {
            report.ended_at = Some(now);
            report.exit = Some(Exit {
                code: Some(i32::from(state != RunState::Completed)),
                ..Exit::default()
            });
        }
        report.health = health.map(|status| Health {
            status,
            reason: None,
            since: now,
        });
        self.state = edit(&self.state, |draft| {
            decide::report(draft, &name("node-1"), &[report], false, now);
        })
        .state;
        self.plan();
    }

    fn goes(&mut self, job: &str, task: &str, state: RunState) {
        self.says(&Slot::new(name(job), name(task), 0), state, None);
    }

    fn stop(&mut self, address: &str) {
        self.order_to_stop(address);
        self.plan();
    }

    /// Says that something is to stop; nothing is planned yet.
    fn order_to_stop(&mut self, address: &str) {
        let request = JobRequest {
            address: address.parse().unwrap(),
            reason: Some("enough".to_owned()),
        };
        self.state = edit(&self.state, |draft| {
            decide::stop(draft, &request, ANNA, at(1)).unwrap();
        })
        .state;
    }

    /// `load=0`.
    fn scale(&mut self, what: &str) {
        let (job, replicas) = what.split_once('=').unwrap();
        let request = ScaleRequest {
            job: name(job),
            task: None,
            replicas: replicas.parse().unwrap(),
        };
        let now = at(self.now);
        self.state = edit(&self.state, |draft| {
            decide::scale(draft, &request, ANNA, now).unwrap();
        })
        .state;
        self.plan();
    }

    fn run(&self, slot: &Slot) -> Option<&RunRecord> {
        self.state.slot(slot)?.current.as_ref()
    }

    /// The tasks of a job that have a run.
    fn started(&self, job: &str) -> Vec<&str> {
        let job = self.state.job(&name(job)).unwrap();
        let slots = self.state.slots_of(&job.name);
        let started = slots.filter(|slot| slot.current.is_some() || !slot.ended.is_empty());
        started.map(|slot| slot.slot.task.as_str()).collect()
    }

    /// The tasks of a job that have a live run, with its round.
    fn live(&self, job: &str) -> Vec<String> {
        let job = name(job);
        let runs = self.state.slots_of(&job).flat_map(|slot| {
            live_runs(slot).map(|run| format!("{} {}", slot.slot.task, run.round))
        });
        runs.collect()
    }

    /// `failed: reason`.
    fn stands(&self, job: &str) -> String {
        let job = self.state.job(&name(job)).unwrap();
        match &job.reason {
            Some(reason) => format!("{}: {reason}", job.status),
            None => job.status.to_string(),
        }
    }

    fn standing(&self, job: &str) -> (Vec<TaskStanding>, Vec<JobDependency>) {
        let job = self.state.job(&name(job)).unwrap();
        standing(&self.state, job, self.state.spec(job).unwrap())
    }

    fn graph(&self, job: &str) -> Vec<String> {
        let said = |task: TaskStanding| match task.reason {
            Some(reason) => format!("{} {}: {reason}", task.task, task.standing.as_str()),
            None => format!("{} {}", task.task, task.standing.as_str()),
        };
        self.standing(job).0.into_iter().map(said).collect()
    }
}

fn small() -> TaskSpec {
    let mut small = task(1);
    small.resources.cpu = loom_schemas::units::MilliCores(1);
    small.resources.memory = loom_schemas::units::Bytes(1);
    small.operator = Operator::Exec(vec!["true".to_owned()]);
    small.restart.on = RestartOn::Failure;
    small
}

fn after(mut task: TaskSpec, others: &[(&str, DependOn)]) -> TaskSpec {
    let other = |(task, on): &(&str, DependOn)| After {
        task: name(task),
        on: *on,
    };
    task.after = others.iter().map(other).collect();
    task
}

fn tasks(of: &str, kind: Kind, tasks: &[(&str, TaskSpec)]) -> JobSpec {
    let mut spec = job(of, kind, small());
    let named = |(task, spec): &(&str, TaskSpec)| (name(task), spec.clone());
    spec.tasks = tasks.iter().map(named).collect();
    spec
}

fn depending(of: &str, on: &[(&str, DependOn)]) -> JobSpec {
    let mut spec = job(of, Kind::Batch, small());
    let other = |(job, on): &(&str, DependOn)| DependsOn {
        job: name(job),
        task: None,
        on: *on,
    };
    spec.depends_on = on.iter().map(other).collect();
    spec
}

const DONE: DependOn = DependOn::Completed;

#[test]
fn a_task_starts_once_those_it_waits_for_completed() {
    let mut world = World::new();
    let spec = [
        ("build", small()),
        ("lint", small()),
        ("test", after(small(), &[("build", DONE), ("lint", DONE)])),
    ];
    world.submit(&tasks("ci", Kind::Batch, &spec));
    assert_eq!(world.started("ci"), ["build", "lint"]);
    let waits = "test waiting: waiting for task build to complete, task lint to complete";
    assert_eq!(world.graph("ci")[2], waits);
    world.goes("ci", "build", RunState::Completed);
    assert_eq!(
        world.graph("ci")[2],
        "test waiting: waiting for task lint to complete"
    );
    assert_eq!(world.started("ci"), ["build", "lint"]);
    world.goes("ci", "lint", RunState::Completed);
    assert_eq!(world.started("ci"), ["build", "lint", "test"]);
    world.goes("ci", "test", RunState::Completed);
    assert_eq!(world.stands("ci"), "completed");
}

#[test]
fn a_batch_that_is_restarted_while_it_runs_begins_anew_in_its_order() {
    let mut world = World::new();
    let spec = [
        ("a", small()),
        ("b", after(small(), &[("a", DONE)])),
        ("c", after(small(), &[("b", DONE)])),
    ];
    world.submit(&tasks("pipe", Kind::Batch, &spec));
    world.goes("pipe", "a", RunState::Completed);
    world.goes("pipe", "b", RunState::Completed);
    world.goes("pipe", "c", RunState::Running);
    let restart = JobRequest {
        address: "pipe".parse().unwrap(),
        reason: None,
    };
    let now = at(world.now);
    world.state = edit(&world.state, |draft| {
        assert!(decide::restart(draft, &restart, ANNA, now).unwrap());
    })
    .state;
    world.plan();
    assert_eq!(world.live("pipe"), ["a 2", "c 1"]);
    world.goes("pipe", "a", RunState::Running);
    world.goes("pipe", "c", RunState::Killed);
    assert_eq!(world.live("pipe"), ["a 2"]);
    world.goes("pipe", "a", RunState::Completed);
    assert_eq!(world.live("pipe"), ["b 2"]);
    world.goes("pipe", "b", RunState::Completed);
    world.goes("pipe", "c", RunState::Completed);
    assert_eq!(world.stands("pipe"), "completed");
}

#[test]
fn running_and_healthy_are_waited_for_as_well() {
    let mut world = World::new();
    let mut db = small();
    db.health = Some(health());
    let spec = [
        ("api", after(small(), &[("db", DependOn::Healthy)])),
        ("db", db),
        ("log", after(small(), &[("db", DependOn::Running)])),
    ];
    world.submit(&tasks("web", Kind::Service, &spec));
    let db = Slot::new(name("web"), name("db"), 0);
    world.says(&db, RunState::Starting, None);
    assert_eq!(world.started("web"), ["db"]);
    world.says(&db, RunState::Running, Some(HealthStatus::Pending));
    assert_eq!(world.started("web"), ["db", "log"]);
    assert_eq!(
        world.graph("web")[0],
        "api waiting: waiting for task db to be healthy"
    );
    world.says(&db, RunState::Running, Some(HealthStatus::Healthy));
    assert_eq!(world.started("web"), ["api", "db", "log"]);
    // Its gate is behind it: what it has waited for is not asked again.
    world.says(&db, RunState::Running, Some(HealthStatus::Unhealthy));
    world.goes("web", "api", RunState::Failed);
    world.now += 100;
    world.plan();
    assert!(world.run(&Slot::new(name("web"), name("api"), 0)).is_some());
}

#[test]
fn in_a_batch_a_failure_ends_the_job_and_what_waited_never_starts() {
    let mut world = World::new();
    let spec = [
        ("a", small()),
        ("b", after(small(), &[("a", DONE)])),
        ("c", after(small(), &[("b", DONE)])),
    ];
    world.submit(&tasks("ci", Kind::Batch, &spec));
    world.goes("ci", "a", RunState::Failed);
    assert_eq!(world.stands("ci"), "failed: ci/a/0 failed: exit code 1");
    assert_eq!(world.started("ci"), ["a"]);
    let chain = [
        "a failed: failed: ci/a/0 failed: exit code 1",
        "b failed: task a failed: ci/a/0 failed: exit code 1",
        "c failed: task b never started: task a failed: ci/a/0 failed: exit code 1",
    ];
    assert_eq!(world.graph("ci"), chain);
}

#[test]
fn in_a_service_the_others_go_on_and_the_chain_of_reasons_stands() {
    let mut world = World::new();
    let mut once = small();
    once.restart.on = RestartOn::Never;
    let spec = [
        ("migrate", once),
        ("other", small()),
        ("web", after(small(), &[("migrate", DONE)])),
    ];
    world.submit(&tasks("web", Kind::Service, &spec));
    world.goes("web", "other", RunState::Running);
    world.goes("web", "migrate", RunState::Failed);
    assert_eq!(world.stands("web"), "running");
    assert_eq!(world.started("web"), ["migrate", "other"]);
    let failed = "web failed: task migrate failed: web/migrate/0 failed: exit code 1";
    assert_eq!(world.graph("web")[2], failed);
    world.goes("web", "other", RunState::Completed);
    assert_eq!(
        world.stands("web"),
        "failed: web/migrate/0 failed: exit code 1"
    );
    assert_eq!(world.started("web"), ["migrate", "other"]);
}

#[test]
fn a_failure_goes_down_a_long_chain_of_tasks_whatever_they_are_called() {
    let mut once = small();
    once.restart.on = RestartOn::Never;
    let number = |at: usize| format!("t{at:04}");
    for backwards in [false, true] {
        let named = |at: usize| number(if backwards { 999 - at } else { at });
        let mut spec = job("web", Kind::Service, small());
        spec.tasks = (0..1000_usize)
            .map(|at| {
                let before = at.checked_sub(1).map(named);
                let others: Vec<_> = before.iter().map(|task| (task.as_str(), DONE)).collect();
                (name(&named(at)), after(once.clone(), &others))
            })
            .collect();
        let mut world = World::new();
        world.submit(&spec);
        world.goes("web", &named(0), RunState::Failed);
        let gates = Gates::of(
            &world.state,
            world.state.job(&spec.name).unwrap(),
            world
                .state
                .spec(world.state.job(&spec.name).unwrap())
                .unwrap(),
        );
        assert_eq!(gates.never().count(), 999);
        assert_eq!(world.started("web"), [named(0)]);
    }
}

#[test]
fn a_job_waits_for_another_and_is_woken_by_it() {
    let mut world = World::new();
    world.submit(&job("a", Kind::Batch, small()));
    world.submit(&depending("b", &[("a", DONE)]));
    assert_eq!(world.stands("b"), "pending: waiting for job a to complete");
    assert!(world.started("b").is_empty());
    let before = world.passes;
    world.goes("a", "main", RunState::Running);
    assert_eq!(
        world.passes,
        before + 1,
        "nothing is decided for b, so it is not looked at"
    );
    world.goes("a", "main", RunState::Completed);
    assert_eq!(world.started("b"), ["main"]);
    assert_eq!(world.stands("b"), "pending");
    let others = world.standing("b").1;
    assert_eq!(others[0].standing, Standing::Completed);
}

#[test]
fn the_failure_of_a_job_goes_down_the_chain_and_nothing_of_it_starts() {
    let mut world = World::new();
    world.submit(&job("a", Kind::Batch, small()));
    world.submit(&depending("b", &[("a", DONE)]));
    world.submit(&depending("c", &[("b", DONE)]));
    world.goes("a", "main", RunState::Failed);
    assert_eq!(
        world.stands("b"),
        "failed: job a failed: a/0 failed: exit code 1"
    );
    assert_eq!(
        world.stands("c"),
        "failed: job b failed: job a failed: a/0 failed: exit code 1"
    );
    assert!(world.started("b").is_empty() && world.started("c").is_empty());
    // A new round of it is a new chance.
    world.submit(&job("a", Kind::Batch, small()));
    world.submit(&depending("b", &[("a", DONE)]));
    assert_eq!(world.stands("b"), "pending: waiting for job a to complete");
}

#[test]
fn one_task_of_a_job_is_waited_for_and_who_is_stopped_has_failed_those_that_wait() {
    let mut world = World::new();
    let two = tasks("a", Kind::Batch, &[("one", small()), ("two", small())]);
    world.submit(&two);
    let mut b = depending("b", &[("a", DONE)]);
    b.depends_on[0].task = Some(name("one"));
    world.submit(&b);
    world.submit(&depending("c", &[("a", DependOn::Running)]));
    assert_eq!(
        world.stands("b"),
        "pending: waiting for task one of job a to complete"
    );
    world.goes("a", "one", RunState::Completed);
    assert_eq!(world.started("b"), ["main"]);
    assert!(world.started("c").is_empty());
    world.stop("a");
    world.goes("a", "two", RunState::Killed);
    assert_eq!(
        world.stands("c"),
        "failed: job a was killed: stopped by anna: enough"
    );
}

#[test]
fn who_waits_for_a_service_is_told_which_task_of_it_failed_for_good() {
    let mut world = World::new();
    let mut once = small();
    once.restart.on = RestartOn::Never;
    let two = tasks("a", Kind::Service, &[("one", once), ("two", small())]);
    world.submit(&two);
    world.submit(&depending("b", &[("a", DependOn::Running)]));
    world.goes("a", "two", RunState::Running);
    let a = world.standing("b").1.remove(0);
    assert_eq!((a.standing, a.reason), (Standing::Pending, None));
    world.goes("a", "one", RunState::Failed);
    assert_eq!(world.stands("b"), "pending: waiting for job a to run");
    let a = world.standing("b").1.remove(0);
    assert_eq!(a.standing, Standing::Pending);
    let why = "its task one failed: a/one/0 failed: exit code 1";
    assert_eq!(a.reason.as_deref(), Some(why));
}

#[test]
fn what_is_scaled_to_nothing_has_come_to_nothing() {
    let mut world = World::new();
    let mut checked = small();
    checked.health = Some(health());
    world.submit(&job("db", Kind::Service, checked));
    world.submit(&job("load", Kind::Batch, small()));
    world.submit(&depending("web", &[("db", DependOn::Healthy)]));
    world.submit(&depending("report", &[("load", DONE)]));
    world.goes("load", "main", RunState::Running);
    world.scale("db=0");
    world.scale("load=0");
    world.goes("load", "main", RunState::Killed);
    let idle = "running: its tasks have 0 replicas: scale one of them";
    assert_eq!(world.stands("load"), idle);
    assert_eq!(
        world.stands("web"),
        "pending: waiting for job db to be healthy"
    );
    let db = world.standing("web").1.remove(0);
    assert_eq!(db.reason.as_deref(), Some("it has 0 replicas"));
    assert!(world.started("web").is_empty() && world.started("report").is_empty());
    world.scale("load=1");
    world.goes("load", "main", RunState::Completed);
    assert_eq!(world.stands("load"), "completed");
    assert_eq!(world.started("report"), ["main"]);
}

#[test]
fn nothing_starts_for_a_job_that_is_to_stop() {
    let mut world = World::new();
    world.submit(&job("db", Kind::Service, small()));
    world.goes("db", "main", RunState::Running);
    world.order_to_stop("db");
    // It is planned before the other, whose run is not told to stop yet.
    world.submit(&depending("app", &[("db", DependOn::Running)]));
    assert!(world.started("app").is_empty());
    assert_eq!(world.stands("app"), "pending: waiting for job db to run");
    world.goes("db", "main", RunState::Killed);
    assert_eq!(
        world.stands("app"),
        "failed: job db was killed: stopped by anna: enough"
    );
}

#[test]
fn an_index_that_somebody_stopped_is_not_waited_for() {
    let mut world = World::new();
    let mut two = small();
    two.replicas = 2;
    world.submit(&job("db", Kind::Service, two));
    world.submit(&depending("web", &[("db", DependOn::Running)]));
    world.stop("db/1");
    let first = Slot::new(name("db"), Name::main(), 0);
    world.says(&first, RunState::Running, None);
    assert_eq!(world.started("web"), ["main"]);
}

#[test]
fn a_batch_without_replicas_is_not_over_before_what_it_waits_for() {
    let mut world = World::new();
    world.submit(&job("x", Kind::Batch, small()));
    let mut mid = depending("mid", &[("x", DONE)]);
    mid.tasks.get_mut(&Name::main()).unwrap().replicas = 0;
    world.submit(&mid);
    assert_eq!(
        world.stands("mid"),
        "pending: waiting for job x to complete"
    );
    world.goes("x", "main", RunState::Completed);
    let idle = "pending: its tasks have 0 replicas: scale one of them";
    assert_eq!(world.stands("mid"), idle);
}

#[test]
fn a_task_without_replicas_keeps_no_other_task_from_counting() {
    let mut world = World::new();
    let mut none = small();
    none.replicas = 0;
    let spec = [
        ("debug", none),
        ("late", after(small(), &[("debug", DependOn::Running)])),
        ("web", small()),
    ];
    world.submit(&tasks("shop", Kind::Service, &spec));
    assert_eq!(world.started("shop"), ["web"]);
    let waits = "late waiting: waiting for task debug to run (it has 0 replicas)";
    assert_eq!(world.graph("shop")[1], waits);
    let mut two = tasks("two", Kind::Service, &spec);
    two.tasks.remove(&name("late"));
    world.submit(&two);
    world.submit(&depending("next", &[("two", DependOn::Running)]));
    assert!(world.started("next").is_empty());
    world.goes("two", "web", RunState::Running);
    assert_eq!(world.started("next"), ["main"]);
}

#[test]
fn the_same_job_again_is_no_change_whatever_became_of_what_it_waited_for() {
    let mut world = World::new();
    world.submit(&tasks("b", Kind::Batch, &[("load", small())]));
    let mut a = depending("a", &[("b", DONE)]);
    a.depends_on[0].task = Some(name("load"));
    world.submit(&a);
    world.goes("b", "load", RunState::Completed);
    world.goes("a", "main", RunState::Running);
    world.submit(&tasks("b", Kind::Batch, &[("other", small())]));
    world.submit(&a);
    assert_eq!(world.state.job(&name("a")).unwrap().version, 1);
    a.priority += 1;
    let refused = world.try_submit(&a).unwrap_err();
    assert_eq!(
        refused,
        "depends_on: job b has no task load; its tasks are other"
    );
}

#[test]
fn who_waits_for_what_can_never_come_any_more_has_failed() {
    let mut endless = small();
    endless.restart.on = RestartOn::Any;
    let service = job("b", Kind::Service, endless);
    let mut scheduled = job("b", Kind::Batch, small());
    scheduled.schedule = Some(ScheduleSpec {
        cron: "0 3 * * *".to_owned(),
        timezone: "UTC".to_owned(),
        overlap: Overlap::Skip,
    });
    let never = [
        (service, "never completes: it is a service now"),
        (scheduled, "runs by its schedule now, never itself"),
    ];
    for (spec, how) in never {
        let mut world = World::new();
        world.submit(&job("b", Kind::Batch, small()));
        world.submit(&depending("a", &[("b", DONE)]));
        world.submit(&spec);
        assert_eq!(world.stands("a"), format!("failed: job b {how}"));
    }
}

#[test]
fn what_cannot_be_waited_for_is_refused() {
    let mut world = World::new();
    world.submit(&job("a", Kind::Batch, small()));
    world.submit(&depending("b", &[("a", DONE)]));
    world.submit(&depending("c", &[("b", DONE)]));
    let mut refused = |spec: &JobSpec| world.try_submit(spec).unwrap_err();
    let circle = refused(&depending("a", &[("c", DONE)]));
    assert_eq!(
        circle,
        "depends_on: the jobs wait for each other: a -> c -> b -> a"
    );
    let none = refused(&depending("d", &[("x", DONE)]));
    assert_eq!(none, "depends_on: there is no job x: run it first");
    let mut of_task = depending("d", &[("a", DONE)]);
    of_task.depends_on[0].task = Some(name("x"));
    assert_eq!(
        refused(&of_task),
        "depends_on: job a has no task x; its tasks are main"
    );
    let sick = refused(&depending("d", &[("a", DependOn::Healthy)]));
    assert!(
        sick.starts_with("depends_on: job a is never healthy"),
        "{sick}"
    );
    world.submit(&job("web", Kind::Service, task(1)));
    let never = world
        .try_submit(&depending("d", &[("web", DONE)]))
        .unwrap_err();
    assert!(
        never.contains("is a service and does not complete"),
        "{never}"
    );
}

#[test]
fn a_circle_over_tasks_that_are_jobs_is_refused_and_no_other_way_is_one() {
    let mut world = World::new();
    world.submit(&job("render", Kind::Batch, small()));
    let mut film = job("film", Kind::Batch, small());
    let mut cut = small();
    cut.operator = Operator::Job(SubJob {
        job: name("render"),
    });
    cut.after.push(After {
        task: Name::main(),
        on: DependOn::Completed,
    });
    film.tasks.insert(name("cut"), cut);
    world.submit(&film);
    let waits = depending("render", &[("film", DONE)]);
    let circle = world.try_submit(&waits).unwrap_err();
    let expected = "depends_on: the jobs wait for each other: render -> film -> render";
    assert_eq!(circle, expected);
    // What the film does before it is cut waits for no render.
    let mut waits = waits;
    waits.depends_on[0].task = Some(Name::main());
    world.submit(&waits);
    let cut_first = film.tasks.get_mut(&Name::main()).unwrap();
    cut_first.operator = Operator::Job(SubJob {
        job: name("render"),
    });
    let circle = world.try_submit(&film).unwrap_err();
    let expected = "depends_on: the jobs wait for each other: film -> render -> film";
    assert_eq!(circle, expected);
}

#[test]
fn a_long_chain_of_reasons_keeps_both_ends() {
    let mut world = World::new();
    world.submit(&job("j0", Kind::Batch, small()));
    for number in 1..60 {
        let before = format!("j{}", number - 1);
        world.submit(&depending(&format!("j{number}"), &[(&before, DONE)]));
    }
    world.goes("j0", "main", RunState::Failed);
    world.plan();
    let last = world.stands("j59");
    assert!(
        last.starts_with("failed: job j58 failed: job j57 failed"),
        "{last}"
    );
    assert!(
        last.ends_with("job j0 failed: j0/0 failed: exit code 1"),
        "{last}"
    );
    assert!(last.chars().count() <= REASON_MAX + 10, "{last}");
}

/// A job whose tasks wait for earlier ones, as the numbers say.
fn graph_of(edges: &[u32]) -> JobSpec {
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let ons = [DependOn::Completed, DependOn::Running, DependOn::Healthy];
    let spec: Vec<(&str, TaskSpec)> = NAMES
        .iter()
        .enumerate()
        .map(|(at, task)| {
            let edge = edges.get(at).copied().unwrap_or_default() as usize;
            let others = NAMES[..at]
                .iter()
                .enumerate()
                .filter(|(other, _)| edge >> other & 1 == 1);
            let others: Vec<_> = others
                .map(|(other, task)| (*task, ons[(edge >> (8 + other)) % 3]))
                .collect();
            let mut spec = after(small(), &others);
            spec.health = Some(health());
            (*task, spec)
        })
        .collect();
    tasks("dag", Kind::Batch, &spec)
}

/// The cost of a look follows the tasks and what they wait for, however long a chain is.
#[test]
fn each_task_is_looked_at_once_and_after_those_it_waits_for() {
    let named: Vec<String> = (0..300).map(|number| format!("t{number}")).collect();
    // The names go against the order, and each waits for up to 45.
    let waits = |number: usize| {
        let others = named.iter().skip(number + 1).take(45);
        others
            .map(|other| (other.as_str(), DONE))
            .collect::<Vec<_>>()
    };
    let spec: Vec<(&str, TaskSpec)> = (0..300)
        .map(|number| (named[number].as_str(), after(small(), &waits(number))))
        .collect();
    let spec = tasks("dag", Kind::Batch, &spec);
    let mut seen = Vec::new();
    for (name, task) in in_order(&spec) {
        let before = |after: &After| seen.contains(&after.task);
        assert!(task.after.iter().all(before), "{name} came too early");
        seen.push(name.clone());
    }
    assert_eq!(seen.len(), 300);
}

#[test]
fn who_waits_does_not_wait_for_what_somebody_stopped() {
    let mut world = World::new();
    let mut db = small();
    db.replicas = 2;
    let api = after(small(), &[("db", DependOn::Running)]);
    world.submit(&tasks("web", Kind::Service, &[("api", api), ("db", db)]));
    world.goes("web", "db", RunState::Running);
    assert_eq!(world.started("web"), ["db", "db"]);
    let stop = |address: &str| loom_schemas::wire::JobRequest {
        address: address.parse().unwrap(),
        reason: None,
    };
    world.state = edit(&world.state, |draft| {
        decide::stop(draft, &stop("web/db/1"), ANNA, at(1)).unwrap();
    })
    .state;
    world.plan();
    assert_eq!(world.started("web"), ["api", "db", "db"]);
}

proptest! {
    #![proptest_config(cases(1_000))]

    /// A dependant never starts before its dependency has come to what is waited for.
    #[test]
    fn a_dependant_never_starts_before_its_dependency(
        edges in prop::collection::vec(any::<u32>(), 6),
        story in prop::collection::vec(any::<u16>(), 1..40),
    ) {
        let spec = graph_of(&edges);
        let mut world = World::new();
        world.submit(&spec);
        // What each task has come to at any time so far.
        let mut come_to: BTreeMap<Name, Vec<DependOn>> = BTreeMap::new();
        for number in story {
            let slots: Vec<Slot> = world.state.slots().map(|slot| slot.slot.clone()).collect();
            if slots.is_empty() {
                continue;
            }
            let slot = &slots[usize::from(number) % slots.len()];
            let before: Vec<Name> = world.started("dag").into_iter().map(name).collect();
            let (state, health) = match number / 64 % 6 {
                0 | 1 => (RunState::Running, None),
                2 => (RunState::Running, Some(HealthStatus::Healthy)),
                3 => (RunState::Running, Some(HealthStatus::Unhealthy)),
                4 => (RunState::Completed, None),
                _ => (RunState::Failed, None),
            };
            world.says(slot, state, health);
            let run = world.run(slot).unwrap();
            let so_far = come_to.entry(slot.task.clone()).or_default();
            if run.state == RunState::Running || run.state == RunState::Completed {
                so_far.push(DependOn::Running);
                so_far.extend(run.health.as_ref().filter(|h| h.is_healthy()).map(|_| DependOn::Healthy));
            }
            if run.state == RunState::Completed {
                so_far.extend([DependOn::Healthy, DependOn::Completed]);
            }
            for task in world.started("dag").into_iter().map(name) {
                if before.contains(&task) {
                    continue;
                }
                for after in &spec.tasks[&task].after {
                    let came_to = come_to.get(&after.task).is_some_and(|all| all.contains(&after.on));
                    assert!(came_to, "{task} started before {after:?}");
                }
            }
        }
    }
}
