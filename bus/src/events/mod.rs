//! Events, commands and task output: their streams, the relay from the log, and their history.
//!
//! | room | what is in it |
//! |---|---|
//! | [`relay`] | publishes the events of committed entries, each once, in order |
//! | [`history`] | reads back what was published |

use std::time::Duration;

use async_nats::jetstream::stream::{
    Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType,
};

use crate::connection::Bus;
use crate::stream::{JetStream, StreamError};

pub mod history;
pub mod relay;
mod settled;

pub use history::{History, HistoryError};
pub use relay::{Relay, RelayOptions};

/// The stream of events that the leader publishes from commits.
pub const EVENTS: &str = "ORCH_EVENTS";
/// The stream of events that nodes publish about commands.
pub const COMMANDS: &str = "ORCH_COMMANDS";
/// The stream of task output.
pub const LOGS: &str = "ORCH_LOGS";
/// Header: the number of the event, from 1 without a gap.
pub const HEADER_EVENT: &str = "Orch-Event";

/// How the streams are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepOptions {
    /// How many copies of each stream.
    pub replicas: usize,
    /// How long events and commands are kept.
    pub events_age: Duration,
    /// The most bytes of events, and of commands.
    pub events_bytes: u64,
    /// The most bytes of task output; the oldest goes first.
    pub logs_bytes: u64,
}

impl Default for KeepOptions {
    fn default() -> Self {
        Self {
            replicas: 1,
            events_age: Duration::from_hours(7 * 24),
            events_bytes: 512 << 20,
            logs_bytes: 1 << 30,
        }
    }
}

/// Makes the streams of events, commands and task output if they are not there.
pub async fn ensure_streams(bus: &Bus, keep: &KeepOptions) -> Result<(), StreamError> {
    let js = JetStream::new(bus);
    let of = ["job", "task", "node", "manager", "cluster", "queue"];
    let events = of
        .iter()
        .map(|about| format!("orch.events.{about}.>"))
        .collect();
    let commands = vec!["orch.events.command.>".to_owned()];
    let logs = vec!["orch.logs.>".to_owned()];
    // A deleted event would be a gap in the numbers.
    let mut events = config(keep, EVENTS, events, keep.events_age, keep.events_bytes);
    events.deny_delete = true;
    let commands = config(keep, COMMANDS, commands, keep.events_age, keep.events_bytes);
    let logs = config(keep, LOGS, logs, Duration::ZERO, keep.logs_bytes);
    for config in [events, commands, logs] {
        js.ensure(&config, &["subjects", "retention", "storage", "discard"])
            .await?;
    }
    Ok(())
}

fn config(
    keep: &KeepOptions,
    name: &str,
    subjects: Vec<String>,
    max_age: Duration,
    max_bytes: u64,
) -> Config {
    // Replicated streams refuse it: there the other copies make up for a lost write.
    let persist_mode = (keep.replicas == 1).then_some(PersistenceMode::Async);
    Config {
        name: name.to_owned(),
        subjects,
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        max_age,
        max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
        num_replicas: keep.replicas,
        persist_mode,
        ..Config::default()
    }
}
