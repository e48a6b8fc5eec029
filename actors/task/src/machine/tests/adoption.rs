//! What another agent makes of it.

use super::*;
use crate::driver::Adopted;
use crate::machine::{Held, Progress};

#[test]
fn a_run_of_an_earlier_agent_is_taken_over() {
    let mut progress = Progress::first(id(1));
    progress.run = id(9);
    progress.state = RunState::Running;
    progress.restarts = 4;
    let mut life = Life::new(assigned());
    life.machine = Machine::resumed(progress.clone());
    assert_eq!(life.call(), Call::Adopt { run: id(9) });
    let at = life.at();
    let running = Adopted::Running {
        started: started(at),
        paused: true,
    };
    life.happens(Happened::Adopted(id(9), Ok(running)));
    let report = life.reports.last().unwrap();
    assert_eq!((report.run, report.state), (id(9), RunState::Running));
    assert_eq!((report.restarts, report.marks.paused), (4, true));
    assert!(report.passed.is_empty());

    life.machine = Machine::resumed(progress);
    life.call();
    life.happens(Happened::Adopted(id(9), Ok(Adopted::Gone)));
    let end = life.last_end();
    assert_eq!((end.state, end.will_restart), (RunState::Failed, true));
}

#[test]
fn what_never_started_is_started_by_the_next_agent() {
    let mut life = Life::new(assigned());
    life.machine = Machine::resumed(Progress::first(id(1)));
    assert_eq!(life.call(), Call::Adopt { run: id(1) });
    life.happens(Happened::Adopted(id(1), Ok(Adopted::Gone)));
    assert_eq!(life.starts(), id(1));
    assert_eq!(life.reports.len(), 1);
}

#[test]
fn a_driver_that_does_not_answer_is_asked_again_and_starts_nothing() {
    let mut progress = Progress::first(id(1));
    progress.state = RunState::Running;
    let mut life = Life::new(assigned());
    life.machine = Machine::resumed(progress);
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        assert_eq!(life.call(), Call::Adopt { run: id(1) });
        life.happens(Happened::Adopted(id(1), Err("socket gone".into())));
        let until = Some(life.clock + Duration::from_secs(pause));
        assert_eq!(life.call(), Call::Wait { until });
        life.passes(Duration::from_secs(pause));
    }
    assert_eq!(life.reports.len(), 1);
    assert!(life.reports[0].marks.unknown);
    assert_eq!(life.reports[0].reason.as_deref(), Some("socket gone"));
}

#[test]
fn a_time_limit_goes_on_under_an_agent_younger_than_the_run() {
    let mut progress = Progress::first(id(1));
    progress.state = RunState::Running;
    let mut desired = assigned();
    progress.held = Some(Held {
        limits: desired.task.resources.clone(),
        unenforced: Vec::new(),
    });
    desired.task.timeout = Some(TimeoutSpec {
        after: Millis::secs(600),
        warn: Some(TimeoutWarning {
            signal: "USR1".into(),
            before: Millis::secs(60),
        }),
    });
    let adopted_after = |age: u64| {
        let mut life = Life::new(desired.clone());
        life.machine = Machine::resumed(progress.clone());
        life.passes(Duration::from_secs(5));
        life.call();
        let running = Adopted::Running {
            started: started(life.at() - Duration::from_secs(age)),
            paused: false,
        };
        life.happens(Happened::Adopted(id(1), Ok(running)));
        life
    };
    let run = id(1);
    let signal = |signal| Call::Signal {
        run,
        signal,
        tree: false,
    };
    let waits = |clock| Call::Wait {
        until: Some(Duration::from_secs(clock)),
    };
    // Before the warning: it comes, once, at the run's 540 s.
    let mut life = adopted_after(400);
    assert_eq!(life.call(), waits(5 + 140));
    life.passes(Duration::from_secs(140));
    assert_eq!(life.call(), signal(Signal::SIGUSR1));
    assert_eq!(life.call(), waits(5 + 200));
    // After it: not again, and the end at the run's 600 s.
    let mut life = adopted_after(570);
    assert_eq!(life.call(), waits(5 + 30));
    life.passes(Duration::from_secs(30));
    assert_eq!(life.call(), signal(Signal::SIGTERM));
    // After the end: at once.
    assert_eq!(adopted_after(9000).call(), signal(Signal::SIGTERM));
}
