//! Laws of the machine, under any order of events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::record::{Exit, Order};
use loom_schemas::spec::{RestartOn, RestartSpec, TimeoutSpec, TimeoutWarning};
use loom_schemas::units::Millis;
use loom_schemas::wire::{Assigned, RunReport};
use loom_schemas::words::{HealthStatus, RunState};
use nix::sys::signal::Signal;
use proptest::prelude::*;
use uuid::Uuid;

use super::restart::{CRASH_LOOP, STARTS_MAX};
use super::samples::{self, assigned, image, started};
use super::{Call, Happened, Machine, Moment, StartError};
use crate::driver::{Adopted, Ended};
use crate::health::Finding;

/// What the world may do between two calls of the machine.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Stop,
    Restart,
    /// What was asked of the driver comes back, this way or that.
    Return(u8),
    /// The main process ends.
    Exit(Option<i32>),
    /// The last event comes once more.
    Double,
    Pause(bool),
    /// The health checks come to this.
    Check(HealthStatus),
    /// Waiting fails: the driver has to be asked again.
    WaitFails,
    /// The actor is lost and another one goes on from the node's disk.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..20_000).prop_map(Step::Pass),
        1 => Just(Step::Stop),
        1 => Just(Step::Restart),
        6 => any::<u8>().prop_map(Step::Return),
        4 => proptest::option::of(0..3_i32).prop_map(Step::Exit),
        2 => Just(Step::Double),
        1 => any::<bool>().prop_map(Step::Pause),
        2 => prop_oneof![Just(HealthStatus::Healthy), Just(HealthStatus::Unhealthy)]
            .prop_map(Step::Check),
        1 => Just(Step::WaitFails),
        1 => Just(Step::Crash),
    ]
}

fn spec() -> impl Strategy<Value = Assigned> {
    let on = prop_oneof![
        Just(RestartOn::Any),
        Just(RestartOn::Failure),
        Just(RestartOn::Never)
    ];
    let window = proptest::option::of(1_000_u64..60_000);
    let timeout = proptest::option::of((1_u64..30_000, proptest::option::of(0_u64..40_000)));
    let start = (1_u32..4, 0_u64..3_000, any::<bool>());
    (on, start, window, timeout, 0_u64..5_000, any::<bool>()).prop_map(
        |(on, (attempts, delay, container), window, timeout, grace, health)| {
            let mut assigned = assigned();
            assigned.task.image = container.then(image);
            assigned.task.restart = RestartSpec {
                on,
                attempts,
                delay: Millis(delay),
                max_delay: Millis(4_000),
                window: window.map(Millis),
            };
            assigned.task.timeout = timeout.map(|(after, warn)| TimeoutSpec {
                after: Millis(after),
                warn: warn.map(|before| TimeoutWarning {
                    signal: "USR1".into(),
                    before: Millis(before),
                }),
            });
            assigned.task.stop.grace = Millis(grace);
            assigned.task.health = health.then(samples::health);
            assigned
        },
    )
}

/// A world with one driver, and every law checked as it goes on.
struct World {
    machine: Machine,
    desired: Assigned,
    clock: u64,
    minted: u128,
    /// Runs the driver was asked to start or has running, with whether the program runs.
    live: BTreeMap<RunId, bool>,
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
            Step::WaitFails => {
                let run = self.machine.run();
                self.tell(Happened::Ended(run, Err("connection lost".into())));
            }
            Step::Crash => {
                // A start under way ends with the agent, or goes on under the shim.
                let progress = self.machine.progress();
                self.machine = Machine::resumed(progress);
                self.asked = None;
                self.last = None;
                self.happens(Happened::Ordered);
            }
        }
        self.act();
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
