//! What a container left for its result.

use std::io::Read;
use std::sync::Arc;

use bollard::query_parameters::DownloadFromContainerOptions;
use futures::StreamExt as _;
use loom_schemas::spec::RESULT_MAX;

use super::create::RESULT_PATH;
use super::engine::Engine;
use super::trouble;
use crate::driver::{DriverError, Left};

/// The head of a file in an archive, and what fills up its last block.
const ARCHIVE_MORE: usize = 8 * 1024;

/// Reads the file that `$LOOM_RESULT` named, from the archive that the engine makes of it.
pub(super) async fn fetch(engine: &Arc<Engine>, container: &str) -> Result<Left, DriverError> {
    let docker = engine.docker().await?;
    let options = DownloadFromContainerOptions {
        path: RESULT_PATH.to_owned(),
    };
    let mut chunks = Box::pin(docker.download_from_container(container, Some(options)));
    let mut archive = Vec::new();
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => archive.extend_from_slice(&chunk),
            Err(error) if trouble::is_missing(&error) => return Ok(Left::Nothing),
            Err(error) => return Err(engine.failed("read a task's result", &error)),
        }
        // What is longer is no result, however long it is.
        if archive.len() > RESULT_MAX + ARCHIVE_MORE {
            break;
        }
    }
    Ok(of_archive(&archive))
}

fn of_archive(archive: &[u8]) -> Left {
    let mut archive = tar::Archive::new(archive);
    let entry = archive
        .entries()
        .ok()
        .and_then(|mut entries| entries.next());
    let Some(Ok(entry)) = entry else {
        return Left::Wrong("its result cannot be read".to_owned());
    };
    if !entry.header().entry_type().is_file() {
        return Left::Wrong("its result cannot be read: it is no plain file".to_owned());
    }
    let mut bytes = Vec::new();
    // A cut archive holds more than a result may have.
    let _ = entry.take(RESULT_MAX as u64 + 1).read_to_end(&mut bytes);
    Left::of(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_the_first_file_of_the_archive() {
        let archived = |kind: tar::EntryType, contents: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(contents.len() as u64);
            let mut archive = tar::Builder::new(Vec::new());
            archive
                .append_data(&mut header, "result", contents)
                .unwrap();
            of_archive(&archive.into_inner().unwrap())
        };
        let file = tar::EntryType::Regular;
        assert_eq!(archived(file, b"[1]"), Left::Result("[1]".to_owned()));
        assert!(matches!(
            archived(file, &vec![b' '; RESULT_MAX + 1]),
            Left::Wrong(_)
        ));
        assert!(matches!(
            archived(tar::EntryType::Directory, b""),
            Left::Wrong(_)
        ));
        assert!(matches!(of_archive(b""), Left::Wrong(_)));
    }
}
