//! Whether a run can hold other limits where it is.

use loom_schemas::spec::Resources;

use crate::scheduler::{Cause, Room};
use crate::state::Held;

/// Whether a node has room for a run of it that holds `held` to hold `wanted`; why not, if not. Less
/// than before always has room.
pub fn grows(room: &Room, held: &Resources, wanted: &Resources) -> Result<(), Cause> {
    if !room.up {
        return Err(Cause::Down);
    }
    room.has_left(&growth(held, wanted))
}

/// How much more of each is wanted than is held.
fn growth(held: &Resources, wanted: &Resources) -> Held {
    let mut more = Held::of(wanted);
    more.sub(&Held::of(held));
    more
}

/// What a run reserves while its limits change: of each the more, until the new ones hold.
pub(super) fn both(held: &Resources, wanted: &Resources) -> Resources {
    Resources {
        cpu: held.cpu.max(wanted.cpu),
        memory: held.memory.max(wanted.memory),
        disk: held.disk.max(wanted.disk),
        disk_rate: held.disk_rate.max(wanted.disk_rate),
        pids: held.pids.max(wanted.pids),
        ..wanted.clone()
    }
}

/// A node's room once a run of it that held `held` holds `wanted`.
pub fn grown(room: &Room, held: &Resources, wanted: &Resources) -> Room {
    let mut room = room.clone();
    room.held.add(&growth(held, wanted));
    room
}

#[cfg(test)]
mod tests {
    use loom_schemas::units::{Bytes, MilliCores};

    use super::*;
    use crate::state::fixture::{name, with_nodes};

    fn of(cpu: u32, memory: u64) -> Resources {
        Resources {
            cpu: MilliCores(cpu),
            memory: Bytes::mib(memory),
            ..Resources::default()
        }
    }

    /// A node of 4 cores and 8 GiB of which so much is reserved.
    fn room(cpu: u64, memory: u64) -> Room {
        let state = with_nodes(1, 4);
        let room = Room::of(state.node(&name("node-1")).unwrap(), None);
        Room {
            held: Held {
                cpu,
                memory: Bytes::mib(memory).0,
                ..Held::default()
            },
            ..room
        }
    }

    #[test]
    fn a_run_grows_into_what_is_left_and_its_own() {
        let grows = |room: &Room, held, wanted| super::grows(room, &held, &wanted);
        let room_left = room(3000, 7 * 1024);
        assert_eq!(grows(&room_left, of(1000, 1024), of(2000, 2048)), Ok(()));
        assert_eq!(
            grows(&room_left, of(1000, 1024), of(2001, 1024)),
            Err(Cause::Cpu)
        );
        assert_eq!(
            grows(&room_left, of(1000, 1024), of(1000, 2049)),
            Err(Cause::Memory)
        );
        let full = room(5000, 9 * 1024);
        assert_eq!(
            grows(&full, of(1000, 1024), of(1000, 1024)),
            Ok(()),
            "less always fits"
        );
        assert_eq!(grows(&full, of(1000, 1024), of(500, 512)), Ok(()));
        let down = Room {
            up: false,
            ..room_left
        };
        assert_eq!(grows(&down, of(1000, 1024), of(500, 512)), Err(Cause::Down));
    }

    #[test]
    fn until_new_limits_hold_the_larger_ones_are_reserved() {
        assert_eq!(both(&of(2000, 10), &of(1000, 20)), of(2000, 20));
        let after = grown(&room(3000, 100), &of(2000, 10), &of(1000, 20));
        assert_eq!(
            (after.held.cpu, after.held.memory),
            (3000, Bytes::mib(110).0)
        );
    }
}
