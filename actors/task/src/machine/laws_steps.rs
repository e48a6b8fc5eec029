//! What can happen to a machine, and the tasks that it happens to.

use loom_schemas::spec::{RestartOn, RestartSpec, TimeoutSpec, TimeoutWarning};
use loom_schemas::units::Millis;
use loom_schemas::wire::Assigned;
use loom_schemas::words::HealthStatus;
use proptest::prelude::*;

use crate::machine::samples::{self, assigned, image};

/// What the world may do between two calls of the machine.
#[derive(Clone, Debug)]
pub(super) enum Step {
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
    /// Other limits are wanted.
    Resize(u64),
    /// A change of limits that was asked for comes back, this way or that.
    Resized(u8),
    /// Waiting fails: the driver has to be asked again.
    WaitFails,
    /// The actor is lost and another one goes on from the node's disk.
    Crash,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
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
        2 => (0..3_u64).prop_map(Step::Resize),
        3 => any::<u8>().prop_map(Step::Resized),
        1 => Just(Step::WaitFails),
        1 => Just(Step::Crash),
    ]
}

pub(super) fn spec() -> impl Strategy<Value = Assigned> {
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
