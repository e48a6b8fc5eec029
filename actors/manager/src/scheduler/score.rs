//! How good a node is for a request: the lower, the better.

use loom_schemas::words::Strategy;

use super::fits::{Request, Room};

/// What one dimension is before a placement: reserved share `u` and the share `d/c` asked for.
struct Share {
    used: f64,
    asked: f64,
}

/// The cost of a request on a node it fits, in a cluster of `machines` nodes.
pub(super) fn cost(strategy: Strategy, machines: usize, room: &Room, request: &Request) -> f64 {
    match strategy {
        Strategy::Epvm => epvm(machines, room, request),
        Strategy::Binpack => 1.0 - fullness(room, request),
        Strategy::Spread => fullness(room, request),
        Strategy::RoundRobin => 0.0,
    }
}

/// The marginal cost of E-PVM: `sum over dimensions of n^u * (n^(d/c) - 1)`, `n` the number of
/// machines, `u` the share in use before, `d/c` the share asked for.
///
/// Y. Amir, B. Awerbuch, A. Barak, R. S. Borgstrom, A. Keren, "An Opportunity Cost Approach for
/// Job Assignment in a Scalable Computing Cluster", IEEE TPDS 11(7), 2000. The power is taken as
/// `exp(u ln n) * expm1((d/c) ln n)`, exact for small shares.
pub(super) fn epvm(machines: usize, room: &Room, request: &Request) -> f64 {
    // With one machine every cost would be 0: any base above 1 ranks.
    #[expect(clippy::cast_precision_loss, reason = "far fewer machines than 2^52")]
    let ln_n = (machines.max(2) as f64).ln();
    shares(room, request)
        .map(|s| (s.used * ln_n).exp() * (s.asked * ln_n).exp_m1())
        .sum()
}

/// The mean share in use after the placement, over the dimensions asked for.
fn fullness(room: &Room, request: &Request) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for share in shares(room, request) {
        sum += share.used + share.asked;
        count += 1.0;
    }
    if count > 0.0 { sum / count } else { 0.0 }
}

fn shares(room: &Room, request: &Request) -> impl Iterator<Item = Share> {
    let capacity = &room.capacity;
    [
        (room.cpu, request.cpu, u64::from(capacity.cpu.0)),
        (room.memory, request.memory, capacity.memory.0),
        (room.disk, request.disk, capacity.disk.0),
    ]
    .into_iter()
    .filter(|(_, asked, all)| *asked > 0 && *all > 0)
    .map(|(used, asked, all)| Share {
        used: ratio(used, all),
        asked: ratio(asked, all),
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share needs no more than 52 bits"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
