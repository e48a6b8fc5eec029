//! The names of message headers, and a read-only view of those of a message.

use async_nats::{HeaderMap, HeaderName, HeaderValue};

use crate::connection::BusError;

/// The form of a payload: see [`crate::codec::Form`].
pub const CONTENT_TYPE: &str = "Content-Type";
/// A command's id; a repeat with the same id is answered from memory.
pub const COMMAND_ID: &str = "Orch-Cmd-Id";
/// The leader's epoch, on what a leader sends.
pub const EPOCH: &str = "Orch-Epoch";
/// When a request is of no more use, RFC 3339; past it the answer is `expired`.
pub const DEADLINE: &str = "Orch-Deadline";
/// The revision a reply was read at.
pub const REVISION: &str = "Orch-Revision";
/// The revision a read waits for.
pub const MIN_REVISION: &str = "Orch-Min-Revision";
/// The version a submission must meet.
pub const IF_VERSION: &str = "Orch-If-Version";
/// What the vars of a submitted job are set to: a JSON object of texts.
pub const SET: &str = "Orch-Set";
/// Seconds after which a request answered `busy` may be repeated.
pub const RETRY_AFTER: &str = "Retry-After";
/// The message of an error reply, after the NATS service protocol.
pub const ERROR: &str = "Nats-Service-Error";
/// The number of an error reply, after HTTP's.
pub const ERROR_CODE: &str = "Nats-Service-Error-Code";
/// What the server says of whoever sent a request through an import.
pub const REQUEST_INFO: &str = "Nats-Request-Info";

/// The headers of a message.
#[derive(Clone, Debug, Default)]
pub struct Headers(Option<HeaderMap>);

impl Headers {
    pub(crate) fn new(map: Option<HeaderMap>) -> Self {
        Self(map)
    }

    /// The first value of a header; names are compared without regard to case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let map = self.0.as_ref()?;
        map.iter()
            .find(|(key, _)| AsRef::<str>::as_ref(*key).eq_ignore_ascii_case(name))
            .and_then(|(_, values)| values.first())
            .map(HeaderValue::as_str)
    }

    /// All first values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter().flat_map(|map| map.iter());
        pairs.filter_map(|(name, values)| {
            let name: &str = name.as_ref();
            values.first().map(|value| (name, value.as_str()))
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(HeaderMap::is_empty)
    }
}

/// Builds headers; a line break or other control character in one is an error, never a panic.
pub(crate) fn build(pairs: &[(&str, String)]) -> Result<HeaderMap, BusError> {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let refused = || BusError::Header {
            name: name.chars().filter(|c| !c.is_control()).take(80).collect(),
        };
        if name.is_empty() {
            return Err(refused());
        }
        let key: HeaderName = name.parse().map_err(|_| refused())?;
        let value: HeaderValue = value.parse().map_err(|_| refused())?;
        map.insert(key, value);
    }
    Ok(map)
}

/// A text as it may stand in a header: one line, of bounded length.
pub(crate) fn one_line(text: &str) -> String {
    const LONGEST: usize = 512;
    text.chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_without_regard_to_case() {
        let map = build(&[("content-type", "application/json".to_owned())]).unwrap();
        let headers = Headers::new(Some(map));
        assert_eq!(headers.get(CONTENT_TYPE), Some("application/json"));
        assert_eq!(headers.get(DEADLINE), None);
    }

    #[test]
    fn a_line_break_in_a_header_is_refused() {
        for (name, value) in [("a", "b\r\nc"), ("a\n", "b"), ("", "b"), ("a:b", "c")] {
            assert!(build(&[(name, value.to_owned())]).is_err(), "{name:?}");
        }
        assert_eq!(one_line("a\r\nb"), "a  b");
    }
}
