//! Other limits for a container that runs.

use bollard::models::ContainerUpdateBody;
use loom_schemas::spec::Resources;
use loom_schemas::units::Bytes;

use super::create::limits;
use super::engine::Engine;
use super::run::Run;
use super::trouble;
use crate::driver::DriverError;
use crate::driver::usage::Groups;

impl Run {
    /// Holds it to other limits; what of them it is not held to, a phrase each.
    pub(super) async fn resize(
        &self,
        engine: &Engine,
        wanted: Resources,
    ) -> Result<Vec<String>, DriverError> {
        if self.has_ended() {
            return Err(self.ended_error());
        }
        self.check_memory(wanted.memory)?;
        let docker = engine.docker().await?;
        let updated = docker.update_container(&self.container.id, body(&wanted));
        if let Err(error) = updated.await {
            let said = trouble::text(&error);
            if trouble::is_missing(&error) || said.contains("is not running") {
                return Err(self.ended_error());
            }
            let refused = trouble::status(&error).is_some();
            return Err(match self.in_use().filter(|used| *used > wanted.memory) {
                Some(used) if refused => too_much(used, wanted.memory),
                _ => engine.failed(&format!("change the limits of run {}", self.id), &error),
            });
        }
        // Of a rate the engine has no say once a container runs.
        let (pid, container) = (self.started.pid, self.container.id.clone());
        let rate = wanted.disk_rate;
        let limit = move || Self::limit_disk(pid, &container, rate);
        Ok(tokio::task::spawn_blocking(limit).await.unwrap_or_default())
    }

    /// Version 2 of control groups would kill what is above a limit that is lowered.
    fn check_memory(&self, limit: Bytes) -> Result<(), DriverError> {
        let groups = self.main.as_ref().map(|main| &main.groups);
        let held = groups.and_then(Groups::held_in_memory);
        match held.map(Bytes).filter(|held| *held > limit) {
            Some(held) => Err(too_much(held, limit)),
            None => Ok(()),
        }
    }

    /// Its memory, as far as it is to be seen from here.
    fn in_use(&self) -> Option<Bytes> {
        self.usage().ok()?.memory.map(Bytes)
    }
}

fn too_much(held: Bytes, limit: Bytes) -> DriverError {
    DriverError::Rejected(format!("memory limit: it holds {held}, more than {limit}"))
}

/// What the engine is told. It takes what is not said, and what is 0, for unchanged.
fn body(wanted: &Resources) -> ContainerUpdateBody {
    let limits = limits(wanted);
    ContainerUpdateBody {
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        cpu_shares: limits.cpu_shares,
        cpu_period: limits.cpu_period,
        // No cap is said as the kernel has it.
        cpu_quota: limits.cpu_quota.or(Some(-1)),
        pids_limit: limits.pids_limit,
        ..ContainerUpdateBody::default()
    }
}

#[cfg(test)]
mod tests {
    use loom_schemas::units::MilliCores;

    use super::*;

    #[test]
    fn the_engine_is_told_every_limit() {
        let mut wanted = Resources {
            cpu: MilliCores(500),
            cpu_limit: Some(MilliCores(1500)),
            memory: Bytes::mib(64),
            pids: Some(9),
            ..Resources::default()
        };
        let told = body(&wanted);
        assert_eq!(told.memory, Some(64 << 20));
        assert_eq!(told.memory_swap, told.memory);
        assert_eq!((told.cpu_shares, told.pids_limit), (Some(512), Some(9)));
        assert_eq!(
            (told.cpu_period, told.cpu_quota),
            (Some(100_000), Some(150_000))
        );
        wanted.cpu_limit = None;
        let told = body(&wanted);
        assert_eq!(
            (told.cpu_period, told.cpu_quota),
            (None, Some(-1)),
            "0 is unchanged"
        );
    }
}
