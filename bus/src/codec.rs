//! Payloads: MessagePack with field names, JSON or bare text.
//!
//! What form a payload has is told by the `Content-Type` header, else by its first byte. Before
//! anything is decoded MessagePack is walked once: nesting and declared lengths are checked, so
//! that a few bytes that declare four billion elements cost nothing.

use bytes::Bytes;
use loom_schemas::error::{ErrorCode, WireError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How deep arrays and maps may be nested, in either form.
pub const MAX_DEPTH: usize = 64;

/// What a payload is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Form {
    /// A map with field names.
    #[default]
    MessagePack,
    /// As people and scripts write it.
    Json,
    /// One bare argument, or a job file in YAML or TOML.
    Text,
}

/// A payload that could not be made: the type has a key that is no string, or says no itself.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// MessagePack said no.
    #[error("a message could not be encoded as MessagePack")]
    MessagePack(#[source] rmp_serde::encode::Error),
    /// JSON said no.
    #[error("a message could not be encoded as JSON")]
    Json(#[source] serde_json::Error),
}

/// A payload that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not MessagePack, or not what was expected.
    #[error("not the MessagePack that was expected: {0}")]
    MessagePack(#[source] rmp_serde::decode::Error),
    /// Not JSON, or not what was expected.
    #[error("not the JSON that was expected: {0}")]
    Json(#[source] serde_json::Error),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A length or a marker that the rest of the payload does not bear out.
    #[error("broken MessagePack at byte {offset}: {what}")]
    Broken {
        /// Where.
        offset: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// Bare text where a map was expected.
    #[error("expected a JSON object or a MessagePack map, found bare text")]
    Text,
}

impl From<DecodeError> for WireError {
    fn from(error: DecodeError) -> Self {
        let code = match error {
            DecodeError::TooDeep => ErrorCode::TooLarge,
            DecodeError::MessagePack(_)
            | DecodeError::Json(_)
            | DecodeError::Broken { .. }
            | DecodeError::Text => ErrorCode::Invalid,
        };
        Self::new(code, format!("the request cannot be read: {error}"))
    }
}

impl Form {
    /// Tells the form by the `Content-Type` header, else by the first byte.
    pub fn of(content_type: Option<&str>, payload: &[u8]) -> Self {
        content_type
            .and_then(Self::of_media_type)
            .unwrap_or_else(|| Self::of_first_byte(payload))
    }

    /// The form a media type names; none if it names no form of ours.
    fn of_media_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or("").trim();
        let (kind, subtype) = essence.split_once('/')?;
        let subtype = subtype.to_ascii_lowercase();
        match subtype.as_str() {
            "json" => Some(Self::Json),
            "msgpack" | "x-msgpack" | "vnd.msgpack" => Some(Self::MessagePack),
            "yaml" | "x-yaml" | "toml" => Some(Self::Text),
            _ if subtype.ends_with("+json") => Some(Self::Json),
            _ if kind.eq_ignore_ascii_case("text") => Some(Self::Text),
            _ => None,
        }
    }

    fn of_first_byte(payload: &[u8]) -> Self {
        match payload.first() {
            Some(b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n') => Self::Json,
            Some(0x80..=0x8f | 0xde | 0xdf) => Self::MessagePack,
            _ => Self::Text,
        }
    }

    /// What the `Content-Type` header says of it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::MessagePack => "application/msgpack",
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
        }
    }

    /// The form a reply to a request of this form has: who sends text reads JSON.
    #[must_use]
    pub fn of_reply(self) -> Self {
        match self {
            Self::MessagePack => Self::MessagePack,
            Self::Json | Self::Text => Self::Json,
        }
    }
}

/// Writes a value in a form; text has no structure, so it becomes JSON.
pub fn encode<T: Serialize + ?Sized>(form: Form, value: &T) -> Result<Bytes, EncodeError> {
    match form {
        Form::MessagePack => encode_msgpack(value),
        Form::Json | Form::Text => serde_json::to_vec(value)
            .map(Bytes::from)
            .map_err(EncodeError::Json),
    }
}

/// Writes a value as MessagePack with field names.
pub fn encode_msgpack<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, EncodeError> {
    rmp_serde::to_vec_named(value)
        .map(Bytes::from)
        .map_err(EncodeError::MessagePack)
}

/// Reads a payload of a known form. An empty one reads as the empty map, else as nothing.
pub fn decode<T: DeserializeOwned>(form: Form, payload: &[u8]) -> Result<T, DecodeError> {
    if payload.is_empty() {
        return serde_json::from_str("{}")
            .or_else(|first| serde_json::from_str("null").map_err(|_| first))
            .map_err(DecodeError::Json);
    }
    match form {
        Form::MessagePack => decode_msgpack(payload),
        Form::Json => decode_json(payload),
        Form::Text => Err(DecodeError::Text),
    }
}

/// Reads MessagePack; what follows the value is an error.
pub fn decode_msgpack<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
    walk_msgpack(payload)?;
    rmp_serde::from_slice(payload).map_err(DecodeError::MessagePack)
}

/// Reads JSON; what follows the value is an error.
pub fn decode_json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
    walk_json(payload)?;
    serde_json::from_slice(payload).map_err(DecodeError::Json)
}

/// Checks nesting only: JSON declares no lengths.
fn walk_json(payload: &[u8]) -> Result<(), DecodeError> {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in payload {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(DecodeError::TooDeep);
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// One value of MessagePack as its marker declares it.
enum Token {
    /// So many bytes follow that hold no further value.
    Bytes(usize),
    /// So many values follow.
    Values(usize),
}

/// Checks nesting and that every declared length is there, to the last byte.
fn walk_msgpack(payload: &[u8]) -> Result<(), DecodeError> {
    let broken = |offset, what| DecodeError::Broken { offset, what };
    let mut offset = 0_usize;
    // Values still to come at each level, the outermost first.
    let mut pending: [usize; MAX_DEPTH + 1] = [0; MAX_DEPTH + 1];
    let mut depth = 0_usize;
    pending[0] = 1;
    loop {
        while pending[depth] == 0 {
            if depth == 0 {
                return if offset == payload.len() {
                    Ok(())
                } else {
                    Err(broken(offset, "bytes after the end"))
                };
            }
            depth -= 1;
        }
        pending[depth] -= 1;
        let start = offset;
        match read_token(payload, &mut offset).ok_or(broken(start, "no value"))? {
            Token::Bytes(count) => {
                if count > payload.len() - offset {
                    return Err(broken(start, "longer than the payload"));
                }
                offset += count;
            }
            Token::Values(count) => {
                // Each value takes a byte at least.
                if count > payload.len() - offset {
                    return Err(broken(start, "more values than the payload has bytes"));
                }
                depth += 1;
                *pending.get_mut(depth).ok_or(DecodeError::TooDeep)? = count;
            }
        }
    }
}

/// Reads a marker and its length, leaving `offset` after both; none at the end or when unknown.
fn read_token(payload: &[u8], offset: &mut usize) -> Option<Token> {
    let marker = *payload.get(*offset)?;
    *offset += 1;
    let mut length = |width: usize| -> Option<usize> {
        let field = payload.get(*offset..*offset + width)?;
        *offset += width;
        Some(field.iter().fold(0, |sum, b| (sum << 8) | usize::from(*b)))
    };
    let token = match marker {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Token::Bytes(0),
        0x80..=0x8f => Token::Values(2 * usize::from(marker & 0x0f)),
        0x90..=0x9f => Token::Values(usize::from(marker & 0x0f)),
        0xa0..=0xbf => Token::Bytes(usize::from(marker & 0x1f)),
        0xc1 => return None,
        0xc4 | 0xd9 => Token::Bytes(length(1)?),
        0xc5 | 0xda => Token::Bytes(length(2)?),
        0xc6 | 0xdb => Token::Bytes(length(4)?),
        0xc7 => Token::Bytes(length(1)? + 1),
        0xc8 => Token::Bytes(length(2)? + 1),
        0xc9 => Token::Bytes(length(4)? + 1),
        0xcc | 0xd0 => Token::Bytes(1),
        0xcd | 0xd1 | 0xd4 => Token::Bytes(2),
        0xd5 => Token::Bytes(3),
        0xce | 0xd2 | 0xca => Token::Bytes(4),
        0xd6 => Token::Bytes(5),
        0xcf | 0xd3 | 0xcb => Token::Bytes(8),
        0xd7 => Token::Bytes(9),
        0xd8 => Token::Bytes(17),
        0xdc => Token::Values(length(2)?),
        0xdd => Token::Values(length(4)?),
        0xde => Token::Values(length(2)?.checked_mul(2)?),
        0xdf => Token::Values(length(4)?.checked_mul(2)?),
    };
    Some(token)
}

#[cfg(test)]
mod tests;
