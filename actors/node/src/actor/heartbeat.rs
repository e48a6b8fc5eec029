//! Saying that the node lives, and what is in use.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use loom_bus::codec::encode_msgpack;
use loom_schemas::subject;
use loom_schemas::wire::{Heartbeat, NodeUsage};

use super::State;
use crate::usage::Meter;

impl State {
    pub(super) fn heartbeat(&self) {
        // One that came after bye would bring the node up again.
        if !self.link.is_connected() || self.is_saying_bye() {
            return;
        }
        let context = Arc::clone(&self.context);
        let (epoch, generation) = {
            let assignment = &self.ledger.assignment;
            (assignment.epoch, assignment.generation)
        };
        let of_tasks = self.usage_of_tasks();
        tokio::spawn(async move {
            let measured = match &context.meter {
                Some(meter) => measured(Arc::clone(meter), &context.data_dir).await,
                None => None,
            };
            let usage = NodeUsage {
                runs: of_tasks.runs,
                ..measured.unwrap_or(of_tasks)
            };
            let heartbeat = Heartbeat {
                at: Timestamp::now(),
                epoch,
                generation,
                usage,
            };
            let Ok(payload) = encode_msgpack(&heartbeat) else {
                return;
            };
            let subject = subject::heartbeat(&context.name);
            if let Err(error) = context.bus.publish(&subject, payload, &[]).await {
                tracing::debug!(%error, "a heartbeat was not sent");
            }
        });
    }

    /// What the running tasks reserve: all there is to say of a node that only plays.
    fn usage_of_tasks(&self) -> NodeUsage {
        let mut usage = NodeUsage::default();
        for place in self
            .ledger
            .places
            .values()
            .filter(|place| place.is_running())
        {
            let assigned = &place.assigned;
            let resources = assigned.task.resources_of(&assigned.slot.index);
            usage.cpu_millis = usage.cpu_millis.saturating_add(resources.cpu.0);
            usage.memory = usage.memory.saturating_add(resources.memory.0);
            usage.disk = usage.disk.saturating_add(resources.disk.0);
            usage.runs = usage.runs.saturating_add(1);
        }
        usage
    }
}

async fn measured(meter: Arc<Mutex<Meter>>, directory: &Path) -> Option<NodeUsage> {
    let directory = directory.to_owned();
    let measured = tokio::task::spawn_blocking(move || {
        let mut meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.usage(&directory)
    });
    measured.await.ok()
}
