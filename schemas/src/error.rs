//! The error every request on the bus can be answered with.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of error it is; `loomctl` maps each to an exit code, clients by [`status`](Self::status).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request cannot be read, or says something that makes no sense.
    Invalid,
    /// The caller may not.
    Denied,
    /// There is no such thing.
    NotFound,
    /// It is not as the request supposes: another version, already ended.
    Conflict,
    /// The request is larger or deeper than is taken.
    TooLarge,
    /// The deadline of the request had passed before it was acted on.
    Expired,
    /// Too much is waiting: try again later.
    Busy,
    /// A part of Loom failed; the message says which.
    Internal,
    /// Loom does not do this yet.
    NotYet,
    /// Nobody can answer now: no leader, or the leader is recovering.
    Unavailable,
    /// It was tried and did not work: the program, the driver or the kernel said no.
    Failed,
    /// A code this build does not know, from a newer one.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The number in the `Nats-Service-Error-Code` header, after HTTP's.
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Expired => 410,
            Self::TooLarge => 413,
            Self::Failed => 422,
            Self::Busy => 429,
            Self::Internal | Self::Unknown => 500,
            Self::NotYet => 501,
            Self::Unavailable => 503,
        }
    }

    /// The word as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::TooLarge => "too-large",
            Self::Expired => "expired",
            Self::Busy => "busy",
            Self::Internal => "internal",
            Self::NotYet => "not-yet",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An error as it crosses the bus: `{code, message}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// What kind.
    pub code: ErrorCode,
    /// One line for people: what, where, which value, what was expected, what to do.
    pub message: String,
}

impl WireError {
    /// Makes an error.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Shorthand for [`ErrorCode::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    /// Shorthand for [`ErrorCode::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// Shorthand for [`ErrorCode::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message)
    }
}
