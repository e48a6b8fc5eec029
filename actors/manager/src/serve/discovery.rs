//! The leader's writes as a NATS micro service: what `nats service list` and its like ask.
//!
//! `$SRV.{PING,INFO,STATS}`, of all services, of those of this name, or of this one alone. Answered
//! while this manager leads, because only a leader serves.

use std::sync::Arc;

use jiff::Timestamp;
use loom_bus::codec::Form;
use loom_bus::connection::{Bus, BusError};
use loom_bus::serve::{Request, ServeLimits, Tally};
use loom_schemas::error::WireError;
use loom_schemas::subject;
use serde_json::{Value, json};

use super::door::{Door, Next, Rest};
use crate::context::AGENT;

/// The service's name; dots are not allowed in one.
const NAME: &str = "orch-job";

/// What it does, for people.
const DESCRIPTION: &str = "Writes to jobs: answered by the leading manager alone";

/// The service as it is now.
#[derive(Debug)]
pub(crate) struct Service {
    /// This leadership of this manager.
    pub(crate) id: String,
    /// The queue group of its endpoints.
    pub(crate) group: String,
    /// Since when it serves.
    pub(crate) started: Timestamp,
    /// Its endpoints by verb, with what became of their requests.
    pub(crate) endpoints: Vec<(&'static str, Arc<Tally>)>,
}

impl Service {
    /// Answers on every subject under which the service is asked for, while the doors are kept.
    pub(crate) async fn answer(self, bus: &Bus) -> Result<Vec<Door>, BusError> {
        let service = Arc::new(self);
        let limits = ServeLimits {
            max_in_flight: 64,
            max_payload: 1024,
            ..ServeLimits::default()
        };
        let mut doors = Vec::new();
        for about in [
            "*".to_owned(),
            format!("*.{NAME}"),
            format!("*.{NAME}.{}", service.id),
        ] {
            let subject = format!("$SRV.{about}");
            let service = Arc::clone(&service);
            let take = move |request: Request| {
                let answer = service.about(request.token(1).unwrap_or_default());
                tokio::spawn(send(request, answer));
                Next::GoOn
            };
            // Every service answers, so what is not answered here is nobody's loss.
            doors.push(Door::serve(bus, &subject, None, limits, Rest::Dropped, take).await?);
        }
        Ok(doors)
    }

    fn about(&self, verb: &str) -> Option<Value> {
        let mut answer = json!({
            "name": NAME,
            "id": self.id,
            "version": AGENT,
            "metadata": {},
        });
        let more = match verb {
            "PING" => json!({ "type": "io.nats.micro.v1.ping_response" }),
            "INFO" => json!({
                "type": "io.nats.micro.v1.info_response",
                "description": DESCRIPTION,
                "endpoints": self.endpoints(|_| json!({ "metadata": {} })),
            }),
            "STATS" => json!({
                "type": "io.nats.micro.v1.stats_response",
                "started": self.started,
                "endpoints": self.endpoints(stats_of),
            }),
            _ => return None,
        };
        merge(&mut answer, more);
        Some(answer)
    }

    fn endpoints(&self, more: impl Fn(&Tally) -> Value) -> Vec<Value> {
        let endpoint = |(verb, tally): &(&'static str, Arc<Tally>)| {
            let mut endpoint = json!({
                "name": verb,
                "subject": subject::job(verb),
                "queue_group": self.group,
            });
            merge(&mut endpoint, more(tally));
            endpoint
        };
        self.endpoints.iter().map(endpoint).collect()
    }
}

/// Times are in nanoseconds, as the protocol has them.
fn stats_of(tally: &Tally) -> Value {
    let seen = tally.look();
    let time = u64::try_from(seen.time.as_nanos()).unwrap_or(u64::MAX);
    let answered = seen.answered.max(1);
    json!({
        "num_requests": seen.requests,
        "num_errors": seen.errors,
        "last_error": seen.last_error,
        "processing_time": time,
        "average_processing_time": time / answered,
    })
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

async fn send(request: Request, answer: Option<Value>) {
    let Some(answer) = answer else {
        let message = "a service is asked for PING, INFO or STATS";
        return request.refuse(WireError::not_found(message)).await;
    };
    // The protocol knows JSON alone.
    let bytes = serde_json::to_vec(&answer).unwrap_or_default();
    request.reply_bytes(bytes.into(), Form::Json, &[]).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service {
            id: "m1-1-42".to_owned(),
            group: "m1".to_owned(),
            started: Timestamp::UNIX_EPOCH,
            endpoints: vec![("stop", Arc::new(Tally::default()))],
        }
    }

    #[test]
    fn it_is_what_the_protocol_of_services_says() {
        let info = service().about("INFO").unwrap();
        assert_eq!(info["type"], "io.nats.micro.v1.info_response");
        assert_eq!(
            (&info["name"], &info["id"]),
            (&json!(NAME), &json!("m1-1-42"))
        );
        assert_eq!(info["endpoints"][0]["subject"], "orch.job.stop");
        let stats = service().about("STATS").unwrap();
        assert_eq!(stats["endpoints"][0]["num_requests"], 0);
        assert_eq!(stats["started"], "1970-01-01T00:00:00Z");
        assert!(service().about("DANCE").is_none());
    }
}
