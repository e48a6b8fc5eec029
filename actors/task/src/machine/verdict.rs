//! What the end of a run means.

use loom_schemas::record::Exit;
use loom_schemas::units::{Bytes, Millis};
use loom_schemas::wire::Assigned;
use loom_schemas::words::RunState;
use nix::sys::signal::Signal;

use super::restart::Cause;
use super::{End, Live, Moment};
use crate::driver::{Ended, Left};

/// Why a run is being ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is no longer wanted; the reason in words.
    Ordered(String),
    /// It is restarted in place.
    Restart,
    /// Its time limit passed.
    TimedOut(Millis),
    /// Its files take so many bytes, more than they may.
    Disk(u64),
    /// Its health checks failed; the last failure in words.
    Unhealthy(String),
}

impl Why {
    /// Whether a run is to end now.
    pub(super) fn now(
        live: &Live,
        stopped: Option<&String>,
        restart_done: u32,
        desired: &Assigned,
        now: Moment,
    ) -> Option<Self> {
        if let Some(reason) = stopped {
            return Some(Self::Ordered(reason.clone()));
        }
        let timeout = desired.task.timeout.as_ref();
        match timeout {
            Some(timeout) if now.clock >= live.reaches(timeout.after.into()) => {
                Some(Self::TimedOut(timeout.after))
            }
            _ => live
                .over_disk
                .map(Self::Disk)
                .or_else(|| (desired.restart > restart_done).then_some(Self::Restart)),
        }
    }
}

/// Judges the end of a run.
pub(super) fn verdict(why: Option<&Why>, ended: &Ended, ran: bool, desired: &Assigned) -> End {
    let mut exit = ended.exit.clone();
    let (state, reason, cause) = match why {
        Some(Why::TimedOut(after)) => {
            exit.timed_out = true;
            let reason = format!("timed out after {after}");
            (RunState::Failed, Some(reason), Cause::Failed)
        }
        Some(Why::Disk(taken)) => {
            let limit = desired.task.resources_of(&desired.slot.index).disk;
            let taken = Bytes(*taken);
            let reason = format!("disk: its files take {taken}, more than the {limit} of `disk`");
            (RunState::Failed, Some(reason), Cause::Failed)
        }
        Some(Why::Ordered(reason)) => (RunState::Killed, Some(reason.clone()), Cause::Hopeless),
        Some(Why::Unhealthy(reason)) => {
            let reason = format!("unhealthy: {reason}");
            (RunState::Failed, Some(reason), Cause::Failed)
        }
        Some(Why::Restart) => (RunState::Killed, Some("restarted".to_owned()), Cause::Asked),
        None if !ran => {
            let reason = ended.reason.clone();
            let reason = reason.unwrap_or_else(|| "it could not be started".to_owned());
            (RunState::Rejected, Some(reason), Cause::Failed)
        }
        None => match (
            by_itself(&exit, ended.reason.as_deref(), desired),
            &ended.left,
        ) {
            ((RunState::Completed, ..), Left::Wrong(why)) => {
                (RunState::Failed, Some(why.clone()), Cause::Failed)
            }
            (verdict, _) => verdict,
        },
    };
    let result = match &ended.left {
        Left::Result(text) if state == RunState::Completed => Some(text.clone()),
        _ => None,
    };
    End {
        state,
        reason,
        exit: (ran || exit != Exit::default()).then_some(exit),
        result,
        at: ended.at,
        cause,
    }
}

fn by_itself(
    exit: &Exit,
    reason: Option<&str>,
    desired: &Assigned,
) -> (RunState, Option<String>, Cause) {
    if exit.code == Some(0) && exit.signal.is_none() {
        let child = exit
            .out_of_memory
            .then(|| out_of_memory("a child process", desired));
        return (RunState::Completed, child, Cause::Completed);
    }
    let reason = if exit.out_of_memory {
        out_of_memory("it", desired)
    } else if let Some(reason) = reason {
        reason.to_owned()
    } else if let Some(number) = exit.signal {
        match Signal::try_from(number) {
            Ok(signal) => format!("ended by {signal}"),
            Err(_) => format!("ended by signal {number}"),
        }
    } else if let Some(code) = exit.code {
        format!("exit code {code}")
    } else {
        "ended, and its exit code is not known".to_owned()
    };
    (RunState::Failed, Some(reason), Cause::Failed)
}

fn out_of_memory(who: &str, desired: &Assigned) -> String {
    let limit = desired.task.resources_of(&desired.slot.index).memory;
    format!("out of memory: {who} was killed at the limit of {limit}")
}
