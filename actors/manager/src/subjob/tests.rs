use loom_schemas::spec::reference::ResultUse;
use loom_schemas::spec::{After, DependOn};
use loom_schemas::wire::{DispatchRequest, JobRequest};

use super::*;
use crate::decide;
use crate::plan::{PlanOptions, plan};
use crate::state::fixture::{
    ANNA, at, counter, decide as edit, job, name, report_of, submission, task, with_nodes,
};

struct World {
    state: State,
    ids: Box<dyn FnMut() -> RunId>,
    now: i64,
}

impl World {
    /// A job `render` with a param, and `film` whose task is that job.
    fn new() -> Self {
        let mut world = Self {
            state: with_nodes(1, 400),
            ids: Box::new(counter()),
            now: 1,
        };
        world.submit(&render()).unwrap();
        world.says("render", RunState::Completed);
        world
    }

    fn edit<T>(&mut self, change: impl FnOnce(&mut Draft, Timestamp) -> T) -> T {
        self.now += 1;
        let (mut result, now) = (None, at(self.now));
        self.state = edit(&self.state, |draft| result = Some(change(draft, now))).state;
        for _ in 0..50 {
            let mut more = false;
            let ids = &mut self.ids;
            self.state = edit(&self.state, |draft| {
                more = plan(draft, now, &PlanOptions::default(), ids).more;
            })
            .state;
            if !more {
                return result.unwrap();
            }
        }
        panic!("planning does not settle");
    }

    fn submit(&mut self, spec: &JobSpec) -> Result<(), String> {
        let submitted =
            self.edit(|draft, now| decide::submit(draft, submission(spec), ANNA, now).map(drop));
        submitted.map_err(|error| error.message)
    }

    /// The node says this of the only run of a job.
    fn says(&mut self, job: &str, state: RunState) {
        let job = name(job);
        let record = self.state.slots_of(&job).next().unwrap();
        let run = record.current.as_ref().unwrap();
        let mut report = report_of(&record.slot, run.run, state);
        report.started_at = Some(at(self.now));
        if state.is_terminal() {
            report.ended_at = Some(at(self.now));
            report.exit = Some(Exit {
                code: Some(if state == RunState::Completed { 0 } else { 7 }),
                ..Exit::default()
            });
        }
        self.edit(|draft, now| {
            decide::report(draft, &name("node-1"), &[report], false, now);
        });
    }

    fn stop(&mut self, address: &str, reason: &str) {
        let request = JobRequest {
            address: address.parse().unwrap(),
            reason: Some(reason.to_owned()),
        };
        self.edit(|draft, _| decide::stop(draft, &request, ANNA, at(1)).unwrap());
    }

    fn child(&self) -> &JobRecord {
        let film = name("film");
        self.state.children(&film).last().unwrap()
    }

    fn stands(&self, job: &Name) -> String {
        let job = self.state.job(job).unwrap();
        match &job.reason {
            Some(reason) => format!("{}: {reason}", job.status),
            None => job.status.to_string(),
        }
    }

    fn run(&self) -> &RunRecord {
        let slot = Slot::new(name("film"), Name::main(), 0);
        self.state.slot(&slot).unwrap().current.as_ref().unwrap()
    }
}

fn render() -> JobSpec {
    let mut main = task(1);
    main.params = BTreeMap::from([(name("scene"), "none".to_owned())]);
    job("render", Kind::Batch, main)
}

fn film() -> JobSpec {
    let mut main = task(1);
    main.operator = Operator::Job(SubJob {
        job: name("render"),
    });
    let value = "${job.name} ${task.index} $${x}".to_owned();
    main.params = BTreeMap::from([(name("scene"), value)]);
    job("film", Kind::Batch, main)
}

#[test]
fn the_run_of_the_task_is_the_job_and_ends_as_it_does() {
    let mut world = World::new();
    world.submit(&film()).unwrap();
    let child = world.child().clone();
    let film = name("film");
    assert!(
        child.name.as_str().starts_with("render-2023"),
        "{}",
        child.name
    );
    let spec = world.state.spec(&child).unwrap();
    assert_eq!(
        spec.tasks[&Name::main()].params[&name("scene")],
        "film 0 $${x}"
    );
    assert_eq!(world.run().child.as_ref(), Some(&child.name));
    assert_eq!(world.stands(&film), "pending");
    world.says(child.name.as_str(), RunState::Running);
    assert_eq!(world.run().state, RunState::Running);
    assert_eq!(world.stands(&film), "running");
    world.says(child.name.as_str(), RunState::Completed);
    assert_eq!(world.stands(&film), "completed");
    assert_eq!(world.run().exit.as_ref().unwrap().code, Some(0));
}

#[test]
fn so_many_of_its_jobs_live_at_once_and_the_next_comes_when_one_has_ended() {
    let mut world = World::new();
    let mut wide = film();
    wide.tasks.get_mut(&Name::main()).unwrap().replicas = 120;
    world.submit(&wide).unwrap();
    let film = name("film");
    let made = |world: &World| world.state.children(&film).count();
    assert_eq!(made(&world), CHILDREN_LIVE_MAX);
    let mut slots = world.state.slots_of(&film);
    let why = slots.find_map(|slot| slot.waiting.clone().filter(|why| !why.is_empty()));
    let expected = "100 jobs that film has made have not ended, and at most 100 may live at once";
    assert_eq!(why.as_deref(), Some(expected));
    drop(slots);
    let child = world.child().name.clone();
    world.says(child.as_str(), RunState::Completed);
    assert_eq!(made(&world), CHILDREN_LIVE_MAX + 1);
}

#[test]
fn its_failure_is_the_tasks_with_the_chain_of_reasons() {
    let mut world = World::new();
    world.submit(&film()).unwrap();
    let child = world.child().name.clone();
    world.says(child.as_str(), RunState::Failed);
    let why = format!("failed: film/0 failed: job {child}: {child}/0 failed: exit code 7");
    assert_eq!(world.stands(&name("film")), why);
    assert_eq!(world.state.job(&name("film")).unwrap().exit_code, Some(7));
}

#[test]
fn stopping_the_task_stops_the_job() {
    let mut world = World::new();
    world.submit(&film()).unwrap();
    let child = world.child().name.clone();
    world.says(child.as_str(), RunState::Running);
    world.stop("film", "enough");
    assert_eq!(
        world.stands(&child),
        "running: stopped by job film: stopped by anna: enough"
    );
    world.says(child.as_str(), RunState::Killed);
    assert_eq!(world.run().state, RunState::Killed);
    assert_eq!(
        world.stands(&name("film")),
        "killed: stopped by anna: enough"
    );
}

#[test]
fn stopping_the_job_fails_the_task_which_makes_no_other() {
    let mut world = World::new();
    world.submit(&film()).unwrap();
    let child = world.child().name.clone();
    world.says(child.as_str(), RunState::Running);
    world.stop(child.as_str(), "broken");
    world.says(child.as_str(), RunState::Killed);
    let why = format!("failed: film/0 failed: job {child}: stopped by anna: broken");
    assert_eq!(world.stands(&name("film")), why);
    world.now += 100;
    world.edit(|draft, _| draft.state_mut().mark_dirty(&name("film")));
    let film = name("film");
    assert_eq!(world.state.children(&film).count(), 1);
}

#[test]
fn restarting_the_task_makes_another_job_once_the_first_has_ended() {
    let mut world = World::new();
    world.submit(&film()).unwrap();
    let child = world.child().name.clone();
    world.says(child.as_str(), RunState::Running);
    let again = JobRequest {
        address: "film/0".parse().unwrap(),
        reason: None,
    };
    world.edit(|draft, now| decide::restart(draft, &again, ANNA, now).unwrap());
    assert_eq!(
        world.stands(&child),
        "running: stopped by job film: restarted"
    );
    world.says(child.as_str(), RunState::Killed);
    world.now += 100;
    world.edit(|_, _| ());
    let second = world.child().name.clone();
    assert_ne!(second, child);
    assert_eq!(world.run().child, Some(second));
}

#[test]
fn a_task_that_is_no_job_in_the_next_version_is_taken_over_once_the_job_has_ended() {
    let mut world = World::new();
    world.submit(&film()).unwrap();
    let child = world.child().name.clone();
    world.says(child.as_str(), RunState::Running);
    world.submit(&job("film", Kind::Batch, task(1))).unwrap();
    assert_eq!(
        world.stands(&child),
        "running: stopped by job film: replaced by version 2"
    );
    world.says(child.as_str(), RunState::Killed);
    assert_eq!((world.run().version, &world.run().child), (2, &None));
    world.says("film", RunState::Completed);
    assert_eq!(world.stands(&name("film")), "completed");
}

#[test]
fn a_job_whose_task_was_a_job_and_is_gone_can_be_stopped() {
    let mut world = World::new();
    world.submit(&film()).unwrap();
    let child = world.child().name.clone();
    world.says(child.as_str(), RunState::Running);
    let mut other = job("film", Kind::Batch, task(1));
    let main = other.tasks.remove(&Name::main()).unwrap();
    other.tasks.insert(name("other"), main);
    world.submit(&other).unwrap();
    world.says(child.as_str(), RunState::Killed);
    world.stop("film", "enough");
    world.says("film", RunState::Killed);
    assert_eq!(
        world.stands(&name("film")),
        "killed: stopped by anna: enough"
    );
}

#[test]
fn a_param_without_a_value_rejects_the_run_and_fails_the_job() {
    let mut world = World::new();
    let mut spec = job("film", Kind::Batch, task(1));
    let scenes = spec.tasks[&Name::main()].clone();
    spec.tasks = BTreeMap::from([(name("a"), scenes)]);
    let mut main = film().tasks[&Name::main()].clone();
    let of = ResultUse {
        task: name("a"),
        key: "scene".to_owned(),
    };
    main.results.insert(of);
    main.params = BTreeMap::from([(name("scene"), "${task.a.result.scene}".to_owned())]);
    main.after = vec![After {
        task: name("a"),
        on: DependOn::Completed,
    }];
    spec.tasks.insert(name("b"), main);
    world.submit(&spec).unwrap();
    world.says("film", RunState::Completed);
    let why = "failed: film/b/0 rejected: param scene: `${task.a.result.scene}` has no value: task \
               `a` left no `scene` in its result";
    assert_eq!(world.stands(&name("film")), why);
}

#[test]
fn a_job_that_cannot_be_a_task_is_refused() {
    let mut world = World::new();
    let with = |change: &dyn Fn(&mut TaskSpec)| {
        let mut spec = film();
        change(spec.tasks.get_mut(&Name::main()).unwrap());
        spec
    };
    let of = |job: &str| Operator::Job(SubJob { job: name(job) });
    let none = world
        .submit(&with(&|task| task.operator = of("x")))
        .unwrap_err();
    assert_eq!(none, "tasks.main: job: there is no job x: run it first");
    let own = world
        .submit(&with(&|task| task.operator = of("film")))
        .unwrap_err();
    assert!(own.contains("would make itself"), "{own}");
    let unknown = world.submit(&with(&|task| {
        task.params = BTreeMap::from([(name("colour"), String::new())]);
    }));
    let unknown = unknown.unwrap_err();
    assert!(
        unknown.ends_with("no param colour; its params are scene"),
        "{unknown}"
    );
    world.submit(&film()).unwrap();
    let mut circle = render();
    let main = circle.tasks.get_mut(&Name::main()).unwrap();
    main.operator = of("film");
    main.params = BTreeMap::new();
    let circle = world.submit(&circle).unwrap_err();
    assert_eq!(circle, "tasks.main: job: film makes render again");
    world.submit(&job("web", Kind::Service, task(1))).unwrap();
    let service = world
        .submit(&with(&|task| task.operator = of("web")))
        .unwrap_err();
    assert!(service.contains("only a batch job"), "{service}");
}

#[test]
fn a_dispatch_is_a_child_with_other_values() {
    let mut world = World::new();
    let dispatch = |world: &mut World, job: &str, params: &[(&str, &str)]| {
        let params = params
            .iter()
            .map(|(k, v)| (name(k), (*v).to_owned()))
            .collect();
        let request = DispatchRequest {
            job: name(job),
            params,
        };
        world.edit(|draft, now| decide::dispatch(draft, &request, ANNA, now))
    };
    let first = dispatch(&mut world, "render", &[("scene", "${castle}")]).unwrap();
    let child = world.state.job(&first.job).unwrap().clone();
    let spec = world.state.spec(&child).unwrap();
    assert_eq!(
        spec.tasks[&Name::main()].params[&name("scene")],
        "$${castle}"
    );
    let by = MadeBy::Dispatch {
        by: "anna".to_owned(),
    };
    assert_eq!(child.parent.as_ref().unwrap().made_by, by);
    world.now -= 1;
    let second = dispatch(&mut world, "render", &[]).unwrap();
    assert_eq!(
        second.job.to_string(),
        format!("{}-2", first.job),
        "in the same second"
    );
    let wrong = dispatch(&mut world, "render", &[("colour", "red")]).unwrap_err();
    assert!(
        wrong.message.ends_with("its params are scene"),
        "{}",
        wrong.message
    );
    world.submit(&job("web", Kind::Service, task(1))).unwrap();
    let service = dispatch(&mut world, "web", &[]).unwrap_err();
    assert!(
        service.message.contains("only a batch job"),
        "{}",
        service.message
    );
    for child in [first.job, second.job] {
        world.says(child.as_str(), RunState::Completed);
        assert_eq!(world.stands(&child), "completed");
    }
}

#[test]
fn jobs_that_make_each_other_by_an_old_version_end_with_the_reason() {
    let mut world = World::new();
    world.submit(&film()).unwrap();
    // Nobody accepts such a version, but one that comes back by itself was checked long ago.
    let mut circle = render();
    circle.tasks.get_mut(&Name::main()).unwrap().operator = Operator::Job(SubJob {
        job: name("render"),
    });
    assert!(world.submit(&circle).is_err());
    let record = world.state.job(&name("render")).unwrap().clone();
    let kept = world.state.version(&name("render"), record.version);
    let kept = kept.unwrap().clone();
    world.edit(|draft, _| {
        draft.put_version(loom_schemas::record::VersionRecord {
            spec: circle,
            ..kept.as_ref().clone()
        });
    });
    let submitted = world.edit(|draft, now| {
        let request = DispatchRequest {
            job: name("render"),
            params: BTreeMap::new(),
        };
        decide::dispatch(draft, &request, ANNA, now)
    });
    let child = submitted.unwrap();
    let stands = world.stands(&child.job);
    assert_eq!(
        stands,
        format!(
            "failed: {0}/0 rejected: render would make itself again and again: {0} is above",
            child.job
        )
    );
}
