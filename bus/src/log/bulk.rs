//! Reading much of the log at once.
//!
//! One request an entry costs a round trip and the server's JSON each. A consumer streams, but it
//! may fall silent or be deaf, so it only ever helps: what it delivers is checked like anything
//! else (the next sequence, the chain of checksums), it never reads the end, and whatever it does
//! not deliver is read entry by entry, as before.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use futures::StreamExt as _;
use tokio::time::timeout;
use uuid::Uuid;

use super::replica::{Fold, Replica};
use super::store::{Log, LogError, STREAM};

/// Fewer entries than this are not worth a consumer.
const BULK_FROM: u64 = 256;
/// The last entries are read from the stream's leader itself.
const END: u64 = 32;
/// How long a consumer may be silent, or take to be made, before it is given up.
const SILENCE: Duration = Duration::from_secs(2);
/// Entries, and bytes of them, that are asked for at once; one entry has 6 MB at most.
const BATCH: (usize, usize) = (512, 16 << 20);

impl Log {
    /// Applies what lies well before `last`, if that is much. Whatever goes wrong, what was applied
    /// is as good as if it was read entry by entry.
    pub(super) async fn apply_in_bulk<F: Fold>(
        &self,
        replica: &mut Replica<F>,
        last: u64,
    ) -> Result<(), LogError> {
        let until = last.saturating_sub(END);
        if until < replica.position.sequence + BULK_FROM {
            return Ok(());
        }
        let next = replica.position.sequence + 1;
        let mut messages = match timeout(SILENCE, self.consumer("reader", next, BATCH)).await {
            Ok(Ok(messages)) => messages,
            Ok(Err(error)) => {
                tracing::debug!(%error, "no consumer to read the log with");
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        while replica.position.sequence < until {
            let Ok(Some(Ok(message))) = timeout(SILENCE, messages.next()).await else {
                return Ok(());
            };
            let Ok(info) = message.info() else {
                return Ok(());
            };
            let sequence = info.stream_sequence;
            if sequence != replica.position.sequence + 1 {
                return Ok(());
            }
            let payload = message.payload.clone();
            self.apply(replica, sequence, &payload).await?;
        }
        Ok(())
    }

    /// A consumer of our own that begins with `next`; `name` shows in the server's lists.
    pub(super) async fn consumer(
        &self,
        name: &str,
        next: u64,
        (entries, bytes): (usize, usize),
    ) -> Result<pull::Stream, String> {
        let id = Uuid::now_v7().simple().to_string();
        let config = pull::Config {
            name: Some(format!("{name}-{}", &id[20..])),
            description: Some("follows the log".to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: next,
            },
            ack_policy: AckPolicy::None,
            inactive_threshold: Duration::from_secs(15),
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        let context = self.js.context();
        let made = context.create_consumer_on_stream(config, STREAM).await;
        let consumer: Consumer<pull::Config> = made.map_err(|error| error.to_string())?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(entries)
            .max_bytes_per_batch(bytes)
            .heartbeat(Duration::from_secs(1))
            .expires(Duration::from_secs(30));
        messages.messages().await.map_err(|error| error.to_string())
    }
}
