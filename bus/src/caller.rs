//! Who sent a request, as the server knows them.
//!
//! A request that came through a service import carries `Nats-Request-Info`, written by the
//! server over whatever the client had put there; its reply subject, if it asks for an answer,
//! lies below `_R_.` and is the server's as well. One from within the account has neither: its
//! headers are the client's own words. Only managers and nodes have credentials for that account,
//! so it is called `loom`, and the most that one of them can forge is to be somebody lesser.

use loom_schemas::wire::Caller;
use serde::Deserialize;

use crate::header::{Headers, REQUEST_INFO};

/// How the managers' and nodes' own account is called.
pub const OWN: &str = "loom";

/// Names that mean something else than a user: nobody who comes through an import is called so.
pub const RESERVED: [&str; 5] = [OWN, NODE, SYSTEM, QUEUE, UNKNOWN];

/// How nodes are called that may say only what a node says.
pub const NODE: &str = "node";

/// How the user of the system account is called.
const SYSTEM: &str = "system";

/// How whoever submits through the queue is called.
const QUEUE: &str = "queue";

/// How somebody is called of whom the server says nothing.
const UNKNOWN: &str = "unknown";

/// The prefix of the reply subjects that the server makes for requests through an import.
const IMPORTED_REPLY: &str = "_R_.";

/// The part of `Nats-Request-Info` that Loom reads.
#[derive(Deserialize)]
struct RequestInfo {
    #[serde(default)]
    acc: String,
    #[serde(default)]
    user: String,
    /// With credentials files the user is a public key, and this the name its account signed.
    #[serde(default)]
    name_tag: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    name: String,
}

/// Who sent a request that asks for an answer on `reply`.
pub(crate) fn of_request(reply: Option<&str>, headers: &Headers) -> Caller {
    match reply {
        Some(reply) if reply.starts_with(IMPORTED_REPLY) => {
            imported(headers).unwrap_or_else(nobody)
        }
        Some(_) => own(),
        // A publish has no reply subject to go by: with the server's words it was imported.
        None => imported(headers).unwrap_or_else(own),
    }
}

/// Who published a message that was read from a stream: nobody knows.
///
/// `JetStream` removes what the server says of the sender (2.15.1), so whoever submits through
/// the queue is called by it, and never taken for one of ours.
pub fn of_queued() -> Caller {
    Caller {
        user: QUEUE.to_owned(),
        detail: None,
    }
}

fn own() -> Caller {
    Caller {
        user: OWN.to_owned(),
        detail: None,
    }
}

/// Came through an import, and the server said nothing: nobody who has a right to anything.
fn nobody() -> Caller {
    Caller {
        user: UNKNOWN.to_owned(),
        detail: None,
    }
}

fn imported(headers: &Headers) -> Option<Caller> {
    let info: RequestInfo = serde_json::from_str(headers.get(REQUEST_INFO)?).ok()?;
    let user = [info.name_tag, info.user, info.acc]
        .into_iter()
        .find(|name| !name.is_empty())?;
    if RESERVED.contains(&user.as_str()) {
        return Some(nobody());
    }
    let detail = [info.host, info.name]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    Some(Caller {
        user,
        detail: (!detail.is_empty()).then_some(detail),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(info: &str) -> Headers {
        Headers::new(crate::header::build(&[(REQUEST_INFO, info.to_owned())]).ok())
    }

    #[test]
    fn a_request_through_an_import_is_from_whom_the_server_says() {
        let info = r#"{"acc":"USERS","user":"ada","host":"10.0.0.7","name":"loomctl","rtt":5}"#;
        let caller = of_request(Some("_R_.a.b"), &headers(info));
        assert_eq!(caller.user, "ada");
        assert_eq!(caller.detail.as_deref(), Some("10.0.0.7 loomctl"));
        assert_eq!(of_request(None, &headers(info)).user, "ada");
        let signed = r#"{"acc":"AAAA","user":"UBBB","name_tag":"ada"}"#;
        assert_eq!(of_request(Some("_R_.a"), &headers(signed)).user, "ada");
        let caller = of_request(Some("_R_.a"), &headers(r#"{"acc":"USERS"}"#));
        assert_eq!(caller.user, "USERS");
    }

    #[test]
    fn a_header_on_a_request_from_within_is_not_believed() {
        let forged = headers(r#"{"acc":"USERS","user":"ada"}"#);
        assert_eq!(of_request(Some("_INBOX.a"), &forged).user, OWN);
        assert_eq!(of_request(None, &Headers::default()).user, OWN);
    }

    #[test]
    fn a_user_with_a_name_of_ours_is_nobody() {
        for name in RESERVED {
            let info = format!(r#"{{"acc":"A","user":"U","name_tag":"{name}"}}"#);
            assert_eq!(of_request(Some("_R_.a"), &headers(&info)).user, UNKNOWN);
        }
    }

    #[test]
    fn an_import_that_says_nothing_is_nobody() {
        assert_eq!(
            of_request(Some("_R_.a"), &Headers::default()).user,
            "unknown"
        );
        assert_eq!(of_request(Some("_R_.a"), &headers("{")).user, "unknown");
    }
}
