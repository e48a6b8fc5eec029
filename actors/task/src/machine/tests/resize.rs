//! Limits that change while a run runs.

use loom_schemas::record::Limits;
use loom_schemas::spec::Resources;

use super::*;

impl Life {
    /// The leader wants another limit of memory, in MiB.
    fn wants(&mut self, memory: u64) -> Resources {
        self.desired.task.resources.memory = Bytes::mib(memory);
        self.desired.version += 1;
        self.desired.resize += 1;
        self.happens(Happened::Ordered);
        self.desired.task.resources.clone()
    }

    /// The driver is asked for these limits, and answers.
    fn is_asked(&mut self, wanted: &Resources, outcome: Result<Vec<String>, Option<String>>) {
        let run = self.machine.run();
        let call = Call::Resize {
            run,
            wanted: wanted.clone(),
        };
        assert_eq!(self.call(), call);
        assert!(matches!(self.call(), Call::Wait { .. }), "once at a time");
        self.happens(Happened::Resized(run, wanted.clone(), outcome));
    }

    fn last_limits(&self) -> (u32, Limits) {
        let last = self.reports.last().unwrap();
        (last.version, last.limits.clone())
    }
}

fn running() -> Life {
    let mut life = Life::new(assigned());
    life.starts();
    assert_eq!(life.call(), Call::Wait { until: None });
    assert_eq!(life.last_limits(), (7, Limits::Hold));
    life
}

fn refused(reason: &str) -> Limits {
    Limits::Refused {
        reason: reason.into(),
    }
}

#[test]
fn other_limits_are_asked_for_once_and_told_when_they_hold() {
    let mut life = running();
    let (run, told) = (life.machine.run(), life.reports.len());
    let wanted = life.wants(256);
    assert_eq!(life.reports.len(), told, "nothing to say yet");
    life.is_asked(&wanted, Ok(vec!["disk rate: no cgroup".into()]));
    assert_eq!(life.last_limits(), (8, Limits::Hold));
    let last = life.reports.last().unwrap();
    assert_eq!((last.run, last.pid), (run, Some(42)), "the same process");
    assert_eq!(last.unenforced, ["disk rate: no cgroup"]);
    assert_eq!(life.call(), Call::Wait { until: None });
    let wanted = life.wants(128);
    life.is_asked(&wanted, Ok(Vec::new()));
    assert_eq!(life.reports.last().unwrap().unenforced, [""; 0]);
    assert_eq!(life.reports.len(), told + 2, "a word for each change");
}

#[test]
fn what_is_refused_is_told_once_and_tried_again_with_growing_pauses() {
    let mut life = running();
    let wanted = life.wants(16);
    let told = life.reports.len();
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        life.is_asked(&wanted, Err(Some("it holds 100MiB".into())));
        assert_eq!(life.last_limits(), (8, refused("it holds 100MiB")));
        let pause = Duration::from_secs(pause);
        let until = Some(life.clock + pause);
        assert_eq!(life.call(), Call::Wait { until });
        life.passes(pause);
    }
    assert_eq!(life.reports.len(), told + 1);
    life.is_asked(&wanted, Err(Some("it holds 50MiB".into())));
    assert_eq!(life.last_limits(), (8, refused("it holds 50MiB")));
    // Others are tried at once.
    let wanted = life.wants(64);
    life.is_asked(&wanted, Ok(Vec::new()));
    assert_eq!(life.last_limits(), (9, Limits::Hold));
}

#[test]
fn what_goes_back_before_it_was_done_is_asked_for_and_told() {
    let mut life = running();
    let run = life.machine.run();
    let larger = life.wants(256);
    assert!(matches!(life.call(), Call::Resize { .. }));
    let before = life.wants(128);
    assert_eq!(life.call(), Call::Wait { until: None });
    life.happens(Happened::Resized(run, larger, Ok(Vec::new())));
    life.is_asked(&before, Ok(Vec::new()));
    assert_eq!(life.last_limits(), (9, Limits::Hold));
    // There and back before the node heard of it: nothing to do, but the leader waits for a word.
    life.desired.version += 1;
    life.desired.resize += 1;
    life.happens(Happened::Ordered);
    assert_eq!(life.call(), Call::Wait { until: None });
    assert_eq!(life.last_limits(), (10, Limits::Hold));
}

#[test]
fn a_start_under_way_is_held_to_other_limits_once_it_runs() {
    let mut life = Life::new(assigned());
    let run = life.enters();
    let wanted = life.wants(256);
    let at = life.at();
    life.happens(Happened::Started(run, Ok(started(at))));
    assert_eq!(life.last_limits(), (8, Limits::Pending));
    life.is_asked(&wanted, Ok(Vec::new()));
    assert_eq!(life.last_limits(), (8, Limits::Hold));
    // The next run begins with them.
    life.exits(code(1));
    life.passes(Duration::from_mins(1));
    life.starts();
    assert_eq!(life.last_limits(), (8, Limits::Hold));
    assert_eq!(life.call(), Call::Wait { until: None });
}

#[test]
fn an_agent_that_takes_over_goes_on_where_the_last_one_was() {
    let adopted = |life: &mut Life, progress| {
        life.machine = Machine::resumed(progress);
        assert!(matches!(life.call(), Call::Adopt { .. }));
        let (run, at) = (life.machine.run(), life.at());
        let started = started(at);
        let paused = false;
        life.happens(Happened::Adopted(
            run,
            Ok(Adopted::Running { started, paused }),
        ));
    };
    let mut life = running();
    let progress = life.machine.progress();
    adopted(&mut life, progress);
    assert_eq!(
        life.call(),
        Call::Wait { until: None },
        "nothing has changed"
    );

    // Killed between the order and its effect, and after the effect.
    let wanted = life.wants(256);
    for _ in 0..2 {
        let progress = life.machine.progress();
        adopted(&mut life, progress);
        let run = life.machine.run();
        let wanted = wanted.clone();
        assert_eq!(life.call(), Call::Resize { run, wanted });
    }
    let progress = life.machine.progress();
    assert_eq!(progress.held, None, "nobody knows how far it came");
    adopted(&mut life, progress);
    life.is_asked(&wanted, Ok(Vec::new()));
    assert_eq!(life.machine.progress().held.unwrap().limits, wanted);
}

#[test]
fn what_is_about_to_end_is_not_changed() {
    let mut life = running();
    life.orders_stop();
    life.wants(256);
    assert!(matches!(life.call(), Call::Signal { .. }));
    assert!(matches!(life.call(), Call::Wait { .. }));
}
