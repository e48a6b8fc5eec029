//! Whether there is an engine, and what it says of itself.

use std::path::Path;

use super::DockerOptions;
use super::engine::Engine;
use crate::driver::DriverError;

/// Whether an engine answers at a socket.
pub async fn answers(socket: &Path) -> bool {
    super::engine::ping(socket).await.is_ok()
}

/// What the engine at the usual socket says of itself; an error in words if none answers.
pub async fn host_engine() -> Result<EngineFacts, DriverError> {
    facts(&Engine::new(DockerOptions::new("", "").socket)).await
}

pub(super) async fn facts(engine: &Engine) -> Result<EngineFacts, DriverError> {
    let docker = engine.docker().await?;
    let info = docker.info().await;
    let info = info.map_err(|error| engine.failed("ask the Docker Engine", &error))?;
    let version = info.server_version.unwrap_or_default();
    Ok(EngineFacts {
        version: version.split('+').next().unwrap_or_default().to_owned(),
        live_restore: info.live_restore_enabled == Some(true),
        storage: info.driver.unwrap_or_default(),
    })
}

/// What an engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFacts {
    /// Its version: `20.10.24`.
    pub version: String,
    /// Whether containers survive its restart.
    pub live_restore: bool,
    /// What keeps layers: `overlay2`.
    pub storage: String,
}
