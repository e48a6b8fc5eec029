//! A job whose tasks wait, for one another and for other jobs: none starts before its time.

use loom_schemas::ids::{Index, Name};
use loom_schemas::record::{JobRecord, RunRecord, SlotRecord};
use loom_schemas::spec::{After, DependOn, DependsOn, JobSpec};
use loom_schemas::words::{JobStatus, Kind, RunState, Strategy};

use super::happens::Happens;
use super::laws::live;
use super::world::World;
use crate::depend::has_started;
use crate::reconcile::replicas;
use crate::state::State;
use crate::state::fixture::{job, name, task};

/// Its task `then` waits for `main`; what all of it waits for, the variant says.
pub(super) fn dependant(replicas: u8, variant: u8) -> JobSpec {
    let mut spec = job("dep", Kind::Batch, task(u32::from(replicas)));
    let mut then = spec.tasks[&Name::main()].clone();
    then.replicas = 1;
    then.after.push(After {
        task: Name::main(),
        on: DependOn::Completed,
    });
    spec.tasks.insert(name("then"), then);
    let (job, on) = match variant % 4 {
        0 => ("bat", DependOn::Completed),
        1 => ("svc", DependOn::Running),
        2 => ("svc", DependOn::Healthy),
        _ => return spec,
    };
    spec.depends_on.push(DependsOn {
        job: name(job),
        task: None,
        on,
    });
    spec
}

impl World {
    /// What came for the first time in a round came after what it waits for, as it stands now.
    pub(super) fn check_dependants(&self, before: &State) {
        for job in self.state.jobs() {
            let spec = self.state.spec(job).unwrap();
            let of_round = |record: &SlotRecord| has_started(job, record);
            let earlier = before.job(&job.name);
            let earlier = earlier.filter(|earlier| earlier.round == job.round);
            let had_started = |record: &SlotRecord| {
                let record = before.slot(&record.slot);
                earlier.is_some() && record.is_some_and(|record| of_round(record))
            };
            let slots = self.state.slots_of(&job.name);
            let mut new = slots.filter(|record| of_round(record) && !had_started(record));
            let Some(first) = new.next() else { continue };
            let had_any = before.slots_of(&job.name).any(|record| had_started(record));
            if !had_any {
                for other in &spec.depends_on {
                    let met = self.has_come_to(&other.job, other.on);
                    assert!(met, "{} started before {other:?}", first.slot);
                }
            }
            for record in std::iter::once(first).chain(new) {
                let of_task = spec.tasks.get(&record.slot.task);
                for after in of_task.into_iter().flat_map(|task| &task.after) {
                    let met = self.all_are(job, &after.task, &[RunState::Completed]);
                    assert!(met, "{} started before {after:?}", record.slot);
                }
            }
        }
    }

    fn has_come_to(&self, other: &Name, on: DependOn) -> bool {
        let job = self.state.job(other).unwrap();
        match on {
            DependOn::Completed => job.status == JobStatus::Completed,
            DependOn::Running | DependOn::Healthy => {
                let states = [RunState::Running, RunState::Completed];
                self.all_are(job, &Name::main(), &states)
            }
        }
    }

    /// Whether the last run of each replica of a task that somebody wants is of this round and so far.
    fn all_are(&self, job: &JobRecord, of: &Name, states: &[RunState]) -> bool {
        let spec = self.state.spec(job).unwrap();
        let is = |run: &RunRecord| run.round == job.round && states.contains(&run.state);
        (0..replicas(job, of, &spec.tasks[of]))
            .map(Index::Number)
            .all(|index| {
                let at = (of.clone(), index.clone());
                let slots = self.state.slots_of_task(&job.name, of);
                let mut slots = slots.filter(|record| record.slot.index == index);
                job.stopped_slots.contains(&at)
                    || slots.any(|record| {
                        let mut runs = record
                            .current
                            .iter()
                            .chain(&record.incoming)
                            .chain(record.ended.last());
                        runs.any(is)
                    })
            })
    }
}

fn submit(job: u8, replicas: u8, variant: u8) -> Happens {
    Happens::Submit {
        job,
        replicas,
        variant,
        limits: 0,
    }
}

#[test]
fn whoever_was_let_go_says_so_when_it_has_to_wait_again() {
    let story = [
        submit(0, 1, 0),
        Happens::Work,
        Happens::Arrive {
            from: 0,
            count: 1,
            again: false,
        },
        submit(2, 0, 1),
        Happens::Scale {
            job: 0,
            replicas: 2,
        },
    ];
    live(Strategy::Epvm, &story);
}

#[test]
fn a_job_of_which_nothing_is_left_that_started_waits_for_others_again() {
    live(
        Strategy::Epvm,
        &[submit(2, 3, 3), submit(1, 0, 0), submit(2, 0, 0)],
    );
}
