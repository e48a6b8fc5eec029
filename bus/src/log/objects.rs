//! The bucket that snapshots lie in: a NATS object store, so that `nats object` reads it too.
//!
//! An object is there once its description is: the chunks come first, so a crash leaves at most
//! chunks that nothing names, and the leader sweeps those once they are old.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::stream::{JetStream, StreamError};

/// The bucket.
const BUCKET: &str = "ORCH_SNAPSHOTS";
/// The stream of the bucket, as NATS names it.
pub(super) const STREAM: &str = "OBJ_ORCH_SNAPSHOTS";
/// How long one chunk may take to be written.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a chunk is tried.
const CHUNK_ATTEMPTS: u32 = 5;
/// In an object's description: the BLAKE3 hash of its bytes.
const BLAKE3: &str = "blake3";

/// Objects by name.
#[derive(Clone)]
pub(super) struct Objects {
    js: JetStream,
}

/// What is known of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ObjectInfo {
    pub(super) name: String,
    pub(super) bucket: String,
    pub(super) nuid: String,
    pub(super) size: u64,
    pub(super) chunks: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(default, rename = "mtime", skip_serializing_if = "Option::is_none")]
    modified: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

impl ObjectInfo {
    /// The BLAKE3 hash of the object's bytes, in hexadecimal.
    pub(super) fn blake3(&self) -> &str {
        self.metadata.get(BLAKE3).map_or("", String::as_str)
    }
}

impl Objects {
    pub(super) fn new(js: JetStream) -> Self {
        Self { js }
    }

    /// Makes the bucket if it is not there.
    pub(super) async fn ensure(&self, replicas: usize) -> Result<(), StreamError> {
        let config = Config {
            name: STREAM.to_owned(),
            subjects: vec![format!("$O.{BUCKET}.C.>"), format!("$O.{BUCKET}.M.>")],
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            num_replicas: replicas,
            allow_rollup: true,
            allow_direct: true,
            ..Config::default()
        };
        self.js
            .ensure(&config, &["subjects", "storage", "allow_rollup_hdrs"])
            .await
            .map(drop)
    }

    /// Writes an object from chunks as they come, at most `rate` bytes a second.
    ///
    /// It is there when this returns and not before. A name that is taken is replaced.
    pub(super) async fn put(
        &self,
        name: &str,
        chunks: &mut mpsc::Receiver<Bytes>,
        rate: u64,
    ) -> Result<ObjectInfo, StreamError> {
        let mut info = ObjectInfo {
            name: name.to_owned(),
            bucket: BUCKET.to_owned(),
            nuid: Uuid::now_v7().simple().to_string(),
            ..ObjectInfo::default()
        };
        let (mut sha256, mut blake3) = (Sha256::new(), blake3::Hasher::new());
        let begun = Instant::now();
        while let Some(chunk) = chunks.recv().await {
            sha256.update(&chunk);
            blake3.update(&chunk);
            info.size += chunk.len() as u64;
            info.chunks += 1;
            self.put_chunk(&info.nuid, chunk).await?;
            sleep_until(begun + time_for(info.size, rate)).await;
        }
        info.digest = Some(format!("SHA-256={}", URL_SAFE.encode(sha256.finalize())));
        info.metadata
            .insert(BLAKE3.to_owned(), blake3.finalize().to_hex().to_string());
        info.modified = Some(Timestamp::now());
        Ok(info)
    }

    /// Makes a written object visible under its name.
    pub(super) async fn publish(&self, info: &ObjectInfo) -> Result<(), StreamError> {
        let text = serde_json::to_vec(info).map_err(StreamError::Answer)?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", "sub");
        let subject = meta_subject(&info.name);
        self.js
            .append(&subject, headers, text.into(), None, CHUNK_TIMEOUT)
            .await
            .map(drop)
    }

    /// What is known of an object; none if there is none.
    pub(super) async fn info(&self, name: &str) -> Result<Option<ObjectInfo>, StreamError> {
        self.described(&meta_subject(name)).await
    }

    /// All objects.
    pub(super) async fn list(&self) -> Result<Vec<ObjectInfo>, StreamError> {
        let subjects = format!("$O.{BUCKET}.M.>");
        let found = match self.js.info_of_subjects(STREAM, &subjects).await {
            Err(StreamError::NoStream(_)) => return Ok(Vec::new()),
            found => found?,
        };
        let mut objects = Vec::new();
        for subject in found.state.subjects.keys() {
            objects.extend(self.described(subject).await?);
        }
        Ok(objects)
    }

    /// Sends the chunks of an object, at most `rate` bytes a second; ends early if nobody listens.
    pub(super) async fn get(
        &self,
        object: &ObjectInfo,
        into: mpsc::Sender<Bytes>,
        rate: u64,
    ) -> Result<(), StreamError> {
        let subject = chunk_subject(&object.nuid);
        let (mut next, mut size) = (1, 0);
        let begun = Instant::now();
        for _ in 0..object.chunks {
            let Some(chunk) = self.js.next_message(STREAM, &subject, next).await? else {
                return Ok(());
            };
            next = chunk.sequence + 1;
            size += chunk.payload.len() as u64;
            if into.send(chunk.payload).await.is_err() {
                return Ok(());
            }
            sleep_until(begun + time_for(size, rate)).await;
        }
        Ok(())
    }

    /// Deletes an object: first its description, then its chunks.
    pub(super) async fn delete(&self, info: &ObjectInfo) -> Result<(), StreamError> {
        self.js
            .purge_subject(STREAM, &meta_subject(&info.name))
            .await?;
        self.js
            .purge_subject(STREAM, &chunk_subject(&info.nuid))
            .await
    }

    /// Deletes chunks that no description names and that have grown no more since `before`.
    pub(super) async fn sweep(&self, before: Timestamp) -> Result<(), StreamError> {
        let named: BTreeSet<String> = self
            .list()
            .await?
            .iter()
            .map(|info| chunk_subject(&info.nuid))
            .collect();
        let subjects = format!("$O.{BUCKET}.C.>");
        let found = self.js.info_of_subjects(STREAM, &subjects).await?;
        for subject in found
            .state
            .subjects
            .keys()
            .filter(|subject| !named.contains(*subject))
        {
            let last = self.js.last_message(STREAM, subject).await?;
            if last.is_some_and(|chunk| chunk.at < before) {
                self.js.purge_subject(STREAM, subject).await?;
            }
        }
        Ok(())
    }

    async fn described(&self, subject: &str) -> Result<Option<ObjectInfo>, StreamError> {
        let Some(found) = self.js.last_message(STREAM, subject).await? else {
            return Ok(None);
        };
        let info: ObjectInfo =
            serde_json::from_slice(&found.payload).map_err(StreamError::Answer)?;
        Ok((!info.deleted).then_some(info))
    }

    /// A doubled chunk would spoil the object, so one whose answer is lost spoils it too: the
    /// number of chunks is checked when it is read back.
    async fn put_chunk(&self, nuid: &str, chunk: Bytes) -> Result<(), StreamError> {
        let subject = chunk_subject(nuid);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let headers = HeaderMap::new();
            let put = self
                .js
                .append(&subject, headers, chunk.clone(), None, CHUNK_TIMEOUT)
                .await;
            match put {
                Err(StreamError::NoResponders) if attempt < CHUNK_ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                put => return put.map(drop),
            }
        }
    }
}

/// How long so many bytes take at this rate in bytes a second; no time at a rate of 0.
fn time_for(bytes: u64, rate: u64) -> Duration {
    match rate {
        0 => Duration::ZERO,
        rate => Duration::from_micros(bytes.saturating_mul(1_000_000) / rate),
    }
}

fn chunk_subject(nuid: &str) -> String {
    format!("$O.{BUCKET}.C.{nuid}")
}

fn meta_subject(name: &str) -> String {
    format!("$O.{BUCKET}.M.{}", URL_SAFE.encode(name))
}
