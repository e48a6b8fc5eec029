//! Single lives, told as people would.

use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::record::{Exit, Order};
use loom_schemas::spec::{RestartOn, RestartSpec, TimeoutSpec, TimeoutWarning};
use loom_schemas::units::{Bytes, Millis};
use loom_schemas::wire::{Assigned, RunReport};
use loom_schemas::words::RunState;
use nix::sys::signal::Signal;

use super::samples::{assigned, id, started};
use super::{Call, Happened, Machine, Moment, Phase, StartError};
use crate::driver::{Adopted, Ended, Left};

mod adoption;
mod health;
mod resize;

struct Life {
    machine: Machine,
    desired: Assigned,
    clock: Duration,
    minted: u128,
    reports: Vec<RunReport>,
}

impl Life {
    fn new(desired: Assigned) -> Self {
        let machine = Machine::new(desired.placement);
        Self {
            machine,
            desired,
            clock: Duration::ZERO,
            minted: 1,
            reports: Vec::new(),
        }
    }

    fn at(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000) + self.clock
    }

    fn happens(&mut self, happened: Happened) {
        self.minted += 1;
        let now = Moment {
            clock: self.clock,
            at: self.at(),
            jitter: 0.0,
            fresh: id(self.minted),
        };
        let reports = self.machine.apply(&self.desired, happened, now);
        self.reports.extend(reports);
    }

    /// The next call that is not a clean-up, told to the machine as begun.
    fn call(&mut self) -> Call {
        loop {
            let call = self.machine.next_call(&self.desired, self.clock);
            if matches!(call, Call::Wait { .. }) {
                return call;
            }
            self.happens(Happened::Called(call.clone()));
            if !matches!(call, Call::Release { .. } | Call::Remove { .. }) {
                return call;
            }
        }
    }

    fn passes(&mut self, time: Duration) {
        self.clock += time;
        self.happens(Happened::Passed);
    }

    fn enters(&mut self) -> RunId {
        let Call::Enter { run } = self.call() else {
            panic!("expected the gate");
        };
        self.happens(Happened::Entered(run));
        assert_eq!(self.call(), Call::Start { run });
        run
    }

    fn starts(&mut self) -> RunId {
        let run = self.enters();
        let at = self.at();
        self.happens(Happened::Started(run, Ok(started(at))));
        run
    }

    fn exits(&mut self, exit: Exit) {
        self.leaves(exit, Left::Nothing);
    }

    fn leaves(&mut self, exit: Exit, left: Left) {
        let run = self.machine.run();
        let ended = Ended {
            left,
            exit,
            at: self.at(),
            reason: None,
        };
        self.happens(Happened::Ended(run, Ok(ended)));
    }

    fn orders_stop(&mut self) {
        self.desired.order = Order::Stop {
            reason: "stopped by alice".into(),
        };
        self.happens(Happened::Ordered);
    }

    fn last_end(&self) -> &RunReport {
        let ends = |report: &&RunReport| report.state.is_terminal();
        self.reports.iter().rfind(ends).unwrap()
    }
}

fn code(code: i32) -> Exit {
    Exit {
        code: Some(code),
        ..Exit::default()
    }
}

fn signalled(signal: i32) -> Exit {
    Exit {
        code: Some(128 + signal),
        signal: Some(signal),
        ..Exit::default()
    }
}

const WAIT: Call = Call::Wait { until: None };

#[test]
fn a_run_starts_runs_and_completes() {
    let mut desired = assigned();
    desired.task.restart.on = RestartOn::Failure;
    let mut life = Life::new(desired);
    let run = life.starts();
    assert_eq!(run, life.desired.placement);
    let report = life.reports.last().unwrap();
    assert_eq!(report.state, RunState::Running);
    assert_eq!(report.passed, [RunState::Preparing, RunState::Starting]);
    assert_eq!((report.pid, report.version), (Some(42), 7));
    life.exits(code(0));
    let report = life.reports.last().unwrap();
    assert_eq!(report.state, RunState::Completed);
    assert_eq!((report.will_restart, &report.reason), (false, &None));
    assert!(life.machine.is_over());
    assert_eq!(life.call(), WAIT);
}

#[test]
fn a_slow_start_is_told_and_a_quick_one_is_not() {
    let mut life = Life::new(assigned());
    let run = life.enters();
    assert!(life.reports.is_empty());
    life.passes(Duration::from_millis(250));
    assert_eq!(life.reports[0].state, RunState::Starting);
    assert_eq!(life.reports[0].passed, [RunState::Preparing]);
    let at = life.at();
    life.happens(Happened::Started(run, Ok(started(at))));
    assert_eq!(life.reports[1].state, RunState::Running);
    assert!(life.reports[1].passed.is_empty());
}

#[test]
fn attempts_that_other_placements_have_spent_are_not_made_again() {
    let mut life = Life::new(Assigned {
        spent: 2,
        ..assigned()
    });
    life.starts();
    life.exits(code(3));
    let end = life.last_end();
    assert!(!end.will_restart);
    let reason = end.reason.as_deref();
    assert_eq!(
        reason,
        Some("exit code 3; its 3 attempts within 5m are spent")
    );
}

#[test]
fn failures_are_restarted_with_growing_pauses_until_the_attempts_are_spent() {
    let mut life = Life::new(assigned());
    for (number, pause) in [(0, 1), (1, 2)] {
        life.starts();
        life.exits(code(3));
        let [.., end, next] = &life.reports[..] else {
            panic!("two reports");
        };
        assert_eq!((end.state, end.will_restart), (RunState::Failed, true));
        assert_eq!(end.reason.as_deref(), Some("exit code 3"));
        assert_eq!(next.state, RunState::Scheduled);
        assert_eq!(next.restarts, number + 1);
        assert_ne!(next.run, end.run);
        assert_eq!(next.reason, Some(format!("restarts in {pause}s")));
        let until = life.clock + Duration::from_secs(pause);
        assert_eq!(life.call(), Call::Wait { until: Some(until) });
        life.passes(Duration::from_secs(pause));
    }
    life.starts();
    life.exits(code(3));
    let end = life.last_end();
    assert!(!end.will_restart);
    let reason = end.reason.as_deref();
    assert_eq!(
        reason,
        Some("exit code 3; its 3 attempts within 5m are spent")
    );
    assert!(life.machine.is_over());
}

#[test]
fn attempts_older_than_the_window_do_not_count() {
    let mut life = Life::new(assigned());
    for _ in 0..10 {
        life.starts();
        life.passes(Duration::from_secs(301));
        life.exits(code(0));
        assert_eq!(life.last_end().state, RunState::Completed);
        assert!(life.last_end().will_restart);
        life.passes(Duration::from_secs(1));
    }
}

#[test]
fn no_pause_and_no_window_make_a_task_start_without_end() {
    let mut desired = assigned();
    desired.task.restart = RestartSpec {
        on: RestartOn::Any,
        attempts: 1_000,
        delay: Millis(0),
        max_delay: Millis(0),
        window: Some(Millis(1)),
    };
    let mut life = Life::new(desired);
    let mut starts = 0;
    while life.clock < Duration::from_mins(1) {
        life.starts();
        starts += 1;
        life.passes(Duration::from_millis(2));
        life.exits(code(1));
        assert!(life.last_end().will_restart);
        let Phase::Idle { not_before } = life.machine.phase else {
            panic!("it is to start again");
        };
        life.passes(not_before.saturating_sub(life.clock));
    }
    assert!(starts <= 35, "{starts} starts in a minute");
    assert!(starts >= 25, "{starts} starts in a minute");
}

#[test]
fn a_stop_asks_waits_out_the_grace_and_kills_the_tree() {
    let mut life = Life::new(assigned());
    let run = life.starts();
    life.orders_stop();
    let signal = |signal, tree| Call::Signal { run, signal, tree };
    assert_eq!(life.call(), signal(Signal::SIGTERM, false));
    let until = Some(Duration::from_secs(10));
    assert_eq!(life.call(), Call::Wait { until });
    life.passes(Duration::from_secs(10));
    assert_eq!(life.call(), signal(Signal::SIGKILL, true));
    life.passes(Duration::from_secs(1));
    assert_eq!(life.call(), signal(Signal::SIGKILL, true));
    life.exits(signalled(9));
    let end = life.last_end();
    assert_eq!((end.state, end.will_restart), (RunState::Killed, false));
    assert_eq!(end.reason.as_deref(), Some("stopped by alice"));
    assert_eq!(end.exit.as_ref().unwrap().signal, Some(9));
}

#[test]
fn a_paused_run_is_thawed_to_end() {
    let mut life = Life::new(assigned());
    let run = life.starts();
    life.happens(Happened::Paused(run, true));
    assert!(life.reports.last().unwrap().marks.paused);
    life.orders_stop();
    assert!(matches!(life.call(), Call::Signal { .. }));
    assert_eq!(life.call(), Call::Resume { run });
    assert!(matches!(life.call(), Call::Wait { .. }));
}

#[test]
fn a_stop_before_the_start_ends_it_killed() {
    let mut life = Life::new(assigned());
    life.orders_stop();
    let end = life.last_end();
    assert_eq!((end.state, end.run), (RunState::Killed, id(1)));
    assert_eq!(end.started_at, None);
    assert_eq!(life.call(), WAIT);
}

#[test]
fn a_stop_during_a_start_waits_for_it_and_kills_after_the_grace() {
    let mut life = Life::new(assigned());
    let run = life.enters();
    life.orders_stop();
    life.passes(Duration::from_secs(10));
    let (signal, tree) = (Signal::SIGKILL, true);
    assert_eq!(life.call(), Call::Signal { run, signal, tree });
    life.happens(Happened::Started(
        run,
        Err(StartError::Failed("killed".into())),
    ));
    assert_eq!(life.last_end().state, RunState::Killed);
    assert!(life.machine.is_over());
}

#[test]
fn a_stop_during_a_pause_between_runs_ends_the_next_one_before_it_starts() {
    let mut life = Life::new(assigned());
    life.starts();
    life.exits(code(1));
    let next = life.machine.run();
    life.orders_stop();
    assert_eq!(
        (life.last_end().run, life.last_end().state),
        (next, RunState::Killed)
    );
    assert!(life.machine.is_over());
}

#[test]
fn what_cannot_work_here_is_rejected_and_not_tried_again() {
    let mut life = Life::new(assigned());
    let run = life.enters();
    let error = StartError::Rejected("program `nope` is not in PATH".into());
    life.happens(Happened::Started(run, Err(error)));
    let end = life.last_end();
    assert_eq!((end.state, end.will_restart), (RunState::Rejected, false));
    assert_eq!(end.reason.as_deref(), Some("program `nope` is not in PATH"));
    assert_eq!(end.exit, None);
}

#[test]
fn a_start_that_failed_for_now_counts_as_an_attempt() {
    let mut life = Life::new(assigned());
    for number in 0..3 {
        let run = life.enters();
        let error = StartError::Failed("no memory".into());
        life.happens(Happened::Started(run, Err(error)));
        assert_eq!(life.last_end().state, RunState::Rejected);
        assert_eq!(life.last_end().will_restart, number < 2);
        life.passes(Duration::from_secs(4));
    }
    assert!(life.machine.is_over());
}

#[test]
fn a_restart_in_place_is_no_failure() {
    let mut life = Life::new(assigned());
    for number in 1..10 {
        let run = life.starts();
        life.desired.restart = number;
        life.happens(Happened::Ordered);
        assert!(matches!(life.call(), Call::Signal { .. }));
        life.exits(signalled(15));
        let end = life.last_end();
        assert_eq!((end.run, end.state), (run, RunState::Killed));
        assert!(end.will_restart);
        assert_eq!(life.machine.restarts(), number);
    }
}

#[test]
fn the_run_that_a_restart_asked_for_begins_with_it_carried_out() {
    let mut life = Life::new(assigned());
    life.starts();
    life.desired.restart = 3;
    life.happens(Happened::Ordered);
    assert!(matches!(life.call(), Call::Signal { .. }));
    life.exits(signalled(15));
    assert!(matches!(life.call(), Call::Enter { .. }));
    // This is what the gate has on disk before the start.
    let progress = life.machine.progress();
    assert_eq!((progress.restarts, progress.restart), (1, 3));
}

#[test]
fn a_restart_ordered_at_the_gate_is_written_down_before_the_start() {
    for let_through in [false, true] {
        let mut life = Life::new(assigned());
        let run = life.starts();
        life.exits(code(1));
        life.passes(Duration::from_secs(1));
        let Call::Enter { run: second } = life.call() else {
            panic!("expected the gate");
        };
        assert_ne!(second, run);
        life.desired.restart = 1;
        if let_through {
            // The permit and the order cross.
            life.happens(Happened::Entered(second));
        } else {
            life.happens(Happened::Ordered);
        }
        assert_eq!(life.call(), Call::Enter { run: second });
        assert_eq!(life.machine.progress().restart, 1, "on disk by the start");
        life.happens(Happened::Entered(second));
        assert_eq!(life.call(), Call::Start { run: second });
        // An agent that is killed now leaves a run that nobody restarts once more.
        life.machine = Machine::resumed(life.machine.progress());
        assert_eq!(life.call(), Call::Adopt { run: second });
        let started = started(life.at());
        let adopted = crate::driver::Adopted::Running {
            started,
            paused: false,
        };
        life.happens(Happened::Adopted(second, Ok(adopted)));
        assert!(
            matches!(life.call(), Call::Resize { .. }),
            "nobody knows its limits"
        );
        assert_eq!(life.call(), WAIT);
    }
}

#[test]
fn a_time_limit_warns_then_stops_and_fails() {
    let mut desired = assigned();
    desired.task.restart.on = RestartOn::Never;
    desired.task.timeout = Some(TimeoutSpec {
        after: Millis::secs(600),
        warn: Some(TimeoutWarning {
            signal: "USR1".into(),
            before: Millis::secs(60),
        }),
    });
    let mut life = Life::new(desired);
    let run = life.starts();
    let signal = |signal, tree| Call::Signal { run, signal, tree };
    let until = Some(Duration::from_mins(9));
    assert_eq!(life.call(), Call::Wait { until });
    life.passes(Duration::from_mins(9));
    assert_eq!(life.call(), signal(Signal::SIGUSR1, false));
    let until = Some(Duration::from_mins(10));
    assert_eq!(life.call(), Call::Wait { until });
    life.passes(Duration::from_mins(1));
    assert_eq!(life.call(), signal(Signal::SIGTERM, false));
    life.exits(code(0));
    let end = life.last_end();
    assert_eq!(end.state, RunState::Failed);
    assert_eq!(end.reason.as_deref(), Some("timed out after 10m"));
    assert!(end.exit.as_ref().unwrap().timed_out);
}

#[test]
fn out_of_memory_is_said_and_a_child_s_is_no_failure() {
    let mut desired = assigned();
    desired.task.restart.on = RestartOn::Never;
    for (exit, state, word) in [
        (
            signalled(9),
            RunState::Failed,
            "it was killed at the limit of 128MiB",
        ),
        (code(0), RunState::Completed, "a child process was killed"),
    ] {
        let mut life = Life::new(desired.clone());
        life.starts();
        life.exits(Exit {
            out_of_memory: true,
            ..exit
        });
        let end = life.last_end();
        assert_eq!(end.state, state);
        assert!(
            end.reason.as_ref().unwrap().contains(word),
            "{:?}",
            end.reason
        );
    }
}

#[test]
fn only_the_last_ended_run_keeps_its_files() {
    let mut desired = assigned();
    desired.task.restart.window = Some(Millis(1));
    let mut life = Life::new(desired);
    let mut removed = Vec::new();
    for _ in 0..4 {
        life.starts();
        life.passes(Duration::from_secs(2));
        life.exits(code(0));
        while let call @ (Call::Release { .. } | Call::Remove { .. }) =
            life.machine.next_call(&life.desired, life.clock)
        {
            if let Call::Remove { run } = call {
                removed.push(run);
            }
            life.happens(Happened::Called(call));
        }
        assert_eq!(life.machine.kept().len(), 1);
        life.passes(Duration::from_mins(1));
    }
    assert_eq!(removed.len(), 3);
}

#[test]
fn a_result_is_told_with_the_end_and_a_wrong_one_fails_the_run() {
    let mut life = Life::new(assigned());
    life.starts();
    life.leaves(code(0), Left::Result("[1]".into()));
    let end = life.last_end();
    assert_eq!(end.state, RunState::Completed);
    assert_eq!(end.result.as_deref(), Some("[1]"));
    let mut life = Life::new(assigned());
    life.starts();
    life.leaves(code(0), Left::Wrong("its result is not JSON: ...".into()));
    let end = life.last_end();
    assert_eq!((end.state, &end.result), (RunState::Failed, &None));
    let reason = end.reason.as_deref().unwrap();
    assert!(
        reason.starts_with("its result is not JSON: ..."),
        "{reason}"
    );
}

#[test]
fn a_run_whose_files_take_more_than_they_may_is_ended() {
    let mut life = Life::new(assigned());
    life.desired.task.resources.disk = Bytes::mib(20);
    let run = life.starts();
    life.happens(Happened::Measured(run, 20 << 20));
    assert!(matches!(life.call(), Call::Wait { .. }));
    life.happens(Happened::Measured(run, 21 << 20));
    assert!(matches!(life.call(), Call::Signal { tree: false, .. }));
    life.exits(signalled(15));
    let end = life.last_end();
    assert_eq!(end.state, RunState::Failed);
    let reason = end.reason.as_deref().unwrap();
    let expected = "disk: its files take 21MiB, more than the 20MiB of `disk`";
    assert!(reason.starts_with(expected), "{reason}");
}
