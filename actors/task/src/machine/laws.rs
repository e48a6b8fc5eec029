//! Laws of the machine, under any order of events.

#[path = "laws_steps.rs"]
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::record::{Exit, Limits, Order};
use loom_schemas::spec::{Resources, RestartOn};
use loom_schemas::units::Bytes;
use loom_schemas::wire::{Assigned, RunReport};
use loom_schemas::words::{HealthStatus, RunState};
use nix::sys::signal::Signal;
use proptest::prelude::*;
use uuid::Uuid;

use super::restart::{CRASH_LOOP, STARTS_MAX};
use super::samples::started;
use super::{Call, Happened, Machine, Moment, StartError};
use crate::driver::{Adopted, Ended};
use crate::health::Finding;
use steps::{Step, spec, step};

/// A world with one driver, and every law checked as it goes on.
struct World {
    machine: Machine,
    desired: Assigned,
    clock: u64,
    minted: u128,
    /// Runs the driver was asked to start or has running, with whether the program runs.
    live: BTreeMap<RunId, bool>,
    /// What the kernel holds runs to.
    kernel: BTreeMap<RunId, Resources>,
    resizing: Option<(RunId, Resources)>,
    asked: Option<Call>,
    last: Option<Happened>,
    reports: Vec<RunReport>,
    begun: BTreeSet<RunId>,
    stop_seen: bool,
    starts_since_order: Vec<(RunId, u64)>,
}

impl World {
    fn new(desired: Assigned) -> Self {
        let machine = Machine::new(desired.placement);
        Self {
            machine,
            desired,
            clock: 0,
            minted: 1_000,
            live: BTreeMap::new(),
            kernel: BTreeMap::new(),
            resizing: None,
            asked: None,
            last: None,
            reports: Vec::new(),
            begun: BTreeSet::new(),
            stop_seen: false,
            starts_since_order: Vec::new(),
        }
    }

    fn moment(&mut self) -> Moment {
        self.minted += 1;
        Moment {
            clock: Duration::from_millis(self.clock),
            at: Timestamp::UNIX_EPOCH + Duration::from_millis(self.clock),
            jitter: 0.5,
            fresh: RunId(Uuid::from_u128(self.minted)),
        }
    }

    fn happens(&mut self, happened: Happened) {
        let moment = self.moment();
        let reports = self.machine.apply(&self.desired, happened, moment);
        for report in &reports {
            let says_held = report.limits.hold() && report.state == RunState::Running;
            if says_held && self.machine.is_running() {
                let held = self.kernel.get(&report.run);
                assert_eq!(held, Some(&self.wanted()), "only what holds is said to");
            }
        }
        self.reports.extend(reports);
    }

    fn at(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::from_millis(self.clock)
    }

    fn end(&mut self, code: Option<i32>) {
        let Some((&run, _)) = self.live.iter().find(|(_, runs)| **runs) else {
            return;
        };
        self.live.remove(&run);
        let signal = code.is_none().then_some(9);
        let exit = Exit {
            code: code.or(Some(137)),
            signal,
            ..Exit::default()
        };
        let ended = Ended {
            left: crate::driver::Left::Nothing,
            exit,
            at: self.at(),
            reason: None,
        };
        self.tell(Happened::Ended(run, Ok(ended)));
    }

    fn tell(&mut self, happened: Happened) {
        self.last = Some(happened.clone());
        self.happens(happened);
    }

    /// Does what the machine asks for, until it waits.
    fn act(&mut self) {
        for _ in 0..50 {
            let call = self
                .machine
                .next_call(&self.desired, Duration::from_millis(self.clock));
            match &call {
                Call::Wait { until } => {
                    let clock = Duration::from_millis(self.clock);
                    assert!(
                        until.is_none_or(|until| until > clock),
                        "waits for the past"
                    );
                    return;
                }
                Call::Start { run } => {
                    assert!(!self.stop_seen, "no start after a stop");
                    assert!(self.live.is_empty(), "one live run at a time");
                    if self.begun.insert(*run) {
                        self.starts_since_order.push((*run, self.clock));
                    }
                    self.attempts_hold();
                    // What was begun before is left as it is.
                    let wanted = self.wanted();
                    self.kernel.entry(*run).or_insert(wanted);
                    self.live.insert(*run, false);
                    self.asked = Some(call.clone());
                }
                Call::Prepare { .. } => {
                    assert!(!self.stop_seen, "nothing is prepared after a stop");
                    self.asked = Some(call.clone());
                }
                Call::Enter { .. } | Call::Adopt { .. } => self.asked = Some(call.clone()),
                Call::Signal { run, signal, tree } => {
                    assert_eq!(*run, self.machine.run(), "signals go to the run there is");
                    if *signal == Signal::SIGKILL && *tree && self.live.get(run) == Some(&true) {
                        self.happens(Happened::Called(call.clone()));
                        self.end(None);
                        continue;
                    }
                }
                Call::Release { run, .. } | Call::Remove { run } => {
                    assert!(!self.live.contains_key(run), "only what ended is removed");
                }
                Call::Resize { run, wanted } => {
                    assert_eq!(self.live.get(run), Some(&true), "limits are of what runs");
                    let before = self.resizing.replace((*run, wanted.clone()));
                    let same = before.is_some_and(|(before, _)| before == *run);
                    assert!(!same, "one change at a time");
                }
                Call::Resume { .. } => {}
            }
            self.happens(Happened::Called(call));
        }
        panic!("the machine never waits");
    }

    fn attempts_hold(&self) {
        let restart = &self.desired.task.restart;
        let young = |at: u64| {
            restart
                .window
                .is_none_or(|window| self.clock - at < window.0)
        };
        let runs: BTreeSet<_> = self
            .starts_since_order
            .iter()
            .filter(|(_, at)| young(*at))
            .map(|(run, _)| run)
            .collect();
        assert!(
            runs.len() <= restart.attempts as usize,
            "attempts are never exceeded"
        );
        let recent = CRASH_LOOP.as_millis();
        let often = self.starts_since_order.iter().rev();
        let often = often.take_while(|(_, at)| u128::from(self.clock - at) < recent);
        assert!(often.count() <= STARTS_MAX, "it never starts too often");
    }

    fn returns(&mut self, how: u8) {
        let Some(call) = self.asked.take() else {
            return;
        };
        match call {
            Call::Prepare { run } => {
                self.tell(Happened::Preparing(run, "pulling".into()));
                let outcome = match how % 4 {
                    0 => Err(StartError::Rejected("no such image".into())),
                    1 => Err(StartError::Failed("the registry is away".into())),
                    _ => Ok(()),
                };
                self.tell(Happened::Prepared(run, outcome));
            }
            Call::Enter { run } => self.tell(Happened::Entered(run)),
            Call::Start { run } => {
                let outcome = match how % 4 {
                    0 => Err(StartError::Rejected("no such program".into())),
                    1 => Err(StartError::Failed("no memory".into())),
                    _ => Ok(started(self.at())),
                };
                if outcome.is_ok() {
                    self.live.insert(run, true);
                } else {
                    self.live.remove(&run);
                }
                self.tell(Happened::Started(run, outcome));
            }
            Call::Adopt { run } => {
                let outcome = match (self.live.get(&run), how % 4) {
                    (_, 0) => Err("the driver is away".to_owned()),
                    (Some(_), _) => {
                        self.live.insert(run, true);
                        Ok(Adopted::Running {
                            started: started(self.at()),
                            paused: how > 200,
                        })
                    }
                    (None, _) => Ok(Adopted::Gone),
                };
                self.tell(Happened::Adopted(run, outcome));
            }
            _ => {}
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Pass(millis) => {
                self.clock += millis;
                self.happens(Happened::Passed);
            }
            Step::Stop => {
                self.desired.order = Order::Stop {
                    reason: "stopped by alice".into(),
                };
                self.stop_seen = true;
                self.happens(Happened::Ordered);
            }
            Step::Restart => {
                self.desired.restart += 1;
                self.starts_since_order.clear();
                self.happens(Happened::Ordered);
            }
            Step::Return(how) => self.returns(how),
            Step::Exit(code) => self.end(code),
            Step::Double => {
                if let Some(last) = self.last.clone() {
                    self.happens(last);
                }
            }
            Step::Pause(paused) => {
                let run = self.machine.run();
                self.tell(Happened::Paused(run, paused));
            }
            Step::Check(status) => {
                let run = self.machine.run();
                let reason = (status == HealthStatus::Unhealthy).then(|| "503".to_owned());
                self.tell(Happened::Checked(run, Finding { status, reason }));
            }
            Step::Resize(much) => {
                self.desired.task.resources.memory = Bytes::mib(100 + much);
                self.desired.version += 1;
                self.desired.resize += 1;
                self.happens(Happened::Ordered);
            }
            Step::Resized(how) => self.resized(how),
            Step::WaitFails => {
                let run = self.machine.run();
                self.tell(Happened::Ended(run, Err("connection lost".into())));
            }
            Step::Crash => {
                // A start under way ends with the agent, or goes on under the shim.
                let progress = self.machine.progress();
                self.machine = Machine::resumed(progress);
                // What was begun is done; nobody hears of it.
                if let Some((run, limits)) = self.resizing.take() {
                    self.kernel.insert(run, limits);
                }
                self.asked = None;
                self.last = None;
                self.happens(Happened::Ordered);
            }
        }
        self.act();
    }

    fn wanted(&self) -> Resources {
        self.desired.task.resources.clone()
    }

    fn resized(&mut self, how: u8) {
        let Some((run, limits)) = self.resizing.take() else {
            return;
        };
        let outcome = match how % 4 {
            0 => Err(Some("memory limit: it holds more".to_owned())),
            1 => {
                // Half of it was done.
                let half = Resources {
                    pids: Some(7),
                    ..limits.clone()
                };
                self.kernel.insert(run, half);
                Err((how > 100).then(|| "pids limit: no".to_owned()))
            }
            _ => {
                self.kernel.insert(run, limits.clone());
                Ok(Vec::new())
            }
        };
        // A call answers once.
        self.happens(Happened::Resized(run, limits, outcome));
    }

    fn laws_hold(&self) {
        let mut seen: BTreeMap<RunId, (u8, u32)> = BTreeMap::new();
        for report in &self.reports {
            let (rank, ends) = seen.entry(report.run).or_default();
            assert!(report.state.rank() >= *rank, "a run only moves forward");
            *rank = report.state.rank();
            if report.state.is_terminal() {
                *ends += 1;
                assert!(report.ended_at.is_some());
                assert_eq!(*ends, 1, "one terminal report a run");
            } else {
                assert_eq!(*ends, 0, "nothing after the end");
            }
            let checked = report.state == RunState::Running && self.desired.task.health.is_some();
            assert_eq!(report.health.is_some(), checked, "health is of what runs");
            let ranks: Vec<_> = report.passed.iter().map(|state| state.rank()).collect();
            assert!(ranks.is_sorted() && ranks.iter().all(|passed| *passed < report.state.rank()));
            assert!(!(report.will_restart && self.will_not_restart(report)));
        }
        let last = self
            .reports
            .iter()
            .rfind(|report| report.state.is_terminal());
        if self.machine.is_over() {
            let last = last.expect("what is over has said so");
            assert!(!last.will_restart, "a promise of a restart is kept");
            assert!(self.live.is_empty(), "nothing runs on");
        }
    }

    fn will_not_restart(&self, report: &RunReport) -> bool {
        self.desired.task.restart.on == RestartOn::Never && report.state != RunState::Killed
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_law_holds_under_any_order_of_events(
        desired in spec(),
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new(desired);
        world.act();
        for step in steps {
            world.step(&step);
        }
        world.laws_hold();
    }

    #[test]
    fn whatever_happened_what_runs_comes_to_its_limits_and_says_so(
        mut desired in spec(),
        steps in proptest::collection::vec(step(), 0..40),
    ) {
        desired.task.timeout = None;
        let mut world = World::new(desired);
        world.act();
        for step in steps {
            world.step(&step);
        }
        for _ in 0..20 {
            world.step(&Step::Return(3));
            world.step(&Step::Resized(3));
            world.step(&Step::Pass(60_000));
        }
        if world.machine.is_running() {
            let run = world.machine.run();
            prop_assert_eq!(world.kernel.get(&run), Some(&world.wanted()));
            let last = world.reports.iter().rfind(|report| report.run == run).unwrap();
            prop_assert_eq!(&last.limits, &Limits::Hold);
            prop_assert_eq!(last.version, world.desired.version);
        }
        world.laws_hold();
    }

    #[test]
    fn whatever_happened_a_stop_leads_to_the_end(
        desired in spec(),
        steps in proptest::collection::vec(step(), 0..30),
    ) {
        let mut world = World::new(desired);
        world.act();
        for step in steps {
            world.step(&step);
        }
        world.step(&Step::Stop);
        for _ in 0..20 {
            world.step(&Step::Return(3));
            world.step(&Step::Pass(60_000));
        }
        prop_assert!(world.machine.is_over());
        prop_assert_eq!(world.machine.run(), world.reports.last().unwrap().run);
        world.laws_hold();
    }
}
