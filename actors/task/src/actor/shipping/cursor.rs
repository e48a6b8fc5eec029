//! How far a run's output is shipped, kept in the run's directory.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

use crate::private::OWN_FILE;

const FILE: &str = "shipped";

/// A place between two lines of a run's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The offset in the files of the first line that is not confirmed.
    pub(super) file: u64,
    /// Bytes of text of standard output before it.
    pub(super) stdout: u64,
    /// Bytes of text of standard error before it.
    pub(super) stderr: u64,
    /// Whether the run has ended and all of it is confirmed.
    #[serde(default)]
    pub(super) done: bool,
}

impl Cursor {
    /// Reads it; the beginning if there is none, or none that can be read.
    pub(super) async fn load(directory: &Path) -> Self {
        let text = tokio::fs::read(directory.join(FILE))
            .await
            .unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes it, whole or not at all; a place lost only means lines that come twice.
    pub(super) async fn save(&self, directory: &Path) {
        let Ok(text) = serde_json::to_vec(self) else {
            return;
        };
        let (new, file) = (directory.join("shipped.new"), directory.join(FILE));
        let saved = async {
            let mut options = tokio::fs::OpenOptions::new();
            options.write(true).create(true).truncate(true);
            let mut opened = options.mode(OWN_FILE).open(&new).await?;
            opened.write_all(&text).await?;
            // The file does nothing of that by itself before it is asked.
            opened.flush().await?;
            tokio::fs::rename(&new, &file).await
        };
        if let Err(error) = saved.await {
            // The directory of a run that was removed meanwhile needs no cursor.
            tracing::debug!(path = %file.display(), "not written: {error}");
        }
    }
}
