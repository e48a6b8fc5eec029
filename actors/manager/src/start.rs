//! Starting and stopping a manager.

use loom_schemas::ids::Name;

use crate::options::ManagerOptions;

/// Why a manager could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bus cannot be reached, is too old, or refuses the login.
    #[error("cannot reach the bus")]
    Connect(#[from] loom_bus::ConnectError),
    /// The data directory cannot be made or written.
    #[error("cannot use the data directory {path}")]
    DataDirectory {
        /// Which.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// An actor did not come up.
    #[error("the manager's actors did not start: {0}")]
    Actors(String),
}

/// A manager that was started; dropping the handle leaves it running.
#[derive(Debug)]
pub struct ManagerHandle {
    name: Name,
}

/// Starts a manager: resolves once it follows the log, as standby or as leader.
pub async fn start(options: ManagerOptions) -> Result<ManagerHandle, StartError> {
    let _ = options;
    Err(StartError::Actors("not yet".to_owned()))
}

impl ManagerHandle {
    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Whether it leads now.
    pub fn leads(&self) -> bool {
        false
    }

    /// Says bye, hands over and ends; what was not durable is answered `unavailable`.
    pub async fn stop(self) {}

    /// Ends at once without a word, as a crash would: for tests of fail-over.
    pub async fn kill(self) {}

    /// Resolves when the manager has ended for good, with the reason if it was not asked to.
    pub async fn stopped(&self) -> Option<String> {
        None
    }
}
