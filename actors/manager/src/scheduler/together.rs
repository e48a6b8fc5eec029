//! Many runs with the same request at once: how many fit, why no more do, and when all do.

use jiff::Timestamp;

use super::fits::{DIMENSIONS, Room, fits, has_room};
use super::request::Request;
use super::why::{Cause, WhyNot};

/// How many runs with a request a node has room for at once, at most so many. Whether replicas have to
/// be apart is not looked at.
pub fn how_many(room: &Room, request: &Request, most: usize) -> usize {
    if fits(room, request).is_err() {
        return 0;
    }
    if !request.fixed_ports.is_empty() {
        // The second would want the same port.
        return most.min(1);
    }
    let (free, asked) = (room.free(), request.asked());
    let of_resources = (0..DIMENSIONS).filter_map(|d| free[d].checked_div(asked[d]));
    let of_ports = room.free_ports().checked_div(request.free_ports);
    let named = request.gpus.named.iter();
    let of_gpus = named.filter_map(|(name, count)| room.free_gpus_of(name).checked_div(*count));
    let counts = of_resources.chain(of_gpus.map(u64::from));
    let counts = counts.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    counts.chain(of_ports).fold(most, usize::min)
}

/// How many runs with a request fit some nodes at once, at most so many, and why none fits one more.
pub fn together<'a>(
    rooms: impl IntoIterator<Item = &'a Room>,
    request: &Request,
    most: usize,
) -> (usize, WhyNot) {
    let (mut fit, mut why) = (0, WhyNot::default());
    for room in rooms {
        let here = how_many(room, request, most);
        fit += here;
        if let Err(cause) = fits(room, request) {
            why.count(cause);
            continue;
        }
        let mut full = room.clone();
        for _ in 0..here {
            full.held.add(&request.amounts);
            full.kept_gpus.add(&request.gpus);
        }
        let ports = match request.fixed_ports.first() {
            Some(port) => Cause::PortTaken(*port),
            None => Cause::Ports,
        };
        why.count(has_room(&full, request).err().unwrap_or(ports));
    }
    (fit.min(most), why)
}

/// The earliest of some times, in order, at which something comes to be, which then stays so.
pub fn earliest<T>(
    times: &[Timestamp],
    mut comes_to: impl FnMut(Timestamp) -> Option<T>,
) -> Option<(Timestamp, T)> {
    let last = *times.last()?;
    let mut best = (last, comes_to(last)?);
    // All before `from` are too early, `best` is not.
    let (mut from, mut to) = (0, times.len() - 1);
    while from < to {
        let middle = usize::midpoint(from, to);
        match comes_to(times[middle]) {
            Some(found) => {
                best = (times[middle], found);
                to = middle;
            }
            None => from = middle + 1,
        }
    }
    Some(best)
}
