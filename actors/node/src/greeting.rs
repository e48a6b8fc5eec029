//! Saying hello: whole where that is a message and a commit, else in parts.

use std::collections::BTreeSet;
use std::time::Duration;

use loom_bus::call::CallError;
use loom_bus::connection::Bus;
use loom_schemas::error::ErrorCode;
use loom_schemas::ids::{Name, RunId};
use loom_schemas::subject;
use loom_schemas::wire::{Hello, HelloPart, RunReport, StatusTaken, Welcome};

/// A part is closed at so many bytes of reports; a single one may have more.
const PART_BYTES: usize = 2 << 20;

/// Says hello and waits for the welcome; each call may take `timeout`. With more than `most` runs
/// it goes in parts, and an error of any of them is one of the whole: the next begins anew.
pub(crate) async fn say(
    bus: &Bus,
    node: &Name,
    hello: Hello,
    most: usize,
    timeout: Duration,
) -> Result<Welcome, CallError> {
    let whole = |hello: Hello| async move {
        let subject = subject::ctl(node, "hello");
        bus.call(&subject, &hello, timeout).await
    };
    let mut parts = parts(hello, most, PART_BYTES).into_iter();
    let Some(first) = parts.next() else {
        // Never: there is a part even of nothing.
        return Err(CallError::NoResponders);
    };
    if parts.len() == 0 {
        return whole(first).await;
    }
    let greeting: u64 = rand::random();
    let mut next = Some(first);
    let mut number = 0;
    let subject = subject::ctl(node, "hello-part");
    while let Some(hello) = next {
        next = parts.next();
        let part = HelloPart {
            greeting,
            part: number,
            last: next.is_none(),
            hello,
        };
        if part.last {
            return bus.call(&subject, &part, timeout).await;
        }
        let taken: Result<StatusTaken, CallError> = bus.call(&subject, &part, timeout).await;
        match taken {
            Ok(StatusTaken { .. }) => number += 1,
            // A leader of before there were parts, who takes what a message holds.
            Err(CallError::Refused(error)) if number == 0 && error.code == ErrorCode::NotFound => {
                let rest = next.into_iter().chain(parts);
                return whole(joined(part.hello, rest)).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(CallError::NoResponders)
}

/// Cuts a hello into parts of at most so many runs and about so many bytes; there is at least one.
/// Live runs come first: a leader whose log is blank sees by them that it lost something.
fn parts(hello: Hello, most: usize, bytes: usize) -> Vec<Hello> {
    let head = Hello {
        runs: Vec::new(),
        holdings: Vec::new(),
        ..hello.clone()
    };
    let (live, ended): (Vec<_>, Vec<_>) = hello
        .runs
        .into_iter()
        .partition(|run| !run.state.is_terminal());
    let mut chunks: Vec<Vec<RunReport>> = vec![Vec::new()];
    let mut filled = 0;
    for run in live.into_iter().chain(ended) {
        let size = size_of(&run);
        match chunks.last_mut() {
            Some(chunk) if chunk.is_empty() || (chunk.len() < most && filled + size <= bytes) => {
                filled += size;
                chunk.push(run);
            }
            _ => {
                filled = size;
                chunks.push(vec![run]);
            }
        }
    }
    let mut holdings = hello.holdings;
    let parts = chunks.into_iter().map(|runs| {
        let named: BTreeSet<RunId> = runs.iter().map(|run| run.placement).collect();
        let (own, rest) = std::mem::take(&mut holdings)
            .into_iter()
            .partition(|held| named.contains(&held.placement));
        holdings = rest;
        Hello {
            runs,
            holdings: own,
            ..head.clone()
        }
    });
    parts.collect()
}

fn joined(first: Hello, rest: impl Iterator<Item = Hello>) -> Hello {
    rest.fold(first, |mut whole, part| {
        whole.runs.extend(part.runs);
        whole.holdings.extend(part.holdings);
        whole
    })
}

/// Bytes of a report in a message.
fn size_of(report: &RunReport) -> usize {
    rmp_serde::to_vec_named(report).map_or(0, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use loom_schemas::wire::Holding;
    use loom_schemas::words::RunState;

    use super::*;
    use crate::testing::{epoch, info, report, run};

    fn hello(runs: Vec<RunReport>) -> Hello {
        Hello {
            cluster: Some("c".to_owned()),
            info: info(),
            epoch: epoch(1, 2),
            generation: 3,
            runs,
            holdings: Vec::new(),
        }
    }

    #[test]
    fn what_fits_stays_whole() {
        for runs in [0, 1, 5] {
            let runs = (0..runs).map(|number| report(number, number, RunState::Running));
            let hello = hello(runs.collect());
            assert_eq!(parts(hello.clone(), 5, PART_BYTES), [hello]);
        }
    }

    #[test]
    fn the_parts_have_all_of_it_live_runs_first() {
        let state = |number: u8| match number % 2 {
            0 => RunState::Failed,
            _ => RunState::Running,
        };
        let mut whole = hello((0..9).map(|n| report(n, n, state(n))).collect());
        let holding = |number: u8| Holding {
            placement: run(number),
            ports: std::collections::BTreeMap::new(),
            gpus: Vec::new(),
            restart: 1,
        };
        whole.holdings = vec![holding(1), holding(8)];
        let one = size_of(&whole.runs[0]);
        for (most, bytes) in [(2, PART_BYTES), (100, one * 2), (1, 1), (100, 1)] {
            let parts = parts(whole.clone(), most, bytes);
            assert!(parts.len() > 4, "{most} {bytes}: {}", parts.len());
            assert!(
                parts
                    .iter()
                    .all(|part| part.generation == 3 && !part.runs.is_empty())
            );
            for part in &parts {
                let has =
                    |held: &Holding| part.runs.iter().any(|run| run.placement == held.placement);
                assert!(part.holdings.iter().all(has));
            }
            let mut parts = parts.into_iter();
            let mut again = joined(parts.next().unwrap(), parts);
            let over: Vec<bool> = again
                .runs
                .iter()
                .map(|run| run.state.is_terminal())
                .collect();
            assert!(over.is_sorted(), "{over:?}");
            again.runs.sort_by_key(|run| run.run);
            assert_eq!(again, whole);
        }
    }
}
