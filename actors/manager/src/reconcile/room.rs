//! Whether a run can hold other limits where it is.

use loom_schemas::spec::Resources;

use crate::scheduler::{Cause, Room};

/// Whether a node has room for a run of it that holds `held` to hold `wanted`; why not, if not. Less
/// than before always has room.
pub fn grows(room: &Room, held: &Resources, wanted: &Resources) -> Result<(), Cause> {
    if !room.up {
        return Err(Cause::Down);
    }
    let over = |all: u64, held: u64, wanted: u64, most: u64| {
        wanted > held && all.saturating_sub(held).saturating_add(wanted) > most
    };
    let (cpu, memory) = (u64::from(room.capacity.cpu.0), room.capacity.memory.0);
    if over(room.cpu, held.cpu.0.into(), wanted.cpu.0.into(), cpu) {
        return Err(Cause::Cpu);
    }
    if over(room.memory, held.memory.0, wanted.memory.0, memory) {
        return Err(Cause::Memory);
    }
    Ok(())
}

/// What a run reserves while its limits change: of each the more, until the new ones hold.
pub(super) fn both(held: &Resources, wanted: &Resources) -> Resources {
    Resources {
        cpu: held.cpu.max(wanted.cpu),
        memory: held.memory.max(wanted.memory),
        disk: held.disk.max(wanted.disk),
        ..wanted.clone()
    }
}

/// A node's room once a run of it that held `held` holds `wanted`.
pub fn grown(room: &Room, held: &Resources, wanted: &Resources) -> Room {
    let after = both(held, wanted);
    Room {
        cpu: room.cpu + u64::from(after.cpu.0) - u64::from(held.cpu.0),
        memory: room.memory + after.memory.0 - held.memory.0,
        ..room.clone()
    }
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
            cpu,
            memory: Bytes::mib(memory).0,
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
        assert_eq!((after.cpu, after.memory), (3000, Bytes::mib(110).0));
    }
}
