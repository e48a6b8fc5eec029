//! How `loomctl` ends: exit codes, and the error that carries one.

use loom_schemas::error::{ErrorCode, WireError};

/// An exit code, by what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Done.
    Done,
    /// An error; a batch job that failed.
    Error,
    /// Accepted, but not all placed or running by the deadline, or rolled back.
    Unplaced,
    /// A plan has something to do.
    Changes,
    /// There is no plan, where lower codes say what it comes to.
    NoPlan,
    /// Some of the addressed tasks failed the command.
    SomeFailed,
    /// There is no such thing.
    NotFound,
    /// The caller may not.
    Denied,
    /// Another version than supposed.
    Conflict,
    /// The bus or a manager does not answer.
    NoAnswer,
    /// The command line makes no sense.
    Usage,
    /// `--timeout` passed.
    TimedOut,
    /// The task's own, with `run --once`.
    Task(u8),
    /// `loomctl` itself failed where the task's own code was expected.
    Own,
}

impl Code {
    /// The number the shell sees.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error | Self::Changes => 1,
            Self::Unplaced => 2,
            Self::SomeFailed => 3,
            Self::NotFound => 4,
            Self::Denied => 5,
            Self::Conflict => 6,
            Self::NoAnswer => 7,
            Self::Usage => 64,
            Self::TimedOut => 124,
            Self::Own => 125,
            Self::NoPlan => 255,
            Self::Task(code) => code,
        }
    }
}

/// Why a command ended otherwise than it should: a line for people and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: Code,
    /// What is printed after `loomctl: `; nothing if all has been said.
    pub(crate) message: Option<String>,
}

impl Failure {
    /// A failure with a line to print.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: Some(message.into()),
        }
    }

    /// A failure of which everything has been printed.
    pub(crate) fn silent(code: Code) -> Self {
        Self {
            code,
            message: None,
        }
    }

    /// Bad usage of the command line.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// Any other error.
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::new(Code::Error, message)
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        let code = match error.code {
            ErrorCode::NotFound => Code::NotFound,
            ErrorCode::Denied => Code::Denied,
            ErrorCode::Conflict => Code::Conflict,
            ErrorCode::Unavailable => Code::NoAnswer,
            ErrorCode::Invalid
            | ErrorCode::TooLarge
            | ErrorCode::Expired
            | ErrorCode::Busy
            | ErrorCode::Internal
            | ErrorCode::NotYet
            | ErrorCode::Failed
            | ErrorCode::Unknown => Code::Error,
        };
        Self::new(code, error.message)
    }
}

/// One line for an error and its causes: `a: b: c`.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_exit_code_of_its_kind() {
        let code = |code| Failure::from(WireError::new(code, "x")).code.number();
        assert_eq!(code(ErrorCode::Invalid), 1);
        assert_eq!(code(ErrorCode::NotFound), 4);
        assert_eq!(code(ErrorCode::Denied), 5);
        assert_eq!(code(ErrorCode::Conflict), 6);
        assert_eq!(code(ErrorCode::Unavailable), 7);
    }

    #[test]
    fn a_chain_names_every_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(
            chain(&Outer(std::io::Error::other("inner"))),
            "outer: inner"
        );
    }
}
