//! Removing what has ended: after starts, and only what is this node's own.

use std::fs;
use std::io;
use std::time::Duration;

use bollard::query_parameters::RemoveContainerOptions;
use loom_schemas::ids::RunId;
use tokio::time::timeout;

use super::run::{directory_of, inspect};
use super::{DockerDriver, Inner, lock, name_of, trouble};
use crate::driver::DriverError;

/// A removal gives way to starts for so long.
const GIVE_WAY: Duration = Duration::from_secs(2);

/// After an end the next start follows within this time, if it does at once.
const NEXT_START: Duration = Duration::from_millis(100);

impl DockerDriver {
    /// Forgets a run that has ended, its files only if told to.
    pub(super) async fn forget(&self, id: RunId, files: bool) -> Result<(), DriverError> {
        let inner = &self.0;
        inner.give_way().await;
        let claim = inner.claim(id);
        let _claimed = claim.lock().await;
        let known = inner.run(id);
        if known.as_ref().is_some_and(|run| !run.has_ended()) {
            return Err(DriverError::Failed {
                context: format!("remove run {id}, which has not ended"),
                source: io::ErrorKind::ResourceBusy.into(),
            });
        }
        if let Some(run) = &known {
            // With the container goes the engine's log of it.
            run.is_written_down().await;
        }
        inner.remove_container(id).await?;
        lock(&inner.runs).remove(&id);
        lock(&inner.images).remove(&id);
        if files {
            let directory = directory_of(&inner.directory, id);
            match fs::remove_dir_all(&directory) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(DriverError::Failed {
                        context: format!("remove {}", directory.display()),
                        source,
                    });
                }
                _ => {}
            }
            inner.forget_claim(id, &claim);
        }
        Ok(())
    }
}

impl Inner {
    /// Lets starts go first: a container that ended costs nothing while it waits to be removed.
    async fn give_way(&self) {
        tokio::time::sleep(NEXT_START).await;
        let mut starting = self.starting.subscribe();
        let idle = starting.wait_for(|starting| *starting == 0);
        let _ = timeout(GIVE_WAY, idle).await;
    }

    /// Removes the container of a run, if it is this node's own.
    async fn remove_container(&self, run: RunId) -> Result<(), DriverError> {
        let known = self.run(run);
        let id = match &known {
            Some(run) => run.container.id.clone(),
            None => match inspect(&self.engine, &name_of(run)).await? {
                Some(found) if self.is_own(&found, run) => found.id.unwrap_or_default(),
                _ => return Ok(()),
            },
        };
        // The semaphore is never closed.
        let _place = self.removals.acquire().await;
        let docker = self.engine.docker().await?;
        let options = RemoveContainerOptions {
            v: true,
            // Also what a start left that failed half-way.
            force: true,
            ..RemoveContainerOptions::default()
        };
        match docker.remove_container(&id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if trouble::is_missing(&error) => Ok(()),
            // Somebody else removes it already.
            Err(error) if trouble::text(&error).contains("already in progress") => Ok(()),
            Err(error) => Err(self.engine.failed("remove a container", &error)),
        }
    }
}
